"""Joins resolution, observation and policy into a `Plan`: what one pass will write, in order.

target      which revision is wanted: an existing one with the same inputs, or a new one
situation   stable, candidate, target and their pods, as `rollout` sees them
decision    rollout.decide
roles       who is stable and who is candidate from now on
plan        status first; then ControllerRevision, ConfigMap, Services, Deployments; counts; prunes; events
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from rollway_operator import conditions, manifests, obstacles, rollout
from rollway_operator.api.v1alpha1 import ModelDeployment, RevisionStatus
from rollway_operator.conditions import Outlook, overdue, timestamp
from rollway_operator.domain import (
    PROMOTED,
    Action,
    ArtifactSource,
    Decision,
    Event,
    Failure,
    ModelVersion,
    Object,
    Observed,
    Plan,
    Platform,
    Ref,
    Resolution,
    Roles,
    Scale,
    StoredRevision,
    Track,
)
from rollway_operator.labels import REVISION, selector
from rollway_operator.rollout import Situation

DEFAULT_HISTORY_LIMIT = 10

KNOWN_VERSION_MAY_CHANGE_SHAPE = frozenset(
    {"Resolved", "RegistryUnreachable", "AliasNotFound", "VersionNotFound", "ModelNotFound", "TagMissing"}
)
"""With these answers a changed spec still rolls out, for the version known before; other answers stop that."""


def plan(
    deployment: ModelDeployment,
    resolution: Resolution,
    observed: Observed,
    platform: Platform,
) -> Plan:
    """Say everything that this pass writes to bring the cluster a step closer to what `deployment` asks for."""
    target, obstacle = choose_target(deployment, resolution, observed, platform)
    since = target_since(deployment, target, observed.now)
    stored = {revision.name: revision for revision in (*observed.revisions, *((target,) if target else ()))}
    situation = look(deployment, observed, stored, target)
    decision = rollout.decide(situation)
    roles = assign(situation, decision, stored)
    counts = rollout.replica_counts(situation, decision, live_replicas(observed))
    outlook = Outlook(deployment, resolution, observed, target, since, decision, roles, obstacle)
    status = describe(outlook, platform.cluster_domain)
    pruned = expired(deployment, observed, roles)
    return Plan(
        status=status,
        objects=(
            *desired_policies(deployment, roles, platform),
            *desired_objects(deployment, observed, roles, pruned),
        ),
        scales=desired_scales(deployment, observed, roles, counts),
        prunes=tuple(
            Ref(kind, revision.name)
            for revision in pruned
            for kind in ("Deployment", "Service", "ConfigMap", "ControllerRevision")
            if (kind, revision.name) in observed.objects
        )
        + unwanted_policies(deployment, observed),
        events=tuple(transitions(outlook, status)),
        requeue_after=requeue_after(outlook, status),
    )


# -------------------------------------------------------------------------------------------- what is wanted


def choose_target(
    deployment: ModelDeployment, resolution: Resolution, observed: Observed, platform: Platform
) -> tuple[StoredRevision | None, Failure | None]:
    """Find the revision that version and spec ask for, or render it; and what stands in the way, if anything does.

    While the registry gives no confirmed answer, the version known before stays wanted (rollout.md rule 2).
    """
    before = deployment.status.model
    known = next((r for r in observed.revisions if before and r.name == before.target_revision), None)
    if resolution.version and resolution.source and resolution.confirmed:
        version, source = resolution.version, resolution.source
    elif known and _still_asks_for(deployment, known):
        if resolution.reason not in KNOWN_VERSION_MAY_CHANGE_SHAPE or resolution.held_back == known.version:
            return known, None
        version, source = _as_resolved(known)
    else:
        return known, None
    if obstacle := obstacles.find(deployment, observed, platform):
        return known, obstacle
    runtime = platform.runtimes[deployment.spec.predictor.runtime]
    chosen = manifests.inputs(deployment, version, source, runtime, observed.golden)
    # The revision wanted before comes first, then the newest: two may differ in nothing but their image.
    candidates = sorted(observed.revisions, key=lambda r: (r is not known, -r.number))
    matching = next((r for r in candidates if manifests.same_inputs(r.inputs, chosen)), None)
    return matching or manifests.new_revision(deployment, chosen, runtime, observed.revisions), None


def _still_asks_for(deployment: ModelDeployment, known: StoredRevision) -> bool:
    """The spec names the alias that was followed, or the very version that is known."""
    before, model = deployment.status.model, deployment.spec.model
    return model.version == known.version if model.version else bool(before and before.alias == model.alias)


def _as_resolved(known: StoredRevision) -> tuple[ModelVersion, ArtifactSource]:
    """Read a version and its source back from a revision made for it."""
    inputs = known.inputs
    return (
        ModelVersion(inputs["model"], known.version, inputs["runId"], inputs["uri"]),
        manifests.source_of(inputs["artifacts"]),
    )


def target_since(deployment: ModelDeployment, target: StoredRevision | None, now: datetime) -> datetime:
    """Say since when this revision has been wanted."""
    before = deployment.status.model
    if before and before.target_since and target and before.target_revision == target.name:
        return before.target_since
    return now


# ------------------------------------------------------------------------------------------------ who is who


def look(
    deployment: ModelDeployment,
    observed: Observed,
    stored: Mapping[str, StoredRevision],
    target: StoredRevision | None,
) -> Situation:
    """Put stable, candidate and target before the rules, with their pods."""
    spec, status = deployment.spec, deployment.status
    stable = _track(status.stable, stored, observed)
    candidate = _track(status.canary, stored, observed)
    named = {track.revision.name for track in (stable, candidate) if track}
    return Situation(
        replicas=spec.predictor.replicas,
        target=_closed_by_status(deployment, target),
        stable=stable,
        candidate=candidate,
        others_have_pods=any(pod.revision not in named for pod in observed.pods),
        recreate=bool(spec.strategy and spec.strategy.recreate),
        stuck=candidate is not None
        and any(
            pod.server_since and not pod.ready and overdue(deployment, pod.server_since, observed.now)
            for pod in candidate.pods
        ),
    )


def _track(
    role: RevisionStatus | None, stored: Mapping[str, StoredRevision], observed: Observed
) -> Track | None:
    if role is None or role.revision not in stored:
        return None
    revision = stored[role.revision]
    # Status is written before the annotation: between the two, what status says holds (rollout.md rule 14).
    if role.digest and not revision.digest:
        revision = replace(revision, digest=role.digest)
    return Track(revision, observed.of(revision.name), observed.refusals.get(revision.name))


def _closed_by_status(deployment: ModelDeployment, target: StoredRevision | None) -> StoredRevision | None:
    """Believe a Stalled condition that closed the target, where the kill came before the annotation was written."""
    status = deployment.status
    stalled = status.condition("Stalled")
    if not target or not stalled or not status.model or status.canary or target.outcome:
        return target
    if status.model.target_revision != target.name or stalled.reason in STALLED_BUT_OPEN:
        return target
    return replace(target, outcome=stalled.reason, outcome_message=stalled.message)


STALLED_BUT_OPEN = obstacles.REASONS | {
    "NameConflict",
    "ProgressDeadlineExceeded",
    "MinimumReplicasUnavailable",
}
"""Reasons of Stalled that close nothing by themselves: only the ControllerRevision's annotation can."""


