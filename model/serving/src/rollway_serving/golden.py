"""Golden cases: requests whose right answers somebody wrote down, in the file ``golden.json`` of the revision.

``[{"request": {"inputs": [[5.1, 3.5]]}, "predictions": [0.93]}, ...]``: each request is a body of MLflow's
``/invocations``, each answer what that route says under ``predictions``. Numbers may differ by the tolerance,
all else must be equal; what is not a number (NaN) equals nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from rollway_serving import invocations
from rollway_serving.errors import InputError, SmokeTestFailed

if TYPE_CHECKING:
    from pathlib import Path

    from rollway_serving.signature import Signature

MAX_BYTES = 256 << 10
_FIELDS = ("request", "predictions")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Case:
    """One request, as the model takes it, and its right answer."""

    title: str
    rows: Any
    predictions: list[Any]


def load(path: Path, signature: Signature) -> list[Case]:
    """Read every case; a file or a request that cannot be used fails the smoke test."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SmokeTestFailed(f"golden.json cannot be read: {error.strerror}") from error
    if len(text) > MAX_BYTES:
        raise SmokeTestFailed(f"golden.json is larger than {MAX_BYTES} bytes")
    return parse(text, signature)


def parse(text: bytes, signature: Signature) -> list[Case]:
    """Read the text of a golden file."""
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SmokeTestFailed(f"golden.json is not JSON: {error}") from None
    if not isinstance(raw, list) or not raw:
        raise SmokeTestFailed("golden.json: expected a list of at least one case")
    return [_case(item, f"golden case {i} of {len(raw)}", signature) for i, item in enumerate(raw, start=1)]


def difference(expected: Any, got: Any, tolerance: float, position: str = "predictions") -> str | None:
    """Say where two answers differ first, and by how much; ``None`` means that they are equal.

    >>> difference([0.5, 0.25], [0.5, 0.375], 1e-6)
    'predictions[1]: expected 0.25, got 0.375, a difference of 0.125 (tolerance 1e-06)'
    >>> difference(["no"], ["yes"], 1e-6)
    'predictions[0]: expected "no", got "yes"'
    """
    if isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return f"{position}: expected {len(expected)} values, got {len(got)}"
        keys: Any = range(len(expected))
    elif isinstance(expected, dict) and isinstance(got, dict):
        if expected.keys() != got.keys():
            return f"{position}: expected the names {_show(sorted(expected))}, got {_show(sorted(got))}"
        keys = expected
    else:
        return _difference_of_one(expected, got, tolerance, position)
    for key in keys:
        shown = f"[{key}]" if isinstance(key, int) else f"[{_show(key)}]"
        if found := difference(expected[key], got[key], tolerance, position + shown):
            return found
    return None


def _case(item: Any, title: str, signature: Signature) -> Case:
    if not isinstance(item, dict) or sorted(item) != sorted(_FIELDS):
        came = _show(sorted(item)) if isinstance(item, dict) else "something else"
        raise SmokeTestFailed(f"{title}: expected an object with request and predictions, got {came}")
    if not isinstance(item["predictions"], list):
        raise SmokeTestFailed(f"{title}: predictions: expected a list, got {_show(item['predictions'])}")
    try:
        rows = invocations.parse(item["request"], signature)
    except InputError as error:
        raise SmokeTestFailed(f"{title}: request: {error}") from None
    return Case(title, rows, item["predictions"])


def _difference_of_one(expected: Any, got: Any, tolerance: float, position: str) -> str | None:
    found = f"{position}: expected {_show(expected)}, got {_show(got)}"
    if not _is_number(expected) or not _is_number(got):
        return None if type(expected) is type(got) and expected == got else found
    try:
        apart = abs(expected - got)
    except OverflowError:  # a whole number beyond what a fraction can be
        return found
    if apart <= tolerance:  # never where either is NaN
        return None
    return found if math.isnan(apart) else f"{found}, a difference of {apart:g} (tolerance {tolerance:g})"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
