"""A server among clients who are careless, slow or hostile: each gets its status, and everybody else an answer.

``ROLLWAY_ABUSE_SECONDS=300 pytest -k random tests/integration/serving/test_abuse.py`` throws random bytes for five
minutes at each port.
"""

import concurrent.futures
import contextlib
import json
import os
import random
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from .conftest import MODEL_NAME, REVISION, VERSION, NewPod, Pod, Trained, await_true, put_object
from .runtimes import Runtime

IDENTITY = {"x-model-version": VERSION, "x-model-revision": REVISION}
ROW = [float(number) for number in range(30)]
MEBIBYTE = 1 << 20
HEADER_SECONDS, BODY_SECONDS = 1.0, 2.0
GRACE = 5.0
"""What a busy machine may add to a time."""
ABUSE_SECONDS = float(os.environ.get("ROLLWAY_ABUSE_SECONDS", "4"))


@pytest.fixture(scope="module")
def pod(new_pod: NewPod, array_model: Trained, runtime: Runtime) -> Iterator[Pod]:
    """A server with short times, which never writes a traceback."""
    limits = {"headerSeconds": HEADER_SECONDS, "bodySeconds": BODY_SECONDS}
    made = new_pod(array_model.folder, runtime=runtime, limits=limits, drainSeconds=0.5, timeoutSeconds=3.0)
    made.serve_until_ready()
    yield made
    assert made.processes[0].poll() is None, made.log
    assert "Traceback" not in made.log
    assert predict(made).status_code == 200


@pytest.fixture(scope="module")
def slow(new_pod: NewPod, array_model: Trained, runtime: Runtime, pod: Pod, tmp_path_factory: Any) -> Pod:
    """A server of a model that takes as many seconds as the first number says, for two at once and two in line."""
    folder = Path(shutil.copytree(array_model.folder, tmp_path_factory.mktemp("slow") / "model"))
    source = (
        "__import__('types').SimpleNamespace("
        "predict_proba=lambda rows: (__import__('time').sleep(rows[0, 0]), rows[:, :2])[1])"
    )
    put_object(folder, source)
    made = new_pod(
        folder,
        runtime=runtime,
        timeoutSeconds=1.5,
        limits={"maxConcurrency": 2, "maxQueue": 2},
        warmup={"requests": 0},
        smokeTest={"source": "Disabled"},
    )
    made.serve_until_ready()
    return made


def predict(pod: Pod, row: list[float] = ROW) -> httpx.Response:
    return httpx.post(
        pod.http + pod.runtime.predict_path, json=pod.runtime.request([row]), trust_env=False, timeout=30
    )


def resident(pod: Pod) -> int:
    return int(psutil.Process(pod.processes[0].pid).memory_info().rss)


@contextlib.contextmanager
def memory_comes_back(pod: Pod, within: int = 20 * MEBIBYTE) -> Iterator[None]:
    """Whatever happens inside, the server's memory is soon what it was."""
    for _ in range(20):
        assert predict(pod).status_code == 200
    before = resident(pod)
    yield
    await_true(lambda: resident(pod) - before < within, 20)


def connect(pod: Pod, port: str = "httpPort", seconds: float = 30) -> socket.socket:
    return socket.create_connection(("127.0.0.1", pod.settings[port]), timeout=seconds)


