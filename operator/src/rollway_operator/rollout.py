"""Which step comes next: an ordered tuple of small rules. The first that matches decides; the order is the policy.

                 START              EXPAND             ADVANCE                   PROMOTE
    target open ───────► one pod ─────────► its count ─────────► 10 % ► 50 % ► … ─────────► it is stable
                            │ ABORT: the candidate failed; its revision is closed
                            │ CANCEL: the target moved; nothing is closed
                            ▼
                      stable unchanged

Every rule reads as a fact about a `Situation` and gives a `Decision` or None. What a decision changes of the
candidate's progress stands in it: status is written with both, so that no step is made twice or left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from rollway_operator import steps
from rollway_operator.analysis import Phase, Result, Stuck
from rollway_operator.domain import (
    PROMOTED,
    Action,
    Awaited,
    Comparison,
    Decision,
    Fault,
    Held,
    Progress,
    StoredRevision,
    Track,
)
from rollway_operator.measurements import Taken
from rollway_operator.steps import Step
from rollway_operator.traffic import canary_replicas

CRASHES_BEFORE_TRAFFIC: Final = 3
"""So many crashes without a gate's reason are the model's fault; with traffic the first one is."""

PROVEN: Final = "every metric has passed"
"""Why a canary takes over without a person."""

UNREADY_AFTER: Final = timedelta(seconds=15)
"""For so long a pod that was ready may not be before that is the model's fault."""

QUIET_AFTER: Final = timedelta(seconds=5)
"""Without any request for so long a weight counts as in force although nobody has seen it work."""

Way = Literal["canary", "blueGreen", "gates"]
"""What stands between a candidate's gates and its promotion: steps, a preview, or nothing."""


@dataclass(frozen=True)
class Judgement:
    """How a canary is judged, and what was found."""

    results: tuple[Result, ...] = ()
    """What each metric says."""
    taken: tuple[Taken, ...] = ()
    """The measurements of those that are measured by an administrator's query."""
    lacking: str | None = None
    """What is too little to leave the present step; None where it is enough."""
    requests: int = 0
    """Requests of the candidate at its present weight, whatever became of them."""
    quiet_until: datetime | None = None
    """Until when nobody is known to have asked stable at this weight; None where somebody did, or it is not known."""
    stuck: Stuck | None = None
    """For how long the candidate has requests in progress and has answered none well."""
    at_gateway: Result | None = None
    """Whether requests end at the Gateway without an answer of the candidate's; None where nobody asks it."""
    deadline: timedelta | None = None
    on_inconclusive: str = "Pause"


@dataclass(frozen=True)
class Situation:
    """All that a rule may look at."""

    now: datetime
    replicas: int
    """How many pods stable shall have."""
    target: StoredRevision | None
    """The revision that shall serve: what the registry's version and the spec ask for, or what serves in its place
    while that is closed or waits for a person; None while no version was ever known."""
    stable: Track | None
    candidate: Track | None
    others_have_pods: bool = False
    """Pods of revisions that are neither stable nor candidate still exist, terminating ones included."""
    recreate: bool = False
    stuck: bool = False
    """A server of the candidate has run for longer than progressDeadlineSeconds without becoming ready."""
    paused: str | None = None
    """Why nothing may start or take over; None while nothing holds."""
    rebuilt: bool = False
    """The status was rebuilt in this pass."""
    remains: bool = False
    """Pods of an earlier try of the target are still there."""
    way: Way = "gates"
    steps: tuple[Step, ...] = ()
    progress: Progress = field(default_factory=Progress)
    ratio: bool = True
    """The pods' counts split the traffic, not a Gateway."""
    routed: bool = False
    """What splits the traffic has taken the candidate's weight over."""
    unroutable: str | None = None
    """Why the Gateway cannot be told about a weight."""
    crowded: bool = False
    """Pods of a third revision run, which the Service would select, too."""
    judgement: Judgement = field(default_factory=Judgement)
    compared: Comparison | None = None
    timeout: timedelta = timedelta(seconds=30)
    """How long a prediction may take."""
    preview: timedelta = timedelta(0)
    auto_promotion: bool = True
    manual: bool = False
    """A person decides what becomes of a candidate that fails."""
    leaves: bool = False
    """A person says that the candidate leaves its step."""
    skips: bool = False
    """A person says that it goes to the end."""

    @property
    def room_missing(self) -> bool:
        """With recreate the candidate must wait: pods of other revisions still exist."""
        return self.recreate and (self.others_have_pods or bool(self.stable and self.stable.pods))

    @property
    def full_count(self) -> int:
        """How many ready pods the promotion needs: no fewer than served when the candidate was first given traffic."""
        return max(self.replicas, self.progress.stable_replicas or 0)

    @property
    def weighs_in(self) -> bool:
        """The candidate's weight is in force: it was seen to get requests, or nobody sends any."""
        if not self.routed or self.progress.set_at is None:
            return False
        quiet_until = self.judgement.quiet_until
        quiet = quiet_until is not None and quiet_until - self.progress.set_at >= QUIET_AFTER
        return self.ratio or self.judgement.requests > 0 or quiet

    @property
    def since(self) -> datetime | None:
        """Since when what happens under traffic speaks against the candidate; None while it has none."""
        progress = self.progress
        if progress.traffic_since is None:
            return None
        return max(progress.traffic_since, progress.overruled_at or progress.traffic_since)

    def canary_count(self, weight: int) -> int:
        """Say how many pods the candidate needs for a weight."""
        return canary_replicas(weight, self.replicas, ratio=self.ratio)


