"""The data: two real sets that ship with scikit-learn, always split the same way."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import train_test_split

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

Task = Literal["classification", "regression"]

_SPLIT_SEED = 42
_HELD_OUT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Data:
    """A sample, split; numbers of models are comparable where ``digest``, of data and split, is equal."""

    train_rows: pd.DataFrame
    train_target: pd.Series[Any]
    held_out_rows: pd.DataFrame
    held_out_target: pd.Series[Any]
    digest: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A named data set with what is to be predicted from it."""

    name: str
    task: Task
    source: Callable[..., Any]

    def load(self) -> Data:
        """Read the data, give the columns names without spaces and split off the held-out part."""
        bunch = self.source(as_frame=True)
        rows = bunch.data.rename(columns=lambda name: name.replace(" ", "_")).astype("float64")
        target = bunch.target
        stratify = target if self.task == "classification" else None
        train_rows, held_out_rows, train_target, held_out_target = train_test_split(
            rows, target, test_size=_HELD_OUT_SHARE, random_state=_SPLIT_SEED, stratify=stratify
        )
        digest = _digest(train_rows, train_target, held_out_rows, held_out_target)
        return Data(train_rows, train_target, held_out_rows, held_out_target, digest)


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample("diabetes", "regression", load_diabetes),
        Sample("breast-cancer", "classification", load_breast_cancer),
    )
}


@cache
def held_out_rows(sample: str) -> pd.DataFrame:
    """Return the rows that no version was trained on, the same in every process."""
    return SAMPLES[sample].load().held_out_rows


def _digest(*parts: pd.DataFrame | pd.Series[Any]) -> str:
    text = "\n".join(part.to_csv(float_format="%.17g") for part in parts)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
