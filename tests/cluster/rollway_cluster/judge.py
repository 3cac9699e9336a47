"""Compares what clients were answered with what the model itself gives."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Answer = Mapping[str, Any]
Expected = Mapping[str, Sequence[Sequence[float]]]
"""What each version gives for each held-out row."""

_ANSWERED = (200, "OK")
_SHOWN = 5


def wrong(answer: Answer, expected: Expected) -> str | None:
    """Say what is wrong with an answer to one held-out row (or to all, where it names none), or None."""
    if answer["status"] not in _ANSWERED:
        return f"status {answer['status']}: {answer.get('error')}"
    version = answer.get("version")
    if not isinstance(version, str) or version not in expected:
        return f"names version {version}, and only {', '.join(sorted(expected))} could answer"
    if answer.get("model_version") not in (None, version):
        return f"header names version {version}, body {answer['model_version']}"
    outputs = answer.get("outputs") or []
    rows = [expected[version][answer["row"]]] if "row" in answer else expected[version]
    right = list(itertools.chain.from_iterable(rows))
    if len(outputs) != len(right):
        return f"version {version} gives {len(right)} numbers, the answer holds {len(outputs)}"
    if not all(
        math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-12)
        for got, wanted in zip(outputs, right, strict=True)
    ):
        return f"version {version} gives {_some(right)}, the answer says {_some(outputs)}"
    return None


@dataclass(frozen=True)
class Tally:
    """Traffic in figures: answers a second by version, and what failed."""

    sent: int
    failures: tuple[str, ...]
    slowest: float
    seconds: Mapping[int, Counter[str]] = field(repr=False)
    failed_by: Mapping[str, int] = field(default_factory=dict)
    """What failed, by the version that the answer names; "nobody" where there was no answer, or it names none."""
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    """When each version answered first and last, well or not."""
    failed_since: Mapping[str, float] = field(default_factory=dict, repr=False)
    """When each version first failed."""

    @property
    def by_version(self) -> Counter[str]:
        """Right answers by the version that gave them."""
        return sum(self.seconds.values(), start=Counter())


def tally(answers: Iterable[Answer], expected: Expected) -> Tally:
    """Judge every answer, and count by the whole second in which its request was sent."""
    answers = sorted(answers, key=lambda answer: float(answer["time"]))
    failures = []
    failed_by: Counter[str] = Counter()
    spans: dict[str, tuple[float, float]] = {}
    failed_since: dict[str, float] = {}
    seconds: dict[int, Counter[str]] = {}
    for answer in answers:
        second = math.floor(answer["time"] - answers[0]["time"])
        why = wrong(answer, expected)
        if why is None and answer["failed"]:
            why = "the client calls it failed"
        counts = seconds.setdefault(second, Counter())
        counts["failed" if why else answer["version"]] += 1
        named = answer.get("version")
        if isinstance(named, str):
            spans[named] = spans.get(named, (float(answer["time"]), 0.0))[0], float(answer["time"])
        if why:
            whose = named if isinstance(named, str) else "nobody"
            failed_by[whose] += 1
            failed_since.setdefault(whose, float(answer["time"]))
            failures.append(f"request {answer['number']} ({answer['mode']}, second {second}): {why}")
    slowest = max((float(answer["seconds"]) for answer in answers), default=0.0)
    return Tally(len(answers), tuple(failures), slowest, seconds, failed_by, spans, failed_since)


def _some(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:_SHOWN])
    return f"[{shown}{', …' if len(values) > _SHOWN else ''}]"
