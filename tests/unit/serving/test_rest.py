"""What the guard lets through, what it refuses, and what it counts: an ASGI conversation without a socket."""

import asyncio
import doctest
import json
import resource
from typing import Any

import pytest

from rollway_serving import connections, rpc
from rollway_serving.lifecycle import Lifecycle
from rollway_serving.limits import Admission
from rollway_serving.metrics import Method, Metrics
from rollway_serving.rest import Guard, MetricsApp, Route
from rollway_serving.settings import Settings
from rollway_serving.signature import Signature

from .test_pod_contract import SETTINGS

PREDICT = Method("rest", "predict", "predictions")
ROUTES = {
    "/predict": Route(verb="POST", method=PREDICT, needs_model=True),
    "/ready": Route(is_probe=True),
    "/live": Route(),
    "/other": Route(verb="POST", method=PREDICT, unknown=True),
}
LIMIT = 100


class Echo:
    """An application that answers with what it was sent, and remembers that it was asked."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.fails = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - ASGI's
        if self.fails:
            raise RuntimeError("a secret")
        message = await receive()
        self.bodies.append(message["body"])
        assert not message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})


class Serving:
    """A guard with everything that it needs."""

    def __init__(self) -> None:
        settings = Settings.parse(SETTINGS | {"limits": {"maxBodyBytes": LIMIT}})
        self.app = Echo()
        self.life = Lifecycle()
        self.life.became_ready()
        self.admission = Admission(concurrency=1, queue=0, seconds=5)
        self.metrics = Metrics(settings, (PREDICT,), self.admission)
        self.guard = Guard(
            self.app,
            route=ROUTES.get,
            settings=settings,
            life=self.life,
            admission=self.admission,
            metrics=self.metrics,
        )

    def ask(self, path: str, *parts: bytes, verb: str = "POST", **headers: str) -> tuple[int, Any, Any]:
        """Send a request in parts; the answer is status, headers and body."""
        return ask(self.guard, path, *parts, verb=verb, **headers)

    def count(self, outcome: str) -> float | None:
        labels = {"protocol": "rest", "method": "predict", "outcome": outcome}
        value: float | None = self.metrics.registry.get_sample_value(
            "rollway_inference_requests_total", labels
        )
        return value


def ask(app: Any, path: str, *parts: bytes, verb: str = "POST", **headers: str) -> tuple[int, Any, Any]:
    sent: list[Any] = []
    waiting: list[Any] = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
        for i, part in enumerate(parts)
    ]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": verb, "path": path, "headers": raw}
    asyncio.run(app(scope, receive, send))
    start, *bodies = sent
    return start["status"], dict(start["headers"]), b"".join(body["body"] for body in bodies)


@pytest.fixture
def serving() -> Serving:
    return Serving()


def test_a_body_reaches_the_application_whole(serving: Serving) -> None:
    assert serving.ask("/predict", b"ab", b"", b"cd", content_length="4") == (200, {}, b"abcd")
    assert serving.ask("/live", verb="GET") == (200, {}, b"")
    assert serving.app.bodies == [b"abcd", b""]
    assert serving.count("ok") == 1


@pytest.mark.parametrize(
    ("path", "verb", "headers", "status", "sentence"),
    [
        ("/nowhere", "GET", {}, 404, "not found"),
        ("/predict", "GET", {}, 405, "method: expected POST, got GET"),
        ("/live", "BREW", {}, 405, "method: expected GET, got BREW"),
        ("/other", "POST", {}, 404, "no such model or version"),
        ("/predict", "POST", {"content_encoding": "gzip"}, 415, "content-encoding: expected none"),
        ("/predict", "POST", {"content_length": "101"}, 413, "body: expected at most 100 bytes, got more"),
    ],
)
def test_what_a_head_says_is_refused_before_the_body_is_read(
    serving: Serving, path: str, verb: str, headers: dict[str, str], status: int, sentence: str
) -> None:
    got, fields, body = serving.ask(path, b"never read", b"nor this", verb=verb, **headers)
    assert (got, fields[b"content-type"]) == (status, b"application/json")
    assert sentence in json.loads(body)["error"]
    assert serving.app.bodies == []


def test_a_body_without_a_length_is_cut_at_the_limit(serving: Serving) -> None:
    at_the_limit = [b"x" * 50, b"x" * 50, b""]
    assert serving.ask("/predict", *at_the_limit, transfer_encoding="chunked")[0] == 200
    over_it = [b"x" * 50, b"x" * 51, b"never asked for"]
    status, _, body = serving.ask("/predict", *over_it, transfer_encoding="chunked")
    assert (status, json.loads(body)["error"]) == (413, "body: expected at most 100 bytes, got more")
    assert len(serving.app.bodies) == 1
    assert serving.count("client_error") == 1


def test_a_client_that_leaves_in_its_body_counts_against_itself(serving: Serving) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        """Nobody reads it."""

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [(b"content-length", b"5")]}
    asyncio.run(serving.guard(scope, receive, send))
    assert (serving.count("client_error"), serving.count("server_error")) == (1, 0)
    assert serving.app.bodies == []


def test_many_unfinished_bodies_are_too_many(serving: Serving) -> None:
    """A body's bytes count while it is read: 64 times the limit is the most that slow clients can hold."""

    async def talk() -> list[int]:
        statuses: list[int] = []
        proceed = asyncio.Event()

        async def one() -> None:
            told = [b"x" * 90]

            async def receive() -> Any:
                if told:
                    return {"type": "http.request", "body": told.pop(), "more_body": True}
                await proceed.wait()
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any) -> None:
                if "status" in message:
                    statuses.append(message["status"])

            headers = [(b"transfer-encoding", b"chunked")]
            scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
            await serving.guard(scope, receive, send)

        clients = [asyncio.create_task(one()) for _ in range(80)]
        while len(statuses) < 80 - 71:  # noqa: ASYNC110 - the clients have no more to say than this
            await asyncio.sleep(0)
        proceed.set()
        await asyncio.gather(*clients)
        return statuses

    statuses = asyncio.run(talk())
    assert (statuses.count(429), statuses.count(200)) == (9, 71)
    assert (
        serving.ask("/predict", b"x", b"y", content_length="2")[0] == 200
    )  # and what has been read is forgotten


