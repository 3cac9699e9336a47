"""A cluster in memory, as the kubectl plugin sees one, and ModelDeployments in every situation that it shows."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from kubectl_rollway.cluster import Complaint, Object, Place
from kubectl_rollway.errors import NotFoundError, PluginError
from kubectl_rollway.session import Surroundings

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def ago(**duration: float) -> str:
    """Write the time that was so long before NOW."""
    return (NOW - timedelta(**duration)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class FakeCluster:
    """Answers from what it holds; an operator may act whenever something is written."""

    objects: dict[str, Object] = field(default_factory=dict)
    stored: list[Object] = field(default_factory=list)
    running: list[Object] = field(default_factory=list)
    told: list[Object] = field(default_factory=list)
    against: list[Complaint] = field(default_factory=list)
    written: list[tuple[str, str]] = field(default_factory=list)
    operator: Callable[["FakeCluster", str, str], None] = lambda _, __, ___: None
    """What happens once an annotation is written: its verb and value are given."""
    script: list[Object | BaseException] = field(default_factory=list)
    """What the next looks at a ModelDeployment find; the last one stays."""
    forbids: dict[str, PluginError] = field(default_factory=dict)
    """Questions that are answered by an error."""
    namespace: str = "team-a"
    kinds: dict[tuple[str, str], list[Object]] = field(default_factory=dict)
    """Objects by the plural of their kind and the label selector that they are asked for with."""
    services: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    """What Services answer, by namespace, name and path with its query."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def add(self, body: Object) -> "FakeCluster":
        """Hold a ModelDeployment."""
        self.objects[body["metadata"]["name"]] = body
        return self

    def surroundings(self) -> Surroundings:
        """Give what the command line runs in: this cluster, and a clock that sleeping moves."""
        clock = Clock()
        return Surroundings(self._connect, lambda: NOW, clock.read, clock.sleep)

    def _connect(self, place: Place) -> "FakeCluster":
        if place.context == "broken":
            raise self.forbids["connect"]
        return self

    def _ask(self, what: str, namespace: str | None) -> None:
        self.asked.append((what, namespace))
        if error := self.forbids.get(what.split(maxsplit=1)[0]):
            raise error

    def deployments(self, namespace: str | None) -> list[Object]:
        """List those of a namespace, or all."""
        self._ask("deployments", namespace)
        found = self.objects.values()
        return [one for one in found if namespace in (None, one["metadata"]["namespace"])]

    def deployment(self, namespace: str, name: str) -> Object:
        """Give the next of the script, or the one of that name."""
        self._ask("deployment", namespace)
        if self.script:
            found = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if isinstance(found, BaseException):
                raise found
            return copy.deepcopy(found)
        if name not in self.objects or self.objects[name]["metadata"]["namespace"] != namespace:
            raise NotFoundError(f'modeldeployments.rollway.dev "{name}" not found')
        return copy.deepcopy(self.objects[name])

    def revisions(self, namespace: str, name: str) -> list[Object]:
        """List all that is stored."""
        self._ask(f"revisions of {name}", namespace)
        return self.stored

    def pods(self, namespace: str, name: str) -> list[Object]:
        """List all that runs."""
        self._ask(f"pods of {name}", namespace)
        return self.running

    def events(self, namespace: str, name: str) -> list[Object]:
        """List all that was told."""
        self._ask(f"events of {name}", namespace)
        return self.told

    def annotate(self, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Write, and let the operator act."""
        self._ask(f"annotate {name}", namespace)
        for key, value in annotations.items():
            self.written.append((key, value))
            self.operator(self, key.removeprefix("rollway.dev/"), value)

    def complaints(self, manifest: Object) -> list[Complaint]:
        """Say what is held against every manifest."""
        self._ask(f"complaints of {manifest['kind']}", None)
        return self.against

    def namespaces(self) -> list[str]:
        """List two."""
        self._ask("namespaces", None)
        return ["team-a", "team-b"]

    def listed(
        self, root: str, plural: str, namespace: str | None = None, **selectors: str
    ) -> list[Object] | None:
        """List what it holds of a kind; by selector that of `metadata.name` is looked at alone."""
        self._ask(plural, namespace)
        assert root.startswith("/api")
        _, _, name = selectors.get("fieldSelector", "").partition("=")
        found = self.kinds.get((plural, selectors.get("labelSelector", "")))
        return found and [one for one in found if name in ("", one["metadata"]["name"])]

    def through(self, namespace: str, service: str, path: str, query: Mapping[str, str]) -> Object:
        """Answer as a Service does."""
        self._ask("through", namespace)
        return self.services[
            namespace, service, f"{path}?{'&'.join('='.join(each) for each in query.items())}"
        ]


class Clock:
    """Goes on only where somebody sleeps."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def read(self) -> float:
        """Give the time."""
        return self._seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds


def hearing(says: str, *, acts: bool = True) -> Callable[[FakeCluster, str, str], None]:
    """Make an operator that hears everything, and acts or does not."""

    def operator(cluster: FakeCluster, verb: str, value: str) -> None:
        for body in cluster.objects.values():
            body["status"].setdefault("lastHandled", {})[verb] = value
        reason = "VerbHandled" if acts else "VerbIgnored"
        message = f"rollway.dev/{verb}: {value}: {says if acts else f'ignored: {says}'}"
        cluster.told.append({"reason": reason, "message": message})

    return operator


# --------------------------------------------------------------------------------------------------- what it holds


def deployment(status: Mapping[str, Any] | None = None, *, name: str = "fraud", **spec: Any) -> Object:
    """Make the ModelDeployment `fraud` of team-a."""
    whole = {
        "model": {"name": "fraud-detector", "alias": "champion"},
        "predictor": {"runtime": "mlserver"},
    } | spec
    metadata = {"namespace": "team-a", "name": name, "generation": 4, "creationTimestamp": ago(days=3)}
    kind = {
        "apiVersion": "rollway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata,
        "spec": whole,
    }
    return kind | ({"status": {"observedGeneration": 4, **status}} if status is not None else {})


def condition(type_: str, status: str, reason: str, message: str, **since: float) -> Object:
    """Make a condition."""
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 4,
        "lastTransitionTime": ago(**since or {"days": 3}),
    }


