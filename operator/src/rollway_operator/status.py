"""The status that a pass writes: equal inputs give an equal one."""

from datetime import datetime
from typing import Any

from rollway_operator import closures, conditions, traffic
from rollway_operator.analysis import Phase
from rollway_operator.conditions import Outlook
from rollway_operator.domain import PROMOTED, Action, Platform, Progress, Track, timestamp
from rollway_operator.labels import selector
from rollway_operator.measurements import Taken
from rollway_operator.rebuild import serving_revision
from rollway_operator.roles import shared_traffic
from rollway_operator.rollout import PROVEN, Situation

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
        "canary": _canary_status(outlook, situation),
        "stable": _stable_status(outlook, platform),
        "traffic": [
            {
                "revision": track.revision.name,
                "version": track.revision.version,
                "percent": percent,
                "tag": "stable" if track is roles.stable else "canary",
            }
            for track, percent in shared_traffic(deployment, outlook.observed, platform, roles)
        ]
        or None,
        "analysis": analysis_status(outlook, situation),
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
        address = f"http://{host}:{stable.settings['httpPort']}"
        status |= {
            "url": _url(outlook, platform) or address,
            "address": {"url": address},
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


def _url(outlook: Outlook, platform: Platform) -> str | None:
    """Say where clients outside reach it: under the spec's first host name, or the administrator's address."""
    if platform.http_gateway is None:
        return None
    hosts, path = traffic.hosts_of(outlook.deployment, platform), traffic.path_of(outlook.deployment)
    scheme = "http" if (platform.gateway_url or "").startswith("http:") else "https"
    if hosts:
        return f"{scheme}://{hosts[0]}{path}"
    return f"{platform.gateway_url}{path}" if platform.gateway_url else None


def analysis_status(outlook: Outlook, situation: Situation) -> dict[str, Any] | None:
    """Write what the metrics say; where only counts differ what was written before stays for a while."""
    results, now = situation.judgement.results, outlook.observed.now
    if outlook.roles.candidate is None or not results:
        return None
    phases = {result.phase for result in results}
    if Phase.FAILED in phases:
        phase = "Failed"
    elif phases == {Phase.SUCCESSFUL}:
        phase = "Successful"
    else:
        phase = "Inconclusive" if outlook.decision.reason == "AnalysisInconclusive" else "Running"
    told = {"phase": phase, "metricResults": [result.as_status() for result in results]}
    before = outlook.deployment.status.analysis
    if before and before.measured_at:
        written = before.model_dump(mode="json", by_alias=True, exclude_none=True)
        since = {"measuredAt": timestamp(before.measured_at)}
        if (outlook.retold and before.phase == phase) or written | since == told | since:
            return written | since
    return told | {"measuredAt": timestamp(now)}


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
            "reason": _why_promoted(situation) if promoted else outlook.decision.reason,
            "startedAt": timestamp(_started_before(outlook)),
            "finishedAt": timestamp(outlook.observed.now),
        }
        told.append({key: value for key, value in entry.items() if value is not None})
    return told[-HISTORY_LENGTH:]


def _why_promoted(situation: Situation) -> str:
    if situation.way == "gates":
        return "GatesPassed"
    # What the metrics say now does not matter: since it was decided the operator may have lost them.
    return "AnalysisSucceeded" if situation.progress.promoting == PROVEN else "Promoted"


def _started_before(outlook: Outlook) -> datetime:
    canary = outlook.deployment.status.canary
    return canary.started_at if canary and canary.started_at else outlook.observed.now


def _stable_status(outlook: Outlook, platform: Platform) -> dict[str, Any] | None:
    track = outlook.roles.stable
    if track is None:
        return None
    image = newer_image(track, platform)
    return _revision_status(track) | ({"newerImage": image} if image else {})


def _canary_status(outlook: Outlook, situation: Situation) -> dict[str, Any] | None:
    track, progress = outlook.roles.candidate, outlook.roles.progress
    if track is None:
        return None
    told = _revision_status(track) | {"startedAt": timestamp(_started(outlook))} | _progress_status(progress)
    taken = [_measurements_status(each) for each in situation.judgement.taken if each.at]
    return told | ({"measurements": taken} if taken else {})


def _measurements_status(taken: Taken) -> dict[str, Any]:
    told = {
        "name": taken.name,
        "basis": taken.basis,
        "successful": taken.successful,
        "failed": taken.failed,
        "inconclusive": taken.inconclusive,
        "measuredAt": taken.at and timestamp(taken.at),
        "value": None if taken.value is None else f"{taken.value:.6g}",
        "why": taken.why or None,
    }
    return {key: value for key, value in told.items() if value is not None}


def _progress_status(progress: Progress) -> dict[str, Any]:
    moments = {
        "weightSetAt": progress.set_at,
        "stepStartedAt": progress.started_at,
        "weightSince": progress.traffic_since,
        "overruledAt": progress.overruled_at,
        "waitingSince": progress.waiting_since,
    }
    told = {
        "weight": progress.weight,
        "currentStepIndex": progress.index,
        "stableReplicas": progress.stable_replicas,
        "steps": progress.steps,
        "leaving": progress.leaving or None,
        "promoting": progress.promoting,
        "held": progress.held
        and {
            "reason": progress.held.reason,
            "message": progress.held.message[: conditions.MESSAGE_LENGTH],
        },
    } | {key: moment and timestamp(moment) for key, moment in moments.items()}
    return {key: value for key, value in told.items() if value is not None}


def _revision_status(track: Track) -> dict[str, Any]:
    revision = track.revision
    told = {
        "revision": revision.name,
        "version": revision.version,
        "runId": revision.inputs["runId"],
        "digest": revision.digest,
        "readyReplicas": track.ready,
    }
    return {key: value for key, value in told.items() if value is not None}
