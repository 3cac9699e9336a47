"""The init container against a real S3 store and a real MLflow server."""

import hashlib
import os
import subprocess
import sys
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pytest

from rollway_serving.fetch.manifest import FetchedFile, digest
from rollway_testing.processes import MLflowServer, SeaweedFS

from .conftest import SOURCES, NewPod, Pod, Trained, await_true
from .runtimes import Seldon


def put_folder(s3: SeaweedFS, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            s3.client().put_object(
                Bucket="models", Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes()
            )


def s3_environment(s3: SeaweedFS, prefix: str) -> dict[str, str]:
    return {
        "ROLLWAY_MODEL_URI": f"s3://models/{prefix}",
        "ROLLWAY_ARTIFACT_PREFIX": "s3://models",
        "ROLLWAY_ARTIFACT_ENDPOINT": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digest_of(folder: Path) -> str:
    return digest(
        FetchedFile(name, len(data), hashlib.sha256(data).hexdigest())
        for name, data in contents(folder).items()
    )


@pytest.fixture
def stored(s3: SeaweedFS, frame_model: Trained) -> dict[str, str]:
    """A model in S3 under a folder of this test's own."""
    prefix = f"1/{uuid.uuid4().hex}/artifacts"
    put_folder(s3, frame_model.folder, prefix)
    return s3_environment(s3, prefix)


def fetched(pod: Pod, seconds: float = 60) -> int:
    return pod.fetch().wait(seconds)


def test_a_model_in_s3_is_placed_byte_for_byte(
    new_pod: NewPod, stored: dict[str, str], frame_model: Trained
) -> None:
    pod = new_pod(environment=stored)
    assert fetched(pod) == 0, pod.log
    assert contents(pod.model) == contents(frame_model.folder)
    assert pod.termination == {
        "digest": digest_of(frame_model.folder),
        "files": len(contents(frame_model.folder)),
        "bytes": sum(map(len, contents(frame_model.folder).values())),
        "flavor": "sklearn",
        "signature": True,
        "inputExample": True,
    }


def test_a_model_behind_mlflow_is_placed_byte_for_byte(
    new_pod: NewPod, mlflow_server: MLflowServer, frame_model: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    mlflow.set_tracking_uri(mlflow_server.uri)
    experiment = mlflow.set_experiment("fetch")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(frame_model.folder), "deep/model")
    uri = f"{run.info.artifact_uri}/deep/model"
    assert uri.startswith("mlflow-artifacts:/")
    pod = new_pod(
        environment={
            "ROLLWAY_MODEL_URI": uri,
            "ROLLWAY_ARTIFACT_PREFIX": f"mlflow-artifacts:/{experiment.experiment_id}",
            "ROLLWAY_TRACKING_URI": mlflow_server.uri,
        }
    )
    assert fetched(pod) == 0, pod.log
    assert contents(pod.model) == contents(frame_model.folder)
    assert pod.termination["digest"] == digest_of(frame_model.folder)


def test_a_large_file_is_read_in_parts_and_stays_whole(
    new_pod: NewPod, s3: SeaweedFS, stored: dict[str, str]
) -> None:
    large = os.urandom((40 << 20) + 17)
    key = stored["ROLLWAY_MODEL_URI"].removeprefix("s3://models/")
    s3.client().put_object(Bucket="models", Key=f"{key}/large.bin", Body=large)
    pod = new_pod(environment=stored)
    assert fetched(pod) == 0, pod.log
    assert (pod.model / "large.bin").read_bytes() == large


def test_a_flipped_byte_is_a_digest_mismatch_and_nothing_is_left(
    new_pod: NewPod, s3: SeaweedFS, stored: dict[str, str], frame_model: Trained
) -> None:
    pod = new_pod(environment=stored)
    (pod.config / "digest").write_text(digest_of(frame_model.folder))
    assert fetched(pod) == 0, pod.log
    key = stored["ROLLWAY_MODEL_URI"].removeprefix("s3://models/")
    data = bytearray((frame_model.folder / "model.skops").read_bytes())
    data[1000] ^= 1
    s3.client().put_object(Bucket="models", Key=f"{key}/model.skops", Body=bytes(data))
    assert fetched(pod) == 1
    assert pod.termination["reason"] == "DigestMismatch"
    assert digest_of(frame_model.folder) in pod.termination["message"]
    assert contents(pod.model) == {}


def test_what_an_earlier_run_left_is_removed_first(
    new_pod: NewPod, stored: dict[str, str], frame_model: Trained
) -> None:
    pod = new_pod(environment=stored)
    (pod.model / ".incoming" / "half").mkdir(parents=True)
    (pod.model / ".incoming" / "half" / "file").write_text("half")
    (pod.model / "model-settings.json").write_text("{}")
    (pod.model / "away").symlink_to("/etc")
    assert fetched(pod) == 0, pod.log
    assert contents(pod.model) == contents(frame_model.folder)


@pytest.mark.parametrize(
    "name", ["model-settings.json", "sub/Settings.json", ".env", "a b.txt", "1/2/3/4/5/6/7"]
)
def test_an_artifact_with_a_name_that_is_not_allowed_is_refused(
    new_pod: NewPod, s3: SeaweedFS, frame_model: Trained, name: str
) -> None:
    prefix = f"refused/{uuid.uuid4().hex}"
    put_folder(s3, frame_model.folder, prefix)
    s3.client().put_object(Bucket="models", Key=f"{prefix}/{name}", Body=b"{}")
    pod = new_pod(environment=s3_environment(s3, prefix))
    assert fetched(pod) == 1
    assert pod.termination["reason"] == "ArtifactRefused"
    assert contents(pod.model) == {}


def test_a_download_uri_outside_the_prefix_is_refused(new_pod: NewPod, stored: dict[str, str]) -> None:
    pod = new_pod(environment=stored | {"ROLLWAY_ARTIFACT_PREFIX": "s3://models/2"})
    assert fetched(pod) == 1
    assert pod.termination["reason"] == "ArtifactRefused"


def test_a_folder_without_mlmodel_is_not_a_model(new_pod: NewPod, s3: SeaweedFS) -> None:
    pod = new_pod(environment=s3_environment(s3, "nothing/here"))
    assert fetched(pod) == 1
    assert pod.termination["reason"] == "NotAModel"


@pytest.mark.parametrize(
    "missing", [{"AWS_ACCESS_KEY_ID": ""}, {"AWS_SECRET_ACCESS_KEY": "another"}], ids=["none", "wrong"]
)
def test_bad_credentials_are_nobodys_fault(
    new_pod: NewPod, stored: dict[str, str], missing: dict[str, str]
) -> None:
    pod = new_pod(environment=stored | missing)
    assert fetched(pod) == 1
    assert pod.termination["reason"] == "FetchFailed"
    assert "credentials" in pod.termination["message"]


@pytest.fixture
def own_s3(tmp_path: Path) -> Any:
    """A store that this test may stop."""
    with SeaweedFS(tmp_path / "s3") as store:
        store.create_bucket("models")
        yield store


def test_an_outage_shorter_than_a_minute_is_waited_out(
    new_pod: NewPod, own_s3: SeaweedFS, frame_model: Trained
) -> None:
    put_folder(own_s3, frame_model.folder, "m")
    own_s3.stop()
    pod = new_pod(environment=s3_environment(own_s3, "m"))
    process = pod.fetch()
    await_true(lambda: "is tried again" in pod.log, 30)
    own_s3.start()
    assert process.wait(60) == 0, pod.log
    assert contents(pod.model) == contents(frame_model.folder)


def test_an_outage_of_a_minute_is_fetch_failed(
    new_pod: NewPod, own_s3: SeaweedFS, frame_model: Trained
) -> None:
    put_folder(own_s3, frame_model.folder, "m")
    own_s3.stop()
    pod = new_pod(environment=s3_environment(own_s3, "m"))
    began = time.monotonic()
    assert fetched(pod, 120) == 1
    assert time.monotonic() - began > 55
    assert pod.termination["reason"] == "FetchFailed"
    assert contents(pod.model) == {}


@pytest.mark.parametrize("policy", ["", "Warn", "Enforce"])
def test_a_model_of_other_packages_is_judged_by_the_policy(
    new_pod: NewPod, s3: SeaweedFS, stored: dict[str, str], frame_model: Trained, policy: str
) -> None:
    key = stored["ROLLWAY_MODEL_URI"].removeprefix("s3://models/")
    other = f"scikit-learn==1.4.0\nnumpy=={version('numpy')}\nmlflow==1.0\n-r more.txt\n"
    s3.client().put_object(Bucket="models", Key=f"{key}/requirements.txt", Body=other.encode())
    pod = new_pod(environment=stored | {"ROLLWAY_ENVIRONMENT_POLICY": policy})
    code, message = fetched(pod), pod.termination
    difference = f"scikit-learn {version('scikit-learn')} installed, model wants ==1.4.0"
    if policy == "Enforce":
        assert (code, message["reason"]) == (1, "EnvironmentMismatch")
        assert message["message"].startswith(f"{difference}: log the model with")
        assert contents(pod.model) == {}
    else:
        assert code == 0, pod.log
        assert message.get("environment") == (difference if policy == "Warn" else None)
    assert "Traceback" not in pod.log


def test_a_model_of_the_images_packages_passes_enforcement(
    new_pod: NewPod, stored: dict[str, str], frame_model: Trained
) -> None:
    pod = new_pod(environment=stored | {"ROLLWAY_ENVIRONMENT_POLICY": "Enforce"})
    assert fetched(pod) == 0, pod.log
    assert "environment" not in pod.termination


@pytest.mark.parametrize("policy", ["Warn", "Enforce"])
def test_a_model_of_numpy_2_is_too_new_for_the_seldon_image(
    new_pod: NewPod, stored: dict[str, str], policy: str
) -> None:
    pod = new_pod(runtime=Seldon(), environment=stored | {"ROLLWAY_ENVIRONMENT_POLICY": policy})
    code, message = fetched(pod), pod.termination
    assert code == (policy == "Enforce"), pod.log
    assert f"installed, model wants =={version('numpy')}" in str(message)
    assert message.get("reason") == ("EnvironmentMismatch" if policy == "Enforce" else None)


def test_hostile_environment_files_end_in_a_sentence(
    new_pod: NewPod, s3: SeaweedFS, stored: dict[str, str]
) -> None:
    key = stored["ROLLWAY_MODEL_URI"].removeprefix("s3://models/")
    for name in ("requirements.txt", "python_env.yaml", "conda.yaml"):
        s3.client().put_object(Bucket="models", Key=f"{key}/{name}", Body=b"((((" * 100_000)
    pod = new_pod(environment=stored | {"ROLLWAY_ENVIRONMENT_POLICY": "Enforce"})
    assert fetched(pod) == 1
    assert "Traceback" not in pod.log
    assert pod.termination["reason"] == "EnvironmentMismatch"
    assert "requirements.txt is larger than" in pod.termination["message"]
    assert len(pod.termination_log.read_bytes()) < 4096


def test_the_program_with_the_credentials_cannot_load_a_model() -> None:
    script = "import sys, rollway_serving.fetch.__main__; print(*sorted(sys.modules))"
    imported = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "rollway_serving.mlmodel" in imported
    loaders = {"sklearn", "skops", "cloudpickle", "mlserver", "mlflow", "rollway_serving.loaders"}
    assert not loaders & set(imported)
