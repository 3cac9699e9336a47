"""Which step comes next: an ordered tuple of small rules. The first that matches decides; the order is the policy.

                 START              EXPAND             PROMOTE
    target open ───────► one pod ─────────► full count ─────────► it is stable
                            │ ABORT: the candidate failed; its revision is closed
                            │ CANCEL: the target moved; nothing is closed
                            ▼
                      stable unchanged

Every rule reads as a fact about a `Situation` and gives a `Decision` or None.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rollway_operator.domain import PROMOTED, Action, Decision, Fault, StoredRevision, Track

CRASHES_BEFORE_TRAFFIC = 3
"""So many crashes without a gate's reason are the model's fault."""


@dataclass(frozen=True)
class Situation:
    """All that a rule may look at."""

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

    @property
    def room_missing(self) -> bool:
        """With recreate the candidate must wait: pods of other revisions still exist."""
        return self.recreate and (self.others_have_pods or bool(self.stable and self.stable.pods))


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
        return Decision(Action.HOLD, "Paused", f"v{now.target.version} does not start: {now.paused}")
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


def room_missing(now: Situation) -> Decision | None:
    """With recreate the candidate waits until every pod of every other revision is gone."""
    if now.room_missing:
        return Decision(Action.HOLD, "StoppingStable", "waiting for the old pods to stop")
    return None


def advance_held(now: Situation) -> Decision | None:
    """A person holds every change."""
    if now.paused and now.candidate:
        return Decision(Action.HOLD, "Paused", f"v{now.candidate.revision.version} waits: {now.paused}")
    return None


def candidate_complete(now: Situation) -> Decision | None:
    """Enough verified pods passed their gates: the candidate becomes stable."""
    if now.candidate and now.candidate.ready >= now.replicas:
        count = f"{now.candidate.ready} of {now.replicas} pods ready"
        return Decision(Action.PROMOTE, PROMOTED, f"v{now.candidate.revision.version}: {count}")
    return None


def first_pod_ready(now: Situation) -> Decision | None:
    """One pod is verified and passed its gates: bring up the rest."""
    if now.candidate and now.candidate.ready:
        count = f"{now.candidate.ready} of {now.replicas} pods ready"
        return Decision(Action.EXPAND, "CanaryNotReady", f"v{now.candidate.revision.version}: {count}")
    return None


def candidate_not_ready(now: Situation) -> Decision | None:
    """Nothing is wrong that waiting cannot cure."""
    if now.candidate is None:
        return None
    version, failure = now.candidate.revision.version, now.candidate.failure
    if failure:
        return Decision(Action.HOLD, failure.reason, f"v{version}: {failure.message}")
    return Decision(
        Action.HOLD,
        "CanaryNotReady",
        f"v{version}: waiting for the first pod to be verified and pass its gates",
    )


RULES: tuple[Rule, ...] = (
    state_rebuilt,  # first of all know where we are
    target_unknown,  # without a version there is nothing to decide
    target_moved,  # never go on with what nobody wants any more
    target_serves,  # the usual case: at rest
    target_closed,  # a closed revision is not tried again by itself
    start_held,  # a person said wait
    earlier_try_remains,  # each try begins with fresh pods
    candidate_missing,  # only now may something start
    candidate_mismatched,  # safety first: wrong bytes,
    candidate_failed,  # then a broken model,
    candidate_stuck,  # then one that hangs
    room_missing,  # recreate: the old pods go first
    advance_held,  # a person said wait; what is broken was dropped all the same
    candidate_complete,  # all verified and through their gates
    first_pod_ready,  # one is: bring up the rest
    candidate_not_ready,  # otherwise wait and say for what
)


def decide(situation: Situation) -> Decision:
    """Apply the rules in order; one of them always matches."""
    return next(decision for rule in RULES if (decision := rule(situation)))


def replica_counts(situation: Situation, decision: Decision, live: dict[str, int]) -> dict[str, int]:
    """Say how many pods each revision in a role shall have after this decision.

    `live` gives the counts that Deployments have now. With 3 replicas:

    decision           stable  candidate           recreate: stable  candidate
    START              3       1                   0                 0 until stable's pods are gone, then 1
    HOLD, first pod    3       1                   0                 1
    EXPAND             3       3                   0                 3
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
        return {started.name: wanted}
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
        if situation.room_missing:
            counts[started.name] = 0
        elif decision.action is Action.EXPAND:
            counts[started.name] = wanted
        else:
            counts[started.name] = min(max(1, live.get(started.name, 0)), wanted)
    return counts
