"""The evidence: what the pods of two revisions counted, and whether it speaks for or against the candidate.

    Counters ──► Window.add ──► strata, one a step ──► judge ──► Result
    raw and       increments,    stable │ canary        Successful: the whole interval within the limit
    cumulative    resets                                Failed: the whole interval beyond it
                                                        Inconclusive: neither, or no evidence, which is never evidence

Shares differ from step to step, so a base rate that moves would fake a difference where steps were pooled: each step is
compared within itself, and the differences are averaged (rollout.md rules 8 to 11).

Whoever looks often enough at noise sees a failure. So a verdict Failed is looked for only when the samples have
doubled: the k-th look may err with (1 - confidence)/2^k, all of them together with no more than 1 - confidence. What a
look saw is kept, so what failed once stays failed. Successful is looked for each time: it has to hold at the end.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil, hypot, inf, isinf, sqrt
from statistics import NormalDist
from typing import Any, Final

ERROR_RATE: Final = "error-rate"
LATENCY_P99: Final = "latency-p99"

STALE: Final = timedelta(seconds=30)
"""A pod that was not read for longer is not known to do well."""

_SLOW_SHARE: Final = 0.01
"""How many requests are slower than the 99th percentile."""
_LARGEST_GROWTH: Final = 2.0**16
_SUREST: Final = 1 - 2.0**-52
"""The largest probability short of one: what a very late look may err by is less than a float can tell from none."""
_TO: Final = "\N{EN DASH}"
_TIMES: Final = "\N{MULTIPLICATION SIGN}"


# ------------------------------------------------------------------------------------------------ what was read


@dataclass(frozen=True)
class Counters:
    """What one pod counted since its server started; only ever compared with an earlier reading of the same pod."""

    ok: int = 0
    server_error: int = 0
    client_error: int = 0
    shed: int = 0
    """Not taken on, for the load or before the model was ready."""
    buckets: Mapping[float, int] = field(default_factory=dict)
    """Requests that ended ok or in a server error, by how long they took at most; the last bound is infinite."""
    in_progress: int = 0

    @property
    def judged(self) -> int:
        """How many requests say something about the model: a client's errors do not."""
        return self.ok + self.server_error

    @property
    def requests(self) -> int:
        """How many requests came."""
        return self.judged + self.client_error + self.shed


@dataclass(frozen=True)
class Reading:
    """One side's pods, read once; every pod that was asked is in one of the two."""

    at: datetime
    pods: Mapping[str, Counters]
    """By the pod's uid."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a pod could not be read, by its uid; the text names the pod."""


@dataclass(frozen=True)
class Sample:
    """Both sides, read at the same time."""

    stable: Reading
    canary: Reading


# ------------------------------------------------------------------------------------------------ what was counted


@dataclass(frozen=True)
class Tally:
    """What one side did in one step."""

    requests: int = 0
    """All that came, a client's errors and what was shed among them."""
    n: int = 0
    """Those that say something about the model."""
    errors: int = 0
    buckets: Mapping[float, int] = field(default_factory=dict)
    """Of those that say something, how many took at most so long."""
    mixed: bool = False
    """Pods with other bounds were among them: nothing is known of how long requests took."""

    def __add__(self, other: "Tally") -> "Tally":
        """Count two together; buckets only where their bounds are the same."""
        mixed = (
            self.mixed
            or other.mixed
            or bool(self.buckets and other.buckets and self.buckets.keys() != other.buckets.keys())
        )
        bounds = () if mixed else sorted(self.buckets.keys() | other.buckets.keys())
        return Tally(
            requests=self.requests + other.requests,
            n=self.n + other.n,
            errors=self.errors + other.errors,
            buckets={bound: self.buckets.get(bound, 0) + other.buckets.get(bound, 0) for bound in bounds},
            mixed=mixed,
        )

    @property
    def timed(self) -> int:
        """How many requests the buckets hold."""
        return self.buckets.get(inf, 0)

    def percentile(self, hundredths: int) -> float:
        """Give the upper bound of the bucket that holds a percentile; it is infinite in the last.

        >>> Tally(buckets={0.01: 90, 0.03: 99, inf: 100}).percentile(99)
        0.03
        """
        rank = ceil(self.timed * hundredths / 100)
        return next((bound for bound in sorted(self.buckets) if self.buckets[bound] >= rank), inf)


