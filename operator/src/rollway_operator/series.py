"""The series of each ModelDeployment and ModelRegistry: what the controller last saw of it, as Prometheus reads it.

What a pass writes to a status comes back by the watch, as does what anybody else writes, and a resync lists all again:
so the controller tells of bodies alone, and no pass waits for any of this. The metrics server is another thread: it is
given rows that nobody changes any more. Counts begin at 0 with the leadership; an object's series go with the object.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import ValidationError

from rollway_operator.api.v1alpha1 import (
    HistoryEntry,
    MetricResult,
    ModelDeploymentStatus,
    ModelRegistryStatus,
)
from rollway_operator.domain import PROMOTED, Key, Object
from rollway_operator.resolve import registry_followed
from rollway_operator.status import HISTORY_LENGTH
from rollway_operator.steps import DEFAULT_STEPS

_logger = logging.getLogger(__name__)

_PHASES: Final = ("Pending", "Progressing", "Paused", "Healthy", "Degraded")
_VERDICTS: Final = {"Successful": "Pass", "Failed": "Fail", "Inconclusive": "Inconclusive"}
_HOLDS: Final = {"True": 1, "False": 0}

_ENDINGS: Final = (
    (PROMOTED, "AnalysisSucceeded"),
    (PROMOTED, "GatesPassed"),
    (PROMOTED, "Promoted"),
    ("Aborted", "AnalysisFailed"),
    ("Cancelled", "TargetMoved"),
)
"""How most rollouts end: counted from 0 on, since a rate needs the zero before the first one."""

_READY: Final = "rollway_modelregistry_ready"
_ROLLOUTS: Final = "rollway_modeldeployment_rollouts_total"
_PREFIX: Final = "rollway_modeldeployment_"
_OBJECT: Final = ("namespace", "name")

_GAUGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "info": (
        "1, with what the spec asks for.",
        ("model", "alias", "registry", "runtime", "strategy", "pod_monitor"),
    ),
    "phase": ("1 for the present phase, 0 for the others.", ("phase",)),
    "condition": ("1 for a condition that is True, 0 for one that is False.", ("type", "reason")),
    "version_info": ("1, with the version and revision in a role.", ("track", "version", "revision")),
    "replicas": ("Pods of stable, those that are not ready among them.", ("track",)),
    "ready_replicas": ("Ready pods of the revision in a role.", ("track",)),
    "canary_weight_percent": ("Percent of the traffic that the canary shall have; 0 without one.", ()),
    "step": ("Index, from 0, of the entry of the canary's steps that is carried out.", ()),
    "steps": ("Entries of the canary's steps; the index that is as high is the promotion.", ()),
    "rollout_start_timestamp_seconds": ("When the rollout that is under way began.", ()),
    "metric_value": ("The measured value of a metric of the analysis.", ("metric",)),
    "metric_lower": ("Lower end of the interval in which the metric's true value lies.", ("metric",)),
    "metric_upper": ("Upper end of the interval in which the metric's true value lies.", ("metric",)),
    "metric_threshold": ("What the metric is held against.", ("metric",)),
    "metric_samples": ("Requests of the canary that count for the metric.", ("metric",)),
    "metric_verdict": ("1 for the metric's present verdict, 0 for the others.", ("metric", "verdict")),
    "promotion_seconds": ("Time from when the version became the target to its promotion, the last.", ()),
}
"""Help and labels of each gauge of a ModelDeployment, beside its namespace and name."""

Row = tuple[str, tuple[str, ...], float]
"""One sample: the gauge's name without its prefix, the values of the gauge's own labels, the value."""

_Ending = tuple[str, str]


@dataclass(frozen=True)
class _Seen:
    """What was last seen of a ModelDeployment; replaced as a whole, never changed."""

    uid: str
    version: str
    rows: tuple[Row, ...]
    promotion: float | None
    ended: tuple[HistoryEntry, ...]
    rollouts: Mapping[_Ending, int]


class Series(Collector):
    """Collects the series of all objects; told of them by one thread, read by any."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._deployments: dict[Key, _Seen] = {}
        self._registries: dict[str, float] = {}

    def deployment_seen(self, body: Object) -> None:
        """Take over what a ModelDeployment is now; a rollout that has ended since it was seen before is counted."""
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        before = self._deployments.get(key)
        if before and before.uid != metadata["uid"]:
            before = None
        if before and before.version == metadata["resourceVersion"]:
            return
        try:
            seen = _seen(body, before)
        except ValidationError as error:
            _logger.debug("no series: %s", error, extra={"object": f"{key.namespace}/{key.name}"})
            self.deployment_gone(key)
            return
        with self._lock:
            self._deployments[key] = seen

    def deployment_gone(self, key: Key) -> None:
        """Drop the series of a ModelDeployment."""
        with self._lock:
            self._deployments.pop(key, None)

    def registry_seen(self, body: Object) -> None:
        """Take over whether a ModelRegistry is ready."""
        name = body["metadata"]["name"]
        try:
            conditions = ModelRegistryStatus.model_validate(body.get("status", {})).conditions
        except ValidationError as error:
            _logger.debug("no series: %s", error, extra={"object": name})
            self.registry_gone(name)
            return
        ready = next((_HOLDS.get(told.status) for told in conditions if told.type == "Ready"), None)
        with self._lock:
            if ready is None:
                self._registries.pop(name, None)
            else:
                self._registries[name] = ready

    def registry_gone(self, name: str) -> None:
        """Drop the series of a ModelRegistry."""
        with self._lock:
            self._registries.pop(name, None)

    def clear(self) -> None:
        """Drop all series: who does not lead does not know."""
        with self._lock:
            self._deployments.clear()
            self._registries.clear()

    def describe(self) -> Iterable[Metric]:
        """Name the families, without samples."""
        yield from _gauges().values()
        yield _rollouts()
        yield _ready()

    def collect(self) -> Iterator[Metric]:
        """Give all samples, one family after the other, so that never all of them are in memory."""
        with self._lock:
            deployments = tuple(self._deployments.items())
            registries = tuple(self._registries.items())
        rows: dict[str, list[tuple[tuple[str, ...], float]]] = {name: [] for name in _GAUGES}
        for key, seen in deployments:
            for name, labels, value in seen.rows:
                rows[name].append(((key.namespace, key.name, *labels), value))
        for name, family in _gauges().items():
            for labels, value in rows.pop(name):
                family.add_metric(labels, value)
            yield family
        rollouts = _rollouts()
        for key, seen in deployments:
            for ending, number in seen.rollouts.items():
                rollouts.add_metric((key.namespace, key.name, *ending), number)
        yield rollouts
        ready = _ready()
        for registry, value in registries:
            ready.add_metric((registry,), value)
        yield ready