Rule = Callable[[Situation], Decision | None]


def state_rebuilt(now: Situation) -> Decision | None:
    """The status was lost or forged: what was rebuilt is written down before anything rests on it."""
    if now.rebuilt:
        return Decision(Action.HOLD, "StateRebuilt", "the status was rebuilt")
    return None


def target_unknown(now: Situation) -> Decision | None:
    """The registry never named a version: there is nothing to roll out."""
    if now.target is None:
        return Decision(Action.HOLD, "TargetUnknown", "waiting for the registry to name a version")
    return None


def target_moved(now: Situation) -> Decision | None:
    """Another revision is wanted than the one on its way: drop that one, close nothing."""
    if now.candidate and now.target and now.candidate.revision.name != now.target.name:
        wanted, dropped = now.target.version, now.candidate.revision
        if dropped.closed:
            return Decision(Action.CANCEL, str(dropped.outcome), dropped.outcome_message)
        return Decision(
            Action.CANCEL, "TargetMoved", f"v{dropped.version} dropped: the target is now v{wanted}"
        )
    return None


def target_serves(now: Situation) -> Decision | None:
    """The wanted revision is stable already."""
    if now.target and now.stable and now.stable.revision.name == now.target.name:
        return Decision(Action.HOLD, "TargetServes", f"v{now.target.version} serves")
    return None


def target_closed(now: Situation) -> Decision | None:
    """The wanted revision is closed: it is not tried again by itself (closures)."""
    if now.target and now.target.closed:
        return Decision(Action.ABORT, str(now.target.outcome), now.target.outcome_message)
    return None


def start_held(now: Situation) -> Decision | None:
    """A person holds every change."""
    if now.paused and now.target and now.candidate is None:
        message = f"v{now.target.version} does not start: {now.paused}"
        return Decision(Action.HOLD, "Paused", message, Awaited.PERSON)
    return None


def earlier_try_remains(now: Situation) -> Decision | None:
    """Pods of an earlier try would tell of its failure, or of its digest, again: they go first."""
    if now.remains and now.target and now.candidate is None:
        message = f"v{now.target.version}: waiting for the pods of the try before to stop"
        return Decision(Action.HOLD, "StoppingPods", message)
    return None


def candidate_missing(now: Situation) -> Decision | None:
    """The wanted revision is not on its way yet: start it with one pod."""
    if now.target and now.candidate is None:
        return Decision(Action.START, "RolloutStarted", f"v{now.target.version} starts with one pod")
    return None


def candidate_mismatched(now: Situation) -> Decision | None:
    """A pod fetched other bytes than were pinned."""
    if now.candidate is None:
        return None
    pin = now.candidate.pin
    other = next((pod.digest for pod in now.candidate.staying if pod.digest not in (None, pin)), None)
    if other is None:
        return None
    version = now.candidate.revision.version
    message = f"v{version}: artifacts have digest {other}, pinned is {pin}{_asked_for(now.candidate)}"
    return Decision(Action.ABORT, "DigestMismatch", message)


