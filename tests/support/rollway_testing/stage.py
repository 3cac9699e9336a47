"""Many stories told side by side, by one thread: what each waits for is looked at in turn, from one reading of all.

A telling is a generator. It acts, and yields what it waits for; it is sent what was seen when that held.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rollway_testing.gateways import ROUTES, PretendedGateway, weights_of
from rollway_testing.kubelet import Kubelet, Nature
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story, condition
from rollway_testing.waiting import NotInTimeError

Json = dict[str, Any]

_SECONDS_BETWEEN_LOOKS: Final = 0.5
_REVISION: Final = "rollway.dev/revision"


@dataclass(frozen=True)
class Seen:
    """One ModelDeployment and its children at one moment."""

    own: Json
    service: Json | None
    counts: Mapping[str, int]
    """How many pods each Deployment shall have."""
    at: float
    """Seconds of a clock that only goes on."""
    routes: Mapping[str, Json] = field(default_factory=dict)
    """The routes by kind, where there is a Gateway."""

    @property
    def status(self) -> Json:
        """Its status."""
        status: Json = self.own.get("status", {})
        return status

    @property
    def stable(self) -> Json:
        """Who serves."""
        return dict(self.status.get("stable", {}))

    @property
    def canary(self) -> Json:
        """Who is on the way."""
        return dict(self.status.get("canary", {}))

    @property
    def history(self) -> list[tuple[str, str, str]]:
        """How rollouts ended: version, outcome, reason."""
        return [(one["version"], one["outcome"], one["reason"]) for one in self.status.get("history", ())]

    @property
    def shares(self) -> list[tuple[str, int]]:
        """Who has how many percent of the traffic, by version."""
        return [(share["version"], share["percent"]) for share in self.status.get("traffic", ())]

    @property
    def selector(self) -> Json | None:
        """Whom the Service selects."""
        return self.service["spec"]["selector"] if self.service else None

    @property
    def leads_to(self) -> str | None:
        """The one revision that the Service leads to; None where it leads to more, or is not there."""
        return (self.selector or {}).get(_REVISION)

    @property
    def weights(self) -> list[dict[str, int]]:
        """How each route shares requests."""
        return [weights_of(route) for route in self.routes.values()]

    def reason(self, type_: str) -> str | None:
        """Why a condition is what it is; None where it is not there."""
        return condition(self.status, type_).get("reason")

    def message(self, type_: str) -> str:
        """What a condition says."""
        return str(condition(self.status, type_).get("message", ""))


@dataclass(frozen=True)
class Until:
    """What a telling waits for."""

    what: str
    holds: Callable[[Seen], object]
    within: float = 150


Telling = Generator[Until, Seen, None]


class Actor:
    """One ModelDeployment, which follows an alias of its own of a model that all share."""

    def __init__(self, story: Story, stage: "Stage", model: RegisteredModel) -> None:
        """Play in a story."""
        self.story, self.kubelet, self.operator = story, stage.kubelet, stage.operator
        self.gateway = stage.gateway
        self._stage, self._model = stage, model
        story.spec["model"]["alias"] = story.name
        self.point("1")
        self._weights: dict[str, int] = {}

    def point(self, version: str) -> None:
        """Move the alias."""
        self._model.point(version, self.story.name)

    def fares(self, version: str, nature: Nature) -> None:
        """Say how a version's pods fare."""
        self.kubelet.natures[f"{self.story.name}/{version}"] = nature

    @property
    def is_alone(self) -> bool:
        """Whether no other scene is played."""
        return self._stage.playing == 1

    @property
    def lost(self) -> int:
        """How many requests came to no ready pod."""
        return self.kubelet.lost[self.story.name]

    def check(self, seen: Seen) -> None:
        """See that what must always hold does."""
        if seen.stable:
            shares = [share["percent"] for share in seen.status["traffic"]]
            assert sum(shares) == 100, f"the traffic is {shares}"
        if canary := seen.canary:
            place, weight = canary["revision"] + canary.get("startedAt", ""), canary.get("weight", 0)
            before = self._weights.get(place, 0)
            assert weight >= before or "held" in canary, f"the weight fell from {before} to {weight}"
            self._weights[place] = weight


