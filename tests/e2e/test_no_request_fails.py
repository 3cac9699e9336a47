"""Constant traffic over REST and gRPC, kept-alive and fresh, through everything that is done to a serving model."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rollway_cluster.install import Installation
from rollway_testing.builds import another_build
from rollway_testing.scenario import Given, Scenario, Then, When, World


@pytest.fixture
def when(serving: Scenario) -> When:
    return serving.when


@pytest.fixture
def then(serving: Scenario) -> Then:
    return serving.then


@pytest.fixture
def old(serving: Scenario) -> str:
    return str(serving.status("prices")["stable"]["version"])


@pytest.fixture
def new(old: str) -> str:
    return {"1": "2", "2": "1"}[old]


def test_while_the_alias_moves(when: When, then: Then, old: str, new: str) -> None:
    with when.traffic_flows():
        when.the_alias_moves_to(new)
        then.it_serves(new)
        then.only_stable_has_pods()
    then.no_request_failed(answered_by={old, new})


def test_while_replicas_are_added_and_taken_away(when: When, then: Then, old: str) -> None:
    with when.traffic_flows():
        when.it_is_scaled_to(3)
        then.it_serves(old, replicas=3)
        when.it_is_scaled_to(1)
        then.it_serves(old, replicas=1)
        then.it_has_pods(1)
    then.no_request_failed(answered_by={old})


@pytest.mark.alone
def test_while_the_operator_is_killed_in_the_middle_of_a_rollout(
    when: When, then: Then, old: str, new: str
) -> None:
    with when.traffic_flows():
        when.the_alias_moves_to(new)
        then.a_candidate_starts()
        when.the_operator_is_killed()
        then.it_serves(new)
        then.only_stable_has_pods()
    then.no_request_failed(answered_by={old, new})


@pytest.mark.alone
def test_while_mlflow_is_stopped_and_replicas_are_added(when: When, then: Then, old: str, new: str) -> None:
    with when.traffic_flows():
        with when.stopped("mlflow"):
            then.it_says("ModelResolved", False, "RegistryUnreachable")
            when.it_is_scaled_to(2)
            then.it_serves(old, replicas=2)
        then.it_says("ModelResolved", True, "Resolved")
        when.it_is_scaled_to(1)
        when.the_alias_moves_to(new)
        then.it_serves(new, replicas=1)
        then.only_stable_has_pods()
    then.no_request_failed(answered_by={old, new})


@pytest.fixture
def abrupt(world: World, installer: Callable[..., Installation], tmp_path: Path) -> str:
    """A runtime whose server ends at once when it is told to stop."""
    at_once = {"process.py": {"    life.told_to_stop()\n": "    os._exit(0)\n"}}
    image = another_build(world.cluster, "mlserver", tmp_path / "sources", "0.1.0-abrupt", at_once)
    installer(abrupt=image)
    return "abrupt"


@pytest.mark.alone
def test_the_judge_sees_the_requests_that_fail_without_the_drain(
    given: Given, scenario: Scenario, abrupt: str
) -> None:
    given.a_model(versions=2)
    given.a_deployment(predictor={"runtime": abrupt, "replicas": 3})
    with scenario.when.traffic_flows(rate=50):
        scenario.when.the_alias_moves_to("2")
        scenario.then.it_serves("2", replicas=3)
        scenario.then.only_stable_has_pods()
        scenario.when.it_is_scaled_to(1)
        scenario.then.it_has_pods(1)
    scenario.then.requests_failed()
