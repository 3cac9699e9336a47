"""A real server's answers: the model's own numbers, the version's name, and a clear word for every mistake."""

import gzip
import json
import math
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc import model_repository_pb2 as repository_pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.grpc.model_repository_pb2_grpc import ModelRepositoryServiceStub

from .conftest import MODEL_NAME, REVISION, VERSION, NewPod, Pod, Trained, put_object

IDENTITY = {"x-model-version": VERSION, "x-model-revision": REVISION}
INFER = f"/v2/models/{MODEL_NAME}/infer"


@pytest.fixture(scope="module")
def frames(new_pod: NewPod, frame_model: Trained) -> Pod:
    """A server of the model of named columns."""
    pod = new_pod(frame_model.folder)
    pod.serve_until_ready()
    return pod


@pytest.fixture(scope="module")
def arrays(new_pod: NewPod, array_model: Trained) -> Pod:
    """A server of the model of one matrix."""
    pod = new_pod(array_model.folder)
    pod.serve_until_ready()
    return pod


def post(pod: Pod, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return httpx.post(pod.http + path, content=content, headers=headers, trust_env=False, timeout=10)


def identity_of(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[name] for name in IDENTITY}


def matrix(values: Any, **changes: Any) -> dict[str, Any]:
    values = np.asarray(values)
    tensor = {
        "name": "x",
        "shape": list(values.shape),
        "datatype": "FP64",
        "data": values.ravel().tolist(),
    } | changes
    return {"inputs": [tensor]}


def test_v2_rest_equals_the_model_on_a_matrix(arrays: Pod, array_model: Trained) -> None:
    values = array_model.rows.to_numpy()[:7]
    answer = post(arrays, INFER, matrix(values) | {"id": "one"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == (MODEL_NAME, VERSION, "one")
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("predict", "FP64", [7, 2])
    expected = array_model.estimator.predict_proba(values)
    assert np.array_equal(np.reshape(output["data"], output["shape"]), expected)
    assert identity_of(answer) == IDENTITY


def test_v2_rest_takes_nested_data_and_a_narrower_number_type(arrays: Pod, array_model: Trained) -> None:
    values = array_model.rows.to_numpy()[:2].astype("float32")
    answer = post(arrays, INFER, matrix(values, datatype="FP32", data=values.tolist()))
    expected = array_model.estimator.predict_proba(values.astype("float64"))
    assert np.array_equal(np.reshape(answer.json()["outputs"][0]["data"], (2, 2)), expected)


def test_v2_rest_takes_one_tensor_a_column(frames: Pod, frame_model: Trained) -> None:
    rows = frame_model.rows[:5]
    tensors = [
        {"name": name, "shape": [5, 1], "datatype": "FP64", "data": rows[name].tolist()}
        for name in rows.columns
    ]
    answer = post(frames, INFER, {"inputs": tensors[::-1]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == frame_model.estimator.predict(rows).tolist()


def test_v2_rest_takes_one_matrix_for_all_columns(frames: Pod, frame_model: Trained) -> None:
    rows = frame_model.rows[:5]
    answer = post(frames, INFER, matrix(rows.to_numpy()))
    assert answer.json()["outputs"][0]["data"] == frame_model.estimator.predict(rows).tolist()


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_v2_rest_takes_and_gives_binary_tensors(
    arrays: Pod, array_model: Trained, datatype: str, binary: bool
) -> None:
    """As the client of the extension's own server writes and reads them."""
    from tritonclient import http as triton  # noqa: PLC0415 - it takes gevent along

    values = array_model.rows.to_numpy()[:3].astype("float64" if datatype == "FP64" else "float32")
    tensor = triton.InferInput("x", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=True)
    wanted = triton.InferRequestedOutput("predict", binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body(
        [tensor], outputs=[wanted], request_id="7"
    )
    answer = post(arrays, INFER, body, inference_header_content_length=str(length))
    assert answer.status_code == 200, answer.text
    assert identity_of(answer) == IDENTITY
    result = triton.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(answer.headers["inference-header-content-length"])
    )
    expected = array_model.estimator.predict_proba(values.astype("float64"))
    assert np.array_equal(result.as_numpy("predict"), expected)
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("7", VERSION)
    assert ("data" in response["outputs"][0]) != binary


@pytest.mark.parametrize(
    ("change", "length", "sentence"),
    [
        ({}, "-1", "inference-header-content-length: expected a number up to the body's length"),
        ({}, "9999", "inference-header-content-length: expected a number up to the body's length"),
        ({}, "5", "body: expected JSON"),
        ({"shape": [1, 29]}, None, "'x': expected 29 FP64 values, got 240 bytes"),
        ({"shape": [2**62] * 8}, None, "'x': expected "),
        ({"shape": [1] * 9}, None, "'x': expected a shape of 1 to 8 dimensions, got 9"),
        ({"shape": "no"}, None, "'x': expected a shape of whole numbers, got 'no'"),
        ({"datatype": "FP128"}, None, "'x': expected a datatype of"),
        ({"datatype": "BYTES"}, None, "'x': expected strings with their lengths"),
        ({"data": [1.0]}, None, "'x' binary_data_size: expected data or binary_data_size, got both"),
        ({"parameters": {"binary_data_size": 241}}, None, "'x' binary_data_size: expected a number up to"),
        ({"parameters": {"binary_data_size": "240"}}, None, "'x' binary_data_size: expected a number up to"),
        ({"parameters": {}}, None, "body: expected as many bytes as the inputs say, got 240 more"),
    ],
)
def test_a_bad_binary_tensor_is_400_and_names_the_field(
    arrays: Pod, change: dict[str, Any], length: str | None, sentence: str
) -> None:
    tensor = {"name": "x", "shape": [1, 30], "datatype": "FP64", "parameters": {"binary_data_size": 240}}
    head = json.dumps({"inputs": [tensor | change]}).encode()
    body = head + np.array(GOOD, dtype="<f8").tobytes()
    answer = post(arrays, INFER, body, inference_header_content_length=length or str(len(head)))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith(sentence)
    assert identity_of(answer) == IDENTITY


def test_the_metadata_fits_the_answers(frames: Pod, arrays: Pod, array_model: Trained) -> None:
    metadata = httpx.get(f"{arrays.http}/v2/models/{MODEL_NAME}/versions/{VERSION}", trust_env=False).json()
    assert metadata["versions"] == [VERSION]
    assert metadata["inputs"] == [{"name": "input-0", "datatype": "FP64", "shape": [-1, 30]}]
    assert metadata["outputs"] == [{"name": "predict", "datatype": "FP64", "shape": [-1, 2]}]
    columns = httpx.get(f"{frames.http}/v2/models/{MODEL_NAME}", trust_env=False).json()
    assert columns["inputs"][0] == {"name": "mean radius", "datatype": "FP64", "shape": [-1]}
    output = post(frames, INFER, matrix(array_model.rows.to_numpy()[:2])).json()["outputs"][0]
    assert columns["outputs"] == [{"name": output["name"], "datatype": output["datatype"], "shape": [-1]}]


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "instances", "inputs", "csv"])
def test_invocations_equal_the_model_on_a_frame(frames: Pod, frame_model: Trained, form: str) -> None:
    rows = frame_model.rows[:4]
    bodies: dict[str, Any] = {
        "dataframe_split": {"dataframe_split": json.loads(rows.to_json(orient="split", double_precision=15))},
        "dataframe_records": {"dataframe_records": rows.to_dict(orient="records")},
        "instances": {"instances": rows.to_numpy().tolist()},
        "inputs": {"inputs": rows.to_dict(orient="list")},
        "csv": rows.to_csv(index=False).encode(),
    }
    kind = "text/csv" if form == "csv" else "application/json; charset=utf-8"
    answer = post(frames, "/invocations", bodies[form], content_type=kind)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"predictions": frame_model.estimator.predict(rows).tolist()}
    assert identity_of(answer) == IDENTITY


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_invocations_equal_the_model_on_a_matrix(arrays: Pod, array_model: Trained, form: str) -> None:
    values = array_model.rows.to_numpy()[:4]
    answer = post(arrays, "/invocations", {form: values.tolist()})
    assert answer.json() == {"predictions": array_model.estimator.predict_proba(values).tolist()}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        (f"/v2/models/{MODEL_NAME}/ready", {"name": MODEL_NAME, "ready": True}),
    ],
)
def test_probes_say_in_their_body_what_the_protocol_describes(
    frames: Pod, path: str, said: dict[str, Any]
) -> None:
    answer = httpx.get(frames.http + path, trust_env=False)
    assert (answer.status_code, answer.json()) == (200, said)


