"""The steps of a canary: what the spec lays down, and where in it a rollout stands.

setWeight 10 │ pause 5m │ setWeight 50 │ pause {}          entries, as the spec has them
└──── step of 10 % ────┘ └──── step of 50 % ────┘          one weight with the pauses after it
     0            1            2           3       4       index: the entry that is carried out; 4 is the promotion
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from rollway_operator.api.v1alpha1 import CanaryStep, ModelDeployment, Pause, seconds
from rollway_operator.domain import Progress

DEFAULT_STEPS: Final = (
    CanaryStep(set_weight=10),
    CanaryStep(pause=Pause(duration="60s")),
    CanaryStep(set_weight=50),
    CanaryStep(pause=Pause(duration="60s")),
)
PROMOTION: Final = 100
"""The weight that is no step: it is the promotion itself."""


@dataclass(frozen=True)
class Step:
    """One weight with the pauses after it."""

    weight: int
    index: int
    """Of its setWeight among the entries; -1 where the entries begin with a pause."""
    pauses: tuple[float | None, ...] = ()
    """In seconds; None waits for a person."""

    @property
    def end(self) -> int:
        """The index of what follows its last pause."""
        return self.index + 1 + len(self.pauses)


@dataclass(frozen=True)
class Place:
    """Where in a step's pauses a rollout stands."""

    index: int
    """The entry that is carried out."""
    left: float | None = None
    """Seconds until the present pause ends; None where a person ends it, or where all pauses are over."""
    person: bool = False


def laid_down(deployment: ModelDeployment) -> tuple[Step, ...]:
    """Give the steps of a canary that the spec lays down, or the default ones."""
    strategy = deployment.spec.strategy
    entries = strategy.canary.steps if strategy and strategy.canary else None
    return grouped(entries or DEFAULT_STEPS)


def grouped(entries: Sequence[CanaryStep]) -> tuple[Step, ...]:
    """Group the entries into steps.

    >>> [(step.weight, step.index, step.pauses) for step in grouped(DEFAULT_STEPS)]
    [(10, 0, (60.0,)), (50, 2, (60.0,))]
    >>> grouped([CanaryStep(pause=Pause())])
    (Step(weight=0, index=-1, pauses=(None,)),)
    >>> grouped([CanaryStep(set_weight=20), CanaryStep(set_weight=100)])
    (Step(weight=20, index=0, pauses=()),)
    """
    steps: list[Step] = []
    for index, entry in enumerate(entries):
        if entry.set_weight == PROMOTION:
            break
        if entry.set_weight is not None:
            steps.append(Step(entry.set_weight, index))
            continue
        before = steps.pop() if steps else Step(0, -1)
        duration = entry.pause.duration if entry.pause else None
        steps.append(replace(before, pauses=(*before.pauses, seconds(duration) if duration else None)))
    return tuple(steps)


def fingerprint(steps: Sequence[Step]) -> str:
    """Name a list of steps by a hash."""
    told = [[step.weight, step.pauses] for step in steps]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def present(steps: Sequence[Step], progress: Progress) -> Step | None:
    """Give the step that a rollout is in; None before the first."""
    if progress.set_at is None:
        return None
    found = [step for step in steps if step.weight == progress.weight]
    # Where the spec was changed to lower weights alone the present one is a step of its own, the last.
    return found[0] if found else Step(progress.weight, (steps[-1].end if steps else 0) - 1)


def following(steps: Sequence[Step], progress: Progress) -> Step | None:
    """Give the step after the present one; None where the promotion follows."""
    if progress.set_at is None:
        return next(iter(steps), None)
    return next((step for step in steps if step.weight > progress.weight), None)


def place(step: Step, started_at: datetime, now: datetime) -> Place:
    """Say which of a step's pauses a rollout is in, by the time since its weight is in force.

    >>> at = datetime.fromisoformat
    >>> step = Step(10, 0, (60.0, 30.0))
    >>> place(step, at("2026-01-01T00:00:00Z"), at("2026-01-01T00:01:10Z"))
    Place(index=2, left=20.0, person=False)
    >>> place(step, at("2026-01-01T00:00:00Z"), at("2026-01-01T00:02:00Z"))
    Place(index=3, left=None, person=False)
    """
    passed = (now - started_at).total_seconds()
    for index, pause in enumerate(step.pauses, step.index + 1):
        if pause is None:
            return Place(index, person=True)
        if passed < pause:
            return Place(index, left=pause - passed)
        passed -= pause
    return Place(step.end)


def followed(steps: Sequence[Step], progress: Progress) -> Progress:
    """Find the place in steps that were changed meanwhile: the first with at least the present weight comes next."""
    name = fingerprint(steps)
    if progress.steps == name:
        return progress
    moved = replace(progress, steps=name)
    if progress.set_at is None or progress.promoting:
        return moved
    if next(steps_at(steps, progress.weight), None):
        step = present(steps, moved)
        return replace(moved, index=max(step.index, 0) if step else 0, leaving=False)
    # Another weight than any of the new steps': what comes next is the first that is higher.
    return replace(moved, leaving=following(steps, moved) is not None)


def steps_at(steps: Sequence[Step], weight: int) -> Iterator[Step]:
    """Give the steps of one weight: at most one."""
    return (step for step in steps if step.weight == weight)
