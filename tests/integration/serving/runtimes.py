"""The inference servers that one contract holds for, each with its own protocol and its own environment."""

import re
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from mlserver.grpc import dataplane_pb2

REPOSITORY = Path(__file__).parents[3]
MODEL_NAME = "fraud"

Array = np.ndarray[Any, Any]


def alike(answer: Any, expected: Any) -> bool:
    """Whether an answer is the model's own, to the last bits: numpy is not of the same version everywhere."""
    return np.shape(answer) == np.shape(expected) and np.allclose(answer, expected, rtol=1e-12, atol=0)


@cache
def environment(purpose: str) -> Path:
    """The Python of the environment of requirements/<purpose>.txt, which is made where it is missing."""
    command = [str(REPOSITORY / "requirements/environment"), purpose]
    folder = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return Path(folder, "bin", "python")


@dataclass(frozen=True)
class Runtime(ABC):
    """An inference server: how it is started, where it listens, and how it is asked.

    Rows are two-dimensional and numbers; gRPC requests and answers are bytes, for
    ``channel.unary_unary(runtime.grpc_predict)``.
    """

    name: str
    module: str
    dockerfile: str
    python: Path
    predict_path: str
    ready_path: str
    live_path: str
    grpc_predict: str

    @property
    def environment(self) -> dict[str, str]:
        """What the image sets, but for the path."""
        text = (REPOSITORY / self.dockerfile).read_text()
        return dict(re.findall(r"\b((?!PATH=)[A-Z_]+)=(\S+)", " ".join(re.findall(r"(?m)^ENV .*$", text))))

    @abstractmethod
    def request(self, rows: Any) -> dict[str, Any]:
        """The JSON body that asks for these rows."""

    @abstractmethod
    def answers(self, body: dict[str, Any]) -> Array:
        """What the JSON answer says to each row."""

    @abstractmethod
    def error(self, body: dict[str, Any]) -> str:
        """The sentence in a JSON answer that is an error."""

    @abstractmethod
    def grpc_request(self, rows: Any) -> bytes:
        """The message that asks for these rows."""

    @abstractmethod
    def grpc_answers(self, message: bytes) -> Array:
        """What the message says to each row."""


@dataclass(frozen=True)
class MLServer(Runtime):
    """Runtime ``mlserver``, asked by the V2 protocol."""

    name: str = "mlserver"
    module: str = "rollway_serving.mlserver_runtime"
    dockerfile: str = "model/serving/Dockerfile"
    python: Path = field(default_factory=lambda: Path(sys.executable))
    predict_path: str = f"/v2/models/{MODEL_NAME}/infer"
    ready_path: str = f"/v2/models/{MODEL_NAME}/ready"
    live_path: str = "/v2/health/live"
    grpc_predict: str = "/inference.GRPCInferenceService/ModelInfer"

    def request(self, rows: Any) -> dict[str, Any]:
        rows = np.asarray(rows)
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
        return {"inputs": [tensor]}

    def answers(self, body: dict[str, Any]) -> Array:
        (output,) = body["outputs"]
        return np.reshape(output["data"], output["shape"])

    def error(self, body: dict[str, Any]) -> str:
        return str(body["error"])

    def grpc_request(self, rows: Any) -> bytes:
        rows = np.asarray(rows, dtype="float64")
        contents = {"fp64_contents": rows.ravel().tolist()}
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "contents": contents}
        request = dataplane_pb2.ModelInferRequest(model_name=MODEL_NAME, inputs=[tensor])
        return bytes(request.SerializeToString())

    def grpc_answers(self, message: bytes) -> Array:
        answer = dataplane_pb2.ModelInferResponse.FromString(message)
        (output,) = answer.outputs
        data = output.contents.fp64_contents or output.contents.int64_contents
        return np.reshape(data, output.shape)


@dataclass(frozen=True)
class Seldon(Runtime):
    """Runtime ``seldon``, asked by Seldon's V1 protocol."""

    name: str = "seldon"
    module: str = "rollway_serving.seldon_runtime"
    dockerfile: str = "model/serving/seldon.Dockerfile"
    python: Path = field(default_factory=lambda: environment("seldon"))
    predict_path: str = "/api/v1.0/predictions"
    ready_path: str = "/health/status"
    live_path: str = "/health/ping"
    grpc_predict: str = "/seldon.protos.Seldon/Predict"

    def request(self, rows: Any) -> dict[str, Any]:
        return {"data": {"ndarray": np.asarray(rows).tolist()}}

    def answers(self, body: dict[str, Any]) -> Array:
        data = body["data"]
        if "tensor" in data:
            return np.reshape(data["tensor"]["values"], data["tensor"]["shape"])
        return np.asarray(data["ndarray"])

    def error(self, body: dict[str, Any]) -> str:
        return str(body["status"]["info"])

    def grpc_request(self, rows: Any) -> bytes:
        rows = np.asarray(rows, dtype="float64")
        tensor = {"shape": list(rows.shape), "values": rows.ravel().tolist()}
        return bytes(seldon_message()(data={"tensor": tensor}).SerializeToString())

    def grpc_answers(self, message: bytes) -> Array:
        tensor = seldon_message().FromString(message).data.tensor
        return np.reshape(tensor.values, tensor.shape)


@cache
def seldon_message() -> Any:
    """The class of ``seldon.protos.SeldonMessage``, by the description that seldon-core itself carries.

    Its generated code needs a protobuf of its own age; its description does not.
    """
    program = (
        "import sys\n"
        "from google.protobuf import descriptor_pb2\n"
        "from seldon_core.proto import prediction_pb2\n"
        "files = descriptor_pb2.FileDescriptorSet()\n"
        "def add(file):\n"
        "    for needed in file.dependencies:\n"
        "        add(needed)\n"
        "    if file.name not in {known.name for known in files.file}:\n"
        "        file.CopyToProto(files.file.add())\n"
        "add(prediction_pb2.DESCRIPTOR)\n"
        "sys.stdout.buffer.write(files.SerializeToString())\n"
    )
    done = subprocess.run([environment("seldon"), "-c", program], stdout=subprocess.PIPE, check=True)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(done.stdout).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("seldon.protos.SeldonMessage"))
