"""A model that cannot serve never says ready, and leaves a reason in one sentence."""

import importlib
import json
import pickle
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from skops import io

from .conftest import MODEL_NAME, NewPod, Pod, Trained, pipeline, put_program, save


def edit_mlmodel(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "MLmodel"
    raw = yaml.safe_load(path.read_text())
    change(raw)
    path.write_text(yaml.safe_dump(raw))


def test_a_missing_file_is_named(new_pod: NewPod, spoilt: Path) -> None:
    (spoilt / "model.pkl").unlink()
    message = new_pod(spoilt).end_unready()
    assert message["reason"] == "ModelLoadFailed"
    assert "model.pkl" in message["message"]


def test_a_folder_that_is_no_model_is_not_a_model(new_pod: NewPod) -> None:
    assert new_pod().end_unready()["reason"] == "NotAModel"


def test_a_missing_package_is_named(new_pod: NewPod, spoilt: Path) -> None:
    put_program(spoilt, "import a_package_that_is_not_there")
    message = new_pod(spoilt).end_unready()
    assert message["reason"] == "MissingPackage"
    assert "'a_package_that_is_not_there'" in message["message"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("import sys; sys.exit(3)", 1),
        ("import os; os._exit(0)", 0),
    ],
)
def test_a_model_that_ends_the_process_while_it_loads_leaves_a_reason(
    new_pod: NewPod, spoilt: Path, source: str, code: int
) -> None:
    put_program(spoilt, source)
    assert new_pod(spoilt).end_unready(code)["reason"] == "ModelLoadFailed"


def test_something_else_than_a_model_in_the_pickle_is_said(new_pod: NewPod, spoilt: Path) -> None:
    (spoilt / "model.pkl").write_bytes(pickle.dumps({"not": "a model"}))
    message = new_pod(spoilt).end_unready()
    assert message == {"reason": "ModelLoadFailed", "message": "the model has no method 'predict_proba'"}


def test_another_flavor_is_said_to_be_unsupported(new_pod: NewPod, spoilt: Path) -> None:
    edit_mlmodel(spoilt, lambda raw: raw["flavors"].update(prophet=raw["flavors"].pop("sklearn")))
    message = new_pod(spoilt).end_unready()
    assert message["reason"] == "ModelLoadFailed"
    assert "'prophet'" in message["message"]


def test_a_path_in_mlmodel_that_is_not_a_plain_name_is_refused(new_pod: NewPod, spoilt: Path) -> None:
    edit_mlmodel(spoilt, lambda raw: raw["flavors"]["sklearn"].update(pickled_model="../model.pkl"))
    assert new_pod(spoilt).end_unready()["reason"] == "NotAModel"


def test_nan_on_its_own_example_fails_the_smoke_test(
    new_pod: NewPod, spoilt: Path, array_model: Trained
) -> None:
    estimator = pickle.loads((spoilt / "model.pkl").read_bytes())
    estimator[-1].coef_[:] = float("nan")
    (spoilt / "model.pkl").write_bytes(pickle.dumps(estimator))
    message = new_pod(spoilt).end_unready()
    assert message["reason"] == "SmokeTestFailed"
    assert "NaN" in message["message"]


def test_an_example_that_the_signature_refuses_fails_the_smoke_test(new_pod: NewPod, spoilt: Path) -> None:
    (spoilt / "serving_input_example.json").write_text(json.dumps({"inputs": [[1.0, 2.0]]}))
    message = new_pod(spoilt).end_unready()
    assert message["reason"] == "SmokeTestFailed"
    assert "expected shape [-1, 30], got [1, 2]" in message["message"]


def test_without_the_smoke_test_the_warm_up_still_judges(new_pod: NewPod, spoilt: Path) -> None:
    (spoilt / "serving_input_example.json").write_text("{")
    pod = new_pod(spoilt, smokeTest={"source": "Disabled"})
    assert pod.end_unready()["reason"] == "WarmupFailed"


def test_without_either_the_model_serves(new_pod: NewPod, spoilt: Path) -> None:
    (spoilt / "serving_input_example.json").write_text("{")
    new_pod(spoilt, smokeTest={"source": "Disabled"}, warmup={"requests": 0}).serve_until_ready()