@pytest.mark.parametrize(("path", "text"), [("/ping", "\n"), ("/health", "\n"), ("/version", "3.17.2")])
def test_mlflow_clients_find_their_other_routes(frames: Pod, path: str, text: str) -> None:
    answer = httpx.get(frames.http + path, trust_env=False)
    assert (answer.status_code, answer.text) == (200, text)


GOOD = list(range(30))
BAD_TENSORS: dict[str, dict[str, Any]] = {
    "shape and data differ": {"shape": [1, 30], "data": [1.0]},
    "a huge shape": {"shape": [10**18, 30], "data": GOOD},
    "zero rows": {"shape": [0, 30], "data": []},
    "a feature too few": {"shape": [1, 29], "data": GOOD[1:]},
    "another rank": {"shape": [30], "data": GOOD},
    "strings as numbers": {"data": ["a"] * 30},
    "null": {"data": [None, *GOOD[1:]]},
    "a boolean as a number": {"data": [True, *GOOD[1:]]},
    "INT8 overflow": {"datatype": "INT8", "data": [300, *GOOD[1:]]},
    "more than 64 bits": {"datatype": "INT64", "data": [2**63, *GOOD[1:]]},
    "FP32 overflow": {"datatype": "FP32", "data": [1e300, *GOOD[1:]]},
    "a fraction as INT64": {"datatype": "INT64", "data": [0.5, *GOOD[1:]]},
    "a negative shape": {"shape": [-1, 30], "data": GOOD},
    "two negative sizes": {"shape": [-1, -30], "data": GOOD},
    "text": {"datatype": "BYTES", "data": ["a"] * 30},
    "nested otherwise than its shape": {"data": [GOOD[:15], GOOD[15:]]},
    "ragged": {"data": [GOOD[:14], GOOD[14:]]},
    "an object": {"data": [{"a": 1}] * 30},
}


