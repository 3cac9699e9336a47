"""The evidence: what the pods of two revisions counted, and whether it speaks for or against the candidate.

    Counters ──► Window.add ──► strata, one a step ──► judge ──► Result
    raw and       increments,    stable │ canary        Successful: the whole interval within the limit
    cumulative    resets                                Failed: the whole interval beyond it
                                                        Inconclusive: neither, or no evidence, which is never evidence

Shares differ from step to step, so a base rate that moves would fake a difference where steps were pooled: each step is
compared within itself, and their evidence is multiplied (rollout.md rules 8 to 11).

Whoever looks often enough at noise sees what is not there. The intervals are confidence sequences, which hold at all
looks at once: the chance that one of them ever leaves out the truth is no more than what the confidence leaves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from math import acos, ceil, copysign, cos, exp, fsum, inf, isinf, lgamma, log, pi, sqrt
from typing import Any, Final, Protocol

ERROR_RATE: Final = "error-rate"
LATENCY_P99: Final = "latency-p99"

STALE: Final = timedelta(seconds=30)
"""A pod that was not read for longer is not known to do well."""

_SLOW_SHARE: Final = 0.01
"""How many requests are slower than the 99th percentile."""
_LARGEST_GROWTH: Final = 2.0**16
_HALVINGS: Final = 18
"""How often an interval between -1 and 1 is halved to find a number in it, to a hundred-thousandth."""
BETA: Final = (0.1, 1.0)
"""The mixture of rates, by its parameters: half of it lies below a thousandth."""
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
    scraped_at: datetime | None = None
    """When Prometheus read it from the pod; None where it was read from the pod directly."""

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
    """One side's pods, read once; every pod that was asked about is in one of the three."""

    at: datetime
    pods: Mapping[str, Counters]
    """By the pod's uid."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a pod could not be read, by its uid; the text names the pod."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Why there is nothing of a pod although all was well with whoever was asked; likewise."""

    @property
    def unread(self) -> Mapping[str, str]:
        """Why nothing is known of a pod, whatever the reason."""
        return {**self.missing, **self.absent}


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
    seconds: float = 0.0
    """For how long it was counted."""

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
    since: datetime
    """When it was first read in the step."""
    busy_since: datetime | None
    """Since when it has had requests in progress and ended none well."""

    def is_continued_by(self, counters: Counters, step: int) -> bool:
        """Say whether what was counted between the two belongs to a step: both were read in it, in the same way."""
        directly = self.counters.scraped_at is None
        return self.step == step and directly is (counters.scraped_at is None)


@dataclass(frozen=True)
class Stuck:
    """Requests in progress, and none that ends well."""

    since: datetime
    until: datetime
    """When that was last seen."""


@dataclass(frozen=True)
class Side:
    """What is remembered of one revision's pods."""

    reading: Reading | None = None
    """The last one."""
    seen: Mapping[str, _Seen] = field(default_factory=dict)

    def read(self, reading: Reading, step: int, since: datetime | None = None) -> tuple["Side", Tally]:
        """Take in a reading, and give what the pods did since their last one.

        A pod's first reading is where its counting starts, and so is the first in a step, which began at `since`: what
        began in another step belongs to neither. A pod that is not asked about any more is forgotten.
        """
        tally = NOTHING
        seen = {uid: self.seen[uid] for uid in (*reading.unread, *reading.pods) if uid in self.seen}
        for uid, counters in reading.pods.items():
            before = self.seen.get(uid)
            if _is_old(counters, before, since):
                continue
            at = counters.scraped_at or reading.at
            began = at
            if before and before.is_continued_by(counters, step):
                tally += _increment(before.counters, counters)
                began = before.since
            seen[uid] = _Seen(counters, at, step, began, _busy_since(before, counters, at))
        return Side(reading, seen), tally

    def unread(self, now: datetime) -> dict[str, str]:
        """Give the pods that were not read for too long, with the reason."""
        unread = self.reading.unread if self.reading else {}
        seen = self.seen
        return {uid: why for uid, why in unread.items() if uid not in seen or now - seen[uid].at > STALE}

    @property
    def stuck(self) -> list[Stuck]:
        """Say for how long pods have had requests in progress and ended none well."""
        present = self.reading.pods if self.reading else {}
        return [
            Stuck(pod.busy_since, pod.at)
            for uid, pod in self.seen.items()
            if uid in present and pod.busy_since is not None
        ]

    def counted_until(self, step: int) -> datetime | None:
        """Say until when it is known what all pods that can be read did in a step; None while that is not known.

        Where no pod can be read nothing will be known: until the last try.
        """
        if self.reading is None:
            return None
        if not self.reading.pods:
            return self.reading.at
        pods = [self.seen.get(uid) for uid in self.reading.pods]
        known = [pod.at for pod in pods if pod and pod.step == step and pod.at > pod.since]
        return min(known) if len(known) == len(pods) else None


