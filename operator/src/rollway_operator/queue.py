"""A work queue of keys: coalescing, delaying, one pass at a time for each key, back-off for each key that fails."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 60.0


class WorkQueue(Generic[K]):
    """Runs `work` on the keys that are added, by several workers; what work returns is when to come back.

    A key that is added while it waits is one pass; added while its pass runs, one more follows. What work raises is its
    own to report: the queue only tries again, later each time.
    """

    def __init__(self, work: Callable[[K], Awaitable[timedelta | None]], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: dict[K, float] = {}
        self._oldest: float | None = None
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._open = True

    def __len__(self) -> int:
        """How many keys are due and wait for a worker."""
        return len(self._waiting)

    @property
    def oldest_seconds(self) -> float:
        """How long the key that is due for longest has waited for a worker; 0 if none is due. Any thread may ask."""
        oldest = self._oldest
        return 0.0 if oldest is None else time.monotonic() - oldest

    def start(self) -> None:
        """Start the workers."""
        self._tasks = [asyncio.create_task(self._run(), name=f"worker {n}") for n in range(self._workers)]

    async def stop(self) -> None:
        """Start no further pass, cut short those that run, and return when none runs any more."""
        self._open = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        self._oldest = None
        self._again.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, key: K) -> None:
        """Have the key worked on as soon as a worker is free."""
        self._cancel_timer(key)
        if not self._open or key in self._waiting:
            return
        if key in self._running:
            self._again.add(key)
        else:
            self._waiting[key] = due = time.monotonic()
            self._oldest = due if self._oldest is None else self._oldest
            self._ready.put_nowait(key)

    def add_after(self, key: K, delay: timedelta) -> None:
        """Have the key worked on after a while; the earliest wish wins."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay.total_seconds()
        timer = self._timers.get(key)
        if not self._open or key in self._waiting or key in self._again or (timer and timer.when() <= due):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(due, self.add, key)

    def forget(self, key: K) -> None:
        """Drop a key that is no more; a pass that runs goes on."""
        self._cancel_timer(key)
        self._failures.pop(key, None)
        self._again.discard(key)

    def _cancel_timer(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    async def _run(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.pop(key, None)
            self._oldest = next(iter(self._waiting.values()), None)
            self._running.add(key)
            delay = await self._attempt(key)
            self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay is not None:
                self.add_after(key, delay)

    async def _attempt(self, key: K) -> timedelta | None:
        try:
            delay = await self._work(key)
        except Exception:  # noqa: BLE001 - one key's trouble must not end the worker of all keys
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            return timedelta(seconds=_back_off(failures))
        self._failures.pop(key, None)
        return delay


def _back_off(failures: int) -> float:
    """Double from half a second to a minute, spread by a third so that many do not come back at once."""
    delay = min(math.ldexp(_FIRST_DELAY, min(failures - 1, 10)), _LONGEST_DELAY)
    return delay * random.uniform(0.7, 1.3)
