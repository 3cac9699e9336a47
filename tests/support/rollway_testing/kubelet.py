"""A pretended kubelet: no container runs, but model pods get the status that a node would have given them.

Each gets the address of a pretended pod (pods.py), which answers for it on the metrics port. Where a test says so,
callers ask: so many requests at each look, led to stable and canary as the live Service or route says.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from rollway_testing.gateways import PretendedGateway, weights_of
from rollway_testing.kubernetes import ApiError, Kubernetes
from rollway_testing.pods import SIGNATURE, PretendedPods, everybodys

Json = dict[str, Any]

_MODEL_POD: Final = "rollway.dev/model-deployment"
_REVISION: Final = "rollway.dev/revision"
_VERSION: Final = "app.kubernetes.io/version"
_QUICK, _SLOW = 0.01, 2.0
"""Seconds that a request takes."""
_WANTS_MORE: Final[Json] = {
    **SIGNATURE,
    "inputs": [*SIGNATURE["inputs"], {"name": "income", "type": "FP64", "shape": [-1], "required": True}],
}


class Nature(StrEnum):
    """How the pods of a version fare."""

    GOOD = "Good"
    WAITING = "Waiting"
    UNFETCHABLE = "FetchFailed"
    BROKEN = "SmokeTestFailed"
    CHANGED = "DigestMismatch"
    ALONE = "Alone"
    """The nodes have room for one of them."""
    INCOMPATIBLE = "Incompatible"
    """Takes a column that the versions before did not."""
    ERRING = "Erring"
    """Fails every fifth request."""
    SLOW = "Slow"
    STALLING = "Stalling"
    """Answers none of its callers' requests."""
    DYING = "Dying"
    """Its server ends when callers ask it."""
    GREEDY = "Greedy"
    """Uses more memory than it may when callers ask it."""
    FADING = "Fading"
    """Is not ready any more once callers asked it."""


class Node(Protocol):
    """What brings pods forward."""

    natures: dict[str, Nature]
    """By version, or by ModelDeployment and version: `iris/2`; good where none is told."""
    callers: dict[str, int]
    """How many requests come at each look, by ModelDeployment."""

    def step(self) -> None:
        """Look at every pod once."""


class RealNodes:
    """Nothing to pretend: kubelets run, and callers are real."""

    def __init__(self) -> None:
        self.natures: dict[str, Nature] = {}
        self.callers: dict[str, int] = {}

    def step(self) -> None:
        """Leave it to them."""


