"""Who is stable and who is candidate: as `rollout` sees them, and as a decision leaves them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf

from rollway_operator import analysis, closures, measurements, steps, traffic
from rollway_operator.analysis import ERROR_RATE, LATENCY_P99, Lack, Metric, Result, Window
from rollway_operator.api.v1alpha1 import (
    AnalysisMetric,
    CanaryStatus,
    ModelDeployment,
    ModelDeploymentStatus,
    RevisionStatus,
    seconds,
)
from rollway_operator.conditions import Fact, Outlook, overdue
from rollway_operator.course import Course, has_steps
from rollway_operator.domain import (
    Action,
    Awaited,
    Decision,
    Held,
    Object,
    Observed,
    Platform,
    Pod,
    Progress,
    Roles,
    Standing,
    StoredRevision,
    Track,
)
from rollway_operator.measurements import DEFAULT_INTERVAL, Asked, Taken
from rollway_operator.rebuild import serving_revision, shares_service
from rollway_operator.rollout import Judgement, Situation, Way

DEFAULT_HISTORY_LIMIT = 10
DEFAULT_CONFIDENCE = 0.95
DEFAULT_LIMITS = {ERROR_RATE: 0.02, LATENCY_P99: 1.5}
DEFAULT_MIN_SAMPLES = 50
DEFAULT_PREVIEW = timedelta(seconds=300)
DEFAULT_TIMEOUT_SECONDS = 30.0
COUNTED_EVERY = timedelta(seconds=10)
"""Counts alone reach status no more often."""


def look(deployment: ModelDeployment, observed: Observed, course: Course, platform: Platform) -> Situation:
    """Put stable, candidate and what is wanted before the rules, with their pods and what is known of them."""
    spec, status, fates = deployment.spec, deployment.status, course.standing.fates
    stable = _track(status.stable, fates, observed)
    candidate = _candidate(status, fates, observed)
    named = {track.revision.name for track in (stable, candidate) if track}
    wanted, recreate = course.wanted, bool(spec.strategy and spec.strategy.recreate)
    way = way_of(deployment, stable.revision if stable else None)
    way_steps = steps.laid_down(deployment) if way == "canary" else ()
    progress = _progress(status.canary if candidate else None, course.standing, way, way_steps)
    blue_green = spec.strategy.blue_green if spec.strategy else None
    routes = _routes(deployment, observed, platform)
    situation = Situation(
        now=observed.now,
        replicas=stable_count(deployment, observed, stable.revision.name if stable else None),
        target=wanted,
        stable=stable,
        candidate=candidate,
        others_have_pods=any(pod.revision not in named for pod in observed.pods),
        recreate=recreate,
        stuck=candidate is not None
        and any(
            pod.server_since
            and not pod.ready
            and pod.unready_since is None
            and overdue(deployment, pod.server_since, observed.now)
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
        way=way,
        steps=way_steps,
        progress=progress,
        ratio=not platform.has_gateway,
        unroutable=_unroutable(observed, platform, routes) if way == "canary" else None,
        crowded=any(pod.revision not in named and not pod.terminating for pod in observed.pods),
        judgement=_judgement(deployment, observed, progress) if way == "canary" else Judgement(),
        compared=observed.compared,
        timeout=timedelta(seconds=_timeout(candidate)),
        preview=timedelta(seconds=blue_green.preview_seconds)
        if blue_green and blue_green.preview_seconds is not None
        else DEFAULT_PREVIEW,
        auto_promotion=blue_green is None or blue_green.auto_promotion is not False,
        manual=bool(spec.rollback and spec.rollback.mode == "Manual"),
        leaves=course.standing.leaves,
        skips=course.standing.skips,
    )
    return replace(situation, routed=_is_routed(deployment, observed, platform, situation, routes))


def way_of(deployment: ModelDeployment, stable: StoredRevision | None) -> Way:
    """Say what stands between a candidate's gates and its promotion."""
    if not has_steps(deployment, stable):
        return "gates"
    strategy = deployment.spec.strategy
    return "blueGreen" if strategy and strategy.blue_green else "canary"


