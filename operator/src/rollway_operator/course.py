"""Which revision shall serve: the target, or what serves in its place while that is closed or waits for a person."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from rollway_operator import closures, manifests, verbs
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import Failure, Observed, Platform, Standing, StoredRevision
from rollway_operator.target import as_resolved, render


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
    if stable := _stable(deployment, fates):
        fates = closures.never_rejecting(fates, stable)
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


def _stable(deployment: ModelDeployment, fates: Mapping[str, StoredRevision]) -> StoredRevision | None:
    role = deployment.status.stable
    return fates.get(role.revision) if role else None


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
        steps=canary is not None
        and status.canary is not None
        and (status.canary.weight_set_at is not None or status.canary.held is not None)
        and has_steps(deployment, _stable(deployment, fates)),
        now=now,
    )


def has_steps(deployment: ModelDeployment, stable: StoredRevision | None) -> bool:
    """Say whether a candidate comes to its promotion by steps or a preview, and not by its gates alone.

    There must be something to compare it with, and what a person goes back to (undo) takes over at once.
    """
    strategy = deployment.spec.strategy
    by_gates = strategy is not None and bool(strategy.rolling_update or strategy.recreate)
    return stable is not None and not by_gates and not stable.closed_by_person


def _awaits(deployment: ModelDeployment, standing: Standing, target: StoredRevision) -> bool:
    """With updatePolicy Manual another version than stable's waits; what is on its way was let go before."""
    status = deployment.status
    stable = _stable(deployment, standing.fates)
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
    fates = standing.fates
    target = closures.closed_for_all_shapes(fates, fates[target.name])
    stable = _stable(deployment, fates)
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
        deployment, *as_resolved(serving), observed, platform, before=serving, kept=kept
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
    fates, nonce = dict(standing.fates), standing.restart
    stable = _stable(deployment, fates)
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
