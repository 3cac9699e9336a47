"""A loaded model with its signature: the same for every server, so that all of them answer alike."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rollway_serving import loaders
from rollway_serving.batching import joined, parted
from rollway_serving.errors import InputError, ModelLoadFailed, PredictionError
from rollway_serving.mlmodel import MLmodel
from rollway_serving.signature import Signature, Spec, has_non_finite, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_PREDICT_METHODS = frozenset(
    {"predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "transform"}
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """Something that predicts, and what it takes and gives."""

    mlmodel: MLmodel
    signature: Signature
    """What requests are checked by: the one that was declared, else what the estimator itself remembers."""
    call: Callable[[Any], Any]
    declared: Signature = field(default_factory=Signature)
    """What was logged with the model; empty where nothing was."""

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Load the model in the folder."""
        mlmodel = MLmodel.load(folder)
        declared = Signature.parse(mlmodel.signature)
        if mlmodel.predict_method not in _PREDICT_METHODS:
            raise ModelLoadFailed(f"predict method {mlmodel.predict_method!r} is not supported")
        estimator = loaders.load(folder, mlmodel)
        call = getattr(estimator, mlmodel.predict_method, None)
        if not callable(call):
            raise ModelLoadFailed(f"the model has no method {mlmodel.predict_method!r}")
        signature = declared if declared.inputs else _implied(estimator)
        return cls(mlmodel=mlmodel, signature=signature, call=call, declared=declared)

    def predict(self, rows: Any) -> Any:
        """Run the model on checked input; each row gets an answer, or the error says whose fault it is."""
        try:
            result = self.call(rows)
        except (Exception, SystemExit) as error:
            if has_non_finite(rows):
                raise InputError(
                    "inputs", "numbers (this model takes no NaN or infinity)", "NaN or infinity"
                ) from None
            if not self.signature.inputs and isinstance(error, TypeError | ValueError):
                raise InputError(
                    "inputs", "what the model takes (it has no signature)", str(error)[:200]
                ) from None
            _log.exception("the model failed on a request that its signature allows")
            raise PredictionError("the model failed on this request") from error
        if rows_of(result) != rows_of(rows):
            raise PredictionError(f"the model gave {rows_of(result)} answers to {rows_of(rows)} rows")
        return result

    def predict_together(self, requests: Sequence[Any]) -> list[Any]:
        """Run the model once on the rows of several requests; an error does not tell whose rows it is about."""
        rows = joined(requests)
        result = self.call(rows)
        if rows_of(result) != rows_of(rows):
            raise PredictionError(f"the model gave {rows_of(result)} answers to {rows_of(rows)} rows")
        return parted(result, [rows_of(request) for request in requests])


def _implied(estimator: Any) -> Signature:
    """What scikit-learn itself remembers of the training data, for a model saved without a signature."""
    width = getattr(estimator, "n_features_in_", None)
    if hasattr(estimator, "feature_names_in_") or not isinstance(width, int):
        return Signature()
    return Signature(inputs=(Spec(name="input-0", dtype=np.dtype("float64"), shape=(-1, width)),))
