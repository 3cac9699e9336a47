"""One pass over one ModelDeployment: resolve, observe, plan, apply; events, resyncs and restarts all come here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from pydantic import ValidationError

from rollway_operator import conditions
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.apply import apply, apply_status, gap, tell
from rollway_operator.cluster import Cluster
from rollway_operator.domain import Event, Object, Observed, Plan, Runtime
from rollway_operator.errors import NameConflictError
from rollway_operator.observe import now, observe
from rollway_operator.plan import plan
from rollway_operator.resolve import Resolver


@dataclass(frozen=True)
class Context:
    """What every pass needs."""

    cluster: Cluster
    resolver: Resolver
    runtimes: Mapping[str, Runtime]
    cluster_domain: str


async def reconcile(context: Context, body: Object) -> timedelta | None:
    """Bring the cluster one step closer to what the ModelDeployment asks for; tell when to come back."""
    try:
        deployment = ModelDeployment.of(body)
    except ValidationError as error:
        await stall(context.cluster, body, "SpecInvalid", str(error))
        return None
    resolution = await context.resolver.resolve(deployment)
    observed = await observe(context.cluster, body)
    decided = plan(deployment, resolution, observed, context.runtimes, context.cluster_domain)
    try:
        await apply(context.cluster, decided, body, observed)
    except NameConflictError as error:
        await stall(context.cluster, body, "NameConflict", str(error))
        return None
    return decided.requeue_after


async def idle(context: Context, body: Object, observed: Observed) -> timedelta | None:
    """Tell when to come back if a pass would write nothing, going by what a resync saw; None if it would write."""
    try:
        deployment = ModelDeployment.of(body)
    except ValidationError:
        return None
    resolution = await context.resolver.resolve(deployment)
    decided: Plan = plan(deployment, resolution, observed, context.runtimes, context.cluster_domain)
    return None if gap(decided, body, observed) else decided.requeue_after


async def stall(cluster: Cluster, body: Object, reason: str, message: str) -> None:
    """Say in status why no step can be taken; the first time with an Event."""
    moment = now()
    generation = body["metadata"]["generation"]
    status = conditions.with_stalled(body.get("status", {}), reason, message, generation, moment)
    if await apply_status(cluster, body, status):
        await tell(cluster, body, Event("Warning", reason, message), moment)
