"""What a model server's series count: the same reading of them, whoever shows them.

    name, labels, value ──► Series, count ──► counted ──► Counters

Nothing is guessed from half of it: series that our own servers would not write make the pod one that was not read.
"""

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rollway_operator.analysis import Counters

REQUESTS: Final = "rollway_inference_requests_total"
DURATIONS: Final = "rollway_inference_request_duration_seconds_bucket"
IN_PROGRESS: Final = "rollway_inference_requests_in_progress"
NAMES: Final = (REQUESTS, DURATIONS, IN_PROGRESS)
MOST_SERIES: Final = 5000
"""More than any of our servers has."""

LABELS: Final = frozenset({"protocol", "method", "outcome", "le"})
"""All that our servers put on these series."""

_OUTCOMES: Final = frozenset({"ok", "server_error", "client_error", "shed"})
_TIMED: Final = frozenset({"ok", "server_error"})
_LARGEST_COUNT: Final = 2**53
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")

Labels = tuple[tuple[str, str], ...]


class UnreadableError(Exception):
    """A pod has no usable answer; the message follows its name."""


@dataclass(frozen=True)
class Series:
    """What one series counts: everything but its value."""

    name: str
    labels: Labels
    """All but the bucket's bound, in order."""
    outcome: str | None
    bound: float | None


@functools.lru_cache(maxsize=4096)
def series(name: str, labels: Labels) -> Series:
    """Say what a series counts; pods of all models have the same few hundred, so it is remembered."""
    found = dict(labels)
    bound = _bound(found.pop("le", "")) if name == DURATIONS else None
    outcome = found.get("outcome")
    if name != IN_PROGRESS and outcome not in _OUTCOMES:
        raise UnreadableError(f"has a {name} with an outcome that nobody knows")
    return Series(name, tuple(sorted(found.items())), outcome, bound)


def count(name: str, text: str) -> int:
    """Read a count."""
    # Neither NaN nor an infinity is written in digits.
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not (0 <= value <= _LARGEST_COUNT and value.is_integer()):
        raise UnreadableError(f"has a {name} that is no count")
    return int(value)


def counted(counts: Mapping[Series, int]) -> Counters:
    """Add up what a pod's series count."""
    by_outcome = dict.fromkeys(_OUTCOMES, 0)
    has_any = False
    in_progress = 0
    histograms: dict[Labels, dict[float, int]] = {}
    for each, number in counts.items():
        if each.name == IN_PROGRESS:
            in_progress += number
        elif each.name == REQUESTS and each.outcome:
            by_outcome[each.outcome] += number
            has_any = True
        elif each.bound and each.outcome in _TIMED:
            histograms.setdefault(each.labels, {})[each.bound] = number
    if not has_any:
        raise UnreadableError(f"has no {REQUESTS}")
    return Counters(
        ok=by_outcome["ok"],
        server_error=by_outcome["server_error"],
        client_error=by_outcome["client_error"],
        shed=by_outcome["shed"],
        buckets=_added(histograms.values()),
        in_progress=in_progress,
    )


def _bound(text: str) -> float:
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if not bound > 0:
        raise UnreadableError(f"has a {DURATIONS} with a bound that is no time")
    return bound


def _added(histograms: Iterable[Mapping[float, int]]) -> dict[float, int]:
    """Add histograms up; one that is not cumulative, has no end, or has other bounds than its neighbours is none."""
    added: dict[float, int] = {}
    for histogram in histograms:
        bounds = sorted(histogram)
        counts = [histogram[bound] for bound in bounds]
        if bounds[-1] != math.inf or counts != sorted(counts) or bounds != (list(added) or bounds):
            raise UnreadableError(f"has a {DURATIONS} that is no histogram")
        added = {bound: added.get(bound, 0) + number for bound, number in zip(bounds, counts, strict=True)}
    return added