NOTHING: Final = Tally()


@dataclass(frozen=True)
class Stratum:
    """What both sides did in one step, while the shares of traffic were the same."""

    stable: Tally = NOTHING
    canary: Tally = NOTHING

    @property
    def compares(self) -> bool:
        """Whether there is something to compare."""
        return bool(self.stable.n and self.canary.n)


Strata = Mapping[int, Stratum]


@dataclass(frozen=True)
class _Seen:
    """A pod's last good reading."""

    counters: Counters
    at: datetime
    step: int
    busy_since: datetime | None
    """Since when it has had requests in progress and ended none well."""


@dataclass(frozen=True)
class Side:
    """What is remembered of one revision's pods."""

    reading: Reading | None = None
    """The last one."""
    seen: Mapping[str, _Seen] = field(default_factory=dict)

    def read(self, reading: Reading, step: int) -> tuple["Side", Tally]:
        """Take in a reading, and give what the pods did since their last one.

        A pod's first reading is where its counting starts, and so is the first in a step: what began in another step
        belongs to neither. A pod that is not asked any more is forgotten.
        """
        tally = NOTHING
        seen = {uid: self.seen[uid] for uid in reading.missing if uid in self.seen}
        for uid, counters in reading.pods.items():
            before = self.seen.get(uid)
            if before and before.step == step:
                tally += _increment(before.counters, counters)
            seen[uid] = _Seen(counters, reading.at, step, _busy_since(before, counters, reading.at))
        return Side(reading, seen), tally

    def unread(self, now: datetime) -> dict[str, str]:
        """Give the pods that were not read for too long, with the reason."""
        missing = self.reading.missing if self.reading else {}
        seen = self.seen
        return {uid: why for uid, why in missing.items() if uid not in seen or now - seen[uid].at > STALE}

    @property
    def stuck(self) -> dict[str, datetime]:
        """Give the pods that have requests in progress and end none well, with since when."""
        present = self.reading.pods if self.reading else {}
        return {
            uid: pod.busy_since
            for uid, pod in self.seen.items()
            if uid in present and pod.busy_since is not None
        }


def _increment(before: Counters, now: Counters) -> Tally:
    """Say what a pod did between two readings.

    A count below the last one means that the server started again, and all that it counts is new.

    >>> _increment(Counters(ok=90, server_error=10), Counters(ok=95, server_error=12))
    Tally(requests=7, n=7, errors=2, buckets={}, mixed=False)
    >>> _increment(Counters(ok=90, server_error=10), Counters(ok=95, server_error=2))
    Tally(requests=97, n=97, errors=2, buckets={}, mixed=False)
    """
    if _started_again(before, now):
        before = Counters()
    return Tally(
        requests=now.requests - before.requests,
        n=now.judged - before.judged,
        errors=now.server_error - before.server_error,
        buckets={bound: count - before.buckets.get(bound, 0) for bound, count in now.buckets.items()},
    )


def _started_again(before: Counters, now: Counters) -> bool:
    """Say whether anything that only ever grows has become less."""
    if before.buckets and before.buckets.keys() != now.buckets.keys():
        return True
    earlier, later = (
        (c.ok, c.server_error, c.client_error, c.shed, *_in_each(c.buckets)) for c in (before, now)
    )
    return any(was > became for was, became in zip(earlier, later, strict=False))


def _in_each(buckets: Mapping[float, int]) -> Iterator[int]:
    """Give the count of each bucket without those below it."""
    below = 0
    for bound in sorted(buckets):
        yield buckets[bound] - below
        below = buckets[bound]


def _busy_since(before: _Seen | None, now: Counters, at: datetime) -> datetime | None:
    if not now.in_progress:
        return None
    if before and before.busy_since and before.counters.ok == now.ok:
        return before.busy_since
    return at


