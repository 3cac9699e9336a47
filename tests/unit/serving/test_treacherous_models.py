"""The models that tests serve to be rolled back: each loads, passes its gates, and then does what its name says."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollway_serving import gates, invocations
from rollway_serving.errors import InputError, PredictionError
from rollway_serving.model import Model
from rollway_serving.settings import Places, Settings
from rollway_testing import models
from rollway_testing.models import Artifact
from rollway_training.samples import held_out_rows

from .test_pod_contract import SETTINGS

NUMBER = 3
ROWS = held_out_rows(models.SAMPLE)


def served(artifact: Artifact) -> Model:
    """Load a model and run its gates, as a server does."""
    model = Model.load(artifact.folder)
    places = Places(config=artifact.folder, model=artifact.folder, termination=artifact.folder / "log")
    gates.run(model, Settings.parse(SETTINGS), places, first_pod=True)
    assert gates.joining_problem(model, Settings.parse(SETTINGS), places) is None
    return model


def answers(model: Model, rows: Any = ROWS) -> list[float]:
    return [float(answer) for answer in model.predict(rows)]


def right(artifact: Artifact) -> list[float]:
    return [answer for (answer,) in artifact.answers]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Artifact, Model]]:
    """Save a model and serve it."""

    def made(maker: Callable[..., Artifact], *arguments: Any) -> tuple[Artifact, Model]:
        artifact = maker(tmp_path / "model", NUMBER, *arguments)
        return artifact, served(artifact)

    return made


Make = Callable[..., tuple[Artifact, Model]]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, which takes no time."""
    seconds: list[float] = []

    def sleep(duration: float) -> None:
        seconds.append(duration)
        if len(seconds) > 5:
            raise InterruptedError("the test has seen enough")

    monkeypatch.setattr(time, "sleep", sleep)
    return seconds


def test_a_slow_one_answers_right_and_takes_its_time(make: Make, slept: list[float]) -> None:
    artifact, model = make(models.slow, 0.25)
    assert slept == []
    assert answers(model) == pytest.approx(right(artifact))
    assert answers(model, ROWS[:1]) == pytest.approx(right(artifact)[:1])
    assert slept == [0.25, 0.25]


def test_an_erroring_one_fails_on_its_share_of_rows_and_always_on_the_same(make: Make) -> None:
    artifact, model = make(models.erroring, 0.3)

    def answered() -> list[float | None]:
        found: list[float | None] = []
        for i in range(len(ROWS)):
            try:
                found += answers(model, ROWS[i : i + 1])
            except PredictionError:
                found.append(None)
        return found

    first = answered()
    assert 0.15 < first.count(None) / len(ROWS) < 0.45
    assert answered() == first
    assert all(
        answer is None or answer == pytest.approx(expected)
        for answer, expected in zip(first, right(artifact), strict=True)
    )


@pytest.mark.parametrize(("share", "failing"), [(0.0, 0), (1.0, len(ROWS))])
def test_an_erroring_one_may_fail_on_all_rows_or_on_none(make: Make, share: float, failing: int) -> None:
    _, model = make(models.erroring, share)
    found = 0
    for i in range(len(ROWS)):
        try:
            answers(model, ROWS[i : i + 1])
        except PredictionError:
            found += 1
    assert found == failing


def test_a_crashing_one_ends_the_process_after_so_many_predictions(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        """In the place of the end."""

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    artifact, model = make(models.crashing, 2)
    assert answers(model) == pytest.approx(right(artifact))
    assert answers(model, ROWS[:1]) == pytest.approx(right(artifact)[:1])
    with pytest.raises(Ended, match="3"):
        answers(model, ROWS[:1])


def test_one_answers_nan_to_all_but_its_example(make: Make) -> None:
    artifact, model = make(models.answering_nan_under_traffic)
    assert np.isnan(answers(model)).all()
    assert len(artifact.answers) == len(ROWS)


def test_one_keeps_memory_for_each_prediction(make: Make) -> None:
    artifact, model = make(models.eating_memory, 2)
    eaten: list[bytes] = model.call.__self__._eaten  # type: ignore[attr-defined] # noqa: SLF001 - what else tells
    assert eaten == []
    for count in (1, 2):
        assert answers(model) == pytest.approx(right(artifact))
        assert [len(each) for each in eaten] == [2 << 20] * count


def test_a_hanging_one_never_returns(make: Make, slept: list[float]) -> None:
    _, model = make(models.hanging)
    with pytest.raises(PredictionError) as failure:
        answers(model)
    assert isinstance(failure.value.__cause__, InterruptedError)
    assert len(slept) == 6


def test_one_takes_a_column_more_than_the_others(make: Make, tmp_path: Path) -> None:
    artifact, model = make(models.needing_another_column)
    usual = served(models.regressor(tmp_path / "usual", NUMBER))
    inputs, usual_inputs = (each.signature.described()["inputs"] for each in (model, usual))
    assert inputs == [*usual_inputs, {"name": "s7", "type": "FP64", "shape": [-1], "required": True}]
    assert answers(model, ROWS.assign(s7=ROWS["s6"])) == pytest.approx(right(artifact))
    with pytest.raises(InputError, match="'s7'"):
        invocations.parse({"dataframe_records": ROWS[:1].to_dict(orient="records")}, model.signature)


def test_one_has_not_the_output_of_the_others(make: Make, tmp_path: Path) -> None:
    artifact, model = make(models.losing_an_output)
    usual = served(models.regressor(tmp_path / "usual", NUMBER))
    outputs = [[spec.name for spec in each.signature.outputs] for each in (model, usual)]
    assert outputs == [["progression"], ["predict"]]
    assert model.signature.described()["inputs"] == usual.signature.described()["inputs"]
    (name, values), *_ = model.signature.named_outputs(model.predict(ROWS))
    assert (name, values.tolist()) == ("progression", pytest.approx(right(artifact)))


def test_right_answers_name_the_number(make: Make, tmp_path: Path) -> None:
    artifact, _ = make(models.slow, 0.0)
    usual = models.regressor(tmp_path / "usual", 0)
    apart = np.subtract(right(artifact), right(usual))
    assert apart == pytest.approx(models.STEP * NUMBER)