@pytest.mark.parametrize("case", BAD_TENSORS)
@pytest.mark.parametrize("served", ["arrays", "frames"])
def test_a_bad_tensor_is_400_and_names_the_field(
    request: pytest.FixtureRequest, served: str, case: str
) -> None:
    pod: Pod = request.getfixturevalue(served)
    answer = post(pod, INFER, matrix([GOOD], **BAD_TENSORS[case]))
    assert answer.status_code == 400, answer.text
    assert re.match(r"'(x|mean radius)': expected .+, got .+", answer.json()["error"]), answer.text
    assert identity_of(answer) == IDENTITY


def deeply_nested() -> bytes:
    return b'{"inputs":' + b"[" * 50_000 + b"]" * 50_000 + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"inputs":[]}',
        b"\xff\xfe",
        deeply_nested(),
        matrix([GOOD], datatype="FP128"),
        matrix([GOOD], datatype="fp64"),
        json.dumps(matrix([GOOD])).replace("29", "NaN").encode(),
        json.dumps(matrix([GOOD])).replace("29", "1e400").encode(),
        {"inputs": matrix([GOOD])["inputs"] * 2},
        matrix([GOOD]) | {"outputs": [{"name": "nope"}]},
        matrix([GOOD]) | {"id": "a\r\nset-cookie: b"},
        matrix([GOOD]) | {"id": "\u00e9"},
        matrix([GOOD]) | {"id": "a" * 300},
    ],
    ids=lambda body: str(body)[:40],
)
def test_a_bad_request_is_400_and_the_connection_lives(arrays: Pod, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with httpx.Client(base_url=arrays.http, trust_env=False) as client:
        answer = client.post(INFER, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert set(answer.json()) == {"error"}
        assert identity_of(answer) == IDENTITY
        assert client.post(INFER, json=matrix([GOOD])).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "application/json", 400),
        ({"dataframe_split": {"data": [[1, 2]]}}, "application/json", 400),
        ({"dataframe_split": 1}, "application/json", 400),
        ({"dataframe_records": []}, "application/json", 400),
        ({"dataframe_records": [{"a": 1}, {"b": 1}]}, "application/json", 400),
        ({"instances": [[1], [1, 2]]}, "application/json", 400),
        ({"inputs": "x"}, "application/json", 400),
        ({"inputs": {"a": 1}}, "application/json", 400),
        ({"instances": [GOOD], "inputs": [GOOD]}, "application/json", 400),
        ({"instances": [GOOD], "params": {}}, "application/json", 400),
        ({}, "application/json", 400),
        (b"", "application/json", 400),
        (b"a,b\n1\n", "text/csv", 400),
        (b"\xff", "text/csv", 400),
        (b"", "text/csv", 400),
        (b"x", "application/xml", 415),
    ],
)
def test_a_bad_invocation_is_refused_with_a_reason(frames: Pod, body: Any, kind: str, status: int) -> None:
    answer = post(frames, "/invocations", body, content_type=kind)
    assert answer.status_code == status, answer.text
    assert "expected" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", f"/v2/repository/models/{MODEL_NAME}/load"),
        ("POST", f"/v2/repository/models/{MODEL_NAME}/unload"),
        ("POST", f"/v2/models/{MODEL_NAME}/infer_stream"),
        ("GET", "/v2/docs"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
    ],
)
def test_what_a_client_has_no_business_with_does_not_exist(frames: Pod, method: str, path: str) -> None:
    answer = httpx.request(method, frames.http + path, json={}, trust_env=False)
    assert answer.status_code == 404
    assert identity_of(answer) == IDENTITY
    assert frames.is_ready()