def _asked_for(track: Track) -> str:
    """Name the field that a pinned digest comes from, where it comes from one."""
    if "digest" not in track.revision.inputs:
        return ""
    return "; spec.model.digest asks for the latter: correct it, or name the version that has it"


def candidate_failed(now: Situation) -> Decision | None:
    """The model's own fault, told by a gate, the loader or fetch; a crash without a reason counts from the third."""
    failure = now.candidate.failure if now.candidate else None
    if now.candidate is None or failure is None or failure.fault is Fault.NOBODY:
        return None
    version = now.candidate.revision.version
    if any(pod.oom_killed for pod in now.candidate.staying):
        return Decision(Action.ABORT, "CanaryOomKilled", f"v{version}: {failure.message}")
    if failure.reason == "ServerExited":
        restarts = max(pod.restarts for pod in now.candidate.staying)
        if restarts < CRASHES_BEFORE_TRAFFIC:
            return None
        return Decision(
            Action.ABORT, "CanaryRestarted", f"v{version} exited {restarts} times: {failure.message}"
        )
    field = _asked_for(now.candidate) if failure.reason == "DigestMismatch" else ""
    return Decision(Action.ABORT, failure.reason, f"v{version}: {failure.message}{field}")


def candidate_stuck(now: Situation) -> Decision | None:
    """The model hangs: waiting for a node, an image or the artifacts never counts as that."""
    if now.candidate is None or not now.stuck:
        return None
    version = now.candidate.revision.version
    message = f"v{version}: the server runs but did not become ready within the progress deadline"
    return Decision(Action.ABORT, "ProgressDeadlineExceeded", message)


def canary_oom_killed(now: Situation) -> Decision | None:
    """A pod with traffic used more memory than its limit; it may be up again already."""
    return _ended_under_traffic(now, "CanaryOomKilled", "used more memory than its limit", oom=True)


def canary_restarted(now: Situation) -> Decision | None:
    """The server of a pod with traffic ended; it may be up again already."""
    return _ended_under_traffic(now, "CanaryRestarted", "ended and was started again", oom=False)


def _ended_under_traffic(now: Situation, reason: str, what: str, *, oom: bool) -> Decision | None:
    since = now.since
    if now.candidate is None or since is None:
        return None
    ended = [
        pod
        for pod in now.candidate.staying
        if pod.crashed_at and pod.crashed_at > since and pod.oom_killed is oom
    ]
    if not ended:
        return None
    message = (
        f"v{now.candidate.revision.version}: the server of {ended[0].name} {what} at {now.progress.weight} %"
    )
    return Decision(Action.ABORT, reason, message)


def canary_unready(now: Situation) -> Decision | None:
    """A pod had been ready and is not, and its node can still tell."""
    if now.candidate is None:
        return None
    overruled = now.progress.overruled_at
    for pod in now.candidate.staying:
        since = pod.unready_since and max(pod.unready_since, overruled or pod.unready_since)
        if since and now.now - since >= UNREADY_AFTER:
            seconds = round((now.now - since).total_seconds())
            message = f"v{now.candidate.revision.version}: {pod.name} was ready and is not for {seconds} s"
            return Decision(Action.ABORT, "CanaryUnready", message)
    return None


def canary_stuck(now: Situation) -> Decision | None:
    """Requests are in progress and none ends well for as long as a prediction may take."""
    since, stuck = now.since, now.judgement.stuck
    if now.candidate is None or since is None or stuck is None:
        return None
    # What was seen last may be a scrape ago: since then it may have answered.
    seconds = (stuck.until - max(since, stuck.since)).total_seconds()
    if seconds < now.timeout.total_seconds():
        return None
    message = f"v{now.candidate.revision.version}: requests are in progress and none was answered for {seconds:.0f} s"
    return Decision(Action.ABORT, "CanaryStuck", message)


