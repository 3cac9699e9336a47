"""A pretended kubelet: no container runs, but model pods get the status that a node would have given them."""

import hashlib
import json
from contextlib import suppress
from enum import StrEnum
from typing import Any, Protocol

from rollway_testing.kubernetes import ApiError, Kubernetes

Json = dict[str, Any]

_MODEL_POD = "rollway.dev/model-deployment"
_VERSION = "app.kubernetes.io/version"


class Nature(StrEnum):
    """How the pods of a version fare."""

    GOOD = "Good"
    WAITING = "Waiting"
    UNFETCHABLE = "FetchFailed"
    BROKEN = "SmokeTestFailed"
    CHANGED = "DigestMismatch"


class Node(Protocol):
    """What brings pods forward."""

    natures: dict[str, Nature]

    def step(self) -> None:
        """Look at every pod once."""


class RealNodes:
    """Nothing to pretend: kubelets run."""

    def __init__(self) -> None:
        self.natures: dict[str, Nature] = {}

    def step(self) -> None:
        """Leave it to them."""


class Kubelet:
    """Gives every model pod of a namespace its status, by the nature of its version; good where none is told."""

    def __init__(self, api: Kubernetes, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._told: dict[str, Json] = {}
        self.natures: dict[str, Nature] = {}

    def step(self) -> None:
        """Look at every pod once and write what changed."""
        for pod in self._api.list("Pod", self._namespace):
            labels, name = pod["metadata"]["labels"], pod["metadata"]["name"]
            if _MODEL_POD not in labels or "deletionTimestamp" in pod["metadata"]:
                continue
            status = self.status(labels[_VERSION])
            if self._told.get(name) != status:
                # A pod that is gone since it was listed needs no status.
                with suppress(ApiError):
                    self._api.set_status("Pod", name, self._namespace, status)
                self._told[name] = status

    def status(self, version: str) -> Json:
        """Say what a node says of a pod of this version."""
        nature = self.natures.get(version, Nature.GOOD)
        fetched = {"digest": digest_of(version), "files": 3, "bytes": 300, "inputExample": True}
        failed = {"reason": str(nature), "message": f"as version {version} does"}
        if nature is Nature.WAITING:
            return _pod(fetch=_running(), server=_waiting("PodInitializing"))
        if nature is Nature.BROKEN:
            return _pod(fetch=_ended(0, fetched), server=_crashed(failed))
        if nature is Nature.GOOD:
            return _pod(fetch=_ended(0, fetched), server=_running(), ready=True)
        return _pod(fetch=_crashed(failed), server=_waiting("PodInitializing"))


def digest_of(version: str) -> str:
    """Give the digest of a version's artifacts."""
    return f"sha256:{hashlib.sha256(version.encode()).hexdigest()}"


def _pod(fetch: Json, server: Json, *, ready: bool = False) -> Json:
    conditions = {"PodScheduled": True, "Initialized": "terminated" in fetch["state"], "Ready": ready}
    container: Json = {"image": "rollway/mlserver", "imageID": "sha256:0", "ready": False, "restartCount": 0}
    return {
        "phase": "Running" if "running" in server["state"] else "Pending",
        "conditions": [{"type": type_, "status": str(holds)} for type_, holds in conditions.items()],
        "initContainerStatuses": [container | {"name": "fetch"} | fetch],
        "containerStatuses": [container | {"name": "server", "ready": ready} | server],
    }


def _waiting(reason: str) -> Json:
    return {"state": {"waiting": {"reason": reason}}}


def _running() -> Json:
    return {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}


def _ended(code: int, message: Json) -> Json:
    return {"state": {"terminated": _termination(code, message)}}


def _crashed(message: Json) -> Json:
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    return {"state": waiting, "lastState": {"terminated": _termination(1, message)}, "restartCount": 1}


def _termination(code: int, message: Json) -> Json:
    reason = "Completed" if code == 0 else "Error"
    return {"exitCode": code, "reason": reason, "message": json.dumps(message)}
