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

Where requests are joined, one call of the model runs at a time and the next takes what has come to wait meanwhile. A
call that nobody waits for any more keeps its place, as ever, and holds up the next one no longer.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rollway_serving.batching import kind_of
from rollway_serving.errors import DeadlineError, OverloadError
from rollway_serving.signature import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from rollway_serving.batching import Joining
    from rollway_serving.settings import Settings

    _Telling = Callable[[], None]

RETRY_AFTER_SECONDS = 1
"""What a client that is sent away with 429 is told to wait."""
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Job:
    """A request: the function that answers it, and who waits for that."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    future: Future[Any] = field(default_factory=Future)
    begun: bool = False
    """Whether it is part of a call, and not in line any more."""
    given_up: bool = False
    """Whether nobody waits for it any more."""
    since: float = 0.0
    kind: Hashable = None
    """What it may be joined with; nothing, if this is nothing."""
    rows: int = 0

    def has(self, rows: Any) -> None:
        """Know what to ask the model."""
        self.arguments, self.kind, self.rows = (rows,), kind_of(rows), rows_of(rows)

    def run(self) -> _Telling:
        """Do the work; what is left is to tell the outcome to whoever waits for it."""
        if self.given_up:
            return partial(self.future.set_exception, concurrent.futures.CancelledError())
        try:
            return partial(self.future.set_result, self.function(*self.arguments))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answer gets the error
            return partial(self.future.set_exception, error)


@dataclass(eq=False, slots=True)
class _Call:
    """One call of the model, for one request or for several."""

    jobs: list[_Job]

    @property
    def is_awaited(self) -> bool:
        return any(not job.given_up and not job.future.done() for job in self.jobs)


class Admission:
    """Runs predictions on threads: a bounded number at once, a bounded number in line. Any thread may ask."""

    def __init__(
        self, *, concurrency: int, queue: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._places = concurrency
        self._queue = queue
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self._taken = 0
        self._running = 0
        self._calls = 0
        self._line: deque[_Job] = deque()
        self._joining: Joining | None = None
        self._current: _Call | None = None
        """The call that holds up the next one, where requests are joined."""
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="model")
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")

    @classmethod
    def of(cls, settings: Settings) -> Admission:
        """Take on as much as a revision's settings say."""
        limits = settings.limits
        return cls(
            concurrency=limits.max_concurrency, queue=limits.max_queue, seconds=settings.timeout_seconds
        )

    def join(self, joining: Joining) -> None:
        """From now on let requests share calls; said before the first one comes."""
        self._joining = joining

    @property
    def joins(self) -> bool:
        """Whether requests share calls."""
        return self._joining is not None

    @property
    def running(self) -> int:
        """How many requests are being predicted, those that nobody waits for any more among them."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return self._taken - self._running

    @property
    def is_full(self) -> bool:
        """Whether a request that came now would be refused; asked before a body is read."""
        return self._taken >= self._places + self._queue

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the function's result within the deadline, for a server that has a thread for each request."""
        job = self._submit(_Job(function, arguments))
        concurrent.futures.wait([job.future], self._seconds)
        if not job.future.done():
            raise self._too_late(job)
        return job.future.result()

    async def run_async(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the function's result within the deadline, for a server with an event loop."""
        return await self._answer(self._submit(_Job(function, arguments)))

    async def join_async(self, rows: Any) -> Any:
        """Return the model's answer to the rows within the deadline, by a call that others may share."""
        job = self._job()
        job.has(rows)
        return await self._answer(self._submit(job))

    async def read_and_join_async(self, read: Callable[[], Any]) -> Any:
        """Do the same for a request that a thread has first to make rows of."""
        return await self._answer(self._submit(self._job(), read))

    def _job(self) -> _Job:
        """A request that may be joined."""
        assert self._joining is not None  # noqa: S101 - whoever asks has asked `joins`
        return _Job(self._joining.alone, since=self._clock())

    async def _answer(self, job: _Job) -> Any:
        answer = asyncio.wrap_future(job.future)
        try:
            await asyncio.wait([answer], timeout=self._seconds)
            if not job.future.done():
                raise self._too_late(job)
            return await answer
        finally:
            # Also where the client has gone: one that waits leaves the line.
            answer.cancel()
            if not job.future.done():
                self._give_up(job)

    def _submit(self, job: _Job, read: Callable[[], Any] | None = None) -> _Job:
        with self._lock:
            if self.is_full:
                raise OverloadError(
                    f"the server is busy: {self.running} predictions run and {self.waiting} wait"
                )
            self._taken += 1
            job.future.add_done_callback(lambda _: self._done(job))
            if read is None:
                self._enter(job)
        if read is not None:
            self._reader.submit(self._read, job, read)
        return job

    def _read(self, job: _Job, read: Callable[[], Any]) -> None:
        if job.future.cancelled():
            return
        try:
            job.has(read())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answer gets the error
            with contextlib.suppress(InvalidStateError):  # nobody waits any more
                job.future.set_exception(error)
            return
        with self._lock:
            if not job.future.cancelled():
                self._enter(job)

    def _enter(self, job: _Job) -> None:
        """Put a request into the line, which is empty where a place is free."""
        self._line.append(job)
        self._came.notify_all()
        self._begin()

    def _begin(self) -> None:
        """Have another thread work, if it may."""
        call = self._next()
        if call is not None:
            self._threads.submit(self._work, call)

    def _next(self) -> _Call | None:
        """Take the head of the line, if there is a place for it."""
        if not self._line or self._calls >= self._places or self._current is not None:
            return None
        self._calls += 1
        call = _Call([])
        self._take(call, self._line[0])
        if self._joining is not None:
            self._current = call
        return call

    def _take(self, call: _Call, job: _Job) -> None:
        self._line.remove(job)
        job.begun = True
        call.jobs.append(job)
        self._running += 1

    def _work(self, call: _Call | None) -> None:
        while call is not None:
            self._gather(call)
            outcomes = self._run(call)
            with self._lock:
                # Before anyone is told: who has an answer may ask again at once.
                self._calls -= 1
                self._running -= len(call.jobs)
                self._taken -= len(call.jobs)
                call.jobs.clear()  # lets go of the rows before the next ones are taken
                if self._current is call:
                    self._current = None
            for tell in outcomes:
                tell()
            outcomes.clear()
            with self._lock:
                call = self._next()

    def _gather(self, call: _Call) -> None:
        """Take along who may share the call."""
        if self._joining is None or call.jobs[0].kind is None:
            return
        with self._came:
            while True:
                more, seconds = self._joining.next(call.jobs, self._line, self._clock())
                for job in more:
                    self._take(call, job)
                if not seconds:
                    return
                self._came.wait(seconds)

    def _run(self, call: _Call) -> list[_Telling]:
        jobs = [job for job in call.jobs if job.future.set_running_or_notify_cancel()]
        if len(jobs) > 1:
            answers = self._together(jobs)
            if answers is not None:
                return [
                    partial(job.future.set_result, answer) for job, answer in zip(jobs, answers, strict=True)
                ]
            for job in jobs[:-1]:
                job.run()()  # what the others wait for need not wait for them
        return [job.run() for job in jobs[-1:]]

    def _together(self, jobs: list[_Job]) -> Sequence[Any] | None:
        """Answer all by one call, or none: a failure does not tell whose rows it is about."""
        assert self._joining is not None  # noqa: S101 - else a call has one request
        try:
            return self._joining.together([job.arguments[0] for job in jobs])
        except BaseException as error:  # noqa: BLE001 - each request gets its own
            name = type(error).__name__
            _log.info("a call for %d requests failed with %s: they are tried one by one", len(jobs), name)
            return None

    def _done(self, job: _Job) -> None:
        """Give back the place of a request that never came to run; the others' is given back by their call."""
        with self._lock:
            if not job.begun:
                self._taken -= 1
                if job in self._line:
                    self._line.remove(job)

    def _give_up(self, job: _Job) -> None:
        """Wait for a request no more: it leaves the line, and a call that was for it alone holds up nobody."""
        job.given_up = True
        job.future.cancel()
        with self._lock:
            if self._current is not None and not self._current.is_awaited:
                self._current = None
                self._begin()

    def _too_late(self, job: _Job) -> DeadlineError:
        self._give_up(job)
        if not job.future.cancelled():
            began = time.monotonic()
            _log.warning(
                "a prediction has passed its deadline of %g s; it goes on and keeps its place", self._seconds
            )
            job.future.add_done_callback(
                lambda _: _log.warning(
                    "a prediction has ended %.1f s after its deadline", time.monotonic() - began
                )
            )
        return DeadlineError(f"the model did not answer within {self._seconds:g} s")
