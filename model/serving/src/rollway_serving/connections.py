"""One HTTP connection, for which nobody waits for ever.

uvicorn puts no bound on how long a client takes to say what it wants, nor on the size of its headers. Here every
phase has an end::

    idle ──► headers ──► body ──► the answer ──► idle
    75 s     5 s, 32 KiB   10 s     10 s without progress

A request that comes in one piece, as nearly all do, starts no timer. A client that is too slow gets 408 and is cut
off. What follows a refusal (413, say) is read and dropped, within the body's time: so the refusal arrives, and the
connection stays of use.
"""

from __future__ import annotations

import enum
import resource
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from rollway_serving.settings import Limits

MAX_HEADER_BYTES = 32 << 10
MAX_CONNECTIONS = 4096
"""Beyond these an idle connection makes room for a new one; if none is idle, the new one is closed."""
_MAX_PIPELINED = 16


def allow_files() -> None:
    """Let the process hold as many files open as its connections need: a container often starts with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class _Phase(enum.Enum):
    IDLE = "between requests"
    HEADERS = "headers"
    BODY = "body"


class Connection(HttpToolsProtocol):
    """uvicorn's connection with an end to every phase."""

    def __init__(
        self, *arguments: Any, limits: Limits, error: Callable[[HTTPStatus, str], bytes], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._error = error
        self._phase = _Phase.IDLE
        self._message = 0
        self._raw_bytes = 0
        self._header_bytes = 0
        self._refusal: tuple[HTTPStatus, str] | None = None
        self._is_replaying = False
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[int, _Phase] | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it can be closed without anybody's loss."""
        return self._phase is _Phase.IDLE and not self._is_answering

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: uvicorn lets a client that never speaks stay for ever."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            others = (other for other in self.connections if other is not self)
            idle = next((other for other in others if isinstance(other, Connection) and other.is_idle), self)
            idle.transport.abort()
        self._await_next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock, however the connection ended."""
        self._disarm()
        self._unset_keepalive_if_required()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then see whether the request is whole."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        began = self._message + (0 if self._phase is _Phase.HEADERS else 1)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refusal = self._refusal or (HTTPStatus.BAD_REQUEST, "the request is not HTTP/1.1")
        if self._phase is _Phase.HEADERS and self._message == began:
            # All of it was headers. The parser itself keeps an unfinished one, however long it is.
            self._raw_bytes += len(data)
            self._check_size(self._raw_bytes)
        if self._refusal is not None:
            self._refuse(*self._refusal)
        elif not self.transport.is_closing():
            self._keep_time()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        if self._is_replaying:
            return
        self._phase = _Phase.HEADERS
        self._message += 1
        self._raw_bytes = self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        if self._is_replaying:
            return
        self._header_bytes += len(url)
        self._check_size(self._header_bytes)
        if self._refusal is None:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One whole header."""
        if self._is_replaying:
            return
        self._header_bytes += len(name) + len(value) + 4
        self._check_size(self._header_bytes)
        if self._refusal is None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are whole: the request begins to be answered."""
        if self._is_replaying:
            return
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refusal = (
                HTTPStatus.BAD_REQUEST,
                f"more than {_MAX_PIPELINED} requests wait on a connection",
            )
        if self._refusal is None:
            super().on_headers_complete()
            self._phase = _Phase.BODY

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._phase = _Phase.IDLE
        if self._refusal is None:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    @property
    def _is_answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _feed(self, data: bytes) -> None:
        """Parse; a client that proposes another protocol gets its answer in this one, and may go on."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._decline_upgrade()
                data = data[upgrade.args[0] :]
            else:
                return

    def _decline_upgrade(self) -> None:
        """Go on with a new parser: the old one has stopped at the headers and takes the body for something else."""
        self.parser = httptools.HttpRequestParser(self)
        framing = [
            name + b": " + value + b"\r\n"
            for name, value in self.headers
            if name == b"transfer-encoding" or (name == b"content-length" and int(value))
        ]
        if framing and self._refusal is None:
            self._is_replaying = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
            self._is_replaying = False
            self.cycle.more_body = True
            self._phase = _Phase.BODY

    def _check_size(self, count: int) -> None:
        if count > MAX_HEADER_BYTES:
            self._refusal = (
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"headers: expected at most {MAX_HEADER_BYTES} bytes, got more",
            )

    def _keep_time(self) -> None:
        """Time what is unfinished from its first byte; arm nothing where the request is whole."""
        if self._phase is _Phase.IDLE:
            self._disarm()
            if not self._is_answering:
                self._await_next()
            return
        now = (self._message, self._phase)
        if self._timed != now:
            self._disarm()
            self._timed = now
            self._timer = self.loop.call_later(self._seconds, self._expired)

    @property
    def _seconds(self) -> float:
        limits = self._limits
        return limits.body_seconds if self._phase is _Phase.BODY else limits.header_seconds

    def _await_next(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timed = None

    def _expired(self) -> None:
        self._timer = self._timed = None
        if self.transport.is_closing():
            return
        if self._phase is _Phase.BODY and self.pipeline and self.pipeline[0][0] is self.cycle:
            self._keep_time()  # nobody reads from this client until its earlier request is answered
            return
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            f"{self._phase.value}: expected within {self._seconds:g} s, got a part",
        )

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer without asking the application, and close."""
        self._disarm()
        if self._phase is not _Phase.BODY and self._is_answering:
            self.cycle.keep_alive = False  # an earlier request was good: it gets its answer
            return
        if self._phase is _Phase.BODY:
            if self.cycle.response_started:
                self.transport.close()
                return
            # The application need not wait for the rest, nor answer.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = self._error(status, message)
        lines = [STATUS_LINE[status]]
        lines += [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers]
        lines += [
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body),
            body,
        ]
        self.transport.write(b"".join(lines))
        self.transport.close()
