"""What a person says by annotation: which revision a verb names, what is written, and what the operator answered."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kubectl_rollway.errors import RefusedError
from kubectl_rollway.objects import Deployment, Fields, Stored, previous

GROUP: Final = "rollway.dev"
HANDLED: Final = "VerbHandled"
IGNORED: Final = "VerbIgnored"

_SHOWN_LENGTH: Final = 60
"""The operator shows no more of a value."""


@dataclass(frozen=True)
class Wish:
    """One verb and the revision that it names."""

    verb: str
    revision: str
    nonce: str

    @property
    def annotation(self) -> str:
        """Its annotation's key."""
        return f"{GROUP}/{self.verb}"

    @property
    def value(self) -> str:
        """Its annotation's value."""
        return f"{self.revision}/{self.nonce}"


@dataclass(frozen=True)
class Answer:
    """What the operator said about a wish."""

    acted: bool
    message: str


def nonce() -> str:
    """Make what tells this wish from the same one before."""
    return secrets.token_hex(3)


def named(verb: str, seen: Deployment, kept: Sequence[Stored], chosen: str | None = None) -> str:
    """Give the revision that a verb must name now; a person may choose that of `undo` and `retry`."""
    if chosen:
        return chosen
    return _NAMED[verb](seen, kept)


def answer(wish: Wish, events: Iterable[Mapping[str, Any]]) -> Answer | None:
    """Find what the operator said about a wish; None while it has not."""
    shown = wish.value[:_SHOWN_LENGTH]
    for event in map(Fields, events):
        said = event.text("message") or event.text("note")
        reason = event.text("reason")
        if reason in (HANDLED, IGNORED) and said.startswith(f"{wish.annotation}: {shown}"):
            return Answer(reason == HANDLED, said.removeprefix(f"{wish.annotation}: {shown}").lstrip("…: "))
    return None


# ------------------------------------------------------------------------------------------------- which revision


def _on_its_way(seen: Deployment, _: Sequence[Stored]) -> str:
    if seen.canary is None:
        raise RefusedError(f"nothing of {seen.name} is on its way")
    return seen.canary.name


def _candidate_or_target(seen: Deployment, _: Sequence[Stored]) -> str:
    if seen.canary:
        return seen.canary.name
    if not seen.target.revision:
        raise RefusedError(f"the operator has not said yet what would be deployed for {seen.name}")
    return seen.target.revision


def _closed(seen: Deployment, _: Sequence[Stored]) -> str:
    if seen.target.closed:
        return seen.target.closed.revision
    rejected = {one.revision: one.version for one in seen.rejected}
    if not rejected:
        raise RefusedError(f"no revision of {seen.name} is closed")
    if len(rejected) > 1:
        listed = ", ".join(f"{revision} (v{version})" for revision, version in rejected.items())
        raise RefusedError(f"choose one by --revision: {listed}")
    return next(iter(rejected))


def _before(seen: Deployment, kept: Sequence[Stored]) -> str:
    if seen.stable is None:
        raise RefusedError(f"no version of {seen.name} serves yet")
    # Should the candidate take over before the operator hears it, this still is where to go back to.
    if seen.canary:
        return seen.stable.name
    found = previous(seen, kept)
    if found is None:
        raise RefusedError(f"no revision of {seen.name} that served before {seen.stable.name} is kept")
    return found


def _stable(seen: Deployment, _: Sequence[Stored]) -> str:
    if seen.stable is None:
        raise RefusedError(f"no version of {seen.name} serves yet")
    return seen.stable.name


def _itself(seen: Deployment, _: Sequence[Stored]) -> str:
    """Give what stands for the ModelDeployment as a whole: stable, or what is on its way to be the first."""
    for found in (seen.stable, seen.canary):
        if found:
            return found.name
    if not seen.target.revision:
        raise RefusedError(f"the operator has not said yet what would be deployed for {seen.name}")
    return seen.target.revision


_NAMED: Final[Mapping[str, Callable[[Deployment, Sequence[Stored]], str]]] = {
    "promote": _candidate_or_target,
    "promote-full": _candidate_or_target,
    "abort": _on_its_way,
    "retry": _closed,
    "undo": _before,
    "pause": _itself,
    "resume": _itself,
    "restart": _stable,
    "ack": _itself,
}
