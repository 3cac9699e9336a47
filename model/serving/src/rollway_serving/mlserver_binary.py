"""V2's binary tensor extension over REST, which MLServer does not have.

The body is a JSON request of the length in ``Inference-Header-Content-Length``, then the bytes of each input that says
``binary_data_size`` in place of its data. Outputs travel the same way where the request says ``binary_data`` (or, for
all of them, ``binary_data_output``).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from mlserver import types
from mlserver.errors import MLServerError
from mlserver.utils import extract_headers, insert_headers
from pydantic import ValidationError

from rollway_serving import raw_tensor
from rollway_serving.errors import InputError
from rollway_serving.rest import answer, json_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlserver.handlers import DataPlane

    from rollway_serving.rest import App, Headers, Receive, Scope, Send
    from rollway_serving.settings import Settings

LENGTH = b"inference-header-content-length"
_MAX_DIGITS = 19


class BinaryTensors:
    """The application in front of MLServer's that answers what the extension is used for."""

    def __init__(self, app: App, data_plane: DataPlane, settings: Settings) -> None:
        self._app = app
        self._data_plane = data_plane
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on what is plain JSON."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if LENGTH not in headers or not scope["path"].endswith("/infer"):
            await self._app(scope, receive, send)
            return
        message = await receive()
        try:
            head, data = split(message["body"], headers[LENGTH])
            length, body, more = await self._infer(fill(head, data), headers)
        except InputError as error:
            await answer(send, error.status, json_error(error.status, str(error)))
        except MLServerError as error:
            status = HTTPStatus(error.status_code)
            await answer(send, status, json_error(status, str(error)))
        else:
            more.append((LENGTH, str(length).encode()))
            await answer(send, HTTPStatus.OK, body, content_type="application/octet-stream", headers=more)

    async def _infer(
        self, request: dict[str, Any], headers: dict[bytes, bytes]
    ) -> tuple[int, bytes, Headers]:
        try:
            payload = types.InferenceRequest.model_validate(request)
        except ValidationError as error:
            raise input_error(error.errors()[0]) from None
        insert_headers(
            payload, {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        )
        result = await self._data_plane.infer(payload, self._settings.name, self._settings.version)
        more = [(name.encode(), value.encode()) for name, value in (extract_headers(result) or {}).items()]
        head, data = drain(result.model_dump(exclude_none=True), wants_binary(request))
        return len(head), head + data, more


def split(body: bytes, length: bytes) -> tuple[dict[str, Any], bytes]:
    """Part the JSON request from the tensors' bytes."""
    field = LENGTH.decode()
    if not length.isdigit() or len(length) > _MAX_DIGITS or int(length) > len(body):
        raise InputError(
            field, f"a number up to the body's length, {len(body)}", repr(length.decode("latin-1")[:32])
        )
    try:
        head = orjson.loads(body[: int(length)])
    except orjson.JSONDecodeError as error:
        raise InputError("body", "JSON", str(error)) from None
    if not isinstance(head, dict) or not isinstance(head.get("inputs"), list):
        raise InputError("body", "an object with inputs", "something else")
    return head, body[int(length) :]


def fill(request: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Give each input that is bytes its values."""
    inputs = []
    for tensor in request["inputs"]:
        size = _parameter(tensor, "binary_data_size")
        if size is None:
            inputs.append(tensor)
            continue
        field = f"{str(tensor.get('name'))[:64]!r} binary_data_size"
        if "data" in tensor:
            raise InputError(field, "data or binary_data_size", "both")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(data):
            raise InputError(field, f"a number up to the {len(data)} bytes that follow", repr(size)[:32])
        inputs.append(_filled(tensor, data[:size]))
        data = data[size:]
    if data:
        raise InputError("body", "as many bytes as the inputs say", f"{len(data)} more")
    return request | {"inputs": inputs}


def drain(response: dict[str, Any], binary: Callable[[str], bool]) -> tuple[bytes, bytes]:
    """Take the values out of each output that is to be bytes."""
    parts = []
    for output in response["outputs"]:
        if binary(output["name"]):
            part = raw_tensor.pack(output["datatype"], output.pop("data"))
            output["parameters"] = (output.get("parameters") or {}) | {"binary_data_size": len(part)}
            parts.append(part)
    return orjson.dumps(response), b"".join(parts)


def wants_binary(request: dict[str, Any]) -> Callable[[str], bool]:
    """Say which outputs the client wants as bytes."""
    default = _parameter(request, "binary_data_output") is True
    outputs = request.get("outputs")
    wanted = {
        str(output.get("name")): _parameter(output, "binary_data")
        for output in (outputs if isinstance(outputs, list) else [])
        if isinstance(output, dict)
    }
    return lambda name: default if wanted.get(name) is None else wanted[name] is True


def input_error(first: Mapping[str, Any]) -> InputError:
    """Say in our words what pydantic found first."""
    field = ".".join(str(part) for part in first["loc"]) or "body"
    return InputError(field[:200], "what the protocol says", str(first["msg"])[:200])


def _filled(tensor: dict[str, Any], raw: bytes) -> dict[str, Any]:
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    field = f"{str(name)[:64]!r}"
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise InputError(field, "a name and a datatype", "others")
    if not isinstance(shape, list) or any(type(size) is not int for size in shape):
        raise InputError(field, "a shape of whole numbers", repr(shape)[:64])
    return tensor | {"data": raw_tensor.unpack(name, datatype, shape, raw)}


def _parameter(owner: Any, name: str) -> Any:
    parameters = owner.get("parameters") if isinstance(owner, dict) else None
    return parameters.get(name) if isinstance(parameters, dict) else None
