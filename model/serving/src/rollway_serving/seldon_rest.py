"""seldon-core's REST side: its Flask application, for the requests that the guard lets through.

Flask runs on the thread of a place that the admission gives, so that it parses, predicts and writes within the
deadline. Probes and metadata, which ask the model nothing, run at once.
"""

from __future__ import annotations

import contextvars
import io
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson
from flask import Flask, Response
from flask.json.provider import JSONProvider
from seldon_core.flask_utils import SeldonMicroserviceException
from seldon_core.wrapper import get_rest_microservice
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WsgiResponse

from rollway_serving.errors import InputError, ServingError
from rollway_serving.rest import Route, answer
from rollway_serving.seldon_component import REST_FEEDBACK, REST_PREDICT, began
from rollway_serving.seldon_messages import status

if TYPE_CHECKING:
    from rollway_serving.limits import Admission
    from rollway_serving.rest import Receive, Scope, Send
    from rollway_serving.seldon_component import Component, Rewards

_LIVE = "/health/ping"
_PREDICT = Route("POST", method=REST_PREDICT, needs_model=True)
_FEEDBACK = Route("POST", method=REST_FEEDBACK, needs_model=True)
_READY = Route(is_probe=True)
_READ = Route(needs_model=True)
_ROUTES = {
    "/api/v1.0/predictions": _PREDICT,
    "/api/v0.1/predictions": _PREDICT,
    "/predict": _PREDICT,
    "/api/v1.0/feedback": _FEEDBACK,
    "/api/v0.1/feedback": _FEEDBACK,
    "/send-feedback": _FEEDBACK,
    _LIVE: Route(),
    "/health/status": _READY,
    "/api/v1.0/health/status": _READY,
    "/metadata": _READ,
    "/api/v1.0/metadata": _READ,
    "/seldon.json": _READ,
}
"""seldon-core's other routes are for graphs of components: they are left out."""

_REASONS = {
    HTTPStatus.BAD_REQUEST: "MICROSERVICE_BAD_DATA",
    HTTPStatus.INTERNAL_SERVER_ERROR: "MICROSERVICE_INTERNAL_ERROR",
}
_MAX_FORM_FIELDS = 10
_TOO_DEEP = "body: expected at most some hundred nested lists and objects, got more"
"""protobuf reads them by recursion; a model's own failure of that kind is not seen here."""
_log = logging.getLogger(__name__)


def route(path: str) -> Route | None:
    """What may be asked at a path."""
    return _ROUTES.get(path)


def error_body(code: HTTPStatus, message: str) -> bytes:
    """An error as Seldon writes it; where Seldon has no word for the reason it is the status's name."""
    return orjson.dumps(status(message, _REASONS.get(code, f"MICROSERVICE_{code.name}")))


def application(component: Component, rewards: Rewards) -> Flask:
    """seldon-core's Flask application with our JSON and our errors."""
    logging.getLogger("seldon_core").setLevel(logging.WARNING)  # it logs Flask's whole configuration
    app: Flask = get_rest_microservice(component, rewards)
    app.json = _Json(app)
    app.register_error_handler(ServingError, lambda error: _error(error.status, str(error)))
    app.register_error_handler(
        SeldonMicroserviceException, lambda error: _error(HTTPStatus(error.status_code), error.message)
    )
    app.register_error_handler(HTTPException, lambda error: _error(HTTPStatus(error.code), error.name))
    app.register_error_handler(RecursionError, lambda _: _error(HTTPStatus.BAD_REQUEST, _TOO_DEEP))
    app.register_error_handler(Exception, _unforeseen)
    return app


class FlaskBridge:
    """The ASGI application that has Flask answer; before the model is loaded only the liveness probe gets here."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._app: Flask | None = None

    def loaded(self, app: Flask) -> None:
        """Have a model to ask."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if self._app is None:
            await answer(send, HTTPStatus.OK, b"pong", content_type="text/plain; charset=utf-8")
            return
        body: bytes = (await receive())["body"]
        try:
            if scope["method"] == "POST":
                began.set(time.monotonic())
                work = contextvars.copy_context().run
                given = await self._admission.run_async(work, _ask, self._app, path, _json(scope, body))
            else:
                given = _ask(self._app, path, None)
        except ServingError as error:
            await answer(send, error.status, error_body(error.status, str(error)))
            return
        await answer(send, HTTPStatus(given.status_code), given.data, content_type=given.content_type)


def _ask(app: Flask, path: str, body: bytes | None) -> WsgiResponse:
    """Call Flask as a WSGI server does."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET" if body is None else "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body or b"")),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    return WsgiResponse.from_app(app.wsgi_app, environ, buffered=True)


def _json(scope: Scope, body: bytes) -> bytes:
    """The JSON of a request; Seldon's client puts it into a form where it asks a pod directly."""
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    kind = kinds[0].decode("latin-1").partition(";")[0].strip().lower() if kinds else "application/json"
    if kind == "application/json":
        return body
    if kind != "application/x-www-form-urlencoded":
        raise MediaTypeError("content-type: expected application/json, or a form with the field json")
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=_MAX_FORM_FIELDS)
    except ValueError as error:
        raise InputError("body", "JSON, or a form with the field json", str(error)[:64]) from None
    if len(fields.get("json", ())) != 1:
        raise InputError("json", "this field once in the form", str(len(fields.get("json", ()))))
    return fields["json"][0].encode()


class MediaTypeError(ServingError):
    """A body of a kind that is not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "INVALID_ARGUMENT"


class _Json(JSONProvider):
    """Strict and fast JSON: an object, in which what is no number in JSON is none."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        try:
            found = orjson.loads(s)
        except orjson.JSONDecodeError as error:
            raise InputError("body", "JSON", str(error)) from None
        if not isinstance(found, dict):
            raise InputError("body", "an object", "something else")
        return found


def _error(code: HTTPStatus, message: str) -> Response:
    return Response(error_body(code, message), code, mimetype="application/json")


def _unforeseen(_: Exception) -> Response:
    _log.exception("a request failed in a way that nobody foresaw")
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
