"""Rollway's model as MLServer wants it: V2 tensors in and out, and MLflow's scoring routes beside them."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from mlserver import MLModel, ModelSettings, types
from mlserver.errors import MLServerError
from mlserver.handlers import custom_handler

from rollway_serving import gates, invocations
from rollway_serving.batching import Joining
from rollway_serving.errors import InputError, ServingError
from rollway_serving.metrics import asked
from rollway_serving.model import Model
from rollway_serving.signature import Tensor, datatype_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rollway_serving.limits import Admission
    from rollway_serving.metrics import Metrics
    from rollway_serving.settings import Places, Settings
    from rollway_serving.signature import Signature, Spec

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,255}")


class RollwayModel(MLModel):  # type: ignore[misc]
    """One model, which works on threads of its own, so that probes always answer."""

    def __init__(
        self,
        model_settings: ModelSettings,
        settings: Settings,
        places: Places,
        admission: Admission,
        metrics: Metrics,
    ) -> None:
        super().__init__(model_settings)
        self._rollway = settings
        self._places = places
        self._admission = admission
        self._metrics = metrics
        self._model: Model | None = None

    async def load(self) -> bool:
        """Load the model and run its gates; only then may MLServer call it ready."""
        model = await asyncio.to_thread(self._load)
        self.inputs = [_metadata(spec) for spec in model.signature.inputs]
        self.outputs = [_metadata(spec) for spec in model.signature.outputs]
        self._settings.platform = model.mlmodel.flavor
        self._metrics.loaded(flavor=model.mlmodel.flavor)
        self._model = model
        return True

    def declared(self) -> Signature:
        """The signature that was logged with the loaded model; MLServer reads properties before there is one."""
        return self._loaded().declared

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """Answer one V2 request, from REST or gRPC."""
        model = self._loaded()
        try:
            check_request_id(payload.id)
            rows = model.signature.from_tensors([_tensor(tensor) for tensor in payload.inputs])
            outputs = model.signature.named_outputs(await self._ask(rows))
            wanted = [output.name for output in payload.outputs or []]
            unknown = [name for name in wanted if name not in {name for name, _ in outputs}]
            if unknown:
                known = ", ".join(name for name, _ in outputs)
                raise InputError("outputs", f"names of {known}", repr(unknown[0][:64]))
        except ServingError as error:
            raise as_mlserver_error(error) from error
        return types.InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                types.ResponseOutput(
                    name=name,
                    shape=list(array.shape),
                    datatype=datatype_of(array.dtype),
                    data=types.TensorData(invocations.plain(array.ravel())),
                )
                for name, array in outputs
                if not wanted or name in wanted
            ],
        )

    @custom_handler(rest_path="/invocations", rest_method="POST")  # type: ignore[untyped-decorator]
    async def invocations(self, request: Request) -> Response:
        """MLflow's scoring route."""
        model = self._loaded()
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind not in ("application/json", "text/csv"):
            raise MLServerError("content-type: expected application/json or text/csv, got another", 415)
        body = await request.body()
        read = invocations.parse_json if kind == "application/json" else invocations.parse_csv
        try:
            result = await self._read_and_ask(lambda: read(body, model.signature))
        except ServingError as error:
            raise as_mlserver_error(error) from error
        return Response(invocations.encode(model.signature, result), media_type="application/json")

    @custom_handler(rest_path="/ping", rest_method="GET")  # type: ignore[untyped-decorator]
    async def ping(self) -> Response:
        """MLflow's liveness route; the guard answers it while the model should not be asked."""
        return Response("\n", media_type="text/plain")

    @custom_handler(rest_path="/health", rest_method="GET")  # type: ignore[untyped-decorator]
    async def health(self) -> Response:
        """The same by its other name."""
        return Response("\n", media_type="text/plain")

    @custom_handler(rest_path="/version", rest_method="GET")  # type: ignore[untyped-decorator]
    async def mlflow_version(self) -> Response:
        """The version of MLflow that saved the model."""
        return Response(self._loaded().mlmodel.mlflow_version, media_type="text/plain")

    def _load(self) -> Model:
        first_pod = gates.is_first_pod(self._places)  # asked early: once it is fetched, the pin appears
        model = Model.load(self._places.model)
        gates.run(model, self._rollway, self._places, first_pod=first_pod)
        self._join(model)
        return model

    def _join(self, model: Model) -> None:
        """Let requests share calls, if that changes no answer."""
        batching = self._rollway.batching
        if batching is None or batching.max_batch_size == 1:
            return
        problem = gates.joining_problem(model, self._rollway, self._places)
        if problem:
            _log.warning("no batching: %s; each request is answered by a prediction of its own", problem)
            return
        _log.info(
            "requests share predictions of at most %d rows, and wait at most %g s for others",
            batching.max_batch_size,
            batching.max_latency_seconds,
        )
        self._admission.join(
            Joining(
                rows=batching.max_batch_size,
                seconds=batching.max_latency_seconds,
                alone=self._predict,
                together=self._predict_together,
            )
        )

    def _loaded(self) -> Model:
        if self._model is None:
            raise MLServerError("the model is not ready yet", HTTPStatus.SERVICE_UNAVAILABLE)
        return self._model

    async def _ask(self, rows: Any) -> Any:
        """Ask the model about rows where there is a place for it."""
        if self._admission.joins:
            return await self._timed(self._admission.join_async(rows))
        return await self._timed(self._admission.run_async(self._predict, rows))

    async def _read_and_ask(self, read: Callable[[], Any]) -> Any:
        """Do the same with what takes a while to be read: on a thread, too."""
        if self._admission.joins:
            return await self._timed(self._admission.read_and_join_async(read))
        return await self._timed(self._admission.run_async(lambda: self._predict(read())))

    async def _timed(self, answering: Awaitable[Any]) -> Any:
        began = time.monotonic()
        result = await answering
        self._metrics.predicted(asked.get(), time.monotonic() - began)
        return result

    def _predict(self, rows: Any) -> Any:
        result = self._loaded().predict(rows)
        self._metrics.called(rows_of(rows))
        return result

    def _predict_together(self, requests: Sequence[Any]) -> list[Any]:
        results = self._loaded().predict_together(requests)
        self._metrics.called(sum(map(rows_of, requests)))
        return results


def check_request_id(identifier: str | None) -> None:
    """Accept only an id that can stand in a header, since MLServer puts it into one."""
    if identifier and not _REQUEST_ID.fullmatch(identifier):
        raise InputError("id", "at most 256 printable ASCII characters", "others")


def as_mlserver_error(error: ServingError) -> MLServerError:
    """Say whose fault it was in MLServer's words, which become a REST status or its gRPC like."""
    return MLServerError(str(error), error.status)


def _tensor(tensor: types.RequestInput) -> Tensor:
    datatype = getattr(tensor.datatype, "value", tensor.datatype)
    return Tensor(name=tensor.name, datatype=datatype, shape=tensor.shape, data=tensor.data.root)


def _metadata(spec: Spec) -> types.MetadataTensor:
    return types.MetadataTensor(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))
