"""What every inference server does alike, asked in its own protocol."""

import json
import signal
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from .conftest import MODEL_NAME, REVISION, VERSION, NewPod, Pod, Trained, put_object, put_program
from .runtimes import Runtime, alike

IDENTITY = {"x-model-version": VERSION, "x-model-revision": REVISION}
GOOD = [float(number) for number in range(30)]


@pytest.fixture(scope="module")
def arrays(new_pod: NewPod, array_model: Trained, runtime: Runtime) -> Pod:
    """A server of the model of one matrix, which answers probabilities; it was saved as cloudpickle."""
    pod = new_pod(array_model.folder, runtime=runtime)
    pod.serve_until_ready()
    return pod


@pytest.fixture(scope="module")
def frames(new_pod: NewPod, frame_model: Trained, runtime: Runtime) -> Pod:
    """A server of the model of named columns; it was saved as skops."""
    pod = new_pod(frame_model.folder, runtime=runtime)
    pod.serve_until_ready()
    return pod


def ask(pod: Pod, path: str, body: Any = None, method: str = "POST", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return httpx.request(
        method, pod.http + path, content=content, headers=headers, trust_env=False, timeout=20
    )


def call(pod: Pod, message: bytes, method: str | None = None) -> tuple[bytes, dict[str, str]]:
    with grpc.insecure_channel(pod.grpc) as channel:
        answer, details = channel.unary_unary(method or pod.runtime.grpc_predict).with_call(
            message, timeout=20
        )
        return answer, dict(details.initial_metadata())


def identity_of(answer: httpx.Response) -> dict[str, str | None]:
    return {name: answer.headers.get(name) for name in IDENTITY}


def test_rest_equals_the_model(arrays: Pod, array_model: Trained) -> None:
    rows = array_model.rows.to_numpy()[:7]
    answer = ask(arrays, arrays.runtime.predict_path, arrays.runtime.request(rows))
    assert answer.status_code == 200, answer.text
    expected = array_model.estimator.predict_proba(rows)
    assert alike(arrays.runtime.answers(answer.json()), expected)
    assert identity_of(answer) == IDENTITY


def test_rest_equals_the_model_of_named_columns(frames: Pod, frame_model: Trained) -> None:
    rows = frame_model.rows[:7]
    answer = ask(frames, frames.runtime.predict_path, frames.runtime.request(rows))
    assert answer.status_code == 200, answer.text
    assert frames.runtime.answers(answer.json()).tolist() == frame_model.estimator.predict(rows).tolist()


def test_grpc_equals_the_model(arrays: Pod, array_model: Trained) -> None:
    rows = array_model.rows.to_numpy()[:7]
    message, metadata = call(arrays, arrays.runtime.grpc_request(rows))
    assert alike(arrays.runtime.grpc_answers(message), array_model.estimator.predict_proba(rows))
    assert IDENTITY.items() <= metadata.items()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (GOOD[:29], "shape [-1, 30], got [1, 29]"),
        (["a"] * 30, "got a string"),
        ([None, *GOOD[1:]], "got null"),
        ([True, *GOOD[1:]], "got a boolean"),
        ([{}, *GOOD[1:]], "got an object"),
    ],
    ids=["a feature too few", "texts", "null", "a boolean", "an object"],
)
def test_a_mistake_is_400_and_named(arrays: Pod, row: list[Any], told: str) -> None:
    body = arrays.runtime.request([GOOD])
    text = json.dumps(body).replace(json.dumps(GOOD), json.dumps(row))
    text = text.replace("[1, 30]", json.dumps([1, len(row)]))
    answer = ask(arrays, arrays.runtime.predict_path, text.encode())
    assert answer.status_code == 400, answer.text
    assert f": expected {'shape' if 'shape' in told else 'FP64'}" in arrays.runtime.error(answer.json())
    assert told in arrays.runtime.error(answer.json())
    assert "Traceback" not in answer.text
    assert identity_of(answer) == IDENTITY


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"inputs": [], "data": {}}',
        b'{"inputs":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=lambda body: str(body)[:30],
)
def test_a_bad_body_is_400_and_the_connection_lives(arrays: Pod, body: bytes) -> None:
    runtime = arrays.runtime
    with httpx.Client(base_url=arrays.http, trust_env=False, timeout=20) as client:
        headers = {"content-type": "application/json"}
        answer = client.post(runtime.predict_path, content=body, headers=headers)
        assert answer.status_code == 400, answer.text
        assert runtime.error(answer.json())
        assert identity_of(answer) == IDENTITY
        assert client.post(runtime.predict_path, json=runtime.request([GOOD])).status_code == 200


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e400"])
def test_a_number_that_json_does_not_have_is_400(arrays: Pod, literal: str) -> None:
    text = json.dumps(arrays.runtime.request([GOOD])).replace("29.0", literal)
    assert ask(arrays, arrays.runtime.predict_path, text.encode()).status_code == 400


