"""What makes alerts fire on a real cluster: every alert has its cause, and causes do not disturb each other."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollway_testing import provocations
from rollway_testing.alerts import (
    Course,
    Firing,
    Phase,
    Provocation,
    Seen,
    markdown,
    provoke_all,
    seconds,
    waits,
)
from rollway_testing.provocations import NOT_PROVOKED, PROVOCATIONS


def test_every_alert_is_provoked_once_or_says_why_not() -> None:
    provoked = [alert for each in PROVOCATIONS for alert in each.alerts]
    assert sorted([*provoked, *NOT_PROVOKED]) == sorted(waits())
    assert all(NOT_PROVOKED.values())


def test_what_is_provoked_can_have_fired_within_half_an_hour() -> None:
    assert max(waits()[alert] for each in PROVOCATIONS for alert in each.alerts) <= seconds("15m")


def test_every_model_has_one_cause() -> None:
    namespaces: Any = SimpleNamespace(
        models=SimpleNamespace(namespace="models"), unrouted=SimpleNamespace(namespace="unrouted")
    )
    told = [
        {about(namespaces).get("name") for about in each.alerts.values()} - {None} for each in PROVOCATIONS
    ]
    names = [name for found in told for name in found]
    assert len(names) == len(set(names))
    assert all(len(found) <= 1 for found in told)


def test_the_runbooks_tell_how_each_alert_was_seen() -> None:
    text = (Path(__file__).parents[2] / "docs/runbooks/README.md").read_text()
    _, told, _ = text.split("<!-- seen for real:")
    rows = [Seen(alert, each.how) for each in PROVOCATIONS for alert in each.alerts]

    def without_numbers(lines: list[str]) -> list[list[str]]:
        return [line.split(" | ")[:2] for line in lines if line.startswith("|")]

    assert without_numbers(told.splitlines()) == without_numbers(markdown(rows, NOT_PROVOKED))


def test_a_second_operator_is_scraped_with_the_first_and_leads_by_a_lease_of_its_own() -> None:
    container = {"name": "operator", "env": [{"name": "ROLLWAY_LEASE_NAME", "value": "one"}, {"name": "B"}]}
    pod = {"serviceAccountName": "account", "containers": [container]}
    live = {
        "spec": {
            "selector": {"matchLabels": {"app": "operator"}},
            "template": {"metadata": {"labels": {"app": "operator", "version": "1"}}, "spec": pod},
        }
    }
    role, _, deployment = provocations.second_operator(live, "elsewhere")
    spec = deployment["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert labels.items() > {"app": "operator", "version": "1"}.items()
    assert labels.items() >= spec["selector"]["matchLabels"].items() > {"app": "operator"}.items()
    [own] = spec["template"]["spec"]["containers"]
    assert own["env"] == [{"name": "ROLLWAY_LEASE_NAME", "value": "rollway-operator-again"}, {"name": "B"}]
    assert role["rules"][0]["resourceNames"] == ["rollway-operator-again"]
    assert container["env"][0] == {"name": "ROLLWAY_LEASE_NAME", "value": "one"}


@pytest.mark.parametrize(("text", "expected"), [("0s", 0), ("90s", 90), ("15m", 900), ("4h", 14400)])
def test_durations_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_a_duration_that_is_none_is_refused() -> None:
    with pytest.raises(AssertionError, match="1h30m is no duration"):
        seconds("1h30m")


def alert(name: str, state: str = "firing", **labels: str) -> dict[str, Any]:
    return {"state": state, "labels": {"alertname": name, "severity": "warning", **labels}}


def test_an_alert_fires_with_its_labels_and_not_while_it_is_pending() -> None:
    firing = Firing(lambda: [alert("Down", job="a"), alert("Slow", "pending", job="a")])
    assert firing.has("Down", {"job": "a"})
    assert not firing.has("Down", {"job": "b"})
    assert not firing.has("Slow", {"job": "a"})


def test_prometheus_is_asked_now_and_then() -> None:
    asked: list[int] = []

    def ask() -> list[dict[str, Any]]:
        asked.append(1)
        return []

    firing = Firing(ask, every=1000)
    assert not any(firing.has("Down", {}) for _ in range(5))
    assert len(asked) == 1


class World:
    """What provocations of this file act on: the alerts that fire, of those that the charts have."""

    def __init__(self) -> None:
        self.firing: list[dict[str, Any]] = []
        self.done: list[str] = []
        self.lock = threading.Lock()

    def provoke(self, name: str, phase: Phase, fault: str = "") -> "Provocation[World]":
        @contextmanager
        def cause(world: World) -> Iterator[None]:
            if fault:
                raise OSError(fault)
            with world.lock:
                world.done.append(f"{name} begins")
                world.firing.append(alert(name))
            yield
            with world.lock:
                world.done.append(f"{name} ends")
                world.firing = [each for each in world.firing if each["labels"]["alertname"] != name]

        return Provocation(f"{name} is hurt", {name: lambda _: {}}, phase, cause, ends_within=5)


def told(_: str) -> None:
    """Hear of progress."""


def test_phases_follow_each_other_and_each_alert_is_timed() -> None:
    world = World()
    given = [
        world.provoke("RollwayOperatorTargetMissing", Phase.GONE),
        world.provoke("RollwayModelRolledBack", Phase.SEEN),
        world.provoke("RollwayOperatorDown", Phase.UNSEEN),
    ]
    rows, failures = provoke_all(given, world, Firing(lambda: world.firing, every=0), told)
    assert failures == []
    order = ["RollwayOperatorDown", "RollwayModelRolledBack", "RollwayOperatorTargetMissing"]
    assert world.done == [f"{name} {what}" for name in order for what in ("begins", "ends")]
    assert [row.alert for row in rows] == list(reversed(order))
    assert all(row.fires is not None and row.resolves is not None for row in rows)


def test_a_cause_that_fails_is_told_and_the_others_go_on() -> None:
    world = World()
    given = [
        world.provoke("RollwayOperatorDown", Phase.UNSEEN, fault="no cluster"),
        world.provoke("RollwayModelRolledBack", Phase.SEEN),
    ]
    rows, failures = provoke_all(given, world, Firing(lambda: world.firing, every=0), told)
    assert failures == ["RollwayOperatorDown: OSError: no cluster"]
    assert [row.fires is None for row in rows] == [True, False]


def test_an_alert_that_fires_without_its_cause_is_told() -> None:
    world = World()
    world.firing = [alert("RollwayOperatorDown")]
    given = [world.provoke("RollwayOperatorDown", Phase.UNSEEN)]
    _, [failure] = provoke_all(given, world, Firing(lambda: world.firing, every=0), told)
    assert "fire without this cause" in failure
    assert world.done == []


@pytest.fixture
def course() -> tuple[Course[World], Callable[[Phase], Provocation[World]]]:
    of = {phase: World().provoke(phase.name, phase) for phase in Phase}
    return Course(list(of.values())), lambda phase: of[phase]


def test_a_phase_begins_when_those_before_are_over(
    course: tuple[Course[World], Callable[[Phase], Provocation[World]]],
) -> None:
    going, of = course

    def open_now() -> list[str]:
        return [phase.name for phase in Phase if going.may_begin(phase)]

    assert open_now() == ["BESIDE", "UNSEEN"]
    going.taken_away(of(Phase.UNSEEN))
    assert "SEEN" not in open_now()
    going.over(of(Phase.UNSEEN))
    assert "SEEN" in open_now()
    going.over(of(Phase.SEEN))
    assert "LEADERLESS" not in open_now(), "who goes back to a good version needs a leader"
    going.taken_away(of(Phase.BESIDE))
    assert "LEADERLESS" in open_now()
    assert "GONE" not in open_now()
    going.over(of(Phase.LEADERLESS))
    assert "GONE" in open_now()


def test_the_table_has_a_row_for_every_alert_and_no_number_that_was_not_seen() -> None:
    rows = [Seen("B", "it is hurt", 61.2, None), Seen("A", "it is cut", 5.0, 12.4)]
    assert markdown(rows, {"C": "it takes a day"}) == [
        "| alert | provoked how | seconds to fire | to resolve |",
        "|---|---|---|---|",
        "| A | it is cut | 5 | 12 |",
        "| B | it is hurt | 61 | - |",
        "| C | in promtool only: it takes a day | - | - |",
    ]
