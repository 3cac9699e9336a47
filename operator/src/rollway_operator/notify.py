"""What is worth telling people of a status that was written: equal statuses give equal notices, and the same none.

    status before ─┐
                   ├─► notices: RolledBack, Paused, EvidenceMissing, Promoted, Stalled
    status after ──┘

A notice follows from two statuses and nothing else. Since a status is written on the very object that was read, each
step from one to the next is seen once: a pass that is run again, or another operator, finds nothing more to say.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from rollway_operator import labels
from rollway_operator.conditions import without_commands
from rollway_operator.domain import BY_PERSON, PROMOTED, Key, Object

EventName = Literal["RolledBack", "Paused", "EvidenceMissing", "Promoted", "Stalled"]
"""What notices are about."""

EVENTS: Final[tuple[EventName, ...]] = get_args(EventName)

DEFAULT_EVENTS: Final[tuple[EventName, ...]] = ("RolledBack", "Paused", "Promoted", "Stalled")
"""What a receiver that names none is told: nearly every rollout waits for evidence for a moment, then goes on."""

ROLLED_BACK: Final = "RolledBack"
EVIDENCE_MISSING: Final = "EvidenceMissing"
PAUSED: Final = "Paused"
STALLED: Final = "Stalled"

_PAUSED_BY_PERSON: Final = ("PausedBySpec", "PausedByVerb")
"""Reasons of Paused that somebody wrote: whoever did knows."""

Status = Mapping[str, Any]
"""The status of a ModelDeployment, as the API server's JSON has it."""


@dataclass(frozen=True)
class Receiver:
    """Who is told what, as the administrator defined it in the chart's values."""

    name: str
    type: Literal["slack", "webhook"]
    url_file: Path
    """Where the Secret's key is mounted; the address in it is a secret by itself."""
    secret: str
    """The Secret and its key in words, for messages."""
    events: tuple[str, ...] = DEFAULT_EVENTS
    namespaces: tuple[str, ...] = ()
    """The namespaces of which it is told; empty means all."""

    def wants(self, notice: "Notice") -> bool:
        """Whether it is told of this."""
        return notice.event in self.events and (
            not self.namespaces or notice.key.namespace in self.namespaces
        )


@dataclass(frozen=True)
class Command:
    """What a person may type, and what for."""

    purpose: str
    line: str


@dataclass(frozen=True)
class Notice:
    """One thing that happened to one ModelDeployment, with all that is known of it."""

    id: str
    """The same whenever the same is told: receivers discard by it what they have already."""
    event: str
    reason: str
    message: str
    at: datetime
    key: Key
    uid: str
    generation: int
    model: Mapping[str, str]
    """Name and, where one is followed, alias."""
    subject: Mapping[str, Any]
    """The revision that it is about: revision, version and what else is known of it; empty where it is about none."""
    stable: Mapping[str, Any]
    """The revision that serves now; empty while none does."""
    previous: Mapping[str, Any]
    """The revision that served before; empty unless another one does now."""
    evidence: tuple[Mapping[str, Any], ...]
    """What each metric said, as in `status.analysis.metricResults`."""
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class _News:
    """What tells one notice from another, before the facts that all have."""

    event: str
    reason: str
    message: str
    subject: Mapping[str, Any]
    occasion: str
    """What tells it from another one of the same event, reason and revision: a time, a step."""
    wishes: Sequence[tuple[str, str, str]] = ()
    """Verb, revision and purpose of what a person may want now."""
    evidence: Sequence[Mapping[str, Any]] = ()


def notices(
    body: Object, before: Status, after: Status, evidence: Sequence[Mapping[str, Any]], at: datetime
) -> tuple[Notice, ...]:
    """Say what happened to a ModelDeployment between two statuses of it.

    `evidence` is what the metrics said when the later one was decided.
    """
    told = (
        *_ended(before, after, evidence),
        *_new(_waiting(before), _waiting(after)),
        *_new(_stalled(before), _stalled(after)),
    )
    return tuple(_notice(body, before, after, news, at) for news in told)


def _ended(before: Status, after: Status, evidence: Sequence[Mapping[str, Any]]) -> Iterator[_News]:
    """Tell of rollouts that ended: promoted, or rolled back from some traffic."""
    known = before.get("history", ())
    # Without a value a metric says nothing of what is over.
    measured = [result for result in evidence if "value" in result]
    for entry in after.get("history", ()):
        if entry in known:
            continue
        if entry["outcome"] == PROMOTED:
            yield _promoted(before, entry, measured)
        elif (closed := _rolled_back(after, entry)) is not None:
            yield _given_up(after, entry, closed, measured)


