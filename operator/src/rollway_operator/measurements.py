"""What an administrator's query says of a canary: measured again and again, and held against a range.

    due ──► Measurement ──► Taken.add ──► judge ──► Result
    each interval           counts, kept   Failed: more failures than failureLimit
                            in status      Successful: `count` measurements, and no more failures than that
                                           Inconclusive: too few yet, or more without a verdict than inconclusiveLimit

The words are Argo Rollouts'. Unlike there, a measurement without a number never counts as one of `count`: no evidence
is not evidence (rollout.md rule 9).
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rollway_operator.analysis import Lack, Phase, Result

DEFAULT_INTERVAL: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Asked:
    """A metric of a spec that an administrator's template measures."""

    name: str
    template: str
    least: float = -math.inf
    most: float = math.inf
    interval: timedelta = DEFAULT_INTERVAL
    count: int = 1
    failure_limit: int = 0
    inconclusive_limit: int = 0

    @property
    def basis(self) -> str:
        """Name what measurements depend on: those of another template or range are not these."""
        told = json.dumps([self.template, self.least, self.most])
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def threshold(self) -> str:
        """Write the range in words.

        >>> Asked("a", "t", most=0.5).threshold, Asked("a", "t", 0.25, 1).threshold
        ('<= 0.5', '0.25 to 1')
        """
        if math.isinf(self.least):
            return f"<= {self.most:g}"
        return f">= {self.least:g}" if math.isinf(self.most) else f"{self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Measurement:
    """What a query gave once."""

    value: float | None = None
    """None where it gave no number."""
    why: str = ""
    """Why it gave none."""
    answered: bool = True
    """Whether there was an answer at all: one that was not given is no measurement."""

    @classmethod
    def of(cls, values: Sequence[str]) -> "Measurement":
        """Read a vector: one number, or the reason why it is none.

        >>> [Measurement.of(vector).why for vector in ([], ["1", "2"], ["NaN"])]
        ['it has no data', 'it has 2 series and not one', 'it is NaN']
        >>> Measurement.of(["0.25"]).value
        0.25
        """
        if len(values) != 1:
            return cls(why=f"it has {len(values)} series and not one" if values else "it has no data")
        try:
            value = float(values[0])
        except ValueError:
            value = math.nan
        return cls(value) if math.isfinite(value) else cls(why=f"it is {values[0][:20]}")


@dataclass(frozen=True)
class Taken:
    """All measurements of one metric in a rollout, counted."""

    name: str
    basis: str
    at: datetime | None = None
    """When the last one was taken."""
    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    value: float | None = None
    """The last number."""
    why: str = ""
    """Why the last one gave none."""
    unanswered: str = ""
    """Why there was no answer in this pass; nothing remembers it."""

    @property
    def conclusive(self) -> int:
        """How many gave a number."""
        return self.successful + self.failed

    def add(self, asked: Asked, found: Measurement, now: datetime) -> "Taken":
        """Count one more."""
        if not found.answered:
            return replace(self, unanswered=found.why)
        if found.value is None:
            return replace(self, at=now, inconclusive=self.inconclusive + 1, why=found.why)
        within = asked.least <= found.value <= asked.most
        return replace(
            self,
            at=now,
            successful=self.successful + within,
            failed=self.failed + (not within),
            value=found.value,
            why="",
        )


def judge(asked: Asked, taken: Taken) -> Result:
    """Say what the measurements so far say of the candidate.

    >>> asked = Asked("chargebacks", "t", most=0.5, count=3, failure_limit=1)
    >>> print(judge(asked, Taken("chargebacks", asked.basis, successful=2, value=0.25)).message)
    2 of 3 measurements, 0 of them not <= 0.5; the last is 0.25
    """
    many = f"{taken.conclusive} of {asked.count} measurements, {taken.failed} of them not {asked.threshold}"
    last = "" if taken.value is None else f"; the last is {taken.value:g}"
    phase, reason, message = Phase.INCONCLUSIVE, None, f"{many}{last}"
    if taken.failed > asked.failure_limit:
        phase, message = Phase.FAILED, f"{many}, and {asked.failure_limit} may be{last}"
    elif is_given_up(asked, taken):
        reason = Lack.NO_DATA
        message = f"{taken.inconclusive} measurements gave no number: {taken.why or 'none lately'}"
    elif taken.conclusive >= asked.count:
        phase = Phase.SUCCESSFUL
    elif taken.unanswered:
        reason, message = Lack.PROVIDER_ERROR, f"{many}: {taken.unanswered}"
    else:
        reason = Lack.NO_DATA if taken.why else Lack.TOO_FEW_SAMPLES
        message += f"; the last gave no number: {taken.why}" if taken.why else ""
    return Result(
        name=asked.name,
        phase=phase,
        message=f"{asked.name}: {message}" if phase is Phase.FAILED else message,
        value=taken.value,
        threshold=asked.threshold,
        samples=taken.conclusive,
        reason=reason,
    )


def is_given_up(asked: Asked, taken: Taken) -> bool:
    """Tell whether more measurements gave no number than may."""
    return taken.inconclusive > asked.inconclusive_limit


def due(asked: Asked, taken: Taken, since: datetime, now: datetime) -> bool:
    """Tell whether another one is to be taken; the first after an interval with traffic."""
    over = taken.failed > asked.failure_limit or is_given_up(asked, taken) or taken.conclusive >= asked.count
    return not over and now - (taken.at or since) >= asked.interval
