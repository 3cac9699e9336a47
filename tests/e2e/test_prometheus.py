"""Evidence from the Prometheus of a real cluster: the same verdicts as from the pods, and none while it is gone."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from rollway_cluster.demo import how_it_ended
from rollway_cluster.install import Installation
from rollway_cluster.prometheus import NAME, Monitoring
from rollway_cluster.traefik import Gateway
from rollway_testing import models
from rollway_testing.scenario import Given, Scenario, Then, When, World
from rollway_testing.stories import condition
from rollway_testing.waiting import eventually, throughout

pytestmark = pytest.mark.alone

STEPS: Final = [{"setWeight": 50}, {"pause": {"duration": "5s"}}]
SPEC: Final[dict[str, Any]] = {
    "strategy": {"canary": {"steps": STEPS}},
    "analysis": {"metrics": [{"name": "error-rate", "thresholdRange": {"max": "0.05"}, "minSamples": 10}]},
}
SECONDS_TO_END: Final = 300.0
SECONDS_TO_SEE: Final = 120.0


@pytest.fixture(scope="module", autouse=True)
def through_prometheus(
    world: World, monitoring: Monitoring, gateway: Gateway, installer: Callable[..., Installation]
) -> Iterator[None]:
    """The operator reads evidence from Prometheus, and from nothing else, until the end of this file."""
    told = {"url": monitoring.url, "staleSeconds": 30, "gatewayErrors": "traefik"}
    installer(gateway, values={"prometheus": told})
    world.operator.pod()
    yield
    installer()


@pytest.fixture
def without_prometheus(world: World, monitoring: Monitoring) -> Iterator[Callable[[], None]]:
    """Take Prometheus' pods away; they come back at the end."""

    def scale(replicas: int) -> None:
        patch = f'{{"spec":{{"replicas":{replicas}}}}}'
        world.client.run(
            "patch",
            "prometheus",
            NAME,
            f"--namespace={monitoring.namespace}",
            "--type=merge",
            f"--patch={patch}",
        )
        eventually(
            lambda: world.kubernetes.list(
                "Pod", monitoring.namespace, {"app.kubernetes.io/name": "prometheus"}
            ),
            lambda pods: len(pods) == replicas,
            within=SECONDS_TO_SEE,
            what=f"Prometheus has {replicas} pods",
        )

    yield lambda: scale(0)
    scale(1)
    eventually(lambda: answers(monitoring), within=SECONDS_TO_SEE, what="Prometheus answers again")


def answers(monitoring: Monitoring) -> bool:
    try:
        return bool(monitoring.query("vector(1)"))
    except Exception:  # noqa: BLE001 - whatever says that it does not
        return False


def ended(scenario: Scenario) -> dict[str, Any]:
    entry = eventually(
        lambda: how_it_ended(scenario.deployment("prices"), "2"),
        bool,
        within=SECONDS_TO_END,
        what="the rollout of v2 ends",
        told=lambda _: scenario.status("prices"),
    )
    assert entry is not None
    return entry


def test_a_good_version_is_promoted_by_what_was_scraped(
    given: Given, when: When, then: Then, gateway: Gateway
) -> None:
    given.a_model(versions=2)
    given.a_deployment(**SPEC)
    with when.traffic_flows(gateway=gateway):
        when.the_alias_moves_to("2")
        then.it_settles_on("2", within=SECONDS_TO_END)
    then.no_request_failed(answered_by={"1", "2"})
    assert ended(given.scenario)["reason"] == "AnalysisSucceeded"


def test_a_bad_version_is_rolled_back_by_what_was_scraped(given: Given, when: When, gateway: Gateway) -> None:
    given.a_model()
    given.a_deployment(**SPEC)
    given.a_version(functools.partial(models.erroring, number=2, share=0.5))
    with when.traffic_flows(gateway=gateway):
        when.the_alias_moves_to("2")
        entry = ended(given.scenario)
    assert (entry["outcome"], entry["reason"]) == ("Aborted", "AnalysisFailed")


def test_what_a_canary_did_not_answer_the_gateway_has_counted(
    given: Given, when: When, monitoring: Monitoring, gateway: Gateway
) -> None:
    """A server that ends in the middle of a request counts nothing of it; Traefik tells whose it was."""
    given.a_model()
    given.a_deployment(**SPEC)
    given.a_version(functools.partial(models.crashing, number=2, after=3))
    with when.traffic_flows(gateway=gateway):
        when.the_alias_moves_to("2")
        entry = ended(given.scenario)
        backend = (
            f"httproute-{given.scenario.namespace}-prices-gw-{gateway.namespace}-{gateway.http}-ep-.+"
            f"-[0-9a-f]{{20}}-svc-{given.scenario.namespace}-{entry['revision']}-[0-9]+@kubernetesgateway"
        )
        counted = f'traefik_service_requests_total{{namespace="{gateway.namespace}",code="502",service=~"{backend}"}}'
        # Its series end with the route's backend, after one more scrape.
        eventually(
            lambda: monitoring.query(f"max_over_time({counted}[10m])"),
            bool,
            within=SECONDS_TO_SEE,
            what="Prometheus has the requests that Traefik got no answer to",
        )
    # Whoever sees it first: the pod's status, or two scrapes.
    assert (entry["outcome"], entry["reason"] in ("CanaryRestarted", "CanaryGatewayErrors")) == (
        "Aborted",
        True,
    )


def test_while_prometheus_is_gone_a_canary_holds(
    given: Given, when: When, then: Then, gateway: Gateway, without_prometheus: Callable[[], None]
) -> None:
    given.a_model(versions=2)
    given.a_deployment(**SPEC)
    without_prometheus()
    with when.traffic_flows(gateway=gateway):
        when.the_alias_moves_to("2")
        then.it_says("Paused", True, "EvidenceMissing", within=SECONDS_TO_END)
        status = given.scenario.status("prices")
        [result] = status["analysis"]["metricResults"]
        assert (result["phase"], result["reason"]) == ("Inconclusive", "ProviderError")
        assert "Prometheus" in condition(status, "Paused")["message"]
        throughout(
            lambda: given.scenario.status("prices"),
            lambda seen: seen["stable"]["version"] == "1" and seen["canary"]["weight"] == 50,
            seconds=20,
            what="the canary keeps its weight",
        )
    then.no_request_failed(answered_by={"1", "2"})
