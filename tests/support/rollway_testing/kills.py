"""Tales in which the operator is killed around one of its writes, and what must be there in the end.

A tale is told once undisturbed: its writes and its end are the measure. Then it is told again for each write, twice:
the operator is killed before the write reaches the API server, and after the server took it and before the operator
heard so. Every time the same must be there in the end.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple, Self, TypeVar

from rollway_faultproxy.rules import Kill, Match, Rule
from rollway_testing.controlplane import ControlPlane
from rollway_testing.faults import FaultProxy
from rollway_testing.gateways import ENVIRONMENT, ROUTES, PretendedGateway
from rollway_testing.kubelet import Kubelet, Nature, Node
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import OperatorProcess, Story, condition, serves
from rollway_testing.waiting import NotInTimeError, eventually

Status = dict[str, Any]
T = TypeVar("T")

KINDS = (
    "ControllerRevision",
    "ConfigMap",
    "Service",
    "Deployment",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "PodMonitor",
    *ROUTES,
)
"""What a ModelDeployment may have."""
_NEVER_ALIKE = frozenset(
    {
        *("lastTransitionTime", "targetSince", "startedAt", "finishedAt", "time", "since", "measuredAt"),
        *("weightSetAt", "stepStartedAt", "weightSince", "waitingSince", "overruledAt"),
        *("samples", "value", "interval"),
    }
)
_MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
_MEASURED = r"\d+(\.\d+)?(\u2013\d+(\.\d+)?)?%"
"""A share of requests, or the bounds that it lies within: a share of the traffic has a space before its sign."""
_LACK = r'(?<=error-rate: )[^"]*(?= when analysis\.deadline passed)'
"""Which pods could not be read at that moment, and why."""


@dataclass(frozen=True)
class Step:
    """Something that a person does, and how one sees that it is done."""

    act: Callable[[Story], None]
    ended: Callable[[Story, Status], bool]


@dataclass(frozen=True)
class Tale:
    """What is there before, and the step that is disturbed."""

    name: str
    before: tuple[Step, ...]
    step: Step
    pretended: bool = False
    """It needs callers, who are pretended."""
    routed: bool = False
    """It needs a Gateway."""


class Point(NamedTuple):
    """Where the operator is killed: around one write, named by what it does and its place among its like."""

    verb: str
    resource: str
    nth: int
    when: Literal["before", "after"]

    def __str__(self) -> str:
        """Say it as the log does."""
        return f"{self.when:6} {self.verb} {self.resource} #{self.nth}"


@dataclass(frozen=True)
class Calm:
    """An undisturbed telling: every place where the operator can be killed, and the end."""

    points: tuple[Point, ...]
    end: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A disturbed telling."""

    tale: str
    point: Point
    fired: bool
    seconds: float
    wrong: Mapping[str, tuple[Any, Any]]

    def __str__(self) -> str:
        """Say it in one line of the log."""
        killed = "killed" if self.fired else "no such write:"
        end = f"DIFFERENT: {dict(self.wrong)}" if self.wrong else "same end"
        return f"{self.tale:18} {killed} {self.point!s:50} {self.seconds:5.1f} s  {end}"


