"""Which revisions are closed: not tried again by themselves, and what opens them again.

                       closed by the operator    rejected: the model's fault    by a person: abort, undo
    retry              opens it                  opens it                       opens it
    the target moves   opens it                  stays closed                   opens it
    the spec changes   another revision is tried, which is open                 the version stays closed

What a version is goes by its number and its download URI. The facts stand in the ControllerRevisions' annotations; the
one that was closed last stands in status, too, which is written first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from rollway_operator.api.v1alpha1 import ClosedStatus, ModelDeploymentStatus
from rollway_operator.domain import PROMOTED, Closing, StoredRevision, timestamp

REJECTED_LIMIT: Final = 20

Fates = Mapping[str, StoredRevision]

_MESSAGE_LENGTH: Final = 1024

_NOT_REJECTING: Final = frozenset({"ProgressDeadlineExceeded", "DeadlineExceeded", "CanaryGatewayErrors"})
"""Ends of a rollout that may be the fault of a slow machine, of callers who sent too little, or of the network."""


def believed(status: ModelDeploymentStatus, revisions: Iterable[StoredRevision]) -> dict[str, StoredRevision]:
    """Give every revision's fate: where status says something else than the annotations, it was written later."""
    fates = {revision.name: revision for revision in revisions}
    told = status.model.closed if status.model else None
    if told and told.revision in fates:
        fates[told.revision] = _as_told(fates[told.revision], told)
    if status.canary and status.canary.revision in fates:
        fates[status.canary.revision] = opened(fates[status.canary.revision])
    if status.stable and status.stable.revision in fates:
        fates[status.stable.revision] = served(fates[status.stable.revision])
    return fates


def _as_told(revision: StoredRevision, told: ClosedStatus) -> StoredRevision:
    closing = Closing(told.since, told.rejected, told.instead, told.under, told.weight)
    return replace(revision, outcome=told.reason, outcome_message=told.message, closing=closing)


def served(revision: StoredRevision) -> StoredRevision:
    """Say that a revision is stable: only a person's undo can have closed it."""
    if revision.closed_by_person:
        return replace(revision, promoted=True)
    return replace(revision, outcome=PROMOTED, outcome_message="", closing=None, promoted=True)


def opened(revision: StoredRevision) -> StoredRevision:
    """Open a revision again."""
    return replace(
        revision, outcome=PROMOTED if revision.promoted else None, outcome_message="", closing=None
    )


def retried(revision: StoredRevision) -> StoredRevision:
    """Open a revision for another try: one that never served is pinned afresh."""
    digest = revision.digest if revision.promoted else revision.inputs.get("digest")
    return replace(opened(revision), digest=digest)


def closed(
    revision: StoredRevision,
    reason: str,
    message: str,
    now: datetime,
    *,
    target: StoredRevision | None,
    instead: str | None = None,
    weight: int | None = None,
) -> StoredRevision:
    """Close a revision that had so much traffic; a model's fault rejects its version, too."""
    fault = replace(revision, outcome=reason)
    closing = Closing(
        since=now.replace(microsecond=0),
        rejected=not fault.closed_by_person and reason not in _NOT_REJECTING,
        instead=instead,
        under=(target or revision).key,
        weight=weight,
    )
    return replace(fault, outcome_message=message[:_MESSAGE_LENGTH], closing=closing)


def never_rejecting(fates: Fates, stable: StoredRevision) -> dict[str, StoredRevision]:
    """Take back that stable's version was rejected, in another shape: it serves."""
    return {
        name: replace(revision, closing=replace(revision.closing or Closing(), rejected=False))
        if revision.rejected and revision.key == stable.key
        else revision
        for name, revision in fates.items()
    }


def opened_by_a_move(fates: Fates, target: StoredRevision) -> dict[str, StoredRevision]:
    """Open what is closed, and not rejected, under something else than the registry names now."""
    return {
        name: opened(revision) if _was_for_another(revision, target) else revision
        for name, revision in fates.items()
    }


def _was_for_another(revision: StoredRevision, target: StoredRevision) -> bool:
    under = revision.closing.under if revision.closing else None
    return revision.closed and not revision.rejected and under not in (None, target.key)


def closed_for_all_shapes(fates: Fates, target: StoredRevision) -> StoredRevision:
    """Give the revision by which a person closed the target's version, whatever the spec says now; else the target."""
    found = [r for r in fates.values() if r.closed_by_person and r.key == target.key]
    return max(found, key=_since, default=target)


def left_by_person(fates: Fates, revision: StoredRevision) -> tuple[StoredRevision, ...]:
    """Give a revision with every other shape of its version that a person closed: undone twice, both were left."""
    others = (r for r in fates.values() if r.closed_by_person and r.key == revision.key)
    return (revision, *(other for other in others if other.name != revision.name))


def follow(fates: Fates, stable: StoredRevision | None, revision: StoredRevision) -> StoredRevision:
    """Find what serves in a closed one's place: what a person went back to, else stable; itself where nothing does.

    v3 failed while v2 served, and v2 was undone in favour of v1: in the place of v3 serves v1.
    """
    seen = {revision.name}
    while revision.closed:
        named = revision.closing.instead if revision.closing else None
        instead = fates.get(named or "", stable)
        if instead is None or instead.name in seen:
            break
        seen.add(instead.name)
        revision = instead
    return revision


def _since(revision: StoredRevision) -> tuple[float, int]:
    since = revision.closing.since if revision.closing else None
    return since.timestamp() if since else 0.0, revision.number


# ---------------------------------------------------------------------------------------------------------- status


def told_closed(*revisions: StoredRevision | None) -> StoredRevision | None:
    """Choose the one that status speaks of: what was closed last."""
    return max((r for r in revisions if r and r.closed), key=_since, default=None)


def closed_status(revision: StoredRevision | None, *, acknowledged: bool) -> dict[str, Any] | None:
    """Write a closed revision into status."""
    if revision is None:
        return None
    closing = revision.closing or Closing()
    told = {
        "revision": revision.name,
        "version": revision.version,
        "reason": revision.outcome,
        "message": revision.outcome_message[:_MESSAGE_LENGTH],
        "since": closing.since and timestamp(closing.since),
        "rejected": closing.rejected,
        "instead": closing.instead,
        "under": closing.under,
        "weight": closing.weight,
        "acknowledged": True if acknowledged else None,
    }
    return {key: value for key, value in told.items() if value is not None}


def kept_rejected(fates: Fates) -> list[StoredRevision]:
    """List the rejected revisions, the newest last, no more than status holds."""
    return sorted((r for r in fates.values() if r.rejected), key=_since)[-REJECTED_LIMIT:]


def rejected_status(fates: Fates) -> list[dict[str, Any]]:
    """Write the rejected versions into status."""
    told = (
        {
            "version": revision.version,
            "uri": str(revision.inputs["uri"])[:2048],
            "revision": revision.name,
            "digest": revision.digest,
            "reason": revision.outcome,
            "time": revision.closing and revision.closing.since and timestamp(revision.closing.since),
        }
        for revision in kept_rejected(fates)
    )
    return [{key: value for key, value in entry.items() if value is not None} for entry in told]
