"""Notices on their way to receivers that answer as the test says; no time passes but what the test needs."""

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from rollway_operator.domain import Key
from rollway_operator.notify import EVENTS, Command, Notice, Receiver
from rollway_operator.webhooks import ID_HEADER, QUEUE_LENGTH, Patience, Webhooks

SECRET = "hooks.example.com/services/T0/B0/secret"
_NUMBERS = itertools.count(1)
QUICK = Patience(answer=5, first=0.001, longest=0.001, total=60, flush=5)


def notice(number: int = 0, event: str = "Stalled") -> Notice:
    return Notice(
        id=f"{number:032x}",
        event=event,
        reason="SmokeTestFailed",
        message="v2: NaN in row 0",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        key=Key("team-a", "fraud"),
        uid="u",
        generation=1,
        model={"name": "fraud"},
        subject={"revision": "fraud-2", "version": "2"},
        stable={},
        previous={},
        evidence=(),
        commands=(Command("look at it", "kubectl describe mdep fraud --namespace team-a"),),
    )


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    """One of the test's own, whose address is there."""
    file = tmp_path / "url"
    file.write_text(f"https://{SECRET}\n")
    return Receiver(f"ops-{next(_NUMBERS)}", "webhook", file, "key url of Secret slack", EVENTS)


class Answering:
    """A receiver's server: it answers with each of some answers in turn, the last again and again."""

    def __init__(self, *answers: httpx.Response | Exception | int) -> None:
        self._answers = list(answers) or [200]
        self.requests: list[httpx.Request] = []
        self.came = asyncio.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.came.set()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer) if isinstance(answer, int) else answer

    @property
    def ids(self) -> list[str]:
        return [request.headers[ID_HEADER] for request in self.requests]


def webhooks(
    receiver: Receiver, server: Callable[[httpx.Request], Any], patience: Patience = QUICK
) -> Webhooks:
    return Webhooks([receiver], patience=patience, transport=httpx.MockTransport(server))


def counted(receiver: Receiver) -> dict[str, float]:
    def sample(result: str) -> float:
        labels = {"receiver": receiver.name, "result": result}
        return REGISTRY.get_sample_value("rollway_operator_notifications_total", labels) or 0

    return {result: sample(result) for result in ("sent", "retried", "dropped")}


def queued() -> float:
    return REGISTRY.get_sample_value("rollway_operator_notifications_queued") or 0


async def settled(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.001)


async def test_a_notice_is_sent_with_its_id_and_all_facts(receiver: Receiver) -> None:
    server = Answering()
    async with webhooks(receiver, server) as hooks:
        hooks.post(notice(7))
    (request,) = server.requests
    assert str(request.url) == f"https://{SECRET}"
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"
    assert request.headers[ID_HEADER] == json.loads(request.content)["id"] == f"{7:032x}"
    assert counted(receiver) == {"sent": 1, "retried": 0, "dropped": 0}


@pytest.mark.parametrize(
    "failure",
    [
        500,
        503,
        429,
        408,
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("?"),
    ],
    ids=str,
)
async def test_what_passes_is_tried_again_with_the_same_id(
    receiver: Receiver, failure: int | Exception
) -> None:
    server = Answering(failure, failure, 200)
    async with webhooks(receiver, server) as hooks:
        hooks.post(notice())
        await settled(lambda: counted(receiver)["sent"] == 1)
    assert server.ids == [notice().id] * 3
    assert counted(receiver) == {"sent": 1, "retried": 2, "dropped": 0}


