"""A ModelDeployment, its revisions and its pods as values; what is absent or odd in the API's JSON is None or empty.

Every field of a status is optional: an older operator writes fewer, and a newer one may write others. Every text is put
on one line, since messages repeat what models and registries say.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kubectl_rollway.errors import one_line
from kubectl_rollway.times import moment

DEFAULT_STEPS: Final[tuple[Mapping[str, Any], ...]] = (
    {"setWeight": 10},
    {"pause": {"duration": "60s"}},
    {"setWeight": 50},
    {"pause": {"duration": "60s"}},
)
"""What the operator does where `spec.strategy.canary` names no steps."""

_STRATEGIES: Final = ("canary", "blueGreen", "rollingUpdate", "recreate")
_GROUP: Final = "rollway.dev"


class Fields:
    """A mapping of the API's JSON, read without trust."""

    def __init__(self, value: object) -> None:
        self._value: Mapping[str, Any] = value if isinstance(value, Mapping) else {}

    def __bool__(self) -> bool:
        return bool(self._value)

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def at(self, *path: str) -> "Fields":
        """Give the mapping at a path."""
        value: object = self._value
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return Fields(value)

    def text(self, key: str) -> str:
        """Give a text, or an empty one."""
        value = self._value.get(key)
        if isinstance(value, str):
            return one_line(value)
        return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""

    def number(self, key: str) -> int | None:
        """Give a whole number."""
        value = self._value.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def flag(self, key: str) -> bool:
        """Tell whether something is said to be true."""
        return self._value.get(key) is True

    def time(self, key: str) -> datetime | None:
        """Give a time."""
        return moment(self._value.get(key))

    def each(self, key: str) -> Iterator["Fields"]:
        """Give the mappings of a list."""
        listed = self._value.get(key)
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item, Mapping):
                yield Fields(item)

    def texts(self, key: str) -> tuple[str, ...]:
        """Give the texts and numbers of a list."""
        listed = self._value.get(key)
        return tuple(one_line(item) for item in listed) if isinstance(listed, list) else ()

    def mapping(self, key: str) -> dict[str, str]:
        """Give a mapping of texts."""
        return {one_line(name): one_line(value) for name, value in self.at(key).raw.items()}

    @property
    def raw(self) -> Mapping[str, Any]:
        """The mapping itself."""
        return self._value


@dataclass(frozen=True)
class Revision:
    """One revision in a role."""

    name: str
    version: str
    ready: int | None
    started: datetime | None
    promoted: datetime | None
    newer_image: str


@dataclass(frozen=True)
class Candidate(Revision):
    """The revision on its way."""

    weight: int | None
    step: int | None
    """Index of the entry of the strategy's steps that is being executed."""
    in_force: datetime | None
    """When the present weight came in force."""
    promoting: bool
    """The steps are over, and it goes to its full count."""
    leaving: bool
    """The step is over, and pods for the next one are awaited."""
    held: str
    """Why it waits for a person although it failed."""


@dataclass(frozen=True)
class Step:
    """One entry of a canary's steps."""

    words: str
    pause: bool


@dataclass(frozen=True)
class Share:
    """The part of traffic that a revision gets."""

    revision: str
    version: str
    percent: int
    tag: str


@dataclass(frozen=True)
class Metric:
    """What is known of one metric."""

    name: str
    phase: str
    value: str
    interval: tuple[str, ...]
    threshold: str
    samples: int | None
    reason: str
    message: str


