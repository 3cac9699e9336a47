"""How good a model is: its numbers on some rows, and the figures that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from sklearn.metrics import (
    accuracy_score,
    auc,
    confusion_matrix,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    roc_curve,
    root_mean_squared_error,
)

if TYPE_CHECKING:
    import pandas as pd

    from rollway_training.samples import Task

# The number that decides a promotion; of each, less is better.
DECIDING_METRIC: dict[str, str] = {
    "classification": "held_out_log_loss",
    "regression": "held_out_rmse",
}


def metrics(
    task: Task, model: Any, rows: pd.DataFrame, target: pd.Series[Any], prefix: str
) -> dict[str, float]:
    """Return the model's numbers on ``rows``, each name with ``prefix`` in front."""
    predicted = model.predict(rows)
    if task == "classification":
        probability = model.predict_proba(rows)
        values = {
            "accuracy": accuracy_score(target, predicted),
            "f1": f1_score(target, predicted),
            "roc_auc": roc_auc_score(target, probability[:, 1]),
            "log_loss": log_loss(target, probability),
        }
    else:
        values = {
            "rmse": root_mean_squared_error(target, predicted),
            "mae": mean_absolute_error(target, predicted),
            "r2": r2_score(target, predicted),
        }
    return {f"{prefix}{name}": float(value) for name, value in values.items()}


def figures(task: Task, model: Any, rows: pd.DataFrame, target: pd.Series[Any]) -> dict[str, Figure]:
    """Return the figures for ``rows`` by file name."""
    if task == "classification":
        return {
            "confusion_matrix.png": _confusion(target, model.predict(rows)),
            "roc_curve.png": _roc(target, model.predict_proba(rows)[:, 1]),
        }
    return {"residuals.png": _residuals(target, model.predict(rows))}


def _confusion(target: pd.Series[Any], predicted: Any) -> Figure:
    counts = confusion_matrix(target, predicted)
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for (row, column), count in zip(((0, 0), (0, 1), (1, 0), (1, 1)), counts.ravel(), strict=True):
        axes.text(column, row, str(count), ha="center", va="center")
    axes.set(
        xlabel="predicted", ylabel="true", xticks=(0, 1), yticks=(0, 1), title="Confusion, held-out rows"
    )
    return figure


def _roc(target: pd.Series[Any], probability: Any) -> Figure:
    false_positives, true_positives, _ = roc_curve(target, probability)
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(false_positives, true_positives, label=f"AUC {auc(false_positives, true_positives):.4f}")
    axes.plot((0, 1), (0, 1), linestyle=":", color="grey")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, held-out rows")
    axes.legend(loc="lower right")
    return figure


def _residuals(target: pd.Series[Any], predicted: Any) -> Figure:
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(predicted, target - predicted, s=12)
    axes.axhline(0, linestyle=":", color="grey")
    axes.set(xlabel="predicted", ylabel="true - predicted", title="Residuals, held-out rows")
    return figure