def _is_old(counters: Counters, before: _Seen | None, since: datetime | None) -> bool:
    """Tell whether a pod was scraped before the step began, or no later than what is known of it.

    Of two Prometheus that take turns at an address one is always behind: less than before would look like a restart.
    """
    at = counters.scraped_at
    if at is None:
        return False
    return bool((before and at <= before.at) or (since and at < since))


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

    def add(self, sample: Sample, step: int, since: datetime | None = None) -> "Window":
        """Take in what was read under a step: any number that changes whenever the shares of traffic do.

        What was scraped before `since`, when the step began, does not belong to it.
        """
        stable, by_stable = self.stable.read(sample.stable, step, since)
        canary, by_canary = self.canary.read(sample.canary, step, since)
        before = self.strata.get(step, Stratum())
        last = self.canary.reading.at if self.canary.reading and step in self.strata else sample.canary.at
        seconds = before.seconds + (sample.canary.at - last).total_seconds()
        strata = {**self.strata, step: Stratum(before.stable + by_stable, before.canary + by_canary, seconds)}
        return Window(
            started=self.started or sample.canary.at,
            stable=stable,
            canary=canary,
            strata=strata,
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

    def quiet_until(self, step: int) -> datetime | None:
        """Say until when stable is known to have had no request in a step; None where it had some, or nobody knows."""
        return None if self.stable_requests(step) else self.stable.counted_until(step)

    @property
    def stuck(self) -> Stuck | None:
        """Say for how long a pod of the canary has had requests in progress and ended none well."""
        return min(self.canary.stuck, key=lambda stuck: stuck.since, default=None)


# ------------------------------------------------------------------------------------------------ the statistics
#
# A confidence sequence is the set of all values that the evidence does not speak against, and the evidence against a
# value is a ratio of likelihoods: of all that was counted under a mixture of what might be the case, and under what
# suits the value best. Were the value the true one, that ratio would ever become 1/alpha with a chance of no more than
# alpha, however often one looks and for whatever reason one stops (Ville, 1939; the mixture is Robbins', 1970, and to
# hold it against the best of many is universal inference: Wasserman, Ramdas and Balakrishnan, PNAS 117: 16880, 2020,
# section 8). Nothing is approximated, so it holds at rates near zero too, where intervals made for one look and many
# errors (Wilson, Newcombe) do not. It takes more requests than those; see docs/concepts.md.


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

    @property
    def difference(self) -> float:
        """By how much the canary's share of errors is above stable's."""
        return self.canary_errors / self.canary_n - self.stable_errors / self.stable_n

    def __add__(self, other: "Pair") -> "Pair":
        """Count two steps as if they were one."""
        return Pair(
            self.canary_errors + other.canary_errors,
            self.canary_n + other.canary_n,
            self.stable_errors + other.stable_errors,
            self.stable_n + other.stable_n,
        )

    def grown(self, times: float) -> "Pair":
        """Give as it would be with so many times the requests, had they gone as these did."""
        return Pair(
            self.canary_errors * times,
            self.canary_n * times,
            self.stable_errors * times,
            self.stable_n * times,
        )


def level(confidence: float) -> float:
    """Give the logarithm of the evidence that excludes a value, when each end may err with half of what is left.

    >>> f"{level(0.95):.2f}"  # 40 to one
    '3.69'
    """
    return log(2 / max(1 - confidence, 2.0**-52))


def share(successes: float, number: float, confidence: float) -> Estimate:
    """Estimate a share by Robbins' mixture: the values that a Beta mixture does not outdo too clearly.

    Of 500 requests none is slow, then 5 are:

    >>> for successes in (0, 5):
    ...     found = share(successes, 500, 0.95)
    ...     print(f"{found.low:.4f} to {found.high:.4f}")
    0.0000 to 0.0087
    0.0012 to 0.0348
    """
    told, enough = successes / number, level(confidence)

    def excluded(value: float) -> bool:
        return share_evidence(successes, number, value) >= enough

    return Estimate(told, _edge(told, 0, excluded), _edge(told, 1, excluded))


def share_evidence(successes: float, number: float, value: float) -> float:
    """Give the logarithm of the evidence against a value of a share."""
    return _mixed(successes, number) - _likelihood(successes, number, value)


def difference(pairs: Sequence[Pair], confidence: float) -> Estimate:
    """Estimate by how much the canary's error rate is above stable's, the same in all steps; see `evidence`.

    In a quiet step nobody failed, in the next an outage hit half of all requests. Pooled, the canary's 45 of 100 would
    look far worse than stable's 5 of 100:

    >>> found = difference([Pair(0, 10, 0, 90), Pair(45, 90, 5, 10)], 0.95)
    >>> print(f"{found.value:.1f}: {found.low:.2f} to {found.high:.2f}")
    0.0: -0.12 to 0.41
    """
    enough = level(confidence)
    told = _average(pairs, [pair.difference for pair in pairs])
    low = _edge(1.0, -1.0, lambda value: evidence(pairs, value, Claim.ABOVE) >= enough)
    high = _edge(-1.0, 1.0, lambda value: evidence(pairs, value, Claim.BELOW) >= enough)
    # Where steps contradict each other no one value suits them all, and the ends change places.
    return Estimate(told, min(low, high, told), max(low, high, told))


class Claim(StrEnum):
    """What there may be evidence for."""

    BELOW = "below"
    ABOVE = "above"


def evidence(pairs: Sequence[Pair], value: float, claim: Claim) -> float:
    """Give the logarithm of the evidence that the difference is below a value (or above), and not in every step beyond.

    What might be the case: both rates are the same, or each has its own; in all steps alike, or in each step anew. That
    they are the same is what most canaries are, so it has most of the weight where it can be of use.

    It takes 230 requests of the canary without an error, and nine times as many of stable, to say that it fails less
    than 2 % more:

    >>> [evidence([Pair(0, n, 0, 9 * n)], 0.02, Claim.BELOW) >= level(0.95) for n in (229, 230)]
    [False, True]
    """
    whole = sum(pairs[1:], pairs[0])
    apart = (_apart(whole), sum(map(_apart, pairs)))
    same = (_together(whole), sum(map(_together, pairs)))
    if claim is Claim.BELOW:
        mixture = _mean((same[0], same[0], same[0], same[0], same[1], same[1], *apart))
    else:
        mixture = _mean(apart)
    return mixture - sum(best(pair, value, claim) for pair in pairs)


def _apart(pair: Pair) -> float:
    return _mixed(pair.canary_errors, pair.canary_n) + _mixed(pair.stable_errors, pair.stable_n)


def _together(pair: Pair) -> float:
    return _mixed(pair.canary_errors + pair.stable_errors, pair.canary_n + pair.stable_n)


def _mixed(successes: float, number: float) -> float:
    """Give the log-likelihood under a Beta mixture of rates, most of which are small, as rates of errors are."""
    a, b = BETA
    return _log_beta(a + successes, b + number - successes) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _likelihood(successes: float, number: float, rate: float) -> float:
    """Give the log-likelihood of a rate; what cannot be is infinitely unlikely."""
    return _times_log(successes, rate) + _times_log(number - successes, 1 - rate)


def _times_log(number: float, rate: float) -> float:
    if not number:
        return 0.0
    return number * log(rate) if rate > 0 else -inf


def best(pair: Pair, value: float, claim: Claim) -> float:
    """Give the log-likelihood of the rates that suit a step best among those whose difference is beyond the value."""
    beyond = pair.difference >= value if claim is Claim.BELOW else pair.difference <= value
    if beyond:
        canary, stable = pair.canary_errors / pair.canary_n, pair.stable_errors / pair.stable_n
    else:
        # Likelihoods are concave, so the best two rates differ by just the value.
        stable = _stable_rate(pair, value)
        canary = min(max(stable + value, 0.0), 1.0)
    return _likelihood(pair.canary_errors, pair.canary_n, canary) + _likelihood(
        pair.stable_errors, pair.stable_n, stable
    )


def _stable_rate(pair: Pair, value: float) -> float:
    """Give stable's rate that suits a step best where the canary's is above it by just the value.

    Where the likelihood is largest a cubic is nought: Miettinen and Nurminen (1985, Statistics in Medicine 4: 213-226,
    appendix 1). Nobody failed, or each failed half of the time:

    >>> [f"{_stable_rate(pair, 0.2):.3f}" for pair in (Pair(0, 10, 0, 90), Pair(5, 10, 5, 10))]
    ['0.000', '0.400']
    """
    failed, number = pair.canary_errors + pair.stable_errors, pair.canary_n + pair.stable_n
    square = (pair.stable_n * value - number + (number * value) - failed) / number
    linear = ((pair.stable_n * value - number - 2 * pair.stable_errors) * value + failed) / number
    constant = pair.stable_errors * value * (1 - value) / number
    middle = -square / 3
    inner = -(middle**3) - square * linear / 6 + constant / 2
    radius = copysign(sqrt(max(middle**2 - linear / 3, 0.0)), inner)
    turned = acos(min(max(inner / radius**3, -1.0), 1.0)) if radius**3 else 0.0
    root = middle + 2 * radius * cos((pi + turned) / 3)
    return min(max(root, 0.0, -value), 1.0, 1.0 - value)


def _edge(inside: float, outside: float, excluded: Callable[[float], bool]) -> float:
    """Find where an interval ends, from a value inside to the last that is possible."""
    if not excluded(outside):
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if excluded(middle) else (middle, outside)
    return outside


def _average(pairs: Sequence[Pair], values: Sequence[float]) -> float:
    weighted = sum(pair.weight * value for pair, value in zip(pairs, values, strict=True))
    return weighted / sum(pair.weight for pair in pairs)


def _mean(logarithms: Sequence[float]) -> float:
    """Give the logarithm of the mean of numbers that are given by their logarithms."""
    largest = max(logarithms)
    return largest + log(fsum(exp(one - largest) for one in logarithms) / len(logarithms))


# ------------------------------------------------------------------------------------------------ the verdict


class Phase(StrEnum):
    """What a metric says of the candidate."""

    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


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


class _Finding(Protocol):
    """What a metric reads out of the strata: one number that must lie within a limit."""

    @property
    def threshold(self) -> str:
        """The limit, in words."""

    def evidence(self, claim: Claim, growth: float) -> float:
        """Give the logarithm of the evidence that the number is below the limit, or above it.

        `growth` is how many times as many samples of the same kind there would be.
        """

    def estimate(self, confidence: float) -> Estimate:
        """Give the number with its interval."""

    def told(self, phase: Phase, found: Estimate) -> str:
        """Say it in a sentence."""


def _phase(finding: _Finding, confidence: float, growth: float = 1) -> Phase:
    enough = level(confidence)
    if finding.evidence(Claim.ABOVE, growth) >= enough:
        return Phase.FAILED
    return Phase.SUCCESSFUL if finding.evidence(Claim.BELOW, growth) >= enough else Phase.INCONCLUSIVE


def judge(metric: Metric, window: Window, confidence: float, now: datetime) -> Result:
    """Say what one metric says of the candidate."""
    strata = window.strata
    finding, few = _find(metric, strata), _too_few(metric, strata)
    phase = Phase.INCONCLUSIVE if few or isinstance(finding, str) else _phase(finding, confidence)
    if phase is not Phase.FAILED and (unread := _unread(window, now)):
        return Result(metric.name, Phase.INCONCLUSIVE, unread[1], samples=_canary_n(strata), reason=unread[0])
    if few or isinstance(finding, str):
        lack, why = (Lack.TOO_FEW_SAMPLES, few) if few else (Lack.NO_DATA, str(finding))
        return Result(metric.name, Phase.INCONCLUSIVE, why, samples=_canary_n(strata), reason=lack)
    found = finding.estimate(confidence)
    told = finding.told(phase, found)
    more = needed(metric, window, confidence) if phase is Phase.INCONCLUSIVE else None
    return Result(
        name=metric.name,
        phase=phase,
        message=f"{told}; {_wait(more, strata)}" if more else told,
        value=found.value,
        interval=(found.low, found.high),
        threshold=finding.threshold,
        samples=_canary_n(strata),
    )


def _unread(window: Window, now: datetime) -> tuple[Lack, str] | None:
    """Say which pods are not known to do well, and why."""
    for name, side in (("stable", window.stable), ("canary", window.canary)):
        reading = side.reading
        if reading is None or now - reading.at > STALE:
            since = f"for {(now - reading.at).total_seconds():.0f} s" if reading else "yet"
            return Lack.NO_DATA, f"no {name} pod was read {since}"
        asked = len(reading.pods) + len(reading.unread)
        if not asked:
            return Lack.NO_DATA, f"there is no {name} pod to read"
        if unread := side.unread(now):
            missing = [why for uid, why in unread.items() if uid in reading.missing]
            lack = Lack.PROVIDER_ERROR if missing else Lack.NO_DATA
            told = min(missing or unread.values())
            return lack, f"{len(unread)} of {asked} {name} pods could not be read: {told}"
    return None


def _too_few(metric: Metric, strata: Strata) -> str | None:
    compared = [stratum for stratum in strata.values() if stratum.compares]
    numbers = {
        "stable": sum(stratum.stable.n for stratum in compared),
        "canary": sum(stratum.canary.n for stratum in compared),
    }
    for name, number in numbers.items():
        if number < metric.min_samples:
            return f"{number} {name} requests were counted, and at least {metric.min_samples} are needed"
    return None


def needed(metric: Metric, window: Window, confidence: float) -> int | None:
    """Say about how many more of the canary's requests it takes until a verdict, if all goes on as it went."""
    finding = _find(metric, window.strata)
    if isinstance(finding, str):
        return None

    def tells(growth: float) -> bool:
        return _phase(finding, confidence, growth) is not Phase.INCONCLUSIVE

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


def _wait(requests: int, strata: Strata) -> str:
    """Say how many more requests it takes, and how long that is at the rate of the present step, the last."""
    step = list(strata.values())[-1]
    minutes = ceil(requests * step.seconds / step.canary.n / 60) if step.canary.n else 0
    at_this_rate = f", {minutes} min at the present rate," if minutes else ""
    return f"about {requests} more requests{at_this_rate} would tell"


def _canary_n(strata: Strata) -> int:
    return sum(stratum.canary.n for stratum in strata.values())


# ------------------------------------------------------------------------------------------------ the metrics


def _find(metric: Metric, strata: Strata) -> _Finding | str:
    """Read a metric out of the strata; a text says why it cannot be."""
    methods = {ERROR_RATE: _error_rate, LATENCY_P99: _latency}
    if metric.name not in methods:
        return f"nobody knows how to measure '{metric.name}'"
    return methods[metric.name](metric, strata)


@dataclass(frozen=True)
class _Excess:
    """The canary's share of server errors less stable's."""

    pairs: Sequence[Pair]
    limit: float

    @property
    def threshold(self) -> str:
        return f"<= {_decimal(self.limit, 9)}"

    def evidence(self, claim: Claim, growth: float) -> float:
        return evidence([pair.grown(growth) for pair in self.pairs], self.limit, claim)

    def estimate(self, confidence: float) -> Estimate:
        return difference(self.pairs, confidence)

    def told(self, phase: Phase, found: Estimate) -> str:
        stable = _average(self.pairs, [pair.stable_errors / pair.stable_n for pair in self.pairs])
        canary = Estimate(*(min(max(stable + end, 0.0), 1.0) for end in (found.value, found.low, found.high)))
        exceeds = {
            Phase.FAILED: "exceeds stable {} by more than {}",
            Phase.SUCCESSFUL: "exceeds stable {} by no more than {}",
            Phase.INCONCLUSIVE: "may or may not exceed stable {} by more than {}",
        }[phase].format(_percent(stable), _percent(self.limit))
        return f"canary error rate {_percent(canary.value)} ({_range(canary)}) {exceeds}"


def _error_rate(metric: Metric, strata: Strata) -> _Finding | str:
    """Compare the two sides' shares of server errors in each step in which both had requests."""
    pairs = [
        Pair(stratum.canary.errors, stratum.canary.n, stratum.stable.errors, stratum.stable.n)
        for stratum in strata.values()
        if stratum.compares
    ]
    return _Excess(pairs, metric.limit) if pairs else "there is no step in which both sides had requests"


@dataclass(frozen=True)
class _Slowness:
    """The share of the canary's requests that took longer than a bound."""

    slower: int
    number: int
    slow: str

    @property
    def threshold(self) -> str:
        return f"< {_decimal(_SLOW_SHARE)} {self.slow}"

    def evidence(self, claim: Claim, growth: float) -> float:
        below = self.slower < _SLOW_SHARE * self.number
        if below != (claim is Claim.BELOW):
            return -inf
        return share_evidence(self.slower * growth, self.number * growth, _SLOW_SHARE)

    def estimate(self, confidence: float) -> Estimate:
        return share(self.slower, self.number, confidence)

    def told(self, phase: Phase, found: Estimate) -> str:
        ends = {
            Phase.FAILED: "more than",
            Phase.SUCCESSFUL: "less than",
            Phase.INCONCLUSIVE: "which may or may not be more than",
        }[phase]
        subject = f"{_percent(found.value)} of canary requests ({_range(found)}) are {self.slow}"
        return f"{subject}, {ends} {_percent(_SLOW_SHARE)}"


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
    return _Slowness(slower, number, slow)


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