def metrics_of(deployment: ModelDeployment) -> tuple[Metric, ...]:
    """Give the metrics that are compared with stable: those that the spec names, or the default ones."""
    named = deployment.spec.analysis.metrics if deployment.spec.analysis else None
    if named is None:
        return tuple(Metric(name, limit, DEFAULT_MIN_SAMPLES) for name, limit in DEFAULT_LIMITS.items())
    return tuple(_metric(metric) for metric in named if metric.template_ref is None)


def _metric(asked: AnalysisMetric) -> Metric:
    most = asked.threshold_range.max if asked.threshold_range else None
    limit = float(most) if most else DEFAULT_LIMITS[asked.name]
    return Metric(asked.name, limit, asked.min_samples or DEFAULT_MIN_SAMPLES)


def measured_metrics(deployment: ModelDeployment) -> tuple[Asked, ...]:
    """Give the metrics that an administrator's query measures."""
    named = (deployment.spec.analysis and deployment.spec.analysis.metrics) or ()
    return tuple(_asked(metric, metric.template_ref.name) for metric in named if metric.template_ref)


def _asked(metric: AnalysisMetric, template: str) -> Asked:
    limits = metric.threshold_range
    return Asked(
        name=metric.name,
        template=template,
        least=float(limits.min) if limits and limits.min else -inf,
        most=float(limits.max) if limits and limits.max else inf,
        interval=timedelta(seconds=seconds(metric.interval)) if metric.interval else DEFAULT_INTERVAL,
        count=metric.count or 1,
        failure_limit=metric.failure_limit or 0,
        inconclusive_limit=metric.inconclusive_limit or 0,
    )


def taken_before(deployment: ModelDeployment, asked: Asked) -> Taken:
    """Give the measurements that status has of a metric: none where they are of another template or range."""
    canary = deployment.status.canary
    for told in canary.measurements if canary else ():
        if (told.name, told.basis) == (asked.name, asked.basis):
            return Taken(
                name=told.name,
                basis=told.basis,
                at=told.measured_at,
                successful=told.successful,
                failed=told.failed,
                inconclusive=told.inconclusive,
                value=float(told.value) if told.value is not None else None,
                why=told.why or "",
            )
    return Taken(asked.name, asked.basis)


def due_metrics(deployment: ModelDeployment, now: datetime) -> tuple[Asked, ...]:
    """Give the metrics that are to be measured now: none without a canary that has traffic."""
    canary = deployment.status.canary
    if measured(deployment) is None or canary is None or canary.weight_since is None:
        return ()
    since = canary.weight_since
    return tuple(
        asked
        for asked in measured_metrics(deployment)
        if measurements.due(asked, taken_before(deployment, asked), since, now)
    )


def stable_count(deployment: ModelDeployment, observed: Observed, stable: str | None) -> int:
    """Say how many pods stable shall have: as the spec asks, or as an autoscaler has it."""
    predictor = deployment.spec.predictor
    scaling = predictor.autoscaling
    if scaling is None:
        return observed.count(stable, predictor.replicas)
    live = live_replicas(observed).get(stable or "", 0)
    return min(max(live or predictor.replicas, scaling.min_replicas), scaling.max_replicas)


def _progress(
    role: CanaryStatus | None, standing: Standing, way: Way, way_steps: Sequence[steps.Step]
) -> Progress:
    """Read how far the candidate has come; what a person says of it in this pass counts."""
    if role is None:
        return Progress(steps=steps.fingerprint(way_steps))
    progress = Progress(
        weight=role.weight or 0,
        index=role.current_step_index or 0,
        steps=role.steps or "",
        set_at=role.weight_set_at,
        started_at=role.step_started_at,
        traffic_since=role.weight_since,
        stable_replicas=role.stable_replicas,
        leaving=bool(role.leaving),
        promoting=role.promoting,
        held=Held(role.held.reason, role.held.message) if role.held else None,
        overruled_at=role.overruled_at,
        waiting_since=role.waiting_since,
    )
    if way != "canary":
        progress = replace(progress, weight=0)
    if standing.skips:
        progress = replace(progress, promoting=progress.promoting or "a person promoted it")
    return steps.followed(way_steps, progress)