def assign(situation: Situation, decision: Decision, stored: Mapping[str, StoredRevision]) -> Roles:
    """Give out the roles that follow from the decision; record a digest once told, an outcome once decided."""
    stable, candidate, target = situation.stable, situation.candidate, situation.target
    fates = dict(stored)
    if decision.action is Action.START and target:
        candidate = Track(replace(target, outcome=None, outcome_message=""))
    elif decision.action is Action.ABORT:
        if target:
            fates[target.name] = replace(target, outcome=decision.reason, outcome_message=decision.message)
        candidate = None
    elif decision.action is Action.CANCEL:
        candidate = None
    elif decision.action is Action.PROMOTE and candidate:
        stable, candidate = candidate, None
    if stable:
        # Whoever is stable was promoted, also where a kill came between the status and this annotation.
        promoted = replace(stable.revision, outcome=PROMOTED, outcome_message="")
        stable = replace(stable, revision=promoted)
    stable, candidate = _pinned(stable), _pinned(candidate)
    named = {track.revision.name for track in (stable, candidate) if track}
    # A target rendered in this pass and not started yet is nowhere: the next pass renders it again, equally.
    others = tuple(r for name, r in fates.items() if name not in named and (r is not target or r.outcome))
    return Roles(stable, candidate, others)


def _pinned(track: Track | None) -> Track | None:
    """Take over the digest that the first pod told."""
    if track and track.pin and not track.revision.digest:
        return replace(track, revision=replace(track.revision, digest=track.pin))
    return track