@dataclass(frozen=True)
class Window:
    """All that is remembered of one rollout: of one stable revision and one candidate."""

    started: datetime | None = None
    """When it was first read."""
    stable: Side = Side()
    canary: Side = Side()
    strata: Strata = field(default_factory=dict)
    looks: tuple[Strata, ...] = ()
    """What the strata were whenever `samples` had passed a minimum times a power of two."""

    def add(self, sample: Sample, step: int, minimums: Iterable[int] = ()) -> "Window":
        """Take in what was read under a step.

        `step` names a stratum: any number that changes whenever the shares of traffic do. `minimums` are the metrics'
        `minSamples`: the strata are kept as a look at the first reading that has one of them once, twice, four times,
        eight times, …. One is always among them: a metric whose minimum was changed finds looks, a little later.
        """
        stable, by_stable = self.stable.read(sample.stable, step)
        canary, by_canary = self.canary.read(sample.canary, step)
        before = self.strata.get(step, Stratum())
        strata = {**self.strata, step: Stratum(before.stable + by_stable, before.canary + by_canary)}
        had, has = samples(self.strata), samples(strata)
        due = any(_looks_due(has, minimum) > _looks_due(had, minimum) for minimum in {1, *minimums})
        return Window(
            started=self.started or sample.canary.at,
            stable=stable,
            canary=canary,
            strata=strata,
            looks=(*self.looks, strata) if due else self.looks,
        )

    def samples_in_step(self, step: int) -> int:
        """Say how many of the canary's requests in a step say something about the model."""
        return self.strata.get(step, Stratum()).canary.n

    def canary_requests(self, step: int) -> int:
        """Say how many requests of any kind the canary had in a step."""
        return self.strata.get(step, Stratum()).canary.requests

    def stable_requests(self, step: int) -> int:
        """Say how many requests of any kind stable had in a step."""
        return self.strata.get(step, Stratum()).stable.requests

    @property
    def stuck_since(self) -> datetime | None:
        """Say since when a pod of the canary has had requests in progress and ended none well."""
        return min(self.canary.stuck.values(), default=None)


def samples(strata: Strata) -> int:
    """Say how much there is to compare: the smaller side's requests in the steps in which both had some."""
    compared = [stratum for stratum in strata.values() if stratum.compares]
    return min(sum(stratum.canary.n for stratum in compared), sum(stratum.stable.n for stratum in compared))


def _looks_due(number: int, minimum: int) -> int:
    """Say for how many looks a number of samples is enough: at the minimum, and whenever it has doubled.

    >>> [_looks_due(number, 50) for number in (49, 50, 99, 100, 199, 200, 400)]
    [0, 1, 1, 2, 2, 3, 4]
    """
    return (number // max(1, minimum)).bit_length()


# ------------------------------------------------------------------------------------------------ the statistics


@dataclass(frozen=True)
class Estimate:
    """A value with the interval that holds the true one, but for the error that the confidence leaves."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Errors of a number of requests, the canary's and stable's, in one step."""

    canary_errors: float
    canary_n: float
    stable_errors: float
    stable_n: float

    @property
    def weight(self) -> float:
        """How much the step tells, after Mantel and Haenszel: what the smaller side has, but for a factor under two.

        >>> Pair(0, 10, 0, 10).weight, Pair(0, 10, 0, 90).weight
        (5.0, 9.0)
        """
        return self.canary_n * self.stable_n / (self.canary_n + self.stable_n)

    def grown(self, times: float) -> "Pair":
        """Give as it would be with so many times the requests, had they gone as these did."""
        return Pair(
            self.canary_errors * times,
            self.canary_n * times,
            self.stable_errors * times,
            self.stable_n * times,
        )


def wilson(successes: float, number: float, confidence: float) -> Estimate:
    """Estimate a share by Wilson's score interval (1927), which holds for few samples and shares near 0 or 1.

    Newcombe (1998, Statistics in Medicine 17: 857-872, table I): 81 of 263, 15 of 148, 0 of 20, 1 of 29.

    >>> for successes, number in ((81, 263), (15, 148), (0, 20), (1, 29)):
    ...     found = wilson(successes, number, 0.95)
    ...     print(f"{found.low:.4f} to {found.high:.4f}")
    0.2553 to 0.3662
    0.0624 to 0.1605
    0.0000 to 0.1611
    0.0061 to 0.1718
    """
    share = successes / number
    z = NormalDist().inv_cdf(min((1 + confidence) / 2, _SUREST))
    spread = z * sqrt(share * (1 - share) / number + (z / number) ** 2 / 4)
    middle = share + z * z / number / 2
    whole = 1 + z * z / number
    # Rounding must not put the share outside of its interval.
    low = min(share, max(0.0, (middle - spread) / whole))
    return Estimate(share, low, max(share, min(1.0, (middle + spread) / whole)))


def less(one: Estimate, other: Estimate) -> Estimate:
    """Estimate a difference from the intervals of what is subtracted: MOVER, the method of variance estimates recovery.

    Of two Wilson intervals it makes Newcombe's method 10 (1998, Statistics in Medicine 17: 873-890), whose table II has
    56 of 70 less 48 of 80:

    >>> found = less(wilson(56, 70, 0.95), wilson(48, 80, 0.95))
    >>> print(f"{found.value:.4f}: {found.low:.4f} to {found.high:.4f}")
    0.2000: 0.0524 to 0.3339
    """
    value = one.value - other.value
    below = hypot(one.value - one.low, other.high - other.value)
    above = hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above)