def _promoted(before: Status, entry: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> _News:
    why = before.get("canary", {}).get("promoting") or "its gates passed"
    left = _other(before.get("stable", {}), entry["revision"])
    place = f" in the place of v{left['version']}" if left else ""
    wishes = [("undo", left["revision"], f"go back to v{left['version']}")] if left else ()
    message = f"v{entry['version']} serves{place}: {why}"
    return _News(PROMOTED, entry["reason"], message, _named(entry), entry["finishedAt"], wishes, measured)


def _rolled_back(after: Status, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Give what is closed, where the rollout that ended had traffic and no person ended it (ADR 0025)."""
    closed: Mapping[str, Any] = after.get("model", {}).get("closed") or {}
    ended = closed.get("revision") == entry["revision"] and closed.get("weight") is not None
    return closed if ended and closed["reason"] not in BY_PERSON else None


def _given_up(
    after: Status,
    entry: Mapping[str, Any],
    closed: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]],
) -> _News:
    serves = f"; v{after['stable']['version']} serves" if "stable" in after else ""
    why = f"{closed['message']} ({closed['reason']}); rolled back from {closed['weight']} %{serves}"
    subject = _named(entry) | {"weight": closed["weight"]}
    wishes = _after_a_failure(after, closed)
    return _News(ROLLED_BACK, closed["reason"], why, subject, entry["finishedAt"], wishes, measured)


def _waiting(status: Status) -> _News | None:
    """Say what the status waits for: a person, or evidence."""
    condition = _condition(status, PAUSED)
    if condition is None or condition["reason"] in _PAUSED_BY_PERSON:
        return None
    reason, canary, model = condition["reason"], status.get("canary", {}), status.get("model", {})
    event = EVIDENCE_MISSING if reason == EVIDENCE_MISSING else PAUSED
    subject, occasion = canary, str(canary.get("startedAt"))
    if reason == "StateRebuilt":
        subject, occasion = status.get("stable", {}), str(condition["lastTransitionTime"])
    elif reason == "AwaitingPromote" and canary.get("revision") != model.get("targetRevision"):
        subject, occasion = _target(model), str(model.get("targetSince"))
    elif reason == "PauseStep":
        occasion += f" step {canary.get('currentStepIndex')}"
    return _News(
        event,
        reason,
        without_commands(condition["message"]),
        _named(subject),
        occasion,
        _while_waiting(status, reason, subject),
        status.get("analysis", {}).get("metricResults", ()) if subject is canary else (),
    )


def _target(model: Mapping[str, Any]) -> Mapping[str, Any]:
    if "targetRevision" not in model:
        return {}
    return {"revision": model["targetRevision"], "version": model.get("targetVersion", "")}


def _while_waiting(status: Status, reason: str, subject: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    if not subject:
        return []
    revision, version = subject["revision"], subject["version"]
    if reason == "StateRebuilt":
        return [("resume", revision, "go on")]
    on = (
        f"give v{version} more traffic without waiting"
        if reason == EVIDENCE_MISSING
        else f"let v{version} go on"
    )
    wishes = [("promote", revision, on)]
    if status.get("canary", {}).get("revision") == revision:
        wishes.append(("abort", revision, f"give v{version} up"))
    return wishes


def _stalled(status: Status) -> _News | None:
    """Say why the status does not go on; what was rolled back is told by its end."""
    condition = _condition(status, STALLED)
    if condition is None or condition["reason"] == ROLLED_BACK:
        return None
    closed = status.get("model", {}).get("closed") or {}
    reason, since = condition["reason"], condition["lastTransitionTime"]
    if closed.get("reason") != reason:
        return _News(STALLED, reason, condition["message"], _named(status.get("canary", {})), since)
    wishes = _after_a_failure(status, closed)
    return _News(STALLED, reason, condition["message"], _named(closed), closed.get("since", since), wishes)


def _after_a_failure(status: Status, closed: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    again = ("retry", closed["revision"], f"try v{closed['version']} again")
    if "stable" not in status:
        return [again]
    return [("ack", status["stable"]["revision"], "take note, so that Stalled goes"), again]


def _new(before: _News | None, after: _News | None) -> Iterator[_News]:
    """Tell what holds now unless the same held before, whatever its words and numbers were."""
    if after and (before is None or _tag(before) != _tag(after)):
        yield after


def _tag(news: _News) -> tuple[str, ...]:
    return (news.event, news.reason, str(news.subject.get("revision", "")), news.occasion)


def _notice(body: Object, before: Status, after: Status, news: _News, at: datetime) -> Notice:
    metadata, model = body["metadata"], body.get("spec", {}).get("model", {})
    key = Key(metadata["namespace"], metadata["name"])
    look = Command("look at it", f"kubectl describe mdep {key.name} --namespace {key.namespace}")
    commands = tuple(
        Command(purpose, labels.command(verb, key.namespace, key.name, revision))
        for verb, revision, purpose in news.wishes
    )
    stable = _named(after.get("stable", {}))
    tag = "\n".join((metadata["uid"], *_tag(news)))
    return Notice(
        id=hashlib.sha256(tag.encode()).hexdigest()[:32],
        event=news.event,
        reason=news.reason,
        message=news.message,
        at=at,
        key=key,
        uid=metadata["uid"],
        generation=metadata["generation"],
        model={part: model[part] for part in ("name", "alias") if part in model},
        subject=news.subject,
        stable=stable,
        previous=_named(_other(before.get("stable", {}), stable.get("revision"))),
        evidence=tuple(news.evidence),
        commands=commands or (look,),
    )


def _condition(status: Status, type_: str) -> Mapping[str, Any] | None:
    """Give a condition while it is True."""
    return next(
        (each for each in status.get("conditions", ()) if each["type"] == type_ and each["status"] == "True"),
        None,
    )


def _other(revision: Mapping[str, Any], name: str | None) -> Mapping[str, Any]:
    return revision if revision.get("revision") != name else {}


def _named(revision: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a revision in status what names it and says where it stands; nothing of none."""
    kept = ("revision", "version", "digest", "weight", "currentStepIndex")
    return {part: revision[part] for part in kept if part in revision}