READY = condition("Ready", "True", "PodsReady", "v12: 2 of 2 pods ready")
RESOLVED = condition("ModelResolved", "True", "Resolved", "champion is v12")
MODEL = {
    "name": "fraud-detector",
    "alias": "champion",
    "targetVersion": "13",
    "targetRevision": "fraud-8d1a22c0",
    "targetSince": ago(minutes=12),
}
STABLE = {
    "revision": "fraud-7c9f0a1b",
    "version": "12",
    "runId": "a1b2",
    "digest": "sha256:9f2c",
    "readyReplicas": 2,
    "promotedAt": ago(days=2, hours=3),
}
CANARY = {
    "revision": "fraud-8d1a22c0",
    "version": "13",
    "runId": "c3d4",
    "digest": "sha256:17ab",
    "readyReplicas": 1,
    "startedAt": ago(minutes=12),
}
PROMOTED_11 = {
    "revision": "fraud-55aa55aa",
    "version": "11",
    "outcome": "Promoted",
    "reason": "AnalysisSucceeded",
    "startedAt": ago(days=3),
    "finishedAt": ago(days=2, hours=20),
}
PROMOTED_12 = {
    "revision": "fraud-7c9f0a1b",
    "version": "12",
    "digest": "sha256:9f2c",
    "outcome": "Promoted",
    "reason": "AnalysisSucceeded",
    "startedAt": ago(days=2, hours=4),
    "finishedAt": ago(days=2, hours=3),
}
HISTORY = [PROMOTED_11, PROMOTED_12]


def at_rest() -> Object:
    """v12 serves and is what the registry names."""
    model = MODEL | {
        "targetVersion": "12",
        "targetRevision": "fraud-7c9f0a1b",
        "targetSince": ago(days=2, hours=4),
    }
    return deployment(
        {
            "phase": "Healthy",
            "message": "v12: 2 of 2 pods ready",
            "url": "https://models.example.com/seldon/team-a/fraud",
            "model": model,
            "stable": STABLE,
            "traffic": [_share("stable", 100)],
            "history": HISTORY,
            "conditions": [RESOLVED, READY],
        }
    )


def mid_step() -> Object:
    """v13 has a tenth of the traffic and is compared."""
    message = "canary v13 at 10 %, step 2/4: error-rate holds (412 samples)"
    return deployment(
        {
            "phase": "Progressing",
            "message": message,
            "model": MODEL,
            "stable": STABLE,
            "canary": CANARY
            | {
                "weight": 10,
                "currentStepIndex": 1,
                "stepStartedAt": ago(minutes=3, seconds=20),
                "stableReplicas": 2,
            },
            "traffic": [_share("stable", 90), _share("canary", 10)],
            "analysis": {
                "phase": "Running",
                "measuredAt": ago(seconds=4),
                "metricResults": [
                    {
                        "name": "error-rate",
                        "phase": "Successful",
                        "value": "0.001",
                        "interval": ["-0.004", "0.011"],
                        "threshold": "<= 0.02",
                        "samples": 412,
                    },
                    {
                        "name": "latency-p99",
                        "phase": "Inconclusive",
                        "threshold": "<= 1.5",
                        "samples": 31,
                        "reason": "TooFewSamples",
                        "message": "31 of 50 samples",
                    },
                ],
            },
            "history": HISTORY,
            "conditions": [
                RESOLVED,
                READY,
                condition("Reconciling", "True", "StepPaused", message, minutes=12),
            ],
        },
        strategy={
            "canary": {
                "steps": [{"setWeight": 10}, {"pause": {"duration": "5m"}}, {"setWeight": 50}, {"pause": {}}]
            }
        },
    )


