"""How what Prometheus answers becomes counters, or the reason why it does not."""

import asyncio
import doctest
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from rollway_operator import prometheus_source, promql
from rollway_operator.analysis import Counters, Reading
from rollway_operator.metrics_source import Source, Target
from rollway_operator.prometheus import LARGEST_ANSWER, Prometheus, Server
from rollway_operator.prometheus_source import PODS_A_QUERY, Fallback, PrometheusMetrics
from rollway_operator.telemetry import PROMETHEUS_QUERIES
from rollway_testing.clock import without_waiting

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STALE = timedelta(seconds=90)
POD = Target("u1", "fraud-1", "10.0.0.1", 8082, "team-a")
PUT_THERE = {"namespace": "team-a", "pod": "fraud-1", "instance": "10.0.0.1:8082", "job": "team-a/fraud"}
REQUESTS = "rollway_inference_requests_total"
DURATIONS = "rollway_inference_request_duration_seconds_bucket"

Sample = dict[str, Any]


def sample(name: str, value: str, **labels: str) -> Sample:
    return {"metric": {"__name__": name, **PUT_THERE, **labels}, "value": [1.0, value]}


def requests(value: str, outcome: str = "ok", **labels: str) -> Sample:
    return sample(REQUESTS, value, **{"protocol": "rest", "method": "infer", "outcome": outcome, **labels})


def bucket(bound: str, value: str) -> Sample:
    return sample(DURATIONS, value, protocol="rest", method="infer", outcome="ok", le=bound)


def scraped(seconds_ago: float = 10, /, **labels: str) -> Sample:
    return scraped_at(str((NOW - timedelta(seconds=seconds_ago)).timestamp()), **labels)


def scraped_at(time: str, **labels: str) -> Sample:
    metric = {**PUT_THERE, "protocol": "rest", "method": "infer", "outcome": "ok", promql.SCRAPED_AT: "1"}
    return {"metric": metric | labels, "value": [1.0, time]}


def vector(*samples: Sample, **more: Any) -> bytes:
    data = {"resultType": "vector", "result": list(samples)}
    return json.dumps({"status": "success", "data": data, **more}).encode()


