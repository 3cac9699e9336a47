"""Models as MLflow saves them, and the two programs of a model pod as real processes."""

import json
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from rollway_testing.processes import free_port

from . import runtimes
from .runtimes import MLServer, Runtime, Seldon

MODEL_NAME = runtimes.MODEL_NAME
SOURCES = runtimes.REPOSITORY / "model" / "serving" / "src"
VERSION = "3"
REVISION = "fraud-7c9f12ab"
_SECONDS_TO_START = 120.0
"""More than any start takes, also where many processes share a processor."""


@dataclass
class Pod:
    """The folders and settings that a model pod has."""

    root: Path
    model: Path
    settings: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    runtime: Runtime = field(default_factory=MLServer)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config.mkdir(exist_ok=True)
        (self.config / "settings.json").write_text(json.dumps(self.settings))
        (self.config / "digest").write_text("")
        self.termination_log.write_text("")

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def termination_log(self) -> Path:
        return self.root / "termination-log"

    @property
    def log(self) -> str:
        return (self.root / "log.txt").read_text(errors="replace")

    @property
    def termination(self) -> dict[str, Any]:
        text = self.termination_log.read_text()
        message: dict[str, Any] = json.loads(text) if text else {}
        return message

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.settings['httpPort']}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.settings['grpcPort']}"

    @property
    def metrics(self) -> str:
        return f"http://127.0.0.1:{self.settings['metricsPort']}/metrics"

    def run(self, module: str) -> subprocess.Popen[bytes]:
        """Start one of the pod's programs."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "ROLLWAY_", "MLFLOW_"))
        }
        environment |= {
            **self.runtime.environment,
            "PYTHONPATH": str(SOURCES),
            "ROLLWAY_CONFIG_DIR": str(self.config),
            "ROLLWAY_MODEL_DIR": str(self.model),
            "ROLLWAY_TERMINATION_LOG": str(self.termination_log),
            **self.environment,
        }
        with (self.root / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [self.runtime.python, "-m", module], env=environment, cwd=self.root, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the server."""
        return self.run(self.runtime.module)

    def fetch(self) -> subprocess.Popen[bytes]:
        """Start the init container's program."""
        return self.run("rollway_serving.fetch")

    def serve_until_ready(self) -> subprocess.Popen[bytes]:
        """Start the server and wait until it says ready."""
        process = self.serve()
        await_true(lambda: process.poll() is not None or self.is_ready(), _SECONDS_TO_START)
        assert self.is_ready(), self.log
        return process

    def serve_until_live(self) -> subprocess.Popen[bytes]:
        """Start the server and wait until it answers; the model may still load."""
        process = self.serve()
        await_true(lambda: self.status(self.runtime.live_path) == 200, _SECONDS_TO_START)
        return process

    def end_unready(self, code: int = 1) -> dict[str, Any]:
        """Start a server that ends by itself, by this exit code, and never says ready; give the reason it leaves."""
        process = self.serve()

        def ended() -> bool:
            assert not self.is_ready()
            return process.poll() is not None

        await_true(ended, _SECONDS_TO_START)
        assert process.returncode == code
        return self.termination

    def is_ready(self) -> bool:
        """Ask as the kubelet does."""
        return self.status(self.runtime.ready_path) == 200

    def status(self, path: str) -> int:
        """Ask for a path on a connection of its own; 0 where there is no answer."""
        try:
            # There is no TLS here, and to make ready for it would take longer than the answer.
            return httpx.get(self.http + path, trust_env=False, verify=False).status_code
        except httpx.TransportError:
            return 0

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def await_true(condition: Callable[[], bool], seconds: float) -> None:
    """Poll a condition until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)


NewPod = Callable[..., Pod]


@pytest.fixture(scope="module")
def new_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewPod]:
    """Make pods; what they run ends with the module."""
    pods: list[Pod] = []

    def make(
        model: Path | None = None,
        environment: dict[str, str] | None = None,
        runtime: Runtime | None = None,
        **settings: Any,
    ) -> Pod:
        root = tmp_path_factory.mktemp("pod")
        if model is None:
            model = root / "model"
            model.mkdir()
        values = {
            "name": MODEL_NAME,
            "namespace": "team-a",
            "revision": REVISION,
            "modelName": "fraud-detector",
            "version": VERSION,
            "timeoutSeconds": 30.0,
            "smokeTest": {"source": "InputExample"},
            "warmup": {"requests": 3},
            "drainSeconds": 5.0,
            "httpPort": free_port(),
            "grpcPort": free_port(),
            "metricsPort": free_port(),
        }
        pod = Pod(root, model, values | settings, environment or {}, runtime or MLServer())
        pods.append(pod)
        return pod

    yield make
    for pod in pods:
        pod.end()


@pytest.fixture(scope="session", params=[MLServer, Seldon], ids=["mlserver", "seldon"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each inference server in turn: give it to ``new_pod``."""
    made: Runtime = request.param()
    return made


@dataclass(frozen=True)
class Trained:
    """A model in this process and the folder that MLflow saved it to."""

    folder: Path
    estimator: Any
    rows: pd.DataFrame


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    """The breast cancer data as a frame."""
    frame: pd.DataFrame = load_breast_cancer(as_frame=True).data
    return frame


@pytest.fixture(scope="session")
def target() -> np.ndarray[Any, Any]:
    """What belongs to the rows."""
    values: np.ndarray[Any, Any] = load_breast_cancer().target
    return values


def pipeline() -> Pipeline:
    """A small model of scikit-learn's own parts."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def save(folder: Path, estimator: Any, example: Any, answer: Any, **options: Any) -> Path:
    """Save a model as training does."""
    import mlflow.sklearn  # noqa: PLC0415 - heavy
    from mlflow.models import infer_signature  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow uses what pandas is about to drop
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder.parent}/{folder.name}.db")
        mlflow.sklearn.save_model(
            estimator,
            folder,
            signature=infer_signature(example, answer),
            input_example=example[:3],
            **options,
        )
    return folder


@pytest.fixture(scope="session")
def frame_model(tmp_path_factory: pytest.TempPathFactory, rows: pd.DataFrame, target: Any) -> Trained:
    """A model of named columns, in MLflow's default format (skops)."""
    estimator = pipeline().fit(rows, target)
    folder = tmp_path_factory.mktemp("frame") / "model"
    return Trained(save(folder, estimator, rows, estimator.predict(rows)), estimator, rows)


@pytest.fixture(scope="session")
def array_model(tmp_path_factory: pytest.TempPathFactory, rows: pd.DataFrame, target: Any) -> Trained:
    """A model of one matrix that answers probabilities, as cloudpickle."""
    values = rows.to_numpy()
    estimator = pipeline().fit(values, target)
    folder = save(
        tmp_path_factory.mktemp("array") / "model",
        estimator,
        values,
        estimator.predict_proba(values),
        serialization_format="cloudpickle",
        pyfunc_predict_fn="predict_proba",
    )
    return Trained(folder, estimator, rows)


@pytest.fixture
def spoilt(array_model: Trained, tmp_path: Path) -> Path:
    """A copy of a good model, for a test to break."""
    return Path(shutil.copytree(array_model.folder, tmp_path / "model"))


def put_object(folder: Path, expression: str) -> None:
    """Replace the model by what the expression gives when it is unpickled."""
    (folder / "model.pkl").write_text(f"cbuiltins\neval\n(V{expression}\ntR.")


def put_program(folder: Path, statements: str) -> None:
    """Replace the model by whatever the statements do while it is unpickled."""
    (folder / "model.pkl").write_text(f"cbuiltins\nexec\n(V{statements}\ntR.")