class Kubelet:
    """Gives every model pod of a namespace its status, by the nature of its version."""

    def __init__(self, api: Kubernetes, namespace: str, gateway: PretendedGateway | None = None) -> None:
        """Lead callers by the routes that a Gateway has taken, or else by the Services."""
        self._api = api
        self._namespace = namespace
        self._answering = everybodys()
        self._pods: dict[str, _Pod] = {}
        self._looks = 0
        self.natures: dict[str, Nature] = {}
        self.callers: dict[str, int] = {}
        self.lost: Counter[str] = Counter()
        """Requests that came to no ready pod, by ModelDeployment."""
        self.gateway = gateway

    def step(self) -> None:
        """Look at every pod once, write what changed, and let callers ask."""
        listed = {
            pod["metadata"]["uid"]: pod["metadata"]
            for pod in self._api.list("Pod", self._namespace)
            if _MODEL_POD in pod["metadata"]["labels"]
        }
        for uid in self._pods.keys() - listed.keys():
            self._pods.pop(uid).server.silent = True
        for uid, metadata in listed.items():
            if uid not in self._pods:
                self._pods[uid] = _Pod(metadata, self._answering)
            pod = self._pods[uid]
            pod.leaves = "deletionTimestamp" in metadata
            if not pod.leaves:
                self._tell(pod)
        if self.gateway:
            self.gateway.step()
        self._looks += 1
        if any(self.callers.values()):
            self._ask()

    def nature_of(self, pod: "_Pod") -> Nature:
        """Say how a pod fares."""
        of_version = self.natures.get(pod.version, Nature.GOOD)
        return self.natures.get(f"{pod.deployment}/{pod.version}", of_version)

    def _tell(self, pod: "_Pod") -> None:
        nature = self.nature_of(pod)
        if nature is Nature.ALONE and any(
            other.ready and other.revision == pod.revision
            for other in self._pods.values()
            if other is not pod
        ):
            status = pod.unplaced()
        else:
            status = pod.status(nature)
        if pod.told != status:
            # A pod that is gone since it was listed needs no status.
            with suppress(ApiError):
                self._api.set_status("Pod", pod.name, self._namespace, status)
            pod.told = status

    def _ask(self) -> None:
        """Have callers ask: the pods behind a Service in turn, or by the weights of a route."""
        kind = "HTTPRoute" if self.gateway else "Service"
        found = {item["metadata"]["name"]: item for item in self._api.list(kind, self._namespace)}
        for name, requests in self.callers.items():
            for pods, share in self._shares(name, found[name]) if name in found else ():
                count, number = round(requests * share), len(pods)
                self.lost[name] += 0 if pods else count
                for place, pod in enumerate(pods):
                    over = (place + self._looks) % number < count % number
                    pod.asked(count // number + over, self.nature_of(pod))

    def _shares(self, name: str, found: Json) -> Sequence[tuple[list["_Pod"], float]]:
        ready = [
            pod for pod in self._pods.values() if pod.deployment == name and pod.ready and not pod.leaves
        ]
        if self.gateway:
            weights = weights_of(found)
            whole = sum(weights.values())
            return [
                ([pod for pod in ready if pod.revision == revision], weight / whole)
                for revision, weight in weights.items()
            ]
        alone = found["spec"]["selector"].get(_REVISION)
        return [([pod for pod in ready if alone in (None, pod.revision)], 1.0)]


class _Pod:
    """One pod as its node knows it."""

    def __init__(self, metadata: Mapping[str, Any], answering: PretendedPods) -> None:
        labels = metadata["labels"]
        self.name: str = metadata["name"]
        self.deployment: str = labels[_MODEL_POD]
        self.revision: str = labels[_REVISION]
        self.version: str = labels[_VERSION]
        self.address = answering.address_of(metadata["uid"])
        self.server = answering.of(metadata["uid"])
        self.told: Json = {}
        self.leaves = False
        self._since = _now()
        self._running_since: str | None = None
        self._ready_since: tuple[bool, str] = False, self._since
        self._restarts = 0
        self._ended: Json | None = None
        self._down = False
        self._faded = False

    @property
    def ready(self) -> bool:
        """Whether it was ready at the last look."""
        return self._ready_since[0]

    def asked(self, count: int, nature: Nature) -> None:
        """Answer so many requests, or end, or fade, as its nature is."""
        if not count:
            return
        if nature in (Nature.DYING, Nature.GREEDY):
            code, reason = (139, "Error") if nature is Nature.DYING else (137, "OOMKilled")
            self._ended = {"exitCode": code, "reason": reason, "finishedAt": _now()}
            self._down = True
            self._restarts += 1
            self._ready_since = False, _now()
            self.server.restart()
        elif nature is Nature.STALLING:
            self.server.hold(count)
        else:
            errors = sum(number % 5 == 0 for number in range(count)) if nature is Nature.ERRING else 0
            seconds = _SLOW if nature is Nature.SLOW else _QUICK
            self.server.answer(ok=count - errors, errors=errors, seconds=seconds)
        self._faded |= nature is Nature.FADING

    def unplaced(self) -> Json:
        """Say that no node has room for it."""
        why = {"reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}
        placed = {"type": "PodScheduled", "status": "False", "lastTransitionTime": self._since, **why}
        return {"phase": "Pending", "conditions": [placed]}

    def status(self, nature: Nature) -> Json:
        """Say what a node says of it; a server that ended is up again at the look after."""
        fetched = {"digest": digest_of(self.version), "files": 3, "bytes": 300, "inputExample": True}
        failed = {"reason": str(nature), "message": f"as version {self.version} does"}
        if nature is Nature.WAITING:
            return self._told_of(fetch=_running(self._since), server=_waiting("PodInitializing"))
        if nature in (Nature.UNFETCHABLE, Nature.CHANGED):
            return self._told_of(fetch=_crashed(failed), server=_waiting("PodInitializing"))
        if nature is Nature.BROKEN:
            return self._told_of(fetch=_ended(fetched), server=_crashed(failed))
        self.server.signature = _WANTS_MORE if nature is Nature.INCOMPATIBLE else SIGNATURE
        if self._down:
            self._down, self._running_since = False, None
            ended = {"state": {"terminated": self._ended}, "restartCount": self._restarts}
            return self._told_of(fetch=_ended(fetched), server=ended)
        self._running_since = self._running_since or _now()
        server = _running(self._running_since) | {"restartCount": self._restarts, "started": True}
        if self._ended:
            server["lastState"] = {"terminated": self._ended}
        return self._told_of(fetch=_ended(fetched), server=server, ready=not self._faded)

    def _told_of(self, fetch: Json, server: Json, *, ready: bool = False) -> Json:
        if ready != self.ready:
            self._ready_since = ready, _now()
        always = (("PodReadyToStartContainers", True), ("PodScheduled", True))
        conditions = [
            *((type_, holds, self._since) for type_, holds in always),
            ("Initialized", "terminated" in fetch["state"], self._since),
            ("Ready", *self._ready_since),
            ("ContainersReady", *self._ready_since),
        ]
        container: Json = {
            "image": "rollway/mlserver",
            "imageID": "sha256:0",
            "ready": False,
            "restartCount": 0,
            "started": False,
        }
        return {
            "phase": "Running" if server.get("started") or self._ended else "Pending",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self._since,
            "conditions": [
                {"type": type_, "status": str(holds), "lastTransitionTime": since}
                for type_, holds, since in conditions
            ],
            "initContainerStatuses": [container | {"name": "fetch"} | fetch],
            "containerStatuses": [container | {"name": "server", "ready": ready} | server],
        }


def digest_of(version: str) -> str:
    """Give the digest of a version's artifacts."""
    return f"sha256:{hashlib.sha256(version.encode()).hexdigest()}"


def _now() -> str:
    """Give the time as Kubernetes writes it: whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _waiting(reason: str) -> Json:
    return {"state": {"waiting": {"reason": reason}}}


def _running(since: str) -> Json:
    return {"state": {"running": {"startedAt": since}}}


def _ended(message: Json) -> Json:
    return {"state": {"terminated": _termination(0, message)}}


def _crashed(message: Json) -> Json:
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    return {"state": waiting, "lastState": {"terminated": _termination(1, message)}, "restartCount": 1}


def _termination(code: int, message: Json) -> Json:
    reason = "Completed" if code == 0 else "Error"
    return {"exitCode": code, "reason": reason, "message": json.dumps(message)}