def expired(deployment: ModelDeployment, observed: Observed, roles: Roles) -> tuple[StoredRevision, ...]:
    """Choose the oldest revisions without a role beyond revisionHistoryLimit."""
    limit = deployment.spec.revision_history_limit
    keep = DEFAULT_HISTORY_LIMIT if limit is None else limit
    newest_first = sorted(roles.others, key=lambda revision: -revision.number)
    # Whatever the limit: one that traffic still goes to, and a closed target, which would start again if forgotten.
    model = deployment.status.model
    kept = {serving_revision(deployment, observed), model.target_revision if model else None}
    return tuple(revision for revision in newest_first[keep:] if revision.name not in kept)


# --------------------------------------------------------------------------------------------------- objects


def live_replicas(observed: Observed) -> dict[str, int]:
    """Read the count that each Deployment of ours asks for."""
    return {
        name: int(live.get("spec", {}).get("replicas", 1))
        for (kind, name), live in observed.objects.items()
        if kind == "Deployment"
    }


def serving_revision(deployment: ModelDeployment, observed: Observed) -> str | None:
    """Read which revision the Service points at now."""
    live = observed.objects.get(("Service", deployment.metadata.name))
    return live["spec"].get("selector", {}).get(REVISION) if live else None


def desired_objects(
    deployment: ModelDeployment, observed: Observed, roles: Roles, pruned: tuple[StoredRevision, ...]
) -> tuple[Object, ...]:
    """List the children in the order in which they are written: what is referred to before what refers to it."""
    objects: list[Object] = []
    for track in roles.in_role:
        revision = track.revision
        role = "stable" if track is roles.stable else "canary"
        objects += [
            manifests.controller_revision(deployment, revision),
            manifests.config_map(deployment, revision),
            manifests.service(deployment, revision.name, revision),
            manifests.workload(deployment, revision, role),
        ]
    for revision in roles.others:
        if revision in pruned or ("ControllerRevision", revision.name) not in observed.objects:
            continue
        objects.append(manifests.controller_revision(deployment, revision))
        if ("Deployment", revision.name) in observed.objects:
            objects.append(manifests.workload(deployment, revision, "previous"))
    if roles.stable:
        pointed = serving_revision(deployment, observed)
        # Never newly point at a revision without a ready pod, whatever status says (rollout.md rule 14).
        if pointed in (None, roles.stable.revision.name) or roles.stable.ready:
            objects.append(manifests.service(deployment, deployment.metadata.name, roles.stable.revision))
    return tuple(objects)


def desired_policies(deployment: ModelDeployment, roles: Roles, platform: Platform) -> tuple[Object, ...]:
    """Give the NetworkPolicy, which comes before the pods; one that the API server would refuse stays as it is."""
    revisions = [track.revision for track in roles.in_role]
    if not revisions or not _is_policed(deployment) or obstacles.label_keys_are_wrong(deployment):
        return ()
    return (manifests.network_policy(deployment, revisions, platform),)


def unwanted_policies(deployment: ModelDeployment, observed: Observed) -> tuple[Ref, ...]:
    """Name the NetworkPolicy once the spec wants none."""
    ref = Ref("NetworkPolicy", deployment.metadata.name)
    there = (ref.kind, ref.name) in observed.objects
    return (ref,) if there and not _is_policed(deployment) else ()


def _is_policed(deployment: ModelDeployment) -> bool:
    policy = deployment.spec.network_policy
    return policy is None or policy.enabled is not False


