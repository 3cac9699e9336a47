"""What annotations do, and what they cannot do."""

from dataclasses import replace
from typing import Any

import pytest

from rollway_operator import verbs
from rollway_operator.domain import Event
from rollway_testing.world import RUNTIME, Nature, World, digest_of

NEW_IMAGE = "rollway/mlserver@sha256:" + "1" * 64


def holds(world: World, type_: str) -> bool:
    return world.condition(type_) is not None


def serving(*versions: str, natures: dict[str, Nature] | None = None, **spec: Any) -> World:
    world = World(natures=natures or {})
    if spec:
        world.edit(**spec)
    for version in versions or ("1",):
        world.target = version
        world.settle()
    return world


def said(world: World) -> list[Event]:
    """Make one pass; give its Events about verbs."""
    events = world.plan().events
    world.reconcile()
    return [event for event in events if event.reason in (verbs.HANDLED, verbs.IGNORED)]


# ------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    "value",
    ["notjson!", "[]", "", " ", "a" * 200_000, "x/y/z", "UPPER", "é", "a\nb", "../..", "x" * 64, "\0"],
)
@pytest.mark.parametrize("verb", ["undo", "pause", "restart"])
def test_a_malformed_value_is_told_in_short_once_and_does_nothing(verb: str, value: str) -> None:
    world = serving()
    before = world.plan()
    world.annotations[f"rollway.dev/{verb}"] = value
    decided = world.plan()
    (event,) = decided.events
    assert (event.type, event.reason) == ("Warning", verbs.IGNORED)
    assert len(event.message) < 300
    assert event.message.isprintable()
    assert decided.objects == before.objects
    assert decided.scales == before.scales
    (remembered,) = decided.status["lastHandled"].values()
    assert len(remembered) < 40
    assert {**decided.status, "lastHandled": {}} == {**before.status, "lastHandled": {}}
    world.settle()
    assert world.plan().events == ()


@pytest.mark.parametrize("verb", ["promote", "abort", "undo", "retry", "pause", "resume", "restart", "ack"])
def test_a_revision_that_is_not_in_that_role_is_ignored(verb: str) -> None:
    world = serving("1", "2")
    before = world.plan()
    world.say(verb, "fraud-00000000")
    (event,) = said(world)
    assert (event.type, event.reason) == ("Warning", verbs.IGNORED)
    assert {**world.status, "lastHandled": {}} == {**before.status, "lastHandled": {}}
    assert world.settle() < 3
    assert world.served_version == "2"


def test_a_value_is_handled_once_and_a_nonce_repeats_it() -> None:
    world = serving()
    for nonce in ("", "x1", "x2"):
        world.say("restart", world.serving, nonce)
        before = world.serving
        world.settle()
        assert world.serving != before
        world.settle()
    assert world.events.count(verbs.HANDLED) == 3
    assert world.status["lastHandled"]["restart"].endswith("/x2")


def test_the_first_verb_of_a_pass_supersedes_what_contradicts_it() -> None:
    world = serving("1", "2")
    (first,) = {revision.name for revision in world.observed().revisions} - {world.serving}
    for verb, revision in (("restart", world.serving), ("undo", first), ("pause", world.serving)):
        world.say(verb, revision)
    events = said(world)
    assert [event.type for event in events] == ["Normal", "Normal", "Warning"]
    assert "superseded by undo" in events[-1].message
    assert set(world.status["lastHandled"]) == {"undo", "pause", "restart"}
    world.settle()
    assert world.served_version == "2"
    world.say("resume", world.serving)
    world.settle()
    assert world.served_version == "1"


def test_an_annotation_that_was_taken_away_is_remembered() -> None:
    world = serving()
    world.say("restart", world.serving)
    world.settle()
    world.annotations.clear()
    world.settle()
    assert "restart" in world.status["lastHandled"]


# ------------------------------------------------------------------------------------------------- pause


@pytest.mark.parametrize("by", ["spec", "verb"])
def test_while_paused_nothing_starts_and_stable_is_healed(by: str) -> None:
    world = serving(predictor={"replicas": 2})
    if by == "spec":
        world.edit(paused=True)
    else:
        world.say("pause", world.serving)
    world.target = "2"
    world.settle()
    assert world.status["phase"] == "Paused"
    assert world.condition("Ready")["status"] == "True"  # type: ignore[index]
    assert not holds(world, "Reconciling")
    assert world.served_version == "1"
    assert len(world.observed().revisions) == 1
    assert world.serving
    world.pods = world.pods[:1]
    world.settle()
    assert world.ready(world.serving) == 2
    if by == "spec":
        world.edit(paused=False)
    else:
        world.say("resume", world.serving)
    world.settle()
    assert world.served_version == "2"
    assert not holds(world, "Paused")


