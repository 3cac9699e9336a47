"""The HTTP side of every runtime: what is refused before a server's own code sees it, and how the listener stops.

For each request, in this order::

    path and method   404, 405       what is not served reaches nobody
    life              503            not ready
    headers           415, 413       compressed, or longer than the limit: answered before the body is read
    load              429            as much runs and waits as may
    body              413, 429, 408  read up to the limit, within its time
    the application   200, 400, 504, 500

Only then is the request counted, by its outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from rollway_serving.connections import Connection, allow_files
from rollway_serving.limits import RETRY_AFTER_SECONDS
from rollway_serving.metrics import CONTENT_TYPE, asked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from rollway_serving.lifecycle import Lifecycle
    from rollway_serving.limits import Admission
    from rollway_serving.metrics import Method, Metrics
    from rollway_serving.settings import Settings
    from rollway_serving.signature import Signature

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]
    Headers = list[tuple[bytes, bytes]]
    ErrorBody = Callable[[HTTPStatus, str], bytes]

KEEP_ALIVE_SECONDS = 75
"""Longer than common clients keep an idle connection, so that they close it and no request meets a close."""
_LINGER_SECONDS = 0.5
_UNFINISHED_BODIES = 64
"""Bodies that are being read may hold this many times the limit of one body."""
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """What a path may be asked."""

    verb: str = "GET"
    method: Method | None = None
    """What it counts as, where the model itself is asked."""
    needs_model: bool = False
    """Refused with 503 while the model is loaded."""
    is_probe: bool = False
    """Refused with 503 also while the server drains."""
    unknown: bool = False
    """Refused with 404, and counted."""
    says: bytes | None = None
    """The JSON that answers it, where the server's own code is not asked."""


def json_error(_: HTTPStatus, message: str) -> bytes:
    """The body of an error as V2 has it."""
    return json.dumps({"error": message}).encode()


