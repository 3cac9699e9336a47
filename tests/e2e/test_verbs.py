"""What people say to a model by an annotation happens, under traffic, without one failed request."""

import pytest

from rollway_testing.scenario import Given, Scenario, Then, When


@pytest.fixture
def when(serving: Scenario) -> When:
    return serving.when


@pytest.fixture
def then(serving: Scenario) -> Then:
    return serving.then


def stable(serving: Scenario) -> str:
    return str(serving.status("prices")["stable"]["revision"])


@pytest.mark.alone
def test_undo_goes_back_without_asking_the_registry_and_retry_goes_forward(
    serving: Scenario, when: When, then: Then
) -> None:
    first = stable(serving)
    with when.traffic_flows():
        when.the_alias_moves_to("2")
        then.it_serves("2")
        second = stable(serving)
        with when.stopped("mlflow"):
            when.somebody_says("undo", first)
            then.it_serves("1")
        assert stable(serving) == first, "the old revision itself serves again"
        then.it_goes_on_serving("1", seconds=10)
        when.somebody_says("retry", second)
        then.it_serves("2")
        then.only_stable_has_pods()
    then.no_request_failed(answered_by={"1", "2"})


def test_restart_replaces_every_pod_and_nothing_else(serving: Scenario, when: When, then: Then) -> None:
    before, pods = serving.status("prices")["stable"], then.pods()
    with when.traffic_flows():
        when.somebody_says("restart", before["revision"])
        then.a_candidate_starts()
        then.it_serves(before["version"])
        then.only_stable_has_pods()
    then.no_request_failed(answered_by={before["version"]})
    assert not pods.keys() & then.pods().keys()
    after = serving.status("prices")["stable"]
    assert (after["version"], after["digest"]) == (before["version"], before["digest"])


def test_a_paused_model_waits_until_it_is_resumed(serving: Scenario, when: When, then: Then) -> None:
    old = str(serving.status("prices")["stable"]["version"])
    new = {"1": "2", "2": "1"}[old]
    when.somebody_says("pause", stable(serving))
    then.it_is("Paused")
    when.the_alias_moves_to(new)
    then.the_target_is(new)
    then.it_goes_on_serving(old, seconds=10)
    assert "canary" not in serving.status("prices")
    when.somebody_says("resume", stable(serving))
    then.it_serves(new)


def test_with_the_manual_policy_a_version_waits_for_promote(given: Given, scenario: Scenario) -> None:
    given.a_model(versions=2)
    given.a_deployment(update_policy="Manual")
    scenario.when.the_alias_moves_to("2")
    command = scenario.then.it_says("Paused", True, "AwaitingPromote", "rollway.dev/promote=")
    scenario.then.it_goes_on_serving("1")
    wanted = scenario.status("prices")["model"]["targetRevision"]
    assert wanted in command, "the message holds the command that goes on"
    scenario.when.somebody_says("promote", wanted)
    scenario.then.it_serves("2")


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(None, id="wiped"),
        pytest.param({"stable": {"revision": "prices-0badc0de", "version": "9"}}, id="forged revision"),
        pytest.param({"stable": {"digest": f"sha256:{0:064x}"}}, id="forged digest"),
    ],
)
def test_a_status_that_is_not_ours_is_made_again_and_traffic_goes_on(
    serving: Scenario, when: When, then: Then, status: dict[str, object] | None
) -> None:
    before = serving.status("prices")["stable"]
    with when.traffic_flows():
        when.the_status_is(status)
        then.it_settles_on(before["version"])
        then.it_goes_on_serving(before["version"], seconds=5)
    then.no_request_failed(answered_by={before["version"]})
    assert serving.status("prices")["stable"] == before
    then.an_event_says("StateRebuilt")