def _gauges() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(_PREFIX + name, text, labels=(*_OBJECT, *labels))
        for name, (text, labels) in _GAUGES.items()
    }


def _rollouts() -> CounterMetricFamily:
    return CounterMetricFamily(_ROLLOUTS, "Rollouts that ended.", labels=(*_OBJECT, "outcome", "reason"))


def _ready() -> GaugeMetricFamily:
    return GaugeMetricFamily(_READY, "1 if the registry answers, 0 if it does not.", labels=("registry",))


# ---------------------------------------------------------------------------------------------------- from body to rows


def _seen(body: Object, before: _Seen | None) -> _Seen:
    status = ModelDeploymentStatus.model_validate(body.get("status", {}))
    rollouts = dict(before.rollouts if before else dict.fromkeys(_ENDINGS, 0))
    known = before.ended if before else status.history
    new = tuple(entry for entry in status.history if entry not in known)
    for entry in new:
        ending = (entry.outcome, entry.reason)
        rollouts[ending] = rollouts.get(ending, 0) + 1
    promotion = _promotion(status) or (before.promotion if before else None)
    rows = (*_spec_rows(body, status), *_status_rows(status))
    if promotion is not None:
        rows += (("promotion_seconds", (), promotion),)
    metadata = body["metadata"]
    # A list may be older than an event: what it lacks must not be new when it comes again.
    ended = (*known, *new)[-2 * HISTORY_LENGTH :]
    return _Seen(metadata["uid"], metadata["resourceVersion"], rows, promotion, ended, rollouts)


def _promotion(status: ModelDeploymentStatus) -> float | None:
    """Say in how many seconds the target that serves came to serve; None where the last promotion was another's."""
    promoted = [entry for entry in status.history if entry.outcome == PROMOTED]
    target = status.model
    if (
        not promoted
        or not target
        or not target.target_since
        or promoted[-1].revision != target.target_revision
    ):
        return None
    seconds = (promoted[-1].finished_at - target.target_since).total_seconds()
    return seconds if seconds >= 0 else None


def _spec_rows(body: Object, status: ModelDeploymentStatus) -> Iterator[Row]:
    """Read the spec as it is stored: one that this operator cannot carry out has series, too."""
    spec: Mapping[str, Any] = body["spec"]
    model, strategy = spec["model"], spec.get("strategy") or {"canary": {}}
    way = next(iter(strategy))
    runtime = spec.get("predictor", {}).get("runtime", "")
    monitored = spec.get("monitoring", {}).get("podMonitor", {}).get("enabled", True)
    asked = (model["name"], model.get("alias", ""), registry_followed(body), runtime, way)
    yield "info", (*asked, "true" if monitored else "false"), 1
    if status.canary and way == "canary":
        yield "step", (), status.canary.current_step_index or 0
        yield "steps", (), len(strategy["canary"].get("steps") or DEFAULT_STEPS)


def _status_rows(status: ModelDeploymentStatus) -> Iterator[Row]:
    for phase in _PHASES:
        yield "phase", (phase,), phase == status.phase
    for told in status.conditions:
        if told.status in _HOLDS:
            yield "condition", (told.type, told.reason), _HOLDS[told.status]
    if status.replicas is not None:
        yield "replicas", ("stable",), status.replicas
    for track, found in (("stable", status.stable), ("canary", status.canary)):
        if found:
            yield "version_info", (track, found.version, found.revision), 1
            yield "ready_replicas", (track,), found.ready_replicas
    yield "canary_weight_percent", (), (status.canary and status.canary.weight) or 0
    if status.canary and status.canary.started_at:
        yield "rollout_start_timestamp_seconds", (), status.canary.started_at.timestamp()
    for result in status.analysis.metric_results if status.analysis else ():
        yield from _metric_rows(result)


def _metric_rows(result: MetricResult) -> Iterator[Row]:
    metric = (result.name,)
    lower, upper = result.interval if result.interval and len(result.interval) == 2 else (None, None)
    numbers = {
        "value": result.value,
        "lower": lower,
        "upper": upper,
        # Words such as `<= 0.02` or `< 0.01 slower than 0.25 s`: the number is the second of them.
        # A range such as `0.25 to 1` is no one number, and has none.
        "threshold": next(iter((result.threshold or "").split()[1:2]), None),
    }
    for name, text in numbers.items():
        if (number := _number(text)) is not None:
            yield f"metric_{name}", metric, number
    yield "metric_samples", metric, result.samples
    for phase, verdict in _VERDICTS.items():
        yield "metric_verdict", (result.name, verdict), phase == result.phase


def _number(text: str | None) -> float | None:
    """Read a decimal as status has it; None for what is none."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