def canary_gateway_errors(now: Situation) -> Decision | None:
    """The Gateway gets no answer from it, and more often than from stable, beyond doubt; no numbers say nothing."""
    found = now.judgement.at_gateway
    if now.candidate is None or now.progress.overruled_at or found is None or found.phase is not Phase.FAILED:
        return None
    message = (
        f"v{now.candidate.revision.version}: requests that the Gateway got no answer to: {found.message}"
    )
    return Decision(Action.ABORT, "CanaryGatewayErrors", message)


def signature_incompatible(now: Situation) -> Decision | None:
    """Who asks stable could not ask the candidate."""
    if now.candidate is None or now.compared is None or now.compared.problem is None:
        return None
    message = (
        f"v{now.candidate.revision.version}: {now.compared.problem}; callers of stable would fail: register the "
        "change under another model, or set spec.preTraffic.signatureCompatibility to Ignore and retry"
    )
    return Decision(Action.ABORT, "SignatureIncompatible", message)


def analysis_failed(now: Situation) -> Decision | None:
    """A metric is worse than stable's by more than it may be, beyond doubt."""
    if now.candidate is None or now.progress.overruled_at:
        return None
    failed = next((result for result in now.judgement.results if result.phase is Phase.FAILED), None)
    if failed is None:
        return None
    return Decision(Action.ABORT, "AnalysisFailed", f"v{now.candidate.revision.version}: {failed.message}")


def rollback_held(now: Situation) -> Decision | None:
    """It failed, and a person shall decide what becomes of it."""
    held, track = now.progress.held, now.candidate
    if track is None or held is None:
        return None
    if now.leaves or now.skips:
        let_go = replace(now.progress, held=None, overruled_at=now.now)
        return Decision(
            Action.HOLD,
            "Overruled",
            f"v{track.revision.version}: a person lets it go on",
            Awaited.TIME,
            let_go,
        )
    weight = now.progress.weight if track.ready and held.reason != "DigestMismatch" else 0
    return Decision(
        Action.HOLD, held.reason, held.message, Awaited.PERSON, replace(now.progress, weight=weight)
    )


def room_missing(now: Situation) -> Decision | None:
    """With recreate the candidate waits until every pod of every other revision is gone."""
    if now.room_missing:
        return Decision(Action.HOLD, "StoppingStable", "waiting for the old pods to stop")
    return None


def advance_held(now: Situation) -> Decision | None:
    """A person holds every change."""
    if now.paused and now.candidate:
        message = f"v{now.candidate.revision.version} waits: {now.paused}"
        return Decision(Action.HOLD, "Paused", message, Awaited.PERSON)
    return None


def candidate_not_ready(now: Situation) -> Decision | None:
    """No pod may take traffic, and nothing is wrong that waiting cannot cure."""
    if now.candidate is None or now.candidate.ready:
        return None
    version, failure = now.candidate.revision.version, now.candidate.failure
    if failure:
        return Decision(Action.HOLD, failure.reason, f"v{version}: {failure.message}")
    return Decision(
        Action.HOLD,
        "CanaryNotReady",
        f"v{version}: waiting for the first pod to be verified and pass its gates",
    )


def signature_unknown(now: Situation) -> Decision | None:
    """Nobody can say yet whether the candidate takes what stable takes."""
    if now.candidate is None or now.compared is None or now.compared.unknown is None:
        return None
    message = f"v{now.candidate.revision.version}: its signature is not compared yet: {now.compared.unknown}"
    return Decision(Action.HOLD, "SignatureUnknown", message)


def promotion_decided(now: Situation) -> Decision | None:
    """The way is behind it, or a person says so: it needs its full count of pods, then it is stable."""
    why = now.progress.promoting
    if now.candidate is None or (now.way != "gates" and not why):
        return None
    version = now.candidate.revision.version
    if now.candidate.ready >= now.full_count:
        count = f"{now.candidate.ready} of {now.full_count} pods ready"
        return Decision(Action.PROMOTE, PROMOTED, f"v{version}: {f'{why}; ' if why else ''}{count}")
    return Decision(
        Action.EXPAND,
        "CanaryNotReady",
        f"v{version}: {now.candidate.ready} of {now.full_count} pods ready",
    )


def preview_incomplete(now: Situation) -> Decision | None:
    """Blue-green shows the candidate once all of it is there."""
    if now.candidate is None or now.way != "blueGreen" or now.candidate.ready >= now.full_count:
        return None
    count = f"{now.candidate.ready} of {now.full_count} pods ready"
    return Decision(Action.EXPAND, "CanaryNotReady", f"v{now.candidate.revision.version}: {count}")


