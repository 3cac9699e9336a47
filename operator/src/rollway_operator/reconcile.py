"""One pass over one ModelDeployment: resolve, observe, plan, apply; events, resyncs and restarts all come here."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from rollway_operator import conditions
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.apply import NAME_CONFLICT, WRITE_REFUSED, apply, apply_status, gap, tell
from rollway_operator.cluster import Cluster
from rollway_operator.domain import Event, Object, Observed, Platform, Resolution, Versions
from rollway_operator.errors import (
    ClusterError,
    EndingError,
    ForbiddenError,
    InvalidError,
    NameConflictError,
)
from rollway_operator.evidence import Evidence
from rollway_operator.notify import Notice, notices
from rollway_operator.observe import Observer, now, with_golden
from rollway_operator.plan import plan
from rollway_operator.resolve import Resolver


@dataclass(frozen=True)
class Context:
    """What every pass needs."""

    cluster: Cluster
    observer: Observer
    resolver: Resolver
    platform: Platform
    evidence: Evidence
    post: Callable[[Notice], None]
    """Has people told of a notice; never waits, never fails."""


@dataclass(frozen=True)
class Look:
    """What a pass found."""

    deployment: ModelDeployment
    resolution: Resolution
    at: datetime
    come_back: timedelta
    under_way: bool
    timed: bool = False
    """Whether time alone may give the next pass something to write."""
    wrote: bool = False
    """Whether there was something to write: what was seen before is no more what is there."""
    versions: Versions = frozenset()
    golden: bytes | None = None


async def reconcile(context: Context, body: Object) -> Look | None:
    """Bring the cluster one step closer to what the ModelDeployment asks for; None where no step can be taken."""
    try:
        deployment = ModelDeployment.of(body)
    except ValidationError as error:
        await stall(context, body, "SpecInvalid", str(error))
        return None
    resolution = await context.resolver.resolve(deployment)
    seen = await with_golden(context.cluster, deployment, await context.observer.observe(body))
    observed = await context.evidence.add(deployment, seen)
    decided = plan(deployment, resolution, observed, context.platform)
    look = Look(
        deployment,
        resolution,
        observed.now,
        decided.requeue_after,
        decided.under_way,
        # A candidate may be stuck for too long while it is paused, too.
        timed=decided.under_way or "canary" in decided.status,
        versions=observed.versions,
        golden=_digest(observed.golden),
    )
    if gap(decided, body, observed) is None:
        return look
    try:
        await apply(
            context.cluster,
            decided,
            body,
            observed,
            lambda before, after: _post(context, body, before, after, decided.evidence, observed.now),
        )
    except NameConflictError as error:
        await stall(context, body, NAME_CONFLICT, str(error))
        return None
    except EndingError:
        raise
    except (ForbiddenError, InvalidError) as error:
        # Tried again at each resync; until it succeeds apply keeps what is said here.
        await stall(context, body, WRITE_REFUSED, f"{error}; {_remedy(error)}")
        return None
    return replace(look, wrote=True)


def _digest(text: str | None) -> bytes | None:
    return None if text is None else hashlib.sha256(text.encode()).digest()


def _remedy(error: ClusterError) -> str:
    """Tell what to change so that a write which the API server refuses is taken."""
    text = str(error)
    if "denied" in text:
        return _POLICY
    if isinstance(error, InvalidError):
        return "correct the field that it names, or delete the object if it can be made anew"
    if "exceeded quota" in text:
        return "raise the namespace's ResourceQuota, or ask for less"
    if "cannot " in text and "in API group" in text:
        return "grant it to the operator's service account, as the chart's roles do"
    return _POLICY


_POLICY = "a policy of this cluster refuses it: change the policy, or what the ModelDeployment asks for"


async def look_again(context: Context, before: Look) -> Look | None:
    """Ask only for what no list of children shows; None if there are news, or if more must be asked."""
    if before.under_way:
        return None
    resolution = await context.resolver.resolve(before.deployment)
    if replace(resolution, poll_in=before.resolution.poll_in) != before.resolution:
        return None
    golden = (await with_golden(context.cluster, before.deployment, Observed(now()))).golden
    if _digest(golden) != before.golden:
        return None
    return replace(before, come_back=resolution.poll_in)


async def stall(context: Context, body: Object, reason: str, message: str) -> None:
    """Say in status why no step can be taken; the first time with an Event."""
    moment = now()
    before, generation = body.get("status", {}), body["metadata"]["generation"]
    status = conditions.with_stalled(before, reason, message, generation, moment)
    if await apply_status(context.cluster, body, status):
        _post(context, body, before, status, (), moment)
        await tell(context.cluster, body, Event("Warning", reason, message), moment)


def _post(
    context: Context,
    body: Object,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    evidence: Sequence[Mapping[str, Any]],
    at: datetime,
) -> None:
    for notice in notices(body, before, after, evidence, at):
        context.post(notice)
