"""Canaries in a world of memory: what becomes of good and bad versions, and of what happens at each step."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from rollway_operator.analysis import Stratum, Stuck, Tally, Window
from rollway_operator.domain import Progress, StoredRevision, Track
from rollway_operator.rollout import Judgement, Situation, canary_stuck
from rollway_testing.world import BEFORE_TRAFFIC, Nature, World

STEPS = [{"setWeight": 10}, {"pause": {"duration": "10s"}}, {"setWeight": 50}, {"pause": {"duration": "10s"}}]

Judge = Callable[[World], bool]


def canary(*, gateway: bool = True, replicas: int = 3, nature: Nature = Nature.GOOD, **spec: Any) -> World:
    """Give a world in which version 1 serves callers, and version 2 is of some nature."""
    world = World(natures={"2": nature, "3": Nature.GOOD}, gateway=gateway)
    world.spec = {
        "model": {"name": "fraud", "alias": "champion"},
        "predictor": {"replicas": replicas},
        "strategy": {"canary": {"steps": STEPS}},
    } | spec
    world.settle()
    world.rate = 20
    return world


def goes_on(world: World, until: Judge, seconds: int = 400) -> int:
    for second in range(seconds):
        if until(world):
            return second
        world.reconcile()
        world.tick()
    raise AssertionError(f"not within {seconds} s: {world.status}")


def weighs(weight: int) -> Judge:
    return lambda world: bool(world.status.get("canary", {}).get("weight") == weight)


def starting(world: World) -> bool:
    return "canary" in world.status


def promoting(world: World) -> bool:
    return "promoting" in world.status.get("canary", {})


def ended(world: World) -> bool:
    return bool(world.status["model"]["targetVersion"] == world.target and "canary" not in world.status)


def serves(version: str) -> Judge:
    return lambda world: ended(world) and world.served_version == version


AT_EACH_STEP = {"gates": starting, "10 %": weighs(10), "50 %": weighs(50), "promotion": promoting}


@pytest.fixture(params=AT_EACH_STEP, ids=str)
def at(request: pytest.FixtureRequest) -> Judge:
    """Every place of a canary's way."""
    return AT_EACH_STEP[request.param]


@pytest.fixture(params=[True, False], ids=["gateway", "ratio"])
def gateway(request: pytest.FixtureRequest) -> bool:
    """Both ways of sharing traffic."""
    return bool(request.param)


def under_way(at: Judge, gateway: bool, **spec: Any) -> World:
    world = canary(gateway=gateway, **spec)
    world.target = "2"
    goes_on(world, at)
    return world


# ---------------------------------------------------------------------------------------- good and bad versions


def test_a_good_version_is_promoted_and_no_request_fails(gateway: bool) -> None:
    world = canary(gateway=gateway)
    world.target = "2"
    goes_on(world, serves("2"))
    assert world.status["history"][-1]["reason"] == "AnalysisSucceeded"
    assert not any(world.failed.values())
    events = [event for event in world.events if event in ("RolloutStarted", "StepCompleted", "Promoted")]
    assert events == [
        "RolloutStarted",
        "Promoted",
        "RolloutStarted",
        "StepCompleted",
        "StepCompleted",
        "Promoted",
    ]


BAD_UNDER_TRAFFIC = {
    Nature.ERRING: "AnalysisFailed",
    Nature.SLOW: "AnalysisFailed",
    Nature.STALLING: "CanaryStuck",
    Nature.DYING: "CanaryRestarted",
    Nature.GREEDY: "CanaryOomKilled",
    Nature.FADING: "CanaryUnready",
}


@pytest.mark.parametrize(("nature", "reason"), BAD_UNDER_TRAFFIC.items())
def test_a_version_that_is_bad_under_traffic_is_rolled_back(
    nature: Nature, reason: str, gateway: bool
) -> None:
    world = canary(gateway=gateway, nature=nature)
    world.target = "2"
    goes_on(world, ended)
    assert world.served_version == "1"
    assert world.status["history"][-1]["reason"] == reason
    assert [rejected["version"] for rejected in world.status["rejected"]] == ["2"]
    stalled = world.condition("Stalled")
    assert stalled is not None
    assert stalled["reason"] == "RolledBack"
    assert f"({reason}); rolled back from 10 %" in stalled["message"]
    assert world.failed["1"] == 0
    world.reconcile()
    assert world.status["traffic"] == [
        {"revision": world.serving, "version": "1", "percent": 100, "tag": "stable"}
    ]


