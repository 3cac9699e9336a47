"""ModelDeployments and their history as rows of texts, and rows as tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from kubectl_rollway.objects import Deployment, Ended, Stored
from kubectl_rollway.times import since, span

STYLES: Final = {
    "Healthy": "green",
    "Progressing": "cyan",
    "Paused": "yellow",
    "Pending": "yellow",
    "Degraded": "red",
    "Promoted": "green",
    "Aborted": "red",
    "Successful": "green",
    "Failed": "red",
    "Inconclusive": "yellow",
    "Running": "cyan",
    "ok": "green",
    "warning": "yellow",
    "missing": "red",
}
"""Colours of words that are good or bad news."""


@dataclass(frozen=True)
class Rows:
    """A table of texts."""

    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def deployments(
    found: Iterable[Deployment], now: datetime, *, wide: bool = False, everywhere: bool = False
) -> Rows:
    """Give one line for each ModelDeployment, with the columns that `kubectl get mdep` has."""
    header: tuple[str, ...] = ("NAME", "MODEL", "STABLE", "CANARY", "WEIGHT", "READY", "PHASE", "AGE")
    more = ("ALIAS", "RUNTIME", "URL", "MESSAGE")
    lines: list[tuple[str, ...]] = []
    for seen in found:
        canary, ready = seen.canary, seen.condition("Ready")
        line: tuple[str, ...] = (
            seen.name,
            seen.model,
            seen.stable.version if seen.stable else "",
            canary.version if canary else "",
            f"{canary.weight}%" if canary and canary.weight is not None else "",
            ready.status if ready else "",
            seen.phase,
            since(seen.created, now),
        )
        line += (seen.alias, seen.runtime, seen.url, seen.message) if wide else ()
        lines.append((seen.namespace, *line) if everywhere else line)
    header += more if wide else ()
    return Rows(("NAMESPACE", *header) if everywhere else header, tuple(lines))


def history(seen: Deployment, kept: Sequence[Stored], now: datetime) -> Rows:
    """Give one line for each rollout that ended, the newest first."""
    lines = tuple(
        (
            entry.revision,
            entry.version,
            entry.outcome,
            entry.reason,
            since(entry.finished, now),
            span(entry.finished - entry.started) if entry.finished and entry.started else "",
            role(seen, kept, entry),
        )
        for entry in reversed(seen.history)
    )
    return Rows(("REVISION", "VERSION", "OUTCOME", "REASON", "AGO", "TOOK", "NOW"), lines)


def role(seen: Deployment, kept: Sequence[Stored], entry: Ended) -> str:
    """Say what a revision of the past is now."""
    if seen.stable and entry.revision == seen.stable.name:
        return "stable"
    if seen.canary and entry.revision == seen.canary.name:
        return "canary"
    found = next((one for one in kept if one.name == entry.revision), None)
    if found is None:
        return "gone"
    return "kept, served" if found.served else "kept"


def recorded(seen: Deployment, kept: Sequence[Stored]) -> list[dict[str, Any]]:
    """Give the history for programs, in the API's words, the newest first."""
    return [
        {
            "revision": entry.revision,
            "version": entry.version,
            "digest": entry.digest or None,
            "outcome": entry.outcome,
            "reason": entry.reason,
            "startedAt": written(entry.started),
            "finishedAt": written(entry.finished),
            "now": role(seen, kept, entry),
        }
        for entry in reversed(seen.history)
    ]


def written(moment: datetime | None) -> str | None:
    """Write a time as the API does."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def table(rows: Rows) -> Table:
    """Lay rows out as kubectl does: no lines, three spaces between."""
    laid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False, header_style="bold")
    for name in rows.header:
        laid.add_column(name, no_wrap=True)
    for line in rows.lines:
        laid.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in line))
    return laid