def test_until_the_model_is_ready_only_liveness_answers(serving: Serving) -> None:
    serving.guard._life = Lifecycle()  # noqa: SLF001 - a server that still loads
    status, headers, body = serving.ask("/predict", b"x", content_length="1")
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert json.loads(body) == {"error": "the server is loading"}
    assert serving.ask("/ready", verb="GET")[0] == 503
    assert serving.ask("/live", verb="GET")[0] == 200
    assert (serving.count("shed"), serving.count("server_error")) == (1, 0)


def test_while_it_drains_it_answers_and_sends_clients_away(serving: Serving) -> None:
    serving.life.told_to_stop()
    assert serving.ask("/predict", b"x", content_length="1") == (200, {b"connection": b"close"}, b"x")
    status, headers, _ = serving.ask("/ready", verb="GET")
    assert (status, headers[b"connection"]) == (503, b"close")


def test_when_all_places_are_taken_a_request_is_shed_unread(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Admission, "is_full", property(lambda _: True))
    status, headers, _ = serving.ask("/predict", b"x", content_length="1")
    assert (status, headers[b"retry-after"]) == (429, b"1")
    assert serving.ask("/live", verb="GET")[0] == 200
    assert serving.count("shed") == 1
    assert serving.app.bodies == [b""]


def test_an_unforeseen_failure_is_500_and_tells_nothing(serving: Serving) -> None:
    serving.app.fails = True
    status, _, body = serving.ask("/predict", b"x", content_length="1")
    assert (status, json.loads(body)) == (500, {"error": "internal error"})
    assert serving.count("server_error") == 1


@pytest.mark.parametrize(
    ("path", "verb", "status"),
    [
        ("/metrics", "GET", 200),
        ("/metrics", "POST", 405),
        ("/signature", "POST", 405),
        ("/signature/", "GET", 404),
        ("/", "GET", 404),
    ],
)
def test_the_metrics_port_has_two_pages(serving: Serving, path: str, verb: str, status: int) -> None:
    got, headers, body = ask(MetricsApp(serving.metrics), path, verb=verb)
    assert (got, headers.get(b"allow")) == (status, b"GET" if status == 405 else None)
    assert (b"rollway_inference_requests_total" in body) == (status == 200)


def test_the_metrics_port_tells_the_signature_of_a_model_that_is_loaded(serving: Serving) -> None:
    app = MetricsApp(serving.metrics)
    status, headers, body = ask(app, "/signature", verb="GET")
    assert (status, headers[b"content-type"]) == (503, b"application/json")
    assert json.loads(body) == {"error": "the model is not loaded yet"}
    app.loaded(Signature.parse({"inputs": [{"name": "age", "type": "long"}]}))
    status, headers, body = ask(app, "/signature", verb="GET")
    assert (status, headers[b"content-type"]) == (200, b"application/json")
    assert json.loads(body) == {
        "inputs": [{"name": "age", "type": "INT64", "shape": [-1], "required": True}],
        "outputs": [],
    }


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ((1024, 524_288), (16_384, 524_288)),
        ((1024, 4096), (4096, 4096)),
        ((1024, -1), (16_384, -1)),
        ((20_000, 20_000), None),
    ],
)
def test_a_server_may_hold_its_connections_open(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], asked: tuple[int, int] | None
) -> None:
    told = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: told.append(limit))
    connections.allow_files()
    assert told == ([asked] if asked else [])


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(rpc)
    assert (result.attempted > 0, result.failed) == (True, 0)
