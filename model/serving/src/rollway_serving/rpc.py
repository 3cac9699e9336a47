"""The gRPC side of every runtime: what one connection may do, who answers, and how a call is counted.

gRPC's own ``stop`` refuses calls that are already on their way. A connection that reaches its *maximum age*,
in contrast, is told to go (HTTP/2 GOAWAY) and loses nothing: calls that cross the notice are still served. So
connections live a little shorter than the drain, and by its end every client has moved by itself. It also
spreads long-lived clients over the pods that are there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

from rollway_serving.errors import InputError, OverloadError, ServingError
from rollway_serving.limits import RETRY_AFTER_SECONDS
from rollway_serving.metrics import asked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from rollway_serving.limits import Admission
    from rollway_serving.metrics import Method, Metrics
    from rollway_serving.settings import Settings

_REMOVAL_SECONDS = 1.5
"""By then a pod that is to go gets no new connections."""
_AGE_JITTER = 1.1
"""gRPC spreads the maximum age by a tenth in either direction."""
_MAX_METADATA_BYTES = 16 << 10
_MAX_STREAMS = 128
_PING_INTERVAL_MS = 5_000
_log = logging.getLogger(__name__)


def connection_age(drain_seconds: float) -> float:
    """The longest life of a connection, such that one opened late in the drain still ends within it.

    >>> round(connection_age(5.0), 2)
    3.18
    >>> connection_age(0.0)
    1.0
    """
    return max(1.0, (drain_seconds - _REMOVAL_SECONDS) / _AGE_JITTER)


def options(settings: Settings) -> list[tuple[str, int]]:
    """What one connection may do before it is told to go, and how long it may take over it."""
    limits = settings.limits
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.max_body_bytes),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        ("grpc.server_handshake_timeout_ms", round(1000 * limits.header_seconds)),
        ("grpc.max_connection_age_ms", round(1000 * connection_age(settings.drain_seconds))),
        # A call that is not at its end by then, because its message never comes, ends with its connection.
        (
            "grpc.max_connection_age_grace_ms",
            round(1000 * (limits.body_seconds + settings.timeout_seconds)),
        ),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_INTERVAL_MS),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]


async def refuse(context: Any, error: ServingError) -> None:
    """End the call with the error's code and sentence; who comes at a busy time is told when to come again."""
    if isinstance(error, OverloadError):
        pause = str(1000 * RETRY_AFTER_SECONDS)
        context.set_trailing_metadata((("grpc-retry-pushback-ms", pause),))
    await end(context, grpc.StatusCode[error.code], str(error))


async def end(context: Any, code: grpc.StatusCode, sentence: str) -> None:
    """End the call, and remember with which code."""
    context.set_code(code)  # `abort` does not keep it
    await context.abort(code, sentence)


class CallGuard(aio.ServerInterceptor):  # type: ignore[misc]
    """Stands before every call: says who answers, refuses what cannot be read, counts what asks the model.

    ``methods`` are the calls that are counted, by full name: what else a client may call makes no series.
    """

    def __init__(
        self, settings: Settings, methods: Mapping[str, Method], admission: Admission, metrics: Metrics
    ) -> None:
        self._identity = (("x-model-version", settings.version), ("x-model-revision", settings.revision))
        self._methods = methods
        self._admission = admission
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Wrap the handler of a call that wants one answer; others are refused anyway."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        method = self._methods.get(details.method)

        async def guarded(request: Any, context: Any) -> Any:
            await context.send_initial_metadata(self._identity)
            if method is None:
                return await self._answer(handler.unary_unary, request, context)
            asked.set(method)
            began = time.monotonic()
            try:
                if self._admission.is_full:
                    await refuse(context, OverloadError("the server is busy"))
                answer = await self._answer(handler.unary_unary, request, context)
                context.set_code(grpc.StatusCode.OK)
            except asyncio.CancelledError:
                context.set_code(grpc.StatusCode.CANCELLED)
                raise
            else:
                return answer
            finally:
                self._metrics.answered(method, _code_of(context), time.monotonic() - began)

        return grpc.unary_unary_rpc_method_handler(
            guarded,
            request_deserializer=_forgiving(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    @staticmethod
    async def _answer(answer: Callable[[Any, Any], Awaitable[Any]], request: Any, context: Any) -> Any:
        if request is _UNREADABLE:
            await refuse(context, InputError("message", "what the protocol says", "other bytes"))
        try:
            return await answer(request, context)
        except ServingError as error:
            await refuse(context, error)
        except aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - the client gets no traceback, the log does
            _log.exception("a call failed in a way that nobody foresaw")
            await end(context, grpc.StatusCode.INTERNAL, "internal error")


_UNREADABLE = object()


def _forgiving(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Let the handler answer a message that cannot be read: gRPC itself would show a traceback's last line."""

    def read(message: bytes) -> Any:
        try:
            return deserialize(message)
        except Exception:  # noqa: BLE001 - each kind of protobuf has its own
            return _UNREADABLE

    return read


def _code_of(context: Any) -> str:
    """The name of the code that was set."""
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
