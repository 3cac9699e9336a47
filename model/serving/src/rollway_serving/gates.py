"""What a model must pass, in the very process that will serve it, before the process says it is ready."""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from rollway_serving import golden, invocations
from rollway_serving.batching import kind_of
from rollway_serving.errors import PodFailure, ServingError, SmokeTestFailed, WarmupFailed
from rollway_serving.signature import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rollway_serving.mlmodel import InputExample
    from rollway_serving.model import Model
    from rollway_serving.settings import Places, Settings

_MAX_EXAMPLE_BYTES = 16 << 20
_COMPARED = 8
_EQUAL = 1e-9
_TIMED = 3
_log = logging.getLogger(__name__)


def run(model: Model, settings: Settings, places: Places, *, first_pod: bool) -> None:
    """Run the smoke test and the warm-up; a model without input example or golden cases passes both."""
    example = model.mlmodel.input_example
    cases: list[golden.Case] = []
    if settings.smoke_test == "ConfigMap":
        cases = golden.load(places.config / "golden.json", model.signature)
    if example is None and not cases:
        _log.info("the model has no input example: smoke test and warm-up skipped")
        return
    limit = settings.max_latency_seconds if first_pod else None
    if cases:
        _golden_test(model, cases, settings.tolerance, limit)
    elif example and settings.smoke_test == "InputExample":
        _smoke_test(model, places.model, example, limit)
    if settings.warmup_requests:
        _warm_up(model, places.model, example, cases, settings.warmup_requests)


def is_first_pod(places: Places) -> bool:
    """Whether the revision's artifacts are not accepted yet: only its first pod is judged by its speed."""
    try:
        return not (places.config / "digest").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return False


def read_example(model: Model, folder: Path, example: InputExample) -> Any:
    """Read the model's own example as what the model takes."""
    path = folder / example.path
    with path.open("rb") as file:
        body = file.read(_MAX_EXAMPLE_BYTES + 1)
    if len(body) > _MAX_EXAMPLE_BYTES:
        raise ValueError(f"it is larger than {_MAX_EXAMPLE_BYTES} bytes")
    if example.is_request:
        return invocations.parse_json(body, model.signature)
    data = orjson.loads(body)
    if example.kind == "dataframe":
        return invocations.parse({"dataframe_split": data}, model.signature)
    return invocations.parse(data if isinstance(data, dict) else {"inputs": data}, model.signature)


def joining_problem(model: Model, settings: Settings, places: Places) -> str | None:
    """Say why requests must not share a prediction, if so: a row's answer must not depend on the other rows.

    Some rows of the input example, else of the golden cases, are asked one by one and together.
    """
    try:
        rows = _different_rows(_inputs(model, settings, places))
        if len(rows) < 2:
            return "it takes two different rows, in the input example or golden cases, to prove it safe"
        alone = [model.predict(row) for row in rows]
        together = model.predict_together(rows)
    except Exception as error:  # noqa: BLE001 - whatever a model raises, it answers each request alone
        return f"the model fails on rows of its example, alone or together: {type(error).__name__}: {error}"
    outputs = model.signature.named_outputs
    for i, (one, other) in enumerate(zip(alone, together, strict=True), start=1):
        if not all(_same(*pair) for pair in zip(outputs(one), outputs(other), strict=True)):
            return f"the model answers row {i} of its example otherwise when it is asked with others"
    return None


def _inputs(model: Model, settings: Settings, places: Places) -> list[Any]:
    """What is known to be what the model takes: its example, else the requests of the golden cases."""
    if model.mlmodel.input_example is not None:
        return [read_example(model, places.model, model.mlmodel.input_example)]
    if settings.smoke_test == "ConfigMap":
        return [case.rows for case in golden.load(places.config / "golden.json", model.signature)]
    return []


def _different_rows(inputs: list[Any]) -> list[Any]:
    """Find a few rows that differ and may be joined."""
    found: list[Any] = []
    for rows in inputs:
        cut = rows.iloc if hasattr(rows, "iloc") else rows
        for i in range(rows_of(rows)):
            row = cut[i : i + 1]
            if not found or (
                kind_of(row) == kind_of(found[0]) and not any(_same_row(row, other) for other in found)
            ):
                found.append(row)
            if len(found) == _COMPARED:
                return found
    return found


def _same_row(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def _same(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Whether an output is equal: labels exactly, numbers with fractions up to what summing up in blocks alters."""
    (name, values), (other_name, others) = one, other
    if name != other_name or values.dtype != others.dtype or values.shape != others.shape:
        return False
    if values.dtype.kind in "fc":
        return bool(np.allclose(values, others, rtol=_EQUAL, atol=_EQUAL, equal_nan=True))
    return bool(np.array_equal(values, others))


def check_answer(result: Any) -> str | None:
    """Say what is wrong with an answer, if anything: it must hold no NaN and no infinity."""
    values = (
        result.select_dtypes("number").to_numpy() if hasattr(result, "select_dtypes") else np.asarray(result)
    )
    if values.dtype.kind in "fc" and not bool(np.isfinite(values).all()):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        return f"{bad} of {values.size} values in its answer are NaN or infinite"
    return None


def check_latency(call: Callable[[], object], limit: float, clock: Callable[[], float]) -> str | None:
    """Say by how much a call is too slow, if it is; the fastest of a few counts, as a busy node only adds."""
    fastest = float("inf")
    for _ in range(_TIMED):
        began = clock()
        call()
        fastest = min(fastest, clock() - began)
    if fastest <= limit:
        return None
    return f"it took {fastest * 1000:.3g} ms at best, longer than maxLatency {limit * 1000:.3g} ms"


def _golden_test(model: Model, cases: list[golden.Case], tolerance: float, limit: float | None) -> None:
    for case in cases:
        try:
            got = invocations.predictions(model.signature, model.predict(case.rows))
            problem = golden.difference(case.predictions, got, tolerance)
            if problem is None and limit is not None:
                problem = check_latency(lambda rows=case.rows: model.predict(rows), limit, time.monotonic)  # type: ignore[misc]
        except (ServingError, ValueError) as error:
            raise SmokeTestFailed(f"{case.title}: {_with_cause(error)}") from error
        if problem:
            raise SmokeTestFailed(f"{case.title}: {problem}")
    _log.info("smoke test of %d golden cases passed", len(cases))


def _smoke_test(model: Model, folder: Path, example: InputExample, limit: float | None) -> None:
    try:
        rows = read_example(model, folder, example)
        problem = check_answer(model.predict(rows))
        if problem is None and limit is not None:
            problem = check_latency(lambda: model.predict(rows), limit, time.monotonic)
    except PodFailure:
        raise
    except (ServingError, OSError, ValueError) as error:
        raise SmokeTestFailed(f"the model fails on its own input example: {_with_cause(error)}") from error
    if problem:
        raise SmokeTestFailed(f"the model fails on its own input example: {problem}")
    _log.info("smoke test passed")


def _warm_up(
    model: Model, folder: Path, example: InputExample | None, cases: list[golden.Case], requests: int
) -> None:
    try:
        inputs = [read_example(model, folder, example)] if example else [case.rows for case in cases]
        for rows in itertools.islice(itertools.cycle(inputs), requests):
            model.predict(rows)
    except (ServingError, OSError, ValueError) as error:
        raise WarmupFailed(f"the model fails during warm-up: {error}") from error
    _log.info("warm-up of %d requests done", requests)


def _with_cause(error: Exception) -> str:
    return f"{error}: {error.__cause__}" if error.__cause__ else str(error)