@dataclass(frozen=True)
class Analysis:
    """The judgement of the candidate."""

    phase: str
    measured: datetime | None
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Condition:
    """One condition."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None


@dataclass(frozen=True)
class Closed:
    """A revision that is not tried again by itself."""

    revision: str
    version: str
    reason: str
    message: str
    since: datetime | None
    rejected: bool
    acknowledged: bool


@dataclass(frozen=True)
class Ended:
    """How one rollout ended."""

    revision: str
    version: str
    digest: str
    outcome: str
    reason: str
    started: datetime | None
    finished: datetime | None


@dataclass(frozen=True)
class Target:
    """What the registry names, as the operator last read it."""

    version: str
    revision: str
    since: datetime | None
    closed: Closed | None


@dataclass(frozen=True)
class Stored:
    """A revision that is kept, whatever its role."""

    name: str
    number: int
    version: str
    outcome: str
    served: bool


@dataclass(frozen=True)
class Pod:
    """One pod of a revision."""

    name: str
    revision: str
    state: str
    ready: bool
    restarts: int
    created: datetime | None


@dataclass(frozen=True)
class Deployment:
    """One ModelDeployment."""

    namespace: str
    name: str
    created: datetime | None
    generation: int | None
    observed: int | None
    """The generation that the status speaks of."""
    model: str
    alias: str
    asked_version: str
    runtime: str
    strategy: str
    """The one that the spec names; empty where it names none."""
    steps: tuple[Step, ...]
    auto_promotion: bool
    spec_paused: bool
    phase: str
    message: str
    url: str
    target: Target
    stable: Revision | None
    canary: Candidate | None
    traffic: tuple[Share, ...]
    analysis: Analysis | None
    history: tuple[Ended, ...]
    rejected: tuple[Closed, ...]
    handled: Mapping[str, str]
    conditions: tuple[Condition, ...]

    def condition(self, type_: str) -> Condition | None:
        """Find one condition."""
        return next((condition for condition in self.conditions if condition.type == type_), None)

    def holds(self, type_: str) -> bool:
        """Tell whether a condition is True."""
        found = self.condition(type_)
        return found is not None and found.status == "True"

    @property
    def current(self) -> bool:
        """Whether the status speaks of the present spec."""
        return self.observed is not None and (self.generation is None or self.observed >= self.generation)


def deployment(body: Mapping[str, Any]) -> Deployment:
    """Read a ModelDeployment."""
    whole = Fields(body)
    metadata, spec, status = whole.at("metadata"), whole.at("spec"), whole.at("status")
    return Deployment(
        namespace=metadata.text("namespace"),
        name=metadata.text("name"),
        created=metadata.time("creationTimestamp"),
        generation=metadata.number("generation"),
        observed=status.number("observedGeneration"),
        model=spec.at("model").text("name"),
        alias=spec.at("model").text("alias"),
        asked_version=spec.at("model").text("version"),
        runtime=spec.at("predictor").text("runtime"),
        strategy=next((name for name in _STRATEGIES if name in spec.at("strategy")), ""),
        steps=tuple(_steps(spec, status)),
        auto_promotion=spec.at("strategy", "blueGreen").raw.get("autoPromotion") is not False,
        spec_paused=spec.flag("paused"),
        phase=status.text("phase"),
        message=status.text("message"),
        url=status.text("url") or status.at("address").text("url"),
        target=_target(status.at("model")),
        stable=_stable(status.at("stable")),
        canary=_candidate(status.at("canary")),
        traffic=tuple(_traffic(status)),
        analysis=_analysis(status.at("analysis")),
        history=tuple(_ended(entry) for entry in status.each("history")),
        rejected=tuple(_closed(entry) for entry in status.each("rejected")),
        handled=status.mapping("lastHandled"),
        conditions=tuple(_condition(entry) for entry in status.each("conditions")),
    )


def stored(bodies: Iterable[Mapping[str, Any]]) -> tuple[Stored, ...]:
    """Read ControllerRevisions, the oldest first."""
    found = []
    for whole in map(Fields, bodies):
        notes = whole.at("metadata", "annotations")
        outcome = notes.text(f"{_GROUP}/outcome")
        found.append(
            Stored(
                name=whole.at("metadata").text("name"),
                number=whole.number("revision") or 0,
                version=notes.text(f"{_GROUP}/model-version"),
                outcome=outcome,
                served=f"{_GROUP}/served" in notes or outcome == "Promoted",
            )
        )
    return tuple(sorted(found, key=lambda one: one.number))


def pods(bodies: Iterable[Mapping[str, Any]]) -> tuple[Pod, ...]:
    """Read pods, by name."""
    return tuple(sorted((_pod(Fields(body)) for body in bodies), key=lambda pod: pod.name))


def previous(seen: Deployment, kept: Iterable[Stored]) -> str | None:
    """Name the revision that served before the one that serves now, of those that are kept."""
    present = seen.stable.name if seen.stable else None
    if present is None:
        return None
    served = [one.name for one in kept if one.served and one.name != present]
    promoted = [entry.revision for entry in seen.history if entry.outcome == "Promoted"]
    last = next((i for i in range(len(promoted) - 1, -1, -1) if promoted[i] == present), len(promoted))
    return next(
        (name for name in reversed(promoted[:last]) if name in served), served[-1] if served else None
    )


# ------------------------------------------------------------------------------------------------------- the parts


def _steps(spec: Fields, status: Fields) -> Iterator[Step]:
    strategy = spec.at("strategy")
    listed = list(strategy.at("canary").each("steps"))
    default = "canary" in strategy or (not strategy and "currentStepIndex" in status.at("canary"))
    for entry in listed or (map(Fields, DEFAULT_STEPS) if default else ()):
        weight, duration = entry.number("setWeight"), entry.at("pause").text("duration")
        if weight is not None:
            yield Step(f"setWeight {weight}", pause=False)
        elif "pause" in entry:
            yield Step(f"pause {duration}" if duration else "pause until promote", pause=True)
        else:
            yield Step(", ".join(entry.raw) or "?", pause=False)


def _target(model: Fields) -> Target:
    closed = model.at("closed")
    return Target(
        version=model.text("targetVersion"),
        revision=model.text("targetRevision"),
        since=model.time("targetSince"),
        closed=_closed(closed) if closed else None,
    )


def _closed(entry: Fields) -> Closed:
    return Closed(
        revision=entry.text("revision"),
        version=entry.text("version"),
        reason=entry.text("reason"),
        message=entry.text("message"),
        since=entry.time("since") or entry.time("time"),
        rejected="rejected" not in entry or entry.flag("rejected"),
        acknowledged=entry.flag("acknowledged"),
    )


def _stable(part: Fields) -> Revision | None:
    if not part:
        return None
    return Revision(
        name=part.text("revision"),
        version=part.text("version"),
        ready=part.number("readyReplicas"),
        started=part.time("startedAt"),
        promoted=part.time("promotedAt"),
        newer_image=part.text("newerImage"),
    )


def _candidate(part: Fields) -> Candidate | None:
    if not part:
        return None
    return Candidate(
        name=part.text("revision"),
        version=part.text("version"),
        ready=part.number("readyReplicas"),
        started=part.time("startedAt"),
        promoted=None,
        newer_image="",
        weight=part.number("weight"),
        step=part.number("currentStepIndex"),
        in_force=part.time("stepStartedAt"),
        promoting=bool(part.raw.get("promoting")),
        leaving=part.flag("leaving"),
        held=part.at("held").text("message") or part.text("held"),
    )


def _traffic(status: Fields) -> Iterator[Share]:
    for entry in status.each("traffic"):
        percent = entry.number("percent")
        if percent is not None:
            yield Share(entry.text("revision"), entry.text("version"), percent, entry.text("tag"))


def _analysis(part: Fields) -> Analysis | None:
    if not part:
        return None
    metrics = tuple(
        Metric(
            name=entry.text("name"),
            phase=entry.text("phase"),
            value=entry.text("value"),
            interval=entry.texts("interval"),
            threshold=entry.text("threshold"),
            samples=entry.number("samples"),
            reason=entry.text("reason"),
            message=entry.text("message"),
        )
        for entry in part.each("metricResults")
    )
    return Analysis(part.text("phase"), part.time("measuredAt"), metrics)


def _ended(entry: Fields) -> Ended:
    return Ended(
        revision=entry.text("revision"),
        version=entry.text("version"),
        digest=entry.text("digest"),
        outcome=entry.text("outcome"),
        reason=entry.text("reason"),
        started=entry.time("startedAt"),
        finished=entry.time("finishedAt"),
    )


def _condition(entry: Fields) -> Condition:
    return Condition(
        type=entry.text("type"),
        status=entry.text("status"),
        reason=entry.text("reason"),
        message=entry.text("message"),
        since=entry.time("lastTransitionTime"),
    )


def _pod(whole: Fields) -> Pod:
    metadata, status = whole.at("metadata"), whole.at("status")
    containers = list(status.each("containerStatuses"))
    conditions = {one.text("type"): one.text("status") for one in status.each("conditions")}
    return Pod(
        name=metadata.text("name"),
        revision=metadata.at("labels").text(f"{_GROUP}/revision"),
        state=_pod_state(metadata, status, containers),
        ready=conditions.get("Ready") == "True",
        restarts=sum(one.number("restartCount") or 0 for one in containers),
        created=metadata.time("creationTimestamp"),
    )


def _pod_state(metadata: Fields, status: Fields, containers: list[Fields]) -> str:
    """Say in one word what a pod does, as kubectl's column STATUS does."""
    if "deletionTimestamp" in metadata:
        return "Terminating"
    for init in status.each("initContainerStatuses"):
        ended = init.at("state", "terminated")
        if ended.number("exitCode") == 0:
            continue
        waits = init.at("state", "waiting").text("reason")
        why = ended.text("reason") or ("" if waits == "PodInitializing" else waits) or init.text("name")
        return f"Init:{why}"
    for container in containers:
        why = container.at("state", "waiting").text("reason") or container.at("state", "terminated").text(
            "reason"
        )
        if why:
            return why
    return status.text("reason") or status.text("phase") or "Unknown"
