"""Two operators, one writer: the standby goes on where the leader froze, and traffic does not notice."""

from collections.abc import Iterator

import pytest

from rollway_cluster.local import LocalCluster
from rollway_testing.operator import Operator
from rollway_testing.scenario import Given, Scenario, Then, World
from rollway_testing.waiting import eventually

SECONDS_TO_TAKE_OVER = 20.0


@pytest.fixture
def operator(world: World) -> Iterator[Operator]:
    if not isinstance(world.cluster, LocalCluster):
        pytest.skip("the operator's process is not on this machine")
    with world.operator.replicas(2):
        yield world.operator


@pytest.mark.alone
def test_the_standby_takes_over_from_a_frozen_leader(
    operator: Operator, given: Given, scenario: Scenario, then: Then
) -> None:
    given.a_model(versions=2)
    given.a_deployment()
    with scenario.when.traffic_flows():
        scenario.when.the_alias_moves_to("2")
        then.a_candidate_starts()
        with operator.frozen() as frozen:
            successor = eventually(
                operator.leader,
                lambda holder: holder not in ("", frozen),
                within=SECONDS_TO_TAKE_OVER,
                what="the standby holds the Lease",
            )
            then.it_serves("2")
        then.only_stable_has_pods()
        then.it_goes_on_serving("2", seconds=5)
    assert operator.leader() == successor, "who was frozen does not take the Lease back"
    then.no_request_failed(answered_by={"1", "2"})
