"""What the operator costs: processor time, memory and calls, beside thousands of Deployments that are not its own.

Pods are only pretended to run. `ROLLWAY_LOAD_OBJECTS=100,1000` says how many ModelDeployments there are at each stage.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

import pytest

from rollway_testing.controlplane import ControlPlane
from rollway_testing.faults import FaultProxy
from rollway_testing.kubelet import Kubelet
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import OperatorProcess, serves
from rollway_testing.waiting import eventually

STAGES = tuple(int(number) for number in os.environ.get("ROLLWAY_LOAD_OBJECTS", "100,1000").split(","))
FOREIGN = int(os.environ.get("ROLLWAY_LOAD_FOREIGN", "2000"))
SECONDS_AT_REST = float(os.environ.get("ROLLWAY_LOAD_REST", "30"))
GOAL_CPU_SECONDS_EACH = 0.010
GOAL_BYTES = 150 * 1024 * 1024
NAMESPACE = "models"


@dataclass(frozen=True)
class Used:
    """What a stretch of time took."""

    seconds: float
    cpu: float
    calls: int


class Table:
    """Measures stretches of the operator's work and prints a row for each."""

    def __init__(self, operator: OperatorProcess, proxy: FaultProxy) -> None:
        self._operator, self._proxy = operator, proxy
        print(
            f"\n{FOREIGN} foreign Deployments\n{'objects':>7} {'':<32} {'wall s':>8} {'CPU s':>8} "
            f"{'CPU ms each':>12} {'calls each':>10} {'RSS MiB':>8}"
        )

    def measure(self, objects: int, what: str, happening: Callable[[], object], number: int = 0) -> Used:
        """Measure until something has happened to a number of the objects."""
        started, cpu, before = time.monotonic(), self._cpu(), Counter(self._proxy.counts())
        happening()
        cpu = self._cpu() - cpu
        calls = Counter(self._proxy.counts()) - before
        # A process that started anew began at nothing.
        used = Used(time.monotonic() - started, cpu if cpu > 0 else self._cpu(), calls.total())
        share = number or objects or 1
        print(
            f"{objects:>7} {what:<32} {used.seconds:>8.1f} {used.cpu:>8.2f} {1000 * used.cpu / share:>12.2f} "
            f"{used.calls / share:>10.1f} {self._operator.resident_bytes() / 2**20:>8.0f}",
            flush=True,
        )
        often = (f"{call} {count / share:.1f}" for call, count in calls.most_common() if count >= share / 2)
        print(f"        {', '.join(often)}", flush=True)
        return used

    def _cpu(self) -> float:
        return self._operator.cpu_seconds()


def foreign_deployment(number: int) -> dict[str, Any]:
    labels = {"app": f"app-{number}"}
    container = {"name": "app", "image": "app:1", "env": [{"name": "A", "value": "x" * 200}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"app-{number}", "namespace": "foreign", "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def model_deployment(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "rollway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": f"m{number}", "namespace": NAMESPACE},
        "spec": {"model": {"name": f"model-{number % 10}", "alias": "champion"}},
    }


def create(api: Kubernetes, manifests: list[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(api.create, manifests))


@pytest.fixture
def crowded(plane: ControlPlane, mlflow: str) -> Kubernetes:
    """A cluster with many Deployments of others, and our registry."""
    api = plane.api
    for namespace in ("foreign", NAMESPACE):
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    create(api, [foreign_deployment(number) for number in range(FOREIGN)])
    registry = {
        "apiVersion": "rollway.dev/v1alpha1",
        "kind": "ModelRegistry",
        "metadata": {"name": "default"},
    }
    artifacts = [{"prefix": "s3://models/", "endpoint": "http://127.0.0.1:1"}]
    api.create({**registry, "spec": {"mlflow": {"trackingURI": mlflow}, "artifacts": artifacts}})
    return api


@pytest.fixture
def operator(plane: ControlPlane, proxy: FaultProxy, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator as the chart runs it, counted by the proxy."""
    with OperatorProcess(tmp_path / "operator", proxy.kubeconfig, resync=20, log_level="INFO") as process:
        yield process


def test_the_operators_cost_grows_with_its_objects_alone(
    crowded: Kubernetes, operator: OperatorProcess, proxy: FaultProxy
) -> None:
    kubelet = Kubelet(crowded, NAMESPACE)
    table = Table(operator, proxy)

    def make(first: int, last: int) -> None:
        create(crowded, [model_deployment(number) for number in range(first, last)])
        eventually(
            lambda: len(crowded.list("Deployment", NAMESPACE)),
            lambda seen: seen == last,
            within=600,
            what="children are applied",
            told=str,
        )

    def ready() -> int:
        kubelet.step()
        items = crowded.list("ModelDeployment", NAMESPACE)
        return sum(serves(item.get("status", {}), "1") for item in items)

    def rest() -> None:
        time.sleep(SECONDS_AT_REST)

    def restart() -> None:
        operator.terminate()
        operator.start()
        passes = 'rollway_operator_reconcile_total{result="ok"}'
        eventually(lambda: operator.metric(passes) >= known, within=300, what="all are reconciled")

    table.measure(0, "at rest", rest)
    costs, known = [], 0
    for stage in STAGES:
        number = stage - known
        used = table.measure(stage, f"{number} made: children applied", partial(make, known, stage), number)
        costs.append(used.cpu / number)
        all_serve = partial(eventually, ready, partial(eq, stage), within=900, what="all serve")
        table.measure(stage, "all serve", all_serve, number)
        table.measure(stage, "at rest", rest)
        known = stage
    table.measure(known, "started anew: all reconciled", restart)
    memory = operator.resident_bytes()
    print(
        f"goals: at most {1000 * GOAL_CPU_SECONDS_EACH:.0f} ms of CPU until an object's children are applied: "
        f"{costs[-1] * 1000:.1f}; at most {GOAL_BYTES / 2**20:.0f} MiB: {memory / 2**20:.0f}"
    )
    assert memory <= GOAL_BYTES
    assert costs[-1] <= 2 * costs[0], "an object costs no more where there are many"
