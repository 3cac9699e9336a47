"""Joins resolution, observation and policy into a `Plan`: what one pass will write, in order.

rebuild     a status that was lost or forged
target      which revision version and spec ask for: an existing one with the same inputs, or a new one
verbs       what persons said since
course      which revision shall serve: the target, or what serves while that is closed or waits
situation   stable, candidate, wanted and their pods, as `rollout` sees them
decision    rollout.decide
roles       who is stable and who is candidate from now on
plan        status first; then ControllerRevision, ConfigMap, Services, Deployments; counts; prunes; events
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from rollway_operator import closures, manifests, obstacles, rebuild, rollout, verbs
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.conditions import Outlook
from rollway_operator.course import scene, set_course, standing_of
from rollway_operator.domain import (
    PROMOTED,
    Action,
    Event,
    Object,
    Observed,
    Plan,
    Platform,
    Ref,
    Resolution,
    Roles,
    Scale,
    StoredRevision,
)
from rollway_operator.rebuild import serving_revision
from rollway_operator.roles import assign, expired, live_replicas, look
from rollway_operator.status import describe
from rollway_operator.target import choose_target, target_since


def plan(
    deployment: ModelDeployment,
    resolution: Resolution,
    observed: Observed,
    platform: Platform,
) -> Plan:
    """Say everything that this pass writes to bring the cluster a step closer to what `deployment` asks for."""
    events: tuple[Event, ...] = ()
    target, obstacle = choose_target(deployment, resolution, observed, platform)
    if rebuilt := rebuild.rebuilt(deployment, observed, target):
        deployment, events = rebuilt.deployment, (rebuilt.event,)
        target, obstacle = choose_target(deployment, resolution, observed, platform)
    standing = standing_of(deployment, observed, target)
    standing, heard = verbs.hear(
        deployment.metadata.annotations, scene(deployment, standing, target, observed.now)
    )
    course = set_course(deployment, standing, observed, platform, target)
    situation = replace(look(deployment, observed, course), rebuilt=rebuilt is not None)
    decision = rollout.decide(situation)
    roles, fates = assign(situation, decision, course, observed)
    counts = rollout.replica_counts(situation, decision, live_replicas(observed))
    outlook = Outlook(
        deployment=deployment,
        resolution=resolution,
        observed=observed,
        target=course.target,
        since=target_since(deployment, course.target, observed.now),
        decision=decision,
        roles=roles,
        obstacle=obstacle or course.obstacle,
        standing=replace(course.standing, fates=fates),
        closed=closures.told_closed(
            *(fates.get(revision.name) for revision in (course.target, course.wanted) if revision)
        ),
        awaits=course.awaits,
        paused=situation.paused,
    )
    status = describe(outlook, situation, platform)
    pruned = expired(outlook)
    remembered = {revision.name for revision in closures.kept_rejected(fates)}
    return Plan(
        status=status,
        objects=(
            *desired_policies(deployment, roles, platform),
            *desired_objects(deployment, observed, roles, pruned, remembered),
        ),
        scales=desired_scales(deployment, observed, roles, counts),
        prunes=prunes(observed, pruned, remembered) + unwanted_policies(deployment, observed),
        events=(*events, *heard, *transitions(outlook, status)),
        under_way=(waits := under_way(outlook, status)),
        requeue_after=requeue_after(outlook, waits=waits),
    )


# --------------------------------------------------------------------------------------------------- objects


def prunes(
    observed: Observed, pruned: tuple[StoredRevision, ...], remembered: Collection[str]
) -> tuple[Ref, ...]:
    """Name what goes with the revisions that nobody needs; of those remembered the ControllerRevision stays."""
    return tuple(
        Ref(kind, revision.name)
        for revision in pruned
        for kind in ("Deployment", "Service", "ConfigMap", "ControllerRevision")
        if (kind, revision.name) in observed.objects
        and not (kind == "ControllerRevision" and revision.name in remembered)
    )


def desired_objects(
    deployment: ModelDeployment,
    observed: Observed,
    roles: Roles,
    pruned: tuple[StoredRevision, ...],
    remembered: Collection[str],
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
        if revision in pruned and revision.name not in remembered:
            continue
        objects.append(manifests.controller_revision(deployment, revision))
        if revision in pruned:
            continue
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
    old_image, stable = before.stable and before.stable.newer_image, status.get("stable", {})
    if (image := stable.get("newerImage")) and image != old_image:
        where = "it comes with the next revision, or with rollway.dev/restart"
        message = f"v{stable['version']} does not run the runtime's present image {image}: {where}"
        events.append(Event("Normal", "RuntimeOutdated", message))
    for type_, abnormal in WORTH_AN_EVENT:
        now = next(
            (c for c in status["conditions"] if c["type"] == type_ and c["status"] == str(abnormal)), None
        )
        old = before.condition(type_)
        if now and (old is None or old.status != now["status"] or old.reason != now["reason"]):
            reason = type_ if type_ in ("Paused", "EnvironmentMismatch") else now["reason"]
            events.append(Event("Normal" if type_ == "Paused" else "Warning", reason, now["message"]))
    return list(dict.fromkeys(events))


WORTH_AN_EVENT = (
    ("Stalled", True),
    ("Paused", True),
    ("EnvironmentMismatch", True),
    ("ModelResolved", False),
    ("ArtifactVerified", False),
)
"""Conditions whose turn to this status is told in an Event."""


def under_way(outlook: Outlook, status: Mapping[str, Any]) -> bool:
    """Tell whether pods come or go."""
    live = live_replicas(outlook.observed)
    return (
        any(condition["type"] == "Reconciling" for condition in status["conditions"])
        or outlook.decision.action is Action.PROMOTE
        or outlook.decision.reason == rebuild.STATE_REBUILT
        or any(live.get(revision.name) for revision in outlook.roles.others)
    )


def requeue_after(outlook: Outlook, *, waits: bool) -> timedelta:
    """Look again every 1 to 5 s while something is under way; at rest when the registry is due."""
    due = outlook.resolution.poll_in
    if not waits or outlook.target is None:
        return due
    waited = (outlook.observed.now - outlook.since) / 10
    return min(max(waited, timedelta(seconds=1)), timedelta(seconds=5), max(due, timedelta(seconds=1)))