def test_names_that_a_client_invents_make_no_metric(frames: Pod) -> None:
    for path in (
        "/v2/models/invented/infer",
        f"/v2/models/{MODEL_NAME}/versions/99/infer",
        "/v2/models/invented",
        "/invented/by/a/client",
    ):
        assert post(frames, path, matrix([GOOD])).status_code in (404, 405)
    with grpc.insecure_channel(frames.grpc) as channel, pytest.raises(grpc.RpcError) as failure:
        GRPCInferenceServiceStub(channel).ModelInfer(pb.ModelInferRequest(model_name="invented"), timeout=5)
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    exposed = httpx.get(frames.metrics, trust_env=False).text
    assert "rollway_inference_requests_total" in exposed
    assert "invented" not in exposed
    assert "99" not in [line.partition('version="')[2].partition('"')[0] for line in exposed.splitlines()]


def test_a_compressed_body_is_refused_unread(frames: Pod) -> None:
    body = gzip.compress(json.dumps(matrix([GOOD])).encode())
    assert post(frames, INFER, body, content_encoding="gzip").status_code == 415


@pytest.fixture(scope="module")
def stub(arrays: Pod) -> Iterator[Any]:
    with grpc.insecure_channel(arrays.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


def call(stub: Any, request: Any, method: str = "ModelInfer") -> tuple[Any, dict[str, str]]:
    answer, details = getattr(stub, method).with_call(request, timeout=10)
    return answer, dict(details.initial_metadata())


def infer_request(values: Any, *, raw: bool = False, **changes: Any) -> Any:
    values = np.asarray(values, dtype="float64")
    tensor = {"name": "x", "datatype": "FP64", "shape": list(values.shape)} | changes
    if not raw:
        tensor.setdefault("contents", {"fp64_contents": values.ravel().tolist()})
    return pb.ModelInferRequest(
        model_name=MODEL_NAME, inputs=[tensor], raw_input_contents=[values.tobytes()] if raw else []
    )


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_v2_grpc_equals_the_model(stub: Any, array_model: Trained, raw: bool) -> None:
    values = array_model.rows.to_numpy()[:6]
    answer, metadata = call(stub, infer_request(values, raw=raw))
    expected = array_model.estimator.predict_proba(values)
    data = (
        np.frombuffer(answer.raw_output_contents[0], dtype="float64")
        if raw
        else np.array(answer.outputs[0].contents.fp64_contents)
    )
    assert np.array_equal(data.reshape(6, 2), expected)
    assert (answer.outputs[0].name, list(answer.outputs[0].shape)) == ("predict", [6, 2])
    assert (answer.model_name, answer.model_version) == (MODEL_NAME, VERSION)
    assert IDENTITY.items() <= metadata.items()


def test_v2_grpc_says_what_it_is(stub: Any) -> None:
    assert call(stub, pb.ServerLiveRequest(), "ServerLive")[0].live
    assert call(stub, pb.ServerReadyRequest(), "ServerReady")[0].ready
    assert call(stub, pb.ModelReadyRequest(name=MODEL_NAME, version=VERSION), "ModelReady")[0].ready
    assert call(stub, pb.ServerMetadataRequest(), "ServerMetadata")[0].name == MODEL_NAME
    metadata, _ = call(stub, pb.ModelMetadataRequest(name=MODEL_NAME), "ModelMetadata")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("input-0", "FP64", [-1, 30])]


