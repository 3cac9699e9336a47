"""How what a pod answers becomes counters, or the reason why it does not."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_operator.analysis import Counters
from rollway_operator.counts import MOST_SERIES
from rollway_operator.domain import Key
from rollway_operator.metrics_source import PodMetrics, Rollout, Target, Unknown, Windows
from rollway_operator.signature import Column, Signature
from rollway_serving.limits import Admission
from rollway_serving.metrics import Method, Metrics, bounds
from rollway_serving.settings import Settings
from rollway_testing.clock import without_waiting
from rollway_testing.pods import PretendedPod

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUESTS = "rollway_inference_requests_total"
DURATIONS = "rollway_inference_request_duration_seconds_bucket"


class Pods:
    """Pods in the process, by address: each gives a text, or does what it likes."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[httpx.Request], httpx.Response]] = {}
        self.asked: list[str] = []
        self.source = PodMetrics(httpx.MockTransport(self._answer))

    def give(self, address: str, body: bytes, status: int = 200, **headers: str) -> Target:
        self.answers[address] = lambda _: httpx.Response(status, content=body, headers=headers)
        return Target(f"uid-{address}", f"pod-{address}", address, 8082, "team-a")

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if request.url.host not in self.answers:
            await asyncio.sleep(3600)
        return self.answers[request.url.host](request)

    async def one(self, body: bytes, status: int = 200, **headers: str) -> Counters | str:
        """Give what becomes of an answer."""
        pod = self.give("10.0.0.1", body, status, **headers)
        reading = await self.source.read([pod], NOW)
        return reading.pods.get(pod.uid) or reading.missing[pod.uid]


@pytest.fixture
def pods() -> Pods:
    return Pods()


def requests(outcome: str, value: str, method: str = "infer") -> str:
    return f'{REQUESTS}{{method="{method}",outcome="{outcome}",protocol="rest"}} {value}\n'


def buckets(*counts: tuple[str, str], outcome: str = "ok", method: str = "infer") -> str:
    return "".join(
        f'{DURATIONS}{{le="{bound}",method="{method}",outcome="{outcome}",protocol="rest"}} {count}\n'
        for bound, count in counts
    )


GOOD = requests("ok", "3.0")


@without_waiting
async def test_the_text_of_the_real_server_is_understood() -> None:
    rest, grpc = Method("rest", "infer", "predictions"), Method("grpc", "infer", "/inference/ModelInfer")
    settings = Settings.parse(
        {
            "name": "fraud",
            "namespace": "team-a",
            "revision": "fraud-7c9f12ab",
            "modelName": 'fraud "detector"',
            "version": "3",
            "timeoutSeconds": 30.0,
            "smokeTest": {"source": "InputExample"},
            "warmup": {"requests": 20},
            "drainSeconds": 5.0,
            "httpPort": 8080,
            "grpcPort": 8081,
            "metricsPort": 8082,
        }
    )
    admission = Admission(concurrency=1, queue=1, seconds=1)
    metrics = Metrics(settings, (rest, grpc), admission)
    pods = Pods()
    assert await pods.one(metrics.exposition()) == Counters()
    metrics.loaded(flavor="sklearn")
    for method, code, seconds in (
        (rest, 200, 0.0005),
        (rest, 500, 0.002),
        (grpc, "OK", 0.002),
        (grpc, "INTERNAL", 99.0),
        (rest, 400, 0.001),
        (grpc, "INVALID_ARGUMENT", 0.001),
        (rest, 429, 0.001),
    ):
        metrics.answered(method, code, seconds)
    metrics.predicted(rest, 0.001)
    found = await pods.one(metrics.exposition())
    assert isinstance(found, Counters)
    assert (found.ok, found.server_error, found.client_error, found.shed) == (2, 2, 2, 1)
    assert tuple(found.buckets) == (*bounds(), inf)
    assert [found.buckets[bound] for bound in (0.001, 0.001972, 0.002337, 30.0, inf)] == [1, 1, 3, 3, 4]
    assert found.in_progress == 0


