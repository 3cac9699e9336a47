"""Pods read over real connections: those that answer, and those that do whatever a server can do to a client."""

import asyncio
import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from math import inf

import pytest

from rollway_operator.analysis import ERROR_RATE, Counters, Metric, Phase, judge
from rollway_operator.domain import Key
from rollway_operator.metrics_source import LARGEST_ANSWER, PodMetrics, Rollout, Target, Unknown, Windows
from rollway_operator.signature import Column, Signature, compatibility
from rollway_testing.pods import SIGNATURE, PretendedPods
from rollway_testing.rogue import (
    Behaviour,
    Rogue,
    answers,
    is_silent,
    never_ends,
    promises_more,
    speaks_another_tongue,
    trickles,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = b'rollway_inference_requests_total{outcome="ok"} 3\n'


@pytest.fixture(scope="module", autouse=True)
def tidy() -> None:
    """No API server is asked here, so none is started to be tidied."""


@pytest.fixture
def pods() -> Iterator[PretendedPods]:
    with PretendedPods() as running:
        yield running


def pod_of(rogue: Rogue) -> Target:
    return Target("u", "fraud-1", "127.0.0.1", rogue.port, "team-a")


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
        (never_ends(2 * LARGEST_ANSWER), "answered with more than 4096 KiB"),
        (speaks_another_tongue, "could not be reached: RemoteProtocolError"),
        (promises_more(GOOD), "could not be reached: RemoteProtocolError"),
    ],
)
async def test_a_pod_that_does_what_it_likes_is_missing_with_the_reason(behave: Behaviour, why: str) -> None:
    rogue, source = Rogue(behave), PodMetrics()
    try:
        reading = await source.read([pod_of(rogue)], NOW)
        assert (reading.pods, reading.missing) == ({}, {"u": f"fraud-1 {why}"})
        assert rogue.asked == ["/metrics"]
        assert isinstance(await source.signature(pod_of(rogue)), Unknown)
    finally:
        await source.aclose()
        await asyncio.to_thread(rogue.close)


async def test_a_port_where_nobody_listens_is_a_reason() -> None:
    rogue, source = Rogue(answers(200, GOOD)), PodMetrics()
    pod = pod_of(rogue)
    assert (await source.read([pod], NOW)).pods == {"u": Counters(ok=3)}
    await asyncio.to_thread(rogue.close)
    assert (await source.read([pod], NOW)).missing == {"u": "fraud-1 could not be reached: ConnectError"}
    await source.aclose()


async def test_proxy_variables_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    rogue, source = Rogue(answers(200, GOOD)), PodMetrics()
    assert (await source.read([pod_of(rogue)], NOW)).pods == {"u": Counters(ok=3)}
    await source.aclose()
    await asyncio.to_thread(rogue.close)


# ----------------------------------------------------------------------------------------------- the pretended pods


def target(pods: PretendedPods, uid: str) -> Target:
    return Target(uid, f"fraud-{uid}", pods.address_of(uid), pods.port, "team-a")


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
    reading = await source.read([one, other, Target("3", "fraud-3", "127.0.0.1", pods.port, "team-a")], NOW)
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