@pytest.mark.parametrize(
    "bad",
    [
        infer_request([GOOD], shape=[1, 29]),
        infer_request([GOOD], shape=[-1, 30]),
        infer_request([GOOD], datatype="FP128"),
        infer_request([GOOD], datatype="BYTES"),
        infer_request([GOOD], contents={"bytes_contents": [b"a"] * 30}),
        infer_request([GOOD], datatype="INT8", contents={"int_contents": [300] * 30}),
        infer_request([GOOD], contents={}),
        infer_request([GOOD], raw=True, shape=[1, 29]),
        infer_request([GOOD], raw=True, shape=[-1, 30]),
        infer_request([GOOD], raw=True, shape=[2**62, 2**62]),
        infer_request([GOOD], raw=True, shape=[]),
        infer_request([GOOD], raw=True, datatype="BYTES"),
        infer_request([GOOD], raw=True, contents={"fp64_contents": GOOD}),
        infer_request([[math.nan] * 30]),
        pb.ModelInferRequest(model_name=MODEL_NAME),
        pb.ModelInferRequest(model_name=MODEL_NAME, id="a\r\nb"),
        pb.ModelInferRequest(model_name=MODEL_NAME, raw_input_contents=[b"a"]),
    ],
    ids=range(17),
)
def test_a_bad_call_is_invalid_argument(stub: Any, bad: Any) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.ModelInfer(bad, timeout=5)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT, failure.value.details()
    assert "expected" in failure.value.details()
    assert IDENTITY.items() <= dict(failure.value.initial_metadata()).items()


def test_administration_over_grpc_is_unimplemented(stub: Any, arrays: Pod) -> None:
    with grpc.insecure_channel(arrays.grpc) as channel:
        repository = ModelRepositoryServiceStub(channel)
        calls = [
            (stub.RepositoryIndex, pb.RepositoryIndexRequest()),
            (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name=MODEL_NAME)),
            (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name=MODEL_NAME)),
            (repository.RepositoryIndex, repository_pb.RepositoryIndexRequest()),
            (
                repository.RepositoryModelUnload,
                repository_pb.RepositoryModelUnloadRequest(model_name=MODEL_NAME),
            ),
        ]
        for method, request in calls:
            with pytest.raises(grpc.RpcError) as failure:
                method(request, timeout=5)
            assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as failure:
        list(stub.ModelStreamInfer(iter([infer_request([GOOD])]), timeout=5))
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert arrays.is_ready()


def test_a_model_that_fails_on_a_good_request_is_500_without_a_traceback(
    new_pod: NewPod, spoilt: Path
) -> None:
    put_object(spoilt, "__import__('types').SimpleNamespace(predict_proba=lambda rows: 1 / 0)")
    pod = new_pod(spoilt, warmup={"requests": 0}, smokeTest={"source": "Disabled"})
    pod.serve_until_ready()
    with httpx.Client(base_url=pod.http, trust_env=False) as client:
        for _ in range(2):
            answer = client.post(INFER, json=matrix([GOOD]))
            assert answer.status_code == 500
            assert answer.json() == {"error": "the model failed on this request"}
            assert identity_of(answer) == IDENTITY
    with grpc.insecure_channel(pod.grpc) as channel, pytest.raises(grpc.RpcError) as failure:
        GRPCInferenceServiceStub(channel).ModelInfer(infer_request([GOOD]), timeout=5)
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert "division" not in (failure.value.details() or "")


def test_an_answer_to_broken_http_names_the_version_too(arrays: Pod) -> None:
    with socket.create_connection(("127.0.0.1", arrays.settings["httpPort"]), timeout=5) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"x-model-revision: {REVISION}".encode() in answer