def test_a_pause_in_the_middle_holds_the_rollout_as_it_is() -> None:
    world = serving(predictor={"replicas": 3})
    world.target = "2"
    world.reconcile()
    world.say("pause", world.serving)
    world.settle()
    canary = world.status["canary"]["revision"]
    assert world.replicas(canary) == 1
    assert world.served_version == "1"
    assert not holds(world, "Reconciling")
    world.now = world.now.replace(year=2027)
    assert world.settle() < 3
    world.say("resume", world.serving)
    world.reconcile()
    assert not holds(world, "Stalled")
    world.settle()
    assert world.served_version == "2"


def test_a_pause_does_not_count_against_the_deadline() -> None:
    world = serving(natures={"2": Nature.UNFETCHABLE}, progressDeadlineSeconds=30)
    world.target = "2"
    world.reconcile()
    world.edit(paused=True)
    world.settle()
    world.tick(3600)
    world.edit(paused=False)
    for stalled in (False, True):
        world.reconcile()
        assert holds(world, "Reconciling")
        assert holds(world, "Stalled") is stalled
        world.tick(31)


def test_while_paused_a_broken_candidate_is_dropped_all_the_same() -> None:
    world = serving(natures={"2": Nature.BROKEN})
    world.target = "2"
    world.reconcile()
    world.edit(paused=True)
    world.settle()
    assert holds(world, "Stalled")
    assert [pod.revision for pod in world.pods] == [world.serving]


def test_recreate_is_not_held_where_nothing_serves() -> None:
    world = serving(strategy={"recreate": {}})
    world.target = "2"
    world.reconcile()
    world.edit(paused=True)
    world.settle()
    assert world.served_version == "2"
    world.target = "3"
    world.settle()
    assert world.served_version == "2"


def test_resume_does_not_override_the_spec_and_says_so() -> None:
    world = serving()
    world.edit(paused=True)
    world.say("pause", world.serving)
    world.settle()
    world.say("resume", world.serving)
    (event,) = said(world)
    assert "spec.paused" in event.message
    world.target = "2"
    world.settle()
    assert world.status["pausedByVerb"] is False
    assert world.status["phase"] == "Paused"
    assert world.served_version == "1"


def test_promote_leaves_a_pause() -> None:
    world = serving()
    world.say("pause", world.serving)
    world.target = "2"
    world.settle()
    world.say("promote", world.status["model"]["targetRevision"])
    world.settle()
    assert world.served_version == "2"
    assert world.status["pausedByVerb"] is False


# ------------------------------------------------------------------------------------------------ manual

MANUAL = {"name": "fraud", "alias": "champion", "updatePolicy": "Manual"}


def test_manual_shows_another_version_and_waits_for_promote() -> None:
    world = serving(model=MANUAL)
    assert world.served_version == "1"
    world.target = "2"
    world.settle()
    paused = world.condition("Paused")
    assert paused
    assert paused["reason"] == "AwaitingPromote"
    waiting = world.status["model"]["targetRevision"]
    assert paused["message"].endswith(f"rollway.dev/promote={waiting}")
    assert world.condition("Ready")["status"] == "True"  # type: ignore[index]
    assert not holds(world, "Reconciling")
    assert world.status["phase"] == "Paused"
    assert world.events[-1] == "Paused"
    world.say("promote", waiting)
    world.settle()
    assert world.served_version == "2"
    assert not holds(world, "Paused")
    assert "approvedRevision" not in world.status["model"]


def test_manual_holds_versions_only() -> None:
    world = serving(model=MANUAL)
    world.target = "2"
    world.settle()
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    assert world.served_version == "1"
    assert world.stored(world.serving).inputs["timeout"] == "10s"
    assert holds(world, "Paused")
    world.target = "1"
    world.settle()
    assert not holds(world, "Paused")


def test_what_is_under_way_goes_on_when_the_policy_becomes_manual() -> None:
    world = serving()
    world.target = "2"
    world.reconcile()
    world.tick()
    world.edit(model=MANUAL)
    world.settle()
    assert world.served_version == "2"


def test_a_promotion_is_remembered_until_spec_paused_ends() -> None:
    world = serving(model=MANUAL)
    world.edit(paused=True)
    world.target = "2"
    world.settle()
    world.say("promote", world.status["model"]["targetRevision"])
    world.settle()
    assert world.served_version == "1"
    world.edit(paused=False)
    world.settle()
    assert world.served_version == "2"


def test_promote_where_nothing_waits_is_ignored() -> None:
    world = serving()
    world.say("promote", world.serving)
    (event,) = said(world)
    assert event.reason == verbs.IGNORED


# -------------------------------------------------------------------------------------------------- undo


def undone(**spec: Any) -> tuple[World, str, str]:
    world = serving("1", "2", **spec)
    (first,) = {revision.name for revision in world.observed().revisions} - {world.serving}
    second = world.serving
    assert second
    world.say("undo", first)
    return world, first, second