@without_waiting
async def test_counts_are_added_over_protocols_and_methods(pods: Pods) -> None:
    text = (
        GOOD
        + requests("server_error", "2", "invocations")
        + buckets(("0.1", "1"), ("+Inf", "3"))
        + buckets(("0.1", "2"), ("+Inf", "2"), outcome="server_error")
        + buckets(("0.1", "4"), ("0.2", "8"), outcome="client_error")
        + "rollway_inference_requests_in_progress 5.0\n"
        + "rollway_inference_requests_created 1.7e+09\n"
        + "process_cpu_seconds_total NaN\n"
    )
    assert await pods.one(text.encode()) == Counters(
        ok=3, server_error=2, buckets={0.1: 3, inf: 5}, in_progress=5
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", f"has no {REQUESTS}"),
        ("<html>sign in</html>", f"has no {REQUESTS}"),
        (b"\xff\xfe" + GOOD.encode(), "sent what is not text"),
        (requests("ok", "NaN"), f"has a {REQUESTS} that is no count"),
        (requests("ok", "+Inf"), f"has a {REQUESTS} that is no count"),
        (requests("ok", "-1"), f"has a {REQUESTS} that is no count"),
        (requests("ok", "1.5"), f"has a {REQUESTS} that is no count"),
        (requests("ok", "1e300"), f"has a {REQUESTS} that is no count"),
        (requests("ok", "many"), f"has a {REQUESTS} that is no count"),
        (requests("ok", ""), f"has a {REQUESTS} that is no count"),
        (
            GOOD + "rollway_inference_requests_in_progress -1\n",
            "has a rollway_inference_requests_in_progress",
        ),
        (GOOD + GOOD, f"counts {REQUESTS} twice"),
        (requests("perfect", "1"), f"has a {REQUESTS} with an outcome that nobody knows"),
        (f"{REQUESTS} 1\n", f"has a {REQUESTS} with an outcome that nobody knows"),
        (f'{REQUESTS}{{outcome="ok" 1\n', "sent what no model server sends"),
        (f'{REQUESTS}{{outcome="o\\"k"}} 1\n', "sent what no model server sends"),
        (f'{REQUESTS}{{outcome="ok"}} 1 1700000000\n', "sent what no model server sends"),
        (f'{REQUESTS}_more{{outcome="ok"}} 1\n', "sent what no model server sends"),
        (f'{REQUESTS}{{outcome="ok",x="{"y" * 600}"}} 1\n', "sent more than model servers send"),
        (GOOD + buckets(("0.1", "1")), f"has a {DURATIONS} that is no histogram"),
        (GOOD + buckets(("0.1", "4"), ("+Inf", "3")), f"has a {DURATIONS} that is no histogram"),
        (
            GOOD
            + buckets(("0.1", "1"), ("+Inf", "3"))
            + buckets(("0.2", "1"), ("+Inf", "3"), outcome="server_error"),
            f"has a {DURATIONS} that is no histogram",
        ),
        (GOOD + buckets(("0.1", "1"), ("0.10", "1"), ("+Inf", "3")), f"counts {DURATIONS} twice"),
        (GOOD + buckets(("NaN", "1"), ("+Inf", "3")), f"has a {DURATIONS} with a bound that is no time"),
        (GOOD + buckets(("-1", "1"), ("+Inf", "3")), f"has a {DURATIONS} with a bound that is no time"),
        (GOOD + buckets(("soon", "1"), ("+Inf", "3")), f"has a {DURATIONS} with a bound that is no time"),
        (
            "".join(requests("ok", "1", f"m{n}") for n in range(MOST_SERIES + 1)),
            "sent more than model servers send",
        ),
    ],
)
@without_waiting
async def test_a_text_that_is_not_a_model_servers_is_a_reason_and_no_count(
    text: str | bytes, why: str
) -> None:
    found = await Pods().one(text.encode() if isinstance(text, str) else text)
    assert isinstance(found, str)
    assert found.startswith(f"pod-10.0.0.1 {why}")
    assert found.isprintable()
    assert len(found) < 150


def written() -> list[str]:
    """Give what a real server writes of its requests."""
    pod = PretendedPod()
    pod.answer(ok=2, errors=1)
    counted = pod.exposition().decode().split("\n")
    return [line for line in counted if line.startswith("rollway_inference_req") and "_created" not in line]


WRITTEN = written()


@given(st.data())
def test_whatever_is_done_to_a_text_it_is_counters_or_a_reason(data: st.DataObject) -> None:
    lines = random.Random(data.draw(st.integers())).sample(WRITTEN, len(WRITTEN))
    text = "\n".join(lines[: data.draw(st.integers(0, 80))])
    place = data.draw(st.integers(0, len(text)))
    text = text[:place] + data.draw(st.text(max_size=5)) + text[place + data.draw(st.integers(0, 5)) :]

    async def read() -> Counters | str:
        return await Pods().one(text.encode(errors="replace"))

    found = asyncio.run(read())
    assert isinstance(found, Counters | str)
    if isinstance(found, Counters):
        assert min(found.ok, found.server_error, found.client_error, found.shed, found.in_progress) >= 0


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (
            302,
            {"location": "http://169.254.169.254/"},
            "answered with status 302, a redirect, which is never",
        ),
        (500, {}, "answered with status 500"),
        (204, {}, "answered with status 204"),
        (404, {}, "does not have it (404)"),
        (200, {"content-encoding": "gzip"}, "answered compressed, which was not asked for"),
    ],
)
@without_waiting
async def test_an_answer_that_is_no_text_is_a_reason(status: int, headers: dict[str, str], why: str) -> None:
    pods = Pods()
    found = await pods.one(b"", status, **headers)
    assert isinstance(found, str)
    assert found.startswith(f"pod-10.0.0.1 {why}")
    assert pods.asked == ["http://10.0.0.1:8082/metrics"]


