"""Another build of the operator takes over without touching what runs, a canary in its middle among it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollway_testing.builds import another_build
from rollway_testing.scenario import Given, Scenario, Then, When, World

CHANGES = {
    "manifests.py": {
        # the pod template
        '"automountServiceAccountToken": False,': '"automountServiceAccountToken": False, "hostname": "upgraded",',
        # a default
        'DEFAULT_TIMEOUT: Final = "30s"': 'DEFAULT_TIMEOUT: Final = "45s"',
        # the hash function
        "hashlib.sha256(": "hashlib.sha1(",
    }
}

STEP = ("revision", "weight", "currentStepIndex", "startedAt", "weightSetAt", "stepStartedAt")


@pytest.fixture
def another(world: World, tmp_path: Path) -> Iterator[str]:
    """The image of another operator; the one under test comes back at the end."""
    image = world.operator.image()
    yield another_build(world.cluster, "operator", tmp_path / "sources", "0.1.0-upgrade", CHANGES)
    world.operator.replace(image)


@pytest.mark.alone
def test_an_upgrade_restarts_nothing_and_reaches_the_next_version(
    given: Given, when: When, then: Then, scenario: Scenario, another: str
) -> None:
    given.a_model(versions=2)
    given.a_deployment(predictor={"replicas": 2})
    pods, revisions = then.pods(), then.revisions()

    scenario.world.operator.replace(another)
    # What only a running operator does proves that the new one has looked at this model.
    when.a_child_is_deleted("Service", "prices")
    then.it_is_restored("Service", "prices")
    then.it_serves("1", replicas=2)
    assert then.pods() == pods
    assert then.revisions() == revisions

    when.the_alias_moves_to("2")
    then.it_serves("2", replicas=2)
    (new,) = then.revisions().keys() - revisions.keys()
    shaped = then.revisions()[new]
    assert shaped["data"]["template"]["spec"]["hostname"] == "upgraded"
    assert shaped["data"]["settings"]["timeoutSeconds"] == 45


@pytest.mark.alone
def test_a_canary_that_one_build_began_another_finishes(
    given: Given, when: When, then: Then, scenario: Scenario, another: str
) -> None:
    given.a_model(versions=2)
    steps = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
    given.a_deployment(predictor={"replicas": 2}, strategy={"canary": {"steps": steps}})
    when.the_alias_moves_to("2")
    then.it_says("Paused", True, "PauseStep", within=120)
    candidate = scenario.status("prices")["canary"]["revision"]
    when.somebody_says("promote", candidate)
    then.it_says("Paused", True, "PauseStep", "50 %", within=120)
    begun, pods = scenario.status("prices")["canary"], then.pods()

    scenario.world.operator.replace(another)
    when.a_child_is_deleted("Service", "prices")
    then.it_is_restored("Service", "prices")
    now = scenario.status("prices")["canary"]
    assert [now[key] for key in STEP] == [begun[key] for key in STEP]
    assert then.pods() == pods

    when.somebody_says("promote-full", begun["revision"])
    then.it_serves("2", replicas=2)
    then.only_stable_has_pods()
    assert then.pods().items() <= pods.items()
    assert len(then.revisions()) == 2
