"""The registry's models in this process: what a version really gives, whoever is asked about it in the cluster."""

import importlib
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from rollway_cluster.client import Client
from rollway_cluster.install import MLFLOW_NAMESPACE, Installation

MLFLOW_PORT, S3_PORT = 5000, 8333


def prepare() -> None:
    """Begin to import what the other functions need, which takes seconds, while something else is waited for."""
    name = "rollway_training.registry"
    threading.Thread(target=importlib.import_module, args=(name,), name=f"import {name}", daemon=True).start()


@contextmanager
def reach(client: Client, installation: Installation) -> Iterator[str]:
    """Let MLflow's client in this process reach the cluster's MLflow and S3 by forwarded ports; gives MLflow's URI."""
    import mlflow  # noqa: PLC0415 - takes seconds, which only those pay who ask

    with ExitStack() as stack:
        mlflow_port = stack.enter_context(client.forward("svc/mlflow", MLFLOW_NAMESPACE, MLFLOW_PORT))
        s3_port = stack.enter_context(client.forward("svc/s3", MLFLOW_NAMESPACE, S3_PORT))
        settings = {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "AWS_ACCESS_KEY_ID": installation.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": installation.credentials.secret_key,
            "AWS_DEFAULT_REGION": installation.region,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        uri = f"http://127.0.0.1:{mlflow_port}"
        mlflow.set_tracking_uri(uri)
        try:
            yield uri
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def newest_version(client: Client, installation: Installation, model: str) -> int:
    """The number of a registered model's newest version; 0 where there is none."""
    from rollway_training import registry  # noqa: PLC0415

    with reach(client, installation):
        return max((int(version.version) for version in registry.versions(model)), default=0)


def move_alias(client: Client, installation: Installation, model: str, alias: str, version: str) -> None:
    """Have an alias name a version, whatever the versions are worth."""
    from mlflow import MlflowClient  # noqa: PLC0415

    with reach(client, installation):
        MlflowClient().set_registered_model_alias(model, alias, version)


def expected(
    client: Client, installation: Installation, model: str, versions: Iterable[str], sample: str
) -> dict[str, list[list[float]]]:
    """What each version gives for each of a sample's held-out rows, computed here from its artifacts."""
    from rollway_training import registry, samples  # noqa: PLC0415

    rows = len(samples.held_out_rows(sample))
    with reach(client, installation):
        answers = {version: registry.expected_outputs(model, version, sample) for version in versions}
    return {version: _rows(flat, rows) for version, flat in answers.items()}


def _rows(flat: list[float], rows: int) -> list[list[float]]:
    width = len(flat) // rows
    return [flat[start : start + width] for start in range(0, len(flat), width)]
