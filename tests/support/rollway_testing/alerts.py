"""Alerts that are made to fire on a real cluster: in which order, and how long each takes to fire and to be over.

Each provocation has a thread of its own: it prepares what it needs, waits for its phase, causes the trouble, waits
until Prometheus says that all of its alerts fire, takes the cause away, and waits until none of them does.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar

from rollway_testing.monitoring import rules
from rollway_testing.waiting import eventually

S = TypeVar("S")
"""What provocations act on."""
Labels = Mapping[str, str]
Ask = Callable[[], Sequence[Mapping[str, Any]]]
"""Gives the alerts as Prometheus' `/api/v1/alerts` does: each with `labels` and `state`."""

_SECONDS_BETWEEN_QUESTIONS: Final = 2.0
_SECONDS_TO_BEGIN: Final = 2700.0
_SLACK: Final = 420.0
"""How much longer than its `for` an alert may take: roll-outs, rates and scrapes come before it."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


def _nothing(_: object) -> None:
    """Prepare nothing."""


class Phase(IntEnum):
    """When a cause begins: each phase when the one before has ended, and what is beside them at once."""

    BESIDE = 0
    """The alert needs no series of the operator."""
    UNSEEN = 1
    """While Prometheus does not see the operator."""
    SEEN = 2
    """While the operator leads and is seen."""
    LEADERLESS = 3
    """While nobody leads."""
    GONE = 4
    """While there is no operator."""


@dataclass(frozen=True)
class Provocation(Generic[S]):
    """One cause, and the alerts that it makes fire."""

    how: str
    """What is done, for the table."""
    alerts: Mapping[str, Callable[[S], Labels]]
    """By name, the labels that tell the alert of this cause from those of others."""
    phase: Phase
    cause: Callable[[S], AbstractContextManager[None]]
    """Brings the trouble about, and takes it away at its end."""
    prepare: Callable[[S], None] = _nothing
    """Makes what the cause needs: before the phase, and not in the time that is measured."""
    ends_within: float = 180.0
    """Seconds until the last alert is over; what a range in the rule has seen counts until it leaves the range."""


@dataclass
class Seen:
    """How long an alert took, in seconds; None where it did not come to that.

    To fire from when its cause begins, to be over from when that begins to be taken away.
    """

    alert: str
    how: str
    fires: float | None = None
    resolves: float | None = None


class Firing:
    """Which alerts fire now; many may ask, and Prometheus is asked now and then."""

    def __init__(self, ask: Ask, every: float = _SECONDS_BETWEEN_QUESTIONS) -> None:
        """Ask at most once in so many seconds."""
        self._ask, self._every = ask, every
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._found: Sequence[Mapping[str, Any]] = ()

    def has(self, alert: str, labels: Labels) -> bool:
        """Whether an alert fires that carries all of the labels."""
        wanted = {"alertname": alert, **labels}.items()
        with self._lock:
            if time.monotonic() - self._asked >= self._every:
                self._found = self._ask()
                self._asked = time.monotonic()
            return any(each["state"] == "firing" and wanted <= each["labels"].items() for each in self._found)


class Course(Generic[S]):
    """How far each provocation has come, and with that whether a phase may begin."""

    def __init__(self, provocations: Sequence[Provocation[S]]) -> None:
        """Begin with nothing done."""
        self._causes = list(provocations)
        self._going_on = list(provocations)

    def taken_away(self, provocation: Provocation[S]) -> None:
        """Note that its cause is no more, or never came."""
        self._causes = [each for each in self._causes if each is not provocation]

    def over(self, provocation: Provocation[S]) -> None:
        """Note that nothing more comes of it."""
        self.taken_away(provocation)
        self._going_on = [each for each in self._going_on if each is not provocation]

    def may_begin(self, phase: Phase) -> bool:
        """Whether nothing of the phases before is left that this one would disturb.

        To take a cause away may need an operator that leads: what is beside all phases must be done with that much
        before the first phase without one.
        """
        before = [each for each in self._going_on if Phase.BESIDE < each.phase < phase]
        beside = [each for each in self._causes if each.phase is Phase.BESIDE]
        return not before and not (beside and phase > Phase.SEEN)


def waits() -> dict[str, float]:
    """By each alert of the charts, how long its condition must hold, in seconds."""
    return {rule["alert"]: seconds(rule.get("for", "0s")) for rule in rules() if "alert" in rule}


def seconds(text: str) -> float:
    """Read a duration of one unit, such as `15m`."""
    found = re.fullmatch(r"(\d+)([smh])", text)
    assert found, f"{text} is no duration of one unit"
    return float(found[1]) * _UNITS[found[2]]


def provoke_all(
    provocations: Sequence[Provocation[S]], setting: S, firing: Firing, say: Callable[[str], None]
) -> tuple[list[Seen], list[str]]:
    """Carry all of them out; give what was seen of each alert, and of each provocation that failed why."""
    course = Course(provocations)
    rows = {id(each): [Seen(alert, each.how) for alert in each.alerts] for each in provocations}

    def run(provocation: Provocation[S]) -> str | None:
        names = ", ".join(provocation.alerts)
        try:
            _provoke(provocation, setting, firing, course, rows[id(provocation)], say)
        except Exception as error:  # noqa: BLE001 - the others go on, and the failure is told at the end
            say(f"{names}: FAILED: {error}")
            return f"{names}: {type(error).__name__}: {error}"
        finally:
            course.over(provocation)
        return None

    with ThreadPoolExecutor(len(provocations)) as pool:
        failures = [failure for failure in pool.map(run, provocations) if failure]
    return [seen for each in provocations for seen in rows[id(each)]], failures


def _provoke(
    provocation: Provocation[S],
    setting: S,
    firing: Firing,
    course: Course[S],
    rows: Sequence[Seen],
    say: Callable[[str], None],
) -> None:
    provocation.prepare(setting)
    eventually(
        lambda: course.may_begin(provocation.phase),
        within=_SECONDS_TO_BEGIN,
        what=f"the phase {provocation.phase.name} begins",
    )
    about = {alert: labels(setting) for alert, labels in provocation.alerts.items()}
    early = [alert for alert, labels in about.items() if firing.has(alert, labels)]
    assert not early, f"{early} fire without this cause"
    say(f"begins: {provocation.how}")
    began = time.monotonic()
    with provocation.cause(setting):
        longest = max(waits()[alert] for alert in about)

        def unfired() -> list[str]:
            for seen in rows:
                if seen.fires is None and firing.has(seen.alert, about[seen.alert]):
                    seen.fires = time.monotonic() - began
                    say(f"{seen.alert} fires after {seen.fires:.0f} s")
            return [seen.alert for seen in rows if seen.fires is None]

        eventually(
            unfired, lambda left: not left, within=longest + _SLACK, what="all fire", told=lambda left: left
        )
        mended = time.monotonic()
    course.taken_away(provocation)

    def unresolved() -> list[str]:
        for seen in rows:
            if seen.resolves is None and not firing.has(seen.alert, about[seen.alert]):
                seen.resolves = time.monotonic() - mended
                say(f"{seen.alert} is over after {seen.resolves:.0f} s")
        return [seen.alert for seen in rows if seen.resolves is None]

    eventually(
        unresolved,
        lambda left: not left,
        within=provocation.ends_within,
        what="all are over",
        told=lambda left: left,
    )


def markdown(rows: Sequence[Seen], not_provoked: Mapping[str, str]) -> list[str]:
    """The lines of a table of all alerts, those among them that nobody provoked, with why."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}"

    lines = ["| alert | provoked how | seconds to fire | to resolve |", "|---|---|---|---|"]
    lines += [
        f"| {row.alert} | {row.how} | {number(row.fires)} | {number(row.resolves)} |"
        for row in sorted(rows, key=lambda row: row.alert)
    ]
    return lines + [
        f"| {alert} | in promtool only: {why} | - | - |" for alert, why in sorted(not_provoked.items())
    ]