def test_a_skops_file_with_a_type_that_nobody_trusts_is_refused(
    new_pod: NewPod, frame_model: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(frame_model.folder, tmp_path / "model"))
    (tmp_path / "stranger.py").write_text("class Stranger:\n    def __init__(self):\n        self.a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    stranger = importlib.import_module("stranger")
    io.dump(stranger.Stranger(), folder / "model.skops")
    sys.modules.pop("stranger")
    message = new_pod(folder).end_unready()
    assert message["reason"] == "ModelLoadFailed"
    assert "stranger.Stranger" in message["message"]


def test_settings_that_cannot_be_used_are_said_with_the_field(new_pod: NewPod, array_model: Trained) -> None:
    message = new_pod(array_model.folder, drainSeconds="5").end_unready()
    assert message["reason"] == "ModelLoadFailed"
    assert "drainSeconds" in message["message"]


def test_while_the_model_loads_the_server_lives_and_is_not_ready(new_pod: NewPod, spoilt: Path) -> None:
    put_program(spoilt, "import time; time.sleep(120)")
    pod = new_pod(spoilt)
    process = pod.serve_until_live()
    assert pod.status(f"/v2/models/{MODEL_NAME}/ready") == 503
    assert pod.status("/v2/health/ready") == 503
    assert pod.status("/ping") == 503
    answer = httpx.post(f"{pod.http}/v2/models/{MODEL_NAME}/infer", json={}, trust_env=False)
    assert answer.status_code == 503
    assert answer.headers["x-model-version"] == "3"
    process.terminate()
    assert process.wait(5) == 0
    assert pod.termination == {}


def test_a_ready_pod_has_an_empty_termination_message(new_pod: NewPod, array_model: Trained) -> None:
    pod = new_pod(array_model.folder)
    pod.serve_until_ready()
    assert pod.termination == {}


@pytest.mark.parametrize("port", ["httpPort", "grpcPort", "metricsPort"])
def test_a_port_that_is_taken_is_said(new_pod: NewPod, array_model: Trained, port: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        pod = new_pod(array_model.folder, **{port: taken.getsockname()[1]})
        assert pod.serve().wait(60) == 1
    assert pod.termination["reason"] == "ModelLoadFailed"
    assert "the server cannot run" in pod.termination["message"]


# ------------------------------------------------------------------------------------------------------- golden cases


def golden(model: Trained, rows: int = 3) -> list[dict[str, Any]]:
    """The first rows of the training data with the model's own answers."""
    values = model.rows.to_numpy()[:rows]
    return [
        {"request": {"inputs": [row.tolist()]}, "predictions": model.estimator.predict_proba([row]).tolist()}
        for row in values
    ]


def golden_pod(new_pod: NewPod, folder: Path, cases: Any, **smoke_test: Any) -> Pod:
    pod = new_pod(folder, smokeTest={"source": "ConfigMap", **smoke_test})
    (pod.config / "golden.json").write_text(cases if isinstance(cases, str) else json.dumps(cases))
    return pod


def test_a_wrong_answer_to_a_golden_case_is_told_with_its_place(
    new_pod: NewPod, array_model: Trained
) -> None:
    cases = golden(array_model)
    right = cases[1]["predictions"][0][1]
    cases[1]["predictions"][0][1] = right + 0.25
    message = golden_pod(new_pod, array_model.folder, cases).end_unready()
    assert message["reason"] == "SmokeTestFailed"
    assert message["message"].startswith("golden case 2 of 3: predictions[0][1]: expected ")
    assert message["message"].endswith("a difference of 0.25 (tolerance 1e-06)")
    pod = golden_pod(new_pod, array_model.folder, cases, tolerance=0.3)
    pod.serve_until_ready()
    assert "smoke test of 3 golden cases passed" in pod.log


def test_labels_of_a_frame_are_golden_too(new_pod: NewPod, rows: Any, target: Any, tmp_path: Path) -> None:
    labels = np.where(target == 1, "benign", "malignant")
    estimator = pipeline().fit(rows, labels)
    folder = save(tmp_path / "labels" / "model", estimator, rows, estimator.predict(rows))
    split = rows[:2].to_dict(orient="split", index=False)
    cases = [{"request": {"dataframe_split": split}, "predictions": estimator.predict(rows[:2]).tolist()}]
    golden_pod(new_pod, folder, cases).serve_until_ready()
    expected, cases[0]["predictions"][1] = cases[0]["predictions"][1], "harmless"
    assert golden_pod(new_pod, folder, cases).end_unready() == {
        "reason": "SmokeTestFailed",
        "message": f'golden case 1 of 1: predictions[1]: expected "harmless", got "{expected}"',
    }


@pytest.mark.parametrize("cases", ["[" * 100_000, None], ids=["hostile", "missing"])
def test_a_hostile_golden_file_fails_the_smoke_test(
    new_pod: NewPod, array_model: Trained, cases: Any
) -> None:
    pod = golden_pod(new_pod, array_model.folder, cases)
    if cases is None:
        (pod.config / "golden.json").unlink()
    message = pod.end_unready()
    assert message["reason"] == "SmokeTestFailed"
    assert message["message"].startswith("golden")
    assert "Traceback" not in pod.log


def test_a_slow_model_is_refused_in_the_first_pod_only(new_pod: NewPod, array_model: Trained) -> None:
    smoke_test = {"source": "InputExample", "maxLatencySeconds": 1e-6}
    pods = [new_pod(array_model.folder, smokeTest=smoke_test) for _ in range(2)]
    message = pods[0].end_unready()
    assert message["reason"] == "SmokeTestFailed"
    assert "longer than maxLatency" in message["message"]
    (pods[1].config / "digest").write_text("sha256:" + "0" * 64)
    pods[1].serve_until_ready()


def test_golden_cases_warm_up_a_model_without_input_example(new_pod: NewPod, spoilt: Path) -> None:
    edit_mlmodel(spoilt, lambda raw: raw.pop("saved_input_example_info"))
    cases = [{"request": {"inputs": [[0.0] * 30]}, "predictions": [[0.5, 0.5]]}]
    pod = golden_pod(new_pod, spoilt, cases, tolerance=1)
    pod.serve_until_ready()
    assert "warm-up of 3 requests done" in pod.log
