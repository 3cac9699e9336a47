"""Every model gets its numbers and figures, and stronger regularization gives other answers."""

import numpy as np
import pytest

from rollway_training import estimators, evaluation
from rollway_training.samples import SAMPLES


def test_the_deciding_metric_of_every_task_is_measured_on_held_out_rows() -> None:
    for sample in SAMPLES.values():
        data = sample.load()
        model = estimators.linear(sample.task, 1.0).fit(data.train_rows, data.train_target)
        measured = evaluation.metrics(
            sample.task, model, data.held_out_rows, data.held_out_target, "held_out_"
        )
        assert measured[evaluation.DECIDING_METRIC[sample.task]] > 0


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("diabetes", {"residuals.png"}),
        ("breast-cancer", {"confusion_matrix.png", "roc_curve.png"}),
    ],
)
def test_a_task_has_its_figures(name: str, files: set[str]) -> None:
    sample = SAMPLES[name]
    data = sample.load()
    model = estimators.linear(sample.task, 1.0).fit(data.train_rows, data.train_target)
    figures = evaluation.figures(sample.task, model, data.held_out_rows, data.held_out_target)
    assert set(figures) == files
    assert all(figure.axes[0].get_title() for figure in figures.values())


def test_another_regularization_changes_every_answer() -> None:
    data = SAMPLES["diabetes"].load()
    weak, strong = (
        estimators.linear("regression", strength).fit(data.train_rows, data.train_target)
        for strength in (1.0, 30.0)
    )
    difference = np.abs(weak.predict(data.held_out_rows) - strong.predict(data.held_out_rows))
    assert difference.min() > 1e-6


def test_another_seed_makes_another_forest() -> None:
    data = SAMPLES["breast-cancer"].load()
    one, two = (
        estimators.forest("classification", seed).fit(data.train_rows, data.train_target) for seed in (1, 2)
    )
    assert (one.predict_proba(data.held_out_rows) != two.predict_proba(data.held_out_rows)).any()
