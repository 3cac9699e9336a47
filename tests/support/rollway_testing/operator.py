"""The operator as tests treat it: looked at from outside, and killed without warning."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

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

    @contextlib.contextmanager
    def replicas(self, count: int) -> Iterator[None]:
        """Run so many of it for a while: none, or a standby beside it."""
        try:
            self._scale(count)
            yield
        finally:
            self._scale(1)

    def _scale(self, replicas: int) -> None:
        self._kubernetes.scale("Deployment", OPERATOR, SYSTEM_NAMESPACE, replicas)
        eventually(
            lambda: self._kubernetes.list("Pod", SYSTEM_NAMESPACE, _LABELS),
            lambda pods: len(pods) == replicas and all(map(_ready, pods)),
            within=_SECONDS_TO_RETURN,
            what=f"{replicas} operators are ready",
            told=lambda pods: [pod["status"] for pod in pods],
        )

    def leader(self) -> str:
        """Return the name of the pod that holds the Lease."""
        lease = self._kubernetes.get("Lease", OPERATOR, SYSTEM_NAMESPACE)
        return str((lease or {}).get("spec", {}).get("holderIdentity") or "")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[str]:
        """Stop the leader's process by SIGSTOP, and let it go on at the end; gives its pod's name."""
        name = self.leader()
        pod = self._kubernetes.get("Pod", name, SYSTEM_NAMESPACE)
        assert pod is not None, f"the holder {name!r} is no pod"
        processes = _processes(pod["metadata"]["uid"])
        assert processes, "the leader does not run on this machine"
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield name
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def replace(self, image: str) -> None:
        """Run another image, and return when its pod is the only one."""
        container = {"name": "operator", "image": image}
        changes = {"spec": {"template": {"spec": {"containers": [container]}}}}
        self._kubernetes.patch("Deployment", OPERATOR, SYSTEM_NAMESPACE, changes, strategic=True)
        eventually(
            lambda: [container["image"] for container in self.pod()["spec"]["containers"]],
            lambda images: images == [image],
            within=_SECONDS_TO_RETURN,
            what=f"{image} runs",
        )

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
