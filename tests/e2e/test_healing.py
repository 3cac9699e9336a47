"""What others do to a model's children is undone; what a ModelDeployment had goes with it."""

import pytest

from rollway_testing.scenario import Given, Scenario, Then, When


@pytest.fixture
def revision(serving: Scenario) -> str:
    return str(serving.status("prices")["stable"]["revision"])


def test_a_service_pointed_elsewhere_points_back(serving: Scenario, revision: str) -> None:
    serving.when.a_child_is_edited(
        "Service", "prices", {"spec": {"selector": {"rollway.dev/revision": "other"}}}
    )
    serving.then.it_is_restored(
        "Service", "prices", lambda found: found["spec"]["selector"]["rollway.dev/revision"] == revision
    )
    serving.then.it_serves("1")


def test_a_changed_pin_is_put_right(serving: Scenario, revision: str) -> None:
    digest = serving.status("prices")["stable"]["digest"]
    serving.when.a_child_is_edited("ConfigMap", revision, {"data": {"digest": "", "more": "x"}})
    serving.then.it_is_restored("ConfigMap", revision, lambda found: found["data"]["digest"] == digest)


def test_a_changed_pod_template_is_put_right(serving: Scenario, revision: str) -> None:
    changed = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}
    before = serving.world.kubernetes.get("Deployment", revision, serving.namespace)
    assert before is not None
    serving.when.a_child_is_edited("Deployment", revision, changed)
    serving.then.it_is_restored(
        "Deployment", revision, lambda found: found["spec"]["template"] == before["spec"]["template"]
    )
    serving.then.it_serves("1")


def test_a_count_written_past_the_modeldeployment_is_put_right(serving: Scenario, revision: str) -> None:
    serving.when.a_child_is_edited("Deployment", revision, {"spec": {"replicas": 0}})
    serving.then.it_is_restored("Deployment", revision, lambda found: found["spec"]["replicas"] == 1)
    serving.then.it_serves("1")


@pytest.mark.parametrize("kind", ["Service", "ConfigMap", "ControllerRevision", "Deployment"])
def test_a_deleted_child_is_made_again(serving: Scenario, revision: str, kind: str) -> None:
    name = "prices" if kind == "Service" else revision
    serving.when.a_child_is_deleted(kind, name)
    serving.then.it_is_restored(kind, name)
    serving.then.it_serves("1")


def test_everything_goes_with_the_modeldeployment(given: Given, when: When, then: Then) -> None:
    given.a_model()
    given.a_deployment()
    when.it_is_deleted()
    then.nothing_is_left()