class Asked:
    """A Prometheus in the process: gives one answer, and keeps what it was asked."""

    def __init__(
        self, answer: Callable[[httpx.Request], httpx.Response], server: Server | None = None
    ) -> None:
        self.requests: list[httpx.Request] = []

        async def handle(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return answer(request)

        server = server or Server("http://prometheus:9090/prefix")
        self.prometheus = Prometheus(server, httpx.MockTransport(handle))
        self.source = PrometheusMetrics(self.prometheus, STALE)

    @property
    def questions(self) -> list[str]:
        return [parse_qs(request.content.decode())["query"][0] for request in self.requests]


async def read(body: bytes, status: int = 200, **headers: str) -> Reading:
    return await Asked(lambda _: httpx.Response(status, content=body, headers=headers)).source.read(
        [POD], NOW
    )


def results() -> dict[str, float]:
    counted = {
        sample.labels["result"]: sample.value
        for metric in PROMETHEUS_QUERIES.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    return {result: counted.get(result, 0) for result in ("ok", "error", "timeout")}


def test_the_examples_in_the_docstrings_are_true() -> None:
    for module in (promql, prometheus_source):
        assert doctest.testmod(module).failed == 0


@without_waiting
async def test_counters_are_those_of_the_last_scrape() -> None:
    reading = await read(
        vector(
            requests("7"),
            requests("2", "server_error"),
            requests("1e+06", "client_error"),
            requests("3", "shed", method="predict"),
            bucket("0.1", "4"),
            bucket("+Inf", "7"),
            sample("rollway_inference_requests_in_progress", "1"),
            scraped(10),
        )
    )
    at = NOW - timedelta(seconds=10)
    counters = Counters(7, 2, 1_000_000, 3, {0.1: 4, inf: 7}, in_progress=1, scraped_at=at)
    assert reading == Reading(NOW, {"u1": counters})


@without_waiting
async def test_pods_are_asked_about_by_labels_that_prometheus_puts_there() -> None:
    asked = Asked(lambda _: httpx.Response(200, content=vector()))
    await asked.source.read([POD, replace(POD, uid="u2", name="fraud-2", address="fd00::2")], NOW)
    [request], [question] = asked.requests, asked.questions
    assert (request.method, str(request.url)) == ("POST", "http://prometheus:9090/prefix/api/v1/query")
    assert 'namespace="team-a"' in question
    assert 'pod=~"fraud-1|fraud-2"' in question
    assert r'instance=~"10\\.0\\.0\\.1:8082|\\[fd00::2\\]:8082"' in question
    assert "rate(" not in question


@without_waiting
async def test_many_pods_are_asked_about_in_questions_of_a_bounded_length() -> None:
    asked = Asked(lambda _: httpx.Response(200, content=vector()))
    pods = [replace(POD, uid=f"u{n}", name=f"fraud-{n}") for n in range(2 * PODS_A_QUERY + 1)]
    reading = await asked.source.read(pods, NOW)
    assert len(asked.requests) == 3
    assert len(reading.absent) == len(pods)
    assert await asked.source.read([], NOW) == Reading(NOW, {})


GOOD = requests("3")


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([requests("NaN"), scraped()], f"has a {REQUESTS} that is no count"),
        ([requests("+Inf"), scraped()], f"has a {REQUESTS} that is no count"),
        ([requests("-1"), scraped()], f"has a {REQUESTS} that is no count"),
        ([requests("1.5"), scraped()], f"has a {REQUESTS} that is no count"),
        ([requests("many"), scraped()], f"has a {REQUESTS} that is no count"),
        ([requests("1_000"), scraped()], f"has a {REQUESTS} that is no count"),
        ([GOOD, GOOD, scraped()], f"has {REQUESTS} twice"),
        ([GOOD, requests("4", job="other"), scraped()], "is in Prometheus twice, with another job"),
        (
            [GOOD, requests("4", exported_pod="x"), scraped()],
            "is in Prometheus twice, with another exported_pod",
        ),
        ([requests("3", "lost"), scraped()], f"has a {REQUESTS} with an outcome that nobody knows"),
        ([bucket("+Inf", "3"), scraped()], f"has no {REQUESTS}"),
        ([GOOD, bucket("0.1", "3"), scraped()], f"has a {DURATIONS} that is no histogram"),
        (
            [GOOD, bucket("0.1", "3"), bucket("+Inf", "2"), scraped()],
            f"has a {DURATIONS} that is no histogram",
        ),
        ([GOOD, bucket("soon", "3"), scraped()], f"has a {DURATIONS} with a bound that is no time"),
        ([GOOD], "is in Prometheus without the time of its scrape"),
        ([GOOD, scraped_at("NaN")], "is in Prometheus without the time of its scrape"),
        ([GOOD, scraped_at("1e300")], "is in Prometheus without the time of its scrape"),
        ([GOOD, scraped_at("yesterday")], "is in Prometheus without the time of its scrape"),
        ([GOOD, scraped(-60)], "was scraped 60 s from now: Prometheus' clock or ours is wrong"),
        (
            [requests("1", method=f"m{n}") for n in range(5001)] + [scraped()],
            "has more series than model servers have",
        ),
    ],
)
@without_waiting
async def test_a_pod_whose_series_are_wrong_is_missing_with_the_reason(
    samples: list[Sample], why: str
) -> None:
    assert await read(vector(*samples)) == Reading(NOW, {}, missing={"u1": f"fraud-1 {why}"})


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([], "has nothing in Prometheus: is it scraped?"),
        ([GOOD, scraped(91)], "was scraped last 91 s ago, which is too long"),
        ([GOOD, scraped(10), scraped(91, method="predict")], "was scraped last 91 s ago, which is too long"),
        # Whatever a pod says of itself is beside the labels that Prometheus puts there, and counts for nobody else.
        (
            [requests("3", pod="evil-1", exported_pod="fraud-1"), scraped(pod="evil-1")],
            "has nothing in Prometheus: is it scraped?",
        ),
        ([requests("3", instance="10.6.6.6:8082"), scraped()], "has nothing in Prometheus: is it scraped?"),
        ([requests("3", namespace="team-b"), scraped()], "has nothing in Prometheus: is it scraped?"),
    ],
)
@without_waiting
async def test_a_pod_of_which_prometheus_has_nothing_is_absent(samples: list[Sample], why: str) -> None:
    assert await read(vector(*samples)) == Reading(NOW, {}, absent={"u1": f"fraud-1 {why}"})


