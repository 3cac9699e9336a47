"""The status that a pass writes: equal inputs give an equal one."""

from datetime import datetime
from typing import Any

from rollway_operator import closures, conditions
from rollway_operator.conditions import Outlook
from rollway_operator.domain import PROMOTED, Action, Platform, Track, timestamp
from rollway_operator.labels import selector
from rollway_operator.rebuild import serving_revision
from rollway_operator.rollout import Situation

HISTORY_LENGTH = 10


def describe(outlook: Outlook, situation: Situation, platform: Platform) -> dict[str, Any]:
    """Write the whole status: equal inputs give an equal one, and no time moves unless something happened."""
    deployment, roles, standing = outlook.deployment, outlook.roles, outlook.standing
    metadata = deployment.metadata
    facts = conditions.tell(outlook)
    status: dict[str, Any] = {
        "observedGeneration": metadata.generation,
        "phase": conditions.phase(facts, serves=serving_revision(deployment, outlook.observed) is not None),
        "message": conditions.headline(roles, facts),
        "model": _model_status(outlook),
        "canary": _revision_status(roles.candidate, started=_started(outlook)),
        "stable": _revision_status(roles.stable, newer=newer_image(roles.stable, platform)),
        "history": history(outlook, situation) or None,
        "rejected": closures.rejected_status(standing.fates) or None,
        "lastHandled": dict(standing.handled) or None,
        "pausedByVerb": standing.paused,
        "rebuilt": standing.rebuilt and standing.rebuilt[: conditions.MESSAGE_LENGTH],
        "conditions": conditions.merge(
            deployment.status.conditions, facts, metadata.generation, outlook.observed.now
        ),
    }
    if roles.stable:
        stable = roles.stable.revision
        host = f"{metadata.name}.{metadata.namespace}.svc.{platform.cluster_domain}"
        status |= {
            "address": {"url": f"http://{host}:{stable.settings['httpPort']}"},
            "grpcUrl": f"{host}:{stable.settings['grpcPort']}",
            "replicas": sum(not pod.terminating for pod in roles.stable.pods),
            "readyReplicas": roles.stable.ready,
            "selector": ",".join(
                f"{key}={value}" for key, value in selector(metadata.name, stable.name).items()
            ),
        }
    return {key: value for key, value in status.items() if value is not None}


def _model_status(outlook: Outlook) -> dict[str, Any]:
    spec = outlook.deployment.spec.model
    target, roles, standing = outlook.target, outlook.roles, outlook.standing
    under_way = {track.revision.name for track in roles.in_role}
    told: dict[str, Any] = {"name": spec.name, "alias": spec.alias}
    if target:
        approved = standing.approved == target.name and target.name not in under_way
        told |= {
            "targetVersion": target.version,
            "targetRevision": target.name,
            "targetSince": timestamp(outlook.since),
            "closed": closures.closed_status(outlook.closed, acknowledged=outlook.acknowledged),
            "approvedRevision": target.name if approved else None,
            "restart": standing.restart,
        }
    return {key: value for key, value in told.items() if value is not None}


def _started(outlook: Outlook) -> datetime:
    before, candidate = outlook.deployment.status.canary, outlook.roles.candidate
    goes_on = before and candidate and before.revision == candidate.revision.name
    return _started_before(outlook) if goes_on else outlook.observed.now


def newer_image(stable: Track | None, platform: Platform) -> str | None:
    """Name the runtime's image where stable runs another: it comes with the next revision only (rollout.md rule 6)."""
    if stable is None:
        return None
    runtime = platform.runtimes.get(stable.revision.inputs["runtime"])
    return runtime.image if runtime and runtime.image != stable.revision.inputs["image"] else None


def history(outlook: Outlook, situation: Situation) -> list[dict[str, Any]]:
    """Add the rollout that ended in this pass, if one did, to those before it."""
    status, roles = outlook.deployment.status, outlook.roles
    told = [entry.model_dump(mode="json", by_alias=True, exclude_none=True) for entry in status.history]
    ended = situation.candidate
    if ended and status.canary and roles.candidate is None:
        revision = ended.revision
        promoted = outlook.decision.action is Action.PROMOTE
        aborted = outlook.standing.fates[revision.name].closed
        entry = {
            "revision": revision.name,
            "version": revision.version,
            "digest": ended.pin,
            "outcome": PROMOTED if promoted else "Aborted" if aborted else "Cancelled",
            "reason": "GatesPassed" if promoted else outlook.decision.reason,
            "startedAt": timestamp(_started_before(outlook)),
            "finishedAt": timestamp(outlook.observed.now),
        }
        told.append({key: value for key, value in entry.items() if value is not None})
    return told[-HISTORY_LENGTH:]


def _started_before(outlook: Outlook) -> datetime:
    canary = outlook.deployment.status.canary
    return canary.started_at if canary and canary.started_at else outlook.observed.now


def _revision_status(
    track: Track | None, *, started: datetime | None = None, newer: str | None = None
) -> dict[str, Any] | None:
    if track is None:
        return None
    revision = track.revision
    told = {
        "revision": revision.name,
        "version": revision.version,
        "runId": revision.inputs["runId"],
        "digest": revision.digest,
        "readyReplicas": track.ready,
        "startedAt": started and timestamp(started),
        "newerImage": newer,
    }
    return {key: value for key, value in told.items() if value is not None}
