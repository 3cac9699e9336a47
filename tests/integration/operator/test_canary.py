"""Canaries on a real API server: what becomes of good and bad versions, and of all that happens at each step.

The pods only pretend, and so do the callers (kubelet.py). All tellings of this file are told side by side to one
operator, when the first of them is asked for (stage.py); each test says how its own ended.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest

from rollway_testing.controlplane import ControlPlane
from rollway_testing.kubelet import Nature
from rollway_testing.processes import MLflowServer
from rollway_testing.stage import Actor, Stage, Telling, Until
from rollway_testing.stories import OperatorProcess, RegisteredModel, condition
from rollway_testing.tellings import (
    ANALYSIS,
    CALLERS,
    FIFTY,
    LONG,
    PERSON,
    PROMOTION,
    TEN,
    Place,
    at_each_step,
    chosen,
    comes_to,
    ended,
    first,
    held,
    let_go,
    loses_its_status,
    on_its_way,
    seconds,
    stepped,
    targets,
    throughout,
    told,
    version_serves,
    weighs,
)

VERSIONS: Final = 3


@pytest.fixture(scope="module")
def stage(
    plane: ControlPlane, mlflow_server: MLflowServer, registry: str, shared_operator: OperatorProcess
) -> Stage:
    """A namespace, and a model with three versions."""
    model = RegisteredModel(mlflow_server.uri, "canaries")
    for _ in range(VERSIONS):
        model.add_version()
    plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "canaries"}})
    return Stage(plane.api, "canaries", model, shared_operator)


@pytest.fixture(scope="module")
def endings(request: pytest.FixtureRequest, stage: Stage) -> Mapping[str, Exception | None]:
    """How each telling that was chosen has ended."""
    return stage.play(chosen(request))


# ------------------------------------------------------------------------------------------------ good and bad versions


@told
def test_a_good_version_gets_10_then_50_percent_then_all_and_no_request_is_lost(act: Actor) -> Telling:
    yield from first(act, strategy={"canary": {"steps": [{"setWeight": 10}, LONG, {"setWeight": 50}, LONG]}})
    old = (yield seconds(0)).stable["revision"]
    act.point("2")
    # One of three pods: 10 % cannot be had without a Gateway, and status tells the truth.
    seen = yield Until(
        "one of three pods is the canary's",
        lambda seen: seen.shares == [("1", 67), ("2", 33)] and sorted(seen.counts.values()) == [1, 2],
    )
    new = seen.canary["revision"]
    assert seen.canary["weight"] == 10
    assert seen.service is not None
    assert seen.selector == {"rollway.dev/model-deployment": act.story.name}
    assert seen.service["metadata"]["annotations"]["rollway.dev/stable"] == old
    yield weighs(50)
    seen = yield Until("the share is told", lambda seen: seen.shares == [("1", 50), ("2", 50)])
    assert seen.counts == {old: 2, new: 2}
    seen = yield version_serves("2")
    assert seen.history[-1] == ("2", "Promoted", "AnalysisSucceeded")
    assert seen.counts == {old: 2, new: 2}
    assert seen.shares == [("2", 100)]
    (budget,) = act.story.children("PodDisruptionBudget").values()
    assert budget["spec"]["selector"]["matchLabels"]["rollway.dev/revision"] == new
    seen = yield ended("2")
    assert seen.counts == {old: 0, new: 2}
    assert act.lost == 0


BAD: Final = {
    Nature.ERRING: ("AnalysisFailed", "canary error rate"),
    Nature.SLOW: ("AnalysisFailed", "of canary requests"),
    Nature.STALLING: ("CanaryStuck", "none was answered"),
    Nature.DYING: ("CanaryRestarted", "was started again"),
    Nature.GREEDY: ("CanaryOomKilled", "more memory"),
    Nature.FADING: ("CanaryUnready", "was ready and is not"),
}


@told
@pytest.mark.parametrize("nature", BAD)
def test_a_version_that_is_bad_under_traffic_is_rolled_back(act: Actor, nature: Nature) -> Telling:
    reason, words = BAD[nature]
    act.fares("2", nature)
    yield from first(act, predictor={"replicas": 2, "timeout": "2s"})
    act.point("2")
    yield weighs(10)
    seen = yield ended("1")
    assert seen.history[-1] == ("2", "Aborted", reason)
    assert [one["version"] for one in seen.status["rejected"]] == ["2"]
    assert seen.reason("Stalled") == "RolledBack"
    assert words in seen.message("Stalled")
    assert re.search(rf"\({reason}\); rolled back from (10|50) %", seen.message("Stalled"))
    assert seen.shares == [("1", 100)]
    assert condition(seen.status, "Ready")["status"] == "True"
    yield from throughout(4, "it is not tried again", lambda seen: not seen.canary)


@told
@pytest.mark.parametrize(
    ("nature", "reason"),
    [(Nature.BROKEN, "SmokeTestFailed"), (Nature.INCOMPATIBLE, "SignatureIncompatible")],
)
def test_a_version_that_is_bad_before_traffic_gets_none(act: Actor, nature: Nature, reason: str) -> Telling:
    act.fares("2", nature)
    yield from first(act)
    act.point("2")
    yield Until("it is refused", lambda seen: seen.reason("Stalled") == reason)
    seen = yield ended("1")
    assert seen.history[-1] == ("2", "Aborted", reason)
    assert "weight" not in seen.status["model"]["closed"]
    assert act.lost == 0


@told
def test_a_version_whose_signature_is_ignored_goes_on(act: Actor) -> Telling:
    act.fares("2", Nature.INCOMPATIBLE)
    yield from first(act, preTraffic={"signatureCompatibility": "Ignore"})
    act.point("2")
    yield weighs(10)


# ----------------------------------------------------------------------------------------------- the alias at each step


@told
@at_each_step
def test_another_version_takes_its_place(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    act.point("3")
    seen = yield on_its_way("3")
    assert seen.history[-1] == ("2", "Cancelled", "TargetMoved")
    act.story.say("promote-full", seen.canary["revision"])
    seen = yield version_serves("3")
    assert "rejected" not in seen.status
    assert "closed" not in seen.status["model"]
    assert act.lost == 0


@told
@at_each_step
def test_moved_back_it_ends_and_nothing_is_closed(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    act.point("1")
    seen = yield ended("1")
    assert seen.history[-1] == ("2", "Cancelled", "TargetMoved")
    assert "rejected" not in seen.status
    assert "closed" not in seen.status["model"]
    act.point("2")
    yield from let_go(act, place)
    assert act.lost == 0


@told
def test_an_alias_that_flips_ends_where_it_stays(act: Actor) -> Telling:
    yield from first(act)
    for version in "23123121":
        act.point(version)
        yield seconds(2)
    act.point("2")
    seen = yield version_serves("2")
    assert "rejected" not in seen.status
    assert act.lost == 0


# ------------------------------------------------------------------------------------------------ the spec at each step


@told
@at_each_step
def test_a_changed_plan_goes_on_from_the_present_weight(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    revision = (yield seconds(0)).canary["revision"]
    steps = [{"setWeight": 5}, {"setWeight": 30}, {"setWeight": 60}, PERSON]
    act.story.ask(strategy={"canary": {"steps": steps}})
    if place is not PROMOTION:
        act.fares("2", Nature.GOOD)
        seen = yield weighs(60)
        assert seen.canary["revision"] == revision
        seen = yield held("PauseStep")
        assert seen.canary["currentStepIndex"] == 3
        act.story.say("promote", revision)
    else:
        yield from throughout(4, "it is to be promoted", lambda seen: "promoting" in seen.canary)
        act.fares("2", Nature.GOOD)
    seen = yield version_serves("2")
    assert seen.stable["revision"] == revision
    assert act.lost == 0


@told
@at_each_step
def test_changed_pods_start_a_new_canary(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    old = (yield seconds(0)).canary["revision"]
    act.fares("2", Nature.WAITING)
    act.story.ask(predictor={"replicas": 2, "timeout": "9s"})
    seen = yield Until("it is another one", lambda seen: seen.canary.get("revision", old) != old)
    assert seen.canary["version"] == "2"
    assert seen.canary["weight"] == 0
    seen = yield Until("the old one has no pods", lambda seen: seen.counts[old] == 0)
    assert seen.shares == [("1", 100)]
    act.fares("2", Nature.GOOD)
    act.story.say("promote-full", seen.canary["revision"])
    seen = yield version_serves("2")
    assert "rejected" not in seen.status
    assert act.lost == 0


# ---------------------------------------------------------------------------------------------------- persons


@told
@at_each_step
def test_aborted_by_a_person_it_stays_so(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    seen = yield seconds(0)
    act.story.say("abort", seen.canary["revision"])
    seen = yield ended("1")
    assert seen.history[-1] == ("2", "Aborted", "Aborted")
    assert seen.status["model"]["closed"]["reason"] == "Aborted"
    assert seen.reason("Stalled") is None
    yield from throughout(4, "it is not tried again", lambda seen: not seen.canary)
    act.story.say("retry", seen.status["model"]["closed"]["revision"])
    yield on_its_way("2")


@told
@at_each_step
def test_undone_it_is_aborted_and_stable_stays(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    seen = yield seconds(0)
    act.story.say("undo", seen.stable["revision"])
    seen = yield ended("1")
    assert seen.history[-1] == ("2", "Aborted", "Aborted")
    yield from throughout(4, "it is not tried again", lambda seen: not seen.canary)


@told
@at_each_step
def test_promote_leaves_the_step(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    # What a person says needs no evidence.
    act.story.callers(0)
    seen = yield seconds(0)
    act.story.say("promote", seen.canary["revision"])
    if place is TEN:
        yield stepped(50)
        act.story.callers(CALLERS)
    elif place is not FIFTY:
        yield from throughout(4, "no pod is ready", lambda seen: seen.canary["weight"] == place.weight)
        act.story.callers(CALLERS)
        act.fares("2", Nature.GOOD)
    yield version_serves("2")
    assert act.lost == 0


@told
@at_each_step
def test_promoted_in_full_it_takes_over_without_any_evidence(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    act.story.callers(0)
    seen = yield seconds(0)
    act.story.say("promote-full", seen.canary["revision"])
    act.fares("2", Nature.GOOD)
    seen = yield version_serves("2")
    assert seen.counts[seen.stable["revision"]] == 2


@told
@pytest.mark.parametrize(("one", "other"), [("abort", "promote-full"), ("undo", "promote")])
def test_of_two_verbs_at_once_the_safe_one_is_heard(act: Actor, one: str, other: str) -> Telling:
    yield from comes_to(act, TEN)
    seen = yield seconds(0)
    for verb in (one, other):
        role = seen.stable if verb == "undo" else seen.canary
        act.story.annotations[f"rollway.dev/{verb}"] = role["revision"]
    act.story.ask()
    seen = yield ended("1")
    assert seen.history[-1] == ("2", "Aborted", "Aborted")
    assert seen.status["lastHandled"].keys() == {one, other}


@told
@pytest.mark.parametrize("by_spec", [False, True], ids=["verb", "spec"])
def test_while_paused_no_weight_is_raised(act: Actor, by_spec: bool) -> Telling:
    yield from first(act)
    act.point("2")
    yield weighs(10)
    stable = (yield seconds(0)).stable["revision"]
    if by_spec:
        act.story.ask(paused=True)
        seen = yield held("PausedBySpec")
    else:
        act.story.say("pause", stable)
        seen = yield held("PausedByVerb")
    # It may have left its first step before the operator heard it.
    weight = seen.canary["weight"]
    yield from throughout(8, f"it has {weight} %", weighs(weight).holds)
    if by_spec:
        act.story.ask(paused=False)
    else:
        act.story.say("resume", stable)
    yield version_serves("2")
    assert act.lost == 0


@told
@pytest.mark.parametrize("verb", ["abort", "promote"])
def test_in_manual_mode_a_failure_holds_until_a_person_says_more(act: Actor, verb: str) -> Telling:
    act.fares("2", Nature.ERRING)
    yield from first(act, rollback={"mode": "Manual"})
    act.point("2")
    seen = yield held("RollbackHeld")
    assert seen.canary["weight"] == 10
    assert seen.canary["held"]["reason"] == "AnalysisFailed"
    yield from throughout(4, "it has 10 %", weighs(10).holds)
    act.story.say(verb, seen.canary["revision"])
    if verb == "abort":
        seen = yield ended("1")
        assert seen.history[-1] == ("2", "Aborted", "Aborted")
    else:
        yield version_serves("2")


# -------------------------------------------------------------------------------------------------- status and evidence


@told
@at_each_step
def test_with_its_status_wiped_traffic_stays_as_it_is_and_it_goes_on(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    service = (yield seconds(0)).service
    yield from loses_its_status(act, place)
    yield from throughout(4, "the Service is the very same", lambda seen: seen.service == service)
    yield from let_go(act, place)
    assert act.lost == 0


@told
def test_without_requests_it_holds(act: Actor) -> Telling:
    yield from first(act, callers=0)
    act.point("2")
    seen = yield held("EvidenceMissing")
    assert "has 0 of 20 samples at 10 %" in seen.message("Paused")
    yield from throughout(4, "it has 10 %", weighs(10).holds)
    act.story.callers(CALLERS)
    yield version_serves("2")


@told
@pytest.mark.parametrize("becomes", ["Pause", "Promote", "Abort"])
def test_without_requests_the_deadline_decides(act: Actor, becomes: str) -> Telling:
    asked = ANALYSIS | {"deadline": "6s", "onInconclusive": becomes}
    yield from first(act, callers=0, analysis=asked)
    act.point("2")
    if becomes == "Promote":
        seen = yield version_serves("2")
        assert seen.history[-1] == ("2", "Promoted", "Promoted")
    elif becomes == "Abort":
        yield weighs(10)
        seen = yield ended("1")
        assert seen.history[-1] == ("2", "Aborted", "DeadlineExceeded")
        assert "rejected" not in seen.status
        yield from throughout(4, "it is not tried again", lambda seen: not seen.canary)
    else:
        seen = yield held("AnalysisInconclusive")
        assert f"rollway.dev/promote={seen.canary['revision']}" in seen.message("Paused")
        assert seen.canary["weight"] == 10
        act.story.say("promote", seen.canary["revision"])
        yield weighs(50)


# ------------------------------------------------------------------------------------------------------- autoscaling


@told
def test_an_autoscaler_comes_and_goes_while_a_canary_is_under_way(act: Actor) -> Telling:
    yield from comes_to(act, TEN)
    seen = yield seconds(0)
    stable, canary = seen.stable["revision"], seen.canary["revision"]
    pods = act.story.children("Pod").keys()
    scaling = {"minReplicas": 1, "maxReplicas": 4}

    def scaler() -> dict[str, Any] | None:
        return act.story.api.get("HorizontalPodAutoscaler", act.story.name, act.story.namespace)

    for _ in range(2):
        act.story.ask(predictor={"replicas": 2, "autoscaling": scaling})
        yield Until("there is an autoscaler", lambda _: scaler())
        made = scaler()
        assert made is not None
        assert made["spec"]["minReplicas"] == 2
        assert made["spec"]["scaleTargetRef"]["name"] == stable
        act.story.ask(predictor={"replicas": 2})
        yield Until("there is none", lambda _: scaler() is None)
    act.story.ask(predictor={"replicas": 2, "autoscaling": scaling})
    yield Until("there is an autoscaler", lambda _: scaler())
    assert act.story.children("Pod").keys() == pods
    act.story.say("promote-full", canary)
    yield version_serves("2")
    yield Until(
        "it follows the new revision", lambda _: (scaler() or {})["spec"]["scaleTargetRef"]["name"] == canary
    )
    yield Until("it may take pods away again", lambda _: (scaler() or {})["spec"]["minReplicas"] == 1)
    assert act.lost == 0


# -------------------------------------------------------------------------------------------------------- blue-green


@told
def test_blue_green_shows_the_whole_candidate_and_waits_for_a_person(act: Actor) -> Telling:
    def preview() -> str | None:
        found = act.story.api.get("Service", f"{act.story.name}-preview", act.story.namespace)
        return found["spec"]["selector"]["rollway.dev/revision"] if found else None

    strategy = {"blueGreen": {"autoPromotion": False, "scaleDownDelaySeconds": 1}}
    act.story.ask(strategy=strategy, predictor={"replicas": 2})
    seen = yield version_serves("1")
    old = seen.stable["revision"]
    yield Until("the preview shows what serves", lambda _: preview() == old)
    act.story.callers(CALLERS)
    act.point("2")
    seen = yield held("AwaitingPromote")
    new = seen.canary["revision"]
    assert seen.counts == {old: 2, new: 2}
    assert seen.leads_to == old
    assert preview() == new
    act.story.say("promote", new)
    yield version_serves("2")
    yield ended("2")
    act.story.ask(strategy={"rollingUpdate": {}})
    yield Until("there is no preview", lambda _: preview() is None)
    assert act.lost == 0


# ------------------------------------------------------------------------------------------------ what stays rejected


@told
def test_what_was_rejected_stays_so_whatever_is_asked_for_again(act: Actor) -> Telling:
    act.fares("2", Nature.ERRING)
    yield from first(act)
    act.point("2")
    yield Until("it is rejected", lambda seen: "rejected" in seen.status)
    seen = yield ended("1")
    rejected = seen.status["rejected"]
    assert [one["reason"] for one in rejected] == ["AnalysisFailed"]
    # The others are told by the operator that is killed now.
    yield Until("all others have ended", lambda _: act.is_alone, within=600)
    act.operator.kill()
    act.operator.start()
    act.story.ask()
    act.point("2")
    yield from throughout(4, "it is not tried again", lambda seen: not seen.canary)
    for version in ("1", "2"):
        act.point(version)
        yield targets(version)
    yield from throughout(4, "it is not tried again", lambda seen: not seen.canary)
    seen = yield ended("1")
    assert seen.status["rejected"] == rejected
    assert seen.reason("Stalled") == "RolledBack"
