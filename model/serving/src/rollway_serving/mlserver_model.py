"""Rollway's model as MLServer wants it: V2 tensors in and out, and MLflow's scoring routes beside them."""

from __future__ import annotations

import asyncio
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from mlserver import MLModel, ModelSettings, types
from mlserver.errors import MLServerError
from mlserver.handlers import custom_handler

from rollway_serving import gates, invocations
from rollway_serving.errors import InputError, ServingError
from rollway_serving.metrics import asked
from rollway_serving.model import Model
from rollway_serving.signature import Tensor, datatype_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollway_serving.limits import Admission
    from rollway_serving.metrics import Metrics
    from rollway_serving.settings import Places, Settings
    from rollway_serving.signature import Spec

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

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """Answer one V2 request, from REST or gRPC."""
        model = self._loaded()
        try:
            check_request_id(payload.id)
            rows = model.signature.from_tensors([_tensor(tensor) for tensor in payload.inputs])
            outputs = model.signature.named_outputs(await self._call(model.predict, rows))
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
            result = await self._call(lambda: model.predict(read(body, model.signature)))
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
        return model

    def _loaded(self) -> Model:
        if self._model is None:
            raise MLServerError("the model is not ready yet", HTTPStatus.SERVICE_UNAVAILABLE)
        return self._model

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the model where there is a place for it."""
        began = time.monotonic()
        result = await self._admission.run_async(function, *arguments)
        self._metrics.predicted(asked.get(), rows_of(result), time.monotonic() - began)
        return result


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
