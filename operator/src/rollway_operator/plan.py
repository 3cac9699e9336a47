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

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from rollway_operator import closures, conditions, manifests, obstacles, rebuild, rollout, verbs
from rollway_operator.api.v1alpha1 import ModelDeployment, ModelDeploymentStatus, RevisionStatus
from rollway_operator.conditions import Outlook, overdue
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
    Standing,
    StoredRevision,
    Track,
    timestamp,
)
from rollway_operator.labels import selector
from rollway_operator.rebuild import serving_revision
from rollway_operator.rollout import Situation

DEFAULT_HISTORY_LIMIT = 10
HISTORY_LENGTH = 10

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
    return render(deployment, version, source, observed, platform, before=known)


def render(
    deployment: ModelDeployment,
    version: ModelVersion,
    source: ArtifactSource,
    observed: Observed,
    platform: Platform,
    *,
    before: StoredRevision | None,
    kept: Mapping[str, Any] | None = None,
) -> tuple[StoredRevision | None, Failure | None]:
    """Find or make the revision of a version with the present spec; `kept` are inputs that come from elsewhere.

    Where something stands in the way, what was wanted `before` stays.
    """
    if obstacle := obstacles.find(deployment, observed, platform):
        return before, obstacle
    runtime = platform.runtimes[deployment.spec.predictor.runtime]
    chosen = {**manifests.inputs(deployment, version, source, runtime, observed.golden), **(kept or {})}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    # The revision wanted before comes first, then the newest: two may differ in nothing but their image.
    candidates = sorted(observed.revisions, key=lambda r: (r is not before, -r.number))
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


# -------------------------------------------------------------------------------- what holds, and what was said


@dataclass(frozen=True)
class Course:
    """Where it goes: what the registry and the spec ask for, and what shall serve now."""

    standing: Standing
    target: StoredRevision | None
    wanted: StoredRevision | None
    """The target, or what serves in its place while that is closed or waits for a person."""
    awaits: bool = False
    """The target waits for a person's `promote`."""
    obstacle: Failure | None = None


def standing_of(deployment: ModelDeployment, observed: Observed, target: StoredRevision | None) -> Standing:
    """Read what holds from earlier passes; a target that moved opens what was closed under the one before."""
    status = deployment.status
    rendered = (target,) if target and target not in observed.revisions else ()
    fates = closures.believed(status, (*rendered, *observed.revisions))
    if target:
        fates = closures.opened_by_a_move(fates, fates[target.name])
    if status.stable and status.stable.revision in fates:
        fates = closures.never_rejecting(fates, fates[status.stable.revision])
    model = status.model
    return Standing(
        fates=fates,
        paused=bool(status.paused_by_verb),
        approved=model.approved_revision if model else None,
        restart=model.restart if model else None,
        acknowledged=bool(model and model.closed and model.closed.acknowledged),
        rebuilt=status.rebuilt,
        handled=status.last_handled,
    )


def scene(
    deployment: ModelDeployment, standing: Standing, target: StoredRevision | None, now: datetime
) -> verbs.Scene:
    """Put who is who before the verbs."""
    fates, status = standing.fates, deployment.status
    if target:
        target = closures.closed_for_all_shapes(fates, fates[target.name])
    canary = status.canary.revision if status.canary and status.canary.revision in fates else None
    return verbs.Scene(
        standing=standing,
        stable=status.stable.revision if status.stable else None,
        candidate=canary,
        target=target,
        spec_paused=bool(deployment.spec.paused),
        awaits=target is not None and _awaits(deployment, standing, target),
        now=now,
    )


def _awaits(deployment: ModelDeployment, standing: Standing, target: StoredRevision) -> bool:
    """With updatePolicy Manual another version than stable's waits; what is on its way was let go before."""
    status = deployment.status
    stable = standing.fates.get(status.stable.revision) if status.stable else None
    if deployment.spec.model.update_policy != "Manual" or stable is None or target.closed:
        return False
    let_go = (standing.approved, status.canary and status.canary.revision)
    return target.key != stable.key and target.name not in let_go


