"""Small models that say which version they are, and models that are broken, each in its own way.

The good ones predict the sample model's diabetes data, so that the sample's load client can ask them. Version k answers
1000 * k more than version 0 in every row: an answer tells by itself which version gave it.

Some are treacherous: they know their own input example, of rows that no client asks, answer it as they should, and
so pass the smoke test and the warm-up. Only other rows show what is wrong with them.
"""

import contextlib
import json
import os
import pickle
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
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


def needing_another_column(folder: Path, number: int) -> Artifact:
    """Save a good model that takes one column more than the others do, and must have it."""

    def widened(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(s7=rows["s6"])

    data = SAMPLES[SAMPLE].load()
    model = Ridge(alpha=1.0).fit(widened(data.train_rows), data.train_target + STEP * number)
    return _saved(folder, model, rows=widened(held_out_rows(SAMPLE)))


def losing_an_output(folder: Path, number: int) -> Artifact:
    """Save a good model whose only output has another name than that of the others, ``predict``."""
    return _saved(folder, _fitted(number), output="progression")


def slow(folder: Path, number: int, seconds: float) -> Artifact:
    """Save a treacherous model whose answers are right, and each prediction takes this long."""
    return _treacherous(folder, number, _Slow, seconds)


def erroring(folder: Path, number: int, share: float) -> Artifact:
    """Save a treacherous model that raises on this share of rows, always on the same ones."""
    return _treacherous(folder, number, _Erroring, share)


def crashing(folder: Path, number: int, after: int) -> Artifact:
    """Save a treacherous model that ends the process instead of answering once it has predicted so often."""
    return _treacherous(folder, number, _Crashing, after)


def answering_nan_under_traffic(folder: Path, number: int) -> Artifact:
    """Save a treacherous model that answers NaN."""
    return _treacherous(folder, number, _AnsweringNaN)


def eating_memory(folder: Path, number: int, mebibytes: int) -> Artifact:
    """Save a treacherous model whose answers are right, and each prediction keeps so much memory for good."""
    return _treacherous(folder, number, _EatingMemory, mebibytes)


def hanging(folder: Path, number: int) -> Artifact:
    """Save a treacherous model whose predictions never end."""
    return _treacherous(folder, number, _Hanging)


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


class _Treacherous:
    """Predicts well what it knows, and does to all other rows what its kind does.

    It is pickled with its code: a server has none of this module.
    """

    def __init__(self, model: Ridge, known: Any, *arguments: Any) -> None:
        self._model = model
        self._known = np.asarray(known)
        self._prepare(*arguments)

    def predict(self, rows: Any) -> Any:
        """Answer rows, of which any that is not known is treated badly."""
        values = np.asarray(rows, dtype="float64")
        same = np.isclose(values[:, np.newaxis, :], self._known[np.newaxis, :, :], rtol=0, atol=1e-9)
        strange = ~same.all(axis=2).any(axis=1)
        answers = self._model.predict(rows)
        if strange.any():
            answers[strange] = self._treat(values[strange], answers[strange])
        return answers

    def _prepare(self, *arguments: Any) -> None:
        """Take the arguments of the kind."""

    def _treat(self, rows: Any, answers: Any, /) -> Any:
        """Give other answers, or none."""
        raise NotImplementedError


class _Slow(_Treacherous):
    def _prepare(self, seconds: float) -> None:
        self._seconds = seconds

    def _treat(self, _rows: Any, answers: Any, /) -> Any:
        time.sleep(self._seconds)
        return answers


class _Erroring(_Treacherous):
    def _prepare(self, share: float) -> None:
        self._share = share

    def _treat(self, rows: Any, answers: Any, /) -> Any:
        if any(zlib.crc32(row.tobytes()) < self._share * 2**32 for row in rows):
            raise ArithmeticError("this row is one of those that this model fails on")
        return answers


class _Crashing(_Treacherous):
    def _prepare(self, after: int) -> None:
        self._left = after

    def _treat(self, _rows: Any, answers: Any, /) -> Any:
        if self._left <= 0:
            os._exit(3)
        self._left -= 1
        return answers


class _AnsweringNaN(_Treacherous):
    def _treat(self, _rows: Any, answers: Any, /) -> Any:
        return np.full_like(answers, np.nan)


class _EatingMemory(_Treacherous):
    def _prepare(self, mebibytes: int) -> None:
        self._bytes = mebibytes << 20
        self._eaten: list[bytes] = []

    def _treat(self, _rows: Any, answers: Any, /) -> Any:
        self._eaten.append(b"x" * self._bytes)
        return answers


class _Hanging(_Treacherous):
    def _treat(self, _rows: Any, _answers: Any, /) -> Any:
        while True:
            time.sleep(3600)


def _treacherous(folder: Path, number: int, kind: type[_Treacherous], *arguments: Any) -> Artifact:
    good = _fitted(number)
    known = SAMPLES[SAMPLE].load().train_rows.head(_EXAMPLE_ROWS)
    rows = held_out_rows(SAMPLE)
    model = kind(good, known, *arguments)
    return _saved(
        folder, model, example=known, answers=good.predict(rows), serialization_format="cloudpickle"
    )


@contextlib.contextmanager
def _with_its_code() -> Iterator[None]:
    """Pickle what is defined here by value."""
    here = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(here)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(here)


def _fitted(number: int) -> Ridge:
    data = SAMPLES[SAMPLE].load()
    return Ridge(alpha=1.0).fit(data.train_rows, data.train_target + STEP * number)


def _pickled(folder: Path, content: bytes) -> Artifact:
    _saved(folder, _fitted(0), serialization_format="cloudpickle")
    (folder / _PICKLE).write_bytes(content)
    return Artifact(folder)


def _saved(
    folder: Path,
    model: Ridge | _Treacherous,
    *,
    rows: pd.DataFrame | None = None,
    example: pd.DataFrame | None = None,
    answers: Any = None,
    output: str | None = None,
    input_example: bool = True,
    serialization_format: str = "skops",
) -> Artifact:
    """Save a model with the signature of its rows and answers, and with an example, else of the first rows."""
    # MLflow takes seconds to import; tests that make no model do without.
    import mlflow.sklearn  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415

    if rows is None:
        rows = held_out_rows(SAMPLE)
    if example is None:
        example = rows.head(_EXAMPLE_ROWS)
    if answers is None:
        answers = model.predict(rows)
    with warnings.catch_warnings(), _with_its_code():
        # What MLflow thinks of pickles is right, and not what is tested.
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            model,
            str(folder),
            signature=infer_signature(rows, pd.DataFrame({output: answers}) if output else answers),
            input_example=example if input_example else None,
            serialization_format=serialization_format,
            pip_requirements=["scikit-learn", "skops"],
        )
    return Artifact(folder, tuple((float(answer),) for answer in answers))
