"""What persons say by annotation: `rollway.dev/<verb>: <revision>[/<nonce>]`, heard once.

    annotations ──► new(): those that status.lastHandled has not ──► hear(): in order, each acts, is ignored,
                                                                     or is superseded by one before it

Nothing here is written back to an annotation or to the spec: a value that was handled is remembered in status. Values
are anybody's text: what is malformed is told in short, remembered by its hash, and has no effect.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from rollway_operator import closures
from rollway_operator.domain import ABORTED, UNDONE, Event, Standing, StoredRevision
from rollway_operator.labels import GROUP

HANDLED: Final = "VerbHandled"
IGNORED: Final = "VerbIgnored"

_VALUE: Final = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)(/[A-Za-z0-9._-]{1,63})?")
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_SHOWN_LENGTH: Final = 60


@dataclass(frozen=True)
class Verb:
    """One annotation whose value is new."""

    name: str
    value: str
    """What is remembered: the value, or the hash of a malformed one."""
    revision: str | None
    """The revision that it names; None where it is malformed."""
    shown: str
    """The value, short and on one line."""


@dataclass(frozen=True)
class Scene:
    """What verbs are about: who is stable, on its way and wanted now, and what else holds."""

    standing: Standing
    stable: str | None
    candidate: str | None
    target: StoredRevision | None
    spec_paused: bool
    awaits: bool
    """The target waits for `promote`."""
    steps: bool
    """The candidate is on a way with steps or a preview, or failed and waits: `promote` may leave what holds it."""
    now: datetime

    @property
    def itself(self) -> str | None:
        """The revision that verbs about the ModelDeployment as a whole name."""
        return self.stable or self.candidate or (self.target.name if self.target else None)


@dataclass(frozen=True)
class Heard:
    """What a verb came to."""

    standing: Standing
    message: str
    """What it does, or why it does nothing."""
    acted: bool = True


def new(annotations: Mapping[str, str], handled: Mapping[str, str]) -> Iterator[Verb]:
    """Give the verbs whose values were not handled yet, in the order in which they act."""
    for name in _ACTS:
        raw = annotations.get(f"{GROUP}/{name}")
        if raw is None:
            continue
        match = _VALUE.fullmatch(raw)
        value = raw if match else f"sha256:{hashlib.sha256(raw.encode(errors='replace')).hexdigest()[:16]}"
        if handled.get(name) != value:
            yield Verb(name, value, match[1] if match else None, _short(raw))


def present(annotations: Mapping[str, str]) -> dict[str, str]:
    """Give what would be remembered had every verb been handled."""
    return {verb.name: verb.value for verb in new(annotations, {})}


def hear(annotations: Mapping[str, str], scene: Scene) -> tuple[Standing, tuple[Event, ...]]:
    """Let every new verb act, in order; each is remembered and told in an Event, whatever came of it."""
    standing, events = scene.standing, []
    before: list[str] = []
    for verb in new(annotations, standing.handled):
        said = f"{GROUP}/{verb.name}: {verb.shown}"
        against = next((name for name in before if verb.name in _SUPERSEDES.get(name, ())), None)
        if verb.revision is None:
            heard = Heard(standing, "ignored: it must be <revision> or <revision>/<nonce>", acted=False)
        elif against:
            heard = Heard(standing, f"ignored: superseded by {against}, which came with it", acted=False)
        else:
            heard = _ACTS[verb.name](verb.revision, replace(scene, standing=standing), verb.value)
        if heard.acted:
            before.append(verb.name)
        standing = replace(heard.standing, handled={**standing.handled, verb.name: verb.value})
        type_, reason = ("Normal", HANDLED) if heard.acted else ("Warning", IGNORED)
        events.append(Event(type_, reason, f"{said}: {heard.message}"))
    return standing, tuple(events)


def _short(raw: str) -> str:
    line = _UNPRINTABLE.sub(" ", raw[: _SHOWN_LENGTH + 1]).strip()
    return f"{line[:_SHOWN_LENGTH]}…" if len(raw) > _SHOWN_LENGTH else line or '""'


# ------------------------------------------------------------------------------------------------------- the verbs


def _ignored(scene: Scene, why: str) -> Heard:
    return Heard(scene.standing, f"ignored: {why}", acted=False)


def _must_name(scene: Scene, what: str, wanted: str | None) -> Heard:
    return _ignored(scene, f"{what} is {wanted}" if wanted else f"there is no {what} now")


def _abort(revision: str, scene: Scene, _: str) -> Heard:
    if revision != scene.candidate:
        return _must_name(scene, "the revision on its way", scene.candidate)
    standing = _closed(scene, revision, ABORTED)
    return Heard(standing, f"v{standing.fates[revision].version} is aborted")


def _undo(revision: str, scene: Scene, _: str) -> Heard:
    fates, stable = scene.standing.fates, scene.stable
    if revision not in fates:
        return _unknown(scene, revision)
    if scene.candidate:
        standing = _closed(scene, scene.candidate, ABORTED)
        return Heard(
            standing, f"v{fates[scene.candidate].version} is aborted; undo again to leave what serves now"
        )
    if stable is None or stable not in fates:
        return _ignored(scene, "nothing serves that could be undone")
    if revision == stable or not fates[revision].promoted:
        why = "it serves already" if revision == stable else "it never served"
        return _ignored(scene, f"{why}; undo goes back to a revision that did before")
    reopened = replace(
        scene.standing, fates={**fates, revision: closures.opened(fates[revision])}, acknowledged=False
    )
    standing = _closed(replace(scene, standing=reopened), stable, UNDONE, revision)
    message = f"v{fates[revision].version} is brought up, then it takes over from v{fates[stable].version}"
    return Heard(standing, message)


def _unknown(scene: Scene, revision: str) -> Heard:
    served = sorted(r.name for r in scene.standing.fates.values() if r.promoted and r.name != scene.stable)
    kept = f"those that served and are kept: {', '.join(served)}" if served else "none that served is kept"
    return _ignored(scene, f"there is no revision {revision}, or it was pruned; {kept}")


def _closed(scene: Scene, revision: str, reason: str, instead: str | None = None) -> Standing:
    fates = scene.standing.fates
    left = fates[revision]
    words = "was undone" if reason == UNDONE else "was aborted"
    after = closures.closed(
        left,
        reason,
        f"v{left.version} {words} by a person",
        scene.now,
        target=scene.target,
        instead=instead,
    )
    return replace(scene.standing, fates={**fates, revision: after}, restart=None)


def _pause(revision: str, scene: Scene, _: str) -> Heard:
    if revision != scene.itself:
        return _must_name(scene, "stable", scene.itself)
    return Heard(replace(scene.standing, paused=True), "nothing starts or takes over until resume")


def _resume(revision: str, scene: Scene, _: str) -> Heard:
    if revision != scene.itself:
        return _must_name(scene, "stable", scene.itself)
    standing = replace(scene.standing, paused=False, rebuilt=None)
    if scene.spec_paused:
        return Heard(standing, "spec.paused is true and goes on to hold; set it to false")
    return Heard(standing, "nothing holds any more" if standing != scene.standing else "nothing was paused")


def _promote(revision: str, scene: Scene, _: str) -> Heard:
    target, standing = scene.target, scene.standing
    wanted = scene.candidate or (target.name if target else None)
    if revision != wanted:
        return _must_name(scene, "the revision that may be promoted", wanted)
    if target and target.closed and not scene.candidate:
        return _ignored(scene, f"it is closed ({target.outcome}); use retry")
    if scene.steps and scene.spec_paused:
        return _ignored(scene, "spec.paused is true and holds it; set it to false, then promote")
    if not (scene.awaits or standing.paused or scene.steps or scene.spec_paused):
        gates = " but its gates; promote-full leaves out the steps after them" if scene.candidate else ""
        return _ignored(scene, f"nothing holds it{gates}")
    after = replace(standing, approved=revision, paused=False, leaves=scene.steps)
    if scene.spec_paused:
        return Heard(after, "it goes on once spec.paused is false")
    return Heard(after, "it leaves its step" if scene.steps else "it goes on")


def _promote_full(revision: str, scene: Scene, _: str) -> Heard:
    if scene.candidate is None:
        return _ignored(scene, "nothing is on its way that could be promoted")
    if revision != scene.candidate:
        return _must_name(scene, "the revision that may be promoted", scene.candidate)
    after = replace(scene.standing, approved=revision, paused=False, skips=True)
    message = "it takes over once all its pods are ready"
    return Heard(after, f"{message} and spec.paused is false" if scene.spec_paused else message)


def _retry(revision: str, scene: Scene, _: str) -> Heard:
    fates = scene.standing.fates
    again = fates.get(revision)
    if again is None or not again.closed:
        closed = ", ".join(sorted(r.name for r in fates.values() if r.closed)) or "none"
        return _ignored(scene, f"no closed revision has this name; closed are: {closed}")
    # A person closes a version in every shape: one retry opens them all.
    opened = {
        name: closures.retried(fate)
        if name == revision or (fate.closed_by_person and fate.key == again.key)
        else fate
        for name, fate in fates.items()
    }
    standing = replace(scene.standing, fates=opened, approved=revision, acknowledged=False)
    return Heard(standing, f"v{again.version} may be tried again")


def _restart(revision: str, scene: Scene, value: str) -> Heard:
    fates, stable = scene.standing.fates, scene.stable
    if stable is None or stable not in fates or revision != stable:
        return _must_name(scene, "stable", stable)
    if scene.candidate:
        return _ignored(scene, f"{scene.candidate} is on its way, and brings new pods")
    key = fates[stable].key
    reopened = {
        name: closures.opened(fate) if fate.closed_by_person and fate.key == key else fate
        for name, fate in fates.items()
    }
    standing = replace(scene.standing, fates=reopened, restart=value)
    return Heard(standing, f"v{fates[stable].version} gets new pods, through the strategy")


def _ack(revision: str, scene: Scene, _: str) -> Heard:
    if revision != scene.itself:
        return _must_name(scene, "stable", scene.itself)
    return Heard(replace(scene.standing, acknowledged=True), "what failed is no longer shown as Stalled")


_ACTS: Final[Mapping[str, Callable[[str, Scene, str], Heard]]] = {
    "abort": _abort,
    "undo": _undo,
    "pause": _pause,
    "promote-full": _promote_full,
    "promote": _promote,
    "retry": _retry,
    "restart": _restart,
    "resume": _resume,
    "ack": _ack,
}
"""Every verb, in the order in which they act."""

_SUPERSEDES: Final[Mapping[str, frozenset[str]]] = {
    "abort": frozenset({"undo", "promote-full", "promote", "retry", "restart"}),
    "undo": frozenset({"promote-full", "promote", "retry", "restart"}),
    "pause": frozenset({"promote-full", "promote", "resume"}),
    "promote-full": frozenset({"promote", "retry", "restart"}),
    "promote": frozenset({"retry", "restart"}),
    "retry": frozenset({"restart"}),
}
"""Which verbs are not acted on when another came in the same pass."""
