"""Each alert of the charts fires once for real, and ends when its cause does; what that took is printed as a table.

Real rules with their real durations: half an hour and more. `make test-alerts` runs it.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollway_cluster.install import Installation
from rollway_cluster.prometheus import Monitoring
from rollway_cluster.traefik import Gateway
from rollway_testing.alerts import Firing, markdown, provoke_all, waits
from rollway_testing.provocations import NOBODY, NOT_PROVOKED, PROVOCATIONS, Bench
from rollway_testing.registry import NO_IMAGE
from rollway_testing.scenario import Scenario, World

pytestmark = [pytest.mark.thorough, pytest.mark.alone]


@pytest.fixture
def bench(
    world: World,
    monitoring: Monitoring,
    gateway: Gateway,
    installer: Callable[..., Installation],
    scenario: Scenario,
    tmp_path: Path,
) -> Iterator[Bench]:
    """A cluster in which the operator has all that an alert may be about: Gateways, a Prometheus, a receiver."""
    unrouted = Scenario(world, f"{scenario.namespace}-unrouted", tmp_path / "unrouted")
    refused = Scenario(world, f"{scenario.namespace}-refused", tmp_path / "refused")
    with unrouted.running(), refused.running():
        bench = Bench(world, monitoring, gateway, scenario, unrouted, refused)
        evidence = scenario.given.a_prometheus_that_may_fail(monitoring)
        with bench.running():
            try:
                installer(gateway, values=bench.values(evidence), **{NOBODY: NO_IMAGE})
                yield bench
            finally:
                installer()


def test_every_alert_fires_for_real_and_ends(bench: Bench, say: Callable[[str], None]) -> None:
    one_by_one = threading.Lock()

    def tell(text: str) -> None:
        with one_by_one:
            say(text)

    firing = Firing(lambda: bench.monitoring.ask("alerts")["alerts"])
    rows, failures = provoke_all(PROVOCATIONS, bench, firing, tell)
    for line in markdown(rows, NOT_PROVOKED):
        say(line)
    assert failures == []
    assert {row.alert for row in rows} | set(NOT_PROVOKED) == set(waits())
