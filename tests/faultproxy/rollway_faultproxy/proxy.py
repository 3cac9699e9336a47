"""Forwards calls as they are, unless a rule says otherwise; streams are passed on piece by piece."""

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, NoReturn

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from rollway_faultproxy.calls import Call, Entry, Journal
from rollway_faultproxy.rules import (
    Answer,
    Cut,
    Delay,
    Freeze,
    HalfClose,
    Hold,
    Kill,
    Rules,
    Standing,
    Watch,
)
from rollway_faultproxy.upstream import Upstream

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_OF_ONE_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    }
)
_LONGEST_EVENT: Final = 16 * 1024 * 1024
_SECONDS_BETWEEN_LOOKS: Final = 0.05


class _Ended(Exception):  # noqa: N818 - nothing went wrong
    """The connection was ended on purpose."""


class Proxy:
    """One upstream, its rules and its record."""

    def __init__(self, upstream: Upstream) -> None:
        self.rules = Rules()
        self.journal = Journal()
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None
        self._freezing: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.BaseTransport] = set()

    @asynccontextmanager
    async def listen(self, port: int = 0) -> AsyncIterator[str]:
        """Answer on a loopback port; give the address."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._upstream.tls or True, limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=_LONGEST_EVENT,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # What a caller has sent arrives, also when the caller is gone by then: handlers are never cancelled.
        async with session as self._session, serving(self._answer, port) as url:
            yield url

    def end_streams(self) -> int:
        """End every stream of events that is open, as a server does that goes away; tell how many there were."""
        for transport in self._streams:
            transport.close()
        return len(self._streams)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call.of(request.method, request.raw_path, request.headers.get("Content-Type", ""))
        entry = self.journal.add(call)
        body = await request.read()
        standing = self.rules.choose(call, body)
        entry.rule = standing.name if standing else None
        try:
            return await self._act(request, body, entry, standing)
        except (aiohttp.ClientError, ConnectionError):
            # A server that is down, or goes down, is so through the proxy, too.
            _reset(request)
        except _Ended:
            pass
        return web.Response()  # goes nowhere: the connection is no more

    async def _act(
        self, request: web.BaseRequest, body: bytes, entry: Entry, standing: Standing | None
    ) -> web.StreamResponse:
        match standing and standing.rule.action:
            case Answer(status=status, headers=headers, body=text):
                entry.status = status
                return web.Response(status=status, headers=headers, body=text.encode())
            case Delay(seconds=seconds):
                await asyncio.sleep(seconds)
            case Hold() if standing:
                await standing.withdrawn.wait()
            case Kill(pid=pid, when="before"):
                _signal(pid, signal.SIGKILL)
                _end(request)
            case Cut(when="before"):
                _end(request)
            case Freeze(pid=pid, seconds=seconds):
                self._freeze(pid, seconds)
        return await self._forward(request, body, entry, standing)

    def _freeze(self, pid: int, seconds: float) -> None:
        async def thaw() -> None:
            await asyncio.sleep(seconds)
            _signal(pid, signal.SIGCONT)

        _signal(pid, signal.SIGSTOP)
        task = asyncio.create_task(thaw())
        self._freezing.add(task)
        task.add_done_callback(self._freezing.discard)

    async def _forward(
        self, request: web.BaseRequest, body: bytes, entry: Entry, standing: Standing | None
    ) -> web.StreamResponse:
        assert self._session is not None
        url = URL(self._upstream.url.rstrip("/") + request.raw_path, encoded=True)
        content = io.BytesIO(body) if body else None
        async with self._session.request(
            request.method, url, data=content, headers=self._headers(request), allow_redirects=False
        ) as answer:
            return await self._pass_back(request, answer, entry, standing)

    def _headers(self, request: web.BaseRequest) -> CIMultiDict[str]:
        kept = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _OF_ONE_HOP | {"content-length"}
        )
        # Answers are read here: they come as they are.
        kept["Accept-Encoding"] = "identity"
        if self._upstream.token:
            kept["Authorization"] = f"Bearer {self._upstream.token}"
        return kept

    async def _pass_back(
        self,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        entry: Entry,
        standing: Standing | None,
    ) -> web.StreamResponse:
        action = standing.rule.action if standing else None
        if isinstance(action, Kill | Cut) and action.when == "after":
            await answer.read()
            if isinstance(action, Kill):
                _signal(action.pid, signal.SIGKILL)
            _end(request)
        response = web.StreamResponse(
            status=answer.status,
            reason=answer.reason,
            headers=CIMultiDict(
                (name, value) for name, value in answer.headers.items() if name.lower() not in _OF_ONE_HOP
            ),
        )
        entry.status = answer.status
        await response.prepare(request)
        if isinstance(action, HalfClose | Cut):
            await _break_off(request, action, await answer.read(), response)
        with self._counted(request, entry):
            if isinstance(action, Watch) and entry.call.watch:
                await _change(request, action, answer, response.write)
            else:
                async for piece in answer.content.iter_any():
                    await response.write(piece)
        await response.write_eof()
        return response

    @contextmanager
    def _counted(self, request: web.BaseRequest, entry: Entry) -> Iterator[None]:
        """Know of a stream as long as it is open."""
        transport = request.transport
        if not entry.call.watch or transport is None:
            yield
            return
        self._streams.add(transport)
        try:
            yield
        finally:
            self._streams.discard(transport)


async def _change(
    request: web.BaseRequest,
    action: Watch,
    answer: aiohttp.ClientResponse,
    write: Callable[[bytes], Awaitable[None]],
) -> None:
    """Pass events on as a rule says, until the server, the caller or the rule ends it."""

    async def pump() -> None:
        if action.silent:
            while request.transport and not request.transport.is_closing():  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            return
        async for line in answer.content:
            text = line.decode()
            for old, new in action.replace.items():
                text = text.replace(old, new)
            await write(text.encode())

    pumping = asyncio.create_task(pump())
    try:
        if action.inject:
            await asyncio.wait([pumping], timeout=action.after)
            for event in action.inject:
                await write(json.dumps(event).encode() + b"\n")
        await asyncio.wait([pumping], timeout=action.close_after)
    finally:
        pumping.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await pumping


async def _break_off(
    request: web.BaseRequest, action: HalfClose | Cut, content: bytes, response: web.StreamResponse
) -> None:
    """Send half of an answer, then no more."""
    await response.write(content[: len(content) // 2])
    transport = request.transport
    if isinstance(action, HalfClose) and isinstance(transport, asyncio.WriteTransport):
        transport.write_eof()
        while not transport.is_closing():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
    elif transport is not None:
        transport.close()
    raise _Ended


def _of_any_size(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=0)


def _end(request: web.BaseRequest) -> NoReturn:
    _reset(request)
    raise _Ended


def _reset(request: web.BaseRequest) -> None:
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.abort()


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@asynccontextmanager
async def serving(answer: Handler, port: int = 0) -> AsyncIterator[str]:
    """Answer on a loopback port, requests of any size as they were sent; give the address."""
    server = web.Server(answer, request_factory=_of_any_size, access_log=None, auto_decompress=False)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
