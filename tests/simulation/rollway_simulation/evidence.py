"""The operator's arithmetic for many rollouts at once; a test holds it against `rollway_operator.analysis`."""

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from rollway_operator import analysis
from rollway_simulation.world import Counts

Pair = tuple[Counts, Counts, Counts, Counts]
"""The canary's errors and requests and stable's, in one step."""
_HALVINGS = 18


def excess_below(pairs: Sequence[Pair], limit: float) -> Counts:
    """Give the log evidence that the difference of error rates is below a limit."""
    whole = tuple(sum(parts) for parts in zip(*pairs, strict=True))
    same = [_together(whole), _sum(map(_together, pairs))]
    apart = [_apart(whole), _sum(map(_apart, pairs))]
    mixture = _mean([*([same[0]] * 4), *([same[1]] * 2), *apart])
    return mixture - _sum(_best(pair, limit, below=True) for pair in pairs)


def excess_above(pairs: Sequence[Pair], limit: float) -> Counts:
    """Give the log evidence that the difference of error rates is above a limit."""
    whole = tuple(sum(parts) for parts in zip(*pairs, strict=True))
    mixture = _mean([_apart(whole), _sum(map(_apart, pairs))])
    return mixture - _sum(_best(pair, limit, below=False) for pair in pairs)


def share(successes: Counts, number: Counts, value: float) -> Counts:
    """Give the log evidence against a value of a share."""
    return _mixed(successes, number) - _likelihood(successes, number, value)


def _sum(parts: object) -> Counts:
    return np.sum(list(parts), axis=0)  # type: ignore[call-overload, no-any-return]


def _mean(parts: Sequence[Counts]) -> Counts:
    return np.logaddexp.reduce(np.stack(parts), axis=0) - np.log(len(parts))  # type: ignore[no-any-return]


def _apart(pair: Pair) -> Counts:
    return _mixed(pair[0], pair[1]) + _mixed(pair[2], pair[3])


def _together(pair: Pair) -> Counts:
    return _mixed(pair[0] + pair[2], pair[1] + pair[3])


def _mixed(successes: Counts, number: Counts) -> Counts:
    a, b = analysis.BETA
    log_beta = gammaln(a + successes) + gammaln(b + number - successes) - gammaln(a + b + number)
    return log_beta + gammaln(a + b) - gammaln(a) - gammaln(b)  # type: ignore[no-any-return]


def _likelihood(successes: Counts, number: Counts, rate: "Counts | float") -> Counts:
    with np.errstate(divide="ignore", invalid="ignore"):
        yes = np.where(successes == 0, 0.0, successes * np.log(rate))
        no = np.where(number == successes, 0.0, (number - successes) * np.log1p(-np.asarray(rate)))
    return yes + no


def _best(pair: Pair, value: float, *, below: bool) -> Counts:
    canary_errors, canary_n, stable_errors, stable_n = pair
    canary, stable = (
        np.divide(errors, number, out=np.zeros_like(errors), where=number > 0)
        for errors, number in ((canary_errors, canary_n), (stable_errors, stable_n))
    )
    low, high = np.minimum(canary - value, stable), np.maximum(canary - value, stable)
    low, high = (np.clip(end, max(0.0, -value), min(1.0, 1.0 - value)) for end in (low, high))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (
                np.where(canary_errors > 0, canary_errors / (middle + value), 0.0)
                - np.where(canary_n > canary_errors, (canary_n - canary_errors) / (1 - middle - value), 0.0)
                + np.where(stable_errors > 0, stable_errors / middle, 0.0)
                - np.where(stable_n > stable_errors, (stable_n - stable_errors) / (1 - middle), 0.0)
            )
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    edge = (low + high) / 2
    beyond = (canary - stable >= value) if below else (canary - stable <= value)
    return _likelihood(canary_errors, canary_n, np.where(beyond, canary, edge + value)) + _likelihood(
        stable_errors, stable_n, np.where(beyond, stable, edge)
    )
