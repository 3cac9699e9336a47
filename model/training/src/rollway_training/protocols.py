"""The three ways to ask a served model, each as one coroutine: REST V2, gRPC V2 and MLflow's ``/invocations``.

Nothing here retries what a server may have seen: one question, one answer or one failure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as v2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx
    import pandas as pd

Metadata = tuple[tuple[str, str], ...]
"""What is sent with a call beside its message."""

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_VERSION_HEADER = "x-model-version"
_REVISION_HEADER = "x-model-revision"
_RAW_TYPES = {"BOOL": "?", "INT32": "<i4", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the headers that name the version, the body's own word for it, and the numbers in row order."""

    status: int | str
    version: str | None = None
    revision: str | None = None
    model_version: str | None = None
    outputs: list[float] | None = None
    error: str | None = None


async def rest_v2(client: httpx.AsyncClient, model: str, rows: pd.DataFrame) -> Answer:
    """Ask by ``POST /v2/models/{model}/infer``, one input tensor a column."""
    inputs = [
        {"name": str(name), "datatype": "FP64", "shape": [len(rows)], "data": column.tolist()}
        for name, column in rows.items()
    ]
    response = await client.post(f"/v2/models/{model}/infer", json={"inputs": inputs})
    if response.status_code != 200:
        return _refused(response)
    body = response.json()
    return Answer(
        status=response.status_code,
        version=response.headers.get(_VERSION_HEADER),
        revision=response.headers.get(_REVISION_HEADER),
        model_version=body.get("model_version"),
        outputs=_flat(output["data"] for output in body["outputs"]),
    )


async def invocations(client: httpx.AsyncClient, rows: pd.DataFrame) -> Answer:
    """Ask by ``POST /invocations`` with ``dataframe_split``."""
    frame = {"columns": list(rows.columns), "data": rows.to_numpy().tolist()}
    response = await client.post("/invocations", json={"dataframe_split": frame})
    if response.status_code != 200:
        return _refused(response)
    return Answer(
        status=response.status_code,
        version=response.headers.get(_VERSION_HEADER),
        revision=response.headers.get(_REVISION_HEADER),
        outputs=_flat([response.json()["predictions"]]),
    )


async def grpc_v2(
    channel: grpc.aio.Channel, model: str, rows: pd.DataFrame, metadata: Metadata = ()
) -> Answer:
    """Ask by ``inference.GRPCInferenceService/ModelInfer``; a Gateway chooses the model by the metadata."""
    infer = channel.unary_unary(
        _INFER,
        request_serializer=v2.ModelInferRequest.SerializeToString,
        response_deserializer=v2.ModelInferResponse.FromString,
    )
    request = v2.ModelInferRequest(model_name=model)
    for name, column in rows.items():
        tensor = request.inputs.add(name=str(name), datatype="FP64", shape=[len(rows)])
        tensor.contents.fp64_contents.extend(column.tolist())
    call = infer(request, metadata=metadata)
    try:
        response = await call
        headers = dict(await call.initial_metadata())
    except grpc.aio.AioRpcError as error:
        told = {**dict(error.initial_metadata()), **dict(error.trailing_metadata())}
        return Answer(
            status=error.code().name,
            version=_text(told, _VERSION_HEADER),
            revision=_text(told, _REVISION_HEADER),
            error=error.details(),
        )
    return Answer(
        status="OK",
        version=_text(headers, _VERSION_HEADER),
        revision=_text(headers, _REVISION_HEADER),
        model_version=response.model_version,
        outputs=_flat(_grpc_outputs(response)),
    )


def channel(address: str) -> grpc.aio.Channel:
    """Open a channel that shares no connection with another and passes no proxy.

    gRPC's transparent retries stay as every client has them. They send again only a call that has not left this
    process when the server says that it takes no more calls on the connection, which all servers say now and then.
    """
    return grpc.aio.insecure_channel(
        address, options=(("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    )


def _refused(response: httpx.Response) -> Answer:
    try:
        error = str(response.json().get("error", response.text))
    except (json.JSONDecodeError, AttributeError):
        error = response.text
    return Answer(
        status=response.status_code,
        version=response.headers.get(_VERSION_HEADER),
        revision=response.headers.get(_REVISION_HEADER),
        error=error[:500],
    )


def _grpc_outputs(response: Any) -> Iterable[Any]:
    if response.raw_output_contents:
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            yield np.frombuffer(raw, dtype=_RAW_TYPES[output.datatype]).tolist()
        return
    for output in response.outputs:
        for _, values in output.contents.ListFields():
            yield list(values)


def _flat(outputs: Iterable[Any]) -> list[float]:
    return [float(value) for output in outputs for value in np.ravel(np.asarray(output, dtype=float))]


def _text(headers: Mapping[str, str | bytes], name: str) -> str | None:
    value = headers.get(name)
    return value.decode() if isinstance(value, bytes) else value