def preview_goes_on(now: Situation) -> Decision | None:
    """Blue-green lets people look at the candidate before it takes over."""
    if now.candidate is None or now.way != "blueGreen":
        return None
    version, progress = now.candidate.revision.version, now.progress
    if now.leaves:
        return _promotes(now, now.candidate, "a person promoted it")
    if progress.started_at is None:
        began = replace(progress, set_at=now.now, started_at=now.now)
        return Decision(Action.HOLD, "Preview", f"v{version} can be previewed", Awaited.TIME, began)
    left = now.preview - (now.now - progress.started_at)
    if not now.auto_promotion:
        return Decision(
            Action.HOLD,
            "AwaitingPromote",
            f"v{version} can be previewed and waits for a person",
            Awaited.PERSON,
        )
    if left > timedelta(0):
        ends = f"v{version} can be previewed until {progress.started_at + now.preview:%H:%M:%S} UTC"
        return Decision(Action.HOLD, "Preview", ends, Awaited.TIME)
    return _promotes(now, now.candidate, "its preview is over")


def _promotes(now: Situation, track: Track, why: str) -> Decision:
    progress = replace(now.progress, promoting=why, leaving=False, index=_end(now))
    version = track.revision.version
    return Decision(Action.ADVANCE, "Promoting", f"v{version} takes over: {why}", progress=progress)


def _end(now: Situation) -> int:
    return now.steps[-1].end if now.steps else 0


def weight_cannot_be_set(now: Situation) -> Decision | None:
    """There is a Gateway, and no way to tell it; or the Service would send traffic to a third revision, too."""
    if now.candidate is None or now.progress.weight:
        return None
    version = now.candidate.revision.version
    if now.unroutable:
        return Decision(Action.HOLD, "GatewayUnusable", f"v{version} gets no traffic: {now.unroutable}")
    if now.ratio and now.crowded:
        return Decision(
            Action.HOLD, "StoppingPods", f"v{version} gets no traffic while pods of an older revision run"
        )
    return None


def weight_pending(now: Situation) -> Decision | None:
    """A weight was decided and is not in force yet; its clock starts when it is."""
    progress = now.progress
    if (
        now.candidate is None
        or progress.set_at is None
        or progress.started_at
        or now.leaves
        or progress.leaving
    ):
        return None
    if progress.weight and not now.weighs_in:
        pending = "waiting for requests to reach it" if now.routed else "not in force yet"
        message = f"{_where(now)}: {pending}"
        short = now.ratio and now.candidate.ready < now.canary_count(progress.weight)
        return _at_deadline(now, now.candidate, message) or Decision(
            Action.HOLD, "WeightPending", message, Awaited.PODS if short else Awaited.TIME
        )
    step = steps.present(now.steps, progress)
    began = replace(progress, started_at=now.now, index=step.index + 1 if step else progress.index)
    return Decision(Action.HOLD, "StepStarted", f"{_where(now)} is in force", Awaited.TIME, began)


def step_pauses(now: Situation) -> Decision | None:
    """The step's pauses are not over."""
    progress, step = now.progress, steps.present(now.steps, now.progress)
    if now.candidate is None or step is None or progress.started_at is None or now.leaves or progress.leaving:
        return None
    here = steps.place(step, progress.started_at, now.now)
    at = replace(progress, index=here.index)
    if here.person:
        return Decision(
            Action.HOLD, "PauseStep", f"{_where(now, here.index)} waits for a person", Awaited.PERSON, at
        )
    if here.left is None:
        return None
    until = now.now + timedelta(seconds=here.left)
    told = _told(now)
    message = f"{_where(now, here.index)} until {until:%H:%M:%S} UTC{f': {told}' if told else ''}"
    return Decision(Action.HOLD, "StepPauses", message, Awaited.TIME, at)


