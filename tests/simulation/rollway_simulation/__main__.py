"""Simulate rollouts, and redraw the tables and the picture of docs/concepts.md: `make simulate`."""

import argparse
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rollway_simulation import coverage, rules
from rollway_simulation.picture import draw
from rollway_simulation.rules import ABORTED, HORIZON, PROMOTED, Ends
from rollway_simulation.world import Truth

RULES: Final = {"Rollway": rules.rollway, "Argo Rollouts": rules.argo, "Flagger": rules.flagger}
PER_MINUTE: Final = (1, 10, 100, 1000)
LIMIT: Final = 0.02
STABLE: Final = (
    Truth("0 %"),
    Truth("0.1 %", 0.001),
    Truth("1 %", 0.01),
    Truth("5 %", 0.05),
    Truth("0.1 %, for 5 minutes 20 %", 0.001, outage=(90.0, 390.0, 0.2)),
    Truth("0.1 %; 1 in 80 takes ten times as long", 0.001, rare=1 / 80),
)
"""By stable's error rate."""
KINDS: Final = ("equal", "failing", "slow")
"""The canary: as stable is; failing by twice the limit more; three times as slow where 1.5 times is permitted."""
DOCS: Final = Path(__file__).resolve().parents[3] / "docs"


@dataclass(frozen=True)
class Cell:
    """One case of the table."""

    rule: str
    stable: Truth
    kind: str
    per_minute: int

    def run(self, runs: int) -> Ends:
        """Simulate it so many times."""
        truth = replace(
            self.stable,
            excess=2 * LIMIT if self.kind == "failing" else 0.0,
            slowdown=3.0 if self.kind == "slow" else 1.0,
        )
        return RULES[self.rule](truth, self.per_minute, runs, seed=1)


def main() -> None:
    """Simulate every cell, say what came out, and write it down."""
    parser = argparse.ArgumentParser(prog="rollway_simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="rollouts a cell")
    parser.add_argument(
        "--write", action="store_true", help="write docs/concepts.md and docs/images/verdicts.svg"
    )
    asked = parser.parse_args()
    cells = [Cell(*case) for case in itertools.product(RULES, STABLE, KINDS, PER_MINUTE)]
    found: dict[Cell, Ends] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for cell, ends in zip(cells, pool.map(Cell.run, cells, itertools.repeat(asked.runs)), strict=True):
            found[cell] = ends
            print(
                f"{cell.rule:14}{cell.stable.name:40}{cell.kind:8}{cell.per_minute:5}/min  {told(ends)}",
                flush=True,
            )
    if asked.write:
        page = DOCS / "concepts.md"
        page.write_text(written(page.read_text(), "\n".join(tables(found, asked.runs))))
        draw(DOCS / "images" / "verdicts.svg", found)


def told(ends: Ends) -> str:
    """Say how a cell ended."""
    return (
        f"promoted {ends.share(PROMOTED):7.2%} aborted {ends.share(ABORTED):7.2%} "
        f"median {minutes(ends.percentile(50))} p95 {minutes(ends.percentile(95))} "
        f"after 1 h {ends.holding(3600):.0%} hold, after 24 h {ends.holding(HORIZON - 1):.0%}"
    )


def minutes(seconds: float) -> str:
    """Say a time as it is read best."""
    if math.isinf(seconds):
        return "never"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def tables(found: dict[Cell, Ends], runs: int) -> Iterator[str]:
    """Write the table of Rollway's ends, and that of all rules' errors."""
    yield f"Of {runs:,} simulated rollouts in each case, with the default steps and the default analysis:"
    yield ""
    head = (
        "stable fails",
        "requests a minute",
        "equal: aborted",
        "promoted after",
        "held after 1 h, 24 h",
        "failing 4 % more: promoted",
        "aborted after",
        "held after 1 h, 24 h",
        "three times as slow: promoted",
        "aborted after",
    )
    yield from _table(head, [_row(found, stable, rate) for stable in STABLE for rate in PER_MINUTE])
    yield ""
    yield "Where two times stand, half of the rollouts had ended by the first, and 95 % by the second."
    yield ""
    wrong = (
        "",
        "requests a minute",
        "equal, but aborted",
        "failing 4 % more, but promoted",
        "three times as slow, but promoted",
    )
    rows = [
        (
            rule if rate == PER_MINUTE[0] else "",
            str(rate),
            *(_worst(found, rule, kind, rate) for kind in KINDS),
        )
        for rule in RULES
        for rate in PER_MINUTE
    ]
    yield "How often each rule is wrong, in the worst of these cases of stable:"
    yield ""
    yield from _table(wrong, rows)
    yield ""
    yield from intervals(runs)


def intervals(runs: int) -> Iterator[str]:
    """Write the table of how often an interval sees a difference where there is none."""
    head = (
        "the candidate's share",
        "both fail",
        "its requests",
        "Newcombe's, at one look",
        "at any look",
        "the operator's, at one look",
        "at any look",
    )
    yield "How often an interval of 95 % lies above zero where both versions are the same; 2.5 % may:"
    yield ""
    yield from _table(head, list(coverage.rows(runs)))


def _row(found: dict[Cell, Ends], stable: Truth, rate: int) -> Sequence[str]:
    equal, failing, slow = (found[Cell("Rollway", stable, kind, rate)] for kind in KINDS)

    def times(ends: Ends) -> str:
        return f"{minutes(ends.percentile(50))}, {minutes(ends.percentile(95))}"

    def held(ends: Ends) -> str:
        return ", ".join(f"{100 * ends.holding(seconds):.0f} %" for seconds in (3600, HORIZON - 1))

    return (
        *(stable.name if rate == PER_MINUTE[0] else "", str(rate)),
        *(_percent(equal.share(ABORTED)), times(equal), held(equal)),
        *(_percent(failing.share(PROMOTED)), times(failing), held(failing)),
        *(_percent(slow.share(PROMOTED)), times(slow)),
    )


def _worst(found: dict[Cell, Ends], rule: str, kind: str, rate: int) -> str:
    wrong = ABORTED if kind == "equal" else PROMOTED
    return _percent(max(found[Cell(rule, stable, kind, rate)].share(wrong) for stable in STABLE))


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def written(page: str, text: str) -> str:
    """Put the tables between their marks."""
    between = re.compile(r"(?<=<!-- make simulate -->\n).*?(?=<!-- end -->)", re.DOTALL)
    return between.sub(lambda _: f"{text}\n", page)


if __name__ == "__main__":
    main()