def test_undo_brings_the_old_revision_up_before_it_gets_traffic() -> None:
    world, first, second = undone(predictor={"replicas": 2})
    world.reconcile()
    assert world.serving == second
    world.settle()
    assert world.flips[-1] == (first, 2)
    assert world.replicas(second) == 0
    assert world.condition("Ready")["status"] == "True"  # type: ignore[index]
    assert not holds(world, "Stalled")
    assert world.status["phase"] == "Healthy"
    assert world.status["model"]["targetVersion"] == "2"


def test_undo_does_not_ask_the_registry() -> None:
    world, first, _ = undone()
    world.trouble = "RegistryUnreachable"
    world.settle()
    assert world.serving == first


def test_undo_in_an_outage_while_the_spec_changed_before_its_revision_was_stored() -> None:
    world = serving("1", "2")
    first = next(revision.name for revision in world.observed().revisions if revision.version == "1")
    world.trouble = "RegistryUnreachable"
    world.edit(paused=True, predictor={"replicas": 1, "timeout": "10s"})
    world.reconcile()
    assert world.status["model"]["targetRevision"] not in {r.name for r in world.observed().revisions}
    world.edit(paused=False)
    world.say("undo", first)
    world.settle()
    assert world.served_version == "1"


def test_undo_closes_the_version_left_until_the_target_moves() -> None:
    world, first, second = undone()
    world.settle()
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    assert world.served_version == "1"
    assert world.stored(world.serving).inputs["timeout"] == "10s"
    world.edit(predictor={"replicas": 1})
    world.settle()
    assert world.serving == first
    world.target = "3"
    world.settle()
    world.target = "2"
    world.settle()
    assert world.serving == second


def test_retry_goes_forward_again_and_keeps_the_pin() -> None:
    world, _, second = undone()
    world.settle()
    world.say("retry", second)
    world.reconcile()
    assert world.status["canary"]["digest"] == digest_of("2")
    world.settle()
    assert world.serving == second


def test_undo_forth_and_back() -> None:
    world, first, second = undone()
    world.settle()
    world.say("undo", second)
    world.settle()
    assert world.serving == second
    world.say("undo", first, "again")
    world.settle()
    assert world.serving == first


def test_undo_of_a_changed_spec_goes_back_to_the_pods_before() -> None:
    world = serving()
    first = world.serving
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    world.say("undo", first)
    world.settle()
    assert world.serving == first
    world.edit(predictor={"replicas": 1, "timeout": "20s"})
    world.settle()
    assert world.stored(world.serving).inputs["timeout"] == "20s"


def test_one_retry_opens_every_shape_that_a_person_closed() -> None:
    world = serving()
    shapes = [world.serving]
    for timeout in ("10s", "20s"):
        world.edit(predictor={"replicas": 1, "timeout": timeout})
        world.settle()
        shapes.append(world.serving)
    for shape in (shapes[1], shapes[0]):
        world.say("undo", shape)
        world.settle()
        assert world.serving == shape
    world.say("retry", shapes[2])
    world.settle()
    assert world.serving == shapes[2]
    assert world.status["model"]["targetRevision"] == shapes[2]
    assert "closed" not in world.status["model"]


def test_undo_twice_across_shapes_and_versions_goes_back_twice() -> None:
    world = serving("1", "2")
    first = min(world.observed().revisions, key=lambda revision: revision.number).name
    second = world.serving
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    for revision in (second, first):
        world.say("undo", revision)
        world.settle()
        assert world.serving == revision
    world.edit(predictor={"replicas": 1, "timeout": "20s"})
    world.settle()
    assert world.served_version == "1"
    assert world.stored(world.serving).inputs["timeout"] == "20s"


def test_what_a_person_went_back_to_is_kept_whatever_the_limit() -> None:
    world, first, _ = undone(revisionHistoryLimit=1)
    world.edit(revisionHistoryLimit=0)
    world.settle()
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    assert world.serving != first
    assert world.stored(first).promoted


def test_undo_while_another_version_was_rejected() -> None:
    world = serving("1", "2", "3", natures={"3": Nature.BROKEN})
    first = min(world.observed().revisions, key=lambda revision: revision.number).name
    world.say("undo", first)
    world.settle()
    assert world.serving == first
    world.target = "4"
    world.settle()
    assert world.served_version == "4"


def test_undo_during_a_rollout_aborts_it() -> None:
    world = serving()
    world.target = "2"
    world.reconcile()
    world.tick()
    world.say("undo", world.serving)
    world.settle()
    assert world.served_version == "1"
    assert world.status["model"]["closed"]["reason"] == "Aborted"


