"""What a decision and the cluster mean in conditions, phase and one message; transitions keep their time."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rollway_operator.api.v1alpha1 import Condition
from rollway_operator.errors import NameConflictError

Fact = tuple[bool | None, str, str]
"""Whether a condition holds (None: unknown), its reason, its message."""

ABNORMAL = ("Reconciling", "Stalled")
"""Conditions that are present only while they hold."""

MESSAGE_LENGTH = 1024

_STATUS = {True: "True", False: "False", None: "Unknown"}
_HOLDS = {status: holds for holds, status in _STATUS.items()}


def merge(
    previous: Iterable[Condition], facts: Mapping[str, Fact], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Give the whole list of conditions: a status that did not change keeps its lastTransitionTime."""
    before = {condition.type: condition for condition in previous}
    merged = []
    for type_, (holds, reason, message) in sorted(facts.items()):
        if type_ in ABNORMAL and not holds:
            continue
        old = before.get(type_)
        changed = old is None or old.status != _STATUS[holds]
        merged.append(
            {
                "type": type_,
                "status": _STATUS[holds],
                "observedGeneration": generation,
                "lastTransitionTime": timestamp(now if changed or old is None else old.last_transition_time),
                "reason": reason,
                "message": message[:MESSAGE_LENGTH],
            }
        )
    return merged


def phase(facts: Mapping[str, Fact], *, serves: bool) -> str:
    """Sum the conditions up for people; `serves` says whether any revision was ever promoted."""
    if facts["Stalled"][0] or (serves and not facts["Ready"][0]):
        return "Degraded"
    if facts["ModelResolved"][0] is False and not serves:
        return "Pending"
    if facts["Reconciling"][0]:
        return "Progressing"
    return "Healthy" if facts["Ready"][0] else "Pending"


def timestamp(moment: datetime) -> str:
    """Write a time as the Kubernetes API does: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def with_conflict(
    status: Mapping[str, Any], error: NameConflictError, generation: int, now: datetime
) -> dict[str, Any]:
    """Add Stalled/NameConflict to the status that is there; all else stays as it was."""
    previous = [Condition.model_validate(condition) for condition in status.get("conditions", ())]
    facts: dict[str, Fact] = {
        condition.type: (_HOLDS[condition.status], condition.reason, condition.message)
        for condition in previous
    }
    facts.setdefault("Ready", (False, "NameConflict", str(error)))
    facts["Stalled"] = (True, "NameConflict", str(error))
    return {
        **status,
        "observedGeneration": generation,
        "phase": "Degraded",
        "message": str(error)[:MESSAGE_LENGTH],
        "conditions": merge(previous, facts, generation, now),
    }