def set_course(
    deployment: ModelDeployment,
    standing: Standing,
    observed: Observed,
    platform: Platform,
    target: StoredRevision | None,
) -> Course:
    """Choose the revision that shall serve.

    target                            serves in its place
    open                              itself
    closed, or waits for `promote`    stable, or what a person went back to; with the spec that came since
    stable, to be restarted           a new revision of the same inputs, with the present image
    """
    if target is None:
        return Course(standing, None, None)
    fates, status = standing.fates, deployment.status
    target = closures.closed_for_all_shapes(fates, fates[target.name])
    stable = fates.get(status.stable.revision) if status.stable else None
    awaits, obstacle, wanted = _awaits(deployment, standing, target), None, target
    if stable and (target.closed or awaits):
        left = target if target.closed else stable
        wanted = closures.follow(fates, stable, left)
        if not wanted.closed:
            closed = closures.left_by_person(fates, left)
            reshaped, obstacle = _reshaped(deployment, observed, platform, wanted, closed)
            wanted = fates.get(reshaped.name, reshaped)
    elif target.closed:
        wanted = closures.follow(fates, None, target)
    if standing.restart:
        return _restarted(deployment, standing, observed, platform, Course(standing, target, wanted, awaits))
    fates = {**fates, wanted.name: wanted}
    return Course(replace(standing, fates=fates), target, wanted, awaits, obstacle)


def _reshaped(
    deployment: ModelDeployment,
    observed: Observed,
    platform: Platform,
    serving: StoredRevision,
    left: Iterable[StoredRevision],
) -> tuple[StoredRevision, Failure | None]:
    """Give what serves in place of what was `left` the present spec, if that changed since."""
    kept = {key: serving.inputs.get(key) for key in manifests.OF_THE_VERSION}
    shaped, obstacle = render(
        deployment, *_as_resolved(serving), observed, platform, before=serving, kept=kept
    )
    if shaped is None or obstacle:
        return serving, obstacle
    unchanged = [one for one in left if one.closed and manifests.same_shape(shaped.inputs, one.inputs)]
    if any((one.closing and one.closing.instead) or serving.number < one.number for one in unchanged):
        return serving, None
    return shaped, None


def _restarted(
    deployment: ModelDeployment,
    standing: Standing,
    observed: Observed,
    platform: Platform,
    course: Course,
) -> Course:
    """Want stable anew; once its revision is stored nothing more need be remembered."""
    fates, status, nonce = dict(standing.fates), deployment.status, standing.restart
    stable = fates.get(status.stable.revision) if status.stable else None
    target, wanted = course.target, course.wanted
    done = any(revision.inputs.get("restart") == nonce for revision in observed.revisions)
    if done or stable is None or target is None or wanted is None or wanted.name != stable.name:
        return replace(course, standing=replace(standing, restart=None))
    runtime = platform.runtimes.get(stable.inputs["runtime"])
    if runtime is None:
        return course
    chosen = {**stable.inputs, "image": runtime.image, "restart": nonce}
    fresh = manifests.new_revision(deployment, chosen, runtime, observed.revisions)
    fates[fresh.name] = fresh
    if target.key == stable.key:
        target = fresh
    else:
        for name, fate in fates.items():
            if fate.closing and fate.closing.instead == stable.name:
                fates[name] = replace(fate, closing=replace(fate.closing, instead=fresh.name))
        target = fates[target.name]
    return replace(course, standing=replace(standing, fates=fates), target=target, wanted=fresh)


# ------------------------------------------------------------------------------------------------ who is who


def look(deployment: ModelDeployment, observed: Observed, course: Course) -> Situation:
    """Put stable, candidate and what is wanted before the rules, with their pods."""
    spec, status, fates = deployment.spec, deployment.status, course.standing.fates
    stable = _track(status.stable, fates, observed)
    candidate = _candidate(status, fates, observed)
    named = {track.revision.name for track in (stable, candidate) if track}
    wanted, recreate = course.wanted, bool(spec.strategy and spec.strategy.recreate)
    return Situation(
        replicas=observed.count(stable.revision.name if stable else None, spec.predictor.replicas),
        target=wanted,
        stable=stable,
        candidate=candidate,
        others_have_pods=any(pod.revision not in named for pod in observed.pods),
        recreate=recreate,
        stuck=candidate is not None
        and any(
            pod.server_since and not pod.ready and overdue(deployment, pod.server_since, observed.now)
            for pod in candidate.pods
        ),
        # With recreate nothing serves in the middle of a rollout: it is finished first.
        paused=None if recreate and candidate else _paused(deployment, course.standing),
        remains=wanted is not None
        and wanted.name not in named
        and not wanted.promoted
        and (
            live_replicas(observed).get(wanted.name, 0) > 0
            or any(not pod.terminating for pod in observed.of(wanted.name))
        ),
    )


def _candidate(
    status: ModelDeploymentStatus, fates: Mapping[str, StoredRevision], observed: Observed
) -> Track | None:
    """Find the candidate; a pin that is in status alone is believed unless its own pods know nothing of it."""
    role = status.canary
    track = _track(role, fates, observed)
    if track is None or role is None or (status.stable and status.stable.revision == role.revision):
        return None
    if track.revision.promoted:
        return track
    # A retry takes the pin away in status first.
    stored, told = fates[role.revision].digest, {pod.digest for pod in track.staying}
    pin = role.digest if role.digest in (stored, *told) or not told else None
    return replace(track, revision=replace(track.revision, digest=pin or track.revision.inputs.get("digest")))


