"""A pretended cluster in memory, for the operator's pure modules: it carries out Plans and plays kubelet.

It knows no API server: what apply.py and observe.py do with a real one is tested elsewhere. What it is for: thousands
of roll-outs a second, with a clock that the test owns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from rollway_operator import labels
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import (
    ArtifactSource,
    Failure,
    Fault,
    ModelVersion,
    Observed,
    Plan,
    Platform,
    Pod,
    Resolution,
    Runtime,
    StoredRevision,
)
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
    UNFETCHABLE = "unfetchable"


def digest_of(version: str) -> str:
    """Give the digest that fetch computes over a version's artifacts."""
    return f"sha256:{int(version):064x}"


@dataclass
class World:
    """One ModelDeployment, its children and its pods; `tick` lets a second pass, `reconcile` runs one pass."""

    spec: dict[str, Any] = field(default_factory=lambda: {"model": {"name": "fraud", "alias": "champion"}})
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
        return Observed(
            now=self.now,
            revisions=tuple(
                stored_revision(o) for (kind, _), o in self.objects.items() if kind == "ControllerRevision"
            ),
            objects=dict(self.objects),
            pods=tuple(self.pods),
            golden=self.golden,
        )

    def platform(self) -> Platform:
        """Say what the administrator laid down."""
        return Platform(self.runtimes, toleration_keys=self.toleration_keys)

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
            if wanted != live:
                yield lambda key=key, wanted=wanted: self._put(key, wanted)
        for name, count in counts.items():
            live = self.objects.get(("Deployment", name))
            if live and live["spec"]["replicas"] != count:
                yield lambda live=live, count=count: live["spec"].update(replicas=count)
        for ref in decided.prunes:
            yield lambda ref=ref: self.objects.pop((ref.kind, ref.name), None)

    def _put(self, key: tuple[str, str], wanted: dict[str, Any]) -> None:
        if key == ("Service", "fraud"):
            before, after = self.serving, wanted["spec"]["selector"][labels.REVISION]
            if before != after:
                self.flips.append((after, self.ready(after)))
        self.objects[key] = wanted

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
        ready = nature is Nature.GOOD and age > 2
        since = pod.server_since or self.now
        return Pod(pod.name, pod.revision, ready, False, server_since=since, **told)  # type: ignore[arg-type]

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
        return live["spec"]["selector"][labels.REVISION] if live else None

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