@pytest.mark.parametrize(
    "address", ["", "fraud.team-a.svc", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"]
)
@without_waiting
async def test_what_is_no_pods_address_is_not_asked(address: str) -> None:
    pods = Pods()
    reading = await pods.source.read([Target("u", "fraud-1", address, 8082, "team-a")], NOW)
    assert (reading.pods, list(reading.missing)) == ({}, ["u"])
    assert pods.asked == []


@without_waiting
async def test_an_address_of_the_sixth_version_is_asked(pods: Pods) -> None:
    pod = pods.give("fd00::17", GOOD.encode())
    assert (await pods.source.read([pod], NOW)).pods == {pod.uid: Counters(ok=3)}
    assert pods.asked == ["http://[fd00::17]:8082/metrics"]


@without_waiting
async def test_pods_that_hang_cost_no_more_than_their_time(pods: Pods) -> None:
    good = pods.give("10.0.0.1", GOOD.encode())
    hanging = [Target(f"u{n}", f"fraud-{n}", f"10.1.0.{n}", 8082, "team-a") for n in range(100)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    reading = await pods.source.read([good, *hanging], NOW)
    assert loop.time() - began < 8
    assert reading.pods == {good.uid: Counters(ok=3)}
    assert reading.missing["u0"] == "fraud-0 did not answer within 2 s"
    assert reading.missing["u99"] == "fraud-99 was not reached in time"
    assert len(reading.missing) == 100


# ---------------------------------------------------------------------------------------------------- the signature

SIGNATURE = (
    b'{"inputs": [{"name": "age", "type": "INT64", "shape": [-1], "required": false}], '
    b'"outputs": [{"name": "score", "type": "FP64", "shape": [-1, 3], "more": 1}]}'
)


@without_waiting
async def test_a_signature_is_read(pods: Pods) -> None:
    pod = pods.give("10.0.0.1", SIGNATURE)
    assert await pods.source.signature(pod) == Signature(
        (Column("age", "INT64", (-1,), required=False),), (Column("score", "FP64", (-1, 3)),)
    )
    assert pods.asked == ["http://10.0.0.1:8082/signature"]


@without_waiting
async def test_a_server_of_a_time_before_signatures_has_none(pods: Pods) -> None:
    assert await pods.source.signature(pods.give("10.0.0.1", b"not found", 404)) is None


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (503, b"{}", "answered with status 503"),
        (200, b"<html>", "did not answer with a signature"),
        (200, b"{}", "did not answer with a signature"),
        (200, b"[]", "did not answer with a signature"),
        (200, SIGNATURE.replace(b"INT64", b"int64; rm"), "did not answer with a signature"),
        (200, SIGNATURE.replace(b"[-1]", b"[-2]"), "did not answer with a signature"),
        (200, SIGNATURE.replace(b"[-1]", b"[1e3]"), "did not answer with a signature"),
        (200, SIGNATURE.replace(b'"age"', b"7"), "did not answer with a signature"),
        (200, SIGNATURE.replace(b"false", b'"no"'), "did not answer with a signature"),
        (200, b'{"a":' * 100_000, "did not answer with a signature"),
        (
            200,
            SIGNATURE.replace(
                b'"outputs": [', b'"outputs": [{"name": "score", "type": "BOOL", "shape": []}, '
            ),
            "answered with a signature that has a name twice",
        ),
        (200, b" " * (1024 * 1024 + 1), "answered with more than 1024 KiB"),
    ],
)
@without_waiting
async def test_a_signature_that_cannot_be_read_is_unknown(status: int, body: bytes, why: str) -> None:
    pods = Pods()
    assert await pods.source.signature(pods.give("10.0.0.1", body, status)) == Unknown(f"pod-10.0.0.1 {why}")


# ------------------------------------------------------------------------------------------------------ the windows

KEY = Key("team-a", "fraud")


@without_waiting
async def test_a_window_grows_with_each_reading_of_its_rollout(pods: Pods) -> None:
    windows = Windows(pods.source)
    rollout = Rollout("fraud-1", "fraud-2", NOW)

    async def read(ok: int, rollout: Rollout = rollout) -> int:
        stable, canary = (pods.give(a, requests("ok", str(ok)).encode()) for a in ("10.0.0.1", "10.0.0.2"))
        now = NOW + timedelta(seconds=ok)
        window = await windows.update(KEY, rollout, 0, stable=[stable], canary=[canary], now=now)
        assert windows.get(KEY, rollout) == window
        assert window.stable_requests(0) == window.canary_requests(0)
        return window.canary_requests(0)

    assert [await read(ok) for ok in (10, 15, 40)] == [0, 5, 30]
    again = Rollout("fraud-1", "fraud-2", NOW + timedelta(hours=1))
    assert windows.get(KEY, again).started is None
    assert [await read(ok, again) for ok in (60, 61)] == [0, 1]
    windows.forget(KEY)
    windows.forget(KEY)
    assert windows.get(KEY, again).started is None
