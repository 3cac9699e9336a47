"""Which versions are tried again, and when: the worked examples of docs/adr/0009."""

import pytest

from rollway_operator.domain import Closing
from rollway_operator.manifests import closing_of, closing_text
from rollway_testing.world import Nature, World, digest_of

BROKEN_GATE = "SmokeTestFailed"


def started(world: World) -> int:
    return world.events.count("RolloutStarted")


def closed(world: World) -> dict[str, object]:
    told: dict[str, object] = world.status["model"].get("closed", {})
    return told


def serving_1_after_2_failed(nature: Nature = Nature.BROKEN) -> World:
    world = World(natures={"2": nature})
    world.edit(progressDeadlineSeconds=20)
    world.settle()
    world.target = "2"
    world.settle()
    world.tick(30)
    world.settle()
    assert world.served_version == "1"
    assert closed(world)["version"] == "2"
    return world


def moved(world: World, *versions: str) -> None:
    for version in versions:
        world.target = version
        world.settle()


# ------------------------------------------------------------------------------------- by the operator


def test_a_models_fault_rejects_its_version() -> None:
    world = serving_1_after_2_failed()
    (rejected,) = world.status["rejected"]
    assert (rejected["version"], rejected["reason"]) == ("2", BROKEN_GATE)
    assert rejected["uri"] == "s3://models/2"
    assert rejected["revision"] == world.status["model"]["targetRevision"] == closed(world)["revision"]


def test_killed_before_the_annotation_it_is_closed_all_the_same() -> None:
    world = World(natures={"2": Nature.BROKEN})
    world.settle()
    world.target = "2"
    while "closed" not in world.plan().status["model"]:
        world.reconcile()
        world.tick()
    world.reconcile(writes=1)
    revision = world.status["model"]["targetRevision"]
    assert world.stored(revision).outcome is None
    world.natures["2"] = Nature.GOOD
    before = started(world)
    world.settle()
    assert started(world) == before
    assert world.stored(revision).rejected


@pytest.mark.parametrize("verb", ["abort", "undo"])
def test_killed_before_the_annotation_a_person_s_word_holds(verb: str) -> None:
    world = World(natures={"3": Nature.UNFETCHABLE})
    moved(world, "1", "2")
    first = min(world.observed().revisions, key=lambda revision: revision.number).name
    if verb == "abort":
        world.target = "3"
        world.reconcile()
    world.say(verb, world.status["canary"]["revision"] if verb == "abort" else first)
    world.reconcile(writes=1)
    world.natures.clear()
    world.settle()
    assert world.served_version == ("2" if verb == "abort" else "1")


def test_a_rejected_version_stays_closed_when_the_target_moves_away_and_back() -> None:
    world = serving_1_after_2_failed()
    world.natures["2"] = Nature.GOOD
    moved(world, "3", "2")
    assert world.served_version == "3"
    assert closed(world)["rejected"] is True


def test_what_only_took_too_long_opens_when_the_target_moves_away_and_back() -> None:
    world = serving_1_after_2_failed(Nature.HANGING)
    assert closed(world)["rejected"] is False
    assert "rejected" not in world.status
    before = started(world)
    world.settle()
    assert started(world) == before
    world.natures["2"] = Nature.GOOD
    moved(world, "1", "2")
    assert world.served_version == "2"


def test_a_target_that_moves_back_to_stables_version_starts_nothing() -> None:
    world = serving_1_after_2_failed()
    before = started(world)
    moved(world, "1")
    assert started(world) == before
    assert world.condition("Stalled") is None
    assert "closed" not in world.status["model"]


def test_a_changed_spec_tries_a_version_again_that_the_operator_closed() -> None:
    world = serving_1_after_2_failed()
    world.natures["2"] = Nature.GOOD
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    assert world.served_version == "2"
    assert "rejected" not in world.status


def test_the_spec_it_failed_with_is_not_tried_again() -> None:
    world = serving_1_after_2_failed()
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    assert len(world.status["rejected"]) == 2
    before = started(world)
    world.edit(predictor={"replicas": 1})
    world.settle()
    assert started(world) == before


