"""What a decision and the cluster mean in conditions, phase and one message; transitions keep their time."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rollway_operator.api.v1alpha1 import Condition, ModelDeployment
from rollway_operator.domain import (
    Action,
    Awaited,
    Decision,
    Failure,
    Fault,
    Observed,
    Resolution,
    Roles,
    Standing,
    StoredRevision,
    Track,
    timestamp,
)
from rollway_operator.labels import GROUP, command

Fact = tuple[bool | None, str, str]
"""Whether a condition holds (None: unknown), its reason, its message."""

ABNORMAL = ("EnvironmentMismatch", "Paused", "Reconciling", "Stalled")
"""Conditions that are present only while they hold."""

MESSAGE_LENGTH = 1024

DEFAULT_PROGRESS_DEADLINE = timedelta(seconds=600)

_STATUS = {True: "True", False: "False", None: "Unknown"}
_HOLDS = {status: holds for holds, status in _STATUS.items()}


@dataclass(frozen=True)
class Outlook:
    """What is known once the pass has decided; status, conditions and events speak of this."""

    deployment: ModelDeployment
    resolution: Resolution
    observed: Observed
    target: StoredRevision | None
    since: datetime
    decision: Decision
    roles: Roles
    obstacle: Failure | None
    standing: Standing
    closed: StoredRevision | None
    """What is closed and would serve otherwise."""
    awaits: bool
    """The target waits for a person's `promote`."""
    paused: str | None
    """Why nothing starts or takes over; None while nothing holds."""
    replicas: int = 1
    """How many pods stable shall have."""
    routes: Fact | None = None
    """Whether the Gateways have the model's routes; None where there is no Gateway."""
    retold: bool = False
    """The numbers that status has of the canary stay, also in messages: newer ones were due only later."""

    @property
    def acknowledged(self) -> bool:
        """Whether a person has taken note of what is closed: of this very revision, which status showed before."""
        before = self.deployment.status.model
        shown = before.closed.revision if before and before.closed else None
        return self.standing.acknowledged and self.closed is not None and self.closed.name == shown


def tell(outlook: Outlook) -> dict[str, Fact]:
    """State the facts behind each condition."""
    deployment, resolution, observed = outlook.deployment, outlook.resolution, outlook.observed
    decision, roles, obstacle = outlook.decision, outlook.roles, outlook.obstacle
    stable, candidate = roles.stable, roles.candidate
    wanted = outlook.replicas
    ready = stable.ready if stable else 0
    pods = f"{ready} of {wanted} pods ready"
    serving = f"v{stable.revision.version}: {pods}" if stable else "no version serves yet"
    reachable = ("Service", deployment.metadata.name) in observed.objects
    shortage = stable.failure if stable else None
    if stable and not reachable:
        shortage = Failure("ServiceMissing", "the Service is being made", Fault.NOBODY)
    closed = _shown(outlook)
    paused = _paused(outlook)
    rolling = candidate is not None and not outlook.paused and not _waits_for_a_person_or_proof(decision)
    below = stable is not None and not rolling and (ready < wanted or not reachable)
    facts: dict[str, Fact] = {
        "ModelResolved": (resolution.version is not None, resolution.reason, resolution.message),
        "ArtifactVerified": _artifact(roles, decision),
        "PredictorReady": (
            stable is not None and ready >= wanted,
            *_words(ready >= wanted, serving, shortage),
        ),
        "Ready": (ready > 0 and reachable, *_words(ready > 0 and reachable, serving, shortage)),
        "EnvironmentMismatch": _environment(roles),
        "Paused": paused,
        "Reconciling": (False, "", ""),
        "Stalled": (False, "", ""),
    }
    if outlook.routes:
        facts["RoutesReady"] = outlook.routes
    if obstacle:
        facts["Stalled"] = (True, obstacle.reason, obstacle.message)
    elif closed:
        facts["Stalled"] = _why_closed(closed)
    if rolling or decision.action is Action.CANCEL:
        facts["Reconciling"] = (True, decision.reason, decision.message)
        # Where the server already runs, its own time counts: rollout.candidate_stuck ends it.
        loading = candidate is not None and any(pod.server_since for pod in candidate.pods)
        since = outlook.roles.progress.waiting_since
        if since and not loading and overdue(deployment, since, observed.now):
            facts["Stalled"] = (True, "ProgressDeadlineExceeded", decision.message)
    elif below:
        reason, message = _words(False, serving, shortage)
        facts["Reconciling"] = (True, reason, message)
        before = deployment.status.condition("Reconciling")
        if before and overdue(deployment, before.last_transition_time, observed.now) and not closed:
            facts["Stalled"] = (True, "MinimumReplicasUnavailable", message)
    elif stable is None and not closed and not obstacle and not outlook.paused:
        unresolved = resolution.version is None
        why = (resolution.reason, resolution.message) if unresolved else (decision.reason, decision.message)
        facts["Reconciling"] = (True, *why)
    return {type_: _steady(outlook, type_, fact) for type_, fact in facts.items()}


