"""Small models that say which version they are, and models that are broken, each in its own way.

The good ones predict the sample model's diabetes data, so that the sample's load client can ask them. Version k answers
1000 * k more than version 0 in every row: an answer tells by itself which version gave it.
"""

import json
import os
import pickle
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from rollway_training.samples import SAMPLES, held_out_rows

SAMPLE = "diabetes"
STEP = 1000.0
_EXAMPLE_ROWS = 5
_PICKLE = "model.pkl"

Answers = tuple[tuple[float, ...], ...]
"""What a model says to each held-out row, in order."""


@dataclass(frozen=True)
class Artifact:
    """A model's folder as MLflow stores it, and what the model answers if it can be loaded at all."""

    folder: Path
    answers: Answers = ()


def regressor(folder: Path, number: int, *, input_example: bool = True) -> Artifact:
    """Save a good model whose answers name its number."""
    return _saved(folder, _fitted(number), input_example=input_example)


def answering_nan(folder: Path) -> Artifact:
    """Save a model that loads and answers NaN, to its own example too."""
    model = _fitted(0)
    model.coef_ = np.full_like(model.coef_, np.nan)
    return _saved(folder, model)


def without_a_file(folder: Path) -> Artifact:
    """Save a model whose MLmodel names a file that is not there."""
    artifact = _saved(folder, _fitted(0), serialization_format="cloudpickle")
    (folder / _PICKLE).unlink()
    return artifact


def not_a_model(folder: Path) -> Artifact:
    """Make a folder that holds anything but a model."""
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"accuracy": 0.9}))
    return Artifact(folder)


def needing_a_package(folder: Path) -> Artifact:
    """Save a model of a package that no image has."""
    return _pickled(folder, b"crollway_absent_package\nRegressor\n.")


def exiting_at_load(folder: Path) -> Artifact:
    """Save a model that ends the process that loads it, without a word."""
    return _pickled(folder, pickle.dumps(_Calls(os._exit, 3)))


def never_ready(folder: Path) -> Artifact:
    """Save a model that is still being loaded when everybody has given up."""
    return _pickled(folder, pickle.dumps(_Calls(time.sleep, 86400)))


class _Calls:
    """Pickles as a call: whoever loads it makes that call."""

    def __init__(self, function: Callable[..., Any], argument: int) -> None:
        self._call = (function, (argument,))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[int]]:
        return self._call


def _fitted(number: int) -> Ridge:
    data = SAMPLES[SAMPLE].load()
    return Ridge(alpha=1.0).fit(data.train_rows, data.train_target + STEP * number)


def _pickled(folder: Path, content: bytes) -> Artifact:
    _saved(folder, _fitted(0), serialization_format="cloudpickle")
    (folder / _PICKLE).write_bytes(content)
    return Artifact(folder)


def _saved(
    folder: Path, model: Ridge, *, input_example: bool = True, serialization_format: str = "skops"
) -> Artifact:
    # MLflow takes seconds to import; tests that make no model do without.
    import mlflow.sklearn  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415

    rows = held_out_rows(SAMPLE)
    answers = model.predict(rows)
    with warnings.catch_warnings():
        # What MLflow thinks of pickles is right, and not what is tested.
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            model,
            str(folder),
            signature=infer_signature(rows, answers),
            input_example=rows.head(_EXAMPLE_ROWS) if input_example else None,
            serialization_format=serialization_format,
            pip_requirements=["scikit-learn", "skops"],
        )
    return Artifact(folder, tuple((float(answer),) for answer in answers))
