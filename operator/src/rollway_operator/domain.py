"""The values that one pass hands from module to module; all frozen, none acts.

    resolve ──► Resolution      what the registry says the model is
    observe ──► Observed        what the cluster holds, and the time
    rollout ──► Decision        which step next, and why
    plan    ──► Plan            the gap between desired and observed, as data

A *revision* is everything that its pods see. *Stable* serves; the *candidate* (the API calls it canary) is on its way
to replace it. Both are roles of revisions, never names.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from rollway_operator.analysis import Window
from rollway_operator.measurements import Measurement

Object = Mapping[str, Any]
"""A Kubernetes object as the API server's JSON has it."""


def timestamp(moment: datetime) -> str:
    """Write a time as the Kubernetes API does: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Key:
    """The name of one ModelDeployment."""

    namespace: str
    name: str


# ------------------------------------------------------------------------------------------------- the registry's side


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model, as the registry knows it."""

    name: str
    version: str
    run_id: str
    uri: str
    """The download URI: where the version's artifacts are, checked against the registry's prefixes."""


@dataclass(frozen=True)
class ArtifactSource:
    """How `fetch` reaches the artifacts under one prefix of a ModelRegistry."""

    prefix: str
    endpoint: str | None = None
    region: str | None = None
    credentials_secret_name: str | None = None
    tracking_uri: str | None = None
    """The tracking server, where artifacts come through it (`mlflow-artifacts:/`)."""
    role_arn: str | None = None
    """The AWS role that `fetch` assumes instead of showing credentials."""
    sts_endpoint: str | None = None
    ca_bundle_name: str | None = None
    """ConfigMap of the ModelDeployment's namespace whose key ca.crt `fetch` trusts."""
    egress: tuple[Object, ...] = ()
    """Rules of a NetworkPolicy for what `fetch` connects to; none means the endpoint's port."""


@dataclass(frozen=True)
class Resolution:
    """What the registry answered for one ModelDeployment: a version, or the reason why there is none."""

    reason: str
    """A condition reason: Resolved, AliasNotFound, VersionNotFound, RegistryUnreachable, …"""
    message: str
    version: ModelVersion | None = None
    source: ArtifactSource | None = None
    confirmed: bool = True
    """False while a changed target was read only once: rollout.md rule 2 wants it twice, 5 s apart."""
    held_back: str | None = None
    """The version that is meant but may not be taken, since it lacks a tag that the spec requires."""
    poll_in: timedelta = timedelta(seconds=30)
    """When the registry is worth asking again."""


# -------------------------------------------------------------------------------------------------- the cluster's side


@dataclass(frozen=True)
class Runtime:
    """An inference server as the administrator defined it in the chart's values."""

    name: str
    image: str
    fetch_command: tuple[str, ...]
    http_port: int
    grpc_port: int
    metrics_port: int
    readiness_path: str
    liveness_path: str
    drain_seconds: float
    server_command: tuple[str, ...] = ()
    """What the server's container runs; empty leaves it to the image."""
    pre_stop_seconds: int = 0
    """How long a pod told to stop sleeps first, for a server that cannot drain by itself."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets of the ModelDeployment's namespace."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """What the server refuses beyond, as it stands in settings.json; what is left out has the server's default."""
    batching: bool = False
    """Whether the server can put requests that arrive together into one prediction."""


@dataclass(frozen=True)
class GatewayRef:
    """A Gateway that models are reached through: all of its listeners, or the one that `section` names."""

    namespace: str
    name: str
    section: str | None = None


