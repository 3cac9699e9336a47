"""Draw how often each rule is wrong, by how much traffic there is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from rollway_simulation.rules import ABORTED, PROMOTED

mpl.rcParams["svg.hashsalt"] = "rollway"  # the same picture of the same numbers
_WRONG = {
    "equal": (ABORTED, "as good as stable, but aborted"),
    "failing": (PROMOTED, "failing 4 % more, but promoted"),
    "slow": (PROMOTED, "three times as slow, but promoted"),
}


def draw(path: Path, found: Mapping[Any, Any]) -> None:
    """Write the picture: a panel for each kind of canary, a line for each rule, the worst case of stable."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, len(_WRONG), sharey=True)
    rules = dict.fromkeys(cell.rule for cell in found)
    rates = sorted({cell.per_minute for cell in found})
    for panel, (kind, (outcome, title)) in zip(panels, _WRONG.items(), strict=True):
        for rule in rules:
            worst = [
                max(
                    100 * ends.share(outcome)
                    for cell, ends in found.items()
                    if (cell.rule, cell.kind, cell.per_minute) == (rule, kind, rate)
                )
                for rate in rates
            ]
            panel.plot(rates, worst, marker="o", label=rule)
        panel.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        panel.set(xscale="log", title=title, xlabel="requests a minute", ylim=(-3, 103))
    panels[0].set_ylabel("% of rollouts")
    panels[0].legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