def _steady(outlook: Outlook, type_: str, fact: Fact) -> Fact:
    """Keep the words of a condition in which nothing but the canary's numbers changed."""
    holds, reason, _ = fact
    before = outlook.deployment.status.condition(type_)
    if not outlook.retold or type_ not in ("Paused", "Reconciling") or not holds or before is None:
        return fact
    return (holds, reason, before.message) if before.reason == reason and before.status == "True" else fact


def _shown(outlook: Outlook) -> StoredRevision | None:
    """Give what Stalled speaks of: a failure, until a person has seen it; a person's own doing where nothing serves."""
    closed = outlook.closed
    if closed is None or outlook.roles.stable is None:
        return closed
    return None if closed.closed_by_person or outlook.acknowledged else closed


def _paused(outlook: Outlook) -> Fact:
    target = outlook.target
    if outlook.standing.rebuilt:
        return (True, "StateRebuilt", f"{outlook.standing.rebuilt}; then annotate {GROUP}/resume")
    if outlook.deployment.spec.paused:
        return (True, "PausedBySpec", "spec.paused is true: nothing starts or takes over")
    if outlook.paused:
        return (True, "PausedByVerb", f"nothing starts or takes over until {GROUP}/resume")
    if outlook.awaits and target:
        promote = _command(outlook, "promote", target)
        return (True, "AwaitingPromote", f"v{target.version} waits for a person: {promote}")
    decision, candidate = outlook.decision, outlook.roles.candidate
    if candidate and _waits_for_a_person_or_proof(decision):
        reason = "RollbackHeld" if outlook.roles.progress.held else decision.reason
        ask = "" if decision.awaited is Awaited.EVIDENCE else _choices(outlook, candidate.revision)
        return (True, reason, f"{decision.message}{ask}")
    return (False, "", "")


def _waits_for_a_person_or_proof(decision: Decision) -> bool:
    return decision.action is Action.HOLD and decision.awaited in (Awaited.PERSON, Awaited.EVIDENCE)


def _choices(outlook: Outlook, candidate: StoredRevision) -> str:
    promote = _command(outlook, "promote", candidate)
    if outlook.roles.progress.held:
        return f"; end it: {_command(outlook, 'abort', candidate)}; or let it go on: {promote}"
    return f": {promote}"


def _command(outlook: Outlook, verb: str, revision: StoredRevision) -> str:
    metadata = outlook.deployment.metadata
    return command(verb, metadata.namespace, metadata.name, revision.name)


_COMMANDS = re.compile(r"(; end it)?: kubectl annotate .*", re.DOTALL)


def without_commands(message: str) -> str:
    """Leave out of a message of Paused what a person may type, for whoever shows that by itself."""
    return _COMMANDS.sub("", message)


def _why_closed(closed: StoredRevision) -> Fact:
    """Say why a revision was closed; one that had traffic was rolled back."""
    weight = closed.closing.weight if closed.closing else None
    if weight is None or closed.closed_by_person:
        return (True, str(closed.outcome), closed.outcome_message)
    return (True, "RolledBack", f"{closed.outcome_message} ({closed.outcome}); rolled back from {weight} %")


def _environment(roles: Roles) -> Fact:
    """Tell which of a model's requirements its image does not meet; the candidate's first."""
    for track in reversed(roles.in_role):
        told = next((pod.environment for pod in track.staying if pod.environment), None)
        if told:
            return (True, "RequirementsDiffer", f"v{track.revision.version}: {told}")
    return (False, "", "")


def _words(enough: bool, serving: str, shortage: Failure | None) -> tuple[str, str]:
    if enough:
        return "PodsReady", serving
    return (shortage.reason, f"{serving}: {shortage.message}") if shortage else ("PodsNotReady", serving)