def evidence_missing(now: Situation) -> Decision | None:
    """Too little speaks for the candidate to give it more traffic, or all of it."""
    progress, step = now.progress, steps.present(now.steps, now.progress)
    if now.candidate is None or step is None or not progress.weight or now.leaves or progress.leaving:
        return None
    last = steps.following(now.steps, progress) is None
    undecided = next(
        (result for result in now.judgement.results if result.phase is not Phase.SUCCESSFUL), None
    )
    missing = (
        undecided is not None and not progress.overruled_at if last else now.judgement.lacking is not None
    )
    if not missing:
        return None
    message = f"{_where(now, step.end)}: {_holds(undecided) if last else now.judgement.lacking}"
    now = replace(now, progress=replace(progress, index=step.end))
    return _at_deadline(now, now.candidate, message) or Decision(
        Action.HOLD, "EvidenceMissing", message, Awaited.EVIDENCE, now.progress
    )


def _at_deadline(now: Situation, candidate: Track | None, message: str) -> Decision | None:
    """Do what analysis.onInconclusive says, once there was no verdict for as long as analysis.deadline."""
    deadline, since = now.judgement.deadline, now.progress.traffic_since
    if candidate is None or deadline is None or since is None or now.now - since < deadline:
        return None
    if now.judgement.on_inconclusive == "Abort":
        return Decision(Action.ABORT, "DeadlineExceeded", f"{message} when analysis.deadline passed")
    if now.judgement.on_inconclusive == "Promote":
        return _promotes(now, candidate, "analysis.deadline passed and onInconclusive is Promote")
    told = f"{message}; analysis.deadline has passed"
    return Decision(Action.HOLD, "AnalysisInconclusive", told, Awaited.PERSON, now.progress)


def _holds(result: Result | None) -> str:
    return f"{result.name} holds ({result.samples} samples): {result.message}" if result else ""


def step_leads_to_promotion(now: Situation) -> Decision | None:
    """The last step is over: every metric has passed, or a person says so."""
    if now.candidate is None or now.progress.set_at is None or steps.following(now.steps, now.progress):
        return None
    spoken = now.leaves or now.progress.overruled_at
    return _promotes(now, now.candidate, "a person promoted it" if spoken else PROVEN)


def next_weight(now: Situation) -> Decision | None:
    """The next step is due: its pods come first, then its weight."""
    step = steps.following(now.steps, now.progress)
    if now.candidate is None or step is None:
        return None
    track, progress = now.candidate, now.progress
    needed = now.canary_count(step.weight)
    version = track.revision.version
    # Without a Gateway pods that are added get their share at once: weight and count are one.
    if track.ready < needed and not (now.ratio and progress.weight):
        counted = f"v{version}: {track.ready} of {needed} pods ready for {step.weight} %"
        leaving = replace(progress, leaving=progress.set_at is not None, index=max(step.index, 0))
        return Decision(Action.EXPAND, "CanaryNotReady", counted, progress=leaving)
    begins = step.weight > 0 and progress.traffic_since is None
    advanced = replace(
        progress,
        weight=step.weight,
        index=max(step.index, 0),
        set_at=now.now,
        started_at=None,
        leaving=False,
        traffic_since=now.now if begins else progress.traffic_since,
        stable_replicas=now.replicas if begins else progress.stable_replicas,
    )
    return Decision(
        Action.ADVANCE, "WeightSet", f"v{version} gets {step.weight} %", Awaited.TIME, progress=advanced
    )


def _where(now: Situation, index: int | None = None) -> str:
    """Say where a canary is: its version, its weight and its step."""
    version = now.candidate.revision.version if now.candidate else "?"
    at = now.progress.index if index is None else index
    return f"canary v{version} at {now.progress.weight} %, step {at}/{_end(now)}"


def _told(now: Situation) -> str:
    """Say in short what the metrics say so far."""
    return ", ".join(f"{result.name} {_WORDS[result.phase]}" for result in now.judgement.results)


_WORDS: Final[Mapping[Phase, str]] = {
    Phase.SUCCESSFUL: "passes",
    Phase.FAILED: "fails",
    Phase.INCONCLUSIVE: "holds",
}

