"""MLServer's gRPC side: strict about input, closed to administration, and shut down without losing a call.

gRPC's own ``stop`` refuses calls that are already on their way. A connection that reaches its *maximum age*,
in contrast, is told to go (HTTP/2 GOAWAY) and loses nothing: calls that cross the notice are still served. So
connections live a little shorter than the drain, and by its end every client has moved by itself. It also
spreads long-lived clients over the pods that are there.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio
from mlserver.errors import MLServerError
from mlserver.grpc import GRPCServer
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.grpc.interceptors import PromServerInterceptor
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import STATUS_CODE_MAPPING

from rollway_serving.errors import InputError
from rollway_serving.mlserver_model import check_request_id
from rollway_serving.signature import DATATYPES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rollway_serving.lifecycle import Lifecycle
    from rollway_serving.settings import Settings

_REMOVAL_SECONDS = 1.5
"""By then a pod that is to go gets no new connections."""
_AGE_JITTER = 1.1
"""gRPC spreads the maximum age by a tenth in either direction."""
_log = logging.getLogger(__name__)


def connection_age(drain_seconds: float) -> float:
    """The longest life of a connection, such that one opened late in the drain still ends within it.

    >>> round(connection_age(5.0), 2)
    3.18
    >>> connection_age(0.0)
    1.0
    """
    return max(1.0, (drain_seconds - _REMOVAL_SECONDS) / _AGE_JITTER)


class Servicer(InferenceServicer):  # type: ignore[misc]
    """MLServer's service for this one model."""

    def __init__(self, *arguments: Any, rollway: Settings, life: Lifecycle) -> None:
        super().__init__(*arguments)
        self._rollway = rollway
        self._life = life

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:  # noqa: ARG002, N802
        """Ready means that new clients are welcome."""
        return pb.ServerReadyResponse(ready=self._life.accepts_traffic)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        """The same for the model, which must be ours."""
        await self._check_model(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=self._life.accepts_traffic)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:  # noqa: N802
        """What the model takes and gives."""
        await self._check_model(request.name, request.version, context)
        await self._check_serving(context)
        return await super().ModelMetadata(request, context)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:  # noqa: N802
        """Predict."""
        await self._check_model(request.model_name, request.model_version, context)
        await self._check_serving(context)
        try:
            check_request_id(request.id)
            check_raw(request)
            payload = self._InsertHeaders(request, context)
            result = await self._data_plane.infer(payload, request.model_name, request.model_version)
            self._SetTrailingMetadata(result, context)
            return ModelInferResponseConverter.from_types(result, use_raw=bool(request.raw_input_contents))
        except InputError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except MLServerError as error:
            code = STATUS_CODE_MAPPING.get(int(error.status_code), grpc.StatusCode.UNAVAILABLE)
            await context.abort(code, str(error))
        except aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - the client gets no traceback, the log does
            _log.exception("a call failed in a way that nobody foresaw")
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")

    async def ModelStreamInfer(self, requests_stream: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ARG002, N802
        """MLServer's own streaming extension is closed."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "streaming is not supported")
        yield  # makes this the asynchronous generator that gRPC expects

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """A client may not list models."""
        await _closed(context)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """A client may not load models."""
        await _closed(context)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """A client may not unload models."""
        await _closed(context)

    async def _check_model(self, name: str, version: str, context: Any) -> None:
        if name != self._rollway.name or version not in ("", self._rollway.version):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model or version")

    async def _check_serving(self, context: Any) -> None:
        if not self._life.serves:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the server is {self._life.phase.value}")


class GrpcServer(GRPCServer):  # type: ignore[misc]
    """MLServer's gRPC server with the strict service and short-lived connections."""

    def __init__(self, *arguments: Any, rollway: Settings, life: Lifecycle) -> None:
        super().__init__(*arguments)
        self._rollway = rollway
        self._life = life

    def _create_server(self) -> aio.Server:
        identity = (
            ("x-model-version", self._rollway.version),
            ("x-model-revision", self._rollway.revision),
        )
        age = round(1000 * connection_age(self._rollway.drain_seconds))
        self._server = aio.server(
            interceptors=[Identify(identity), PromServerInterceptor(enable_handling_time_histogram=True)],
            options=[("grpc.so_reuseport", 0), ("grpc.max_connection_age_ms", age)],
        )
        servicer = Servicer(
            self._data_plane, self._model_repository_handlers, rollway=self._rollway, life=self._life
        )
        add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(f"{self._settings.host}:{self._settings.grpc_port}")
        return self._server

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002 - MLServer's signature
        """Finish what is running; clients have left by now."""
        await self._server.stop(grace=self._rollway.timeout_seconds)


class Identify(aio.ServerInterceptor):  # type: ignore[misc]
    """Sends the version and revision as initial metadata of every call, failed ones too."""

    def __init__(self, identity: tuple[tuple[str, str], ...]) -> None:
        self._identity = identity

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Wrap the handler of a call that wants one answer; others are refused anyway."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        answer = handler.unary_unary

        async def identified(request: Any, context: Any) -> Any:
            await context.send_initial_metadata(self._identity)
            return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(
            identified,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def check_raw(request: pb.ModelInferRequest) -> None:
    """Check that raw contents are as long as their shapes say, before anything unpacks them."""
    for tensor in request.inputs:
        if tensor.datatype not in DATATYPES:
            known = ", ".join(DATATYPES)
            raise InputError(repr(tensor.name[:64]), f"a datatype of {known}", repr(tensor.datatype[:64]))
    raw = request.raw_input_contents
    if not raw:
        return
    if len(raw) != len(request.inputs):
        raise InputError("raw_input_contents", f"{len(request.inputs)} entries", str(len(raw)))
    for tensor, contents in zip(request.inputs, raw, strict=True):
        _check_raw_tensor(tensor, contents)


def _check_raw_tensor(tensor: Any, contents: bytes) -> None:
    field = repr(tensor.name[:64])
    if tensor.HasField("contents"):
        raise InputError(field, "raw or typed contents", "both")
    if not tensor.shape or min(tensor.shape) < 0:
        raise InputError(field, "a shape without negative sizes", str(list(tensor.shape)))
    count = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        if _count_strings(contents) != count:
            raise InputError(field, f"{count} strings with their lengths", "other raw contents")
    elif len(contents) != count * DATATYPES[tensor.datatype].itemsize:
        raise InputError(field, f"{count} {tensor.datatype} values", f"{len(contents)} bytes")


def _count_strings(raw: bytes) -> int:
    """Count length-prefixed strings; -1 if they do not end where the contents end."""
    offset = count = 0
    while offset + 4 <= len(raw):
        offset += 4 + int.from_bytes(raw[offset : offset + 4], "little")
        count += 1
    return count if offset == len(raw) else -1


async def _closed(context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the model repository API is closed")