def _judgement(deployment: ModelDeployment, observed: Observed, progress: Progress) -> Judgement:
    if progress.traffic_since is None:
        return Judgement()
    asked, window = deployment.spec.analysis, observed.evidence or Window()
    confidence = float(asked.confidence) if asked and asked.confidence else DEFAULT_CONFIDENCE
    metrics = metrics_of(deployment)
    compared = tuple(analysis.judge(metric, window, confidence, observed.now) for metric in metrics)
    asked_for = measured_metrics(deployment)
    taken = tuple(_taken(deployment, observed, asked) for asked in asked_for)
    by_query = tuple(map(measurements.judge, asked_for, taken))
    given_up = next(
        (
            f"{result.name}: {result.message}"
            for result, each, so_far in zip(by_query, asked_for, taken, strict=True)
            if measurements.is_given_up(each, so_far)
        ),
        None,
    )
    return Judgement(
        results=(*compared, *by_query),
        taken=taken,
        lacking=_lacking(metrics, compared, window, progress.weight) or given_up,
        requests=window.canary_requests(progress.weight),
        quiet_until=window.quiet_until(progress.weight),
        stuck=window.stuck,
        at_gateway=_at_gateway(observed, metrics, confidence),
        deadline=timedelta(seconds=seconds(asked.deadline)) if asked and asked.deadline else None,
        on_inconclusive=(asked and asked.on_inconclusive) or "Pause",
    )


def _at_gateway(observed: Observed, metrics: Sequence[Metric], confidence: float) -> Result | None:
    """Judge what callers got no answer to as errors, by the limit that the spec has for these, or the default."""
    if observed.at_gateway is None:
        return None
    default = Metric(ERROR_RATE, DEFAULT_LIMITS[ERROR_RATE], DEFAULT_MIN_SAMPLES)
    metric = next((metric for metric in metrics if metric.name == ERROR_RATE), default)
    return analysis.judge(metric, observed.at_gateway, confidence, observed.now)


def _taken(deployment: ModelDeployment, observed: Observed, asked: Asked) -> Taken:
    """Add this pass's measurement of a metric, if there was one, to those before it."""
    before, found = taken_before(deployment, asked), observed.measurements.get(asked.name)
    return before.add(asked, found, observed.now) if found else before


def retold(deployment: ModelDeployment, judgement: Judgement, now: datetime) -> bool:
    """Tell whether the numbers in status stay: only they differ, and they were written a moment ago."""
    before = deployment.status.analysis
    if before is None or before.measured_at is None or now - before.measured_at >= COUNTED_EVERY:
        return False
    said = [(result.name, result.phase, result.reason) for result in before.metric_results]
    return said == [(result.name, result.phase, result.reason) for result in judgement.results]


def _lacking(metrics: Sequence[Metric], results: Sequence[Result], window: Window, weight: int) -> str | None:
    """Say what is too little to leave the present step: samples in it, or pods that can be read."""
    unread = next((r for r in results if r.reason in (Lack.NO_DATA, Lack.PROVIDER_ERROR)), None)
    if unread:
        return f"{unread.name}: {unread.message}"
    seen = window.samples_in_step(weight)
    short = next((metric for metric in metrics if seen < metric.min_samples), None)
    return f"{short.name} has {seen} of {short.min_samples} samples at {weight} %" if short else None


@dataclass(frozen=True)
class Measured:
    """Whose pods are read for the verdict, and what their numbers count for."""

    stable: str
    canary: str
    step: int
    """The weight: the shares of traffic are the same as long as it is."""
    since: datetime | None
    """When it was decided."""


def measured(deployment: ModelDeployment) -> Measured | None:
    """Say what is to be read of which pods; None while no canary has traffic."""
    stable, canary = deployment.status.stable, deployment.status.canary
    if stable is None or canary is None or not canary.weight:
        return None
    return Measured(stable.revision, canary.revision, canary.weight, canary.weight_set_at)


def compared_pods(deployment: ModelDeployment, observed: Observed) -> tuple[Pod, Pod] | None:
    """Choose a pod of stable and one of the candidate whose signatures are compared; None where nothing is to be.

    That is once, before any traffic; what served before may serve again.
    """
    status, gates = deployment.status, deployment.spec.pre_traffic
    if gates and gates.signature_compatibility == "Ignore":
        return None
    if (
        status.stable is None
        or status.canary is None
        or status.canary.weight_since
        or status.canary.promoting
    ):
        return None
    if any(revision.name == status.canary.revision and revision.promoted for revision in observed.revisions):
        return None
    ready = (
        next((pod for pod in observed.of(role.revision) if pod.ready and not pod.terminating), None)
        for role in (status.stable, status.canary)
    )
    stable, canary = ready
    return (stable, canary) if stable and canary else None


