"""Two operators whose lease is in trouble: one is frozen at each of its writes, or no call for the lease succeeds."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rollway_faultproxy.rules import Answer, Freeze, Match, Rule
from rollway_testing.controlplane import ControlPlane
from rollway_testing.faults import FaultProxy
from rollway_testing.kills import FIRST, SECOND, Calm, Lane, Point, Tale, differences_of, end_of, until_ended
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story
from rollway_testing.waiting import eventually, throughout

_NUMBERS = itertools.count(1)
VERSION_CHANGE = Tale("version change", (FIRST,), SECOND)


class Pair:
    """A namespace with two operators, each behind a proxy of its own, so that it is known who wrote."""

    def __init__(self, plane: ControlPlane, folder: Path, namespace: str, model: str) -> None:
        self.api = plane.api
        self.first_proxy, self.second_proxy = (
            FaultProxy(folder / name, kubeconfig=plane.kubeconfig).start() for name in ("one", "two")
        )
        self.lane = Lane.on(plane, self.first_proxy, folder, namespace, model)
        self.first = self.lane.operator
        self.second = OperatorProcess(
            folder / f"{namespace}-two",
            self.second_proxy.kubeconfig,
            namespace=namespace,
            serves=namespace,
            resync=1,
        )

    def start(self) -> None:
        """Start both; the first leads."""
        self.first.start()
        self.until_led_by(self.first)
        self.second.start()

    def stop(self) -> None:
        """Stop all of it."""
        for process in (self.first, self.second, self.first_proxy, self.second_proxy):
            process.stop()
        self.api.delete("Namespace", self.lane.namespace)

    def story(self) -> Story:
        """Give a ModelDeployment whose operators nobody starts again."""
        story = self.lane.story()
        story.meanwhile = lambda: None
        return story

    def told(self, story: Story, step: Any) -> None:
        step.act(story)
        until_ended(story, step)

    def leader(self) -> str:
        lease = self.api.get("Lease", "rollway-operator", self.lane.namespace)
        return str((lease or {}).get("spec", {}).get("holderIdentity", ""))

    def until_led_by(self, operator: OperatorProcess, within: float = 30) -> None:
        eventually(
            self.leader,
            lambda name: name == operator.identity,
            within=within,
            what=f"{operator.identity} leads",
        )


def writes(proxy: FaultProxy, after: int = 0) -> list[dict[str, Any]]:
    return [call for call in proxy.calls(after) if call["mutating"] and call["resource"] != "leases"]


@pytest.fixture(scope="module")
def new_pair(
    plane: ControlPlane,
    two_versions: RegisteredModel,
    registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Pair]]:
    """Make pairs, each in a namespace of its own."""
    pairs: list[Pair] = []

    def make(namespace: str) -> Pair:
        pairs.append(Pair(plane, tmp_path_factory.mktemp(namespace), namespace, two_versions.name))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.stop()


@pytest.fixture
def pair(new_pair: Callable[[str], Pair], alone: None) -> Iterator[Pair]:
    """Two operators, running."""
    made = new_pair(f"leaders-{next(_NUMBERS)}")
    made.start()
    yield made
    made.stop()


@pytest.mark.thorough
def test_while_calls_for_the_lease_fail_nothing_is_written_and_nobody_ends(pair: Pair) -> None:
    story = pair.story()
    pair.told(story, FIRST)
    for proxy in (pair.first_proxy, pair.second_proxy):
        proxy.put("lease", Rule(match=Match(resource="leases"), action=Answer(status=500)))
    # The deadline by which a leader gives up, and the time that its last call may take.
    throughout(lambda: pair.first.running, bool, seconds=16, what="it runs")
    marks = [len(writes(proxy)) for proxy in (pair.first_proxy, pair.second_proxy)]
    SECOND.act(story)
    throughout(
        lambda: [len(writes(proxy)) for proxy in (pair.first_proxy, pair.second_proxy)],
        lambda now: now == marks,
        seconds=60,
        what="nobody writes",
    )
    for proxy in (pair.first_proxy, pair.second_proxy):
        assert proxy.fired("lease")
        proxy.clear()
    until_ended(story, SECOND)
    assert pair.first.running
    assert pair.second.running


@pytest.mark.thorough
def test_a_leader_frozen_at_a_write_has_at_most_that_one_arrive(
    new_pair: Callable[[str], Pair], alone: None
) -> None:
    calm = _calm(new_pair("frozen-calm"))
    points = [point for point in calm.points if point.when == "before"]
    seconds = 60.0
    with ThreadPoolExecutor(8) as pool:
        told = [
            pool.submit(_tell_frozen, new_pair(f"frozen-{number}"), calm, point, seconds)
            for number, point in enumerate(points)
        ]
        lines = [telling.result() for telling in told]
    print("", *lines, sep="\n")
    assert not [line for line in lines if not line.endswith("same end")]


def _calm(pair: Pair) -> Calm:
    try:
        return pair.lane.tell(VERSION_CHANGE)
    finally:
        pair.stop()


def _tell_frozen(pair: Pair, calm: Calm, point: Point, seconds: float) -> str:
    try:
        pair.start()
        story = pair.story()
        pair.told(story, FIRST)
        pair.lane.until_quiet()
        match = Match(verb=point.verb, resource=point.resource, namespace=pair.lane.namespace, mutating=True)
        freeze = Freeze(pid=pair.first.pid, seconds=seconds)
        pair.first_proxy.put("freeze", Rule(match=match, action=freeze, skip=point.nth - 1, times=1))
        SECOND.act(story)
        until_ended(story, SECOND)
        if not pair.first_proxy.fired("freeze"):
            return f"no such write: {point}: same end"
        thawed = eventually(
            lambda: pair.lane.api.get("Lease", "rollway-operator", pair.lane.namespace),
            lambda lease: (lease or {})["spec"]["holderIdentity"] == pair.second.identity,
            within=seconds,
            what="the other leads",
        )
        assert thawed
        # Long enough for the frozen one to be let go, and to do harm if it could.
        throughout(lambda: pair.second.running, bool, seconds=seconds, what="it runs")
        (fired,) = (call["number"] for call in pair.first_proxy.calls() if call["rule"] == "freeze")
        late = writes(pair.first_proxy, fired)
        assert pair.first.running
        wrong = differences_of(end_of(story), calm.end)
        end = f"DIFFERENT {wrong}" if wrong else f"it wrote {len(late)}" if late else "same end"
        return f"frozen {seconds:.0f} s at {point}: {end}"
    finally:
        pair.stop()