@dataclass(frozen=True)
class Platform:
    """What the administrator laid down, in the chart's values, for every model."""

    runtimes: Mapping[str, Runtime]
    cluster_domain: str = "cluster.local"
    namespace: str = "rollway-system"
    """The operator's own, from which it may reach every model."""
    prometheus_namespaces: tuple[str, ...] = ()
    gateway_namespaces: tuple[str, ...] = ()
    toleration_keys: tuple[str, ...] = ()
    """Keys of taints that models may tolerate."""
    http_gateway: GatewayRef | None = None
    """Where REST comes in; None leaves weights to the counts of pods."""
    grpc_gateway: GatewayRef | None = None
    gateway_url: str | None = None
    """What the addresses in status begin with, without a slash at the end."""
    permitted_hosts: tuple[str, ...] = ()
    """Patterns of the host names that models may ask for; `{namespace}` stands for the model's own."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Queries that metrics may name, as the administrator wrote them."""
    monitor_labels: Mapping[str, str] | None = None
    """What the PodMonitors of models carry, so that a Prometheus selects them; None makes no PodMonitors."""

    @property
    def gateways(self) -> Mapping[str, GatewayRef]:
        """The Gateways by the kind of route that leads to a model there; empty leaves weights to counts of pods."""
        named = {"HTTPRoute": self.http_gateway, "GRPCRoute": self.grpc_gateway}
        return {kind: gateway for kind, gateway in named.items() if gateway}

    @property
    def optional_kinds(self) -> frozenset[str]:
        """The kinds that models have here where the API server knows them."""
        return frozenset(self.gateways) | ({"PodMonitor"} if self.monitor_labels is not None else frozenset())

    @property
    def has_gateway(self) -> bool:
        """Whether a Gateway splits the traffic."""
        return bool(self.gateways)


class Fault(StrEnum):
    """Whose fault a failing pod is: the model's closes the version, nobody's is waited out (rollout.md rule 7)."""

    MODEL = "Model"
    NOBODY = "Nobody"


@dataclass(frozen=True)
class Failure:
    """Why a pod does not become ready, in a reason and one sentence."""

    reason: str
    message: str
    fault: Fault


@dataclass(frozen=True)
class Pod:
    """One model pod, read from its status and its containers' termination messages."""

    name: str
    revision: str
    ready: bool
    terminating: bool
    server_since: datetime | None = None
    """Since when the server container runs (it may not be ready yet); None while it does not."""
    restarts: int = 0
    """Restarts of the server container."""
    oom_killed: bool = False
    crashed_at: datetime | None = None
    """When the server container ended last."""
    unready_since: datetime | None = None
    """Since when its kubelet calls it unready although it had been ready; None where it is, or never was."""
    address: str | None = None
    """Its IP address, once it has one."""
    uid: str = ""
    digest: str | None = None
    """What `fetch` computed over the artifacts in this pod; None until it has."""
    input_example: bool | None = None
    """Whether the model ships an input example; None until `fetch` has said."""
    environment: str | None = None
    """Which of the model's requirements the image does not meet; None where it meets them or nobody compared."""
    failure: Failure | None = None


PROMOTED = "Promoted"
"""The outcome of a revision that serves or served; every other outcome closes the revision."""

ABORTED = "Aborted"
UNDONE = "Undone"
BY_PERSON = frozenset({ABORTED, UNDONE})
"""Outcomes that a person gave: a changed spec does not open these again."""


KEY_LENGTH = 2048


@dataclass(frozen=True)
class Closing:
    """What is known of a closed revision beside the reason (docs/adr/0009)."""

    since: datetime | None = None
    rejected: bool = True
    """The model's fault: still closed when the target moves away and back."""
    instead: str | None = None
    """The revision that a person went back to; None leaves that to stable."""
    under: str | None = None
    """The key of what the registry named then: when it names something else, what is not rejected opens."""
    weight: int | None = None
    """Percent of the traffic that it had; None where it never had any."""


@dataclass(frozen=True)
class StoredRevision:
    """A revision as its ControllerRevision holds it: the inputs, and what was rendered from them once."""

    name: str
    number: int
    """ControllerRevision's `revision`: grows by one with each new revision."""
    inputs: Mapping[str, Any]
    template: Mapping[str, Any]
    """The pod template, rendered once and re-asserted from here."""
    settings: Mapping[str, Any]
    """What the server reads from the revision's ConfigMap (settings.json)."""
    digest: str | None = None
    outcome: str | None = None
    """None while open; otherwise the reason that closed it, or Promoted."""
    outcome_message: str = ""
    closing: Closing | None = None
    """More about why it is closed; None while it is not."""
    promoted: bool = False
    """It has served: people may go back to it, and nothing takes its pin away."""

    @property
    def version(self) -> str:
        """The model version that this revision serves."""
        return str(self.inputs["version"])

    @property
    def key(self) -> str:
        """What is closed and rejected: the version, and where its artifacts lie."""
        return f"{self.version} {self.inputs['uri']}"[:KEY_LENGTH]

    @property
    def closed(self) -> bool:
        """Whether it is not tried again by itself."""
        return self.outcome not in (None, PROMOTED)

    @property
    def closed_by_person(self) -> bool:
        """Whether a person closed it."""
        return self.outcome in BY_PERSON

    @property
    def rejected(self) -> bool:
        """Whether it was closed for the model's own fault."""
        return self.closed and (self.closing or Closing()).rejected