@without_waiting
async def test_what_is_wrong_with_one_pod_says_nothing_of_another() -> None:
    other = {"pod": "fraud-2", "instance": "10.0.0.2:8082"}
    body = vector(requests("NaN"), scraped(), requests("4", **other), scraped(10, **other))
    asked = Asked(lambda _: httpx.Response(200, content=body))
    reading = await asked.source.read([POD, replace(POD, uid="u2", name="fraud-2", address="10.0.0.2")], NOW)
    assert (list(reading.pods), list(reading.missing)) == (["u2"], ["u1"])


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"<html>sign in</html>", 200, "Prometheus did not answer with an instant vector"),
        (b"", 200, "Prometheus did not answer with an instant vector"),
        (vector(GOOD)[:-5], 200, "Prometheus did not answer with an instant vector"),
        (
            b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}',
            200,
            "Prometheus did not answer with an instant vector",
        ),
        (
            b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,2]}]}}',
            200,
            "Prometheus did not answer with an instant vector",
        ),
        (vector(GOOD, warnings=["a store\nis away"]), 200, "Prometheus answered in part: a store is away"),
        (b"#" * (LARGEST_ANSWER + 1), 200, "Prometheus answered with more than 16384 KiB"),
        (b"no", 401, "Prometheus answered with status 401"),
        (b"oops", 500, "Prometheus answered with status 500"),
        (
            b'{"status":"error","errorType":"execution","error":"too many\\nsamples"}',
            422,
            "Prometheus answered with status 422: execution: too many samples",
        ),
    ],
)
@without_waiting
async def test_an_answer_that_is_none_is_a_reason_for_every_pod(body: bytes, status: int, why: str) -> None:
    before = results()
    assert await read(body, status) == Reading(NOW, {}, missing={"u1": f"fraud-1: {why}"})
    assert results() == before | {"error": before["error"] + 1}


@without_waiting
async def test_a_redirect_is_not_followed() -> None:
    reading = await read(b"", 302, location="http://169.254.169.254/")
    why = "Prometheus answered with status 302, a redirect, which is never followed"
    assert reading.missing == {"u1": f"fraud-1: {why}"}


@without_waiting
async def test_a_prometheus_that_hangs_is_given_up() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(3600)
        raise AssertionError

    before = results()
    source = PrometheusMetrics(Prometheus(Server("http://p"), httpx.MockTransport(hang)), STALE)
    asked = [source.read([POD], NOW) for _ in range(30)]
    began = asyncio.get_running_loop().time()
    for reading in await asyncio.gather(*asked):
        assert reading.missing == {"u1": "fraud-1: Prometheus did not answer within 3 s"}
    assert asyncio.get_running_loop().time() - began < 4
    assert results() == before | {"timeout": before["timeout"] + 30}


@without_waiting
async def test_a_question_that_is_answered_is_counted() -> None:
    before = results()
    await read(vector())
    assert results() == before | {"ok": before["ok"] + 1}


@without_waiting
async def test_the_token_is_read_for_each_question_and_told_to_nobody(tmp_path: Path) -> None:
    file = tmp_path / "token"
    asked = Asked(lambda _: httpx.Response(200, content=vector()), Server("https://p", token_file=file))
    for text, why in (("", "is none"), ("tö", "cannot be read"), ("a\nb", "is none")):
        file.write_text(text)
        reading = await asked.source.read([POD], NOW)
        assert reading.missing == {"u1": f"fraud-1: the bearer token for Prometheus {why}"}
    assert asked.requests == []
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        await asked.source.read([POD], NOW)
    assert [request.headers["authorization"] for request in asked.requests] == [
        "Bearer first",
        "Bearer second",
    ]


class Known:
    """A source that has some pods."""

    def __init__(self, **pods: Counters) -> None:
        self.pods, self.asked, self.closed = pods, list[str](), False

    async def read(self, pods: Any, at: datetime) -> Reading:
        names = [pod.uid for pod in pods]
        self.asked += names
        found = {uid: self.pods[uid] for uid in names if uid in self.pods}
        return Reading(at, found, missing={uid: f"{uid} is away" for uid in names if uid not in self.pods})

    async def aclose(self) -> None:
        self.closed = True


@without_waiting
async def test_a_fallback_is_asked_only_about_what_is_left() -> None:
    pods = [replace(POD, uid=uid) for uid in ("a", "b", "c")]
    first, other = Known(a=Counters(ok=1)), Known(a=Counters(ok=9), b=Counters(ok=2))
    source: Source = Fallback(first, other)
    reading = await source.read(pods, NOW)
    assert reading == Reading(NOW, {"a": Counters(ok=1), "b": Counters(ok=2)}, missing={"c": "c is away"})
    assert other.asked == ["b", "c"]
    await source.read(pods[:1], NOW)
    assert other.asked == ["b", "c"]
    await source.aclose()
    assert (first.closed, other.closed) == (True, False)
