"""Who is stable and who is candidate: as `rollout` sees them, and as a decision leaves them."""

from collections.abc import Mapping
from dataclasses import replace

from rollway_operator import closures
from rollway_operator.api.v1alpha1 import ModelDeployment, ModelDeploymentStatus, RevisionStatus
from rollway_operator.conditions import Outlook, overdue
from rollway_operator.course import Course
from rollway_operator.domain import Action, Decision, Observed, Roles, Standing, StoredRevision, Track
from rollway_operator.rebuild import serving_revision
from rollway_operator.rollout import Situation

DEFAULT_HISTORY_LIMIT = 10


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


def live_replicas(observed: Observed) -> dict[str, int]:
    """Read the count that each Deployment of ours asks for."""
    return {
        name: int(live.get("spec", {}).get("replicas", 1))
        for (kind, name), live in observed.objects.items()
        if kind == "Deployment"
    }