def test_an_artifact_elsewhere_is_another_version() -> None:
    world = serving_1_after_2_failed()
    world.natures["2"] = Nature.GOOD
    world.folder = "s3://models/again"
    world.settle()
    assert world.served_version == "2"


def test_other_shapes_of_stables_version_are_closed_but_not_rejected() -> None:
    world = World()
    world.settle()
    world.natures["1"] = Nature.BROKEN
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    serving = world.serving
    world.settle()
    assert world.serving == serving
    assert closed(world)["reason"] == BROKEN_GATE
    assert closed(world)["rejected"] is False
    assert "rejected" not in world.status


def test_a_rejected_revision_is_remembered_beyond_the_history_limit() -> None:
    world = serving_1_after_2_failed()
    world.edit(revisionHistoryLimit=0)
    moved(world, "3", "4")
    rejected = world.status["rejected"][0]["revision"]
    assert ("ControllerRevision", rejected) in world.objects
    assert ("Deployment", rejected) not in world.objects
    world.natures["2"] = Nature.GOOD
    moved(world, "2")
    assert world.served_version == "4"
    world.say("retry", rejected)
    world.settle()
    assert world.served_version == "2"


def test_no_more_than_twenty_are_listed() -> None:
    versions = [str(number) for number in range(2, 25)]
    world = World(natures=dict.fromkeys(versions, Nature.BROKEN))
    world.settle()
    moved(world, *versions)
    assert [entry["version"] for entry in world.status["rejected"]] == versions[-20:]
    assert len(world.observed().revisions) == 21


# ----------------------------------------------------------------------------------------- by a person


def aborted() -> World:
    world = World(natures={"2": Nature.UNFETCHABLE})
    world.settle()
    world.target = "2"
    world.reconcile()
    world.tick()
    world.say("abort", world.status["canary"]["revision"])
    world.settle()
    assert world.served_version == "1"
    world.natures["2"] = Nature.GOOD
    return world


def test_a_person_s_abort_is_not_shown_as_a_failure() -> None:
    world = aborted()
    assert world.condition("Stalled") is None
    assert world.status["phase"] == "Healthy"
    assert (closed(world)["reason"], closed(world)["rejected"]) == ("Aborted", False)
    assert world.status["history"][-1]["outcome"] == "Aborted"


def test_a_changed_spec_does_not_open_what_a_person_aborted_and_reaches_stables_version() -> None:
    world = aborted()
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    assert world.served_version == "1"
    assert world.stored(world.serving).inputs["timeout"] == "10s"
    assert closed(world)["version"] == "2"
    world.edit(predictor={"replicas": 1})
    world.settle()
    assert world.served_version == "1"
    assert "timeout" not in world.stored(world.serving).inputs


def test_what_a_person_aborted_opens_when_the_target_moves_away_and_back() -> None:
    world = aborted()
    moved(world, "1", "2")
    assert world.served_version == "2"


def test_what_a_person_aborted_opens_by_retry() -> None:
    world = aborted()
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    world.say("retry", world.status["model"]["targetRevision"])
    world.settle()
    assert world.served_version == "2"
    assert world.stored(world.serving).inputs["timeout"] == "10s"


# ------------------------------------------------------------------------------------------ annotation


@pytest.mark.parametrize(
    "text", ["notjson", "[]", "{", '{"since": 7}', '{"since": "x"}', "[" * 100_000, "null"]
)
def test_an_annotation_that_somebody_spoilt_counts_as_rejected(text: str) -> None:
    assert closing_of(text) == Closing()


def test_a_closing_is_read_as_it_was_written() -> None:
    world = aborted()
    revision = world.stored(str(closed(world)["revision"]))
    assert revision.closing is not None
    assert closing_of(closing_text(revision.closing)) == revision.closing


def test_history_tells_the_last_ten_rollouts() -> None:
    world = World()
    world.settle()
    moved(world, *[str(number) for number in range(2, 14)])
    told = world.status["history"]
    assert [entry["version"] for entry in told] == [str(number) for number in range(4, 14)]
    assert {entry["outcome"] for entry in told} == {"Promoted"}
    assert told[-1]["digest"] == digest_of("13")
    assert told[-1]["startedAt"] < told[-1]["finishedAt"]
