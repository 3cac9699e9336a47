"""An API server in trouble: the version asked for serves in the end, no hand is needed, and restarts are counted."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from rollway_faultproxy.rules import Answer, Cut, Delay, HalfClose, Hold, Match, Rule, Watch
from rollway_testing.faults import FaultProxy
from rollway_testing.kills import FIRST, SECOND, Lane, until_ended
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import Story, condition
from rollway_testing.waiting import throughout

ANYTHING_BUT_THE_LEASE = "(?!lease).*"
WRITES = Match(mutating=True, resource=ANYTHING_BUT_THE_LEASE)
WATCHES = Match(verb="watch")


def refusal(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def answer(code: int, reason: str, message: str, retry_after: str = "") -> Answer:
    text = json.dumps(refusal(code, reason, message))
    headers = {"Content-Type": "application/json"} | ({"Retry-After": retry_after} if retry_after else {})
    return Answer(status=code, headers=headers, body=text)


def in_the_watch(code: int, reason: str, message: str) -> Watch:
    return Watch(inject=({"type": "ERROR", "object": refusal(code, reason, message)},), after=0.5)


EXPIRED = 410, "Expired", "too old resource version: 1 (2)"
LEADER_CHANGED = 500, "InternalError", "etcdserver: leader changed"
TIMED_OUT = 504, "Timeout", "Timeout: request did not complete within the allotted timeout"
CONFLICT = 409, "Conflict", "the object has been modified; please apply your changes to the latest version"
BUSY = 429, "TooManyRequests", "too many requests, please try again later"
DOWN = 503, "ServiceUnavailable", "the server is currently unable to handle the request"
UNAUTHORIZED = 401, "Unauthorized", "Unauthorized"


@dataclass(frozen=True)
class Trouble:
    """What is wrong, and for how long."""

    rule: Rule
    lasts: float = 0.0
    """Seconds; 0 where the rule says how often."""
    lasts_thoroughly: float = 0.0
    at_first: bool = False
    """Whether the operator is also started amid the trouble."""


TROUBLES = {
    "410 in the watch": Trouble(Rule(match=WATCHES, action=in_the_watch(*EXPIRED), times=4)),
    "410 instead of a watch": Trouble(Rule(match=WATCHES, action=answer(*EXPIRED), times=4)),
    "500 in the watch": Trouble(Rule(match=WATCHES, action=in_the_watch(*LEADER_CHANGED), times=2)),
    "504 in the watch": Trouble(Rule(match=WATCHES, action=in_the_watch(*TIMED_OUT), times=2)),
    "the watch cut every 2 s": Trouble(Rule(match=WATCHES, action=Watch(close_after=2)), 8, 60),
    "a silent watch": Trouble(Rule(match=WATCHES, action=Watch(silent=True)), 8, 90),
    "409 on writes": Trouble(Rule(match=WRITES, action=answer(*CONFLICT), times=5)),
    "500 on writes": Trouble(Rule(match=WRITES, action=answer(*LEADER_CHANGED), times=5)),
    "504 on writes that arrived": Trouble(Rule(match=WRITES, action=Cut(when="after"), times=5)),
    "429 with Retry-After": Trouble(Rule(action=answer(*BUSY, retry_after="2"), times=20)),
    "cut connections": Trouble(Rule(action=Cut(when="before"), times=20)),
    "answers cut amid": Trouble(Rule(action=Cut(when="amid"), times=20)),
    "half-closed answers": Trouble(Rule(match=WRITES, action=HalfClose(), times=5)),
    "a slow server": Trouble(
        Rule(match=Match(resource=ANYTHING_BUT_THE_LEASE), action=Delay(seconds=3), times=10)
    ),
    "writes that hang": Trouble(Rule(match=WRITES, action=Hold()), 10, 45),
    "LIST 503": Trouble(Rule(match=Match(verb="list"), action=answer(*DOWN)), 15, 300, at_first=True),
    "everything 503": Trouble(Rule(action=answer(*DOWN)), 15, 120, at_first=True),
    "credentials refused for a while": Trouble(Rule(action=answer(*UNAUTHORIZED)), 12, 60),
}

BRIEFLY = (
    "410 in the watch",
    "500 in the watch",
    "409 on writes",
    "429 with Retry-After",
    "answers cut amid",
)


def has_one_of_each(story: Story) -> bool:
    """Two revisions with one child of each kind, and the Service."""
    own = {
        kind: len(story.children(kind))
        for kind in ("ControllerRevision", "ConfigMap", "Deployment", "Service")
    }
    return own == {"ControllerRevision": 2, "ConfigMap": 2, "Deployment": 2, "Service": 3}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in BRIEFLY else pytest.mark.thorough) for name in TROUBLES]
)
def test_an_api_server_in_trouble_is_lived_through(
    lane: Lane, faults: FaultProxy, alone: None, name: str, thorough: bool
) -> None:
    trouble = TROUBLES[name]
    story = lane.told(FIRST)
    lane.until_quiet()
    old = story.pointed_at()
    before = lane.operator.restarts
    faults.put("trouble", trouble.rule)
    faults.end_streams()
    if trouble.at_first:
        lane.operator.stop()
        lane.operator.launch()
    SECOND.act(story)
    if trouble.lasts:
        throughout(
            lambda: (story.status(), story.pointed_at())[1],
            lambda pointed: pointed is not None,
            seconds=trouble.lasts_thoroughly if thorough else trouble.lasts,
            what="the Service points at a revision",
        )
        assert faults.fired("trouble")
        faults.withdraw("trouble")
    until_ended(story, SECOND)
    lane.until_quiet()
    if not trouble.lasts:
        assert faults.fired("trouble")
    restarts = lane.operator.restarts - before
    print(f"\n{name}: the operator was started again {restarts} times")
    assert restarts == 0
    assert has_one_of_each(story)
    assert story.pointed_at() not in (None, old)
    status = story.status()
    assert condition(status, "Ready")["status"] == "True"
    assert not condition(status, "Stalled")


@pytest.mark.thorough
def test_a_version_that_serves_is_left_alone_while_the_server_is_down(
    lane: Lane, faults: FaultProxy, alone: None, api: Kubernetes
) -> None:
    story = lane.told(FIRST)
    lane.until_quiet()
    before = story.own(), api.get("Service", story.name, story.namespace), story.children("Deployment")
    faults.put("down", Rule(action=answer(*DOWN), match=Match(resource="(?!lease|modelregistr).*")))
    faults.end_streams()
    throughout(story.pointed_at, lambda pointed: pointed is not None, seconds=10, what="it serves")
    assert faults.fired("down")
    faults.withdraw("down")
    lane.until_quiet()
    after = story.own(), api.get("Service", story.name, story.namespace), story.children("Deployment")
    assert after == before
