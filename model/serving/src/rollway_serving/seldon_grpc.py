"""seldon-core's gRPC side: what it answers to a whole message, by grpc.aio.

seldon-core's own servicer answers every mistake with UNKNOWN and a traceback in the log. Here messages are parsed
on the place that the admission gives, so that one that cannot be parsed is the client's mistake like any other, and
the services for graphs of components (``Router``, ``Combiner``, …) do not exist.
"""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc import aio
from grpc_reflection.v1alpha import reflection
from seldon_core import seldon_methods
from seldon_core.proto import prediction_pb2 as pb
from seldon_core.utils import json_to_seldon_model_metadata

from rollway_serving.errors import InputError
from rollway_serving.rpc import CallGuard, options
from rollway_serving.seldon_component import GRPC_FEEDBACK, GRPC_PREDICT, began

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rollway_serving.lifecycle import Lifecycle
    from rollway_serving.limits import Admission
    from rollway_serving.metrics import Metrics
    from rollway_serving.seldon_component import Component, Rewards
    from rollway_serving.settings import Settings

    Handler = Callable[[bytes, Any], Awaitable[bytes]]


class GrpcServer:
    """The gRPC server of one model."""

    def __init__(self, settings: Settings, life: Lifecycle, admission: Admission, metrics: Metrics) -> None:
        self._settings = settings
        self._life = life
        self._admission = admission
        self._metrics = metrics

    def loaded(self, component: Component, rewards: Rewards) -> None:
        """Have a model to ask; until then no call gets as far."""
        self._component = component
        self._rewards = rewards

    async def serve(self) -> None:
        """Serve until stopped."""
        predict = self._unary(pb.SeldonMessage, self._predict)
        feedback = self._unary(pb.Feedback, self._feedback)
        services: dict[str, dict[str, Handler]] = {
            "seldon.protos.Seldon": {
                "Predict": predict,
                "SendFeedback": feedback,
                "ModelMetadata": self._unary(pb.SeldonModelMetadataRequest, self._metadata),
            },
            "seldon.protos.Model": {
                "Predict": predict,
                "SendFeedback": feedback,
                "Metadata": self._unary(Empty, self._metadata),
            },
            # Where Seldon's own client sends feedback.
            "seldon.protos.Generic": {"SendFeedback": feedback},
        }
        counted = {
            f"/{service}/{method}": GRPC_PREDICT if method == "Predict" else GRPC_FEEDBACK
            for service, methods in services.items()
            for method in methods
            if "etadata" not in method
        }
        self._server = aio.server(
            interceptors=[CallGuard(self._settings, counted, self._admission, self._metrics)],
            options=options(self._settings),
        )
        for service, methods in services.items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(handler, request_deserializer=bytes)
                for name, handler in methods.items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        reflection.enable_server_reflection((*services, reflection.SERVICE_NAME), self._server)
        self._server.add_insecure_port(f"0.0.0.0:{self._settings.grpc_port}")
        await self._server.start()
        await self._server.wait_for_termination()

    async def stop(self) -> None:
        """Finish what is running; clients have left by now."""
        await self._server.stop(grace=self._settings.timeout_seconds)

    def _unary(self, kind: Any, answer: Callable[[Any], Any]) -> Handler:
        """Make a handler of bytes: parsed, answered and written on one thread."""

        def work(request: bytes) -> bytes:
            return bytes(answer(_parsed(kind, request)).SerializeToString())

        async def handle(request: bytes, context: Any) -> bytes:  # noqa: ARG001 - gRPC's signature
            self._life.check_serves()
            began.set(time.monotonic())
            answered: bytes = await self._admission.run_async(contextvars.copy_context().run, work, request)
            return answered

        return handle

    def _predict(self, request: pb.SeldonMessage) -> pb.SeldonMessage:
        return self._component.predict_raw(request)

    def _feedback(self, request: pb.Feedback) -> pb.SeldonMessage:
        return seldon_methods.send_feedback(self._component, request, self._settings.name, self._rewards)

    def _metadata(self, request: Any) -> pb.SeldonModelMetadata:  # noqa: ARG002 - there is but one model
        return json_to_seldon_model_metadata(seldon_methods.init_metadata(self._component))


def _parsed(kind: Any, request: bytes) -> Any:
    try:
        return kind.FromString(request)
    except Exception as error:  # noqa: BLE001 - protobuf's pure Python lets all kinds through
        raise InputError("message", f"a {kind.DESCRIPTOR.full_name}", type(error).__name__) from None
