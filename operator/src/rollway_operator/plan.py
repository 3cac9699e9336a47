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
from typing import Any, Final

from rollway_operator import closures, manifests, obstacles, rebuild, rollout, traffic, verbs
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
from rollway_operator.rebuild import serving_revision, shares_service
from rollway_operator.roles import assign, expired, live_replicas, look, retold, routes_ready
from rollway_operator.rollout import Situation
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
    situation = replace(look(deployment, observed, course, platform), rebuilt=rebuilt is not None)
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
        replicas=situation.replicas,
        routes=routes_ready(deployment, observed, platform) if roles.stable else None,
        retold=retold(deployment, situation.judgement, observed.now),
    )
    status = describe(outlook, situation, platform)
    pruned = expired(outlook)
    remembered = {revision.name for revision in closures.kept_rejected(fates)}
    objects = (
        *desired_policies(deployment, roles, platform),
        *desired_objects(deployment, observed, roles, pruned, remembered),
        *desired_traffic(outlook, situation, platform),
        *desired_followers(outlook),
        *desired_monitors(deployment, observed, roles, platform),
    )
    return Plan(
        status=status,
        objects=objects,
        scales=desired_scales(outlook, counts),
        prunes=prunes(observed, pruned, remembered) + unwanted(deployment, observed, objects, platform),
        events=(*events, *heard, *transitions(outlook, situation, status)),
        evidence=tuple(result.as_status() for result in situation.judgement.results),
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
    return tuple(objects)


def desired_traffic(outlook: Outlook, situation: Situation, platform: Platform) -> tuple[Object, ...]:
    """Give the Services and routes that lead requests to stable, and to a candidate with a weight."""
    deployment, observed, roles = outlook.deployment, outlook.observed, outlook.roles
    stable, candidate = roles.stable, roles.candidate
    if stable is None:
        return ()
    objects: list[Object] = []
    # Never newly point at a revision without a ready pod, whatever status says (rollout.md rule 14).
    pointed = serving_revision(deployment, observed)
    if pointed in (None, stable.revision.name) or stable.ready:
        if _shares_pods(outlook, situation):
            objects.append(traffic.shared_service(deployment, stable.revision))
        else:
            objects.append(manifests.service(deployment, deployment.metadata.name, stable.revision))
    strategy = deployment.spec.strategy
    track = candidate.revision if candidate and candidate.ready else None
    if strategy and strategy.blue_green:
        objects.append(traffic.preview_service(deployment, track or stable.revision))
    weight = roles.progress.weight if track else 0
    shares = [traffic.Share.of(stable.revision, 100 - weight)]
    if track and weight:
        shares.append(traffic.Share.of(track, weight))
    hosts = traffic.hosts_of(deployment, platform)
    for kind, gateway in platform.gateways.items():
        # Routes refer to the revision's own Service, which is made before them.
        if kind in observed.served and (stable.ready or (kind, deployment.metadata.name) in observed.objects):
            objects.append(
                traffic.http_route(deployment, shares, track, gateway, hosts)
                if kind == "HTTPRoute"
                else traffic.grpc_route(deployment, shares, track, gateway)
            )
    return tuple(objects)


def _shares_pods(outlook: Outlook, situation: Situation) -> bool:
    """Tell whether the Service points at stable's and the candidate's pods alike: their counts are the weights."""
    candidate = outlook.roles.candidate
    if candidate is None or not situation.ratio or not outlook.roles.progress.weight:
        return False
    entered = shares_service(outlook.deployment, outlook.observed)
    return entered or (candidate.ready > 0 and not situation.crowded)


def desired_followers(outlook: Outlook) -> tuple[Object, ...]:
    """Give what follows stable's pods: the autoscaler, and the budget for disruptions."""
    deployment, roles = outlook.deployment, outlook.roles
    if roles.stable is None:
        return ()
    stable, scaling = roles.stable.revision.name, deployment.spec.predictor.autoscaling
    budget = traffic.disruption_budget(deployment, stable)
    if scaling is None:
        return (budget,)
    metrics = [metric.model_dump(mode="json", by_alias=True, exclude_none=True) for metric in scaling.metrics]
    # Until the canary is through no fewer pods serve than when it began (rollout.md rule 13).
    least = max(scaling.min_replicas, roles.progress.stable_replicas or 0)
    return budget, traffic.autoscaler(deployment, stable, least, scaling.max_replicas, metrics)


def desired_policies(deployment: ModelDeployment, roles: Roles, platform: Platform) -> tuple[Object, ...]:
    """Give the NetworkPolicy, which comes before the pods; one that the API server would refuse stays as it is."""
    revisions = [track.revision for track in roles.in_role]
    if not revisions or not _is_policed(deployment) or obstacles.label_keys_are_wrong(deployment):
        return ()
    return (manifests.network_policy(deployment, revisions, platform),)


def desired_monitors(
    deployment: ModelDeployment, observed: Observed, roles: Roles, platform: Platform
) -> tuple[Object, ...]:
    """Give the PodMonitor, where the API server knows what that is; it takes long to be heeded, so the first pass."""
    if "PodMonitor" not in observed.served or not roles.in_role or not _is_monitored(deployment, platform):
        return ()
    return (
        () if obstacles.label_keys_are_wrong(deployment) else (manifests.pod_monitor(deployment, platform),)
    )


_AT_MOST_ONE: Final = ("NetworkPolicy", "HorizontalPodAutoscaler", "HTTPRoute", "GRPCRoute", "PodMonitor")
"""Kinds of which a ModelDeployment has one of its own name, or none."""


def unwanted(
    deployment: ModelDeployment, observed: Observed, objects: Collection[Object], platform: Platform
) -> tuple[Ref, ...]:
    """Name what the spec wanted once and wants no more."""
    name = deployment.metadata.name
    named = [*((kind, name) for kind in _AT_MOST_ONE), ("Service", traffic.preview_name(deployment))]
    wanted = {(each["kind"], each["metadata"]["name"]) for each in objects}
    # What could not be written as the spec has it (labels that no API server takes) stays as it is.
    labelled = {"NetworkPolicy": _is_policed(deployment), "PodMonitor": _is_monitored(deployment, platform)}
    kept = {(kind, name) for kind, asked in labelled.items() if asked}
    return tuple(Ref(*ref) for ref in named if ref in observed.objects and ref not in wanted | kept)


def _is_policed(deployment: ModelDeployment) -> bool:
    policy = deployment.spec.network_policy
    return policy is None or policy.enabled is not False


def _is_monitored(deployment: ModelDeployment, platform: Platform) -> bool:
    return platform.monitor_labels is not None and deployment.spec.pod_monitor.enabled is not False


DEFAULT_SCALE_DOWN_DELAY: Final = timedelta(seconds=30)


def desired_scales(outlook: Outlook, counts: Mapping[str, int]) -> tuple[Scale, ...]:
    """Give every Deployment its count: the roles theirs, others 0 once traffic goes elsewhere and they lingered."""
    deployment, observed, roles = outlook.deployment, outlook.observed, outlook.roles
    pointed = serving_revision(deployment, observed)
    live = live_replicas(observed)
    named = {track.revision.name for track in roles.in_role}
    lingering = _lingering(outlook)
    others = (name for name in live if name not in named and name != pointed and name not in lingering)
    return tuple(Scale(name, count) for name, count in counts.items() if name in named) + tuple(
        Scale(name, 0) for name in others
    )


def _lingering(outlook: Outlook) -> set[str]:
    """Name the revisions that served until a moment ago: whoever still reaches them is answered, and undo is quick."""
    stable, history = outlook.roles.stable, outlook.deployment.status.history
    promotions = (
        entry.finished_at
        for entry in history
        if stable and entry.revision == stable.revision.name and entry.outcome == PROMOTED
    )
    since = max(promotions, default=None)
    if outlook.decision.action is Action.PROMOTE:
        since = outlook.observed.now
    if since is None or outlook.observed.now - since >= scale_down_delay(outlook.deployment):
        return set()
    return {revision.name for revision in outlook.roles.others if revision.promoted}


def scale_down_delay(deployment: ModelDeployment) -> timedelta:
    """Say how long the old revision keeps its pods after a promotion."""
    strategy = deployment.spec.strategy
    if strategy and (strategy.rolling_update or strategy.recreate):
        return timedelta(0)
    chosen = strategy.blue_green.scale_down_delay_seconds if strategy and strategy.blue_green else None
    return DEFAULT_SCALE_DOWN_DELAY if chosen is None else timedelta(seconds=chosen)


# -------------------------------------------------------------------------------------- events and the clock


def transitions(outlook: Outlook, situation: Situation, status: Mapping[str, Any]) -> list[Event]:
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
    events += _of_the_steps(outlook, situation)
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
            told_as = type_ if type_ in ("Paused", "EnvironmentMismatch") else now["reason"]
            reason = now["reason"] if now["reason"] == "AnalysisInconclusive" else told_as
            events.append(Event("Normal" if reason == "Paused" else "Warning", reason, now["message"]))
    return list(dict.fromkeys(events))


_APPROXIMATED_BY: Final = 5
"""Off by more percent than this a weight is told to be approximated."""


def _of_the_steps(outlook: Outlook, situation: Situation) -> list[Event]:
    """Tell what happened on the candidate's way."""
    decision, before = outlook.decision, situation.progress
    after, candidate = outlook.roles.progress, situation.candidate
    if candidate is None:
        return []
    version, events = candidate.revision.version, []
    if decision.action is Action.ADVANCE and before.set_at:
        left = f"v{version}: the step of {before.weight} % is done; " if situation.steps else ""
        events.append(Event("Normal", "StepCompleted", f"{left}{decision.message}"))
    if (
        decision.action is Action.ADVANCE
        and situation.ratio
        and after.weight
        and after.weight != before.weight
    ):
        count = situation.canary_count(after.weight)
        true, _ = traffic.true_percent(count, situation.replicas)
        if abs(true - after.weight) > _APPROXIMATED_BY:
            message = (
                f"v{version}: {count} of {count + situation.replicas} pods make {true} %, not {after.weight} %; a "
                "Gateway or more replicas would be nearer"
            )
            events.append(Event("Warning", "WeightApproximated", message))
    failed = (decision.action is Action.ABORT and before.traffic_since) or (after.held and not before.held)
    if failed and decision.reason != "Aborted":
        events.append(Event("Warning", decision.reason, decision.message))
    return events


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
        # A canary with traffic is watched also while it waits for a person or for proof.
        or outlook.roles.progress.weight > 0
        or any(live.get(revision.name) for revision in outlook.roles.others)
    )


WATCHED_EVERY: Final = timedelta(seconds=2)
"""A canary with traffic is looked at so often: a bad one has the traffic for little longer."""


def requeue_after(outlook: Outlook, *, waits: bool) -> timedelta:
    """Look again every 1 to 5 s while something is under way; at rest when the registry is due."""
    due = outlook.resolution.poll_in
    if not waits or outlook.target is None:
        return due
    waited = (outlook.observed.now - outlook.since) / 10
    if outlook.roles.progress.weight:
        return WATCHED_EVERY
    return min(max(waited, timedelta(seconds=1)), timedelta(seconds=5), max(due, timedelta(seconds=1)))
