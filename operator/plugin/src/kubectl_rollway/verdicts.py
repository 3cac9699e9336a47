"""Whether what `wait` waits for holds, can no longer come, or is still open."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kubectl_rollway.objects import Closed, Deployment


@dataclass(frozen=True)
class Verdict:
    """Whether to end, and why."""

    holds: bool | None
    """None while it may still come."""
    why: str


def promoted(seen: Deployment, version: str | None) -> Verdict:
    """Wait until the version serves; without one: what the registry names now, as the operator read it."""
    if not seen.current:
        return Verdict(None, _NOT_LOOKED_AT)
    stable = seen.stable
    if stable and (stable.version == version if version else stable.name == seen.target.revision):
        return Verdict(True, f"v{stable.version} serves ({stable.name})")
    closed = _closed(seen, version) if version else seen.target.closed
    return _ended(closed) or _stalled(seen, version) or Verdict(None, seen.message or _SILENT)


def settled(seen: Deployment, version: str | None) -> Verdict:
    """Wait until nothing goes on by itself: all is as it should be, or it is a person's turn."""
    if not seen.current or not seen.conditions:
        return Verdict(None, _NOT_LOOKED_AT)
    closed = _closed(seen, version) if version else None
    if version and not closed and version not in _versions(seen):
        return Verdict(None, f"v{version} is not known yet; {seen.message or _SILENT}")
    if failure := _ended(closed) or _stalled(seen, version):
        return failure
    paused = seen.condition("Paused")
    if paused and paused.status == "True":
        return Verdict(True, f"{paused.reason}: {paused.message}")
    if seen.canary or seen.holds("Reconciling") or not seen.holds("Ready"):
        return Verdict(None, seen.message or _SILENT)
    return Verdict(True, seen.message or "nothing is under way")


VERDICTS: Final[Mapping[str, Callable[[Deployment, str | None], Verdict]]] = {
    "promoted": promoted,
    "settled": settled,
}


_NOT_LOOKED_AT: Final = "the operator has not looked at the present spec yet"
_SILENT: Final = "the operator says nothing yet"


def _ended(closed: Closed | None) -> Verdict | None:
    if closed is None:
        return None
    return Verdict(
        False,
        f"v{closed.version} is closed ({closed.reason})" + (f": {closed.message}" if closed.message else ""),
    )


def _stalled(seen: Deployment, version: str | None) -> Verdict | None:
    """Tell that it does not go on; with a version, only where it is that one's doing."""
    stalled = seen.condition("Stalled")
    if stalled is None or stalled.status != "True" or (version and version not in _versions(seen)):
        return None
    return Verdict(False, f"{stalled.reason}: {stalled.message}")


def _closed(seen: Deployment, version: str) -> Closed | None:
    """Find why a version is not tried again; one on its way is being tried."""
    if seen.canary and seen.canary.version == version:
        return None
    known = (*([seen.target.closed] if seen.target.closed else ()), *seen.rejected)
    return next((one for one in known if one.version == version), None)


def _versions(seen: Deployment) -> set[str]:
    """Give the versions that the operator deals with now."""
    revisions = (seen.stable, seen.canary)
    return {seen.target.version, *(revision.version for revision in revisions if revision)}