def desired_scales(
    deployment: ModelDeployment, observed: Observed, roles: Roles, counts: Mapping[str, int]
) -> tuple[Scale, ...]:
    """Give every Deployment its count: the roles theirs, others 0 once the Service points elsewhere."""
    pointed = serving_revision(deployment, observed)
    live = live_replicas(observed)
    named = {track.revision.name for track in roles.in_role}
    others = (name for name in live if name not in named and name != pointed)
    return tuple(Scale(name, count) for name, count in counts.items() if name in named) + tuple(
        Scale(name, 0) for name in others
    )


# ---------------------------------------------------------------------------------------------------- status


def describe(outlook: Outlook, cluster_domain: str) -> dict[str, Any]:
    """Write the whole status: equal inputs give an equal one, and no time moves unless something happened."""
    deployment, target, roles = outlook.deployment, outlook.target, outlook.roles
    metadata, spec = deployment.metadata, deployment.spec
    facts = conditions.tell(outlook)
    model = {
        "name": spec.model.name,
        "alias": spec.model.alias,
        "targetVersion": target.version if target else None,
        "targetRevision": target.name if target else None,
        "targetSince": timestamp(outlook.since) if target else None,
    }
    status: dict[str, Any] = {
        "observedGeneration": metadata.generation,
        "phase": conditions.phase(facts, serves=serving_revision(deployment, outlook.observed) is not None),
        "message": conditions.headline(roles, facts),
        "model": {key: value for key, value in model.items() if value is not None},
        "canary": _revision_status(roles.candidate),
        "stable": _revision_status(roles.stable),
        "conditions": conditions.merge(
            deployment.status.conditions, facts, metadata.generation, outlook.observed.now
        ),
    }
    if roles.stable:
        stable = roles.stable.revision
        host = f"{metadata.name}.{metadata.namespace}.svc.{cluster_domain}"
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


def _revision_status(track: Track | None) -> dict[str, Any] | None:
    if track is None:
        return None
    revision = track.revision
    told = {
        "revision": revision.name,
        "version": revision.version,
        "runId": revision.inputs["runId"],
        "digest": revision.digest,
        "readyReplicas": track.ready,
    }
    return {key: value for key, value in told.items() if value is not None}


# -------------------------------------------------------------------------------------- events and the clock


def transitions(outlook: Outlook, status: Mapping[str, Any]) -> list[Event]:
    """Name what happened between the status before and this one."""
    before, decision, candidate = outlook.deployment.status, outlook.decision, outlook.roles.candidate
    events: list[Event] = []
    target = status["model"].get("targetVersion")
    if target and target != (before.model.target_version if before.model else None):
        events.append(Event("Normal", "VersionResolved", f"{status['model']['name']} is now v{target}"))
    if decision.action is Action.START:
        events.append(Event("Normal", "RolloutStarted", decision.message))
    if candidate and candidate.revision.digest and before.canary and not before.canary.digest:
        message = f"v{candidate.revision.version}: {candidate.revision.digest}"
        events.append(Event("Normal", "ArtifactVerified", message))
    if decision.action is Action.PROMOTE:
        events.append(Event("Normal", PROMOTED, decision.message))
    for type_, abnormal in (("Stalled", True), ("ModelResolved", False), ("ArtifactVerified", False)):
        now = next(
            (c for c in status["conditions"] if c["type"] == type_ and c["status"] == str(abnormal)), None
        )
        old = before.condition(type_)
        if now and (old is None or old.status != now["status"] or old.reason != now["reason"]):
            events.append(Event("Warning", now["reason"], now["message"]))
    return list(dict.fromkeys(events))


def requeue_after(outlook: Outlook, status: Mapping[str, Any]) -> timedelta:
    """Look again every 1 to 5 s while something is under way; at rest when the registry is due."""
    due = outlook.resolution.poll_in
    live = live_replicas(outlook.observed)
    under_way = (
        any(condition["type"] == "Reconciling" for condition in status["conditions"])
        or outlook.decision.action is Action.PROMOTE
        or any(live.get(revision.name) for revision in outlook.roles.others)
    )
    if not under_way or outlook.target is None:
        return due
    waited = (outlook.observed.now - outlook.since) / 10
    return min(max(waited, timedelta(seconds=1)), timedelta(seconds=5), max(due, timedelta(seconds=1)))