def read_to_the_end(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset is an end too."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def head(pod: Pod, *lines: str) -> bytes:
    start = (f"POST {pod.runtime.predict_path} HTTP/1.1", "host: a", "content-type: application/json")
    return "\r\n".join((*start, *lines, "", "")).encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def metric(pod: Pod, name: str, **labels: str) -> float:
    """The sum of the series of this name that have these labels."""
    total = 0.0
    for line in httpx.get(pod.metrics, trust_env=False).text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name:
            has = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            total += float(found[3]) if labels.items() <= has.items() else 0
    return total


def series(pod: Pod) -> set[str]:
    lines = httpx.get(pod.metrics, trust_env=False).text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


# What a request says.

SENTINEL = 4242.25
REPLACED = {
    "a string": '"a"',
    "null": "null",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "1e400": "1e400",
    "an object": '{"a": 1}',
    "a list": "[1.0]",
    "true": "true",
    "nothing": "",
}
BODIES = {
    "empty": b"",
    "an open brace": b"{",
    "a list": b"[]",
    "null alone": b"null",
    "an empty object": b"{}",
    "a number alone": b"1",
    "not UTF-8": b"\xff\xfe",
    "deep": b'{"inputs":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep as V1": b'{"data":{"ndarray":' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
    "NUL bytes": b"\0" * 1000,
}
ROWS: dict[str, Any] = {
    "a feature too few": [ROW[1:]],
    "a feature too many": [[*ROW, 1.0]],
    "flat": ROW,
}


def bad_bodies(runtime: Runtime) -> dict[str, bytes]:
    good = json.dumps(runtime.request([[SENTINEL, *ROW[1:]]]))
    assert str(SENTINEL) in good
    return (
        BODIES
        | {name: good.replace(str(SENTINEL), text).encode() for name, text in REPLACED.items()}
        | {name: json.dumps(runtime.request(rows)).encode() for name, rows in ROWS.items()}
    )


@pytest.mark.parametrize("case", [*BODIES, *REPLACED, *ROWS])
def test_a_bad_body_is_400_and_the_connection_lives(pod: Pod, case: str) -> None:
    kind = {"content-type": "application/json"}
    failed = metric(pod, "rollway_inference_requests_total", outcome="server_error")
    with httpx.Client(base_url=pod.http, trust_env=False, timeout=30) as client:
        path = pod.runtime.predict_path
        answer = client.post(path, content=bad_bodies(pod.runtime)[case], headers=kind)
        assert answer.status_code == 400, answer.text
        assert pod.runtime.error(answer.json())
        assert "Traceback" not in answer.text
        assert IDENTITY.items() <= dict(answer.headers).items()
        assert client.post(path, json=pod.runtime.request([ROW])).status_code == 200
    assert metric(pod, "rollway_inference_requests_total", outcome="server_error") == failed


@pytest.mark.parametrize("kind", ["pd", "np", "str", "datetime", "../../x", "\r\nx: y", 7, None, {"a": 1}])
def test_a_content_type_parameter_never_chooses_a_codec(pod: Pod, kind: Any) -> None:
    if pod.runtime.name != "mlserver":
        pytest.skip("only V2 has such parameters")
    request = pod.runtime.request([ROW])
    request["parameters"] = {"content_type": kind}
    request["inputs"][0]["parameters"] = {"content_type": kind, "headers": {"a": "b"}}
    answer = httpx.post(pod.http + pod.runtime.predict_path, json=request, trust_env=False, timeout=30)
    assert answer.status_code == (200 if isinstance(kind, str | None) else 400), answer.text


def test_what_is_not_served_makes_no_series(pod: Pod) -> None:
    known = series(pod)
    with httpx.Client(base_url=pod.http, trust_env=False, timeout=30) as client:
        for number in range(200):
            path = pod.runtime.predict_path.replace(MODEL_NAME, f"invented-{number}")
            path = f"/invented-{number}" if path == pod.runtime.predict_path else path
            assert client.post(path, json=pod.runtime.request([ROW])).status_code == 404
            verb = random.choice(["PUT", "DELETE", "PROPFIND", "OPTIONS", "GET"])
            assert client.request(verb, pod.runtime.predict_path).status_code == 405
    with grpc.insecure_channel(pod.grpc) as channel:
        for number in range(20):
            with pytest.raises(grpc.RpcError) as failure:
                channel.unary_unary(f"/invented.Service/Method{number}")(b"", timeout=10)
            assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    text = "\n".join(new := series(pod) - known)
    assert "invented" not in text
    assert len({re.sub(r"_bucket\{.*|le=\"[^\"]*\",?", "", line) for line in new}) <= 10, text


# How a request comes.


def test_a_body_over_the_limit_is_refused_before_it_is_sent(pod: Pod) -> None:
    with connect(pod) as connection:
        connection.sendall(head(pod, f"content-length: {100 * MEBIBYTE}"))
        answer = connection.recv(1 << 16)
    assert status_of(answer) == 413
    assert b"expected at most 1048576 bytes" in answer


def test_a_body_of_the_limit_is_answered(pod: Pod) -> None:
    body = json.dumps(pod.runtime.request([ROW])).encode().ljust(MEBIBYTE)
    path, kind = pod.http + pod.runtime.predict_path, {"content-type": "application/json"}
    assert httpx.post(path, content=body, headers=kind, trust_env=False, timeout=30).status_code == 200
    assert httpx.post(path, content=body + b" ", headers=kind, trust_env=False).status_code == 413


@pytest.mark.parametrize("form", ["length", "chunked"])
def test_bodies_of_a_hundred_megabytes_cost_nothing(pod: Pod, form: str) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * MEBIBYTE

    content = parts if form == "chunked" else lambda: b" " * (100 * MEBIBYTE)
    kind = {"content-type": "application/json"}
    with memory_comes_back(pod), httpx.Client(base_url=pod.http, trust_env=False, timeout=60) as client:
        for _ in range(3):
            answer = client.post(pod.runtime.predict_path, content=content(), headers=kind)
            assert answer.status_code == 413
            assert client.post(pod.runtime.predict_path, json=pod.runtime.request([ROW])).status_code == 200


@pytest.mark.parametrize(
    ("start", "drop", "seconds"),
    [
        ("POST /x HTTP/1.1\r\nhost: a\r\n", "a", HEADER_SECONDS),
        ("GET /", "a", HEADER_SECONDS),
        ("{head}content-length: 1000\r\n\r\n", " ", BODY_SECONDS),
        ("{head}transfer-encoding: chunked\r\n\r\n3e8\r\n", " ", BODY_SECONDS),
        ("{head}content-length: 99999999\r\n\r\n", " ", BODY_SECONDS),
    ],
    ids=["headers", "request line", "body", "chunk", "after a refusal"],
)
def test_a_client_that_drips_is_cut_off_in_time(pod: Pod, start: str, drop: str, seconds: float) -> None:
    start = start.replace("{head}", head(pod)[:-2].decode())
    began = time.monotonic()
    answer = b""
    with connect(pod, seconds=0.1) as connection:
        connection.sendall(start.encode())
        while time.monotonic() - began < seconds + GRACE:
            try:
                connection.sendall(drop.encode())  # it is never quite silent
                part = connection.recv(1 << 16)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if not part:
                break
            answer += part
        took = time.monotonic() - began
    assert seconds * 0.8 < took < seconds + GRACE
    assert status_of(answer) in (408, 413, 400), answer
    assert (status_of(answer) == 413) == ("99999999" in start)


def test_others_are_answered_while_many_drip(pod: Pod) -> None:
    with memory_comes_back(pod), contextlib.ExitStack() as stack:
        for number in range(300):
            connection = stack.enter_context(connect(pod))
            part = head(pod, "content-length: 1048576") + b" " * 60_000 if number % 2 else b"POST /x HT"
            connection.sendall(part)
        began = time.monotonic()
        assert predict(pod).status_code == 200
        assert time.monotonic() - began < GRACE


@pytest.mark.parametrize(
    "lines",
    [
        ["a: " + "x" * (40 << 10)],
        [f"a{number}: x" for number in range(5000)],
        ["a: " + "x" * MEBIBYTE],
    ],
    ids=["one", "many", "endless"],
)
def test_headers_over_the_limit_are_431(pod: Pod, lines: list[str]) -> None:
    with connect(pod) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head(pod, *lines))
        answer = read_to_the_end(connection)
    assert status_of(answer) in (431, 0), answer  # 0: it was still sending when it was cut off
    if len("".join(lines)) < 200_000:
        assert status_of(answer) == 431


def test_a_thousand_idle_connections_cost_little(pod: Pod) -> None:
    with memory_comes_back(pod), contextlib.ExitStack() as stack:
        before = resident(pod)
        body = json.dumps(pod.runtime.request([ROW])).encode()
        for number in range(1000):
            connection = stack.enter_context(connect(pod))
            if number % 2:
                connection.sendall(head(pod, f"content-length: {len(body)}") + body)
                assert status_of(connection.recv(1 << 16)) == 200
        began = time.monotonic()
        assert predict(pod).status_code == 200
        assert time.monotonic() - began < GRACE
        assert resident(pod) - before < 20 * MEBIBYTE
        connection.sendall(head(pod, f"content-length: {len(body)}") + body)
        assert status_of(connection.recv(1 << 16)) == 200  # it was idle, and is of use


def test_requests_that_come_at_once_are_answered_in_order_and_not_without_end(pod: Pod) -> None:
    body = json.dumps(pod.runtime.request([ROW])).encode()
    one = head(pod, f"content-length: {len(body)}") + body
    with connect(pod) as connection:
        connection.sendall(one * 3 + one.replace(b"content-type", b"connection: close\r\ncontent-type"))
        assert read_to_the_end(connection).count(b"HTTP/1.1 200 OK") == 4
    with connect(pod) as connection:
        connection.sendall(f"GET {pod.runtime.live_path} HTTP/1.1\r\n\r\n".encode() * 200)
        assert read_to_the_end(connection).count(b"HTTP/1.1 200 OK") < 40


def test_a_client_that_proposes_http2_is_answered_in_http1(pod: Pod) -> None:
    body = json.dumps(pod.runtime.request([ROW])).encode()
    upgrade = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    with connect(pod) as connection:
        for _ in range(2):
            connection.sendall(head(pod, *upgrade, f"content-length: {len(body)}") + body)
            answer = connection.recv(1 << 16)
            assert status_of(answer) == 200, answer


def random_request(pod: Pod, source: random.Random) -> bytes:
    """Bytes that are nearly a request, or nothing like one."""
    noise = source.randbytes(source.choice([1, 10, 100, 5_000, 70_000]))
    body = json.dumps(pod.runtime.request([ROW])).encode()
    whole = bytearray(head(pod, f"content-length: {len(body)}") + body)
    for _ in range(source.randrange(1, 9)):
        whole[source.randrange(len(whole))] = source.randrange(256)
    frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    return source.choice(
        [
            noise,
            bytes(whole),
            head(pod, f"content-length: {len(noise)}") + noise,
            head(pod, "transfer-encoding: chunked") + b"5\r\n" + noise,
            frames + noise,
            frames + call_frames(pod, noise, source.randrange(len(noise) + 9)),
            frames + frame(source.randrange(12), source.randrange(256), source.randrange(4), noise[:1000]),
        ]
    )


@pytest.mark.parametrize("port", ["httpPort", "grpcPort", "metricsPort"])
def test_random_bytes_leave_nothing_behind(pod: Pod, port: str) -> None:
    sent = 0
    with memory_comes_back(pod):
        source = random.Random(port)
        until = time.monotonic() + ABUSE_SECONDS
        while time.monotonic() < until:
            with connect(pod, port, seconds=0.02) as connection, contextlib.suppress(OSError):
                connection.sendall(random_request(pod, source))
                connection.recv(1 << 16)
            sent += 1
        assert pod.is_ready()
    assert sent > 10 * ABUSE_SECONDS
    assert httpx.get(pod.metrics, trust_env=False).status_code == 200
    assert call(pod).code is grpc.StatusCode.OK


# gRPC.


class Outcome:
    """How a call ended."""

    def __init__(self, pod: Pod, message: bytes, seconds: float) -> None:
        with grpc.insecure_channel(pod.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
            try:
                _, details = channel.unary_unary(pod.runtime.grpc_predict).with_call(message, timeout=seconds)
            except grpc.RpcError as error:
                details = error
        self.code = details.code()
        self.text = details.details() or ""
        self.initial = dict(details.initial_metadata() or ())
        self.trailing = dict(details.trailing_metadata() or ())


def call(pod: Pod, row: list[float] = ROW, message: bytes | None = None, seconds: float = 30) -> Outcome:
    return Outcome(pod, pod.runtime.grpc_request([row]) if message is None else message, seconds)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def call_frames(pod: Pod, message: bytes, length: int) -> bytes:
    """The frames of a call whose message says this length."""

    def literal(name: str, value: str) -> bytes:
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": pod.runtime.grpc_predict,
        ":authority": "a",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    headers = b"".join(literal(name, value) for name, value in fields.items())
    data = b"\0" + struct.pack(">I", length) + message[:16_000]
    return frame(1, 4, 1, headers) + frame(0, 0, 1, data)


def test_a_call_with_a_message_over_the_limit_is_refused(slow: Pod) -> None:
    """By the other server, whose connections live longer: the end of one may overtake a refusal."""
    with memory_comes_back(slow):
        for _ in range(20):
            outcome = call(slow, message=b"\x0a" * (2 * MEBIBYTE))
            assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED, outcome.text


@pytest.mark.parametrize(
    "message", [b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b""], ids=["no", "cut", "empty"]
)
def test_a_message_that_says_nothing_is_invalid_argument(pod: Pod, message: bytes) -> None:
    failed = metric(pod, "rollway_inference_requests_total", outcome="server_error")
    outcome = call(pod, message=message)
    codes = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert outcome.code in codes, outcome.text
    assert "Exception" not in outcome.text
    assert "Traceback" not in outcome.text
    assert IDENTITY.items() <= outcome.initial.items()
    assert metric(pod, "rollway_inference_requests_total", outcome="server_error") == failed


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize("spoken", [b"", PREFACE[:10]], ids=["nothing", "half a preface"])
def test_a_grpc_connection_that_does_not_begin_is_closed(pod: Pod, spoken: bytes) -> None:
    began = time.monotonic()
    with connect(pod, "grpcPort") as connection:
        connection.sendall(spoken)
        read_to_the_end(connection)
    assert time.monotonic() - began < HEADER_SECONDS + GRACE


def test_a_call_whose_message_never_comes_ends(pod: Pod) -> None:
    began = time.monotonic()
    with connect(pod, "grpcPort") as connection:
        connection.sendall(PREFACE + frame(4, 0, 0, b"") + call_frames(pod, b"\0" * 100, 1000))
        read_to_the_end(connection)
    # A connection lives for a second here; a call has the body's time and the prediction's to end.
    assert time.monotonic() - began < 1.1 + BODY_SECONDS + pod.settings["timeoutSeconds"] + GRACE


def test_a_flood_of_pings_ends_the_connection(pod: Pod) -> None:
    with connect(pod, "grpcPort") as connection:
        connection.sendall(PREFACE + frame(4, 0, 0, b""))
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                connection.sendall(frame(6, 0, 0, b"12345678") * 100)
        said = read_to_the_end(connection)
    assert b"too_many_pings" in said
    assert call(pod).code is grpc.StatusCode.OK


def test_a_thousand_idle_grpc_connections_cost_little(pod: Pod) -> None:
    with memory_comes_back(pod), contextlib.ExitStack() as stack:
        for number in range(1000):
            connection = stack.enter_context(connect(pod, "grpcPort"))
            if number % 2:
                connection.sendall(PREFACE + frame(4, 0, 0, b""))
        assert call(pod).code is grpc.StatusCode.OK


# How much is asked at once.


def in_parallel(count: int, ask: Any) -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(count) as clients:
        return list(clients.map(lambda _: ask(), range(count)))


def seconds(number: float) -> list[float]:
    return [number, *ROW[1:]]


def test_more_than_run_and_wait_are_told_to_come_again(slow: Pod) -> None:
    shed = metric(slow, "rollway_inference_requests_total", outcome="shed", protocol="rest")
    answers = in_parallel(8, lambda: predict(slow, seconds(0.6)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 4 + [429] * 4
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
            assert "busy" in slow.runtime.error(answer.json())
            assert IDENTITY.items() <= dict(answer.headers).items()
    assert metric(slow, "rollway_inference_requests_total", outcome="shed", protocol="rest") == shed + 4


def test_more_calls_than_run_and_wait_are_told_to_come_again(slow: Pod) -> None:
    outcomes = in_parallel(8, lambda: call(slow, seconds(0.6)))
    refused = [outcome for outcome in outcomes if outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert len(refused) == 4, [outcome.text for outcome in outcomes]
    assert all(outcome.trailing["grpc-retry-pushback-ms"] == "1000" for outcome in refused)
    assert [outcome.code for outcome in outcomes].count(grpc.StatusCode.OK) == 4


def test_probes_answer_while_the_model_is_busy(slow: Pod) -> None:
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(6) as clients:
        asked = [clients.submit(predict, slow, seconds(0.7)) for _ in range(6)]
        try:
            await_true(lambda: metric(slow, "rollway_inference_requests_in_progress") == 2, 5)
            began = time.monotonic()
            assert slow.is_ready()
            assert httpx.get(slow.http + slow.runtime.live_path, trust_env=False).status_code == 200
            assert time.monotonic() - began < GRACE
        finally:
            stop.set()
            concurrent.futures.wait(asked)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_prediction_past_its_deadline_is_504_and_keeps_its_place(slow: Pod, protocol: str) -> None:
    began = time.monotonic()
    if protocol == "rest":
        answer = predict(slow, seconds(4))
        assert answer.status_code == 504, answer.text
        assert slow.runtime.error(answer.json()) == "the model did not answer within 1.5 s"
    else:
        outcome = call(slow, seconds(4))
        assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert outcome.text == "the model did not answer within 1.5 s"
    took = time.monotonic() - began
    assert 1.4 < took < 3.9
    assert metric(slow, "rollway_inference_requests_in_progress") == 1
    # One place is left: of four, one runs and two wait.
    statuses = sorted(answer.status_code for answer in in_parallel(4, lambda: predict(slow, seconds(0.3))))
    assert statuses == [200, 200, 200, 429]
    await_true(lambda: metric(slow, "rollway_inference_requests_in_progress") == 0, 10)
    assert metric(slow, "rollway_inference_requests_total", outcome="server_error", protocol=protocol) == 1