def average(parts: Sequence[tuple[float, float, float]], confidence: float) -> Estimate:
    """Estimate the average of several shares, each given as its weight, successes and number.

    It is Wilson's interval for the number of requests that would tell as much in one lot, by the larger of two answers:
    what the weights leave of the numbers if the shares are alike (Kish, Survey Sampling, 1965), and what the spread
    within the parts leaves of them if they are not (the design effect, as in Korn and Graubard, 1998).

    Lots of equal size and weight tell as much as one:

    >>> average([(1, 3, 50), (1, 3, 50)], 0.95) == wilson(6, 100, 0.95)
    True
    """
    total = sum(weight for weight, _, _ in parts)
    share = spread = alike = 0.0
    for weight, successes, number in parts:
        own, factor = successes / number, (weight / total) ** 2 / number
        share += weight / total * own
        spread += factor * own * (1 - own)
        alike += factor
    share = min(share, 1.0)
    if 0 < share < 1:
        alike = max(alike, spread / (share * (1 - share)))
    return wilson(share / alike, 1 / alike, confidence)


def difference(pairs: Sequence[Pair], confidence: float) -> Estimate:
    """Estimate by how much the canary's error rate is above stable's, averaged over the steps.

    Each side's rate is averaged with the same weights, and one is subtracted from the other; Tang compares that with
    other ways (2020, MOVER confidence intervals for a difference or ratio effect parameter under stratified sampling).
    Combining the steps' own intervals instead (Zou, Huang and Zhang, 2009) is wider for the few errors that are usual,
    and where steps have ten requests each it misses the true difference three times too often.

    In a quiet step nobody failed, in the next an outage hit half of all requests. Pooled, the canary's 45 of 100 would
    look far worse than stable's 5 of 100:

    >>> found = difference([Pair(0, 10, 0, 90), Pair(45, 90, 5, 10)], 0.95)
    >>> print(f"{found.value:.1f}: {found.low:.2f} to {found.high:.2f}")
    0.0: -0.21 to 0.20
    """
    return less(canary_rate(pairs, confidence), stable_rate(pairs, confidence))


def canary_rate(pairs: Sequence[Pair], confidence: float) -> Estimate:
    """Estimate the canary's error rate, averaged over the steps."""
    return average([(pair.weight, pair.canary_errors, pair.canary_n) for pair in pairs], confidence)


def stable_rate(pairs: Sequence[Pair], confidence: float) -> Estimate:
    """Estimate stable's error rate, averaged over the steps with the same weights."""
    return average([(pair.weight, pair.stable_errors, pair.stable_n) for pair in pairs], confidence)


