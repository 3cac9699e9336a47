"""MLflow and the S3 store inside a cluster, from a test's side: register, move, delete, spoil, stop and start."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final, Literal

import boto3
import httpx
from botocore.config import Config
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from rollway_cluster.client import Client
from rollway_cluster.install import MLFLOW_NAMESPACE, MODELS_BUCKET, Installation
from rollway_testing.kubernetes import Kubernetes, Object
from rollway_testing.models import Artifact
from rollway_testing.waiting import eventually

Source = Literal["s3", "mlflow"]

NO_IMAGE: Final = "registry.invalid/nobody/has:this"
"""No node can pull it: names under `.invalid` lead nowhere (RFC 2606)."""

_FOLDER: Final = "tests"
_MLFLOW_CONTAINER: Final = "mlflow"
_SECONDS_TO_STOP: Final = 60.0
_SECONDS_TO_START: Final = 120.0


class Registry:
    """One MLflow with its S3 store; each is reached by a forwarded port that a restart of its pod ends."""

    def __init__(self, client: Client, kubernetes: Kubernetes, installation: Installation) -> None:
        """Reach nothing yet: ports are forwarded when they are first needed."""
        self._client, self._kubernetes, self._installation = client, kubernetes, installation
        self._forwards: dict[str, tuple[contextlib.ExitStack, str]] = {}

    def close(self) -> None:
        """Let go of the ports."""
        for name in list(self._forwards):
            self._forget(name)

    @property
    def tracking_uri(self) -> str:
        """MLflow's address for this process."""
        return self._address("mlflow", 5000)

    @property
    def s3_endpoint(self) -> str:
        """The S3 store's address for this process."""
        return self._address("s3", 8333)

    @property
    def mlflow(self) -> MlflowClient:
        """MLflow's own client."""
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    @property
    def s3(self) -> Any:
        """A client of the S3 store."""
        return boto3.client(
            "s3",
            endpoint_url=self.s3_endpoint,
            aws_access_key_id=self._installation.credentials.access_key,
            aws_secret_access_key=self._installation.credentials.secret_key,
            region_name=self._installation.region,
            config=Config(connect_timeout=5, read_timeout=10),
        )

    def register(self, model: str, artifact: Artifact, source: Source = "s3") -> str:
        """Upload a folder, make it the next version of a model, and return the version."""
        mlflow = self.mlflow
        with contextlib.suppress(MlflowException):
            mlflow.create_registered_model(model)
        place = f"{_FOLDER}/{model}/{artifact.folder.name}"
        if source == "s3":
            store = self.s3
            for path in _files(artifact):
                store.upload_file(str(artifact.folder / path), MODELS_BUCKET, f"{place}/{path}")
            uri = f"s3://{MODELS_BUCKET}/{place}"
        else:
            for path in _files(artifact):
                url = f"{self.tracking_uri}/api/2.0/mlflow-artifacts/artifacts/{place}/{path}"
                httpx.put(
                    url, content=(artifact.folder / path).read_bytes(), trust_env=False
                ).raise_for_status()
            uri = f"mlflow-artifacts:/{place}"
        return str(mlflow.create_model_version(model, uri).version)

    def train(self, model: str, sample: str, location: str) -> None:
        """Train and register a sample's model by its own program, and point the alias ``champion`` at it."""
        credentials = self._installation.credentials
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_S3_ENDPOINT_URL": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_DEFAULT_REGION": self._installation.region,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = ["train", "--sample", sample, "--experiment", model, "--artifact-location", location]
        done = subprocess.run(
            [sys.executable, "-m", "rollway_training", *command, "--register", model],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        registered = json.loads(done.stdout.splitlines()[-1])
        self.move_alias(model, "champion", registered["version"])

    def champion(self, model: str) -> str | None:
        """The version that ``champion`` names, if there is one."""
        try:
            return str(self.mlflow.get_model_version_by_alias(model, "champion").version)
        except MlflowException:
            return None

    def download_uri(self, model: str, version: str) -> str:
        """Where a version's files are."""
        return str(self.mlflow.get_model_version_download_uri(model, version))

    def move_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias at a version."""
        self.mlflow.set_registered_model_alias(model, alias, version)

    def delete_alias(self, model: str, alias: str) -> None:
        """Take an alias away."""
        self.mlflow.delete_registered_model_alias(model, alias)

    def delete_version(self, model: str, version: str) -> None:
        """Take a version away."""
        self.mlflow.delete_model_version(model, version)

    def flip_a_byte(self, model: str, version: str) -> str:
        """Change one bit of the largest file of a version in S3, and return the file's key."""
        prefix = self.download_uri(model, version).removeprefix(f"s3://{MODELS_BUCKET}/")
        store = self.s3
        files = store.list_objects_v2(Bucket=MODELS_BUCKET, Prefix=f"{prefix}/")["Contents"]
        key = str(max(files, key=lambda file: file["Size"])["Key"])
        before = store.get_object(Bucket=MODELS_BUCKET, Key=key)["Body"].read()
        middle = len(before) // 2
        after = before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :]
        store.put_object(Bucket=MODELS_BUCKET, Key=key, Body=after)
        assert store.get_object(Bucket=MODELS_BUCKET, Key=key)["Body"].read() == after != before
        return key

    @contextlib.contextmanager
    def stopped(self, server: Literal["mlflow", "s3"]) -> Iterator[None]:
        """Stop a server, really, and start it again at the end, whatever happens between."""
        kind, found = self._workload(server)
        name, replicas = found["metadata"]["name"], found["spec"]["replicas"]
        labels = found["spec"]["selector"]["matchLabels"]
        self._kubernetes.scale(kind, name, MLFLOW_NAMESPACE, 0)
        try:
            eventually(
                lambda: self._kubernetes.list("Pod", MLFLOW_NAMESPACE, labels),
                lambda pods: not pods,
                within=_SECONDS_TO_STOP,
                what=f"{server} is stopped",
            )
            self._forget(server)
            yield
        finally:
            self._kubernetes.scale(kind, name, MLFLOW_NAMESPACE, replicas)
            eventually(
                lambda: (self._kubernetes.get(kind, name, MLFLOW_NAMESPACE) or {}).get("status", {}),
                lambda status: status.get("readyReplicas") == replicas,
                within=_SECONDS_TO_START,
                what=f"{server} runs again",
            )
            self._forget(server)

    @contextlib.contextmanager
    def without_an_image(self) -> Iterator[None]:
        """Name an image for MLflow that nobody has: its pod is replaced by one that never starts, until the end."""
        kind, found = self._workload("mlflow")
        name = found["metadata"]["name"]
        [image] = [
            container["image"]
            for container in found["spec"]["template"]["spec"]["containers"]
            if container["name"] == _MLFLOW_CONTAINER
        ]
        self._run_mlflow(kind, name, NO_IMAGE)
        try:
            yield
        finally:
            self._run_mlflow(kind, name, image)
            eventually(
                lambda: self._kubernetes.get(kind, name, MLFLOW_NAMESPACE) or {},
                _rolled_out,
                within=_SECONDS_TO_START,
                what="mlflow runs again",
                told=lambda found: found.get("status"),
            )
            self._forget("mlflow")

    def _run_mlflow(self, kind: str, name: str, image: str) -> None:
        containers = [{"name": _MLFLOW_CONTAINER, "image": image}]
        changes = {"spec": {"template": {"spec": {"containers": containers}}}}
        self._kubernetes.patch(kind, name, MLFLOW_NAMESPACE, changes, strategic=True)

    def _workload(self, server: str) -> tuple[str, Object]:
        """Find what runs a server: a Deployment or a StatefulSet of its Service's labels."""
        service = self._kubernetes.get("Service", server, MLFLOW_NAMESPACE)
        assert service is not None, f"there is no Service {server}"
        wanted = service["spec"]["selector"].items()
        for kind in ("Deployment", "StatefulSet"):
            for found in self._kubernetes.list(kind, MLFLOW_NAMESPACE):
                if wanted <= found["spec"]["template"]["metadata"]["labels"].items():
                    return kind, found
        raise AssertionError(f"nothing runs the pods of Service {server}")

    def _address(self, service: str, port: int) -> str:
        if service not in self._forwards:
            stack = contextlib.ExitStack()
            local = stack.enter_context(self._client.forward(f"service/{service}", MLFLOW_NAMESPACE, port))
            self._forwards[service] = stack, f"http://127.0.0.1:{local}"
        return self._forwards[service][1]

    def _forget(self, service: str) -> None:
        if service in self._forwards:
            self._forwards.pop(service)[0].close()


def _rolled_out(workload: Object) -> bool:
    """Whether all pods are those of the present spec, and ready."""
    status, wanted = workload.get("status", {}), workload["spec"]["replicas"]
    seen = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    return bool(seen and status.get("updatedReplicas") == status.get("readyReplicas") == wanted)


def _files(artifact: Artifact) -> list[str]:
    return sorted(
        path.relative_to(artifact.folder).as_posix() for path in artifact.folder.rglob("*") if path.is_file()
    )
