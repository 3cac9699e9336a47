"""The registry fails in every way it can: the version that serves goes on, status says why, recovery needs no hand."""

import pytest

from rollway_testing.scenario import Given, Scenario, Then, When


@pytest.fixture(scope="module")
def serving(shared: Scenario) -> Scenario:
    registry = shared.given.a_registry_that_may_fail()
    shared.given.a_model(versions=2)
    shared.given.a_deployment(registry=registry)
    return shared


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("disconnecting", "."),
        ("error", "500"),
        ("html", "(?i)html|json"),
        ("hanging", "(?i)time|second|answer"),
    ],
)
def test_a_registry_that_does_not_answer_changes_nothing(
    serving: Scenario, fault: str, sentence: str
) -> None:
    when, then = serving.when, serving.then
    version = serving.status("prices")["stable"]["version"]
    pods = then.pods()

    when.the_registry_is(fault)
    then.it_says("ModelResolved", False, "RegistryUnreachable", sentence)
    then.an_event_says("RegistryUnreachable")
    then.it_goes_on_serving(version, seconds=3)
    assert then.pods() == pods
    assert (when.faults_shown() or {})[fault] > 0

    when.the_registry_is("none")
    then.it_says("ModelResolved", True, "Resolved")


def test_what_moved_during_an_outage_is_rolled_out_after_it(serving: Scenario) -> None:
    serving.when.the_registry_is("error")
    serving.then.it_says("ModelResolved", False, "RegistryUnreachable")
    serving.when.the_alias_moves_to("2")
    serving.then.it_goes_on_serving("1", seconds=3)
    serving.when.the_registry_is("none")
    serving.then.it_serves("2")


def test_a_deleted_alias_keeps_the_version_until_it_is_set_again(
    given: Given, when: When, then: Then
) -> None:
    given.a_model(versions=2)
    given.a_deployment()
    pods = then.pods()
    when.the_alias_is_deleted()
    then.it_says("ModelResolved", False, "AliasNotFound", "champion")
    then.it_goes_on_serving("1", seconds=3)
    assert then.pods() == pods
    when.the_alias_moves_to("2")
    then.it_serves("2")
    then.it_says("ModelResolved", True, "Resolved")


def test_a_deleted_version_is_served_on(given: Given, when: When, then: Then) -> None:
    given.a_model(versions=2)
    given.a_deployment(version="1")
    pods = then.pods()
    when.the_version_is_deleted("1")
    then.it_says("ModelResolved", False, "VersionNotFound", "1")
    then.it_goes_on_serving("1", seconds=3)
    assert then.pods() == pods
    when.the_spec_changes({"model": {"version": "2"}})
    then.it_serves("2")
