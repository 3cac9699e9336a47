"""How much a server takes on: predictions that run, requests that wait, and how long a client waits.

::

               all places taken             line full
    submit ──► runs ─────────────► waits in line ─────► OverloadError (429)
                │ deadline           │ deadline
                ▼                    ▼
         DeadlineError (504)   DeadlineError (504)
         keeps its place       leaves the line

Predictions run on threads, and Python cannot stop a thread. A prediction that outlasts its deadline goes on although
its client has been answered, and keeps its place until it ends: however slow the model, no more of them run than
there are places. A model that never returns takes one place for good; with all places gone, every request is 504
or 429, until the pod is restarted.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rollway_serving.errors import DeadlineError, OverloadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollway_serving.settings import Settings

RETRY_AFTER_SECONDS = 1
"""What a client that is sent away with 429 is told to wait."""
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Job:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any] = field(default_factory=Future)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.function(*self.arguments)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answer gets the error
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Admission:
    """Runs predictions on threads: a bounded number at once, a bounded number in line. Any thread may ask."""

    def __init__(self, *, concurrency: int, queue: int, seconds: float) -> None:
        self._places = concurrency
        self._queue = queue
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running = 0
        self._line: deque[_Job] = deque()
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="model")

    @classmethod
    def of(cls, settings: Settings) -> Admission:
        """Take on as much as a revision's settings say."""
        limits = settings.limits
        return cls(
            concurrency=limits.max_concurrency, queue=limits.max_queue, seconds=settings.timeout_seconds
        )

    @property
    def running(self) -> int:
        """How many predictions run, those that nobody waits for any more among them."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._line)

    @property
    def is_full(self) -> bool:
        """Whether a request that came now would be refused; asked before a body is read."""
        return self._running >= self._places and len(self._line) >= self._queue

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the function's result within the deadline, for a server that has a thread for each request."""
        future = self._submit(function, *arguments)
        concurrent.futures.wait([future], self._seconds)
        if not future.done():
            raise self._too_late(future)
        return future.result()

    async def run_async(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the function's result within the deadline, for a server with an event loop."""
        future = self._submit(function, *arguments)
        answer = asyncio.wrap_future(future)
        try:
            await asyncio.wait([answer], timeout=self._seconds)
            if not future.done():
                raise self._too_late(future)
            return await answer
        finally:
            # Also where the client has gone: one that waits leaves the line.
            answer.cancel()

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        job = _Job(function, arguments)
        with self._lock:
            if self.is_full:
                raise OverloadError(
                    f"the server is busy: {self._running} predictions run and {len(self._line)} wait"
                )
            runs = self._running < self._places
            if runs:
                self._running += 1
            else:
                self._line.append(job)
        if runs:
            self._threads.submit(self._work, job)
        else:
            job.future.add_done_callback(lambda _: self._leave(job))
        return job.future

    def _work(self, job: _Job | None) -> None:
        while job is not None:
            job.run()
            job = None  # lets go of the rows before the next one is taken
            with self._lock:
                if self._line:
                    job = self._line.popleft()
                else:
                    self._running -= 1

    def _leave(self, job: _Job) -> None:
        with self._lock:
            if job in self._line:
                self._line.remove(job)

    def _too_late(self, future: Future[Any]) -> DeadlineError:
        if not future.cancel():
            began = time.monotonic()
            _log.warning(
                "a prediction has passed its deadline of %g s; it goes on and keeps its place", self._seconds
            )
            future.add_done_callback(
                lambda _: _log.warning(
                    "a prediction has ended %.1f s after its deadline", time.monotonic() - began
                )
            )
        return DeadlineError(f"the model did not answer within {self._seconds:g} s")