@dataclass(frozen=True)
class Standing:
    """What holds from earlier passes beside the roles: each revision's fate, and what persons said."""

    fates: Mapping[str, StoredRevision]
    """Every revision by name, with what is known of it now."""
    paused: bool = False
    """Held by the verb `pause`."""
    approved: str | None = None
    """The revision that a person let go on."""
    restart: str | None = None
    """The nonce of a restart whose revision is not stored yet."""
    acknowledged: bool = False
    """A person has seen why the target is closed."""
    rebuilt: str | None = None
    """Why a person must look at what was rebuilt before anything goes on."""
    leaves: bool = False
    """A person says in this pass that the candidate leaves its step, or what holds it."""
    skips: bool = False
    """A person says in this pass that the candidate goes to the end of its steps."""
    handled: Mapping[str, str] = field(default_factory=dict)
    """The last value of each verb that was handled."""


@dataclass(frozen=True)
class Comparison:
    """How the candidate's signature compares with stable's."""

    problem: str | None = None
    """What a client of stable's could not do with the candidate; None where it can do all."""
    unknown: str | None = None
    """Why it is not known yet; None where it is."""


Versions = Set[tuple[str, str]]
"""Uid and resourceVersion of objects."""


@dataclass(frozen=True)
class Observed:
    """The cluster's side of one ModelDeployment, read once; the only place where a pass knows the time."""

    now: datetime
    revisions: tuple[StoredRevision, ...] = ()
    objects: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    """Live children by (kind, name): those of the kinds in a Plan that carry our owner reference."""
    pods: tuple[Pod, ...] = ()
    refusals: Mapping[str, Failure] = field(default_factory=dict)
    """Why the cluster refuses to make a revision's pods (quota, admission), by revision."""
    autoscaled: Set[str] = frozenset()
    """The revisions whose Deployment is the target of an autoscaler."""
    golden: str | None = None
    """The text under golden.json in the ConfigMap that the smoke test names; None where there is none."""
    served: Set[str] = frozenset()
    """The kinds that the API server knows beyond Kubernetes' own, such as HTTPRoute and PodMonitor."""
    evidence: Window | None = None
    """What was read of stable's and the candidate's pods since the candidate has traffic."""
    at_gateway: Window | None = None
    """What the Gateway counted of both meanwhile; None where nobody asks it."""
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    """What the administrator's queries gave in this pass, of those that were due, by metric."""
    compared: Comparison | None = None
    """How the candidate's signature compares with stable's; None where nothing is to be compared yet."""
    versions: Versions = frozenset()
    """Which versions of the objects this was read from: while they are the same, so is all but time and golden data."""

    def count(self, revision: str | None, asked: int) -> int:
        """Say how many pods serve a revision if `asked` are asked for: an autoscaler that runs knows better."""
        live = self.objects.get(("Deployment", revision or ""), {}).get("spec", {}).get("replicas", 0)
        return live if live and revision in self.autoscaled else asked

    def of(self, revision: str) -> tuple[Pod, ...]:
        """Give the pods of one revision."""
        return tuple(pod for pod in self.pods if pod.revision == revision)


@dataclass(frozen=True)
class Track:
    """One revision with its pods."""

    revision: StoredRevision
    pods: tuple[Pod, ...] = ()
    refusal: Failure | None = None
    """Why the cluster refuses to make its pods, if it does."""

    @property
    def staying(self) -> tuple[Pod, ...]:
        """The pods that are not on their way out."""
        return tuple(pod for pod in self.pods if not pod.terminating)

    @property
    def pin(self) -> str | None:
        """The digest that every pod must show: the stored one, or the first that a pod computed."""
        return self.revision.digest or next((pod.digest for pod in self.staying if pod.digest), None)

    @property
    def ready(self) -> int:
        """How many pods may take traffic: ready, staying, and with the pinned artifacts."""
        return sum(pod.ready and not pod.terminating and pod.digest == self.pin for pod in self.pods)

    @property
    def failure(self) -> Failure | None:
        """Why pods do not become ready, or are not made: a model's fault before nobody's."""
        failures = [pod.failure for pod in self.pods if pod.failure and not pod.terminating]
        return min(failures, key=lambda failure: failure.fault is not Fault.MODEL, default=self.refusal)