# ------------------------------------------------------------------------------------------------ the verdict


class Phase(StrEnum):
    """What a metric says of the candidate."""

    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


class _Where(StrEnum):
    """Where an interval lies, seen from the limit."""

    WITHIN = "within"
    BEYOND = "beyond"
    OPEN = "open"


_PHASES: Final = {
    _Where.WITHIN: Phase.SUCCESSFUL,
    _Where.BEYOND: Phase.FAILED,
    _Where.OPEN: Phase.INCONCLUSIVE,
}


class Lack(StrEnum):
    """Why a metric says nothing: rollout.md rule 9."""

    NO_DATA = "NoData"
    TOO_FEW_SAMPLES = "TooFewSamples"
    PROVIDER_ERROR = "ProviderError"


@dataclass(frozen=True)
class Metric:
    """Something that is compared with stable."""

    name: str
    """`error-rate` or `latency-p99`."""
    limit: float
    """How far the canary's may be above stable's: a difference of error rates, a ratio of latencies."""
    min_samples: int = 50
    """How many requests each side must have had before anything is said."""


@dataclass(frozen=True)
class Result:
    """What one metric says, and by which numbers."""

    name: str
    phase: Phase
    message: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    threshold: str = ""
    samples: int = 0
    """The canary's requests that were judged."""
    reason: Lack | None = None

    def as_status(self) -> dict[str, Any]:
        """Write it as it stands in `status.analysis.metricResults`."""
        told = {
            "name": self.name,
            "phase": str(self.phase),
            "value": None if self.value is None else _decimal(self.value),
            "interval": None if self.interval is None else [_decimal(end) for end in self.interval],
            "threshold": self.threshold or None,
            "samples": self.samples,
            "reason": self.reason and str(self.reason),
            "message": self.message,
        }
        return {key: value for key, value in told.items() if value is not None}


@dataclass(frozen=True)
class _Finding:
    """What a metric reads out of the strata: one number that must lie within one limit."""

    limit: float
    estimate: Callable[[float, float], Estimate]
    """By confidence, and by how many times as many samples of the same kind there would be."""
    threshold: str
    told: Callable[[_Where, float], str]
    """The sentence with its numbers, at a confidence."""


def judge(metric: Metric, window: Window, confidence: float, now: datetime) -> Result:
    """Say what one metric says of the candidate."""
    return (
        _failed(metric, window, confidence)
        or _unknown(metric, window, now)
        or _present(metric, window, confidence)
    )


def _failed(metric: Metric, window: Window, confidence: float) -> Result | None:
    """Find the first look at which the whole interval lay beyond the limit."""
    for number, strata in _looks(window, metric.min_samples):
        finding = _find(metric, strata)
        at_look = 1 - (1 - confidence) / 2**number
        if isinstance(finding, _Finding) and finding.estimate(at_look, 1).low > finding.limit:
            return _result(metric, strata, finding, at_look, _Where.BEYOND)
    return None


def _looks(window: Window, minimum: int) -> Iterator[tuple[int, Strata]]:
    """Give the looks of a metric, with their numbers: where the samples doubled twice at once, one look is saved."""
    taken = due = 0
    for strata in window.looks:
        enough = _looks_due(samples(strata), minimum)
        if enough > due:
            due, taken = enough, taken + 1
            yield taken, strata


def _unknown(metric: Metric, window: Window, now: datetime) -> Result | None:
    """Say why there is nothing to judge by."""
    for name, side in (("stable", window.stable), ("canary", window.canary)):
        reading = side.reading
        if reading is None or now - reading.at > STALE:
            since = f"for {(now - reading.at).total_seconds():.0f} s" if reading else "yet"
            return _lacking(metric, window, Lack.NO_DATA, f"no {name} pod was read {since}")
        asked = len(reading.pods) + len(reading.missing)
        if not asked:
            return _lacking(metric, window, Lack.NO_DATA, f"there is no {name} pod to read")
        if unread := side.unread(now):
            why = f"{len(unread)} of {asked} {name} pods could not be read: {min(unread.values())}"
            return _lacking(metric, window, Lack.PROVIDER_ERROR, why)
    compared = [stratum for stratum in window.strata.values() if stratum.compares]
    numbers = {
        "stable": sum(stratum.stable.n for stratum in compared),
        "canary": sum(stratum.canary.n for stratum in compared),
    }
    for name, number in numbers.items():
        if number < metric.min_samples:
            why = f"{number} {name} requests were counted, and at least {metric.min_samples} are needed"
            return _lacking(metric, window, Lack.TOO_FEW_SAMPLES, why)
    return None