def _paused(deployment: ModelDeployment, standing: Standing) -> str | None:
    if standing.rebuilt:
        return standing.rebuilt
    if deployment.spec.paused:
        return "spec.paused is true"
    return "paused until rollway.dev/resume" if standing.paused else None


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


def assign(
    situation: Situation, decision: Decision, course: Course, observed: Observed
) -> tuple[Roles, Mapping[str, StoredRevision]]:
    """Give out the roles that follow from the decision; record a digest once told, an outcome once decided."""
    stable, candidate, wanted = situation.stable, _pinned(situation.candidate), situation.target
    fates = dict(course.standing.fates)
    if decision.action is Action.START and wanted:
        candidate = Track(wanted)
    elif decision.action is Action.ABORT:
        if candidate and wanted and not wanted.closed:
            fates[wanted.name] = closures.closed(
                candidate.revision,
                decision.reason,
                decision.message,
                observed.now,
                target=course.target,
            )
        candidate = None
    elif decision.action is Action.CANCEL:
        candidate = None
    elif decision.action is Action.PROMOTE and candidate:
        stable, candidate = candidate, None
    if stable:
        # Whoever is stable was promoted, also where a kill came between the status and this annotation.
        stable = replace(stable, revision=closures.served(stable.revision))
        fates = closures.never_rejecting(fates, stable.revision)
    stable, candidate = _pinned(stable), _pinned(candidate)
    named = {track.revision.name: track.revision for track in (stable, candidate) if track}
    fates |= named
    stored = {revision.name for revision in observed.revisions}
    # What was rendered in this pass and not started yet is nowhere: the next pass renders it again, equally.
    others = tuple(r for name, r in fates.items() if name not in named and (name in stored or r.closed))
    return Roles(stable, candidate, others), fates


def _pinned(track: Track | None) -> Track | None:
    """Take over the digest that the first pod told."""
    if track and track.pin and not track.revision.digest:
        return replace(track, revision=replace(track.revision, digest=track.pin))
    return track


def expired(outlook: Outlook) -> tuple[StoredRevision, ...]:
    """Choose the oldest revisions without a role beyond revisionHistoryLimit."""
    deployment, target = outlook.deployment, outlook.target
    limit = deployment.spec.revision_history_limit
    keep = DEFAULT_HISTORY_LIMIT if limit is None else limit
    newest_first = sorted(outlook.roles.others, key=lambda revision: -revision.number)
    # Whatever the limit: one that traffic still goes to, one that a person went back to, and a closed target, which
    # would start again if forgotten.
    model = deployment.status.model
    kept = {serving_revision(deployment, outlook.observed), model.target_revision if model else None}
    kept |= {target.name} if target else set()
    kept |= {fate.closing.instead for fate in outlook.standing.fates.values() if fate.closing}
    return tuple(revision for revision in newest_first[keep:] if revision.name not in kept)


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


# --------------------------------------------------------------------------------------------------- objects


def live_replicas(observed: Observed) -> dict[str, int]:
    """Read the count that each Deployment of ours asks for."""
    return {
        name: int(live.get("spec", {}).get("replicas", 1))
        for (kind, name), live in observed.objects.items()
        if kind == "Deployment"
    }


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


# ---------------------------------------------------------------------------------------------------- status


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
    spec, before = outlook.deployment.spec.model, outlook.deployment.status.model
    target, roles, standing = outlook.target, outlook.roles, outlook.standing
    under_way = {track.revision.name for track in roles.in_role}
    told: dict[str, Any] = {"name": spec.name, "alias": spec.alias}
    if target:
        approved = standing.approved == target.name and target.name not in under_way
        seen = bool(
            before and before.closed and outlook.closed and before.closed.revision == outlook.closed.name
        )
        told |= {
            "targetVersion": target.version,
            "targetRevision": target.name,
            "targetSince": timestamp(outlook.since),
            "closed": closures.closed_status(outlook.closed, acknowledged=standing.acknowledged and seen),
            "approvedRevision": target.name if approved else None,
            "restart": standing.restart,
        }
    return {key: value for key, value in told.items() if value is not None}


def _started(outlook: Outlook) -> datetime:
    before, candidate = outlook.deployment.status.canary, outlook.roles.candidate
    if before and before.started_at and candidate and before.revision == candidate.revision.name:
        return before.started_at
    return outlook.observed.now


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
