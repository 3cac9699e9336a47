"""gRPC without generated code, as grpcurl does it: published protocol files, JSON in and JSON out.

Seldon's ``prediction.proto`` is compiled; of the V2 protocol the description that KServe's package carries is taken,
since no package carries the file.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc
from kserve.protocol.grpc import grpc_predict_v2_pb2

from .calls import Server, attempt, end


def seldon(protocols: Path) -> descriptor_pb2.FileDescriptorSet:
    """Compile Seldon's protocol file."""
    with tempfile.NamedTemporaryFile() as made:
        own = Path(protoc.__file__).parent / "_proto"
        line = [
            "protoc",
            f"-I{protocols}",
            f"-I{own}",
            "--include_imports",
            f"-o{made.name}",
            "prediction.proto",
        ]
        if protoc.main(line) != 0:
            raise RuntimeError("protoc failed")
        return descriptor_pb2.FileDescriptorSet.FromString(Path(made.name).read_bytes())


def v2() -> descriptor_pb2.FileDescriptorSet:
    """The V2 protocol's description."""
    files = descriptor_pb2.FileDescriptorSet()
    grpc_predict_v2_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    return files


def call(at: str, files: descriptor_pb2.FileDescriptorSet, method: str, request: dict[str, Any]) -> Any:
    """Call a method by its full name."""
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    service, _, name = method.rpartition("/")
    described = pool.FindServiceByName(service).FindMethodByName(name)
    message = message_factory.GetMessageClass(described.input_type)()
    json_format.ParseDict(request, message)
    with grpc.insecure_channel(at) as channel:
        raw = channel.unary_unary(f"/{method}")(message.SerializeToString(), timeout=20)
    answer = message_factory.GetMessageClass(described.output_type).FromString(raw)
    return json_format.MessageToDict(answer)


def reflected(at: str) -> list[str]:
    """The services that the server names itself."""
    with grpc.insecure_channel(at) as channel:
        return sorted(ProtoReflectionDescriptorDatabase(channel).get_services())


def main() -> None:
    """Make every call that a served model should answer."""
    server = Server.told()
    rows = np.array(server.rows)
    name, at = "grpcurl-style", server.grpc
    published = v2()
    service = "inference.GRPCInferenceService"
    contents = {"fp64Contents": rows.ravel().tolist()}
    tensor = {"name": "x", "datatype": "FP64", "shape": list(rows.shape), "contents": contents}

    def infer() -> Any:
        (output,) = call(
            at, published, f"{service}/ModelInfer", {"modelName": server.model, "inputs": [tensor]}
        )["outputs"]
        return np.reshape(
            output["contents"]["fp64Contents"], [int(size) for size in output["shape"]]
        ).tolist()

    attempt(name, "inference ServerLive", lambda: call(at, published, f"{service}/ServerLive", {})["live"])
    attempt(
        name,
        "inference ModelReady",
        lambda: call(at, published, f"{service}/ModelReady", {"name": server.model})["ready"],
    )
    attempt(name, "inference ModelInfer", infer)

    old = seldon(Path(os.environ["SELDON_PROTOCOLS"]))
    for service, form in (("Seldon", "tensor"), ("Seldon", "ndarray"), ("Model", "ndarray")):

        def predict(service: str = service, form: str = form) -> Any:
            payload: Any = rows.tolist()
            if form == "tensor":
                payload = {"shape": list(rows.shape), "values": rows.ravel().tolist()}
            data = call(at, old, f"seldon.protos.{service}/Predict", {"data": {form: payload}})["data"]
            if form == "tensor":
                return np.reshape(data["tensor"]["values"], data["tensor"]["shape"]).tolist()
            return data["ndarray"]

        attempt(name, f"{service}/Predict, {form}", predict)
    metadata = "seldon.protos.Seldon/ModelMetadata"
    attempt(name, "Seldon/ModelMetadata", lambda: call(at, old, metadata, {"name": server.model})["name"])
    attempt(name, "list, by reflection", lambda: reflected(at))
    end()


if __name__ == "__main__":
    main()