def _present(metric: Metric, window: Window, confidence: float) -> Result:
    """Say whether the whole interval lies within the limit now."""
    finding = _find(metric, window.strata)
    if isinstance(finding, str):
        return _lacking(metric, window, Lack.NO_DATA, finding)
    if finding.estimate(confidence, 1).high <= finding.limit:
        return _result(metric, window.strata, finding, confidence, _Where.WITHIN)
    result = _result(metric, window.strata, finding, confidence, _Where.OPEN)
    more = needed(metric, window, confidence)
    return (
        replace(result, message=f"{result.message}; about {more} more requests would tell")
        if more
        else result
    )


def needed(metric: Metric, window: Window, confidence: float) -> int | None:
    """Say about how many more of the canary's requests it takes until a verdict, if all goes on as it went."""
    finding = _find(metric, window.strata)
    if isinstance(finding, str):
        return None
    have = samples(window.strata)

    def tells(growth: float) -> bool:
        if finding.estimate(confidence, growth).high <= finding.limit:
            return True
        number = max(1, _looks_due(int(have * growth), metric.min_samples))
        return finding.estimate(1 - (1 - confidence) / 2**number, growth).low > finding.limit

    enough = 2.0
    while not tells(enough):
        enough *= 2
        if enough > _LARGEST_GROWTH:
            return None
    short = enough / 2
    while enough - short > 0.01 * enough:
        middle = (short + enough) / 2
        short, enough = (short, middle) if tells(middle) else (middle, enough)
    return _rounded((enough - 1) * _canary_n(window.strata))


def _result(metric: Metric, strata: Strata, finding: _Finding, confidence: float, where: _Where) -> Result:
    found = finding.estimate(confidence, 1)
    return Result(
        name=metric.name,
        phase=_PHASES[where],
        message=finding.told(where, confidence),
        value=found.value,
        interval=(found.low, found.high),
        threshold=finding.threshold,
        samples=_canary_n(strata),
    )


def _lacking(metric: Metric, window: Window, reason: Lack, why: str) -> Result:
    return Result(metric.name, Phase.INCONCLUSIVE, why, samples=_canary_n(window.strata), reason=reason)


def _canary_n(strata: Strata) -> int:
    return sum(stratum.canary.n for stratum in strata.values())


# ------------------------------------------------------------------------------------------------ the metrics


def _find(metric: Metric, strata: Strata) -> _Finding | str:
    """Read a metric out of the strata; a text says why it cannot be."""
    methods = {ERROR_RATE: _error_rate, LATENCY_P99: _latency}
    if metric.name not in methods:
        return f"nobody knows how to measure '{metric.name}'"
    return methods[metric.name](metric, strata)


def _error_rate(metric: Metric, strata: Strata) -> _Finding | str:
    """Measure the canary's share of server errors less stable's."""
    pairs = [
        Pair(stratum.canary.errors, stratum.canary.n, stratum.stable.errors, stratum.stable.n)
        for stratum in strata.values()
        if stratum.compares
    ]
    if not pairs:
        return "there is no step in which both sides had requests"

    def told(where: _Where, confidence: float) -> str:
        canary = canary_rate(pairs, confidence)
        stable = _percent(stable_rate(pairs, confidence).value)
        subject = f"canary error rate {_percent(canary.value)} ({_range(canary)})"
        allowed = _percent(metric.limit)
        return {
            _Where.BEYOND: f"{subject} exceeds stable {stable} by more than {allowed}",
            _Where.WITHIN: f"{subject} exceeds stable {stable} by no more than {allowed}",
            _Where.OPEN: f"{subject} may or may not exceed stable {stable} by more than {allowed}",
        }[where]

    def estimate(confidence: float, growth: float) -> Estimate:
        return difference([pair.grown(growth) for pair in pairs], confidence)

    return _Finding(metric.limit, estimate, f"<= {_decimal(metric.limit, 9)}", told)