def _timeout(candidate: Track | None) -> float:
    said = candidate.revision.settings.get("timeoutSeconds") if candidate else None
    return float(said) if isinstance(said, int | float) else DEFAULT_TIMEOUT_SECONDS


# ---------------------------------------------------------------------------------------------------------- traffic


Routes = Mapping[str, Object | None]
"""The live routes by kind, of those that the Gateways want; None where one is missing."""


def _routes(deployment: ModelDeployment, observed: Observed, platform: Platform) -> Routes:
    name = deployment.metadata.name
    return {kind: observed.objects.get((kind, name)) for kind in platform.gateways}


def _unroutable(observed: Observed, platform: Platform, routes: Routes) -> str | None:
    unknown = next((kind for kind in platform.gateways if kind not in observed.served), None)
    if unknown:
        return f"a Gateway is configured, but the API server knows no {unknown}: install the Gateway API"
    return next((why for route in routes.values() if route and (why := traffic.refusal(route))), None)


def _is_routed(
    deployment: ModelDeployment, observed: Observed, platform: Platform, now: Situation, routes: Routes
) -> bool:
    """Tell whether what splits the traffic has the candidate's weight."""
    if now.candidate is None or not now.progress.weight:
        return False
    if now.ratio:
        needed = now.canary_count(now.progress.weight)
        return shares_service(deployment, observed) and now.candidate.ready >= needed
    name, weight = now.candidate.revision.name, now.progress.weight
    return all(
        route is not None
        and traffic.weights_of(route).get(name) == weight
        and traffic.is_in_force(route, platform.gateways[kind])
        for kind, route in routes.items()
    )


def routes_ready(deployment: ModelDeployment, observed: Observed, platform: Platform) -> Fact | None:
    """State whether the Gateways have taken the model's routes; None where there is no Gateway."""
    if not platform.has_gateway:
        return None
    routes = _routes(deployment, observed, platform)
    if why := _unroutable(observed, platform, routes):
        return (False, "RouteNotAccepted", why)
    waiting = next(
        (
            kind
            for kind, route in routes.items()
            if route is None or not traffic.is_in_force(route, platform.gateways[kind])
        ),
        None,
    )
    if waiting:
        return (False, "RoutePending", f"the Gateway has not taken the {waiting} yet")
    return (True, "RoutesAccepted", "the Gateway has taken " + " and ".join(f"the {kind}" for kind in routes))


def shared_traffic(
    deployment: ModelDeployment, observed: Observed, platform: Platform, roles: Roles
) -> list[tuple[Track, int]]:
    """Say who has which percent of the traffic now: by the live route, else by the pods behind the Service."""
    stable, candidate = roles.stable, roles.candidate
    if stable is None:
        return []
    percent = 0
    if candidate and platform.has_gateway:
        live = next((route for route in _routes(deployment, observed, platform).values() if route), None)
        weights = traffic.weights_of(live) if live else {}
        whole = sum(weights.values())
        percent = round(100 * weights.get(candidate.revision.name, 0) / whole) if whole else 0
    elif candidate and shares_service(deployment, observed):
        percent, _ = traffic.true_percent(candidate.ready, stable.ready)
    shares = [(stable, 100 - percent)]
    return [*shares, (candidate, percent)] if candidate and percent else shares


# ------------------------------------------------------------------------------------------------------------ roles


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
    progress = decision.progress or situation.progress
    fates = dict(course.standing.fates)
    if decision.action is Action.START and wanted:
        candidate, progress = Track(wanted), Progress(steps=situation.progress.steps)
    elif decision.action is Action.ABORT:
        if candidate and wanted and not wanted.closed:
            fates[wanted.name] = closures.closed(
                candidate.revision,
                decision.reason,
                decision.message,
                observed.now,
                target=course.target,
                weight=progress.weight if progress.traffic_since else None,
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
    waits = decision.awaited is Awaited.PODS
    progress = replace(progress, waiting_since=(progress.waiting_since or observed.now) if waits else None)
    return Roles(stable, candidate, others, progress if candidate else Progress()), fates


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
