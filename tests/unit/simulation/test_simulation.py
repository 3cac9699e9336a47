"""The simulator counts as the operator does, and its pages are made of what came out."""

from random import Random

import numpy as np
import pytest

from rollway_operator import analysis
from rollway_operator.analysis import Claim, Pair
from rollway_simulation import coverage, evidence, rules
from rollway_simulation.__main__ import KINDS, PER_MINUTE, RULES, STABLE, Cell, tables, written
from rollway_simulation.rules import ABORTED, HELD, PROMOTED, Ends
from rollway_simulation.world import Truth


@pytest.mark.parametrize("claim", Claim)
def test_many_at_once_have_the_evidence_that_each_has(claim: Claim) -> None:
    random = Random(1)
    rollouts = [[_pair(random), _pair(random)] for _ in range(200)]
    steps = [
        tuple(
            np.array(column, float)
            for column in zip(*(_fields(pairs[step]) for pairs in rollouts), strict=True)
        )
        for step in (0, 1)
    ]
    expected = [analysis.evidence(pairs, 0.02, claim) for pairs in rollouts]
    assert evidence.excess(steps, 0.02, claim) == pytest.approx(expected)  # type: ignore[arg-type]


def test_many_shares_have_the_evidence_that_each_has() -> None:
    successes, number = np.array([0.0, 3.0, 50.0]), np.array([10.0, 900.0, 60.0])
    expected = [analysis.share_evidence(*counts, 0.01) for counts in zip(successes, number, strict=True)]
    assert evidence.share(successes, number, 0.01) == pytest.approx(expected)


def _pair(random: Random) -> Pair:
    canary, stable = random.randint(1, 3000), random.randint(1, 3000)
    return Pair(random.randint(0, canary // 9), canary, random.randint(0, stable // 9), stable)


def _fields(pair: Pair) -> tuple[float, ...]:
    return pair.canary_errors, pair.canary_n, pair.stable_errors, pair.stable_n


def test_a_good_canary_is_promoted_a_bad_one_rolled_back_and_without_requests_nothing_ends() -> None:
    good, bad = (rules.rollway(Truth("", 0.01, excess), 2000, 40, seed=1) for excess in (0.0, 0.1))
    assert (good.share(PROMOTED), bad.share(ABORTED)) == (1.0, 1.0)
    assert min(good.seconds) >= 120  # the pauses
    assert rules.rollway(Truth(""), 0.001, 10, seed=1).share(HELD) == 1.0


def test_newcombes_interval_errs_near_zero_and_more_with_each_look_and_ours_does_not() -> None:
    case = 0.01, 0.001, 100
    assert coverage.at_one_look(coverage.newcombe, *case) > 3 * 0.025
    assert coverage.at_one_look(coverage.sequence, *case) < 0.025
    seen = [
        coverage.at_any_look(says, 0.1, 0.01, 300, 500) for says in (coverage.newcombe, coverage.sequence)
    ]
    assert seen[0] > 5 * 0.025
    assert seen[1] < 0.025


def test_ten_times_as_long_is_a_second_hump() -> None:
    bounds, stable, canary = Truth("", slowdown=3.0, spread=0.1, rare=0.02).tails()
    beyond = bounds.searchsorted(0.1)
    assert stable[beyond] == pytest.approx(0.02, rel=0.1)
    assert canary[bounds.searchsorted(0.3)] == pytest.approx(0.02, rel=0.1)


def test_each_case_has_its_place_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "CASES", coverage.CASES[:1])
    ends = Ends(np.array([PROMOTED, PROMOTED, ABORTED]), np.array([60.0, 120.0, 7200.0]))
    found = {
        Cell(rule, stable, kind, rate): ends
        for rule in RULES
        for stable in STABLE
        for kind in KINDS
        for rate in PER_MINUTE
    }
    lines = list(tables(found, 3))
    rows = len(STABLE) * len(PER_MINUTE), len(RULES) * len(PER_MINUTE), 1
    assert sum(line.startswith("|") for line in lines) == sum(2 + number for number in rows)
    assert "| 0 % | 1 | 33 % | 2 min, 2.0 h | 33 %, 0 % |" in lines[3 + 1]
    page = "a\n<!-- make simulate -->\nnew\n<!-- end -->\nb"
    for before in ("", "old\n"):
        assert written(page.replace("new\n", before), "new") == page