def at_the_gateway(*, errors: int) -> Window:
    """What a Gateway counted: it got answers to all 1,000 requests to stable, and not to some of 100 to the canary."""
    return Window(strata={10: Stratum(Tally(n=1000), Tally(n=100, errors=errors))})


@pytest.mark.parametrize(("errors", "ends"), [(0, "Promoted"), (3, "Promoted"), (20, "Aborted")])
def test_requests_that_the_gateway_got_no_answer_to_roll_a_canary_back_only_beyond_doubt(
    errors: int, ends: str
) -> None:
    world = canary()
    world.at_gateway = at_the_gateway(errors=errors)
    world.target = "2"
    goes_on(world, lambda world: world.status["history"][-1]["version"] == "2")
    entry = world.status["history"][-1]
    assert entry["outcome"] == ends
    if ends == "Aborted":
        assert entry["reason"] == "CanaryGatewayErrors"
        stalled = world.condition("Stalled")
        assert stalled is not None
        assert "requests that the Gateway got no answer to: canary error rate 20%" in stalled["message"]
        # It may have been the network: the target's next move opens the version again.
        assert "rejected" not in world.status
        assert world.served_version == "1"


def test_a_gateway_without_numbers_neither_promotes_nor_holds() -> None:
    world = canary()
    world.at_gateway = Window()
    world.target = "2"
    goes_on(world, serves("2"))
    assert world.status["history"][-1]["reason"] == "AnalysisSucceeded"


def test_a_person_overrules_the_gateway() -> None:
    world = canary(rollback={"mode": "Manual"})
    world.at_gateway = at_the_gateway(errors=20)
    world.target = "2"
    goes_on(world, lambda world: (world.condition("Paused") or {}).get("reason") == "RollbackHeld")
    assert world.status["canary"]["held"]["reason"] == "CanaryGatewayErrors"
    assert world.status["canary"]["weight"] == 10
    world.say("promote", world.status["canary"]["revision"])
    goes_on(world, serves("2"))


@pytest.mark.parametrize("nature", sorted(BEFORE_TRAFFIC - {Nature.HANGING}))
def test_a_version_that_is_bad_before_traffic_gets_none(nature: Nature, gateway: bool) -> None:
    world = canary(gateway=gateway, nature=nature)
    world.target = "2"
    goes_on(world, ended)
    assert world.answered["2"] == 0
    stalled = world.condition("Stalled")
    assert stalled is not None
    assert stalled["reason"] != "RolledBack"


def test_malformed_requests_to_the_canary_roll_nothing_back() -> None:
    world = canary()
    world.client_errors = 20
    world.target = "2"
    goes_on(world, serves("2"))


def test_with_a_request_a_minute_it_holds() -> None:
    world = canary()
    world.rate = 1 / 60
    world.target = "2"
    for _ in range(600):
        world.reconcile()
        world.tick()
    assert world.status["canary"]["weight"] == 10
    assert world.status["phase"] == "Paused"
    paused = world.condition("Paused")
    assert paused is not None
    assert paused["reason"] == "EvidenceMissing"
    assert "error-rate has" in paused["message"]


# ------------------------------------------------------------------------------------------- without any requests


def silent(on_inconclusive: str) -> World:
    world = canary(analysis={"deadline": "1m", "onInconclusive": on_inconclusive})
    world.rate = 0
    world.target = "2"
    goes_on(world, weighs(10))
    return world


def test_at_the_deadline_it_goes_on_waiting_and_names_the_command() -> None:
    world = silent("Pause")
    goes_on(world, lambda world: "AnalysisInconclusive" in world.events)
    paused = world.condition("Paused")
    assert paused is not None
    assert paused["reason"] == "AnalysisInconclusive"
    assert f"rollway.dev/promote={world.status['canary']['revision']}" in paused["message"]
    assert world.status["analysis"]["phase"] == "Inconclusive"


def test_at_the_deadline_it_is_promoted() -> None:
    world = silent("Promote")
    goes_on(world, serves("2"))


def test_at_the_deadline_it_is_aborted_rejected_never_and_not_started_again() -> None:
    world = silent("Abort")
    goes_on(world, ended)
    assert world.served_version == "1"
    assert "rejected" not in world.status
    world.settle()
    assert world.served_version == "1"
    assert world.status["model"]["closed"]["reason"] == "DeadlineExceeded"


