"""Pods read over real connections: those that answer, and those that do whatever a server can do to a client."""

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf

import pytest

from rollway_operator.analysis import ERROR_RATE, Counters, Metric, Phase, judge
from rollway_operator.domain import Key
from rollway_operator.metrics_source import LARGEST_ANSWER, PodMetrics, Rollout, Target, Unknown, Windows
from rollway_operator.signature import Column, Signature, compatibility
from rollway_testing.pods import SIGNATURE, PretendedPods

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = b'rollway_inference_requests_total{outcome="ok"} 3\n'


@pytest.fixture(scope="module", autouse=True)
def tidy() -> None:
    """No API server is asked here, so none is started to be tidied."""


@pytest.fixture
def pods() -> Iterator[PretendedPods]:
    with PretendedPods() as running:
        yield running


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing when the client leaves: it is meant to."""


class Rogue:
    """A server on 127.0.0.1 whose one answer is a function of the test's."""

    def __init__(self, behave: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805 - self is the server
                self.asked.append(handler.path)
                behave(handler)

            def log_message(handler, format: str, *arguments: object) -> None:  # noqa: A002, N805
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def pod(self) -> Target:
        return Target("u", "fraud-1", "127.0.0.1", self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answers(status: int, body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def trickles(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b"#")
        handler.wfile.flush()
        if threading.Event().wait(0.1):
            return


def never_ends(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(2 * LARGEST_ANSWER // 65536):
        handler.wfile.write(b"#" * 65536)


def is_silent(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)


def speaks_another_tongue(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x16\x03\x01 SSH-2.0-OpenSSH\r\n\r\n" * 100)


def promises_more(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.wfile.write(GOOD)


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (answers(200, b"<html>sign in</html>"), "has no rollway_inference_requests_total"),
        (
            answers(302, b"", location="/other"),
            "answered with status 302, a redirect, which is never followed",
        ),
        (
            answers(200, gzip.compress(GOOD), content_encoding="gzip"),
            "answered compressed, which was not asked for",
        ),
        (trickles, "did not answer within 2 s"),
        (is_silent, "did not answer within 2 s"),
        (never_ends, "answered with more than 4096 KiB"),
        (speaks_another_tongue, "could not be reached: RemoteProtocolError"),
        (promises_more, "could not be reached: RemoteProtocolError"),
    ],
)
async def test_a_pod_that_does_what_it_likes_is_missing_with_the_reason(
    behave: Callable[[BaseHTTPRequestHandler], None], why: str
) -> None:
    rogue, source = Rogue(behave), PodMetrics()
    try:
        reading = await source.read([rogue.pod], NOW)
        assert (reading.pods, reading.missing) == ({}, {"u": f"fraud-1 {why}"})
        assert rogue.asked == ["/metrics"]
        assert isinstance(await source.signature(rogue.pod), Unknown)
    finally:
        await source.aclose()
        await asyncio.to_thread(rogue.close)


async def test_a_port_where_nobody_listens_is_a_reason() -> None:
    rogue, source = Rogue(answers(200, GOOD)), PodMetrics()
    pod = rogue.pod
    assert (await source.read([pod], NOW)).pods == {"u": Counters(ok=3)}
    await asyncio.to_thread(rogue.close)
    assert (await source.read([pod], NOW)).missing == {"u": "fraud-1 could not be reached: ConnectError"}
    await source.aclose()


async def test_proxy_variables_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    rogue, source = Rogue(answers(200, GOOD)), PodMetrics()
    assert (await source.read([rogue.pod], NOW)).pods == {"u": Counters(ok=3)}
    await source.aclose()
    await asyncio.to_thread(rogue.close)


# ----------------------------------------------------------------------------------------------- the pretended pods


def target(pods: PretendedPods, uid: str) -> Target:
    return Target(uid, f"fraud-{uid}", pods.address_of(uid), pods.port)


async def test_pretended_pods_count_for_themselves(pods: PretendedPods) -> None:
    source = PodMetrics()
    one, other = target(pods, "1"), target(pods, "2")
    assert pods[one.address] is pods.of("1")
    assert pods.get("127.0.0.1") is None
    pods.of("1").answer(ok=10, errors=1, client_errors=2, shed=3, seconds=0.01)
    pods.of("2").hold(4)
    reading = await source.read([one, other], NOW)
    found = reading.pods["1"]
    assert (found.ok, found.server_error, found.client_error, found.shed) == (10, 1, 2, 3)
    assert (found.buckets[0.009084], found.buckets[0.01076], found.buckets[inf]) == (0, 11, 11)
    assert reading.pods["2"] == Counters(in_progress=4)
    pods.of("1").restart()
    pods.of("2").silent = True
    reading = await source.read([one, other, Target("3", "fraud-3", "127.0.0.1", pods.port)], NOW)
    assert reading.pods == {"1": Counters()}
    assert reading.missing == {
        uid: f"fraud-{uid} could not be reached: RemoteProtocolError" for uid in ("2", "3")
    }
    assert [pods.of(uid).asked for uid in ("1", "2")] == [2, 1]
    await source.aclose()


async def test_pretended_pods_say_what_their_models_take(pods: PretendedPods) -> None:
    source = PodMetrics()
    stable, candidate = target(pods, "1"), target(pods, "2")
    known = await source.signature(stable)
    assert known == Signature((Column("age", "INT64"),), (Column("score", "FP64"),))
    pods.of("2").signature = {**SIGNATURE, "outputs": []}
    other = await source.signature(candidate)
    assert isinstance(other, Signature)
    assert compatibility(known, other) == "output 'score' is gone"
    pods.of("2").loaded = False
    assert await source.signature(candidate) == Unknown("fraud-2 answered with status 503")
    pods.of("2").signature = None
    assert await source.signature(candidate) is None
    await source.aclose()


async def test_many_pods_are_told_apart(pods: PretendedPods) -> None:
    source = PodMetrics()
    targets = [target(pods, str(number)) for number in range(60)]
    assert len({pod.address for pod in targets}) == 60
    for number, pod in enumerate(targets):
        pods[pod.address].answer(ok=number)
    reading = await source.read(targets, NOW)
    assert {uid: counted.ok for uid, counted in reading.pods.items()} == {str(n): n for n in range(60)}
    await source.aclose()


async def test_a_bad_candidate_is_found_by_reading_its_pods(pods: PretendedPods) -> None:
    source = PodMetrics()
    windows, key, rollout = Windows(source), Key("team-a", "fraud"), Rollout("fraud-1", "fraud-2", NOW)
    metric = Metric(ERROR_RATE, 0.02)
    for ok, errors in ((0, 0), (40, 20)):
        pods.of("s").answer(ok=500)
        pods.of("c").answer(ok=ok, errors=errors)
        window = await windows.update(
            key,
            rollout,
            0,
            stable=[target(pods, "s")],
            canary=[target(pods, "c")],
            now=NOW,
        )
    assert window.samples_in_step(0) == 60
    assert judge(metric, window, 0.95, NOW).phase is Phase.FAILED
    await source.aclose()