@pytest.mark.parametrize(
    "message", [b"\xff", b"\x1a\x03\xff\xff\xff", b"\x0a\x02\xff\xfe"], ids=["cut", "wire", "text"]
)
def test_bytes_that_are_no_message_leave_the_server_as_it_was(arrays: Pod, message: bytes) -> None:
    with pytest.raises(grpc.RpcError):
        call(arrays, message)
    call(arrays, arrays.runtime.grpc_request([GOOD]))


def test_a_mistake_over_grpc_is_invalid_argument_and_named(arrays: Pod) -> None:
    for rows in ([GOOD[:29]], [[float("nan")] * 30]):
        with pytest.raises(grpc.RpcError) as failure:
            call(arrays, arrays.runtime.grpc_request(rows))
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT, failure.value.details()
        assert "expected" in failure.value.details()
        assert IDENTITY.items() <= dict(failure.value.initial_metadata()).items()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", f"/v2/repository/models/{MODEL_NAME}/load"),
        ("POST", f"/v2/repository/models/{MODEL_NAME}/unload"),
        ("POST", "/transform-input"),
        ("POST", "/transform-output"),
        ("POST", "/route"),
        ("POST", "/aggregate"),
        ("POST", "/pause"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/static/x"),
        ("GET", "/../etc/passwd"),
        ("GET", "/invented"),
    ],
)
def test_what_a_client_has_no_business_with_does_not_exist(frames: Pod, method: str, path: str) -> None:
    answer = ask(frames, path, {}, method=method)
    assert answer.status_code == 404, answer.text
    assert identity_of(answer) == IDENTITY
    assert frames.is_ready()


@pytest.mark.parametrize(
    "method",
    [
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        "/inference.model_repository.ModelRepositoryService/RepositoryModelUnload",
        "/seldon.protos.Router/Route",
        "/seldon.protos.Combiner/Aggregate",
        "/seldon.protos.Generic/TransformInput",
        "/invented.Service/Method",
    ],
)
def test_what_a_client_has_no_business_with_is_unimplemented(frames: Pod, method: str) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        call(frames, b"", method)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert frames.is_ready()


def test_another_method_is_405(frames: Pod) -> None:
    assert ask(frames, frames.runtime.predict_path, method="GET").status_code == 405
    assert ask(frames, frames.runtime.predict_path, {}, method="DELETE").status_code == 405


def test_a_compressed_body_is_415(frames: Pod) -> None:
    body = frames.runtime.request([GOOD])
    assert ask(frames, frames.runtime.predict_path, body, content_encoding="gzip").status_code == 415


def test_a_body_over_the_limit_is_413(new_pod: NewPod, array_model: Trained, runtime: Runtime) -> None:
    pod = new_pod(array_model.folder, runtime=runtime, limits={"maxBodyBytes": 2048})
    pod.serve_until_ready()
    assert ask(pod, runtime.predict_path, runtime.request([GOOD])).status_code == 200
    answer = ask(pod, runtime.predict_path, runtime.request([GOOD] * 20))
    assert answer.status_code == 413
    assert "2048 bytes" in runtime.error(answer.json())
    with pytest.raises(grpc.RpcError) as failure:
        call(pod, runtime.grpc_request([GOOD] * 20))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def exposed(pod: Pod) -> dict[str, float]:
    lines = httpx.get(pod.metrics, trust_env=False).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {series: float(value) for series, value in pairs}


def test_requests_are_counted_by_their_outcome(frames: Pod) -> None:
    def counted(protocol: str, outcome: str) -> float:
        ours = [
            value
            for series, value in exposed(frames).items()
            if series.startswith("rollway_inference_requests_total{")
            and f'protocol="{protocol}"' in series
            and f'outcome="{outcome}"' in series
        ]
        return sum(ours)

    before = {(p, o): counted(p, o) for p in ("rest", "grpc") for o in ("ok", "client_error")}
    ask(frames, frames.runtime.predict_path, frames.runtime.request([GOOD]))
    ask(frames, frames.runtime.predict_path, b"{")
    call(frames, frames.runtime.grpc_request([GOOD]))
    with pytest.raises(grpc.RpcError):
        call(frames, frames.runtime.grpc_request([GOOD[:3]]))
    assert {key: counted(*key) - value for key, value in before.items()} == dict.fromkeys(before, 1.0)


