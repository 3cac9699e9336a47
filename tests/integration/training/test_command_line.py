"""train, register, promote and list against a real MLflow server, with artifacts in a real S3 store."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any

import mlflow
import pytest
import yaml

from rollway_testing.processes import MLflowServer, SeaweedFS

# The rmse on the held-out rows falls from the first to the second and is far worse with the third.
STRENGTHS = {"1": "1", "2": "30", "3": "1000"}
MODEL = "diabetes"


@dataclass(frozen=True)
class History:
    """What the model went through: three versions and an attempt to promote each."""

    trained: dict[str, dict[str, Any]]
    registered: dict[str, dict[str, Any]]
    promotions: dict[str, Any]


@pytest.fixture(scope="module")
def history(program: Any) -> History:
    trained, registered, promotions = {}, {}, {}
    for number, strength in STRENGTHS.items():
        ended = program.train(
            *("train", "--sample", "diabetes", "--regularization", strength, "--register", MODEL),
            *("--experiment", "in-s3", "--artifact-location", "s3://models/diabetes"),
        )
        trained[number], registered[number] = ended.line("trained"), ended.line("registered")
        promotions[number] = program.run("rollway_training", "promote", "--model", MODEL)
    return History(trained, registered, promotions)


@pytest.fixture(scope="module")
def client(mlflow_server: MLflowServer) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(mlflow_server.uri)


def keys(s3: SeaweedFS, prefix: str) -> list[str]:
    """Return the objects of the bucket ``models`` below ``prefix``, without it."""
    listed = s3.client().list_objects_v2(Bucket="models", Prefix=prefix)
    return sorted(entry["Key"].removeprefix(prefix) for entry in listed.get("Contents", []))


def location(client: mlflow.MlflowClient, version: dict[str, Any]) -> str:
    """Return the address that the registry gives for downloading a version."""
    uri: str = client.get_model_version_download_uri(version["model"], version["version"])
    return uri


def mlmodel(s3: SeaweedFS, client: mlflow.MlflowClient, version: dict[str, Any]) -> dict[str, Any]:
    """Return the MLmodel file of a version in the bucket ``models``."""
    key = location(client, version).removeprefix("s3://models/") + "/MLmodel"
    read: dict[str, Any] = yaml.safe_load(s3.client().get_object(Bucket="models", Key=key)["Body"].read())
    return read


def test_versions_count_up(history: History) -> None:
    assert [line["version"] for line in history.registered.values()] == ["1", "2", "3"]


def test_the_model_is_under_the_artifact_location_in_s3(
    history: History, client: mlflow.MlflowClient, s3: SeaweedFS
) -> None:
    found = location(client, history.registered["1"])
    assert found.startswith("s3://models/diabetes/")
    files = keys(s3, found.removeprefix("s3://models/") + "/")
    assert {"MLmodel", "model.skops", "input_example.json", "requirements.txt"} <= set(files)


def test_the_model_has_a_signature_of_named_doubles_and_an_example(
    history: History, client: mlflow.MlflowClient, s3: SeaweedFS
) -> None:
    model = mlmodel(s3, client, history.registered["1"])
    columns = yaml.safe_load(model["signature"]["inputs"])
    assert {column["type"] for column in columns} == {"double"}
    assert columns[0]["name"] == "age"
    assert model["saved_input_example_info"]["artifact_path"] == "input_example.json"


def test_the_models_requirements_are_pinned_to_what_trained_it(
    history: History, client: mlflow.MlflowClient, s3: SeaweedFS
) -> None:
    key = location(client, history.registered["1"]).removeprefix("s3://models/") + "/requirements.txt"
    lines = s3.client().get_object(Bucket="models", Key=key)["Body"].read().decode().split()
    assert {f"{name}=={installed(name)}" for name in ("scikit-learn", "numpy", "skops")} <= set(lines)
    assert all("==" in line for line in lines)


def test_the_run_holds_parameters_metrics_figures_and_the_datas_digest(
    history: History, client: mlflow.MlflowClient, s3: SeaweedFS
) -> None:
    run = client.get_run(history.trained["2"]["run_id"])
    assert run.data.params["regularization"] == "30.0"
    assert run.data.metrics == pytest.approx(history.trained["2"]["metrics"])
    assert run.data.tags["data_digest"] == history.trained["2"]["data_digest"]
    assert run.inputs is not None
    datasets = {entry.dataset.name for entry in run.inputs.dataset_inputs}
    assert datasets == {"diabetes-train", "diabetes-held_out"}
    assert "figures/residuals.png" in keys(s3, f"diabetes/{run.info.run_id}/artifacts/")


def test_a_version_carries_what_decides_its_promotion(history: History) -> None:
    tags = history.registered["1"]["tags"]
    assert tags["data_digest"] == history.trained["1"]["data_digest"]
    assert float(tags["held_out_rmse"]) == history.trained["1"]["metrics"]["held_out_rmse"]


def test_the_first_version_and_a_better_one_are_promoted(history: History) -> None:
    assert [history.promotions[number].code for number in ("1", "2")] == [0, 0]
    line = history.promotions["2"].line("promoted")
    assert (line["version"], line["champion"]) == ("2", "1")
    assert line["value"] < line["champion_value"]


def test_a_worse_version_is_refused_with_the_numbers_and_its_own_exit_code(
    history: History, client: mlflow.MlflowClient
) -> None:
    refused = history.promotions["3"]
    line = refused.line("refused")
    assert refused.code == 3
    assert line["value"] > line["champion_value"]
    assert f"{line['value']:.6g} is worse than version 2's {line['champion_value']:.6g}" in refused.told
    assert client.get_model_version_by_alias(MODEL, "champion").version == "2"


def test_a_verdict_is_tagged(history: History, client: mlflow.MlflowClient) -> None:
    status = {
        number: client.get_model_version(MODEL, number).tags["validation_status"]
        for number in history.registered
    }
    assert status == {"1": "approved", "2": "approved", "3": "rejected"}


def test_list_shows_every_version_with_its_aliases(history: History, program: Any) -> None:
    lines = program.train("list", "--model", MODEL).lines
    assert [(line["version"], line["aliases"]) for line in lines] == [
        ("1", []),
        ("2", ["champion"]),
        ("3", []),
    ]


def test_versions_answer_differently_to_every_row(history: History, program: Any) -> None:
    code = (
        "import json; from rollway_training.registry import expected_outputs as e;"
        f"print(json.dumps([e({MODEL!r}, v, 'diabetes') for v in '12']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=program.environment, capture_output=True, check=True
    )
    first, second = yaml.safe_load(done.stdout)
    assert len(first) == len(second) == 111
    assert min(abs(a - b) for a, b in zip(first, second, strict=True)) > 1e-6


def test_an_experiment_keeps_the_artifact_location_that_it_was_made_with(
    history: History, program: Any
) -> None:
    ended = program.run(
        *(
            "rollway_training",
            "train",
            "--experiment",
            "in-s3",
            "--artifact-location",
            "s3://models/elsewhere",
        )
    )
    assert ended.code == 1
    assert "keeps its artifacts at s3://models/diabetes" in ended.told


def test_a_classifier_can_answer_probabilities_through_the_servers_proxy(
    program: Any, client: mlflow.MlflowClient, s3: SeaweedFS
) -> None:
    trained = program.train(
        *("train", "--sample", "breast-cancer", "--predict-fn", "predict_proba"),
        *("--experiment", "proxied"),
    ).line("trained")
    registered = program.train("register", "--model", "tumours", "--experiment", "proxied").line("registered")
    assert registered["run_id"] == trained["run_id"]
    found = location(client, registered)
    assert found.startswith("mlflow-artifacts:/")
    key = found.removeprefix("mlflow-artifacts:/") + "/MLmodel"
    model = yaml.safe_load(s3.client().get_object(Bucket="mlflow", Key=key)["Body"].read())
    assert model["flavors"]["python_function"]["predict_fn"] == "predict_proba"
    assert yaml.safe_load(model["signature"]["outputs"])[0]["tensor-spec"]["shape"] == [-1, 2]


def test_a_model_without_versions_is_said_to_have_none(program: Any) -> None:
    ended = program.run("rollway_training", "promote", "--model", "nobody")
    assert ended.code == 1
    assert "model 'nobody' has no version" in ended.told
