"""An API server with our CRDs, and the plugin as a process; no operator runs."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_testing.controlplane import ControlPlane
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.plugin import Plugin

_NUMBERS = itertools.count(1)

NewKubeconfig = Callable[..., Path]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane that knows our kinds."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        running.apply_crds()
        yield running


@pytest.fixture
def api(plane: ControlPlane) -> Kubernetes:
    """Its API."""
    return plane.api


@pytest.fixture
def namespace(api: Kubernetes) -> str:
    """A namespace of the test's own."""
    name = f"plugin-{next(_NUMBERS)}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def kubeconfig(plane: ControlPlane, namespace: str, tmp_path: Path) -> NewKubeconfig:
    """Make kubeconfigs like the administrator's, for the test's namespace, with some fields changed."""

    def make(name: str = "config", *, cluster: Any = None, user: Any = None, **context: Any) -> Path:
        document = yaml.safe_load(plane.kubeconfig.read_text())
        document["contexts"][0]["context"] |= {"namespace": namespace, **context}
        document["clusters"][0]["cluster"] |= cluster or {}
        document["users"][0]["user"] |= user or {}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(document))
        return path

    return make


@pytest.fixture
def plugin(kubeconfig: NewKubeconfig) -> Plugin:
    """The plugin, in the test's namespace."""
    return Plugin(kubeconfig())


@pytest.fixture
def fraud(api: Kubernetes, namespace: str) -> dict[str, Any]:
    """The ModelDeployment `fraud`, of which version 12 serves and 13 is on its way."""
    api.create(
        {
            "apiVersion": "rollway.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "fraud", "namespace": namespace},
            "spec": {"model": {"name": "fraud-detector", "alias": "champion"}},
        }
    )
    condition = {"status": "True", "observedGeneration": 1, "lastTransitionTime": "2026-11-24T12:00:00Z"}
    message = "v13: waiting for the first pod to be verified and pass its gates"
    status = {
        "observedGeneration": 1,
        "phase": "Progressing",
        "message": f"{message}; v12 serves",
        "address": {"url": f"http://fraud.{namespace}.svc.cluster.local:8080"},
        "model": {
            "name": "fraud-detector",
            "alias": "champion",
            "targetVersion": "13",
            "targetRevision": "fraud-8d1a22c0",
            "targetSince": "2026-11-24T12:00:00Z",
        },
        "stable": {"revision": "fraud-7c9f0a1b", "version": "12", "readyReplicas": 2},
        "canary": {"revision": "fraud-8d1a22c0", "version": "13", "readyReplicas": 0},
        "history": [
            {
                "revision": revision,
                "version": version,
                "outcome": "Promoted",
                "reason": "GatesPassed",
                "startedAt": "2026-11-22T10:00:00Z",
                "finishedAt": "2026-11-22T10:02:00Z",
            }
            for revision, version in (("fraud-55aa55aa", "11"), ("fraud-7c9f0a1b", "12"))
        ],
        "conditions": [
            condition | {"type": "Ready", "reason": "PodsReady", "message": "v12: 2 of 2 pods ready"},
            condition | {"type": "Reconciling", "reason": "CanaryNotReady", "message": message},
        ],
    }
    for number, (revision, version) in enumerate((("fraud-55aa55aa", "11"), ("fraud-7c9f0a1b", "12")), 1):
        api.create(
            {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {
                    "name": revision,
                    "namespace": namespace,
                    "labels": {"rollway.dev/model-deployment": "fraud"},
                    "annotations": {"rollway.dev/model-version": version, "rollway.dev/served": "true"},
                },
                "revision": number,
                "data": {},
            }
        )
    return api.set_status("ModelDeployment", "fraud", namespace, status)
