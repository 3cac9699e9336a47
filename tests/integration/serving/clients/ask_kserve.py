"""The client of KServe's SDK, over REST and gRPC."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

from .calls import Server, attempt, end


def main() -> None:
    """Make every call that a served model should answer."""
    server = Server.told()
    with asyncio.Runner() as runner:

        def wait(call: Awaitable[Any]) -> Any:
            async def awaited() -> Any:
                return await call

            return runner.run(awaited())

        def request() -> InferRequest:
            shape = [len(server.rows), len(server.rows[0])]
            values = [value for row in server.rows for value in row]
            return InferRequest(server.model, [InferInput("x", shape, "FP64", values)])

        def answer(call: Awaitable[Any]) -> Any:
            (output,) = wait(call).outputs
            return output.as_numpy().tolist()

        rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        name, url = "kserve REST", server.http
        attempt(name, "is_server_live", lambda: wait(rest.is_server_live(url)))
        attempt(name, "is_server_ready", lambda: wait(rest.is_server_ready(url)))
        attempt(name, "is_model_ready", lambda: wait(rest.is_model_ready(url, server.model)))
        attempt(name, "infer, v2", lambda: answer(rest.infer(url, request(), model_name=server.model)))
        old = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
        instances = {"instances": server.rows}
        attempt(name, "infer, v1", lambda: wait(old.infer(url, instances, model_name=server.model)))

        async def connect() -> InferenceGRPCClient:
            return InferenceGRPCClient(server.grpc, retries=0)

        grpc = runner.run(connect())
        name = "kserve gRPC"
        attempt(name, "is_server_live", lambda: wait(grpc.is_server_live()))
        attempt(name, "is_server_ready", lambda: wait(grpc.is_server_ready()))
        attempt(name, "is_model_ready", lambda: wait(grpc.is_model_ready(server.model)))
        attempt(name, "infer", lambda: answer(grpc.infer(request())))
    end()


if __name__ == "__main__":
    main()