def test_undo_to_a_broken_revision_leaves_what_serves() -> None:
    world, first, second = undone()
    world.natures["1"] = Nature.BROKEN
    world.settle()
    assert world.serving == second
    assert world.condition("Stalled")["reason"] == "SmokeTestFailed"  # type: ignore[index]
    assert world.replicas(first) == 0


@pytest.mark.parametrize("served", [True, False])
def test_undo_to_what_is_not_kept_or_never_served_is_told(served: bool) -> None:
    world = serving("1", "2", natures={"2": Nature.BROKEN})
    never = world.status["model"]["targetRevision"]
    world.say("undo", "fraud-12345678" if served else never)
    (event,) = said(world)
    assert ("pruned" if served else "never served") in event.message
    world.settle()
    assert world.served_version == "1"


# ------------------------------------------------------------------------------------- retry, restart, ack


def test_retry_pins_afresh_what_never_served() -> None:
    world = serving("1", "2", natures={"2": Nature.BROKEN})
    revision = world.status["model"]["targetRevision"]
    assert world.stored(revision).digest == digest_of("2")
    world.digests["2"] = "sha256:" + "e" * 64
    world.natures["2"] = Nature.GOOD
    world.say("retry", revision)
    world.reconcile()
    assert world.objects[("ConfigMap", revision)]["data"]["digest"] == ""
    assert "digest" not in world.status["canary"]
    world.settle()
    assert world.serving == revision
    assert world.status["stable"]["digest"] == "sha256:" + "e" * 64
    assert "rejected" not in world.status


def test_retry_waits_for_the_pods_of_the_try_before() -> None:
    world = serving(natures={"2": Nature.BROKEN})
    world.target = "2"
    while "closed" not in world.plan().status["model"]:
        world.reconcile()
        world.tick()
    world.reconcile(writes=1)
    revision = world.status["model"]["targetRevision"]
    assert world.replicas(revision) == 1
    world.natures["2"] = Nature.GOOD
    world.say("retry", revision)
    world.reconcile()
    assert "canary" not in world.status
    assert world.replicas(revision) == 0
    world.settle()
    assert world.served_version == "2"
    assert len(world.status["history"]) == 3


def test_restart_makes_a_revision_with_the_present_image_through_the_strategy() -> None:
    world = serving(predictor={"replicas": 2})
    before = world.serving
    world.runtimes["mlserver"] = replace(RUNTIME, image=NEW_IMAGE)
    world.say("restart", before)
    world.settle()
    assert world.serving != before
    assert world.stored(world.serving).inputs["image"] == NEW_IMAGE
    assert world.flips[-1] == (world.serving, 2)
    assert "restart" not in world.status["model"]
    made = len(world.observed().revisions)
    world.settle()
    assert len(world.observed().revisions) == made == 2


def test_a_restart_killed_after_its_status_still_happens() -> None:
    world = serving()
    before = world.serving
    world.say("restart", before)
    world.reconcile(writes=1)
    world.settle()
    assert world.serving != before
    assert len(world.observed().revisions) == 2


def test_a_restart_waits_for_the_end_of_a_pause() -> None:
    world = serving()
    before = world.serving
    world.edit(paused=True)
    world.say("restart", before)
    world.settle()
    assert world.serving == before
    world.edit(paused=False)
    world.settle()
    assert world.serving != before


def test_a_restart_that_fails_leaves_what_serves() -> None:
    world = serving()
    before = world.serving
    world.natures["1"] = Nature.BROKEN
    world.say("restart", before)
    world.settle()
    assert world.serving == before
    assert holds(world, "Stalled")
    world.natures["1"] = Nature.GOOD
    world.say("restart", before, "again")
    world.settle()
    assert world.serving != before
    assert not holds(world, "Stalled")


def test_a_restart_after_an_undo_restarts_what_serves() -> None:
    world, first, _ = undone()
    world.settle()
    world.say("restart", first)
    world.settle()
    assert world.serving != first
    assert world.served_version == "1"
    assert world.settle() < 3


def test_a_restart_during_a_rollout_is_ignored() -> None:
    world = serving()
    world.target = "2"
    world.reconcile()
    world.say("restart", world.serving)
    (event,) = said(world)
    assert event.reason == verbs.IGNORED
    world.settle()
    assert world.served_version == "2"


def test_ack_clears_stalled_and_the_version_stays_closed() -> None:
    world = serving("1", "2", natures={"2": Nature.BROKEN})
    assert holds(world, "Stalled")
    world.say("ack", world.serving)
    world.settle()
    assert not holds(world, "Stalled")
    assert world.status["phase"] == "Healthy"
    world.natures["2"] = Nature.GOOD
    world.settle()
    assert world.served_version == "1"
    world.natures["3"] = Nature.BROKEN
    world.target = "3"
    world.settle()
    assert holds(world, "Stalled")
