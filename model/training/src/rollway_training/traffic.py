"""Constant traffic: when each request is due, how it is sent, and what a run of them amounts to.

The loop is open: request ``i`` is due at ``i / rate`` seconds whether or not earlier ones have been answered, so a
server that stalls cannot slow the traffic down and hide its stall.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mode(StrEnum):
    """How a request reaches the server; the four take turns."""

    REST_KEPT = "rest-kept-alive"
    REST_FRESH = "rest-fresh"
    GRPC_KEPT = "grpc-kept-alive"
    GRPC_FRESH = "grpc-fresh"


@dataclass(frozen=True, slots=True)
class Due:
    """One request of the plan."""

    number: int
    after: float
    mode: Mode
    row: int


def plan(rate: float, seconds: float | None, rows: int) -> Iterator[Due]:
    """Return the requests in order, for ``seconds`` or without end; each mode meets each row in time."""
    modes = list(Mode)
    for number in itertools.count():
        after = number / rate
        if seconds is not None and after >= seconds:
            return
        turn, mode = divmod(number, len(modes))
        yield Due(number, after, modes[mode], turn % rows)


class Summary:
    """Totals over the records counted so far."""

    def __init__(self) -> None:
        self.failed = 0
        self._slowest = 0.0
        self._sent: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()

    def count(self, record: dict[str, Any]) -> None:
        """Add one record."""
        self._sent[record["mode"]] += 1
        self._slowest = max(self._slowest, record["seconds"])
        if failed(record):
            self.failed += 1
            self._failed[record["mode"]] += 1
        else:
            self._versions[record["version"]] += 1

    def totals(self) -> dict[str, Any]:
        """Return the totals as plain values."""
        return {
            "sent": self._sent.total(),
            "failed": self.failed,
            "slowest_seconds": self._slowest,
            "sent_by_mode": dict(self._sent),
            "failed_by_mode": dict(self._failed),
            "answered_by_version": dict(self._versions),
        }


def failed(record: dict[str, Any]) -> bool:
    """Whether the record is no complete answer, or one that names two versions."""
    return (
        record["status"] not in (200, "OK")
        or record["outputs"] is None
        or record["version"] is None
        or record["version"] != record["model_version"]
    )
