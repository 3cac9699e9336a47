"""How often an interval says that the canary is worse where both are the same: at one look, and at any of many."""

from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Final

import numpy as np
from scipy.stats import binom

from rollway_operator import analysis
from rollway_operator.analysis import Claim
from rollway_simulation import evidence
from rollway_simulation.evidence import Pair
from rollway_simulation.world import Counts, Which

Says = Callable[[Pair, float], Which]
"""Says of counts, and a confidence, which of them have the canary's error rate above stable's."""

CONFIDENCE: Final = 0.95
CASES: Final = ((0.01, 0.001, 100), (0.1, 0.0005, 1000), (0.1, 0.01, 1000), (0.5, 0.01, 1000))
"""The canary's share of requests, the error rate of both, and the canary's requests."""
_NEGLIGIBLE: Final = 1e-9
_GROWTH: Final = 1.02


def newcombe(pair: Pair, confidence: float) -> Which:
    """Say it by the difference of two Wilson intervals (Newcombe, 1998, Statistics in Medicine 17: 873-890)."""
    return newcombe_low(pair, confidence) > 0


def newcombe_low(pair: Pair, confidence: float) -> Counts:
    """Give the lower end of Newcombe's interval.

    His table II has 56 of 70 against 48 of 80, with 0.0524 to 0.3339:

    >>> counts = [np.array([number]) for number in (56, 70, 48, 80)]
    >>> f"{newcombe_low(tuple(counts), 0.95)[0]:.4f}"
    '0.0524'
    """
    canary, canary_low, _ = _wilson(*pair[:2], confidence)
    stable, _, stable_high = _wilson(*pair[2:], confidence)
    return canary - stable - np.hypot(canary - canary_low, stable_high - stable)


def _wilson(successes: Counts, number: Counts, confidence: float) -> tuple[Counts, Counts, Counts]:
    share, z = successes / number, NormalDist().inv_cdf((1 + confidence) / 2)
    spread = z * np.sqrt(share * (1 - share) / number + (z / number) ** 2 / 4)
    middle, whole = share + z * z / number / 2, 1 + z * z / number
    return share, (middle - spread) / whole, (middle + spread) / whole


def sequence(pair: Pair, confidence: float) -> Which:
    """Say it as the operator does."""
    worse = pair[0] * pair[3] > pair[2] * pair[1]
    return worse & (evidence.excess([pair], 0.0, Claim.ABOVE) >= analysis.level(confidence))


def at_one_look(says: Says, share: float, rate: float, number: int) -> float:
    """Give the chance that it is said when the canary has had so many requests, counted over all that can happen."""
    other = round(number * (1 - share) / share)
    canary, stable = _likely(number, rate), _likely(other, rate)
    errors, others = (grid.ravel().astype(float) for grid in np.meshgrid(canary, stable))
    chances = binom.pmf(errors, number, rate) * binom.pmf(others, other, rate)
    said = says((errors, np.full_like(errors, number), others, np.full_like(others, other)), CONFIDENCE)
    return float(chances[said].sum())


def _likely(number: int, rate: float) -> Counts:
    return np.arange(binom.isf(_NEGLIGIBLE, number, rate) + 1)


def at_any_look(says: Says, share: float, rate: float, number: int, runs: int) -> float:
    """Give how often it was said at least once until then, when looking whenever there are 2 % more requests."""
    random = np.random.default_rng(1)
    counts: list[Counts] = [np.zeros(runs) for _ in range(4)]
    said, had = np.zeros(runs, bool), 0
    while had < number:
        asked = min(number, max(had + 1, int(had * _GROWTH))) - had
        had += asked
        others = round(had * (1 - share) / share) - int(counts[3][0])
        for place, more in ((0, asked), (2, others)):
            counts[place] = counts[place] + random.binomial(more, rate, runs)
            counts[place + 1] = counts[place + 1] + more
        said |= says((counts[0], counts[1], counts[2], counts[3]), CONFIDENCE)
    return float(said.mean())


def rows(runs: int) -> Iterator[tuple[str, ...]]:
    """Give a row for each case: how often Newcombe's interval errs and the operator's, at one look and at any."""
    for share, rate, number in CASES:
        errs = [
            found
            for says in (newcombe, sequence)
            for found in (
                at_one_look(says, share, rate, number),
                at_any_look(says, share, rate, number, runs),
            )
        ]
        yield (
            f"{share:.0%}".replace("%", " %"),
            f"{100 * rate:g} %",
            f"{number:,}",
            *(f"{100 * one:.1f} %" for one in errs),
        )