def test_the_gates_are_no_requests_and_a_mistake_is_the_clients(
    new_pod: NewPod, array_model: Trained, runtime: Runtime
) -> None:
    pod = new_pod(array_model.folder, runtime=runtime, warmup={"requests": 5})
    pod.serve_until_ready()

    def counted() -> dict[str, float]:
        """Requests by outcome, those of all protocols and methods; and calls of the model."""
        found = dict.fromkeys(("ok", "client_error", "server_error", "shed", "calls"), 0.0)
        for series, value in exposed(pod).items():
            if series == "rollway_inference_batch_rows_count":
                found["calls"] = value
            if series.startswith("rollway_inference_requests_total{"):
                found[series.partition('outcome="')[2].partition('"')[0]] += value
        return found

    assert "warm-up of 5 requests done" in pod.log
    assert not any(counted().values())
    mistakes = [
        ask(pod, runtime.predict_path, runtime.request([GOOD[:29]])),
        ask(pod, runtime.predict_path, b"{"),
        ask(pod, runtime.predict_path, method="GET"),
        ask(pod, runtime.predict_path, runtime.request([GOOD]), content_encoding="gzip"),
    ]
    assert [answer.status_code for answer in mistakes] == [400, 400, 405, 415]
    with pytest.raises(grpc.RpcError):
        call(pod, runtime.grpc_request([GOOD[:29]]))
    assert counted() == dict.fromkeys(counted(), 0.0) | {"client_error": 5.0}


def signature(pod: Pod) -> httpx.Response:
    return httpx.get(pod.metrics.replace("/metrics", "/signature"), trust_env=False)


def test_the_metrics_port_tells_the_signature(frames: Pod, arrays: Pod, frame_model: Trained) -> None:
    answer = signature(frames)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {
        "inputs": [
            {"name": name, "type": "FP64", "shape": [-1], "required": True}
            for name in frame_model.rows.columns
        ],
        "outputs": [{"name": "predict", "type": "INT64", "shape": [-1]}],
    }
    assert signature(arrays).json() == {
        "inputs": [{"name": "input-0", "type": "FP64", "shape": [-1, 30], "required": True}],
        "outputs": [{"name": "predict", "type": "FP64", "shape": [-1, 2]}],
    }


def test_metrics_say_what_is_served_and_what_seldons_dashboards_ask(frames: Pod) -> None:
    ask(frames, frames.runtime.predict_path, frames.runtime.request([GOOD]))
    series = exposed(frames)
    (info,) = [name for name in series if name.startswith("rollway_model_info{")]
    for label in (
        f'version="{VERSION}"',
        f'revision="{REVISION}"',
        'model="fraud-detector"',
        'flavor="sklearn"',
    ):
        assert label in info
    for name in (
        "rollway_inference_request_duration_seconds_count",
        "rollway_inference_batch_rows_count",
        "rollway_inference_queue_depth",
        "rollway_inference_requests_in_progress",
        "seldon_api_executor_server_requests_seconds_count",
        "seldon_api_executor_client_requests_seconds_count",
    ):
        assert any(each.startswith(name) for each in series), name


def test_what_a_client_invents_makes_no_series(frames: Pod) -> None:
    before = exposed(frames).keys()
    for path in ("/v2/models/invented/infer", "/invented", "/api/v1.0/invented"):
        ask(frames, path, {})
    with pytest.raises(grpc.RpcError):
        call(frames, b"", "/invented.Service/Method")
    meta = {"metrics": [{"key": "invented", "type": "COUNTER", "value": 1}], "tags": {"invented": "x"}}
    ask(
        frames, frames.runtime.predict_path, frames.runtime.request([GOOD]) | {"meta": meta, "id": "invented"}
    )
    assert not [series for series in exposed(frames) if "invented" in series]
    assert before


def test_a_model_that_fails_on_its_own_example_is_never_ready(
    new_pod: NewPod, spoilt: Path, runtime: Runtime
) -> None:
    (spoilt / "serving_input_example.json").write_text(json.dumps({"inputs": [[1.0, 2.0]]}))
    message = new_pod(spoilt, runtime=runtime).end_unready()
    assert message["reason"] == "SmokeTestFailed"
    assert "expected shape [-1, 30], got [1, 2]" in message["message"]


def test_a_golden_answer_that_differs_is_never_ready(
    new_pod: NewPod, array_model: Trained, runtime: Runtime
) -> None:
    pod = new_pod(array_model.folder, runtime=runtime, smokeTest={"source": "ConfigMap"})
    rows = array_model.rows.to_numpy()[:1]
    wrong = array_model.estimator.predict_proba(rows) + 0.5
    case = {"request": {"inputs": rows.tolist()}, "predictions": wrong.tolist()}
    (pod.config / "golden.json").write_text(json.dumps([case]))
    assert pod.end_unready()["reason"] == "SmokeTestFailed"


