"""One registry, shared by all that follow it: few requests, one back-off, and how long a target has stood.

    many passes ──► SharedRegistry ──► one request a model and poll, one a followed version ──► Registry
                      │
                      ├─ an answer younger than the poll interval is given again
                      ├─ passes that ask at the same time wait for the same request
                      └─ while the registry is unreachable nobody asks before the back-off is over

All times are those of the event loop's clock.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from rollway_operator.registries import (
    RegisteredVersion,
    Registry,
    RegistryError,
    UnreachableError,
    UnusableAnswerError,
)

SETTLE_SECONDS = 5.0
"""A changed target counts once it was read again after this time (rollout.md rule 2)."""
FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 30.0
PATIENCE_SECONDS = 1.0
"""How long a pass waits for a registry whose last request failed; then that failure is the answer."""
_CONCURRENT_REQUESTS = 8
_REMEMBERED_POLLS = 10

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class AliasNotFoundError(RegistryError):
    """The model has no such alias."""

    reason = "AliasNotFound"


@dataclass(frozen=True)
class Follow:
    """What of a model is followed: an alias, or one version."""

    model: str
    alias: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Target:
    """The version that a Follow leads to, when it was asked for, and since when it has been the same."""

    version: RegisteredVersion
    asked: float
    since: float
    initial: bool
    """It is what this process read first, so it is not known to have changed."""

    @property
    def settled(self) -> bool:
        """Whether it was read again, long enough after it was first seen."""
        return self.asked >= self.since + SETTLE_SECONDS


@dataclass(frozen=True)
class Health:
    """What the last requests say about a registry: no failure means that it answers."""

    failure: UnreachableError | None = None


class SharedRegistry:
    """Asks one registry on behalf of all that follow it."""

    def __init__(self, registry: Registry, poll_interval: float) -> None:
        """Give answers again until they are `poll_interval` seconds old."""
        self.poll_interval = poll_interval
        self._registry = registry
        self._gate = _Gate()
        self._memory = _REMEMBERED_POLLS * poll_interval
        self._aliases = _Answers[str, Mapping[str, str]](self._gate, self._memory)
        self._versions = _Answers[tuple[str, str], RegisteredVersion](self._gate, self._memory)
        self._pings = _Answers[None, None](self._gate, self._memory)
        self._targets: dict[Follow, Target] = {}

    async def target(self, follow: Follow, current: str | None) -> Target:
        """Find the version that `follow` leads to; a change from version `current` is read twice.

        An answer that is young enough is taken as it is. Only where it names another version than `current` and
        the time to settle is over, the registry is asked again before its time.
        """
        target = await self._read(follow, _now() - self.poll_interval)
        if not is_confirmed(target, current) and _now() >= target.since + SETTLE_SECONDS:
            target = await self._read(follow, target.since + SETTLE_SECONDS)
        return target

    async def health(self) -> Health:
        """Say whether the registry answers, from the last requests where they are young enough."""
        oldest = _now() - self.poll_interval
        if self._gate.asked < oldest:
            try:
                await self._pings.get(None, self._registry.ping, oldest)
            except UnusableAnswerError as error:
                return Health(UnreachableError(str(error)))
            except UnreachableError as error:
                return Health(error)
        return Health(self._gate.failure)

    def next_poll(self, asked: float) -> float:
        """Say in how many seconds an answer asked for at `asked` is too old."""
        return max(0.0, asked + self.poll_interval - _now())

    def settles_in(self, target: Target) -> float:
        """Say in how many seconds a target that may have changed is read again."""
        return max(0.0, target.since + SETTLE_SECONDS - _now())

    @property
    def back_off(self) -> float:
        """Seconds until the registry is asked again after a failure."""
        return max(0.0, self._gate.retry_at - _now())

    async def aclose(self) -> None:
        """Wait for the requests under way, then close the connections."""
        for answers in (self._aliases, self._versions, self._pings):
            await answers.finished()
        await self._registry.aclose()

    async def _read(self, follow: Follow, oldest: float) -> Target:
        """Read what `follow` leads to; no part of the answer was asked for before `oldest`."""
        version = follow.version
        if follow.alias is not None:
            aliases = await self._aliases.get(
                follow.model, lambda: self._registry.aliases(follow.model), oldest
            )
            if follow.alias not in aliases.value:
                raise AliasNotFoundError(
                    f"model '{follow.model}' has no alias '{follow.alias}': set it in the registry, or name another in "
                    "spec.model.alias"
                )
            version = aliases.value[follow.alias]
            oldest = aliases.asked
        key = follow.model, version or ""
        found = await self._versions.get(key, lambda: self._registry.version(*key), oldest)
        asked = oldest if follow.alias is not None else found.asked
        return self._seen(follow, found.value, asked)

    def _seen(self, follow: Follow, version: RegisteredVersion, asked: float) -> Target:
        """Remember since when `follow` has led to the same version."""
        before = self._targets.pop(follow, None)
        if before is None or before.version != version:
            target = Target(version, asked, _now(), initial=before is None)
        else:
            target = Target(version, max(asked, before.asked), before.since, before.initial)
        self._targets[follow] = target
        _forget(self._targets, target.asked - self._memory)
        return target


def is_confirmed(target: Target, current: str | None) -> bool:
    """Say whether `target` counts for an object whose present target is version `current`.

    The first version ever counts at once, and so does the present one, unless its number now stands for something
    else than before. Any other counts once it has settled.
    """
    return current is None or target.settled or (target.initial and target.version.version == current)


class _Gate:
    """Lets requests through to one registry: a few at a time, none while it is backing off."""

    def __init__(self) -> None:
        self.failure: UnreachableError | None = None
        self.asked = float("-inf")
        """When a request was last begun that says whether the registry answers."""
        self.retry_at = float("-inf")
        self._failures = 0
        self._places = asyncio.Semaphore(_CONCURRENT_REQUESTS)

    def check(self) -> None:
        """Raise the last failure while the back-off lasts."""
        if self.failure is not None and _now() < self.retry_at:
            raise self.failure.with_traceback(None)

    async def pass_through(self, ask: Callable[[], Awaitable[T]]) -> tuple[float, T | RegistryError]:
        """Ask, and give the time of asking with the answer; raise when the registry is unreachable."""
        async with self._places:
            self.check()
            asked = _now()
            try:
                value: T | RegistryError = await ask()
            except UnreachableError as error:
                self._failed(asked, error)
                raise
            except UnusableAnswerError as error:
                return asked, error  # says nothing about the registry as a whole
            except RegistryError as error:
                value = error
        self.failure, self._failures, self.asked = None, 0, asked
        return asked, value

    def _failed(self, asked: float, error: UnreachableError) -> None:
        """Back off, twice as long each time; requests that were under way together count as one failure."""
        self.failure, self.asked = error, asked
        if asked >= self.retry_at:
            longest = min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2**self._failures)
            self.retry_at = _now() + longest * random.uniform(0.5, 1.0)
            self._failures = min(self._failures + 1, 10)


@dataclass(frozen=True)
class _Answer(Generic[T]):
    asked: float
    value: T


class _Answers(Generic[K, T]):
    """The last answer to each question of one kind; the same question is never under way twice."""

    def __init__(self, gate: _Gate, memory: float) -> None:
        self._gate = gate
        self._memory = memory
        self._last: dict[K, _Answer[T | RegistryError]] = {}
        self._asking: dict[K, asyncio.Task[_Answer[T | RegistryError] | Exception]] = {}

    async def get(self, key: K, ask: Callable[[], Awaitable[T]], oldest: float) -> _Answer[T]:
        """Give an answer asked for at `oldest` or later; raise it where it is a RegistryError."""
        answer = self._last.get(key)
        while answer is None or answer.asked < oldest:
            answer = await self._fresh(key, ask)
        if isinstance(answer.value, RegistryError):
            raise answer.value.with_traceback(None)
        return _Answer(answer.asked, answer.value)

    async def finished(self) -> None:
        """Wait for what is under way."""
        if self._asking:
            await asyncio.wait(self._asking.values())

    async def _fresh(self, key: K, ask: Callable[[], Awaitable[T]]) -> _Answer[T | RegistryError]:
        self._gate.check()
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, ask))
        failure = self._gate.failure
        # wait() leaves the request under way when this pass is cancelled: others may be waiting for it.
        await asyncio.wait({task}, timeout=PATIENCE_SECONDS if failure else None)
        if not task.done() and failure is not None:
            raise failure.with_traceback(None)
        outcome = task.result()
        if isinstance(outcome, Exception):
            raise outcome.with_traceback(None) if isinstance(outcome, RegistryError) else outcome
        return outcome

    async def _ask(self, key: K, ask: Callable[[], Awaitable[T]]) -> _Answer[T | RegistryError] | Exception:
        """Ask and keep the answer; an exception is handed over, since nobody may be left to raise it to."""
        try:
            asked, value = await self._gate.pass_through(ask)
        except Exception as error:  # noqa: BLE001
            return error
        finally:
            del self._asking[key]
        self._last.pop(key, None)
        self._last[key] = answer = _Answer(asked, value)
        _forget(self._last, asked - self._memory)
        return answer


def _forget(remembered: dict[K, _Answer[T]] | dict[K, Target], oldest: float) -> None:
    """Drop what nobody has asked for since `oldest`; the dict is in the order of asking."""
    while remembered and remembered[first := next(iter(remembered))].asked < oldest:
        del remembered[first]


def _now() -> float:
    return asyncio.get_running_loop().time()
