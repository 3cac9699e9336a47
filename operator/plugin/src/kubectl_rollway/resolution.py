"""What would be deployed now, and where that is known from."""

from collections.abc import Iterator
from typing import Any

from kubectl_rollway.objects import Deployment
from kubectl_rollway.tables import written
from kubectl_rollway.tree import command


def recorded(seen: Deployment) -> dict[str, Any]:
    """Give it for programs."""
    target, closed, resolved = seen.target, seen.target.closed, seen.condition("ModelResolved")
    return {
        "model": seen.model,
        "alias": seen.alias or None,
        "targetVersion": target.version or None,
        "targetRevision": target.revision or None,
        "targetSince": written(target.since),
        "serves": bool(seen.stable and target.revision and seen.stable.name == target.revision),
        "onItsWay": bool(seen.canary and target.revision and seen.canary.name == target.revision),
        "awaits": awaits(seen),
        "closed": closed
        and {
            "revision": closed.revision,
            "version": closed.version,
            "reason": closed.reason,
            "message": closed.message,
            "since": written(closed.since),
            "rejected": closed.rejected,
        },
        "resolved": resolved
        and {"status": resolved.status, "reason": resolved.reason, "message": resolved.message},
        "source": {
            "field": "status.model",
            "observedGeneration": seen.observed,
            "generation": seen.generation,
            "current": seen.current,
        },
    }


def lines(seen: Deployment) -> Iterator[str]:
    """Give it for people."""
    target, closed, resolved = seen.target, seen.target.closed, seen.condition("ModelResolved")
    followed = f"alias {seen.alias}" if seen.alias else f"version {seen.asked_version}"
    yield f"{seen.model}, {followed}"
    if not target.version:
        why = f"the registry names no version: {resolved.message}" if resolved else "no version is known yet"
        yield f"  nothing would be deployed: {why}"
    else:
        yield f"  v{target.version} as {target.revision or 'a revision that is not made yet'}"
        yield f"  {_course(seen)}"
        if resolved and resolved.status != "True":
            yield f"  the registry now says otherwise, {resolved.reason}: {resolved.message}"
    if closed:
        yield f"  v{closed.version} is closed, {closed.reason}: {closed.message}"
        yield f"  {command('retry', seen)} opens it"
    yield _source(seen)


def awaits(seen: Deployment) -> bool:
    """Tell whether it waits for a person's promote."""
    paused = seen.condition("Paused")
    return paused is not None and paused.status == "True" and paused.reason == "AwaitingPromote"


def _course(seen: Deployment) -> str:
    target = seen.target
    if seen.stable and seen.stable.name == target.revision:
        return "serves already: nothing would change"
    if seen.canary and seen.canary.name == target.revision:
        return "is on its way"
    if target.closed and target.closed.revision == target.revision:
        return "is closed: it is not tried again by itself"
    if awaits(seen):
        return f"waits for a person: {command('promote', seen)}"
    paused = seen.condition("Paused")
    if paused and paused.status == "True":
        return f"does not start while paused ({paused.reason})"
    return "starts with the operator's next pass"


def _source(seen: Deployment) -> str:
    if seen.observed is None:
        return "from status.model, which the operator has not written yet"
    known = f"from status.model, as the operator last read the registry for generation {seen.observed}"
    return (
        known
        if seen.current
        else f"{known}; the spec is at generation {seen.generation}, which it has not looked at"
    )
