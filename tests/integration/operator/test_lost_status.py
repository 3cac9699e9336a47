"""A status that was wiped or forged, and annotations that are poison: what serves goes on serving, untouched."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from rollway_testing.kills import FIRST, SECOND, TALES, Lane, until_ended
from rollway_testing.kubelet import Nature
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import Story, condition
from rollway_testing.waiting import eventually

Status = dict[str, Any]
UNDO = next(tale for tale in TALES if tale.name == "undo")


def before_the_first_serves(lane: Lane) -> Story:
    lane.kubelet.natures["1"] = Nature.WAITING
    story = lane.story()
    FIRST.act(story)
    story.until(lambda status: "canary" in status and story.children("Deployment"), "one pod is tried")
    return story


def at_rest(lane: Lane) -> Story:
    return lane.told(FIRST)


def amid_a_version_change(lane: Lane) -> Story:
    story = lane.told(FIRST)
    lane.kubelet.natures["2"] = Nature.WAITING
    SECOND.act(story)
    story.until(lambda status: "canary" in status and len(story.children("Deployment")) == 2, "two run")
    return story


def after_a_version_was_refused(lane: Lane) -> Story:
    story = lane.told(FIRST)
    lane.kubelet.natures["2"] = Nature.BROKEN
    SECOND.act(story)
    story.until(lambda status: bool(condition(status, "Stalled")), "version 2 is refused")
    return story


def after_an_undo(lane: Lane) -> Story:
    return lane.told(*UNDO.before, UNDO.step)


PHASES = (
    before_the_first_serves,
    at_rest,
    amid_a_version_change,
    after_a_version_was_refused,
    after_an_undo,
)


def wiped(status: Status) -> Status:
    return dict.fromkeys(status)


def without_a_stable(_: Status) -> Status:
    return {"stable": None}


def with_an_unknown_stable(_: Status) -> Status:
    return {"stable": {"revision": "k1-00000000", "version": "9"}}


def with_another_digest(status: Status) -> Status:
    role = "stable" if "stable" in status else "canary"
    return {role: {"digest": f"sha256:{'0' * 64}"}}


def with_roles_swapped_out(_: Status) -> Status:
    return {"canary": {"revision": "k1-11111111", "version": "9"}}


DAMAGES = (wiped, without_a_stable, with_an_unknown_stable, with_another_digest, with_roles_swapped_out)


def gist(story: Story) -> dict[str, Any]:
    status = story.status()
    roles = {
        role: {key: status[role].get(key) for key in ("revision", "version", "digest")}
        for role in ("stable", "canary")
        if role in status
    }
    target = {key: status.get("model", {}).get(key) for key in ("name", "targetVersion", "targetRevision")}
    return {
        "roles": roles,
        "target": target,
        "phase": status.get("phase"),
        "ready": condition(status, "Ready").get("status"),
        "counts": story.counts(),
        "revisions": set(story.children("ControllerRevision")),
    }


BRIEFLY = ((amid_a_version_change, wiped), (at_rest, with_an_unknown_stable))


@pytest.mark.parametrize(
    ("phase", "damage"),
    [
        pytest.param(phase, damage, marks=() if (phase, damage) in BRIEFLY else pytest.mark.thorough)
        for phase in PHASES
        for damage in DAMAGES
        if (phase, damage) != (before_the_first_serves, without_a_stable)
    ],
)
def test_a_status_that_was_spoilt_is_rebuilt_and_traffic_does_not_move(
    lane: Lane,
    alone: None,
    api: Kubernetes,
    phase: Callable[[Lane], Story],
    damage: Callable[[Status], Status],
) -> None:
    lane.kubelet.natures.clear()
    lane.operator.start()
    story = phase(lane)
    lane.until_quiet()
    before, status = gist(story), story.status()
    service = api.get("Service", story.name, story.namespace)
    spoilt = api.set_status("ModelDeployment", story.name, story.namespace, damage(status))
    assert spoilt.get("status", {}) != status
    eventually(lambda: gist(story), lambda now: now == before, within=30, what=f"the status is {before}")
    lane.until_quiet()
    assert gist(story) == before
    # Not only the same selector: nobody wrote the Service at any moment.
    assert api.get("Service", story.name, story.namespace) == service
    assert lane.operator.restarts == 0


POISONED = ("kopf.zalando.org/last-handled-configuration", "rollway.dev/undo", "rollway.dev/restart")
POISON = {"text": "notjson", "list": "[]", "brace": "{", "long": "x" * 200 * 1024}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "key", ["kopf.zalando.org/last-handled-configuration", "rollway.dev/undo", "rollway.dev/restart"]
)
@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_annotation_is_said_and_ignored(
    lane: Lane, alone: None, api: Kubernetes, key: str, poison: str
) -> None:
    lane.kubelet.natures.clear()
    story = lane.told(FIRST)
    lane.until_quiet()
    before = gist(story)
    annotations = {"metadata": {"annotations": {key: POISON[poison]}}}
    api.patch("ModelDeployment", story.name, story.namespace, annotations)
    if key.startswith("rollway.dev/"):
        eventually(
            lambda: [event["reason"] for event in _events(api, story)],
            lambda reasons: "VerbIgnored" in reasons,
            within=30,
            what="an Event says that it is ignored",
        )
    lane.until_quiet()
    assert gist(story) == before
    assert len(json.dumps((story.own() or {})["status"])) < 10_000
    SECOND.act(story)
    until_ended(story, SECOND)
    assert lane.operator.restarts == 0


def _events(api: Kubernetes, story: Story) -> list[dict[str, Any]]:
    return [
        event for event in api.list("Event", story.namespace) if event["involvedObject"]["name"] == story.name
    ]