def _artifact(roles: Roles, decision: Decision) -> Fact:
    """Speak of the candidate's artifacts while there is one, otherwise of stable's, whose later pods may be refused."""
    track = roles.candidate or roles.stable
    if track is None:
        refused = decision.reason in ("DigestMismatch", "ArtifactRefused", "NotAModel")
        return (
            (False, decision.reason, decision.message)
            if refused
            else (None, "NotFetched", "nothing was fetched yet")
        )
    failure = track.failure
    if failure and failure.reason in ("DigestMismatch", "ArtifactRefused", "NotAModel", "FetchFailed"):
        return (False, failure.reason, f"v{track.revision.version}: {failure.message}")
    digest = track.revision.digest
    verified = next((pod for pod in track.pods if pod.digest and pod.digest == digest), None)
    if digest is None or (verified is None and track is roles.candidate):
        return (None, "Fetching", f"v{track.revision.version}: waiting for the first pod to fetch it")
    return (True, "DigestVerified", f"v{track.revision.version}: {digest}{_skipped(track)}")


def _skipped(track: Track) -> str:
    """Say which gates had nothing to ask the model: golden cases do for an input example."""
    without = {pod.input_example for pod in track.pods} - {None} == {False}
    if not without or "golden" in track.revision.inputs:
        return ""
    return "; smoke test and warm-up skipped: the model has no input example"


def overdue(deployment: ModelDeployment, since: datetime, now: datetime) -> bool:
    """Whether what began at `since` has taken longer than progressDeadlineSeconds."""
    limit = deployment.spec.progress_deadline_seconds
    return now - since > (timedelta(seconds=limit) if limit else DEFAULT_PROGRESS_DEADLINE)


def headline(roles: Roles, facts: Mapping[str, Fact]) -> str:
    """Say in one sentence what goes on, the trouble first."""
    version = roles.stable.revision.version if roles.stable and roles.stable.ready else None
    for type_ in ("Stalled", "Reconciling", "Paused"):
        holds, _, message = facts[type_]
        if holds:
            about_stable = version is None or message.startswith(f"v{version}:")
            return message if about_stable else f"{message[:MESSAGE_LENGTH]}; v{version} serves"
    resolved, _, message = facts["ModelResolved"]
    return message if not resolved else facts["PredictorReady"][2]


def merge(
    previous: Iterable[Condition], facts: Mapping[str, Fact], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Give the whole list of conditions: a status that did not change keeps its lastTransitionTime."""
    before = {condition.type: condition for condition in previous}
    merged = []
    # Of Reconciling and Stalled kstatus believes the one that it finds first.
    for type_, (holds, reason, message) in sorted(
        facts.items(), key=lambda fact: (fact[0] != "Stalled", fact[0])
    ):
        if type_ in ABNORMAL and not holds:
            continue
        old = before.get(type_)
        changed = old is None or old.status != _STATUS[holds]
        merged.append(
            {
                "type": type_,
                "status": _STATUS[holds],
                "observedGeneration": generation,
                "lastTransitionTime": timestamp(now if changed or old is None else old.last_transition_time),
                "reason": reason,
                "message": message[:MESSAGE_LENGTH],
            }
        )
    return merged


def phase(facts: Mapping[str, Fact], *, serves: bool) -> str:
    """Sum the conditions up for people; `serves` says whether any revision was ever promoted."""
    if facts["Stalled"][0] or (serves and not facts["Ready"][0]):
        return "Degraded"
    if facts["ModelResolved"][0] is False and not serves:
        return "Pending"
    if facts["Paused"][0]:
        return "Paused"
    if facts["Reconciling"][0]:
        return "Progressing"
    return "Healthy" if facts["Ready"][0] else "Pending"


def with_stalled(
    status: Mapping[str, Any], reason: str, message: str, generation: int, now: datetime
) -> dict[str, Any]:
    """Add Stalled to the status that is there, where no plan can be made or carried out."""
    previous = [Condition.model_validate(condition) for condition in status.get("conditions", ())]
    facts: dict[str, Fact] = {
        condition.type: (_HOLDS[condition.status], condition.reason, condition.message)
        for condition in previous
    }
    facts.setdefault("Ready", (False, reason, message))
    facts["Stalled"] = (True, reason, message)
    return {
        **status,
        "observedGeneration": generation,
        "phase": "Degraded",
        "message": message[:MESSAGE_LENGTH],
        "conditions": merge(previous, facts, generation, now),
    }
