"""Status wiped or forged, at every phase: traffic stays as it is, and the end is the same."""

from collections.abc import Callable
from typing import Any

import pytest

from rollway_operator import labels
from rollway_testing.world import Nature, World, digest_of

Phase = Callable[[], World]


def serving(*versions: str, natures: dict[str, Nature] | None = None, **spec: Any) -> World:
    world = World(natures=natures or {})
    world.edit(**{"predictor": {"replicas": 2}, **spec})
    for version in versions or ("1",):
        world.target = version
        world.settle()
    return world


def at_rest() -> World:
    return serving()


def one_pod() -> World:
    world = serving()
    world.target = "2"
    world.reconcile()
    world.tick()
    return world


def some_pods() -> World:
    world = one_pod()
    while world.replicas(world.status["canary"]["revision"]) < 2:
        world.reconcile()
        world.tick()
    return world


def promoted_in_status() -> World:
    world = one_pod()
    while world.plan().status["stable"]["version"] == "1":
        world.reconcile()
        world.tick()
    world.reconcile(writes=1)
    return world


def promoted_but_old_pods() -> World:
    world = promoted_in_status()
    while world.served_version == "1":
        world.reconcile(writes=1)
    return world


def closed() -> World:
    return serving("1", "2", natures={"2": Nature.BROKEN})


def undoing() -> World:
    world = serving("1", "2")
    first = min(world.observed().revisions, key=lambda revision: revision.number).name
    world.say("undo", first)
    world.reconcile()
    world.tick()
    return world


def undone() -> World:
    world = undoing()
    world.settle()
    return world


def restarting() -> World:
    world = serving()
    world.say("restart", world.serving)
    world.reconcile()
    world.tick()
    return world


def recreating() -> World:
    world = serving(strategy={"recreate": {}})
    world.target = "2"
    for _ in range(3):
        world.reconcile()
        world.tick()
    return world


def awaiting() -> World:
    world = serving(model={"name": "fraud", "alias": "champion", "updatePolicy": "Manual"})
    world.target = "2"
    world.settle()
    return world


PHASES: tuple[Phase, ...] = (
    at_rest,
    one_pod,
    some_pods,
    promoted_in_status,
    promoted_but_old_pods,
    closed,
    undoing,
    undone,
    restarting,
    recreating,
    awaiting,
)

UNKNOWN = {"revision": "fraud-00000000", "version": "9"}


def wiped(_: dict[str, Any]) -> dict[str, Any]:
    return {}


def without_stable(status: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key != "stable"}


def another_stable(status: dict[str, Any]) -> dict[str, Any]:
    return {**status, "stable": UNKNOWN}


def another_digest(status: dict[str, Any]) -> dict[str, Any]:
    return {**status, "stable": {**status["stable"], "digest": "sha256:" + "f" * 64}}


def another_canary(status: dict[str, Any]) -> dict[str, Any]:
    return {**status, "canary": UNKNOWN}


SPOILT = (wiped, without_stable, another_stable, another_digest)


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("phase", PHASES)
def test_status_is_rebuilt_and_traffic_stays(phase: Phase, spoil: Callable[[Any], Any]) -> None:
    undisturbed, world = phase(), phase()
    undisturbed.settle()
    serving_before = world.serving
    assert serving_before
    status, annotations = dict(world.status), dict(world.annotations)
    world.status = spoil(status)
    decided = world.plan()
    assert "StateRebuilt" in [event.reason for event in decided.events]
    assert decided.status["stable"]["revision"] == serving_before
    assert decided.status["stable"]["digest"] == world.stored(serving_before).digest
    assert set(decided.status.get("lastHandled", {})) == {key.split("/")[1] for key in annotations}
    world.reconcile()
    assert "StateRebuilt" not in [event.reason for event in world.plan().events]
    assert world.serving == serving_before
    world.settle()
    assert world.serving == undisturbed.serving
    assert len(world.observed().revisions) == len(undisturbed.observed().revisions)
    assert {name: world.replicas(name) for kind, name in world.objects if kind == "Deployment"} == {
        name: undisturbed.replicas(name) for kind, name in undisturbed.objects if kind == "Deployment"
    }


def test_the_same_candidate_goes_on() -> None:
    world = some_pods()
    candidate, pods = world.status["canary"]["revision"], list(world.pods)
    world.status = {}
    world.reconcile()
    assert world.status["canary"]["revision"] == candidate
    world.tick()
    assert {pod.name for pod in pods} == {pod.name for pod in world.pods}
    assert world.events.count("RolloutStarted") == 2


def test_what_a_person_goes_back_to_goes_on() -> None:
    world = undoing()
    destination, pods = world.status["canary"]["revision"], {pod.name for pod in world.pods}
    world.status = {}
    world.reconcile()
    assert world.status["canary"]["revision"] == destination
    world.tick()
    assert pods <= {pod.name for pod in world.pods}


