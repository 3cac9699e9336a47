"""Evidence from a real Prometheus that scrapes pretended pods, and from what answers in its place."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest

from rollway_operator.analysis import ERROR_RATE, LATENCY_P99, Lack, Metric, Phase, Result, Window, judge
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import Key
from rollway_operator.evidence import Queries
from rollway_operator.measurements import Asked
from rollway_operator.metrics_source import PodMetrics, Rollout, Source, Target, Windows
from rollway_operator.prometheus import LARGEST_ANSWER, Server
from rollway_operator.prometheus import Prometheus as Client
from rollway_operator.prometheus_source import Fallback, PrometheusMetrics
from rollway_operator.promql import counters_of
from rollway_testing import prometheus
from rollway_testing.pods import PretendedPods
from rollway_testing.prometheus import Prometheus
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
from rollway_testing.waiting import eventually

KEY: Final = Key("team-a", "fraud")
STALE: Final = timedelta(seconds=30)
METRICS: Final = (Metric(ERROR_RATE, 0.02), Metric(LATENCY_P99, 1.5))
SIDES: Final = {"stable": ("s1", "s2"), "canary": ("c1",)}


@pytest.fixture(scope="module", autouse=True)
def tidy() -> None:
    """No API server is asked here, so none is started to be tidied."""


@pytest.fixture
def pods() -> Iterator[PretendedPods]:
    with PretendedPods() as running:
        for side in SIDES.values():
            for uid in side:
                running.address_of(uid)
        yield running


def target(pods: PretendedPods, uid: str) -> Target:
    return Target(uid, f"fraud-{uid}", pods.address_of(uid), pods.port, KEY.namespace)


def scraped_as(pods: PretendedPods, *uids: str) -> dict[str, dict[str, str]]:
    """Give pods as targets with the labels that a PodMonitor gives them."""
    return {
        f"{pods.address_of(uid)}:{pods.port}": {"namespace": KEY.namespace, "pod": f"fraud-{uid}"}
        for uid in uids
    }


@pytest.fixture
def server(pods: PretendedPods, tmp_path: Path) -> Iterator[Prometheus]:
    targets = {"models": scraped_as(pods, "s1", "s2", "c1"), "other": {}}
    with prometheus.running(tmp_path, targets=targets) as running:
        running.await_up(3)
        yield running


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[PrometheusMetrics]:
    source = PrometheusMetrics(Client(Server(url)), STALE)
    try:
        yield source
    finally:
        await source.aclose()


def now() -> datetime:
    return datetime.now(UTC)


def await_scrape(server: Prometheus, count: int = 3) -> None:
    """Wait until each pod was scraped once more, begun after this moment."""
    since = now().timestamp()
    eventually(
        lambda: server.query("timestamp(rollway_inference_requests_in_progress)"),
        lambda found: len(found) >= count and all(float(each["value"][1]) > since for each in found),
        within=20,
        what="every pod is scraped again",
    )


class Judged:
    """A rollout whose evidence comes from one source."""

    def __init__(self, source: Source, pods: PretendedPods) -> None:
        self._windows, self._pods = Windows(source), pods
        self.window = Window()

    async def read(self, at: datetime | None = None) -> None:
        self.window = await self._windows.update(
            KEY,
            Rollout("fraud-1", "fraud-2"),
            10,
            stable=[target(self._pods, uid) for uid in SIDES["stable"]],
            canary=[target(self._pods, uid) for uid in SIDES["canary"]],
            now=at or now(),
        )

    def results(self) -> list[Result]:
        return [judge(metric, self.window, 0.95, now()) for metric in METRICS]


# ----------------------------------------------------------------------------------------------------- the real one


@pytest.mark.parametrize(
    ("errors", "seconds", "phases"),
    [
        (0, 0.01, [Phase.SUCCESSFUL, Phase.SUCCESSFUL]),
        (200, 0.01, [Phase.FAILED, Phase.SUCCESSFUL]),
        (0, 0.2, [Phase.SUCCESSFUL, Phase.FAILED]),
        (10, 0.01, [Phase.INCONCLUSIVE, Phase.SUCCESSFUL]),
    ],
    ids=["good", "failing", "slow", "doubtful"],
)
async def test_a_version_is_judged_the_same_through_both_sources(
    server: Prometheus, pods: PretendedPods, errors: int, seconds: float, phases: list[Phase]
) -> None:
    direct = PodMetrics()
    async with asking(server.url) as scraped:
        both = [Judged(direct, pods), Judged(scraped, pods)]
        for judged in both:
            await judged.read()
        for uid in SIDES["stable"]:
            pods.of(uid).answer(ok=1000)
        pods.of("c1").answer(ok=1000 - errors, errors=errors, client_errors=50, shed=20, seconds=seconds)
        await asyncio.to_thread(await_scrape, server)
        for judged in both:
            await judged.read()
    await direct.aclose()
    assert [result.phase for result in both[0].results()] == phases
    assert both[1].results() == both[0].results()
    assert both[1].window.strata[10].canary == both[0].window.strata[10].canary
    assert both[1].window.strata[10].stable == both[0].window.strata[10].stable


async def test_a_server_that_starts_again_is_counted_anew(server: Prometheus, pods: PretendedPods) -> None:
    pods.of("c1").answer(ok=100)
    await asyncio.to_thread(await_scrape, server)
    async with asking(server.url) as source:
        judged = Judged(source, pods)
        await judged.read()
        pods.of("c1").restart()
        pods.of("c1").answer(ok=30)
        await asyncio.to_thread(await_scrape, server)
        await judged.read()
        assert judged.window.canary_requests(10) == 30


async def test_a_forged_exporter_changes_no_verdict(server: Prometheus, pods: PretendedPods) -> None:
    """A pod of somebody else's says that it is stable's, and that it failed every request."""
    forged = "\n".join(
        f'rollway_inference_requests_total{{namespace="team-a",pod="fraud-s1",job="team-a/fraud",'
        f'instance="{pods.address_of("s1")}:{pods.port}",protocol="rest",method="infer",outcome="{outcome}"}} {value}'
        for outcome, value in (("ok", 0), ("server_error", 100_000))
    )
    rogue = Rogue(answers(200, f"{forged}\n".encode(), content_type="text/plain; version=0.0.4"))
    try:
        server.aim({"other": {f"127.0.0.1:{rogue.port}": {"namespace": "team-b", "pod": "evil-1"}}})
        await asyncio.to_thread(server.await_up, 4)
        assert server.query(
            'rollway_inference_requests_total{exported_pod="fraud-s1",outcome="server_error"}'
        )
        async with asking(server.url) as source:
            judged = Judged(source, pods)
            await judged.read()
            for uid in ("s1", "s2", "c1"):
                pods.of(uid).answer(ok=1000)
            await asyncio.to_thread(await_scrape, server)
            await judged.read()
            assert judged.window.strata[10].stable.errors == 0
            assert [result.phase for result in judged.results()] == [Phase.SUCCESSFUL] * 2
    finally:
        await asyncio.to_thread(rogue.close)


async def test_a_pod_that_two_jobs_scrape_is_missing_with_what_differs(
    server: Prometheus, pods: PretendedPods
) -> None:
    server.aim({"other": scraped_as(pods, "s1")})
    await asyncio.to_thread(server.await_up, 4)
    async with asking(server.url) as source:
        reading = await source.read([target(pods, "s1"), target(pods, "s2")], now())
        assert reading.missing == {"s1": "fraud-s1 is in Prometheus twice, with another job"}
        assert list(reading.pods) == ["s2"]


async def test_a_killed_prometheus_is_a_provider_error_and_promotes_nobody(
    server: Prometheus, pods: PretendedPods
) -> None:
    async with asking(server.url) as source:
        judged = Judged(source, pods)
        await judged.read()
        server.stop()
        for uid in ("s1", "s2", "c1"):
            pods.of(uid).answer(ok=1000)
        await judged.read(now() + timedelta(seconds=31))
        later = now() + timedelta(seconds=31)
        for metric in METRICS:
            found = judge(metric, judged.window, 0.95, later)
            assert (found.phase, found.reason) == (Phase.INCONCLUSIVE, Lack.PROVIDER_ERROR)
            assert "Prometheus could not be reached: ConnectError" in found.message
        # When it is back what happened meanwhile counts.
        server.start()
        await asyncio.to_thread(server.await_up, 3)
        await asyncio.to_thread(await_scrape, server)
        await judged.read()
        assert judged.window.canary_requests(10) == 1000


async def test_a_pod_that_is_scraped_no_more_is_no_data(server: Prometheus, pods: PretendedPods) -> None:
    server.aim({"models": scraped_as(pods, "s1", "c1")})
    eventually(
        lambda: server.query('up{pod="fraud-s2"}'),
        lambda found: not found,
        within=30,
        what="a target is gone",
    )
    async with asking(server.url) as source:
        reading = await source.read([target(pods, "s2")], now())
        assert reading.absent == {"s2": "fraud-s2 has nothing in Prometheus: is it scraped?"}
    direct = PodMetrics()
    async with asking(server.url) as source:
        reading = await Fallback(source, direct).read([target(pods, "s1"), target(pods, "s2")], now())
        assert {uid: counted.scraped_at is None for uid, counted in reading.pods.items()} == {
            "s1": False,
            "s2": True,
        }
    await direct.aclose()


async def test_a_pod_that_hangs_is_stale_after_a_while(server: Prometheus, pods: PretendedPods) -> None:
    async with asking(server.url) as source:
        reading = await source.read([target(pods, "s1")], now() + timedelta(seconds=60))
        [why] = reading.absent.values()
        assert why.startswith("fraud-s1 was scraped last ")
        assert why.endswith(" s ago, which is too long")


# -------------------------------------------------------------------------------------------------------- templates


def canary_of(name: str) -> ModelDeployment:
    return ModelDeployment.of(
        {
            "metadata": {"name": name, "namespace": KEY.namespace, "uid": "u", "generation": 1},
            "spec": {"model": {"name": "fraud", "alias": "champion"}},
            "status": {
                "stable": {"revision": "fraud-1", "version": "1"},
                "canary": {"revision": "fraud-2", "version": "2"},
            },
        }
    )


TEMPLATES: Final = {
    "served": "sum(rollway_inference_requests_total{namespace={{namespace}},outcome='ok'})",
    "each": "rollway_inference_requests_total{namespace={{namespace}}}",
    "none": "rollway_inference_requests_total{namespace={{namespace}},pod={{name}}}",
    "nan": "0 * sum(up{namespace={{namespace}}}) / 0",
    "named": "count(label_replace(vector(1), 'a', {{name}}, '', '') == 1) * 7",
    "scalar": "7",
    "broken": "sum(up{namespace={{namespace}}",
}


@pytest.mark.parametrize(
    ("template", "value", "why"),
    [
        ("served", 12.0, ""),
        ("each", None, "it has 24 series and not one"),
        ("none", None, "it has no data"),
        ("nan", None, "it is NaN"),
        ("named", 7.0, ""),
        ("scalar", None, "Prometheus did not answer with an instant vector"),
        ("broken", None, "Prometheus answered with status 400: bad_data: "),
        ("refunds", None, "there is no template 'refunds' any more"),
    ],
)
async def test_an_administrators_query_gives_one_number_or_the_reason_why_not(
    server: Prometheus, pods: PretendedPods, template: str, value: float | None, why: str
) -> None:
    for uid in ("s1", "s2", "c1"):
        pods.of(uid).answer(ok=4)
    await asyncio.to_thread(await_scrape, server)
    client = Client(Server(server.url))
    found = await Queries(client, TEMPLATES).measure(canary_of('a"b\\c\n'), Asked("rate", template))
    await client.aclose()
    assert (found.value, found.why[: len(why)] if why else found.why) == (value, why)
    assert found.answered is (template not in ("scalar", "broken", "refunds"))


# ------------------------------------------------------------------------------------------- what answers in its place


async def test_what_the_faults_below_stand_in_for_answers_as_they_do(
    server: Prometheus, pods: PretendedPods
) -> None:
    """The contract of the pretended one: a real answer, given again by it, is read the same."""
    pods.of("s1").answer(ok=7, errors=2)
    await asyncio.to_thread(await_scrape, server)
    pod = target(pods, "s1")
    question = counters_of(KEY.namespace, [pod.name], [f"{pod.address}:{pod.port}"])
    async with httpx.AsyncClient(trust_env=False) as client:
        said = await client.post(f"{server.url}/api/v1/query", data={"query": question})
        refused = await client.post(f"{server.url}/api/v1/query", data={"query": "rate("})
    rogue = Rogue(answers(200, said.content, content_type="application/json"))
    try:
        async with asking(f"http://127.0.0.1:{rogue.port}") as pretended:
            [counted] = (await pretended.read([pod], now())).pods.values()
            assert (counted.ok, counted.server_error) == (7, 2)
            assert rogue.asked == ["/api/v1/query"]
            rogue.behave = answers(refused.status_code, refused.content)
            reading = await pretended.read([pod], now())
            assert reading.missing["s1"].startswith(
                "fraud-s1: Prometheus answered with status 400: bad_data: "
            )
    finally:
        await asyncio.to_thread(rogue.close)


EMPTY: Final = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}).encode()


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (answers(200, b"<html>sign in</html>"), "did not answer with an instant vector"),
        (answers(500, b"oops"), "answered with status 500"),
        (
            answers(302, b"", location="/other"),
            "answered with status 302, a redirect, which is never followed",
        ),
        (
            answers(200, gzip.compress(EMPTY), content_encoding="gzip"),
            "answered compressed, which was not asked for",
        ),
        (trickles, "did not answer within 3 s"),
        (is_silent, "did not answer within 3 s"),
        (never_ends(2 * LARGEST_ANSWER), "answered with more than 16384 KiB"),
        (speaks_another_tongue, "could not be reached: RemoteProtocolError"),
        (promises_more(EMPTY), "could not be reached: RemoteProtocolError"),
    ],
)
async def test_whatever_answers_in_its_place_is_a_reason(behave: Behaviour, why: str) -> None:
    rogue = Rogue(behave)
    pod = Target("u", "fraud-1", "10.0.0.1", 8082, "team-a")
    try:
        async with asking(f"http://127.0.0.1:{rogue.port}") as source:
            reading = await source.read([pod], now())
            assert (reading.pods, reading.missing) == ({}, {"u": f"fraud-1: Prometheus {why}"})
            assert rogue.asked == ["/api/v1/query"]
    finally:
        await asyncio.to_thread(rogue.close)


async def test_an_answer_without_series_is_no_data() -> None:
    rogue = Rogue(answers(200, EMPTY))
    pod = Target("u", "fraud-1", "10.0.0.1", 8082, "team-a")
    async with asking(f"http://127.0.0.1:{rogue.port}") as source:
        assert list((await source.read([pod], now())).absent) == ["u"]
    await asyncio.to_thread(rogue.close)
