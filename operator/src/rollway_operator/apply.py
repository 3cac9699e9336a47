"""Bring a Plan to the cluster: the decision first, into status, then what follows from it; nothing that is so already.

A kill between any two writes is harmless: the status says what was decided, and the next pass finds what is missing.
"""

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from rollway_operator.api.v1alpha1 import API_VERSION
from rollway_operator.cluster import Cluster, is_controlled
from rollway_operator.differs import differs, exactly, repair
from rollway_operator.domain import Event, Object, Observed, Plan
from rollway_operator.errors import (
    ConflictError,
    EndingError,
    InvalidError,
    NameConflictError,
    RollwayError,
    VanishingError,
)
from rollway_operator.labels import FIELD_MANAGER, GROUP

_logger = logging.getLogger(__name__)

_NOTE_LENGTH: Final = 1024
_SHOWN_LENGTH: Final = 200
_GONE_AFTER: Final = timedelta(seconds=60)
"""How long the remains of an earlier object may take to vanish before their name counts as taken."""

WRITE_REFUSED: Final = "WriteRefused"
"""The reason of Stalled while the API server refuses, for good as it seems, to take a child."""

NAME_CONFLICT: Final = "NameConflict"
"""The reason of Stalled while a child's name is somebody else's."""

Live = Mapping[tuple[str, str], Object]

Written = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
"""Hears of each status that was written: the one before, and the new one."""


def gap(plan: Plan, deployment: Object, observed: Observed) -> str | None:
    """Tell the first thing that applying the plan would write; None where the cluster is as planned."""
    if status := status_differs(plan.status, deployment.get("status", {})):
        return f"status.{status}"
    for desired in plan.objects:
        kind, name = _ref(desired)
        live = observed.objects.get((kind, name))
        why = "missing" if live is None else _ending(live) or differs(desired, live)
        if why:
            return f"{kind} {name}: {why}"
    for scale in plan.scales:
        if _replicas(observed.objects, scale.deployment) not in (None, scale.replicas):
            return f"Deployment {scale.deployment}: {scale.replicas} replicas desired"
    for ref in plan.prunes:
        if (ref.kind, ref.name) in observed.objects:
            return f"{ref.kind} {ref.name}: no longer wanted"
    return None


async def apply(
    cluster: Cluster, plan: Plan, deployment: Object, observed: Observed, written: Written
) -> None:
    """Write what the plan has and the cluster lacks, in the plan's order; an idle plan writes nothing.

    `written` hears of a status before anything that follows from it is written; it neither waits nor fails.
    """
    namespace = deployment["metadata"]["namespace"]
    live = await _claim(cluster, plan, deployment, observed)
    status = _with_refusal(plan.status, deployment)
    if await apply_status(cluster, deployment, status):
        written(deployment.get("status", {}), status)
    await _apply_objects(cluster, plan, deployment, observed, live)
    for scale in plan.scales:
        if _replicas(live, scale.deployment) not in (None, scale.replicas):
            await cluster.scale(namespace, scale.deployment, scale.replicas)
    for ref in plan.prunes:
        if (child := observed.objects.get((ref.kind, ref.name))) is not None:
            await cluster.delete(ref.kind, ref.name, namespace, child["metadata"]["uid"])
    if status is not plan.status and await apply_status(cluster, deployment, plan.status):
        written(status, plan.status)
    for order, event in enumerate(plan.events):
        await tell(cluster, deployment, event, observed.now + timedelta(microseconds=order))
    for kind, name in map(_ref, plan.objects):
        if _ending(live.get((kind, name), {"metadata": {}})):
            raise VanishingError(f"{kind} {name} is being deleted; it is made again when it is gone")


def _ending(live: Object) -> str | None:
    return "is being deleted" if "deletionTimestamp" in live["metadata"] else None


def _with_refusal(status: Mapping[str, Any], deployment: Object) -> Mapping[str, Any]:
    """Go on saying that a write was refused, until all have been taken: else each pass would say both in turn."""
    before = deployment.get("status", {})
    for refusal in before.get("conditions", ()):
        if refusal["type"] == "Stalled" and refusal["reason"] == WRITE_REFUSED:
            others = [condition for condition in status["conditions"] if condition["type"] != "Stalled"]
            kept = {**refusal, "observedGeneration": status["observedGeneration"]}
            shown = {"phase": before["phase"], "message": before["message"]}
            return {**status, **shown, "conditions": [kept, *others]}
    return status


async def apply_status(cluster: Cluster, deployment: Object, status: Mapping[str, Any]) -> bool:
    """Write the status if it differs, on the very object that was read; tell whether it was written."""
    why = status_differs(status, deployment.get("status", {}))
    if why is None:
        return False
    metadata = deployment["metadata"]
    _logger.debug("status.%s", why, extra={"object": _title(deployment)})
    kept = {key: metadata[key] for key in ("name", "namespace", "resourceVersion") if key in metadata}
    if _somebody_else_wrote_status(metadata):
        # To apply would leave what is theirs alone, and each pass would find it again.
        patch = {"metadata": kept, "status": exactly(status, deployment.get("status", {}))}
        await cluster.merge_status(deployment, patch)
    else:
        await cluster.apply_status(
            {"apiVersion": API_VERSION, "kind": deployment["kind"], "metadata": kept, "status": dict(status)}
        )
    return True


def _somebody_else_wrote_status(metadata: Mapping[str, Any]) -> bool:
    return any(
        entry.get("subresource") == "status"
        and (entry.get("manager"), entry.get("operation")) != (FIELD_MANAGER, "Apply")
        for entry in metadata.get("managedFields", ())
    )