class Lane:
    """A namespace with an operator of its own, whose every call passes the proxy."""

    def __init__(
        self,
        api: Kubernetes,
        proxy: FaultProxy,
        namespace: str,
        model: Mapping[str, Any],
        kubelet: Node,
        operator: OperatorProcess,
        **spec: Any,
    ) -> None:
        """Tell of ModelDeployments with this spec.model and more of the spec; the tale chooses the version."""
        self.api, self.proxy, self.namespace = api, proxy, namespace
        self.kubelet, self.operator = kubelet, operator
        self._model, self._spec = model, spec
        self._stories = 0

    @classmethod
    def on(
        cls,
        plane: ControlPlane,
        proxy: FaultProxy,
        folder: Path,
        namespace: str,
        model: str,
        *,
        resync: int = 1,
        routed: bool = False,
    ) -> Self:
        """Make the namespace on a control plane without nodes, where pods only pretend to run; a Gateway, too."""
        plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        operator = OperatorProcess(
            folder / namespace,
            proxy.kubeconfig,
            namespace=namespace,
            serves=namespace,
            resync=resync,
            more=ENVIRONMENT if routed else {},
        )
        gateway = PretendedGateway(plane.api, namespace) if routed else None
        kubelet = Kubelet(plane.api, namespace, gateway)
        return cls(plane.api, proxy, namespace, {"name": model}, kubelet, operator)

    def story(self) -> Story:
        """Give a ModelDeployment of the lane, not applied yet; a dead operator is started again at each look."""
        self._stories += 1
        told = Story(
            self.api,
            self.kubelet,
            self.namespace,
            self._model["name"],
            name=f"k{self._stories}",
            meanwhile=self.operator.keep_running,
        )
        told.spec["model"] |= self._model
        told.spec |= self._spec
        return told

    def stop(self) -> None:
        """Stop the operator and drop the namespace, which would be work for other operators."""
        self.operator.stop()
        self.api.delete("Namespace", self.namespace)

    def clear(self) -> None:
        """Remove every ModelDeployment of the lane, and wait until its pods are gone."""
        for found in self.api.list("ModelDeployment", self.namespace):
            self.api.delete("ModelDeployment", found["metadata"]["name"], self.namespace)
        eventually(
            lambda: self.api.list("Pod", self.namespace),
            lambda pods: not pods,
            within=120,
            what=f"no pod is left in {self.namespace}",
        )

    def told(self, *steps: Step) -> Story:
        """Give a ModelDeployment that has come through some steps undisturbed."""
        self.operator.start()
        story = self.story()
        for step in steps:
            step.act(story)
            until_ended(story, step)
        return story

    def mark(self) -> int:
        """Give the place where the record of calls ends now."""
        return sum(self.proxy.counts().values())

    def writes(self, after: int) -> list[dict[str, Any]]:
        """Give the lane's writes from a place in the record on, but for those of the lease."""
        return [
            call
            for call in self._calls(after)
            if call["mutating"] and not call["resource"].startswith("lease")
        ]

    def until_quiet(self, within: float = 90, resyncs_of_quiet: int = 3) -> None:
        """Wait until some resyncs have passed in which nothing was written."""
        since = self.mark()

        def resyncs() -> int:
            nonlocal since
            self.kubelet.step()
            since = max((call["number"] for call in self.writes(since)), default=since)
            return sum(
                (call["verb"], call["resource"]) == ("list", "modeldeployments")
                for call in self._calls(since)
            )

        eventually(resyncs, lambda seen: seen > resyncs_of_quiet, within=within, what="nothing is written")

    def tell(self, tale: Tale) -> Calm:
        """Tell a tale undisturbed."""
        self.operator.start()
        story = self.story()
        self._prepare(tale, [story])
        self.until_quiet()
        mark = self.mark()
        tale.step.act(story)
        until_ended(story, tale.step)
        self.until_quiet()
        story.callers(0)
        seen: Counter[tuple[str, str]] = Counter()
        points = []
        for call in self.writes(mark):
            kind = call["verb"], call["resource"]
            seen[kind] += 1
            points += [Point(*kind, seen[kind], "before"), Point(*kind, seen[kind], "after")]
        return Calm(tuple(points), end_of(story))

    def tell_killed(
        self, tale: Tale, calm: Calm, points: Iterable[Point], say: Callable[[str], None]
    ) -> list[Outcome]:
        """Tell a tale once for each point, killing the operator there."""
        self.operator.start()
        stories = [(self.story(), point) for point in points]
        self._prepare(tale, [story for story, _ in stories])
        outcomes = []
        for story, point in stories:
            outcome = self._tell_one(tale, calm, story, point)
            say(str(outcome))
            outcomes.append(outcome)
        return outcomes

    def _tell_one(self, tale: Tale, calm: Calm, story: Story, point: Point) -> Outcome:
        started = time.monotonic()
        match = Match(
            verb=point.verb,
            resource=point.resource,
            namespace=self.namespace,
            about=rf"\b{story.name}\b",
            mutating=True,
        )
        name = f"{self.namespace}-{story.name}"
        kill = Kill(pid=self.operator.pid, when=point.when)
        self.proxy.put(name, Rule(match=match, action=kill, skip=point.nth - 1, times=1))
        tale.step.act(story)
        until_ended(story, tale.step)

        def differences() -> dict[str, tuple[Any, Any]]:
            story.status()
            return differences_of(end_of(story), calm.end)

        try:
            wrong = eventually(differences, lambda found: not found, within=60, what="the same end")
        except NotInTimeError:
            wrong = differences()
        story.callers(0)
        fired = bool(self.proxy.fired(name))
        self.proxy.withdraw(name)
        return Outcome(tale.name, point, fired, time.monotonic() - started, wrong)

    def _prepare(self, tale: Tale, stories: Sequence[Story]) -> None:
        """Bring stories to where the disturbed step begins, side by side."""
        for step in tale.before:
            for story in stories:
                step.act(story)
            for story in stories:
                until_ended(story, step)

    def _calls(self, after: int) -> list[dict[str, Any]]:
        return [call for call in self.proxy.calls(after) if call["namespace"] == self.namespace]


