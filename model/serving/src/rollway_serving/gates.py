"""What a model must pass, in the very process that will serve it, before the process says it is ready."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from rollway_serving import invocations
from rollway_serving.errors import PodFailure, ServingError, SmokeTestFailed, WarmupFailed

if TYPE_CHECKING:
    from pathlib import Path

    from rollway_serving.mlmodel import InputExample
    from rollway_serving.model import Model

_MAX_EXAMPLE_BYTES = 16 << 20
_log = logging.getLogger(__name__)


def run(model: Model, folder: Path, *, smoke_test: bool, warmup_requests: int) -> None:
    """Run the smoke test and the warm-up; a model without input example passes both."""
    example = model.mlmodel.input_example
    if example is None:
        _log.info("the model has no input example: smoke test and warm-up skipped")
        return
    if smoke_test:
        _smoke_test(model, folder, example)
    if warmup_requests:
        _warm_up(model, folder, example, warmup_requests)


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


def check_answer(result: Any) -> str | None:
    """Say what is wrong with an answer, if anything: it must hold no NaN and no infinity."""
    values = (
        result.select_dtypes("number").to_numpy() if hasattr(result, "select_dtypes") else np.asarray(result)
    )
    if values.dtype.kind in "fc" and not bool(np.isfinite(values).all()):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        return f"{bad} of {values.size} values in its answer are NaN or infinite"
    return None


def _smoke_test(model: Model, folder: Path, example: InputExample) -> None:
    try:
        result = model.predict(read_example(model, folder, example))
    except PodFailure:
        raise
    except (ServingError, OSError, ValueError) as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise SmokeTestFailed(f"the model fails on its own input example: {error}{cause}") from error
    problem = check_answer(result)
    if problem:
        raise SmokeTestFailed(f"the model fails on its own input example: {problem}")
    _log.info("smoke test passed")


def _warm_up(model: Model, folder: Path, example: InputExample, requests: int) -> None:
    try:
        rows = read_example(model, folder, example)
        for _ in range(requests):
            model.predict(rows)
    except (ServingError, OSError, ValueError) as error:
        raise WarmupFailed(f"the model fails during warm-up: {error}") from error
    _log.info("warm-up of %d requests done", requests)