def awaiting_person() -> Object:
    """v13 stands at a pause that only a person ends; the strategy is the default one."""
    body = mid_step()
    body["spec"]["strategy"] = {"canary": {"steps": [{"setWeight": 25}, {"pause": {}}]}}
    message = "v13 at 25 % waits for a person"
    body["status"] |= {
        "phase": "Paused",
        "message": message,
        "traffic": [_share("stable", 75), _share("canary", 25)],
        "conditions": [RESOLVED, READY, condition("Paused", "True", "PauseStep", message, minutes=3)],
    }
    body["status"]["canary"] |= {"weight": 25}
    return body


def rolled_back() -> Object:
    """v13 failed its analysis and is closed."""
    message = "canary error rate 7.2% (5.1-9.9%) exceeds stable 0.4% by more than 2%"
    closed = {
        "revision": "fraud-8d1a22c0",
        "version": "13",
        "reason": "AnalysisFailed",
        "message": message,
        "since": ago(minutes=2),
        "rejected": True,
    }
    ended = {
        "revision": "fraud-8d1a22c0",
        "version": "13",
        "outcome": "Aborted",
        "reason": "AnalysisFailed",
        "startedAt": ago(minutes=12),
        "finishedAt": ago(minutes=2),
    }
    return deployment(
        {
            "phase": "Degraded",
            "message": f"{message}; v12 serves",
            "model": MODEL | {"closed": closed},
            "stable": STABLE,
            "traffic": [_share("stable", 100)],
            "history": [*HISTORY, ended],
            "rejected": [
                {
                    "version": "13",
                    "uri": "s3://models/13",
                    "revision": "fraud-8d1a22c0",
                    "reason": "AnalysisFailed",
                    "time": ago(minutes=2),
                }
            ],
            "conditions": [
                RESOLVED,
                READY,
                condition("Stalled", "True", "AnalysisFailed", message, minutes=2),
            ],
        }
    )


def preview() -> Object:
    """v13 stands complete behind the preview Service and waits for a person."""
    message = "v13 can be previewed, and waits for a person"
    return deployment(
        {
            "phase": "Paused",
            "message": message,
            "model": MODEL,
            "stable": STABLE,
            "canary": CANARY | {"readyReplicas": 2, "stepStartedAt": ago(minutes=5)},
            "traffic": [_share("stable", 100)],
            "conditions": [
                RESOLVED,
                READY,
                condition("Paused", "True", "AwaitingPromote", message, minutes=5),
            ],
        },
        strategy={"blueGreen": {"autoPromotion": False}},
    )


def first() -> Object:
    """The first version is on its way, and nothing serves."""
    message = "v13: waiting for the first pod to be verified and pass its gates"
    return deployment(
        {
            "phase": "Progressing",
            "message": message,
            "model": MODEL,
            "canary": CANARY | {"readyReplicas": 0},
            "conditions": [
                condition("Ready", "False", "PodsNotReady", "no version serves yet", minutes=12),
                condition("Reconciling", "True", "CanaryNotReady", message, minutes=12),
            ],
        }
    )


def _share(tag: str, percent: int) -> Object:
    one = STABLE if tag == "stable" else CANARY
    return {"revision": one["revision"], "version": one["version"], "percent": percent, "tag": tag}


def revision(name: str, number: int, version: str, **notes: str) -> Object:
    """Make a ControllerRevision; its annotations are those of Rollway."""
    annotations = {f"rollway.dev/{key}": value for key, value in {"model-version": version, **notes}.items()}
    return {"metadata": {"name": name, "annotations": annotations}, "revision": number}


REVISIONS = [
    revision("fraud-8d1a22c0", 3, "13"),
    revision("fraud-55aa55aa", 1, "11", outcome="Promoted", served="true"),
    revision("fraud-7c9f0a1b", 2, "12", outcome="Promoted", served="true"),
]


def pod(name: str, of: str, *, ready: bool = True, restarts: int = 0, **status: Any) -> Object:
    """Make a pod of a revision."""
    return {
        "metadata": {"name": name, "labels": {"rollway.dev/revision": of}, "creationTimestamp": ago(hours=5)},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "server", "restartCount": restarts, "state": {"running": {}}}],
        }
        | status,
    }


def waiting_pod(name: str, of: str, reason: str = "PodInitializing") -> Object:
    """Make a pod whose init container runs, or waits for a reason."""
    init = {"name": "fetch", "restartCount": 0, "state": {"waiting": {"reason": reason}}}
    return pod(name, of, ready=False, phase="Pending", initContainerStatuses=[init], containerStatuses=[])


STABLE_PODS = [pod(f"fraud-7c9f0a1b-{end}", "fraud-7c9f0a1b") for end in ("k2x9p", "w8r4t")]
CANARY_POD = pod("fraud-8d1a22c0-m5n6b", "fraud-8d1a22c0", restarts=1)