# ------------------------------------------------------------------------------------------------- at each step


def test_another_version_takes_its_place(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    world.target = "3"
    goes_on(world, serves("3"))
    assert "2" not in {
        entry["version"] for entry in world.status["history"] if entry["outcome"] == "Promoted"
    }
    assert "rejected" not in world.status


def test_moved_back_it_ends_and_nothing_is_closed(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    world.target = "1"
    goes_on(world, ended)
    assert world.served_version == "1"
    assert "closed" not in world.status["model"]
    world.target = "2"
    goes_on(world, serves("2"))


def test_aborted_by_a_person_it_stays_so(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    world.say("abort", world.status["canary"]["revision"])
    goes_on(world, ended)
    world.settle()
    assert world.served_version == "1"
    assert world.status["model"]["closed"]["reason"] == "Aborted"
    assert world.condition("Stalled") is None


def test_promoted_in_full_by_a_person_it_takes_over(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    world.rate = 0
    world.say("promote-full", world.status["canary"]["revision"])
    goes_on(world, serves("2"), 60)
    assert world.ready(str(world.serving)) == 3


def test_undone_it_is_aborted(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    world.say("undo", world.status["stable"]["revision"])
    goes_on(world, ended)
    world.settle()
    assert world.served_version == "1"


def test_of_two_verbs_abort_wins(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    world.say("promote", world.status["canary"]["revision"])
    world.say("abort", world.status["canary"]["revision"])
    goes_on(world, ended)
    assert world.served_version == "1"


def test_a_lost_status_changes_no_traffic_and_the_rollout_goes_on(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    before = world.shares()
    world.status = {}
    world.reconcile()
    assert world.shares() == before
    goes_on(world, serves("2"))


def test_changed_pods_start_a_new_canary(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    before = world.status["canary"]["revision"]
    world.edit(predictor={"replicas": 3, "timeout": "10s"})
    goes_on(world, lambda world: world.status.get("canary", {}).get("revision", before) != before)
    assert world.status["canary"]["weight"] == 0
    goes_on(world, serves("2"))


def test_a_changed_plan_goes_on_from_the_present_weight(gateway: bool) -> None:
    world = under_way(weighs(10), gateway)
    steps = [{"setWeight": 5}, {"setWeight": 30}, {"pause": {}}]
    world.edit(strategy={"canary": {"steps": steps}})
    goes_on(world, weighs(30))
    goes_on(world, lambda world: (world.condition("Paused") or {}).get("reason") == "PauseStep")
    assert world.status["canary"]["currentStepIndex"] == 2


def test_a_plan_of_lower_weights_alone_still_needs_proof(gateway: bool) -> None:
    world = under_way(weighs(50), gateway)
    world.rate = 0
    world.edit(strategy={"canary": {"steps": [{"setWeight": 5}]}})
    for _ in range(60):
        world.reconcile()
        world.tick()
    assert world.status["canary"]["weight"] == 50
    world.rate = 20
    goes_on(world, serves("2"))


def test_a_killed_operator_needs_fresh_evidence_and_no_step_is_made_twice(at: Judge, gateway: bool) -> None:
    world = under_way(at, gateway)
    index = world.status["canary"]["currentStepIndex"]
    world.forget()
    world.reconcile()
    assert "canary" not in world.status or world.status["canary"]["currentStepIndex"] >= index
    goes_on(world, serves("2"))


def test_proof_that_was_found_is_told_although_the_operator_was_killed_since(gateway: bool) -> None:
    world = under_way(promoting, gateway)
    world.forget()
    goes_on(world, serves("2"))
    assert world.status["history"][-1]["reason"] == "AnalysisSucceeded"


# ------------------------------------------------------------------------------------------------------- persons


def test_a_pause_without_duration_waits_for_promote_and_names_the_command(gateway: bool) -> None:
    steps = [{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}]
    world = under_way(weighs(10), gateway, strategy={"canary": {"steps": steps}})
    goes_on(world, lambda world: world.status["phase"] == "Paused")
    paused = world.condition("Paused")
    assert paused is not None
    assert paused["reason"] == "PauseStep"
    assert world.condition("Reconciling") is None
    world.say("promote", world.status["canary"]["revision"])
    goes_on(world, weighs(50))


def test_promote_leaves_what_holds_for_want_of_evidence() -> None:
    world = canary()
    world.rate, world.target = 0, "2"
    goes_on(world, lambda world: (world.condition("Paused") or {}).get("reason") == "EvidenceMissing")
    world.say("promote", world.status["canary"]["revision"])
    goes_on(world, weighs(50))


def test_while_paused_no_weight_is_raised_and_a_bad_version_goes_all_the_same(gateway: bool) -> None:
    world = under_way(weighs(10), gateway, nature=Nature.ERRING)
    world.edit(paused=True)
    goes_on(world, ended)
    assert world.served_version == "1"


def test_in_manual_mode_a_failure_holds_until_a_person_says_more(gateway: bool) -> None:
    world = under_way(weighs(10), gateway, nature=Nature.ERRING, rollback={"mode": "Manual"})
    goes_on(world, lambda world: (world.condition("Paused") or {}).get("reason") == "RollbackHeld")
    assert world.status["canary"]["weight"] == 10
    paused = world.condition("Paused")
    assert paused is not None
    assert "rollway.dev/abort" in paused["message"]
    assert "rollway.dev/promote" in paused["message"]
    for _ in range(100):
        world.reconcile()
        world.tick()
    assert world.status["canary"]["weight"] == 10
    world.say("abort", world.status["canary"]["revision"])
    goes_on(world, ended)
    assert world.served_version == "1"


def test_in_manual_mode_a_person_may_overrule_a_failed_verdict() -> None:
    world = under_way(weighs(10), True, nature=Nature.ERRING, rollback={"mode": "Manual"})
    goes_on(world, lambda world: "held" in world.status["canary"])
    world.say("promote", world.status["canary"]["revision"])
    goes_on(world, serves("2"))


def test_in_manual_mode_a_canary_without_a_ready_pod_gets_no_traffic(gateway: bool) -> None:
    world = under_way(weighs(10), gateway, nature=Nature.DYING, rollback={"mode": "Manual"})
    goes_on(world, lambda world: "held" in world.status["canary"])
    assert world.status["canary"]["weight"] == 0
    assert world.status["canary"]["held"]["reason"] == "CanaryRestarted"


def test_what_was_rejected_stays_so_when_the_alias_moves_away_and_back(gateway: bool) -> None:
    world = canary(gateway=gateway, nature=Nature.ERRING)
    world.target = "2"
    goes_on(world, ended)
    world.target = "1"
    goes_on(world, ended, 20)
    world.target = "2"
    world.forget()
    for _ in range(60):
        world.reconcile()
        world.tick()
    assert "canary" not in world.status
    assert world.served_version == "1"


def test_undo_goes_back_at_once_and_does_not_bounce(gateway: bool) -> None:
    world = canary(gateway=gateway)
    old, world.target = world.serving, "2"
    goes_on(world, serves("2"))
    world.rate = 0
    world.say("undo", old)
    goes_on(world, lambda world: world.served_version == "1" and "canary" not in world.status, 60)
    world.settle()
    assert world.served_version == "1"


def test_update_policy_manual_holds_another_version_until_promote() -> None:
    world = canary()
    world.edit(model={"name": "fraud", "alias": "champion", "updatePolicy": "Manual"})
    world.target = "2"
    goes_on(world, lambda world: (world.condition("Paused") or {}).get("reason") == "AwaitingPromote")
    world.say("promote", world.status["model"]["targetRevision"])
    goes_on(world, serves("2"))


# -------------------------------------------------------------------------------------------- traffic and counts


def test_pods_come_before_their_weight_behind_a_gateway() -> None:
    world = under_way(weighs(50), True, replicas=5)
    revision = world.status["canary"]["revision"]
    assert world.ready(revision) >= 3


def test_the_counts_are_the_weight_without_a_gateway() -> None:
    world = under_way(weighs(10), False, replicas=9)
    goes_on(world, lambda world: any(share["tag"] == "canary" for share in world.status["traffic"]))
    assert world.replicas(world.status["canary"]["revision"]) == 1
    assert [share["percent"] for share in world.status["traffic"]] == [90, 10]
    assert "WeightApproximated" not in world.events


def test_a_weight_that_the_counts_cannot_give_is_told() -> None:
    world = under_way(weighs(10), False, replicas=2)
    goes_on(world, lambda world: any(share["tag"] == "canary" for share in world.status["traffic"]))
    assert [share["percent"] for share in world.status["traffic"]] == [67, 33]
    assert "WeightApproximated" in world.events


def test_without_the_gateway_api_a_canary_waits_before_any_traffic() -> None:
    world = canary(gateway=True)
    world.gateway_api, world.target = False, "2"
    for kind in ("HTTPRoute", "GRPCRoute"):
        world.objects.pop((kind, "fraud"))
    for _ in range(30):
        world.reconcile()
        world.tick()
    reconciling = world.condition("Reconciling")
    assert reconciling is not None
    assert reconciling["reason"] == "GatewayUnusable"
    assert world.answered["2"] == 0


def test_the_old_revision_keeps_its_pods_for_a_while(gateway: bool) -> None:
    world = canary(gateway=gateway)
    old, world.target = str(world.serving), "2"
    goes_on(world, serves("2"))
    assert world.replicas(old) == 3
    assert goes_on(world, lambda world: world.replicas(old) == 0) in range(29, 33)


def test_an_autoscaler_follows_stable_and_keeps_what_served_when_the_canary_began() -> None:
    scaling = {"minReplicas": 2, "maxReplicas": 6}
    world = canary(gateway=True, predictor={"replicas": 3, "autoscaling": scaling})
    scaler = ("HorizontalPodAutoscaler", "fraud")
    assert world.objects[scaler]["spec"]["minReplicas"] == 2
    world.objects["Deployment", str(world.serving)]["spec"]["replicas"] = 5
    world.settle()
    world.target = "2"
    goes_on(world, weighs(10))
    world.reconcile()
    assert world.objects[scaler]["spec"]["minReplicas"] == 5
    goes_on(world, serves("2"))
    assert world.replicas(str(world.serving)) == 5
    assert world.objects[scaler]["spec"]["scaleTargetRef"]["name"] == world.serving
    world.edit(predictor={"replicas": 3})
    world.settle()
    assert scaler not in world.objects
    assert world.replicas(str(world.serving)) == 3


# ------------------------------------------------------------------------------------------------------ blue-green


def blue_green(**settings: Any) -> World:
    return canary(strategy={"blueGreen": {"previewSeconds": 10, "scaleDownDelaySeconds": 5} | settings})


def previewed(world: World) -> str:
    selector = world.objects["Service", "fraud-preview"]["spec"]["selector"]
    return str(world.stored(selector["rollway.dev/revision"]).version)


def test_blue_green_shows_the_whole_candidate_then_takes_over_at_once() -> None:
    world = blue_green()
    world.target = "2"
    goes_on(world, lambda world: "stepStartedAt" in world.status.get("canary", {}))
    assert world.ready(world.status["canary"]["revision"]) == 3
    assert previewed(world) == "2"
    assert world.answered["2"] == 0
    assert goes_on(world, serves("2")) in range(9, 16)
    assert len(world.pods) == 6
    assert goes_on(world, lambda world: len(world.pods) == 3) in range(4, 9)
    assert previewed(world) == "2"


def test_blue_green_waits_for_a_person_where_it_shall() -> None:
    world = blue_green(autoPromotion=False)
    world.target = "2"
    goes_on(world, lambda world: (world.condition("Paused") or {}).get("reason") == "AwaitingPromote")
    for _ in range(60):
        world.reconcile()
        world.tick()
    assert world.served_version == "1"
    world.say("promote", world.status["canary"]["revision"])
    goes_on(world, serves("2"), 20)


def test_the_preview_service_goes_with_the_strategy() -> None:
    world = blue_green()
    assert ("Service", "fraud-preview") in world.objects
    world.edit(strategy={"rollingUpdate": {}})
    world.settle()
    assert ("Service", "fraud-preview") not in world.objects


@pytest.mark.parametrize(("seen_for", "aborts"), [(0, False), (29, False), (30, True)])
def test_a_canary_is_stuck_for_as_long_as_it_was_seen_to_be_and_not_until_now(
    seen_for: int, aborts: bool
) -> None:
    """A scrape may be a minute old: what it shows says nothing of the time since."""
    began = World().now
    stuck = Stuck(began, began + timedelta(seconds=seen_for))
    situation = Situation(
        now=began + timedelta(minutes=2),
        replicas=1,
        target=None,
        stable=None,
        candidate=Track(StoredRevision("fraud-2", 2, {"version": "2"}, {}, {})),
        progress=Progress(weight=50, traffic_since=began - timedelta(minutes=1)),
        judgement=Judgement(stuck=stuck),
        timeout=timedelta(seconds=30),
    )
    assert (canary_stuck(situation) is not None) is aborts
