"""Brings notices to receivers: a bounded queue and one sender for each, and never in the way of a pass.

A notice is handed over without waiting, tried until it is taken or too old, and lost where the process is killed first:
at most once, but for an answer that was lost on its way back (docs/adr/0031). The addresses are secrets: they are read
from files at each attempt, and neither they nor what a receiver answers stands in a log.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self

import httpx

from rollway_operator.messages import body_for
from rollway_operator.notify import Notice, Receiver
from rollway_operator.observe import now
from rollway_operator.telemetry import NOTIFICATIONS, NOTIFICATIONS_QUEUED

_logger = logging.getLogger(__name__)

ID_HEADER: Final = "Rollway-Notification-Id"
"""Carries the notice's id, the same at each attempt."""

QUEUE_LENGTH: Final = 100
"""So many notices wait for one receiver; what comes then is dropped."""

_REMEMBERED: Final = 1000
"""Of so many notices it is known that they were told already."""

_PASSING: Final = frozenset({408, 425, 429})
"""Refusals that do not last, beside every answer from 500 on."""


@dataclass(frozen=True)
class Patience:
    """How long a receiver is waited for; all in seconds."""

    answer: float = 10.0
    """For one answer."""
    first: float = 1.0
    """Before the second attempt; doubled from there on, and spread."""
    longest: float = 60.0
    """Between two attempts, unless the receiver asks for more."""
    total: float = 1800.0
    """From the moment that a notice is handed over; each is tried once at least."""
    flush: float = 5.0
    """For all that is left when the process ends."""


@dataclass(frozen=True)
class _Posted:
    notice: Notice
    until: float


class _UndeliveredError(Exception):
    """An attempt failed, and the next one may not."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait
        """Seconds that the receiver asks for."""


class _RefusedError(Exception):
    """The receiver takes this notice never."""


class Webhooks:
    """Tells receivers of notices, from `async with` to its end."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        *,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Know the receivers; nothing is read or sent before there is a notice."""
        self._patience = patience or Patience()
        self._transport = transport
        self._queues = {receiver: asyncio.Queue[_Posted](QUEUE_LENGTH) for receiver in receivers}
        self._senders: list[asyncio.Task[None]] = []
        self._told: dict[str, None] = {}
        self._ending = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Begin to send."""
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(self._patience.answer),
            transport=self._transport,
        )
        for receiver in self._queues:
            for result in ("sent", "retried", "dropped"):
                NOTIFICATIONS.labels(receiver.name, result)
            if not receiver.url_file.is_file():
                _say(receiver, f"{receiver.secret} is not there: nothing is sent until it is")
        self._senders = [
            asyncio.create_task(self._send_for_ever(receiver), name=f"notify {receiver.name}")
            for receiver in self._queues
        ]
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Try once more what is left, for a bounded time, and drop the rest."""
        self._ending.set()
        emptied = [asyncio.ensure_future(queue.join()) for queue in self._queues.values()]
        if emptied:
            await asyncio.wait(emptied, timeout=self._patience.flush)
        for task in (*emptied, *self._senders):
            task.cancel()
        await asyncio.gather(*emptied, *self._senders, return_exceptions=True)
        for receiver, queue in self._queues.items():
            while not queue.empty():
                self._drop(receiver, queue.get_nowait().notice, "the operator ends")
        await self._client.aclose()

    def post(self, notice: Notice) -> None:
        """Have every receiver that wants it told of a notice; what was told already is not told again."""
        if notice.id in self._told:
            return
        self._told[notice.id] = None
        if len(self._told) > _REMEMBERED:
            self._told.pop(next(iter(self._told)))
        posted = _Posted(notice, asyncio.get_running_loop().time() + self._patience.total)
        for receiver, queue in self._queues.items():
            if not receiver.wants(notice):
                continue
            NOTIFICATIONS_QUEUED.inc()
            try:
                queue.put_nowait(posted)
            except asyncio.QueueFull:
                self._drop(receiver, notice, f"{QUEUE_LENGTH} others wait already")

    async def _send_for_ever(self, receiver: Receiver) -> None:
        queue = self._queues[receiver]
        while True:
            posted = await queue.get()
            try:
                await self._deliver(receiver, posted)
            except asyncio.CancelledError:
                self._drop(receiver, posted.notice, "the operator ends")
                raise
            except Exception as error:  # noqa: BLE001 - one notice must not end those that follow; words may hold the address
                self._drop(receiver, posted.notice, type(error).__name__)
            finally:
                queue.task_done()

    async def _deliver(self, receiver: Receiver, posted: _Posted) -> None:
        """Try until it is taken, refused, or too old."""
        delay = self._patience.first
        while True:
            try:
                await self._attempt(receiver, posted.notice)
            except _RefusedError as error:
                self._drop(receiver, posted.notice, str(error))
                return
            except _UndeliveredError as error:
                left = posted.until - asyncio.get_running_loop().time()
                if left <= 0 or self._ending.is_set():
                    self._drop(receiver, posted.notice, str(error))
                    return
                NOTIFICATIONS.labels(receiver.name, "retried").inc()
                asked = error.wait if error.wait is not None else delay * random.uniform(0.5, 1.0)
                _say(receiver, f"{posted.notice.event} is tried again: {error}", logging.DEBUG)
                await self._wait(min(asked, left))
                delay = min(delay * 2, self._patience.longest)
            else:
                NOTIFICATIONS.labels(receiver.name, "sent").inc()
                NOTIFICATIONS_QUEUED.dec()
                return

    async def _attempt(self, receiver: Receiver, notice: Notice) -> None:
        url = _address(receiver)
        try:
            async with (
                asyncio.timeout(self._patience.answer),
                self._client.stream(
                    "POST", url, json=body_for(receiver, notice), headers={ID_HEADER: notice.id}
                ) as answer,
            ):
                status, after = answer.status_code, answer.headers.get("Retry-After", "")
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _UndeliveredError("no answer in time") from error
        except (httpx.HTTPError, UnicodeError) as error:
            raise _UndeliveredError(f"no answer ({type(error).__name__})") from error
        if status in _PASSING or status >= 500:
            raise _UndeliveredError(f"it answers {status}", _asked_for(after))
        if not 200 <= status < 300:
            raise _RefusedError(f"it answers {status}")

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            pass

    def _drop(self, receiver: Receiver, notice: Notice, why: str) -> None:
        NOTIFICATIONS.labels(receiver.name, "dropped").inc()
        NOTIFICATIONS_QUEUED.dec()
        _say(receiver, f"{notice.event} of {notice.key.namespace}/{notice.key.name} is dropped: {why}")


def _address(receiver: Receiver) -> httpx.URL:
    """Read where the receiver is: a Secret that is made or changed later takes effect without a restart."""
    try:
        url = httpx.URL(receiver.url_file.read_text().strip())
    except (OSError, UnicodeError) as error:
        raise _UndeliveredError(f"{receiver.secret} is not there") from error
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise _UndeliveredError(f"{receiver.secret} is no address that begins with https:// or http://")
    return url


def _asked_for(after: str) -> float | None:
    """Read `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3); anything else asks for nothing."""
    if after.isascii() and after.isdigit():
        return float(after[:9])
    try:
        return max(0.0, (parsedate_to_datetime(after) - now()).total_seconds())
    except (TypeError, ValueError):
        return None


def _say(receiver: Receiver, what: str, level: int = logging.WARNING) -> None:
    _logger.log(level, "receiver %s: %s", receiver.name, what)
