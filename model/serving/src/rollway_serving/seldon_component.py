"""Rollway's model as seldon-core wants it: a component that answers whole messages, from REST and from gRPC."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from prometheus_client import Counter, Gauge
from seldon_core.proto import prediction_pb2 as pb
from seldon_core.user_model import SeldonComponent
from seldon_core.utils import array_to_grpc_datadef

from rollway_serving.errors import InputError
from rollway_serving.metrics import Method, asked
from rollway_serving.seldon_messages import Answer, Request
from rollway_serving.signature import rows_of

if TYPE_CHECKING:
    from rollway_serving.metrics import Metrics
    from rollway_serving.model import Model
    from rollway_serving.settings import Settings
    from rollway_serving.signature import Spec

REST_PREDICT = Method("rest", "predictions", "predictions")
REST_FEEDBACK = Method("rest", "feedback", "feedback")
GRPC_PREDICT = Method("grpc", "predictions", "/seldon.protos.Seldon/Predict")
GRPC_FEEDBACK = Method("grpc", "feedback", "/seldon.protos.Seldon/SendFeedback")
METHODS = (REST_PREDICT, REST_FEEDBACK, GRPC_PREDICT, GRPC_FEEDBACK)

began: ContextVar[float] = ContextVar("began")
"""When the request began to wait for a place, by the monotonic clock."""


class Component(SeldonComponent):  # type: ignore[misc]
    """One model with the answers that seldon-core's routes ask a component for."""

    def __init__(self, model: Model, settings: Settings, metrics: Metrics) -> None:
        super().__init__()
        self._model = model
        self._settings = settings
        self._metrics = metrics
        self._path = {settings.name: f"{settings.model_name}:{settings.version}"}

    def predict_raw(self, message: Any) -> Any:
        """Answer a message of either kind in the same kind."""
        signature = self._model.signature
        called = isinstance(message, pb.SeldonMessage)
        request = Request.read(_as_json(message) if called else message, signature)
        result = self._model.predict(request.rows)
        self._metrics.called(rows_of(request.rows))
        self._metrics.predicted(asked.get(), time.monotonic() - began.get())
        answer = Answer.of(result, request.form, signature)
        meta = {"puid": request.puid, "tags": request.tags, "requestPath": self._path}
        meta = {name: value for name, value in meta.items() if value}
        if not called:
            return {"data": answer.as_json(), "meta": meta}
        made = pb.SeldonMessage(
            data=array_to_grpc_datadef(answer.form, answer.array, answer.names),
            meta=pb.Meta(puid=request.puid, requestPath=self._path),
        )
        for name, value in message.meta.tags.items():
            made.meta.tags[name].CopyFrom(value)
        return made

    def send_feedback_raw(self, feedback: pb.Feedback) -> pb.SeldonMessage:
        """Take what a client thinks of an answer: its reward is counted, by seldon-core's routes."""
        if not math.isfinite(feedback.reward):
            raise InputError("reward", "a finite number", str(feedback.reward))
        return pb.SeldonMessage(meta=pb.Meta(requestPath=self._path))

    def health_status(self) -> str:
        """What probes read; that it may be asked at all is the server's decision."""
        return "healthy"

    def init_metadata(self) -> dict[str, Any]:
        """What the model is, takes and gives."""
        signature = self._model.signature
        return {
            "name": self._settings.name,
            "versions": [self._settings.version],
            "platform": self._model.mlmodel.flavor,
            "inputs": [_tensor(spec) for spec in signature.inputs],
            "outputs": [_tensor(spec) for spec in signature.outputs],
            "custom": {"model": self._settings.model_name, "revision": self._settings.revision},
        }


class Rewards:
    """The only thing that seldon-core itself counts here, in the server's own registry.

    It stands for seldon-core's ``SeldonMetrics``, which starts a process and lets clients name series.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._feedback = Counter(
            "seldon_api_model_feedback", "Answers that a client judged.", registry=metrics.registry
        )
        # Seldon's name says counter, but a reward may be negative.
        self._reward = Gauge(
            "seldon_api_model_feedback_reward_total", "The rewards' sum.", registry=metrics.registry
        )

    def update_reward(self, reward: float) -> None:
        """Count one judgement."""
        if math.isfinite(reward):
            self._feedback.inc()
            self._reward.inc(reward)

    def update(self, custom_metrics: list[dict[str, Any]], method: str) -> None:
        """Take no metrics out of messages."""


def _as_json(message: pb.SeldonMessage) -> dict[str, Any]:
    """The message as its JSON form would decode, without a detour through text."""
    payload = message.WhichOneof("data_oneof")
    meta = {"puid": message.meta.puid}
    if payload != "data":
        return {"meta": meta} | ({payload: None} if payload else {})
    data: dict[str, Any] = {"names": list(message.data.names)}
    form = message.data.WhichOneof("data_oneof")
    if form == "tensor":
        tensor = message.data.tensor
        data[form] = {"shape": list(tensor.shape), "values": list(tensor.values)}
    elif form == "ndarray":
        try:
            data[form] = MessageToDict(message.data.ndarray)
        except (ValueError, RecursionError) as error:
            raise InputError("data.ndarray", "lists of finite numbers and texts", str(error)[:64]) from None
    elif form:
        data[form] = None
    return {"meta": meta, "data": data}


def _tensor(spec: Spec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
