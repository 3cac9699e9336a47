"""A pretended cluster in memory, for the operator's pure modules: it carries out Plans and plays kubelet.

It knows no API server: what apply.py and observe.py do with a real one is tested elsewhere. What it is for: thousands
of roll-outs a second, with a clock that the test owns.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import inf
from typing import Any

from rollway_operator import labels, roles, traffic
from rollway_operator.analysis import Counters, Reading, Sample, Window
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import (
    ArtifactSource,
    Comparison,
    Failure,
    Fault,
    GatewayRef,
    ModelVersion,
    Observed,
    Plan,
    Platform,
    Pod,
    Resolution,
    Runtime,
    StoredRevision,
)
from rollway_operator.measurements import Measurement
from rollway_operator.observe import stored_revision
from rollway_operator.plan import plan

RUNTIME = Runtime(
    name="mlserver",
    image="rollway/mlserver@sha256:" + "0" * 64,
    fetch_command=("python", "-m", "rollway_serving.fetch"),
    http_port=8080,
    grpc_port=8081,
    metrics_port=8082,
    readiness_path="/v2/models/{name}/ready",
    liveness_path="/v2/health/live",
    drain_seconds=5,
)
SOURCE = ArtifactSource(prefix="s3://models/", credentials_secret_name="models-s3")


class Nature(StrEnum):
    """How the pods of a version behave."""

    GOOD = "good"
    BROKEN = "broken"
    CRASHING = "crashing"
    HANGING = "hanging"
    """Never becomes ready."""
    UNFETCHABLE = "unfetchable"
    INCOMPATIBLE = "incompatible"
    """Takes another column than the versions before."""
    ERRING = "erring"
    """Fails every fifth request."""
    SLOW = "slow"
    STALLING = "stalling"
    """Answers none of its callers' requests."""
    DYING = "dying"
    """Its server ends when callers ask it."""
    GREEDY = "greedy"
    """Uses more memory than it may when callers ask it."""
    FADING = "fading"
    """Is not ready any more once callers ask it."""


BEFORE_TRAFFIC = frozenset({Nature.BROKEN, Nature.CRASHING, Nature.HANGING, Nature.INCOMPATIBLE})
"""Bad versions that must never get traffic."""

BAD = BEFORE_TRAFFIC | {
    Nature.ERRING,
    Nature.SLOW,
    Nature.STALLING,
    Nature.DYING,
    Nature.GREEDY,
    Nature.FADING,
}
"""Versions that must never be promoted by themselves."""

HTTP_GATEWAY = GatewayRef("gateways", "http")
GRPC_GATEWAY = GatewayRef("gateways", "grpc")
_BOUNDS = (0.005, 0.01, 0.05, 0.1, inf)
_QUICK, _SLOW = 0.005, 0.1


def digest_of(version: str) -> str:
    """Give the digest that fetch computes over a version's artifacts."""
    return f"sha256:{int(version):064x}"


