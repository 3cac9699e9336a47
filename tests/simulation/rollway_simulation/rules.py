"""The rules that decide rollouts, each over many at once: Rollway's, and those of peers as they document them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rollway_operator import analysis, steps
from rollway_operator.analysis import ERROR_RATE, LATENCY_P99, Claim
from rollway_operator.roles import DEFAULT_LIMITS, DEFAULT_MIN_SAMPLES
from rollway_simulation import evidence
from rollway_simulation.world import Counts, Drawn, Traffic, Truth, Which

HORIZON: Final = 86_400.0
"""For how many seconds a rollout is followed."""
HELD, PROMOTED, ABORTED = 0, 1, 2


@dataclass
class Ends:
    """How rollouts ended, and when."""

    outcome: NDArray[np.int64]
    seconds: Counts

    def share(self, outcome: int) -> float:
        """Say which share ended so."""
        return float(np.mean(self.outcome == outcome))

    def holding(self, seconds: float) -> float:
        """Say which share had no end by then."""
        return float(np.mean(self.seconds > seconds))

    def percentile(self, hundredths: int) -> float:
        """Say by when so many had their end; it is infinite where too many had none."""
        return float(np.quantile(self.seconds, hundredths / 100, method="higher"))


def rollway(truth: Truth, per_minute: float, runs: int, seed: int, confidence: float = 0.95) -> Ends:
    """Follow the default canary with the default analysis: 10 % and 50 %, a minute each at least.

    The operator looks every two seconds. Here it is every five, and later whenever one percent more time has passed.
    """
    traffic, way = Traffic(truth, per_minute, seed), steps.grouped(steps.DEFAULT_STEPS)
    weights = np.array([step.weight / 100 for step in way])
    pauses = np.array([sum(pause or 0.0 for pause in step.pauses) for step in way])
    limits, least, enough = DEFAULT_LIMITS, DEFAULT_MIN_SAMPLES, analysis.level(confidence)
    ends = Ends(np.full(runs, HELD), np.full(runs, np.inf))
    sides = [
        (Drawn.nothing(len(traffic.bounds), runs), Drawn.nothing(len(traffic.bounds), runs)) for _ in way
    ]
    place, since = np.zeros(runs, int), np.zeros(runs)
    left = np.arange(runs)
    start = 0.0
    for at in _looks():
        stable, canary = traffic.between(start, at, weights[place])
        start = at
        for number, (of_stable, of_canary) in enumerate(sides):
            of_stable.add(stable, place == number)
            of_canary.add(canary, place == number)
        fails, passes = _verdicts(sides, traffic.bounds, limits, least, enough)
        current = np.choose(place, [of_canary.number for _, of_canary in sides])
        over = (at - since >= pauses[place]) & (current >= least)
        last = place == len(way) - 1
        promoted, aborted = ~fails & last & over & passes, fails
        done = promoted | aborted
        ends.outcome[left[promoted]], ends.outcome[left[aborted]] = PROMOTED, ABORTED
        ends.seconds[left[done]] = at
        onward = over & ~last & ~done
        place, since = np.where(onward, place + 1, place), np.where(onward, at, since)
        if done.any():
            going = ~done
            left, place, since = left[going], place[going], since[going]
            sides = [(one.only(going), other.only(going)) for one, other in sides]
        if not len(left):
            break
    return ends


def _looks() -> Iterator[float]:
    at = 0.0
    while at < HORIZON:
        at += max(5.0, 0.01 * at)
        yield at


def _verdicts(
    sides: list[tuple[Drawn, Drawn]], bounds: Counts, limits: Mapping[str, float], least: int, enough: float
) -> tuple[Which, Which]:
    pairs = []
    for stable, canary in sides:
        compares = (stable.number > 0) & (canary.number > 0)
        counts = (canary.errors, canary.number, stable.errors, stable.number)
        pairs.append(tuple(np.where(compares, each, 0.0) for each in counts))
    counted = np.minimum(sum(pair[1] for pair in pairs), sum(pair[3] for pair in pairs)) >= least
    slower, number = _slower(sides, bounds, limits[LATENCY_P99], least)
    slow = evidence.share(slower, number, 0.01)
    beyond = slower >= 0.01 * number
    limit = limits[ERROR_RATE]
    fails = (evidence.excess(pairs, limit, Claim.ABOVE) >= enough) | (beyond & (slow >= enough))  # type: ignore[arg-type]
    passes = (evidence.excess(pairs, limit, Claim.BELOW) >= enough) & ~beyond & (slow >= enough)  # type: ignore[arg-type]
    return counted & fails, counted & passes


def _slower(
    sides: list[tuple[Drawn, Drawn]], bounds: Counts, ratio: float, least: int
) -> tuple[Counts, Counts]:
    """Count the canary's requests that took longer than the bound, in each step by stable's percentile there."""
    pooled = sum(stable.number for stable, _ in sides), sum(stable.slower for stable, _ in sides)
    slower = number = np.zeros(len(sides[0][0].number))
    for stable, canary in sides:
        few = stable.number < least
        of, tail = np.where(few, pooled[0], stable.number), np.where(few, pooled[1], stable.slower)
        # The first bound that at least 99 in a hundred are within, by the rank that the operator rounds up to.
        within = tail <= of - np.ceil(of * 0.99)
        percentile = bounds[np.argmax(within, axis=0)]
        row = np.minimum(np.searchsorted(bounds, ratio * percentile * (1 - 1e-9)), len(bounds) - 1)
        slower = slower + canary.slower[row, np.arange(len(row))]
        number = number + canary.number
    return slower, number


def argo(truth: Truth, per_minute: float, runs: int, seed: int) -> Ends:
    """Follow the background analysis that Argo Rollouts' documentation shows, at 10 % and 50 % for ten minutes each.

    docs/features/analysis.md of 1.10: every five minutes the canary's success rate of the last five must be 95 % or
    more; three that are not fail it. A query without data is an error, and five errors in a row end it. What callers
    wait is not measured.
    """
    minutes, per_step = 5, 2
    failures, errors = np.zeros(runs), np.zeros(runs)
    ends = Ends(np.full(runs, PROMOTED), np.full(runs, 2.0 * per_step * minutes * 60))
    traffic = Traffic(truth, per_minute, seed)
    for number in range(1, 2 * per_step):
        weight = np.full(runs, 0.1 if number <= per_step else 0.5)
        at = number * minutes * 60.0
        _, canary = traffic.between(at - minutes * 60, at, weight)
        missing = canary.number == 0
        rate = 1 - canary.errors / np.maximum(canary.number, 1)
        failures += ~missing & (rate < 0.95)
        errors = np.where(missing, errors + 1, 0)
        _end(ends, (failures >= 3) | (errors >= 5), at)
    return ends


def flagger(truth: Truth, per_minute: float, runs: int, seed: int) -> Ends:
    """Follow the analysis that Flagger's documentation shows, at 10 % and 50 %.

    docs/usage/how-it-works.md of 1.40: every minute the canary's success rate of the last one must be 99 % or more, and
    its 99th percentile half a second or less. Each check that is not, or finds no requests, counts; five roll back.
    """
    checks, failures = 2, np.zeros(runs)
    passed = np.zeros(runs)
    ends = Ends(np.full(runs, HELD), np.full(runs, np.inf))
    traffic = Traffic(truth, per_minute, seed)
    slowest = np.searchsorted(traffic.bounds, 0.5)
    for number in range(1, 60):
        at = number * 60.0
        _, canary = traffic.between(at - 60, at, np.where(passed == 0, 0.1, 0.5))
        few = np.maximum(canary.number, 1)
        slow = canary.slower[slowest] if slowest < len(traffic.bounds) else np.zeros(runs)
        good = (canary.number > 0) & (canary.errors <= 0.01 * few) & (slow <= 0.01 * few)
        passed, failures = passed + good, failures + ~good
        _end(ends, failures >= 5, at)
        promoted = (passed >= checks) & np.isinf(ends.seconds)
        ends.outcome[promoted], ends.seconds[promoted] = PROMOTED, at
    return ends


def _end(ends: Ends, aborted: Which, at: float) -> None:
    now = aborted & (ends.seconds > at)
    ends.outcome[now], ends.seconds[now] = ABORTED, at
