"""NVIDIA's Triton client, over HTTP and gRPC."""

from functools import partial
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

from .calls import Server, attempt, end


def main() -> None:
    """Make every call that a served model should answer."""
    server = Server.told()
    rows = np.array(server.rows)
    over = {
        "http": (tritonclient.http, server.http.removeprefix("http://")),
        "grpc": (tritonclient.grpc, server.grpc),
    }
    for transport, (library, url) in over.items():
        client: Any = library.InferenceServerClient(url)
        name = f"tritonclient.{transport}"

        def infer(library: Any = library, client: Any = client, **options: Any) -> Any:
            tensor = library.InferInput("x", list(rows.shape), "FP64")
            tensor.set_data_from_numpy(rows, **options)
            return client.infer(server.model, [tensor]).as_numpy("predict").tolist()

        def metadata(client: Any = client) -> Any:
            found = client.get_model_metadata(server.model)
            return (found if isinstance(found, dict) else {"name": found.name})["name"]

        attempt(name, "is_server_live", client.is_server_live)
        attempt(name, "is_server_ready", client.is_server_ready)
        attempt(name, "is_model_ready", partial(client.is_model_ready, server.model))
        attempt(name, "get_model_metadata", metadata)
        if transport == "http":
            attempt(name, "infer, JSON", partial(infer, binary_data=False))
            attempt(name, "infer, binary", infer)
        else:
            attempt(name, "infer", infer)
    end()


if __name__ == "__main__":
    main()
