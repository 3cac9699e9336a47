"""Load a model by its flavor; each loader is chosen from ``MLmodel``, never from what a file contains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rollway_serving.errors import MissingPackage, ModelLoadFailed, PodFailure
from rollway_serving.loaders import sklearn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rollway_serving.mlmodel import MLmodel

    Loader = Callable[[Path, MLmodel], Any]

_LOADERS: dict[str, Loader] = {"sklearn": sklearn.load}


def load(folder: Path, mlmodel: MLmodel) -> Any:
    """Load the model object; whatever goes wrong becomes a reason and one sentence."""
    loader = _LOADERS.get(mlmodel.flavor)
    if loader is None:
        known = ", ".join(sorted(_LOADERS))
        raise ModelLoadFailed(
            f"flavor {mlmodel.flavor!r} is not supported by this runtime (it loads: {known})"
        )
    try:
        return loader(folder, mlmodel)
    except PodFailure:
        raise
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"the model needs the package {error.name!r}, which the image does not have"
        ) from error
    except SystemExit as error:
        raise ModelLoadFailed(
            f"the model ended the process while it was loaded (exit {error.code})"
        ) from error
    except Exception as error:  # a model's file can raise anything at all
        raise ModelLoadFailed(f"loading failed with {type(error).__name__}: {error}") from error
