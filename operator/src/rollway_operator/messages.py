"""How a notice reads: as JSON for programs, docs/notifications.md is its reference, and as text for a chat."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rollway_operator.api.v1alpha1 import API_VERSION
from rollway_operator.domain import timestamp
from rollway_operator.notify import Notice, Receiver

NOTIFICATION_VERSION: Final = "notifications.rollway.dev/v1"
"""The version of the JSON: fields are added to it, none is taken away and none changes its meaning."""

_LONGEST_TEXT: Final = 4000
"""Slack cuts a message's text after so many characters."""

_ESCAPED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""What Slack reads as a mention or a link otherwise; the names and messages in a notice are others' words."""


def body_for(receiver: Receiver, notice: Notice) -> dict[str, Any]:
    """Give the JSON object that a receiver is sent."""
    return slack(notice) if receiver.type == "slack" else document(notice)


def document(notice: Notice) -> dict[str, Any]:
    """Write all facts; what is not known is left out."""
    told = {
        "apiVersion": NOTIFICATION_VERSION,
        "kind": "Notification",
        "id": notice.id,
        "event": notice.event,
        "reason": notice.reason,
        "message": notice.message,
        "time": timestamp(notice.at),
        "object": {
            "apiVersion": API_VERSION,
            "kind": "ModelDeployment",
            "namespace": notice.key.namespace,
            "name": notice.key.name,
            "uid": notice.uid,
            "generation": notice.generation,
        },
        "model": dict(notice.model),
        "subject": dict(notice.subject),
        "stable": dict(notice.stable),
        "previous": dict(notice.previous),
        "evidence": [dict(result) for result in notice.evidence],
        "commands": [{"purpose": each.purpose, "command": each.line} for each in notice.commands],
    }
    return {field: value for field, value in told.items() if value not in ({}, [])}


def slack(notice: Notice) -> dict[str, Any]:
    """Write the text of an incoming webhook of Slack, or of what takes the same."""
    text = "\n".join(_lines(notice))
    return {"text": text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"}


def _lines(notice: Notice) -> Iterator[str]:
    of = "@".join(notice.model.values())
    yield f"*{notice.event}* {notice.key.namespace}/{notice.key.name} ({_escaped(of)})"
    yield _escaped(notice.message)
    for result in notice.evidence:
        yield f"• {_escaped(_measured(result))}"
    revisions = {"about": notice.subject, "serves": notice.stable, "served before": notice.previous}
    told = [f"{role} v{each['version']} {each['revision']}" for role, each in revisions.items() if each]
    if told:
        yield _escaped("; ".join(told))
    for command in notice.commands:
        yield f"{_escaped(command.purpose)}: `{command.line}`"


def _measured(result: Mapping[str, Any]) -> str:
    """Write one metric with its numbers: `error-rate 0.2 [0.103, 0.351], limit <= 0.02, 412 samples: Failed`."""
    interval = f" [{', '.join(result['interval'])}]" if "interval" in result else ""
    value = f" {result['value']}" if "value" in result else ""
    limit = f", limit {result['threshold']}" if "threshold" in result else ""
    why = f" ({result['message']})" if "message" in result and not interval else ""
    return f"{result['name']}{value}{interval}{limit}, {result['samples']} samples: {result['phase']}{why}"


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(character, character) for character in text)