def side_by_side(lanes: Iterable[Lane], tasks: Iterable[Callable[[Lane], T]]) -> list[T]:
    """Do each task on the next lane that is free, and give what they return, in their order."""
    free: SimpleQueue[Lane] = SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def done(task: Callable[[Lane], T]) -> T:
        lane = free.get()
        try:
            return task(lane)
        finally:
            free.put(lane)

    with ThreadPoolExecutor(free.qsize()) as pool:
        return list(pool.map(done, tasks))


def tell_in(
    lanes: Sequence[Lane], tale: Tale, calm: Calm, points: Sequence[Point], say: Callable[[str], None]
) -> list[Outcome]:
    """Share the points of a tale among lanes, all at work at the same time."""
    parts = [points[number :: len(lanes)] for number in range(len(lanes))]
    told = side_by_side(
        lanes, [partial(Lane.tell_killed, tale=tale, calm=calm, points=part, say=say) for part in parts]
    )
    return [outcome for outcomes in told for outcome in outcomes]


def until_ended(story: Story, step: Step, within: float = 120) -> None:
    """Wait until a step is done."""
    story.until(
        lambda status: step.ended(story, status), f"{story.name} in {story.namespace} comes to its end"
    )


# ------------------------------------------------------------------------------------------------------------ the end


def end_of(story: Story) -> dict[str, Any]:
    """Say what is there, with what differs between equal tales left out."""
    own = story.own()
    if own is None:
        return {kind: sorted(story.children(kind)) for kind in KINDS}
    children = {kind: story.children(kind) for kind in KINDS}
    found: dict[str, Any] = {"status": _timeless(own["status"])}
    for kind, items in children.items():
        for name, item in items.items():
            found[f"{kind} {name}"] = _essence(kind, item)
    text = json.dumps(found, sort_keys=True, ensure_ascii=False)
    # A revision's name hashes what may hold the object's own: its number tells it as well.
    for name, item in children["ControllerRevision"].items():
        text = text.replace(name, f"it@{item['revision']}")
    text = re.sub(rf"\b{re.escape(story.name)}\b", "it", text)
    for varying, word in ((_MOMENT, "then"), (_MEASURED, "some"), (_LACK, "nothing")):
        text = re.sub(varying, word, text)
    ended: dict[str, Any] = json.loads(text.replace(story.namespace, "here"))
    return ended


