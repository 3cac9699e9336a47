"""The operator's arithmetic for many rollouts at once; a test holds it against `rollway_operator.analysis`."""

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from rollway_operator import analysis
from rollway_operator.analysis import Claim
from rollway_simulation.world import Counts

Pair = tuple[Counts, Counts, Counts, Counts]
"""The canary's errors and requests and stable's, in one step."""


def excess(pairs: Sequence[Pair], limit: float, claim: Claim) -> Counts:
    """Give the log evidence that the difference of error rates is below a limit, or above it."""
    whole = tuple(sum(parts) for parts in zip(*pairs, strict=True))
    mixture = [_apart(whole), _sum(map(_apart, pairs))]
    if claim is Claim.BELOW:
        mixture += [_together(whole)] * 4 + [_sum(map(_together, pairs))] * 2
    return _mean(mixture) - _sum(_best(pair, limit, claim) for pair in pairs)


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


def _best(pair: Pair, value: float, claim: Claim) -> Counts:
    canary_errors, canary_n, stable_errors, stable_n = pair
    canary, stable = (
        np.divide(errors, number, out=np.zeros_like(errors), where=number > 0)
        for errors, number in ((canary_errors, canary_n), (stable_errors, stable_n))
    )
    edge = _stable_rate(pair, value)
    beyond = (canary - stable >= value) if claim is Claim.BELOW else (canary - stable <= value)
    return _likelihood(
        canary_errors, canary_n, np.where(beyond, canary, np.clip(edge + value, 0, 1))
    ) + _likelihood(stable_errors, stable_n, np.where(beyond, stable, edge))


def _stable_rate(pair: Pair, value: float) -> Counts:
    canary_errors, canary_n, stable_errors, stable_n = pair
    failed, number = canary_errors + stable_errors, np.maximum(canary_n + stable_n, 1)
    square = (stable_n * value - number + number * value - failed) / number
    linear = ((stable_n * value - number - 2 * stable_errors) * value + failed) / number
    constant = stable_errors * value * (1 - value) / number
    middle = -square / 3
    inner = -(middle**3) - square * linear / 6 + constant / 2
    radius = np.copysign(np.sqrt(np.maximum(middle**2 - linear / 3, 0)), inner)
    cube = radius**3
    turned = np.arccos(np.clip(np.divide(inner, cube, out=np.ones_like(cube), where=cube != 0), -1, 1))
    root: Counts = middle + 2 * radius * np.cos((np.pi + turned) / 3)
    return np.clip(root, max(0.0, -value), min(1.0, 1 - value))
