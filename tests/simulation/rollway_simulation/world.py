"""What callers ask and what becomes of it, in many rollouts at once: counts, drawn look by look."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
"""One number for each rollout."""
Which = NDArray[np.bool_]
"""Which rollouts."""
Tails = NDArray[np.float64]
"""How many requests took longer than each bound: a row a bound, a column a rollout."""

BOUNDS: Final = np.array([0.001 * 30_000 ** (number / 61) for number in range(62)])
"""Bucket bounds in seconds like the servers': 62, from a millisecond to half a minute, each 1.18 times the last."""
_RARE, _FREQUENT = 1e-7, 0.3
_RARELY: Final = 10
"""How many times as long the rare requests take."""


@dataclass(frozen=True)
class Truth:
    """What is the case, which no rule is told."""

    name: str
    error_rate: float = 0.0
    """Stable's."""
    excess: float = 0.0
    """By how much the canary's is above it."""
    slowdown: float = 1.0
    """How many times as long the canary's requests take."""
    outage: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """From when to when, in seconds since the beginning, so large a share of everybody's requests fails."""
    median: float = 0.02
    """Half of stable's requests take longer, in seconds; times are lognormal."""
    spread: float = 0.5
    """The standard deviation of the times' logarithm."""
    rare: float = 0.0
    """Which share of either side's requests takes ten times as long as the others."""

    def rates(self, at: float) -> tuple[float, float]:
        """Give stable's and the canary's error rate at a time."""
        since, until, share = self.outage
        base = share if since <= at < until else self.error_rate
        return base, min(1.0, base + self.excess)

    def tails(self) -> tuple[Counts, Counts, Counts]:
        """Give the bounds that tell stable's slow requests apart, and the chance of either side's to take longer."""
        chances = []
        for median in (self.median, self.median * self.slowdown):
            usual, rare = (self._longer(BOUNDS / times / median) for times in (1, _RARELY))
            chances.append((1 - self.rare) * usual + self.rare * rare)
        stable, canary = chances
        told = (stable < _FREQUENT) & ((stable > _RARE) | (canary > _RARE))
        return BOUNDS[told], stable[told], canary[told]

    def _longer(self, times: Counts) -> Counts:
        """Give the chance to take longer than so many times the median."""
        return np.array([NormalDist(sigma=self.spread).cdf(-one) for one in np.log(times)])


class Traffic:
    """Draws requests for as many rollouts as there are."""

    def __init__(self, truth: Truth, per_minute: float, seed: int) -> None:
        """Let so many requests a minute come, for both sides together, at random times."""
        self._truth, self._per_second = truth, per_minute / 60
        self._random = np.random.default_rng(seed)
        self.bounds, *self._tails = truth.tails()

    def between(self, start: float, end: float, share: Counts) -> "tuple[Drawn, Drawn]":
        """Give what stable and the canary had between two times, where the canary's share of requests is given."""
        rates = self._truth.rates(start)
        return (
            self._drawn((1 - share) * (end - start), rates[0], self._tails[0]),
            self._drawn(share * (end - start), rates[1], self._tails[1]),
        )

    def _drawn(self, seconds: Counts, error_rate: float, tail: Counts) -> "Drawn":
        number = self._random.poisson(self._per_second * seconds)
        errors = self._random.binomial(number, error_rate)
        slower = np.empty((len(tail), len(number)))
        above, before = number, 1.0
        for row, chance in enumerate(tail):
            above = self._random.binomial(above, chance / before if before else 0.0)
            slower[row], before = above, chance
        return Drawn(number.astype(float), errors.astype(float), slower)


@dataclass
class Drawn:
    """What one side had, in each rollout."""

    number: Counts
    errors: Counts
    slower: Tails

    @classmethod
    def nothing(cls, bounds: int, runs: int) -> "Drawn":
        """Give what a side had before it had anything."""
        return cls(np.zeros(runs), np.zeros(runs), np.zeros((bounds, runs)))

    def add(self, other: "Drawn", where: Which) -> None:
        """Count in what came, in some of the rollouts."""
        self.number[where] += other.number[where]
        self.errors[where] += other.errors[where]
        self.slower[:, where] += other.slower[:, where]

    def only(self, where: Which) -> "Drawn":
        """Give some of the rollouts."""
        return Drawn(self.number[where], self.errors[where], self.slower[:, where])
