"""MLServer's gRPC side: strict about input, closed to administration, and shut down without losing a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio
from mlserver.errors import MLServerError
from mlserver.grpc import GRPCServer
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import STATUS_CODE_MAPPING

from rollway_serving import raw_tensor
from rollway_serving.errors import InputError, ServingError, UnknownModelError
from rollway_serving.metrics import Method
from rollway_serving.mlserver_model import check_request_id
from rollway_serving.rpc import CallGuard, end, options
from rollway_serving.signature import DATATYPES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rollway_serving.lifecycle import Lifecycle
    from rollway_serving.limits import Admission
    from rollway_serving.metrics import Metrics
    from rollway_serving.settings import Settings

INFER = Method("grpc", "infer", "/inference.GRPCInferenceService/ModelInfer")


class Servicer(InferenceServicer):  # type: ignore[misc]
    """MLServer's service for this one model."""

    def __init__(self, *arguments: Any, rollway: Settings, life: Lifecycle) -> None:
        super().__init__(*arguments)
        self._rollway = rollway
        self._life = life

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:  # noqa: ARG002, N802
        """Ready means that new clients are welcome."""
        return pb.ServerReadyResponse(ready=self._life.accepts_traffic)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:  # noqa: ARG002, N802
        """The same for the model, which must be ours."""
        self._check_model(request.name, request.version)
        return pb.ModelReadyResponse(ready=self._life.accepts_traffic)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:  # noqa: N802
        """What the model takes and gives."""
        self._check_model(request.name, request.version)
        self._life.check_serves()
        return await super().ModelMetadata(request, context)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:  # noqa: N802
        """Predict."""
        self._check_model(request.model_name, request.model_version)
        self._life.check_serves()
        check_request_id(request.id)
        check_raw(request)
        payload = self._InsertHeaders(request, context)
        try:
            result = await self._data_plane.infer(payload, request.model_name, request.model_version)
        except MLServerError as error:
            if isinstance(error.__cause__, ServingError):
                raise error.__cause__ from None
            code = STATUS_CODE_MAPPING.get(int(error.status_code), grpc.StatusCode.UNAVAILABLE)
            await end(context, code, str(error))
        self._SetTrailingMetadata(result, context)
        return ModelInferResponseConverter.from_types(result, use_raw=bool(request.raw_input_contents))

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

    def _check_model(self, name: str, version: str) -> None:
        if name != self._rollway.name or version not in ("", self._rollway.version):
            raise UnknownModelError("no such model or version")


class GrpcServer(GRPCServer):  # type: ignore[misc]
    """MLServer's gRPC server with the strict service and short-lived connections."""

    def __init__(
        self, *arguments: Any, rollway: Settings, life: Lifecycle, admission: Admission, metrics: Metrics
    ) -> None:
        super().__init__(*arguments)
        self._rollway = rollway
        self._life = life
        self._guard = CallGuard(rollway, {INFER.service: INFER}, admission, metrics)

    def _create_server(self) -> aio.Server:
        self._server = aio.server(interceptors=[self._guard], options=options(self._rollway))
        servicer = Servicer(
            self._data_plane, self._model_repository_handlers, rollway=self._rollway, life=self._life
        )
        add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(f"{self._settings.host}:{self._settings.grpc_port}")
        return self._server

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002 - MLServer's signature
        """Finish what is running; clients have left by now."""
        await self._server.stop(grace=self._rollway.timeout_seconds)


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
        came = str(len(raw))
        raise InputError("raw_input_contents", f"as many as inputs ({len(request.inputs)})", came)
    for tensor, contents in zip(request.inputs, raw, strict=True):
        if tensor.HasField("contents"):
            raise InputError(repr(tensor.name[:64]), "raw or typed contents", "both")
        raw_tensor.check(tensor.name, tensor.datatype, tensor.shape, contents)


async def _closed(context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the model repository API is closed")