def status_differs(desired: Mapping[str, Any], live: Mapping[str, Any]) -> str | None:
    """Tell the first difference between two statuses; the order of conditions means nothing."""
    wanted, found = _flat(desired), _flat(live)
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            return f"{key}: {_short(wanted.get(key))} desired, {_short(found.get(key))} found"
    return None


def _flat(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = {f"conditions.{condition['type']}": condition for condition in status.get("conditions", ())}
    return {key: value for key, value in status.items() if key != "conditions"} | conditions


def _short(value: object) -> str:
    return str(value)[:_SHOWN_LENGTH]


async def tell(cluster: Cluster, deployment: Object, event: Event, now: datetime) -> None:
    """Record an Event on the object; one that cannot be recorded is logged and fails nothing."""
    metadata = deployment["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    where = {"object": _title(deployment), "reason": event.reason}
    _logger.info("%s", event.message, extra=where)
    regarding = {"apiVersion": API_VERSION, "kind": deployment["kind"], "name": name, "namespace": namespace}
    try:
        await cluster.make(
            {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                # kubectl lists events without a count by name: one that grows with time keeps their order.
                "metadata": {"name": f"{name}.{int(now.timestamp() * 1e6):x}", "namespace": namespace},
                "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "type": event.type,
                "reason": event.reason,
                "action": event.reason,
                "note": event.message[:_NOTE_LENGTH],
                "regarding": regarding | {"uid": metadata["uid"]},
                "reportingController": f"{GROUP}/{FIELD_MANAGER}",
                "reportingInstance": socket.gethostname()[:128],
            }
        )
    except EndingError as error:
        _logger.debug("%s", error, extra=where)
    except RollwayError as error:
        _logger.warning("the event was not recorded: %s", error, extra=where)


async def _claim(
    cluster: Cluster, plan: Plan, deployment: Object, observed: Observed
) -> dict[tuple[str, str], Object]:
    """Make sure, before anything is written, that names are free or ours; give the live children of the plan.

    Nobody else makes a name with a revision's hash but on purpose: that one is taken is found when it is to be made,
    which spares four questions for each revision. Once it was found, all are asked for before the status is written:
    else each pass would say in turn that it goes on and that it cannot.
    """
    live = dict(observed.objects)
    namespace, own_name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
    before = deployment.get("status", {}).get("conditions", ())
    all_names = any(one["type"] == "Stalled" and one["reason"] == NAME_CONFLICT for one in before)
    for desired in plan.objects:
        kind, name = _ref(desired)
        if (kind, name) in live or not (all_names or name == own_name):
            continue
        # The list went by label: one of ours that lost its labels must be found by its name.
        found = await cluster.get(kind, name, namespace)
        if found is None:
            continue
        _refuse_foreign(found, deployment, observed.now)
        live[kind, name] = found
    return live


async def _create(
    cluster: Cluster, desired: Object, deployment: Object, observed: Observed, counts: Mapping[str, int]
) -> Object | None:
    """Create a child; where one of ours has its name already, give that."""
    kind, name = _ref(desired)
    if kind == "Deployment":
        desired = {**desired, "spec": {**desired["spec"], "replicas": counts.get(name, 0)}}
    if await cluster.make(desired):
        return None
    found = await cluster.get(kind, name, deployment["metadata"]["namespace"])
    if found is None:
        raise ConflictError(f"{kind} {name} was there and is gone")
    _refuse_foreign(found, deployment, observed.now)
    return found


def _refuse_foreign(found: Object, deployment: Object, now: datetime) -> None:
    if is_controlled(found, deployment):
        return
    named = f"{found['kind']} {found['metadata']['name']}"
    metadata = found["metadata"]
    ours = {"kind": deployment["kind"], "name": deployment["metadata"]["name"]}
    orphaned = any(ours.items() <= owner.items() for owner in metadata.get("ownerReferences", ()))
    since = metadata.get("deletionTimestamp") or (orphaned and deployment["metadata"]["creationTimestamp"])
    if since and now - datetime.fromisoformat(since) <= _GONE_AFTER:
        raise VanishingError(f"waiting for {named} of an earlier object to go")
    raise NameConflictError(
        f"{named} exists and is not controlled by this ModelDeployment; rename one of them"
    )


async def _apply_objects(
    cluster: Cluster, plan: Plan, deployment: Object, observed: Observed, live: dict[tuple[str, str], Object]
) -> None:
    counts = {scale.deployment: scale.replicas for scale in plan.scales}
    for desired in plan.objects:
        ref = _ref(desired)
        # One of ours that has the name already, without our labels, is live too.
        if ref not in live and (found := await _create(cluster, desired, deployment, observed, counts)):
            live[ref] = found
        if ref in live:
            await _apply_object(cluster, desired, live[ref])


async def _apply_object(cluster: Cluster, desired: Object, live: Object) -> None:
    kind, name = _ref(desired)
    where = {"object": _title(desired)}
    why = differs(desired, live)
    if why is None:
        return
    _logger.debug("%s %s: %s", kind, name, why, extra=where)
    # To apply leaves what others added, and cannot move a list's element to another key: then a patch must do.
    with suppress(InvalidError):
        live = await cluster.apply(desired)
    if why := differs(desired, live):
        _logger.debug("%s %s: %s", kind, name, why, extra=where)
        live = await cluster.merge(desired, repair(desired, live))
    if why := differs(desired, live):
        _logger.warning("%s %s stays different after it was applied: %s", kind, name, why, extra=where)


def _ref(item: Object) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def _title(item: Object) -> str:
    metadata = item["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else str(metadata["name"])


def _replicas(live: Live, deployment: str) -> int | None:
    child = live.get(("Deployment", deployment))
    return None if child is None else child["spec"]["replicas"]
