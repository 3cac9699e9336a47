"""What is told of roll-outs in a world of memory, and how it reads."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rollway_operator.conditions import with_stalled
from rollway_operator.domain import Key
from rollway_operator.measurements import Measurement
from rollway_operator.messages import document, slack
from rollway_operator.notify import EVENTS, Notice, Receiver, notices
from rollway_testing.world import Nature, World

ROOT = Path(__file__).parents[3]
VALUES = json.loads((ROOT / "charts" / "rollway" / "values.schema.json").read_text())
SCHEMA = json.loads((ROOT / "docs" / "notification.schema.json").read_text())
DOCUMENT = (ROOT / "docs" / "notifications.md").read_text()
STEPS = [{"setWeight": 10}, {"pause": {"duration": "10s"}}, {"setWeight": 50}, {"pause": {"duration": "10s"}}]


@dataclass
class Told:
    """A world, and the notices of every status that was written in it."""

    world: World
    notices: list[Notice] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        metadata = {"name": "fraud", "namespace": "team-a", "uid": "u", "generation": self.world.generation}
        return {"metadata": metadata, "spec": self.world.spec}

    def reconcile(self) -> None:
        """Make a pass and tell, as apply does once the status is written."""
        before, evidence = self.world.status, self.world.plan().evidence
        self.world.reconcile()
        after = self.world.status
        if after != before:
            self.notices += notices(self.body(), before, after, evidence, self.world.now)

    def until(self, holds: Callable[["Told"], bool], seconds: int = 600) -> None:
        for _ in range(seconds):
            if holds(self):
                return
            self.reconcile()
            self.world.tick()
        raise AssertionError(f"not within {seconds} s: {self.world.status}, told {self.events}")

    def rests(self, seconds: int = 20) -> None:
        """Have some time pass."""
        for _ in range(seconds):
            self.reconcile()
            self.world.tick()

    @property
    def events(self) -> list[str]:
        return [notice.event for notice in self.notices]


def canary(nature: Nature = Nature.GOOD, *, rate: float = 200, **spec: Any) -> Told:
    """Version 1 serves callers, and the alias moves to version 2."""
    world = World(natures={"2": nature}, gateway=True, templates={"chargeback": "chargebacks"})
    world.spec = {
        "model": {"name": "fraud", "alias": "champion"},
        "predictor": {"replicas": 2},
        "strategy": {"canary": {"steps": STEPS}},
    } | spec
    told = Told(world)
    told.until(lambda told: "Promoted" in told.events)
    told.notices.clear()
    world.rate, world.target = rate, "2"
    return told


def event(name: str) -> Callable[[Told], bool]:
    return lambda told: name in told.events


def rolled_back() -> Told:
    told = canary(Nature.ERRING)
    told.until(event("RolledBack"))
    return told


def promoted() -> Told:
    told = canary()
    told.until(event("Promoted"))
    return told


def held_for_evidence() -> Told:
    told = canary(rate=0.2)
    told.until(event("EvidenceMissing"))
    return told


def held_for_a_person() -> Told:
    told = canary(
        strategy={"canary": {"steps": [{"setWeight": 10}, {"pause": {"duration": "20s"}}, {"pause": {}}]}}
    )
    told.until(event("Paused"))
    return told


def stalled() -> Told:
    told = canary(Nature.BROKEN)
    told.until(event("Stalled"))
    return told


STORIES: dict[str, Callable[[], Told]] = {
    "RolledBack": rolled_back,
    "Paused": held_for_a_person,
    "EvidenceMissing": held_for_evidence,
    "Promoted": promoted,
    "Stalled": stalled,
}


@functools.cache
def last(name: str) -> Notice:
    """The notice that a story ends with; the story itself is not gone on with."""
    return STORIES[name]().notices[-1]


def commands(notice: Notice) -> list[str]:
    return [command.line.rpartition(" ")[2] for command in notice.commands]


def test_there_is_a_story_for_each_event() -> None:
    assert tuple(STORIES) == EVENTS


def test_the_schemas_of_the_charts_values_and_of_a_notification_know_the_same_events() -> None:
    asked = VALUES["$defs"]["receiver"]["properties"]["events"]["items"]["enum"]
    told = SCHEMA["properties"]["event"]["enum"]
    assert (tuple(asked), tuple(told)) == (EVENTS, EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_is_told_once_however_often_it_is_looked_at_and_by_whichever_operator(name: str) -> None:
    told = STORIES[name]()
    told.rests()
    assert told.events == [name]
    assert told.notices[0].key == Key("team-a", "fraud")
    assert told.notices[0].model == {"name": "fraud", "alias": "champion"}
    told.world.forget()
    told.reconcile()
    assert told.events == [name]


def test_a_rollback_has_the_numbers_that_decided_and_the_words_of_the_limit() -> None:
    notice = last("RolledBack")
    stable, subject = notice.stable["revision"], notice.subject["revision"]
    assert notice.reason == "AnalysisFailed"
    assert notice.message.startswith("v2: canary error rate ")
    assert notice.message.endswith("by more than 2% (AnalysisFailed); rolled back from 10 %; v1 serves")
    assert notice.subject["version"] == "2"
    assert notice.subject["weight"] == 10
    assert notice.stable["version"] == "1"
    assert not notice.previous
    failed = next(result for result in notice.evidence if result["name"] == "error-rate")
    assert failed["phase"] == "Failed"
    assert failed["threshold"] == "<= 0.02"
    assert float(failed["interval"][0]) > 0.02
    assert failed["samples"] > 0
    assert commands(notice) == [f"rollway.dev/ack={stable}", f"rollway.dev/retry={subject}"]


def test_a_rollback_by_an_administrators_query_has_what_it_measured() -> None:
    template = {"name": "chargebacks", "templateRef": {"name": "chargeback"}, "interval": "10s", "count": 3}
    told = canary(analysis={"metrics": [template | {"thresholdRange": {"max": "0.5"}}]})
    told.world.answers = Measurement(0.75)
    told.until(event("RolledBack"))
    [result] = told.notices[0].evidence
    assert (result["name"], result["value"], result["phase"]) == ("chargebacks", "0.75", "Failed")
    assert "interval" not in result


def test_a_promotion_says_why_and_how_to_go_back() -> None:
    notice = last("Promoted")
    assert (notice.reason, notice.message) == (
        "AnalysisSucceeded",
        "v2 serves in the place of v1: every metric has passed",
    )
    assert {result["phase"] for result in notice.evidence} == {"Successful"}
    assert notice.subject["version"] == notice.stable["version"] == "2"
    assert commands(notice) == [f"rollway.dev/undo={notice.previous['revision']}"]


def test_the_first_version_has_nothing_to_go_back_to() -> None:
    told = Told(World())
    told.until(event("Promoted"))
    (notice,) = told.notices
    assert notice.message == "v1 serves: its gates passed"
    assert commands(notice) == ["team-a"]


def test_what_waits_for_a_person_says_what_to_type_once() -> None:
    notice = last("Paused")
    revision = notice.subject["revision"]
    assert notice.reason == "PauseStep"
    assert notice.message.endswith("waits for a person")
    assert commands(notice) == [f"rollway.dev/promote={revision}", f"rollway.dev/abort={revision}"]


def test_each_step_that_waits_for_a_person_is_told() -> None:
    steps: list[Any] = [{"setWeight": 10}, {"pause": {}}, {"pause": {}}]
    told = canary(strategy={"canary": {"steps": steps}})
    told.until(event("Paused"))
    told.world.say("promote", told.notices[0].subject["revision"], "1")
    told.until(lambda told: told.events == ["Paused", "Promoted"])


def test_a_failure_that_a_person_decides_about_has_both_ways_out() -> None:
    told = canary(Nature.ERRING, rollback={"mode": "Manual"})
    told.until(event("Paused"))
    notice = told.notices[0]
    assert notice.reason == "RollbackHeld"
    assert notice.message.endswith("by more than 2%")
    assert notice.evidence
    assert len(notice.commands) == 2


def test_a_version_that_waits_for_approval_can_only_be_promoted() -> None:
    told = Told(World())
    told.world.edit(model={"name": "fraud", "alias": "champion", "updatePolicy": "Manual"})
    told.until(event("Promoted"))
    told.world.target = "2"
    told.until(event("Paused"))
    notice = told.notices[-1]
    assert (notice.reason, notice.message) == ("AwaitingPromote", "v2 waits for a person")
    assert commands(notice) == [f"rollway.dev/promote={notice.subject['revision']}"]


def test_missing_evidence_is_told_with_what_is_missing() -> None:
    notice = last("EvidenceMissing")
    assert "samples" in notice.message
    assert all(result["phase"] == "Inconclusive" for result in notice.evidence)


def test_missing_evidence_at_each_step_of_one_rollout_has_one_id() -> None:
    told = canary(rate=20, analysis={"metrics": [{"name": "error-rate", "minSamples": 50}]})
    told.until(event("Promoted"), 3000)
    held = [notice for notice in told.notices if notice.event == "EvidenceMissing"]
    assert len(held) > 1
    assert len({notice.id for notice in held}) == 1


def test_a_model_that_fails_its_gates_is_stalled_and_not_rolled_back() -> None:
    told = stalled()
    told.rests()
    (notice,) = told.notices
    assert notice.reason == "SmokeTestFailed"
    assert notice.subject["version"] == "2"
    assert [line.partition("=")[0] for line in commands(notice)] == ["rollway.dev/ack", "rollway.dev/retry"]


def test_what_a_person_does_is_not_told_to_people() -> None:
    told = canary()
    told.until(lambda told: told.world.status.get("canary", {}).get("weight") == 10)
    told.world.say("pause", told.world.status["stable"]["revision"])
    told.rests(5)
    assert told.world.condition("Paused")
    told.world.say("abort", told.world.status["canary"]["revision"])
    told.rests()
    assert told.world.status["history"][-1]["reason"] == "Aborted"
    assert told.events == []


@pytest.mark.parametrize(("reason", "told"), [("AnalysisFailed", 1), ("Aborted", 0), ("Undone", 0)])
def test_a_rollback_is_what_no_person_did(reason: str, told: int) -> None:
    ended = {"revision": "fraud-2", "version": "2", "outcome": "Aborted", "reason": reason}
    closed = {"revision": "fraud-2", "version": "2", "reason": reason, "message": "v2: worse", "weight": 10}
    after = {"history": [ended | {"finishedAt": "2026-01-01T00:00:00Z"}], "model": {"closed": closed}}
    world = World()
    assert len(notices(Told(world).body(), {}, after, (), world.now)) == told


def test_a_pass_that_cannot_be_made_is_told_once() -> None:
    told = promoted()
    body, before = told.body(), told.world.status
    refused = with_stalled(before, "WriteRefused", "the quota is used up", 1, told.world.now)
    (notice,) = notices(body, before, refused, (), told.world.now)
    assert (notice.event, notice.reason, notice.message) == (
        "Stalled",
        "WriteRefused",
        "the quota is used up",
    )
    assert [command.line for command in notice.commands] == ["kubectl describe mdep fraud --namespace team-a"]
    again = with_stalled(refused, "WriteRefused", "the quota is used up still", 1, told.world.now)
    assert notices(body, refused, again, (), told.world.now) == ()


def test_the_same_failure_of_the_same_version_after_a_retry_is_told_again() -> None:
    told = rolled_back()
    told.world.say("retry", told.notices[0].subject["revision"])
    told.until(lambda told: told.events == ["RolledBack", "RolledBack"])
    assert len({notice.id for notice in told.notices}) == 2


def test_equal_statuses_give_equal_notices() -> None:
    assert rolled_back().notices == [last("RolledBack")]


def test_a_lost_status_tells_no_end_of_a_rollout_again() -> None:
    told = promoted()
    told.world.status = {}
    told.rests()
    assert told.events == ["Promoted"]


@pytest.mark.parametrize("name", EVENTS)
def test_every_document_is_as_the_schema_says(name: str) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document(last(name)))


@pytest.mark.parametrize("name", EVENTS)
def test_the_documentation_shows_what_is_really_sent(name: str) -> None:
    notice = last(name)
    assert f"```text\n{slack(notice)['text']}\n```" in DOCUMENT
    if name == "RolledBack":
        assert f"```json\n{json.dumps(document(notice), indent=2, ensure_ascii=False)}\n```" in DOCUMENT


def test_the_words_of_others_mention_nobody_and_link_nowhere() -> None:
    notice = replace(last("Stalled"), message="v2: <!channel> & <https://evil.example|click>")
    text = slack(notice)["text"]
    assert "<" not in text
    assert "&lt;!channel&gt; &amp; &lt;https" in text


def test_a_text_is_cut_to_what_a_chat_takes() -> None:
    assert len(slack(replace(last("Stalled"), message="x" * 10_000))["text"]) == 4000


@pytest.mark.parametrize(
    ("events", "namespaces", "wanted"),
    [
        (EVENTS, (), True),
        (("Stalled",), ("team-a",), True),
        (("Promoted",), (), False),
        (EVENTS, ("team-b",), False),
    ],
)
def test_a_receiver_is_told_what_it_wants(
    events: tuple[str, ...], namespaces: tuple[str, ...], wanted: bool
) -> None:
    receiver = Receiver("ops", "slack", Path("/none"), "", events, namespaces)
    assert receiver.wants(last("Stalled")) is wanted