class _RefusedError(Exception):
    """The request ends here; without a status the client is not there any more."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Guard:
    """The ASGI application in front of a server's own: what passes has its whole body with it."""

    def __init__(
        self,
        app: App,
        *,
        route: Callable[[str], Route | None],
        settings: Settings,
        life: Lifecycle,
        admission: Admission,
        metrics: Metrics,
        error: ErrorBody = json_error,
    ) -> None:
        self._app = app
        self._route = route
        self._limit = settings.limits.max_body_bytes
        self._life = life
        self._admission = admission
        self._metrics = metrics
        self._error = error
        self._unfinished = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on, and count it."""
        exchange = _Exchange(send, self._life)
        route = self._route(scope["path"])
        began = time.monotonic()
        try:
            self._check(route, scope)
            body = await self._read(dict(scope["headers"]), receive)
            began = time.monotonic()  # how long the client took is not our doing
            if route is not None and route.method is not None:
                asked.set(route.method)
            if route is not None and route.says is not None:
                await answer(exchange.send, HTTPStatus.OK, route.says)
            else:
                await self._app(scope, _replay(body, receive), exchange.send)
        except _RefusedError as refusal:
            await self._refuse(exchange, refusal.status, refusal.message, route)
        except Exception:  # noqa: BLE001 - the client gets no traceback, the log does
            _log.exception("a request failed in a way that nobody foresaw")
            if not exchange.status:
                await self._refuse(exchange, HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", route)
        if route is not None and route.method is not None:
            self._metrics.answered(
                route.method, exchange.status or HTTPStatus.INTERNAL_SERVER_ERROR, time.monotonic() - began
            )

    def _check(self, route: Route | None, scope: Scope) -> None:
        """Everything that can be told from the request's head."""
        if route is None:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "not found")
        if route.unknown:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "no such model or version")
        if scope["method"] != route.verb:
            raise _RefusedError(
                HTTPStatus.METHOD_NOT_ALLOWED, f"method: expected {route.verb}, got {scope['method']}"
            )
        if (route.is_probe and not self._life.accepts_traffic) or (
            route.needs_model and not self._life.serves
        ):
            raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"the server is {self._life.phase.value}")
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding: expected none, got another"
            )
        # The parser has seen to it that a length is a number.
        if int(headers.get(b"content-length", b"0")) > self._limit:
            raise self._too_large()
        if route.method is not None and self._admission.is_full:
            raise _RefusedError(HTTPStatus.TOO_MANY_REQUESTS, "the server is busy")

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Read the body, which may not be longer than the limit however it is sent."""
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            return b""
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the client has gone")
                part: bytes = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._unfinished += len(part)
                if size > self._limit:
                    raise self._too_large()
                if not message.get("more_body", False):
                    return b"".join(parts)
                if self._unfinished > _UNFINISHED_BODIES * self._limit:
                    raise _RefusedError(HTTPStatus.TOO_MANY_REQUESTS, "too many bodies are being read")
        finally:
            self._unfinished -= size

    def _too_large(self) -> _RefusedError:
        return _RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: expected at most {self._limit} bytes, got more"
        )

    async def _refuse(
        self, exchange: _Exchange, status: HTTPStatus, message: str, route: Route | None
    ) -> None:
        headers: Headers = []
        if status in _BUSY:
            headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
        if status is HTTPStatus.METHOD_NOT_ALLOWED and route is not None:
            headers.append((b"allow", route.verb.encode()))
        await answer(exchange.send, status, self._error(status, message), headers=headers)


class _Exchange:
    """What a request was answered, and the hint to go elsewhere while the server drains."""

    def __init__(self, send: Send, life: Lifecycle) -> None:
        self._send = send
        self._life = life
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: Headers = list(message.get("headers", ()))
            if self.status == HTTPStatus.TOO_MANY_REQUESTS and b"retry-after" not in dict(headers):
                headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
            if self._life.is_draining:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


class HttpServer:
    """A listener that leaves signals alone and stops without losing a request."""

    def __init__(self, app: App, *, port: int, settings: Settings, error: ErrorBody = json_error) -> None:
        protocol = functools.partial(Connection, limits=settings.limits, error=error)
        self._server = _SignalFreeServer(
            uvicorn.Config(
                app,
                host="0.0.0.0",  # noqa: S104 - a pod's server is for other pods
                port=port,
                http=cast("type[asyncio.Protocol]", protocol),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                # Here, not in the guard, so that answers to broken HTTP have them too.
                headers=[("x-model-version", settings.version), ("x-model-revision", settings.revision)],
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(settings.timeout_seconds)),
            )
        )

    async def serve(self) -> None:
        """Serve until told to stop."""
        allow_files()
        await self._server.serve()

    async def stop(self) -> None:
        """Close the listener, let connections that were just accepted speak, then close the idle ones."""
        for server in self._server.servers:
            server.close()
        await asyncio.sleep(_LINGER_SECONDS)
        self._server.should_exit = True


class _SignalFreeServer(uvicorn.Server):
    """A uvicorn that leaves signals alone: it would stop accepting the moment SIGTERM arrives."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class MetricsApp:
    """The application of the metrics port: what was counted, and what the model takes and gives."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._signature: bytes | None = None

    def loaded(self, signature: Signature) -> None:
        """Have something to say of the model."""
        self._signature = json.dumps(signature.described()).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer one request."""
        if scope["path"] not in ("/metrics", "/signature"):
            await answer(send, HTTPStatus.NOT_FOUND, json_error(HTTPStatus.NOT_FOUND, "not found"))
        elif scope["method"] != "GET":
            status = HTTPStatus.METHOD_NOT_ALLOWED
            await answer(
                send, status, json_error(status, "method: expected GET"), headers=[(b"allow", b"GET")]
            )
        elif scope["path"] == "/metrics":
            await answer(send, HTTPStatus.OK, self._metrics.exposition(), content_type=CONTENT_TYPE)
        elif self._signature is None:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            await answer(send, status, json_error(status, "the model is not loaded yet"))
        else:
            await answer(send, HTTPStatus.OK, self._signature)


async def answer(
    send: Send,
    status: HTTPStatus,
    body: bytes,
    *,
    content_type: str = "application/json",
    headers: Headers | None = None,
) -> None:
    """Send a whole answer."""
    start: Headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *(headers or ()),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": start})
    await send({"type": "http.response.body", "body": body})


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read to the application; after that it hears of the client as before."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