def test_a_missing_package_is_named(new_pod: NewPod, spoilt: Path, runtime: Runtime) -> None:
    put_program(spoilt, "import a_package_that_is_not_there")
    message = new_pod(spoilt, runtime=runtime).end_unready()
    assert message["reason"] == "MissingPackage"
    assert "'a_package_that_is_not_there'" in message["message"]


def test_while_the_model_loads_the_server_lives_and_is_not_ready(
    new_pod: NewPod, spoilt: Path, runtime: Runtime
) -> None:
    put_program(spoilt, "import time; time.sleep(120)")
    pod = new_pod(spoilt, runtime=runtime)
    process = pod.serve_until_live()
    assert pod.status(runtime.ready_path) == 503
    answer = ask(pod, runtime.predict_path, runtime.request([GOOD]))
    assert answer.status_code == 503
    assert runtime.error(answer.json()) == "the server is loading"
    assert identity_of(answer) == IDENTITY
    with pytest.raises(grpc.RpcError) as failure:
        call(pod, runtime.grpc_request([GOOD]))
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    answer = signature(pod)
    assert (answer.status_code, answer.json()) == (503, {"error": "the model is not loaded yet"})
    process.terminate()
    assert process.wait(5) == 0
    assert pod.termination == {}


def test_a_model_that_fails_on_a_good_request_is_500_without_a_traceback(
    new_pod: NewPod, spoilt: Path, runtime: Runtime
) -> None:
    source = "__import__('types').SimpleNamespace(predict_proba=lambda rows: 1 / 0)"
    put_object(spoilt, source)
    pod = new_pod(spoilt, runtime=runtime, warmup={"requests": 0}, smokeTest={"source": "Disabled"})
    pod.serve_until_ready()
    for _ in range(2):
        answer = ask(pod, runtime.predict_path, runtime.request([GOOD]))
        assert answer.status_code == 500
        assert runtime.error(answer.json()) == "the model failed on this request"
        assert identity_of(answer) == IDENTITY
    with pytest.raises(grpc.RpcError) as failure:
        call(pod, runtime.grpc_request([GOOD]))
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert "division" not in (failure.value.details() or "")


def test_a_prediction_that_takes_too_long_is_504(new_pod: NewPod, spoilt: Path, runtime: Runtime) -> None:
    source = "__import__('types').SimpleNamespace(predict_proba=lambda rows: __import__('time').sleep(3))"
    put_object(spoilt, source)
    settings = {"warmup": {"requests": 0}, "smokeTest": {"source": "Disabled"}, "timeoutSeconds": 0.5}
    pod = new_pod(spoilt, runtime=runtime, **settings)
    pod.serve_until_ready()
    answer = ask(pod, runtime.predict_path, runtime.request([GOOD]))
    assert answer.status_code == 504
    assert "0.5 s" in runtime.error(answer.json())
    with pytest.raises(grpc.RpcError) as failure:
        call(pod, runtime.grpc_request([GOOD]))
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_while_it_drains_a_server_is_unready_answers_and_sends_clients_away(
    new_pod: NewPod, array_model: Trained, runtime: Runtime
) -> None:
    pod = new_pod(array_model.folder, runtime=runtime, drainSeconds=3.0)
    process = pod.serve_until_ready()
    process.send_signal(signal.SIGTERM)
    with httpx.Client(base_url=pod.http, trust_env=False, timeout=20) as client:
        while (answer := client.get(runtime.ready_path)).status_code == 200:
            pass
        assert answer.status_code == 503
        assert client.get(runtime.live_path).status_code == 200
        answer = client.post(runtime.predict_path, json=runtime.request([GOOD]))
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    call(pod, runtime.grpc_request([GOOD]))
    assert process.wait(30) == 0
    assert pod.termination == {}


def test_a_port_that_is_taken_is_said(new_pod: NewPod, array_model: Trained, runtime: Runtime) -> None:
    other = new_pod(array_model.folder, runtime=runtime)
    other.serve_until_ready()
    for port in ("httpPort", "grpcPort", "metricsPort"):
        pod = new_pod(array_model.folder, runtime=runtime, **{port: other.settings[port]})
        assert pod.serve().wait(60) == 1
        assert pod.termination["reason"] == "ModelLoadFailed"
        assert "the server cannot run" in pod.termination["message"]