def _essence(kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: item["metadata"].get(key) for key in ("labels", "annotations")}
    if kind == "Deployment":
        # Kubernetes counts its own revisions there.
        template = item["spec"]["template"]
        return {"labels": metadata["labels"], "replicas": item["spec"]["replicas"], "template": template}
    if kind == "Service":
        return metadata | {key: item["spec"].get(key) for key in ("selector", "ports")}
    if kind in ("ControllerRevision", "ConfigMap"):
        return metadata | {key: item.get(key) for key in ("data", "revision")}
    return metadata | {"spec": item["spec"]}


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _timeless(item) for key, item in value.items() if key not in _NEVER_ALIKE}
        if "conditions" in kept:
            kept["conditions"] = sorted(kept["conditions"], key=lambda condition: str(condition["type"]))
        return kept
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def differences_of(found: Any, expected: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Name each place where two ends differ, with what is there and what should be."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        keys = sorted(found.keys() | expected.keys())
        parts = [(key, found.get(key), expected.get(key)) for key in keys]
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        parts = [(str(place), *both) for place, both in enumerate(zip(found, expected, strict=True))]
    else:
        return {} if found == expected else {path: (found, expected)}
    return {
        place: both
        for key, one, other in parts
        for place, both in differences_of(one, other, f"{path}/{key}").items()
    }


# --------------------------------------------------------------------------------------------------------- the tales


def _serves(version: str) -> Callable[[Story, Status], bool]:
    def ended(story: Story, status: Status) -> bool:
        if not serves(status, version) or story.leads_to() != status["stable"]["revision"]:
            return False
        counts = story.counts()
        return all(count == 0 for name, count in counts.items() if name != status["stable"]["revision"])

    return ended


def _ask(version: str) -> Callable[[Story], None]:
    def act(story: Story) -> None:
        kept = {key: value for key, value in story.spec["model"].items() if key != "alias"}
        story.ask(model=kept | {"version": version})

    return act


def _restart(story: Story) -> None:
    revision = story.status()["stable"]["revision"]
    story.say("restart", f"{revision}/1")


def _restarted(story: Story, status: Status) -> bool:
    asked = story.annotations["rollway.dev/restart"].partition("/")[0]
    return _serves("1")(story, status) and status["stable"]["revision"] != asked


def _undo(story: Story) -> None:
    serving = story.status()["stable"]["revision"]
    (before,) = (name for name in story.children("ControllerRevision") if name != serving)
    story.say("undo", before)


def _by(strategy: Mapping[str, Any], **spec: Any) -> Callable[[Story], None]:
    """Serve the first version by two pods, and have the next one come by a strategy."""

    def act(story: Story) -> None:
        story.spec |= {"strategy": strategy, "predictor": {"replicas": 2}, **spec}
        _ask("1")(story)

    return act


def _judged(nature: Nature) -> Callable[[Story], None]:
    """Have callers ask for as long as the tale lasts, and ask for the second version, which fares like this."""

    def act(story: Story) -> None:
        story.kubelet.natures[f"{story.name}/2"] = nature
        story.callers(300)
        _ask("2")(story)

    return act


def _rolled_back(story: Story, status: Status) -> bool:
    return condition(status, "Stalled").get("reason") == "RolledBack" and _serves("1")(story, status)


def _given_up(story: Story, status: Status) -> bool:
    closed = status["model"].get("closed", {})
    return (closed.get("version"), closed.get("reason")) == ("2", "DeadlineExceeded") and _serves("1")(
        story, status
    )


def _delete(story: Story) -> None:
    story.api.delete("ModelDeployment", story.name, story.namespace)


def _is_gone(story: Story, _: Status) -> bool:
    return story.own() is None and not any(story.children(kind) for kind in KINDS)


FIRST = Step(_ask("1"), _serves("1"))
SECOND = Step(_ask("2"), _serves("2"))
THREE = Step(
    lambda story: story.ask(predictor={"replicas": 3}), lambda _, status: status.get("readyReplicas") == 3
)
DELETION = Step(_delete, _is_gone)

_CANARY = {
    "canary": {
        "steps": [
            *({"setWeight": 20}, {"pause": {"duration": "1s"}}),
            *({"setWeight": 50}, {"pause": {"duration": "1s"}}),
        ]
    }
}
_ANALYSIS = {"metrics": [{"name": "error-rate", "minSamples": 20}]}
_BEFORE_CANARY = Step(_by(_CANARY, analysis=_ANALYSIS), _serves("1"))
_BLUE_GREEN = {"blueGreen": {"previewSeconds": 1, "scaleDownDelaySeconds": 1}}


def _without_evidence(then: str) -> Step:
    return Step(_by(_CANARY, analysis={"deadline": "5s", "onInconclusive": then}), _serves("1"))


TALES = (
    Tale("first roll-out", (), FIRST),
    Tale("version change", (FIRST,), SECOND),
    Tale("replica change", (FIRST,), THREE),
    Tale("restart", (FIRST,), Step(_restart, _restarted)),
    Tale("undo", (FIRST, SECOND), Step(_undo, _serves("1"))),
    Tale("canary promoted", (_BEFORE_CANARY,), Step(_judged(Nature.GOOD), _serves("2")), pretended=True),
    Tale("canary rolled back", (_BEFORE_CANARY,), Step(_judged(Nature.ERRING), _rolled_back), pretended=True),
    Tale(
        "canary routed",
        (_BEFORE_CANARY,),
        Step(_judged(Nature.GOOD), _serves("2")),
        pretended=True,
        routed=True,
    ),
    Tale("blue-green", (Step(_by(_BLUE_GREEN), _serves("1")),), SECOND),
    Tale("delete", (FIRST,), DELETION),
)

ON_NODES = (
    *(tale for tale in TALES if not tale.pretended),
    Tale("canary promoted without evidence", (_without_evidence("Promote"),), SECOND),
    Tale("canary given up without evidence", (_without_evidence("Abort"),), Step(_ask("2"), _given_up)),
)
"""What is told on a real cluster, where callers are not pretended."""
