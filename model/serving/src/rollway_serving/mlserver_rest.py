"""MLServer's REST side, with a guard in front and a shutdown that loses nothing.

The guard sees every request before MLServer does. It refuses what must not reach MLServer (other models' names,
which would each become a metric series; compressed bodies, which MLServer would unpack without limit), and asks
clients to reconnect while the server drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from mlserver.rest import RESTServer
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from fastapi import FastAPI

    from rollway_serving.lifecycle import Lifecycle
    from rollway_serving.settings import Settings

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

_KEPT_ROUTES = frozenset(
    {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{model_name}",
        "/v2/models/{model_name}/ready",
        "/v2/models/{model_name}/infer",
        "/v2/models/{model_name}/versions/{model_version}",
        "/v2/models/{model_name}/versions/{model_version}/ready",
        "/v2/models/{model_name}/versions/{model_version}/infer",
    }
)
"""MLServer's other routes load and unload models, stream, or show a generic schema: they are left out."""

_MODEL_PATH = re.compile(r"/v2/models/(?P<name>[^/]*)(/versions/(?P<version>[^/]*))?(?P<rest>/.*)?")
_KEEP_ALIVE_SECONDS = 75
"""Longer than common clients keep an idle connection, so that they close it and no request meets a close."""
_LINGER_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Guard:
    """The ASGI application in front of MLServer's."""

    def __init__(self, app: App, settings: Settings, life: Lifecycle) -> None:
        self._app = app
        self._settings = settings
        self._life = life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._life.is_draining:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send_on, *refusal)
            return
        try:
            await self._app(scope, receive, send_on)
        except Exception:  # noqa: BLE001 - the client gets no traceback, the log does
            _log.exception("a request failed in a way that nobody foresaw")
            if not started:
                await _answer(send_on, HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")

    def _refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        path: str = scope["path"]
        model = _MODEL_PATH.fullmatch(path)
        if model and not self._is_ours(model["name"], model["version"]):
            return HTTPStatus.NOT_FOUND, "no such model or version"
        is_probe = path == "/v2/health/ready" or (model is not None and model["rest"] == "/ready")
        if is_probe and not self._life.accepts_traffic:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"the server is {self._life.phase.value}"
        asks_model = path == "/invocations" or model is not None
        if asks_model and not self._life.serves:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"the server is {self._life.phase.value}"
        names = dict(scope["headers"])
        if names.get(b"content-encoding", b"identity").lower() != b"identity":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding: expected none, got another"
        if b"inference-header-content-length" in names:
            return HTTPStatus.BAD_REQUEST, "the binary tensor extension is not supported over REST; use gRPC"
        return None

    def _is_ours(self, name: str, version: str | None) -> bool:
        return name == self._settings.name and version in (None, self._settings.version)


class RestServer(RESTServer):  # type: ignore[misc]
    """MLServer's REST server behind the guard."""

    def __init__(self, *arguments: Any, rollway: Settings, life: Lifecycle) -> None:
        super().__init__(*arguments)
        self._rollway = rollway
        self._life = life
        _narrow(self._app)

    async def start(self) -> None:
        """Serve until told to stop."""
        config = uvicorn.Config(
            Guard(self._app, self._rollway, self._life),
            host=self._settings.host,
            port=self._settings.http_port,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            # Here, not in the guard, so that uvicorn's own answers to broken HTTP have them too.
            headers=[
                ("x-model-version", self._rollway.version),
                ("x-model-revision", self._rollway.revision),
            ],
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(self._rollway.timeout_seconds)),
        )
        self._server = SignalFreeServer(config)
        await self._server.serve()

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002 - MLServer's signature
        """Close the listener, let connections that were just accepted speak, then close the idle ones."""
        for server in self._server.servers:
            server.close()
        await asyncio.sleep(_LINGER_SECONDS)
        self._server.should_exit = True


class SignalFreeServer(uvicorn.Server):
    """A uvicorn that leaves signals alone: it would stop accepting the moment SIGTERM arrives."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _narrow(app: FastAPI) -> None:
    """Keep only the routes that a served model needs, and give every error one form."""
    app.router.routes[:] = [
        route for route in app.router.routes if isinstance(route, APIRoute) and route.path in _KEPT_ROUTES
    ]
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    return _error(status, HTTPStatus(status).phrase.lower())


async def _invalid_request(_: Request, error: Exception) -> Response:
    details = error.errors() if isinstance(error, RequestValidationError) else []
    first: dict[str, Any] = dict(details[0]) if details else {"loc": ("body",), "msg": "invalid request"}
    if first.get("type") == "json_invalid":
        return _error(
            HTTPStatus.BAD_REQUEST, f"body: expected JSON, got an error: {first['ctx']['error']}"[:500]
        )
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return _error(HTTPStatus.BAD_REQUEST, f"{field[:200]}: {first['msg']}"[:500])


def _error(status: int, message: str) -> Response:
    return Response(json.dumps({"error": message}), status, media_type="application/json")


async def _answer(send: Send, status: HTTPStatus, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
