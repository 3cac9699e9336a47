"""A version that cannot serve never gets traffic, the one before goes on, and status says why in one sentence."""

import pytest

from rollway_testing import models
from rollway_testing.scenario import Given, Maker, Scenario, Then, When

BROKEN: dict[str, tuple[Maker, str, str]] = {
    "without-a-file": (models.without_a_file, "ModelLoadFailed", "no file 'model.pkl'"),
    "not-a-model": (models.not_a_model, "NotAModel", "no MLmodel"),
    "needing-a-package": (models.needing_a_package, "MissingPackage", "rollway_absent_package"),
    "exiting-at-load": (models.exiting_at_load, "ModelLoadFailed", "died"),
    "never-ready": (models.never_ready, "ProgressDeadlineExceeded", "did not become ready"),
    "answering-nan": (models.answering_nan, "SmokeTestFailed", "NaN"),
}
DEADLINE = 30


@pytest.fixture(scope="module")
def side_by_side(shared: Scenario) -> Scenario:
    """A ModelDeployment a fault: each serves a good version when its alias moves to the broken one, all at once."""
    for name, (make, _, _) in BROKEN.items():
        shared.given.a_model(name)
        shared.given.a_version(make, model=name)
        shared.given.a_deployment(name, serving=None)
    for name in BROKEN:
        shared.then.it_serves("1", name)
    # Only now: side by side on a small machine, good servers may need longer than this to start.
    shared.when.the_spec_changes({"progressDeadlineSeconds": DEADLINE}, "never-ready")
    for name in BROKEN:
        shared.when.the_alias_moves_to("2", name)
    return shared


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_version_is_refused_and_the_one_before_serves(side_by_side: Scenario, name: str) -> None:
    _, reason, sentence = BROKEN[name]
    then = side_by_side.then
    then.it_says("Stalled", True, reason, f"v2: .*{sentence}", name, within=DEADLINE + 60)
    then.an_event_says(reason, name=name)
    then.it_goes_on_serving("1", name)
    then.only_stable_gets_traffic(name)
    then.only_stable_has_pods(name)
    assert "v1 serves" in side_by_side.status(name)["message"]


def test_a_first_version_that_is_broken_gets_no_traffic_at_all(given: Given, when: When, then: Then) -> None:
    given.a_version(models.answering_nan)
    when.the_alias_moves_to("1")
    given.a_deployment(serving=None)
    then.it_says("Stalled", True, "SmokeTestFailed", "v1: .*NaN")
    then.it_says("Ready", False, "PodsNotReady", "no version serves")
    then.nothing_gets_traffic()


def test_a_model_without_input_example_serves_and_says_that_its_gates_were_skipped(
    given: Given, when: When, then: Then
) -> None:
    given.a_version(lambda folder: models.regressor(folder, 1, input_example=False))
    when.the_alias_moves_to("1")
    given.a_deployment()
    then.it_says("ArtifactVerified", True, "DigestVerified", "no input example")


def test_traffic_does_not_notice_a_broken_version(given: Given, when: When, then: Then) -> None:
    given.a_model()
    given.a_version(models.answering_nan)
    given.a_deployment()
    with when.traffic_flows():
        when.the_alias_moves_to("2")
        then.it_says("Stalled", True, "SmokeTestFailed")
        then.only_stable_has_pods()
    then.no_request_failed(answered_by={"1"})
