"""What tellings of canaries begin with and wait for, the places on a canary's way, and how a telling becomes a test."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest

from rollway_testing.kubelet import Nature
from rollway_testing.stage import Actor, Seen, Telling, Until
from rollway_testing.stories import serves

CALLERS: Final = 200
"""Requests at each look."""
SHORT: Final = {"pause": {"duration": "1s"}}
LONG: Final = {"pause": {"duration": "5s"}}
PERSON: Final[dict[str, Any]] = {"pause": {}}
STEPS: Final = ({"setWeight": 10}, SHORT, {"setWeight": 50}, SHORT)
ANALYSIS: Final = {"metrics": [{"name": "error-rate", "minSamples": 20}, {"name": "latency-p99"}]}

Play = Callable[..., Telling]


def chosen(request: pytest.FixtureRequest) -> dict[str, Callable[[Actor], Telling]]:
    """Give the tellings of a file that a run has chosen, by the names of their tests."""
    return {
        item.nodeid: partial(telling, **(item.callspec.params if hasattr(item, "callspec") else {}))
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path == request.path
        and (telling := getattr(item.function, "telling", None))
    }


def told(telling: Play) -> Callable[..., None]:
    """Make a test of a telling: it is played with the others, and the test says how it ended."""

    def test(request: pytest.FixtureRequest, endings: Mapping[str, Exception | None], **_: object) -> None:
        if error := endings[request.node.nodeid]:
            raise error

    own = list(inspect.signature(telling).parameters.values())[1:]
    asked = list(inspect.signature(test).parameters.values())[:2]
    test.__signature__ = inspect.Signature([*asked, *own])  # type: ignore[attr-defined]
    test.__name__, test.telling = telling.__name__, telling  # type: ignore[attr-defined]
    test.pytestmark = getattr(telling, "pytestmark", [])  # type: ignore[attr-defined]
    return test


# ---------------------------------------------------------------------------------------------- what is waited for


def version_serves(version: str) -> Until:
    def holds(seen: Seen) -> bool:
        return serves(seen.status, version) and seen.leads_to == seen.stable["revision"]

    return Until(f"version {version} serves", holds)


def weighs(weight: int, version: str = "2") -> Until:
    def holds(seen: Seen) -> bool:
        return bool(seen.canary.get("version") == version and seen.canary.get("weight") == weight)

    return Until(f"version {version} has {weight} %", holds)


def stepped(weight: int) -> Until:
    """Its weight is in force: pods and Service are as they shall be, too."""
    return Until(
        f"{weight} % are in force",
        lambda seen: weighs(weight).holds(seen) and "stepStartedAt" in seen.canary and seen.leads_to is None,
    )


def held(reason: str) -> Until:
    return Until(f"it is held for {reason}", lambda seen: seen.reason("Paused") == reason)


def on_its_way(version: str) -> Until:
    return Until(
        f"version {version} is on its way", lambda seen: seen.canary.get("version") == version and seen.counts
    )


def targets(version: str) -> Until:
    return Until(
        f"version {version} is asked for", lambda seen: seen.status["model"]["targetVersion"] == version
    )


def ended(version: str = "1") -> Until:
    """No canary is left, and nothing but one version has pods or traffic."""

    def holds(seen: Seen) -> bool:
        alone = [name for name, count in seen.counts.items() if count] == [seen.stable.get("revision")]
        return bool(version_serves(version).holds(seen) and not seen.canary and alone)

    return Until(f"only version {version} is left", holds)


def seconds(number: float) -> Until:
    """Let some time pass: it is what the tale is about."""
    began: list[float] = []

    def holds(seen: Seen) -> bool:
        began.append(seen.at)
        return seen.at - began[0] >= number

    return Until(f"{number} s have passed", holds)


def throughout(number: float, what: str, holds: Callable[[Seen], object]) -> Telling:
    """See that something holds for a while."""
    began = (yield seconds(0)).at
    seen = None
    while seen is None or seen.at - began < number:
        seen = yield seconds(0)
        assert holds(seen), f"no longer: {what}; {seen.status}"


# --------------------------------------------------------------------------------------------------------- the steps


@dataclass(frozen=True)
class Place:
    """A place on a canary's way at which it stays until it is let go."""

    name: str
    steps: tuple[Mapping[str, Any], ...]
    nature: Nature
    reached: Until
    weight: int = 0

    def __str__(self) -> str:
        return self.name


PLACES: Final = (
    Place("gates", STEPS, Nature.WAITING, on_its_way("2")),
    Place("10", ({"setWeight": 10}, PERSON, {"setWeight": 50}, SHORT), Nature.GOOD, held("PauseStep"), 10),
    Place("50", ({"setWeight": 10}, SHORT, {"setWeight": 50}, PERSON), Nature.GOOD, held("PauseStep"), 50),
    Place(
        "promotion",
        ({"setWeight": 10}, SHORT),
        Nature.ALONE,
        Until("it is to be promoted", lambda seen: "promoting" in seen.canary),
        10,
    ),
)
GATES, TEN, FIFTY, PROMOTION = PLACES
at_each_step = pytest.mark.parametrize("place", PLACES, ids=str)


def first(act: Actor, *, callers: int = CALLERS, **spec: Any) -> Telling:
    """Serve version 1 to callers by two pods, and have the next version come as a canary."""
    common = {"strategy": {"canary": {"steps": [*STEPS]}}, "predictor": {"replicas": 2}, "analysis": ANALYSIS}
    act.story.ask(**{field: value for field, value in (common | spec).items() if value is not None})
    seen = yield version_serves("1")
    assert seen.shares == [("1", 100)]
    act.story.callers(callers)


def comes_to(act: Actor, place: Place, **spec: Any) -> Telling:
    """Bring version 2 to a place."""
    act.fares("2", place.nature)
    yield from first(act, strategy={"canary": {"steps": [*place.steps]}}, **spec)
    act.point("2")
    seen = yield place.reached
    assert seen.canary.get("weight", 0) == place.weight


def let_go(act: Actor, place: Place) -> Telling:
    """Let version 2 go on from a place, to its end."""
    act.fares("2", Nature.GOOD)
    if place.reached.what == held("PauseStep").what:
        seen = yield held("PauseStep")
        act.story.say("promote", f"{seen.canary['revision']}/go-on")
    yield version_serves("2")


def loses_its_status(act: Actor, place: Place) -> Telling:
    """Wipe the status, and wait until the candidate is known again, with the weight of its place."""
    seen = yield seconds(0)
    revision = seen.canary["revision"]
    act.story.api.set_status(
        "ModelDeployment", act.story.name, act.story.namespace, dict.fromkeys(seen.status)
    )
    seen = yield Until("it is known again", lambda seen: seen.canary.get("revision") == revision)
    assert seen.canary.get("weight", 0) == place.weight
