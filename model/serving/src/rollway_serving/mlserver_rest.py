"""MLServer's REST side: its own routes that a served model needs, behind the guard, with one form of error."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from mlserver.rest import RESTServer
from starlette.exceptions import HTTPException

from rollway_serving.metrics import Method
from rollway_serving.mlserver_binary import BinaryTensors
from rollway_serving.rest import Guard, HttpServer, Route, json_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from rollway_serving.lifecycle import Lifecycle
    from rollway_serving.limits import Admission
    from rollway_serving.metrics import Metrics
    from rollway_serving.settings import Settings

INFER = Method("rest", "infer", "predictions")
INVOCATIONS = Method("rest", "invocations", "predictions")
_KEPT_ROUTES = frozenset(
    {
        "/v2",
        "/v2/models/{model_name}",
        "/v2/models/{model_name}/infer",
        "/v2/models/{model_name}/versions/{model_version}",
        "/v2/models/{model_name}/versions/{model_version}/infer",
    }
)
"""MLServer's other routes load and unload models, stream, or show a generic schema: they are left out.

Its probes answer without the body that the protocol describes and KServe's client reads: the guard answers those."""


_FIXED = {
    "/v2": Route(),
    "/v2/health/live": Route(says=b'{"live": true}'),
    "/v2/health/ready": Route(is_probe=True, says=b'{"ready": true}'),
    "/ping": Route(is_probe=True),
    "/health": Route(is_probe=True),
    "/version": Route(needs_model=True),
    "/invocations": Route(verb="POST", method=INVOCATIONS, needs_model=True),
}
_MODEL_PATH = re.compile(r"/v2/models/(?P<name>[^/]*)(/versions/(?P<version>[^/]*))?(?P<rest>/[a-z]+)?")


def routing(name: str, version: str) -> Callable[[str], Route | None]:
    """Find what a path may be asked; other models' names never reach MLServer."""
    of_the_model = {
        "": Route(needs_model=True),
        "/ready": Route(is_probe=True, says=json.dumps({"name": name, "ready": True}).encode()),
        "/infer": Route(verb="POST", method=INFER, needs_model=True),
    }

    def route(path: str) -> Route | None:
        model = _MODEL_PATH.fullmatch(path)
        if model is None:
            return _FIXED.get(path)
        found = of_the_model.get(model["rest"] or "")
        if found is not None and (model["name"] != name or model["version"] not in (None, version)):
            return Route(method=found.method, unknown=True)
        return found

    return route


class RestServer(RESTServer):  # type: ignore[misc]
    """MLServer's REST server behind the guard."""

    def __init__(
        self, *arguments: Any, rollway: Settings, life: Lifecycle, admission: Admission, metrics: Metrics
    ) -> None:
        super().__init__(*arguments)
        _narrow(self._app)
        guard = Guard(
            BinaryTensors(self._app, self._data_plane, rollway),
            route=routing(rollway.name, rollway.version),
            settings=rollway,
            life=life,
            admission=admission,
            metrics=metrics,
        )
        self._listener = HttpServer(guard, port=rollway.http_port, settings=rollway)

    async def start(self) -> None:
        """Serve until told to stop."""
        await self._listener.serve()

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002 - MLServer's signature
        """Stop without losing a request."""
        await self._listener.stop()


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
    return Response(json_error(HTTPStatus(status), message), status, media_type="application/json")