def _latency(metric: Metric, strata: Strata) -> _Finding | str:
    """Measure the share of the canary's requests that were slower than stable's 99th percentile times the limit.

    In each step that time is rounded up to a bound of the canary's buckets; where stable had few requests in the step,
    its percentile is that of all steps.
    """
    canary = [strata[step].canary for step in sorted(strata)]
    stable = [strata[step].stable for step in sorted(strata)]
    pooled = sum(stable, NOTHING)
    if pooled.mixed or any(tally.mixed for tally in canary):
        return "pods of one revision do not tell times apart at the same bounds"
    if not pooled.timed or not any(tally.timed for tally in canary):
        return f"{'canary' if pooled.timed else 'stable'} pods do not say how long requests took"
    slower = number = 0
    percentile = bound = inf
    for own, other in zip(canary, stable, strict=True):
        if own.timed:
            percentile = (other if other.timed >= max(1, metric.min_samples) else pooled).percentile(99)
            bound = _bound(own, metric.limit * percentile)
            if isinf(bound):
                return f"{metric.limit:g} {_TIMES} stable's p99 is longer than what pods tell apart"
            slower += own.timed - own.buckets[bound]
            number += own.timed
    slow = (
        f"slower than {_time(bound)} ({metric.limit:g} {_TIMES} stable's p99 {_time(percentile)}, rounded up)"
    )

    def told(where: _Where, confidence: float) -> str:
        found = wilson(slower, number, confidence)
        subject = f"{_percent(found.value)} of canary requests ({_range(found)}) are {slow}"
        allowed = _percent(_SLOW_SHARE)
        return {
            _Where.BEYOND: f"{subject}, more than {allowed}",
            _Where.WITHIN: f"{subject}, less than {allowed}",
            _Where.OPEN: f"{subject}, which may or may not be more than {allowed}",
        }[where]

    def estimate(confidence: float, growth: float) -> Estimate:
        return wilson(slower * growth, number * growth, confidence)

    return _Finding(_SLOW_SHARE, estimate, f"< {_decimal(_SLOW_SHARE)} {slow}", told)


def _bound(tally: Tally, seconds: float) -> float:
    """Give the smallest bound that is not below a time.

    >>> _bound(Tally(buckets={0.03: 1, 0.045: 1, 0.06: 1, inf: 1}), 1.5 * 0.03)
    0.045
    """
    almost = seconds * (1 - 1e-9)
    return min((bound for bound in tally.buckets if bound >= almost), default=inf)


# ------------------------------------------------------------------------------------------------ words


def _decimal(value: float, places: int = 4) -> str:
    """Write a number without an exponent.

    >>> _decimal(0.02), _decimal(-0.00001), _decimal(1.5), _decimal(0.000001, 9)
    ('0.02', '0', '1.5', '0.000001')
    """
    text = f"{value:.{places}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _percent(share: float) -> str:
    """Write a share in percent.

    >>> _percent(0.0718), _percent(0.02), _percent(0.00012), _percent(1.0)
    ('7.2%', '2%', '0.012%', '100%')
    """
    return f"{_decimal(100 * share, 1 if abs(share) >= 0.001 else 3)}%"


def _range(found: Estimate) -> str:
    return f"{_percent(found.low)[:-1]}{_TO}{_percent(found.high)}"


def _time(seconds: float) -> str:
    """Write a time.

    >>> _time(0.0298), _time(2.5)
    ('29.8 ms', '2.5 s')
    """
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _rounded(number: float) -> int:
    """Round up to two digits: it is a guess.

    >>> _rounded(7.2), _rounded(1234)
    (8, 1300)
    """
    unit: int = 10 ** max(0, len(str(ceil(number))) - 2)
    return ceil(number / unit) * unit