# ---------------------------------------------------------------------------------------------- the decision


class Action(StrEnum):
    """What a decision does with the candidate."""

    HOLD = "Hold"
    START = "Start"
    EXPAND = "Expand"
    ADVANCE = "Advance"
    """Give it its next weight, or begin the promotion."""
    PROMOTE = "Promote"
    ABORT = "Abort"
    CANCEL = "Cancel"
    """Drop the candidate because the target moved; nothing is closed."""


class Awaited(StrEnum):
    """What a decision that holds waits for."""

    PODS = "Pods"
    TIME = "Time"
    EVIDENCE = "Evidence"
    PERSON = "Person"


@dataclass(frozen=True)
class Held:
    """Why a candidate that failed waits for a person instead of being aborted."""

    reason: str
    message: str


@dataclass(frozen=True)
class Progress:
    """How far a candidate has come on the way that its strategy lays down."""

    weight: int = 0
    """Percent of the traffic that it shall have."""
    index: int = 0
    """The entry of the canary's steps that is carried out."""
    steps: str = ""
    """Which steps the index speaks of."""
    set_at: datetime | None = None
    """When the weight was decided; None before the first step."""
    started_at: datetime | None = None
    """When the weight came in force, or the preview began; None until then."""
    traffic_since: datetime | None = None
    """When the first weight above 0 was decided."""
    stable_replicas: int | None = None
    """Stable's count then."""
    leaving: bool = False
    """The step is over; pods for the next one are awaited."""
    promoting: str | None = None
    """Why it takes over, once the full count of pods is ready; None while it does not."""
    held: Held | None = None
    overruled_at: datetime | None = None
    """When a person let it go on although it had failed."""
    waiting_since: datetime | None = None
    """Since when pods are awaited."""


@dataclass(frozen=True)
class Decision:
    """Which step comes next, the reason (a condition reason) and the message with its numbers."""

    action: Action
    reason: str
    message: str
    awaited: Awaited = Awaited.PODS
    """What it waits for, where it holds."""
    progress: Progress | None = None
    """How far the candidate has come with this decision; None leaves that as it was."""


@dataclass(frozen=True)
class Roles:
    """Who is stable and who is candidate once the decision is carried out; others only keep their objects."""

    stable: Track | None
    candidate: Track | None
    others: tuple[StoredRevision, ...]
    progress: Progress = field(default_factory=Progress)
    """The candidate's."""

    @property
    def in_role(self) -> tuple[Track, ...]:
        """Stable and candidate, those that exist."""
        return tuple(track for track in (self.stable, self.candidate) if track)


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event on the ModelDeployment."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True)
class Scale:
    """A replica count to write through a Deployment's /scale subresource."""

    deployment: str
    replicas: int


@dataclass(frozen=True)
class Ref:
    """Names a child object to delete."""

    kind: str
    name: str


@dataclass(frozen=True)
class Plan:
    """Everything one pass will write, in the order in which it is written; printed, it is a dry run."""

    status: Mapping[str, Any]
    """The whole desired status; written first, and only if it differs."""
    objects: tuple[Object, ...] = ()
    """Desired children, in order: created when missing, otherwise applied where they differ."""
    scales: tuple[Scale, ...] = ()
    prunes: tuple[Ref, ...] = ()
    events: tuple[Event, ...] = ()
    evidence: tuple[Mapping[str, Any], ...] = ()
    """What each metric said of the candidate when it was decided, as `status.analysis.metricResults` has it."""
    under_way: bool = False
    """Whether pods are waited for; otherwise only the registry, an event or a resync can have news."""
    requeue_after: timedelta = timedelta(minutes=1)
    """When to look again; what is later than the resync is left to that."""
