"""Grafana would show something in every panel: the Prometheus of a cluster has data, of a canary under way."""

import functools
from typing import Any

from rollway_cluster.prometheus import Monitoring
from rollway_testing.monitoring import unanswered
from rollway_testing.scenario import Given, Scenario, Then, When, World
from rollway_testing.waiting import eventually

WAITS: dict[str, Any] = {
    "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
    "analysis": {
        "metrics": [
            {"name": "error-rate", "thresholdRange": {"max": "0.05"}, "minSamples": 10},
            {"name": "latency-p99", "thresholdRange": {"max": "8"}, "minSamples": 10},
        ]
    },
}


def test_every_panel_and_rule_has_data_while_a_canary_waits(
    given: Given, when: When, then: Then, scenario: Scenario, monitoring: Monitoring
) -> None:
    given.a_model(versions=2)
    given.a_deployment(**WAITS)
    with when.traffic_flows():
        when.the_alias_moves_to("2")
        then.it_says("Paused", True, "PauseStep", within=240)
        eventually(
            lambda: unanswered(
                monitoring.query, namespace=scenario.namespace, name="prices", metric="error-rate"
            ),
            lambda missing: missing == {},
            within=180,
            what="every panel and rule has data",
        )


def test_the_targets_that_alerts_miss_are_there(world: World, monitoring: Monitoring) -> None:
    """An alert on an absent target fires for ever where its job has another name."""
    for job in ("rollway-operator", "mlflow"):
        up = functools.partial(monitoring.query, f'up{{job="{job}"}} == 1')
        eventually(up, within=120, what=f"{job} is up")