RULES: tuple[Rule, ...] = (
    state_rebuilt,  # first of all know where we are
    target_unknown,  # without a version there is nothing to decide
    target_moved,  # never go on with what nobody wants any more
    target_serves,  # the usual case: at rest
    target_closed,  # a closed revision is not tried again by itself
    start_held,  # a person said wait
    earlier_try_remains,  # each try begins with fresh pods
    candidate_missing,  # only now may something start
    rollback_held,  # it failed before, and a person shall decide
    candidate_mismatched,  # safety first: wrong bytes,
    canary_oom_killed,  # then what the pod itself cannot count:
    canary_restarted,
    canary_unready,
    canary_stuck,
    canary_gateway_errors,
    candidate_failed,  # then a broken model,
    candidate_stuck,  # then one that hangs while it loads,
    signature_incompatible,  # then one that callers could not ask,
    analysis_failed,  # then one that is worse
    room_missing,  # recreate: the old pods go first
    advance_held,  # a person said wait; what is broken was dropped all the same
    candidate_not_ready,  # no pod may take traffic yet
    signature_unknown,  # never risk callers' requests
    promotion_decided,  # all pods, then all traffic
    preview_incomplete,  # blue-green: all of it is there,
    preview_goes_on,  # and people have looked
    weight_cannot_be_set,  # canary: a weight must mean what it says
    weight_pending,  # a step's clock starts when its weight is in force
    step_pauses,  # time, or a person
    evidence_missing,  # no more traffic without proof
    step_leads_to_promotion,  # proof, or a person
    next_weight,  # pods before traffic
)


def decide(situation: Situation) -> Decision:
    """Apply the rules in order; one of them always matches. With rollback.mode Manual a failure under traffic holds."""
    decision = next(decision for rule in RULES if (decision := rule(situation)))
    failed = decision.action is Action.ABORT and not (situation.target and situation.target.closed)
    if not failed or not situation.manual or not situation.progress.weight or situation.candidate is None:
        return decision
    keeps = situation.candidate.ready and decision.reason != "DigestMismatch"
    held = replace(
        situation.progress,
        held=Held(decision.reason, decision.message),
        weight=situation.progress.weight if keeps else 0,
    )
    return Decision(Action.HOLD, decision.reason, decision.message, Awaited.PERSON, held)


def replica_counts(situation: Situation, decision: Decision, live: dict[str, int]) -> dict[str, int]:
    """Say how many pods each revision in a role shall have after this decision.

    `live` gives the counts that Deployments have now. With 3 replicas:

    decision           stable  candidate           recreate: stable  candidate
    START              3       1                   0                 0 until stable's pods are gone, then 1
    HOLD, first pod    3       1                   0                 1
    EXPAND             3       3                   0                 3
    canary at 50 %     3       2
    PROMOTE            the candidate is stable, 3  the candidate is stable, 3
    ABORT, CANCEL      3       0                   3 once the candidate's pods are gone, until then as it was; 0
    """
    wanted = situation.replicas
    candidate, stable = situation.candidate, situation.stable
    counts: dict[str, int] = {}
    started = (
        situation.target if decision.action is Action.START else candidate.revision if candidate else None
    )
    ended = decision.action in (Action.ABORT, Action.CANCEL)
    if decision.action is Action.PROMOTE and started:
        return {started.name: situation.full_count}
    in_the_way = situation.others_have_pods or bool(candidate and candidate.pods)
    if stable:
        running = started is not None and not ended
        if situation.recreate and running:
            counts[stable.revision.name] = 0
        elif situation.recreate and in_the_way:
            counts[stable.revision.name] = min(live.get(stable.revision.name, 0), wanted)
        else:
            counts[stable.revision.name] = wanted
    if started and not ended:
        counts[started.name] = _candidates_count(situation, decision, live.get(started.name, 0))
    return counts


def _candidates_count(situation: Situation, decision: Decision, live: int) -> int:
    progress = decision.progress or situation.progress
    full = situation.full_count
    if situation.room_missing:
        return 0
    if decision.action is Action.START:
        return min(max(1, live), full)
    if situation.way != "canary":
        return full if decision.action is Action.EXPAND else min(max(1, live), full)
    if progress.promoting:
        return full if live else 1
    if decision.action is Action.EXPAND:
        step = steps.following(situation.steps, progress)
        return max(live, situation.canary_count(step.weight if step else progress.weight))
    needed = situation.canary_count(progress.weight)
    return needed if situation.ratio and progress.weight else min(max(live, needed), full)
