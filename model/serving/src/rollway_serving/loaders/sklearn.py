"""Load scikit-learn models that MLflow saved as pickle, cloudpickle or skops."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from rollway_serving.errors import ModelLoadFailed
from rollway_serving.mlmodel import plain_name

if TYPE_CHECKING:
    from pathlib import Path

    from rollway_serving.mlmodel import MLmodel

TRUSTED_TYPES = frozenset(
    {
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
    }
)
"""What skops may build besides its own defaults: the parts of scikit-learn's estimators that skops does not know.

It is the image's list; what the artifact itself asks to be trusted is never read.
"""


def load(folder: Path, mlmodel: MLmodel) -> Any:
    """Load the file that the flavor names by the format that the flavor names."""
    name = plain_name(mlmodel.options.get("pickled_model"), "flavors.sklearn.pickled_model")
    path = folder / name
    if not path.is_file():
        raise ModelLoadFailed(f"the artifact has no file {name!r}, which MLmodel names")
    form = mlmodel.options.get("serialization_format", "pickle")
    if form == "skops":
        return _load_skops(path)
    if form in ("pickle", "cloudpickle"):
        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301 - who may publish a model may run it, in this sandboxed pod
    raise ModelLoadFailed(f"serialization format {form!r} is not one of pickle, cloudpickle, skops")


def _load_skops(path: Path) -> Any:
    from skops import io  # noqa: PLC0415 - only these models pay for the import

    unknown = set(io.get_untrusted_types(file=path))
    refused = sorted(unknown - TRUSTED_TYPES)
    if refused:
        raise ModelLoadFailed(f"the skops file holds types that are not trusted: {', '.join(refused)}")
    return io.load(path, trusted=sorted(unknown))
