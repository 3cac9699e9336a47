"""The operator as tests treat it: killed without warning, and replaced by another build."""

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from rollway_cluster.cluster import Cluster
from rollway_cluster.images import REPOSITORY, build_images
from rollway_cluster.install import OPERATOR, SYSTEM_NAMESPACE
from rollway_testing.kubernetes import Kubernetes, Object
from rollway_testing.waiting import eventually

_LABELS = {"app.kubernetes.io/name": "rollway", "app.kubernetes.io/component": "operator"}
_SECONDS_TO_RETURN = 90.0


class Operator:
    """The one operator of a cluster."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        """Look at it through the API."""
        self._kubernetes = kubernetes

    def pod(self) -> Object:
        """Return its pod, once there is exactly one and it is ready."""
        pods = eventually(
            lambda: self._kubernetes.list("Pod", SYSTEM_NAMESPACE, _LABELS),
            lambda found: len(found) == 1 and _ready(found[0]),
            within=_SECONDS_TO_RETURN,
            what="one operator is ready",
            told=lambda found: [pod["status"] for pod in found],
        )
        return pods[0]

    def kill(self) -> None:
        """End its process by SIGKILL where this machine runs it, else its pod without any grace; see that it ended."""
        pod = self.pod()
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        processes = _processes(uid)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if not processes:
            self._kubernetes.delete("Pod", name, SYSTEM_NAMESPACE, at_once=True)
        before = _restarts(pod)

        def ended() -> bool:
            found = self._kubernetes.get("Pod", name, SYSTEM_NAMESPACE)
            return (
                found is None
                or found["metadata"]["uid"] != uid
                or _restarts(found) > before
                or not _ready(found)
            )

        eventually(ended, within=30, what="the operator was killed")

    def log(self, lines: int = 40) -> str:
        """Return the end of its log, before a restart too."""
        pods = self._kubernetes.list("Pod", SYSTEM_NAMESPACE, _LABELS)
        return "\n".join(
            self._kubernetes.log(pod["metadata"]["name"], SYSTEM_NAMESPACE, tail=lines) for pod in pods
        )

    def image(self) -> str:
        """Return the image that its Deployment names."""
        found = self._kubernetes.get("Deployment", OPERATOR, SYSTEM_NAMESPACE)
        assert found is not None
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


def another_build(
    cluster: Cluster, folder: Path, version: str, changes: Mapping[str, Mapping[str, str]]
) -> str:
    """Build an operator from changed sources, load it and return its reference; each changed text must be there."""
    for part in ("operator", "requirements"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    _change(folder / "operator/pyproject.toml", {'version = "0.1.0"': f'version = "{version}"'})
    for path, replacements in changes.items():
        _change(folder / "operator/src/rollway_operator" / path, replacements)
    (archive,) = build_images(["operator"], root=folder).values()
    (reference,) = cluster.load_images([archive]).values()
    return reference


def _change(path: Path, replacements: Mapping[str, str]) -> None:
    text = path.read_text()
    for old, new in replacements.items():
        assert text.count(old) == 1, f"{path} holds {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    path.write_text(text)


def _ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return "deletionTimestamp" not in pod["metadata"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def _restarts(pod: Object) -> int:
    return sum(container["restartCount"] for container in pod["status"].get("containerStatuses", []))


def _processes(uid: str) -> list[int]:
    """The operator's processes on this machine: those of the pod's control group that run it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            groups = (folder / "cgroup").read_text().replace("_", "-")
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"pod{uid}" in groups and b"rollway_operator" in command:
            found.append(int(folder.name))
    return found