@pytest.mark.parametrize("answer", [400, 401, 404, 410, 301, 302, 307])
async def test_a_refusal_or_a_redirect_is_final_and_the_next_notice_is_sent(
    receiver: Receiver, answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Answering(httpx.Response(answer, headers={"Location": "https://elsewhere.example"}), 200)
    async with webhooks(receiver, server) as hooks:
        hooks.post(notice(1))
        hooks.post(notice(2))
        await settled(lambda: sum(counted(receiver).values()) == 2)
    assert [request.url.host for request in server.requests] == ["hooks.example.com"] * 2
    assert counted(receiver) == {"sent": 1, "retried": 0, "dropped": 1}
    assert f"Stalled of team-a/fraud is dropped: it answers {answer}" in caplog.text


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("120", 120.0), ("0", 0.0), ("Thu, 01 Jan 2026 00:02:00 GMT", 120.0), ("soon", None), ("", None)],
)
async def test_a_receiver_is_left_alone_for_as_long_as_it_asks(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, asked: str, seconds: float | None
) -> None:
    monkeypatch.setattr("rollway_operator.webhooks.now", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    server = Answering(httpx.Response(429, headers={"Retry-After": asked}), 200)
    waited: list[float] = []
    hooks = webhooks(receiver, server, Patience(first=8, longest=8, total=1000))

    async def wait(time: float) -> None:
        waited.append(time)

    monkeypatch.setattr(hooks, "_wait", wait)
    async with hooks:
        hooks.post(notice())
        await settled(lambda: counted(receiver)["sent"] == 1)
    assert len(waited) == 1
    assert waited == [seconds] if seconds is not None else 4 <= waited[0] <= 8


async def test_nothing_is_waited_for_longer_than_in_all(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Answering(httpx.Response(429, headers={"Retry-After": "86400"}), 200)
    waited: list[float] = []
    hooks = webhooks(receiver, server, Patience(total=50))

    async def wait(time: float) -> None:
        waited.append(time)

    monkeypatch.setattr(hooks, "_wait", wait)
    async with hooks:
        hooks.post(notice())
        await settled(lambda: counted(receiver)["sent"] == 1)
    assert 49 < waited[0] <= 50


async def test_what_is_too_old_is_dropped_after_one_attempt_at_least(receiver: Receiver) -> None:
    server = Answering(500)
    async with webhooks(receiver, server, Patience(total=0)) as hooks:
        hooks.post(notice(1))
        hooks.post(notice(2))
        await settled(lambda: counted(receiver)["dropped"] == 2)
    assert server.ids == [notice(1).id, notice(2).id]


async def test_a_full_queue_drops_what_comes_counts_it_and_says_so(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    before, open_ = queued(), asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        await open_.wait()
        return httpx.Response(200)

    async with webhooks(receiver, hang) as hooks:
        hooks.post(notice(0))
        await asyncio.sleep(0)  # its sender has taken it
        for number in range(1, QUEUE_LENGTH + 4):
            hooks.post(notice(number))
        assert counted(receiver)["dropped"] == 3
        assert queued() - before == QUEUE_LENGTH + 1
        assert f"{QUEUE_LENGTH} others wait already" in caplog.text
        open_.set()
    assert counted(receiver) == {"sent": QUEUE_LENGTH + 1, "retried": 0, "dropped": 3}
    assert queued() == before


async def test_a_receiver_that_hangs_keeps_no_other_waiting(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "other"
    file.write_text("http://other.example/")
    other = Receiver(f"{receiver.name}-other", "slack", file, "", EVENTS)

    async def one_hangs(request: httpx.Request) -> httpx.Response:
        if request.url.host != "other.example":
            await asyncio.Event().wait()
        return httpx.Response(200)

    transport = httpx.MockTransport(one_hangs)
    async with Webhooks([receiver, other], patience=Patience(flush=0.01), transport=transport) as hooks:
        hooks.post(notice())
        await settled(lambda: counted(other)["sent"] == 1)
    assert counted(receiver) == {"sent": 0, "retried": 0, "dropped": 1}


async def test_the_same_notice_is_sent_once(receiver: Receiver) -> None:
    server = Answering()
    async with webhooks(receiver, server) as hooks:
        hooks.post(notice(1))
        hooks.post(notice(1))
    assert server.ids == [notice(1).id]


async def test_at_the_end_what_waits_is_tried_once_more_and_then_dropped(receiver: Receiver) -> None:
    server = Answering(500)
    async with webhooks(receiver, server, Patience(first=3600, longest=3600, total=7200)) as hooks:
        hooks.post(notice(1))
        hooks.post(notice(2))
        await server.came.wait()
    assert server.ids == [notice(1).id, notice(1).id, notice(2).id]
    assert counted(receiver) == {"sent": 0, "retried": 1, "dropped": 2}


@pytest.mark.parametrize(
    "address", ["", "ftp://x", "https://", "hooks.example.com", "http://[::1", "http://é\x00"]
)
async def test_an_address_that_is_none_is_said_without_it_and_a_better_one_takes_effect(
    receiver: Receiver, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "rollway_operator")
    receiver.url_file.write_text(address)
    server = Answering()
    async with webhooks(receiver, server) as hooks:
        hooks.post(notice())
        await settled(lambda: counted(receiver)["retried"] > 0)
        receiver.url_file.write_text(f"https://{SECRET}")
        await settled(lambda: counted(receiver)["sent"] == 1)
    assert "key url of Secret slack is no address that begins with https:// or http://" in caplog.text


async def test_a_missing_secret_is_said_at_once_and_waited_for(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.url_file.unlink()
    async with webhooks(receiver, Answering()) as hooks:
        assert "key url of Secret slack is not there: nothing is sent until it is" in caplog.text
        hooks.post(notice())
        await settled(lambda: counted(receiver)["retried"] > 0)
        receiver.url_file.write_text(f"https://{SECRET}")
        await settled(lambda: counted(receiver)["sent"] == 1)


@pytest.mark.parametrize(
    "answer",
    [
        200,
        httpx.Response(500, text=SECRET),
        httpx.Response(404, text=SECRET),
        httpx.Response(302, headers={"Location": f"https://{SECRET}/x"}),
        httpx.ConnectError(SECRET),
        httpx.InvalidURL(SECRET),
        ValueError(SECRET),
    ],
    ids=repr,
)
async def test_no_log_has_the_address(
    receiver: Receiver, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "rollway_operator")
    async with webhooks(receiver, Answering(answer), Patience(total=0)) as hooks:
        hooks.post(notice())
    assert "services/T0" not in caplog.text
