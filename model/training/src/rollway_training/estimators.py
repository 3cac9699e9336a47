"""The models that can be trained: a linear one that skops stores safely, and a forest that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from rollway_training.samples import Task

Kind = Literal["linear", "forest"]


def linear(task: Task, regularization: float) -> Any:
    """Return a scaled linear model; a larger ``regularization`` keeps its coefficients smaller."""
    if task == "classification":
        return make_pipeline(StandardScaler(), LogisticRegression(C=1 / regularization, max_iter=1000))
    return make_pipeline(StandardScaler(), Ridge(alpha=regularization))


def forest(task: Task, seed: int) -> Any:
    """Return a random forest; another ``seed`` makes another forest."""
    kind = RandomForestClassifier if task == "classification" else RandomForestRegressor
    return kind(n_estimators=100, min_samples_leaf=3, random_state=seed)