@dataclass
class World:
    """One ModelDeployment, its children and its pods; `tick` lets a second pass, `reconcile` runs one pass."""

    spec: dict[str, Any] = field(
        default_factory=lambda: {
            "model": {"name": "fraud", "alias": "champion"},
            "strategy": {"rollingUpdate": {}},
        }
    )
    natures: dict[str, Nature] = field(default_factory=dict)
    target: str | None = "1"
    trouble: str | None = None
    runtimes: dict[str, Runtime] = field(default_factory=lambda: {"mlserver": RUNTIME})
    toleration_keys: tuple[str, ...] = ()
    golden: str | None = None
    input_example: bool = True
    """Whether the versions ship an input example."""
    lacking: str | None = None
    """The version that lacks a tag which the spec requires."""
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    generation: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    ages: dict[str, int] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    flips: list[tuple[str, int]] = field(default_factory=list)
    """Each revision that the Service was newly pointed at, with the ready pods that it had then."""
    made: int = 0
    folder: str = "s3://models"
    """Where the registry says that the versions lie."""
    digests: dict[str, str] = field(default_factory=dict)
    """What fetch computes over a version where that is not `digest_of` it."""
    gateway: bool = False
    """Whether a Gateway splits the traffic; it takes a route over at the next tick."""
    gateway_api: bool = True
    monitoring_api: bool = True
    """Whether it knows monitors."""
    monitor_labels: Mapping[str, str] | None = field(
        default_factory=lambda: {"release": "kube-prometheus-stack"}
    )
    """Whether the API server knows routes."""
    rate: float = 0
    """Callers' requests a second."""
    client_errors: float = 0
    """Requests a second with the track header that the canary refuses as malformed."""
    window: Window = field(default_factory=Window)
    """What the operator remembers of the pods' numbers: it goes when the operator is killed."""
    measured: tuple[str, str] | None = None
    at_gateway: Window | None = None
    """What the Gateway counted of both while a canary has traffic; None where nobody asks it."""
    templates: dict[str, str] = field(default_factory=dict)
    """The administrator's queries."""
    answers: Measurement = field(default_factory=lambda: Measurement(0.0))
    """What each of them gives now."""
    asked: list[datetime] = field(default_factory=list)
    """When they were asked."""
    counters: dict[str, Counters] = field(default_factory=dict)
    owed: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    """Requests that came to each version."""
    failed: Counter[str] = field(default_factory=Counter)

    def serving_by(self, replicas: int) -> "World":
        """Ask for so many pods."""
        self.spec = {**self.spec, "predictor": {"replicas": replicas}}
        return self

    def deployment(self) -> ModelDeployment:
        """Give the object as the API server would."""
        return ModelDeployment.of(
            {
                "metadata": {
                    "name": "fraud",
                    "namespace": "team-a",
                    "uid": "u",
                    "generation": self.generation,
                    "annotations": self.annotations,
                },
                "spec": self.spec,
                "status": self.status,
            }
        )

    def edit(self, **parts: Any) -> None:
        """Change the spec, as `kubectl apply` would."""
        self.spec = {**self.spec, **parts}
        self.generation += 1

    def say(self, verb: str, revision: str | None, nonce: str = "") -> None:
        """Annotate, as `kubectl annotate --overwrite` would."""
        self.annotations[f"{labels.GROUP}/{verb}"] = f"{revision}/{nonce}" if nonce else str(revision)

    def resolution(self) -> Resolution:
        """Answer as the registry does now."""
        if self.trouble or self.target is None:
            return Resolution(self.trouble or "AliasNotFound", "the registry is in trouble")
        if self.target == self.lacking:
            return Resolution("TagMissing", f"v{self.target} is not approved", held_back=self.target)
        version = ModelVersion("fraud", self.target, f"run{self.target}", f"{self.folder}/{self.target}")
        return Resolution("Resolved", f"champion is v{self.target}", version, SOURCE)

    def observed(self) -> Observed:
        """Read everything, as observe.py would."""
        seen = Observed(
            now=self.now,
            revisions=tuple(
                stored_revision(o) for (kind, _), o in self.objects.items() if kind == "ControllerRevision"
            ),
            objects=dict(self.objects),
            pods=tuple(self.pods),
            golden=self.golden,
            served=frozenset(
                ({"HTTPRoute", "GRPCRoute"} if self.gateway_api else set())
                | ({"PodMonitor"} if self.monitoring_api else set())
            ),
        )
        deployment = self.deployment()
        return replace(
            seen,
            evidence=self._read(deployment),
            at_gateway=self.at_gateway if roles.measured(deployment) else None,
            compared=self._compared(deployment, seen),
            measurements=self._measured(deployment),
        )

    def _measured(self, deployment: ModelDeployment) -> dict[str, Measurement]:
        due = roles.due_metrics(deployment, self.now)
        self.asked += [self.now] * len(due)
        return {asked.name: self.answers for asked in due}

    def _read(self, deployment: ModelDeployment) -> Window | None:
        wanted = roles.measured(deployment)
        if wanted is None:
            self.measured = None
            return None
        if self.measured != (wanted.stable, wanted.canary):
            self.measured, self.window = (wanted.stable, wanted.canary), Window()
        sample = Sample(self._reading(wanted.stable), self._reading(wanted.canary))
        self.window = self.window.add(sample, wanted.step)
        return self.window

    def _reading(self, revision: str) -> Reading:
        pods = [pod for pod in self.pods if pod.revision == revision and pod.ready]
        return Reading(self.now, {pod.name: self.counters.get(pod.name, _fresh()) for pod in pods})

    def _compared(self, deployment: ModelDeployment, seen: Observed) -> Comparison | None:
        pods = roles.compared_pods(deployment, seen)
        if pods is None:
            return None
        versions = [self._version(pod.revision) for pod in pods]
        differ = [self.natures.get(version) is Nature.INCOMPATIBLE for version in versions]
        return Comparison("input 'income' (FP64) is required and was not there before" if differ[1] else None)

    def platform(self) -> Platform:
        """Say what the administrator laid down."""
        return Platform(
            self.runtimes,
            toleration_keys=self.toleration_keys,
            templates=self.templates,
            http_gateway=HTTP_GATEWAY if self.gateway else None,
            grpc_gateway=GRPC_GATEWAY if self.gateway else None,
            gateway_url="https://models.example.com" if self.gateway else None,
            monitor_labels=self.monitor_labels,
        )

    def plan(self) -> Plan:
        """Decide, and write nothing."""
        return plan(self.deployment(), self.resolution(), self.observed(), self.platform())

    def reconcile(self, writes: int | None = None) -> int:
        """Carry out one pass; with `writes` the operator is killed after so many. Gives the number written."""
        decided, done = self.plan(), 0
        for write in self._writes(decided):
            if writes is not None and done >= writes:
                return done
            write()
            done += 1
        if writes is not None and done <= writes:
            self.forget()
        self.events += [event.reason for event in decided.events]
        return done

    def _writes(self, decided: Plan) -> Any:
        counts = {scale.deployment: scale.replicas for scale in decided.scales}
        if decided.status != self.status:
            yield lambda: setattr(self, "status", decided.status)
        for desired in decided.objects:
            key = (desired["kind"], desired["metadata"]["name"])
            live = self.objects.get(key)
            wanted = dict(desired)
            if key[0] == "Deployment":
                replicas = live["spec"]["replicas"] if live else counts.get(key[1], 0)
                wanted["spec"] = {**wanted["spec"], "replicas": replicas}
            if live and key[0] in ("HTTPRoute", "GRPCRoute"):
                generation = live["metadata"]["generation"] + (wanted["spec"] != live["spec"])
                wanted["metadata"] = {**wanted["metadata"], "generation": generation}
                wanted["status"] = live["status"]
            if wanted != live:
                yield lambda key=key, wanted=wanted: self._put(key, wanted)
        for name, count in counts.items():
            live = self.objects.get(("Deployment", name))
            if live and live["spec"]["replicas"] != count:
                yield lambda live=live, count=count: live["spec"].update(replicas=count)
        for ref in decided.prunes:
            yield lambda ref=ref: self.objects.pop((ref.kind, ref.name), None)

    def _put(self, key: tuple[str, str], wanted: dict[str, Any]) -> None:
        if key[0] in ("HTTPRoute", "GRPCRoute"):
            wanted.setdefault("status", {})
            wanted["metadata"].setdefault("generation", 1)
        before = self.pointed()
        self.objects[key] = wanted
        self.flips += [(name, self.ready(name)) for name in self.pointed() - before]

    def pointed(self) -> set[str]:
        """Name every revision that some traffic is led to."""
        return {name for name, share in self.shares().items() if share}

    def shares(self) -> dict[str, float]:
        """Say which share of callers' requests each revision gets: by the route if there is one, else by the pods."""
        route = self.objects.get(("HTTPRoute", "fraud"))
        if route:
            weights = traffic.weights_of(route)
            return {name: weight / sum(weights.values()) for name, weight in weights.items()}
        live = self.objects.get(("Service", "fraud"))
        if live is None:
            return {}
        alone = live["spec"]["selector"].get(labels.REVISION)
        if alone:
            return {alone: 1.0}
        ready = Counter(pod.revision for pod in self.pods if pod.ready)
        return {name: count / ready.total() for name, count in ready.items()}

    def tick(self, seconds: int = 1) -> None:
        """Let time pass: pods that are wanted appear, fetch, become ready or fail; others go."""
        self.now += timedelta(seconds=seconds)
        wanted = {
            name: o["spec"]["replicas"] for (kind, name), o in self.objects.items() if kind == "Deployment"
        }
        kept: list[Pod] = []
        for name, count in wanted.items():
            here = [pod for pod in self.pods if pod.revision == name][:count]
            while len(here) < count:
                self.made += 1
                here.append(Pod(f"{name}-{self.made}", name, ready=False, terminating=False))
            kept += here
        self.pods = [self._grown(pod) for pod in kept]
        if self.rate or self.client_errors:
            self._requests_come(seconds)
        for kind, gateway in (("HTTPRoute", HTTP_GATEWAY), ("GRPCRoute", GRPC_GATEWAY)):
            if route := self.objects.get((kind, "fraud")):
                route["status"] = _taken(route, gateway)

    def _requests_come(self, seconds: int) -> None:
        for revision, share in self.shares().items():
            self.owed[revision] += self.rate * share * seconds  # type: ignore[assignment]
            count, ready = (
                int(self.owed[revision]),
                [pod for pod in self.pods if pod.revision == revision and pod.ready],
            )
            self.owed[revision] -= count
            version = self._version(revision)
            self.answered[version] += count
            if not ready:
                self.failed[version] += count
                continue
            for number, pod in enumerate(ready):
                part = count // len(ready) + (number < count % len(ready))
                if part:
                    self._asked(pod, version, part)
        canary = self.status.get("canary", {}).get("revision")
        for pod in [pod for pod in self.pods if pod.revision == canary and pod.ready][:1]:
            before = self.counters.get(pod.name, _fresh())
            refused = before.client_error + int(self.client_errors * seconds)
            self.counters[pod.name] = replace(before, client_error=refused)

    def _asked(self, pod: Pod, version: str, count: int) -> None:
        """Have a pod answer as its nature is."""
        nature, before = self.natures.get(version, Nature.GOOD), self.counters.get(pod.name, _fresh())
        if nature in (Nature.DYING, Nature.GREEDY):
            self.failed[version] += count
            self.counters[pod.name] = _fresh()
            self.ages[pod.name] = 0
            ended = replace(
                pod, ready=False, crashed_at=self.now, restarts=1, oom_killed=nature is Nature.GREEDY
            )
            self.pods[self.pods.index(pod)] = ended
            return
        if nature is Nature.STALLING:
            self.failed[version] += count
            self.counters[pod.name] = replace(before, in_progress=16)
            return
        errors = 0
        if nature is Nature.ERRING:
            errors = (before.judged + count) // 5 - before.judged // 5
        took = _SLOW if nature is Nature.SLOW else _QUICK
        buckets = {bound: n + (count if took <= bound else 0) for bound, n in before.buckets.items()}
        self.failed[version] += errors
        self.counters[pod.name] = replace(
            before,
            ok=before.ok + count - errors,
            server_error=before.server_error + errors,
            buckets=buckets,
        )
        if nature is Nature.FADING:
            self.pods[self.pods.index(pod)] = replace(pod, ready=False, unready_since=self.now)

    def forget(self) -> None:
        """Lose what only the operator's process remembers."""
        self.measured, self.window = None, Window()

    def _version(self, revision: str) -> str:
        stored = self.objects[("ControllerRevision", revision)]
        return str(stored["data"]["inputs"]["version"])

    def _grown(self, pod: Pod) -> Pod:
        age = self.ages[pod.name] = self.ages.get(pod.name, 0) + 1
        stored = self.objects[("ControllerRevision", pod.revision)]
        version = stored["data"]["inputs"]["version"]
        nature = self.natures.get(version, Nature.GOOD)
        if nature is Nature.UNFETCHABLE:
            failure = Failure("FetchFailed", "the store does not answer", Fault.NOBODY)
            return Pod(pod.name, pod.revision, ready=False, terminating=False, failure=failure)
        if age == 1:
            return pod
        told = {
            "digest": self.digests.get(version) or digest_of(version),
            "input_example": self.input_example,
        }
        if nature is Nature.BROKEN:
            failure = Failure("SmokeTestFailed", "NaN in row 0", Fault.MODEL)
            return Pod(pod.name, pod.revision, False, False, failure=failure, restarts=1, **told)  # type: ignore[arg-type]
        if nature is Nature.CRASHING:
            failure = Failure("ServerExited", "exit code 139", Fault.MODEL)
            return Pod(pod.name, pod.revision, False, False, failure=failure, restarts=age - 1, **told)  # type: ignore[arg-type]
        ready = nature is not Nature.HANGING and age > 2 and not pod.unready_since
        since = pod.server_since or self.now
        return replace(pod, ready=ready, server_since=since, **told)  # type: ignore[arg-type]

    def settles(self, seconds: int) -> bool:
        """Reconcile and tick for a while; tell whether a version serves and no other is on its way before its end."""
        for _ in range(seconds):
            self.reconcile()
            self.tick()
            if "canary" not in self.status and self.condition("Reconciling") is None:
                return True
        return False

    def settle(self, limit: int = 200) -> int:
        """Reconcile and tick until a pass writes nothing and nothing changes; gives the seconds it took."""
        for second in range(limit):
            before = list(self.pods)
            wrote = self.reconcile()
            self.tick()
            if not wrote and before == self.pods and not self.reconcile():
                return second
        raise AssertionError(f"not at rest after {limit} passes: {self.status}")

    # ----------------------------------------------------------------------------------------- what a caller would see

    @property
    def serving(self) -> str | None:
        """The revision that the Service points at."""
        live = self.objects.get(("Service", "fraud"))
        if live is None:
            return None
        alone: str | None = live["spec"]["selector"].get(labels.REVISION)
        return alone or str(live["metadata"]["annotations"][labels.STABLE])

    @property
    def served_version(self) -> str | None:
        """The model version that the Service points at."""
        name = self.serving
        return self.objects[("ControllerRevision", name)]["data"]["inputs"]["version"] if name else None

    def stored(self, revision: str | None) -> StoredRevision:
        """Read a revision's ControllerRevision."""
        return next(found for found in self.observed().revisions if found.name == revision)

    def ready(self, revision: str) -> int:
        """Count a revision's ready pods."""
        return sum(pod.ready for pod in self.pods if pod.revision == revision)

    def replicas(self, revision: str) -> int:
        """Read the count that a revision's Deployment asks for."""
        return int(self.objects[("Deployment", revision)]["spec"]["replicas"])

    def condition(self, type_: str) -> Mapping[str, Any] | None:
        """Find a condition in status."""
        return next((c for c in self.status.get("conditions", ()) if c["type"] == type_), None)


def _fresh() -> Counters:
    return Counters(buckets=dict.fromkeys(_BOUNDS, 0))


def _taken(route: Mapping[str, Any], gateway: GatewayRef) -> dict[str, Any]:
    """Give the status of a route that its Gateway has taken over."""
    conditions = [
        {"type": type_, "status": "True", "observedGeneration": route["metadata"]["generation"]}
        for type_ in ("Accepted", "ResolvedRefs")
    ]
    at = {"namespace": gateway.namespace, "name": gateway.name}
    return {"parents": [{"parentRef": at, "conditions": conditions}]}
