"""What integration tests tell stories with: the operator as a process, a registered model, and one ModelDeployment."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from rollway_testing.kubelet import Node
from rollway_testing.kubernetes import ApiError, Kubernetes
from rollway_testing.pods import everybodys
from rollway_testing.processes import Server, free_port
from rollway_testing.waiting import eventually

REPOSITORY: Final = Path(__file__).parents[3]
AT_ONCE: Final[dict[str, Any]] = {"rollingUpdate": {}}
"""The strategy of stories that are not about canaries: the next version takes over once its gates are passed."""


def pretended_runtimes() -> dict[str, Any]:
    """Give runtimes as an administrator defines them, with the one metrics port of all pretended pods."""
    return {
        "mlserver": {
            "image": f"docker.io/rollway/mlserver@sha256:{'0' * 64}",
            "fetchCommand": ["python", "-m", "rollway_serving.fetch"],
            "ports": {"http": 8080, "grpc": 8081, "metrics": everybodys().port},
            "readinessPath": "/v2/models/{name}/ready",
            "livenessPath": "/v2/health/live",
            "drainSeconds": 5,
        }
    }


class RegisteredModel:
    """A model in the real registry; its artifacts are names only, since no pod runs."""

    def __init__(self, uri: str, name: str) -> None:
        self.name = name
        self._uri = f"{uri}/api/2.0/mlflow"
        self._post("registered-models/create", name=name)

    def add_version(self) -> str:
        source = f"s3://models/{self.name}"
        made = self._post("model-versions/create", name=self.name, source=source)
        return str(made["model_version"]["version"])

    def point(self, version: str, alias: str = "champion") -> None:
        self._post("registered-models/alias", name=self.name, alias=alias, version=version)

    def tag(self, version: str, key: str, value: str) -> None:
        self._post("model-versions/set-tag", name=self.name, version=version, key=key, value=value)

    def _post(self, path: str, **body: str) -> dict[str, Any]:
        said = httpx.post(f"{self._uri}/{path}", json=body, trust_env=False, timeout=30)
        answer: dict[str, Any] = said.raise_for_status().json()
        return answer


class OperatorProcess(Server):
    """`python -m rollway_operator`, outside of a cluster."""

    def __init__(
        self,
        path: Path,
        kubeconfig: Path,
        *,
        namespace: str = "default",
        serves: str = "",
        resync: int = 2,
        log_level: str = "DEBUG",
        runtimes: Mapping[str, Any] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Have the lease in one namespace, and serve one or all; with these runtimes, or those of pretended pods.

        `more` is put into its environment.
        """
        super().__init__(path)
        self._kubeconfig = kubeconfig
        self._namespace, self._serves = namespace, serves
        self._resync, self._log_level = resync, log_level
        self._awaited = True
        self._more = more or {}
        self.restarts = 0
        self._health, self._metrics = free_port(), free_port()
        self._runtimes = path / "runtimes.json"
        self._runtimes.write_text(json.dumps(pretended_runtimes() if runtimes is None else runtimes))

    @property
    def health_urls(self) -> list[str]:
        """The probe that the chart's Deployment asks."""
        return [f"http://127.0.0.1:{self._health}/readyz"]

    def command(self) -> list[str]:
        return [sys.executable, "-m", "rollway_operator"]

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(REPOSITORY / "operator" / "src"),
            "KUBECONFIG": str(self._kubeconfig),
            "ROLLWAY_NAMESPACE": self._namespace,
            "ROLLWAY_POD_NAME": self.identity,
            "ROLLWAY_WATCH_NAMESPACES": self._serves,
            "ROLLWAY_RUNTIMES_FILE": str(self._runtimes),
            "ROLLWAY_HEALTH_PORT": str(self._health),
            "ROLLWAY_METRICS_PORT": str(self._metrics),
            "ROLLWAY_RESYNC_SECONDS": str(self._resync),
            "ROLLWAY_LOG_LEVEL": self._log_level,
            **self._more,
        }

    @property
    def identity(self) -> str:
        """The name by which it holds the lease."""
        return f"rollway-{self.path.name}"

    @property
    def pid(self) -> int:
        """The process that runs, or ran last."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End the process as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def keep_running(self) -> None:
        """Start the process again where it has ended, as a kubelet does, and count that."""
        if not self.running:
            self.restarts += 1
            self.launch()

    def launch(self) -> None:
        """Start the process without waiting until it is ready."""
        self._awaited = False
        try:
            self.start()
        finally:
            self._awaited = True

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        if self._awaited:
            super()._await_ready(process)

    def cpu_seconds(self) -> float:
        """Tell how much processor time the process has used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def resident_bytes(self) -> int:
        """Tell how much memory the process holds."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def terminate(self) -> int:
        """Ask the process to end; give its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait until the process has ended; give its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=30)

    def metric(self, line: str) -> float:
        """Read one sample of its own metrics; 0 where it has not been counted yet."""
        values = (
            row.rpartition(" ")[2] for row in self._exposed().splitlines() if row.startswith(f"{line} ")
        )
        return float(next(values, 0))

    def samples(self) -> list[Sample]:
        """Read all samples of its own metrics."""
        families = text_string_to_metric_families(self._exposed())
        return [sample for family in families for sample in family.samples]

    def _exposed(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self._metrics}/metrics", trust_env=False, verify=False).text

    def logged(self) -> list[dict[str, Any]]:
        """Give what it has logged, parsed."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class Story:
    """One ModelDeployment and what becomes of it, while the pretended kubelet plays its part."""

    def __init__(
        self,
        api: Kubernetes,
        kubelet: Node,
        namespace: str,
        model: str,
        *,
        name: str = "iris",
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow the model's champion, and replace it at once; `meanwhile` is done at each look."""
        self.api, self.kubelet, self.namespace, self.name = api, kubelet, namespace, name
        self.meanwhile = meanwhile
        self.spec: dict[str, Any] = {"model": {"name": model, "alias": "champion"}, "strategy": AT_ONCE}
        self.annotations: dict[str, str] = {}

    def ask(self, **spec: Any) -> None:
        """Apply the ModelDeployment, as a person would."""
        self.spec |= spec
        metadata = {"name": self.name, "namespace": self.namespace, "annotations": self.annotations}
        kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelDeployment"}
        self.api.apply({**kind, "metadata": metadata, "spec": self.spec})

    def say(self, verb: str, value: str) -> None:
        """Annotate it with a verb, as a person would."""
        self.annotations[f"rollway.dev/{verb}"] = value
        self.ask()

    def callers(self, requests: int) -> None:
        """Have so many requests come at each look, led as its Service says."""
        self.kubelet.callers[self.name] = requests

    def own(self) -> dict[str, Any] | None:
        """Read the ModelDeployment."""
        return self.api.get("ModelDeployment", self.name, self.namespace)

    def status(self) -> dict[str, Any]:
        """Let the kubelet look once, and read the status."""
        self.meanwhile()
        self.kubelet.step()
        status: dict[str, Any] = (self.own() or {}).get("status", {})
        return status

    def until(
        self, holds: Callable[[dict[str, Any]], object], what: str, within: float = 120
    ) -> dict[str, Any]:
        """Wait until the status is as wanted."""
        return eventually(self.status, lambda status: bool(holds(status)), within=within, what=what)

    def until_serving(self, version: str) -> dict[str, Any]:
        """Wait until a version is stable and Ready, nothing is under way, and the Service points at it."""
        status = self.until(
            lambda status: serves(status, version) and self.pointed_at() == status["stable"]["revision"],
            f"version {version} serves",
        )
        # The decision is in status before the children follow it: what hangs on it is there a moment later.
        revision = status["stable"]["revision"]
        self.until(lambda _: _others_are_stopped(self.counts(), revision), "other revisions have no pods")
        return status

    def children(self, kind: str) -> dict[str, dict[str, Any]]:
        """Read the children of a kind by name: none where the API server does not know the kind."""
        try:
            found = self.api.list(kind, self.namespace, {"rollway.dev/model-deployment": self.name})
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return {}
            raise
        return {item["metadata"]["name"]: item for item in found}

    def counts(self) -> dict[str, int]:
        """Read how many pods each Deployment shall have."""
        return {name: item["spec"]["replicas"] for name, item in self.children("Deployment").items()}

    def pointed_at(self) -> str | None:
        """Read which revision the Service points at: stable, where it points at a canary, too."""
        service = self.api.get("Service", self.name, self.namespace)
        if service is None:
            return None
        alone: str | None = service["spec"]["selector"].get("rollway.dev/revision")
        return alone or str(service["metadata"]["annotations"]["rollway.dev/stable"])

    def leads_to(self) -> str | None:
        """Read which one revision the Service leads to; None where it leads to more, or is not there."""
        service = self.api.get("Service", self.name, self.namespace)
        return service["spec"]["selector"].get("rollway.dev/revision") if service else None


def _others_are_stopped(counts: dict[str, int], revision: str) -> bool:
    return all(count == 0 for name, count in counts.items() if name != revision)


def condition(status: dict[str, Any], type_: str) -> dict[str, Any]:
    return next((one for one in status.get("conditions", ()) if one["type"] == type_), {})


def serves(status: dict[str, Any], version: str) -> bool:
    stable = status.get("stable", {}).get("version") == version
    return stable and condition(status, "Ready")["status"] == "True" and not condition(status, "Reconciling")
