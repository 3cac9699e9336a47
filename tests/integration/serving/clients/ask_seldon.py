"""Seldon's own client, as it asks through a gateway and as it asks a pod."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from seldon_core.proto import prediction_pb2 as pb
from seldon_core.seldon_client import SeldonClient
from seldon_core.utils import array_to_grpc_datadef, get_data_from_proto

from .calls import Server, attempt, end


class RefusedError(Exception):
    """The client says that the call did not succeed."""


def answer(given: Any) -> Any:
    if not given.success:
        raise RefusedError(given.msg or "the client shows no reason")
    return get_data_from_proto(given.response).tolist()


def judged(tell: Callable[..., Any], request: Any) -> bool:
    given = tell(request, pb.SeldonMessage(), reward=1.0)
    if not given.success:
        raise RefusedError(given.msg or "the client shows no reason")
    return True


def main() -> None:
    """Make every call that a served model should answer."""
    server = Server.told()
    rows = np.array(server.rows)
    request = pb.SeldonMessage(data=array_to_grpc_datadef("tensor", rows))
    for transport in ("rest", "grpc"):
        at = server.http.removeprefix("http://") if transport == "rest" else server.grpc
        client = SeldonClient(
            gateway="seldon",
            gateway_endpoint=at,
            microservice_endpoint=at,
            transport=transport,
            client_return_type="proto",
        )
        name = f"SeldonClient {'REST' if transport == 'rest' else 'gRPC'}"
        ways = {"predict": client.predict, "microservice": client.microservice}
        for (way, ask), payload in itertools.product(ways.items(), ("tensor", "ndarray")):
            more = {"method": "predict"} if way == "microservice" else {}

            def predict(ask: Any = ask, payload: str = payload, more: dict[str, str] = more) -> Any:
                return answer(ask(data=rows, payload_type=payload, **more))

            attempt(name, f"{way}, {payload}", predict)
        judge = {"feedback": client.feedback, "microservice_feedback": client.microservice_feedback}
        for way, tell in judge.items():
            attempt(name, way, partial(judged, tell, request))
    end()


if __name__ == "__main__":
    main()