def test_no_verb_acts_again_before_anything_serves() -> None:
    world = World(natures={"1": Nature.BROKEN})
    world.settle()
    world.say("retry", world.status["model"]["targetRevision"])
    world.settle()
    world.natures.clear()
    world.status = {}
    world.settle()
    assert world.serving is None
    assert world.condition("Stalled")["reason"] == "SmokeTestFailed"  # type: ignore[index]


def test_an_unknown_canary_changes_nothing() -> None:
    world = at_rest()
    before = world.status
    world.status = another_canary(dict(before))
    world.reconcile()
    assert "canary" not in world.status
    assert world.served_version == "1"


def test_a_canary_that_is_stable_is_none() -> None:
    world = at_rest()
    before = world.status
    world.status = {**before, "canary": before["stable"]}
    world.settle()
    assert world.status == before


def test_a_digest_that_no_pod_told_pins_nothing() -> None:
    world = serving()
    world.target = "2"
    world.reconcile()
    world.tick()
    world.status = {**world.status, "canary": {**world.status["canary"], "digest": "sha256:" + "f" * 64}}
    world.reconcile()
    assert "digest" not in world.status["canary"]
    world.settle()
    assert world.served_version == "2"


def test_what_is_closed_is_known_from_the_annotations() -> None:
    world = closed()
    before = world.status
    world.status = {}
    world.settle()
    world.natures["2"] = Nature.GOOD
    world.settle()
    assert world.served_version == "1"
    assert world.status["model"]["closed"] == before["model"]["closed"]
    assert world.status["rejected"] == before["rejected"]


@pytest.mark.parametrize("verb", ["restart", "ack", "retry", "undo", "promote"])
def test_no_verb_acts_again(verb: str) -> None:
    world = serving("1", "2")
    first = min(world.observed().revisions, key=lambda revision: revision.number).name
    world.say(verb, first if verb == "undo" else world.serving)
    before, serving_before = world.status, world.serving
    world.status = {}
    world.settle()
    assert world.serving == serving_before
    assert world.status["lastHandled"][verb]
    assert world.status["stable"] == before["stable"]


def test_without_a_service_a_lost_status_is_rebuilt_too() -> None:
    world = World(natures={"1": Nature.UNFETCHABLE})
    world.reconcile()
    world.tick()
    world.say("abort", world.status["canary"]["revision"])
    world.status = {}
    world.natures.clear()
    world.settle()
    assert world.served_version == "1"


def test_a_pause_whose_end_is_not_known_waits_for_a_person() -> None:
    world = serving()
    world.say("pause", world.serving)
    world.settle()
    world.target = "2"
    world.status = {}
    world.settle()
    paused = world.condition("Paused")
    assert paused
    assert paused["reason"] == "StateRebuilt"
    assert world.served_version == "1"
    assert world.condition("Ready")["status"] == "True"  # type: ignore[index]
    world.say("resume", world.serving)
    world.settle()
    assert world.served_version == "2"


def lost_everything() -> World:
    """The Service points at a revision of which nothing is known."""
    world = serving()
    world.target = "2"
    world.runtimes["mlserver"] = world.runtimes["mlserver"].__class__(
        **{**world.runtimes["mlserver"].__dict__, "image": "other"}
    )
    world.edit(model={"name": "fraud", "alias": "champion", "updatePolicy": "Manual"})
    serving_before = world.serving
    del world.objects[("ControllerRevision", serving_before)]  # type: ignore[arg-type]
    world.status = {}
    return world


def test_where_traffic_goes_to_the_unknown_it_stays_and_a_person_is_asked() -> None:
    world = lost_everything()
    before, count = world.serving, world.replicas(world.serving or "")
    for _ in range(20):
        world.reconcile()
    assert world.serving == before
    assert world.replicas(before or "") == count
    assert world.events.count("StateRebuilt") == 1
    paused = world.condition("Paused")
    assert paused
    assert paused["reason"] == "StateRebuilt"
    assert str(before) in paused["message"]
    assert world.status["phase"] == "Degraded"
    assert world.reconcile() == 0


def test_resume_lets_the_target_take_over_from_the_unknown() -> None:
    world = lost_everything()
    world.reconcile()
    world.say("resume", world.status["model"]["targetRevision"])
    for _ in range(20):
        world.reconcile()
        world.now = world.now.replace(second=world.now.second + 1)
        names = {name for kind, name in world.objects if kind == "ControllerRevision"}
        world.pods = [pod for pod in world.pods if pod.revision in names]
        unknown = {
            key: o for key, o in world.objects.items() if key[0] == "Deployment" and key[1] not in names
        }
        world.objects = {key: o for key, o in world.objects.items() if key not in unknown}
        world.tick()
        world.objects |= unknown
    assert world.served_version == "2"
    assert world.flips[-1][1] > 0


def test_a_lost_controller_revision_that_can_be_rendered_again_is_no_forgery() -> None:
    world = serving()
    name = world.serving
    del world.objects[("ControllerRevision", name)]  # type: ignore[arg-type]
    world.reconcile()
    assert "StateRebuilt" not in world.events
    assert world.stored(name).digest == digest_of("1")
    assert world.objects[("Service", "fraud")]["spec"]["selector"][labels.REVISION] == name