class Scene:
    """A telling under way."""

    def __init__(self, telling: Callable[[Actor], Telling], actor: Actor, now: float) -> None:
        """Begin it."""
        self.name = actor.story.name
        self.error: Exception | None = None
        self.ended = False
        self._actor = actor
        self._telling = telling(actor)
        self.began = now
        self._until, self._since = Until("it begins", bool), now
        self._play(lambda: next(self._telling), now)

    def look(self, seen: Seen) -> None:
        """Go on if what it waits for holds; fail if it did not for too long."""
        self._play(lambda: self._next(seen), seen.at)

    def _next(self, seen: Seen) -> Until:
        self._actor.check(seen)
        if self._until.holds(seen):
            return self._telling.send(seen)
        waited = seen.at - self._since
        if waited > self._until.within:
            status = {key: value for key, value in seen.status.items() if key != "history"}
            told = f"{self.name}: not within {waited:.0f} s: {self._until.what}; last seen: {status}, {seen.counts}"
            # From within, so that the line which waited is shown.
            self._telling.throw(NotInTimeError(told))
        return self._until

    def _play(self, go_on: Callable[[], Until], now: float) -> None:
        try:
            until = go_on()
        except StopIteration:
            self.ended = True
        except Exception as error:  # noqa: BLE001 - told by the test whose telling it is
            self.error, self.ended = error, True
        else:
            if until is not self._until:
                self._until, self._since = until, now


class Stage:
    """A namespace in which scenes are played, so many at once."""

    def __init__(
        self,
        api: Kubernetes,
        namespace: str,
        model: RegisteredModel,
        operator: OperatorProcess,
        *,
        at_once: int = 40,
        routed: bool = False,
    ) -> None:
        """Play in a namespace that the operator serves, with a model that has all versions which are needed.

        Routed: the operator knows of the pretended Gateways.
        """
        self._api, self._namespace, self._model, self._at_once = api, namespace, model, at_once
        self.gateway = PretendedGateway(api, namespace) if routed else None
        self.kubelet, self.operator = Kubelet(api, namespace, self.gateway), operator
        self.playing = 0
        self._actors = 0

    def play(self, tellings: Mapping[str, Callable[[Actor], Telling]]) -> dict[str, Exception | None]:
        """Play all, and say how each ended."""
        self.operator.start()
        waiting, playing = deque(tellings.items()), dict[str, Scene]()
        ended: dict[str, Exception | None] = {}
        while waiting or playing:
            while waiting and len(playing) < self._at_once:
                name, telling = waiting.popleft()
                playing[name] = Scene(telling, self._actor(), time.monotonic())
            self.playing = len(playing) + len(waiting)
            self.kubelet.step()
            self._look(playing.values())
            for name in [name for name, scene in playing.items() if scene.ended]:
                scene = playing.pop(name)
                ended[name] = scene.error
                how = f"FAILED: {scene.error}" if scene.error else "as it should"
                print(
                    f"{time.monotonic() - scene.began:6.1f} s  {name.partition('::')[2]}: {how}", flush=True
                )
                self._clear(scene.name)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return ended

    def _actor(self) -> Actor:
        self._actors += 1
        story = Story(self._api, self.kubelet, self._namespace, self._model.name, name=f"c{self._actors}")
        return Actor(story, self, self._model)

    def _look(self, scenes: Iterable[Scene]) -> None:
        now = time.monotonic()
        owns, services = (self._listed(kind) for kind in ("ModelDeployment", "Service"))
        counts: dict[str, dict[str, int]] = {}
        for name, deployment in self._listed("Deployment").items():
            of = deployment["metadata"]["labels"]["rollway.dev/model-deployment"]
            counts.setdefault(of, {})[name] = deployment["spec"]["replicas"]
        routes = {kind: self._listed(kind) for kind in (ROUTES if self.gateway else ())}
        for scene in scenes:
            name = scene.name
            own = {kind: found[name] for kind, found in routes.items() if name in found}
            scene.look(Seen(owns.get(name, {}), services.get(name), counts.get(name, {}), now, own))

    def _listed(self, kind: str) -> dict[str, Json]:
        return {item["metadata"]["name"]: item for item in self._api.list(kind, self._namespace)}

    def _clear(self, name: str) -> None:
        """Leave the operator no work with what has been told."""
        self.kubelet.callers.pop(name, None)
        self._api.delete("ModelDeployment", name, self._namespace)
