"""The proxy before a small server: what passes is the same, what a rule says happens, and each rule counts."""

import asyncio
import gzip
import io
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from rollway_faultproxy.proxy import Proxy, serving
from rollway_faultproxy.rules import (
    Action,
    Answer,
    Cut,
    Delay,
    Freeze,
    HalfClose,
    Hold,
    Kill,
    Match,
    Pass,
    Rule,
    Watch,
)
from rollway_faultproxy.upstream import Upstream
from rollway_testing.faults import FaultProxy

WATCH = "/api/v1/pods?watch=1"
EVENTS = [{"type": "ADDED", "object": {"metadata": {"name": f"pod-{number}"}}} for number in range(2)]
TEXT = "a long answer, " * 1000


@dataclass
class Behind:
    """A server that tells what it was sent, and keeps a record."""

    seen: list[str] = field(default_factory=list)
    going_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(f"{request.method} {request.raw_path}")
        if "watch=1" in request.raw_path:
            return await self._events(request)
        if request.path == "/text":
            return web.Response(text=TEXT)
        told = {"method": request.method, "path": request.raw_path, "body": body.decode("latin-1")}
        told |= {name: request.headers.get(name, "") for name in ("Host", "Authorization", "X-One")}
        return web.json_response(told, status=201, headers={"X-Two": "2"})

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in EVENTS:
            await response.write(json.dumps(event).encode() + b"\n")
        await self.going_on.wait()
        return response


@dataclass
class World:
    """A caller, the proxy, and the server behind it."""

    behind: Behind
    proxy: Proxy
    url: str
    caller: aiohttp.ClientSession

    def put(self, action: Action, *, times: int | None = None, skip: int = 0, **match: Any) -> None:
        self.proxy.rules.put("it", Rule(action=action, match=Match(**match), times=times, skip=skip))

    @property
    def fired(self) -> int:
        return int(self.proxy.rules.shown()["it"]["fired"])

    async def ask(self, path: str = "/", method: str = "GET", **more: Any) -> tuple[int, str]:
        async with self.caller.request(method, self.url + path, **more) as answer:
            return answer.status, await answer.text()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        async with self.caller.get(self.url + WATCH) as answer:

            async def events() -> AsyncIterator[dict[str, Any]]:
                async for line in answer.content:
                    yield json.loads(line)

            yield events()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    behind = Behind()
    async with serving(behind.answer) as upstream:
        proxy = Proxy(Upstream(upstream))
        async with proxy.listen() as url, aiohttp.ClientSession() as caller:
            yield World(behind, proxy, url, caller)
            behind.going_on.set()


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process that a rule may end."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


async def test_what_no_rule_meets_passes_as_it_is(world: World) -> None:
    body = bytes(range(256)) * 8000  # more than a server takes by default
    url = URL(f"{world.url}/a%2Fb/?x=%20&y", encoded=True)
    async with world.caller.put(url, data=io.BytesIO(body), headers={"X-One": "1"}) as answer:
        told = await answer.json()
        assert (answer.status, answer.headers["X-Two"]) == (201, "2")
    assert told["path"] == "/a%2Fb/?x=%20&y"
    assert told["body"].encode("latin-1") == body
    assert (told["Host"], told["X-One"]) == (world.url.removeprefix("http://"), "1")


async def test_a_compressed_body_stays_compressed(world: World) -> None:
    body = gzip.compress(b"text")
    _, told = await world.ask(method="POST", data=body, headers={"Content-Encoding": "gzip"})
    assert json.loads(told)["body"].encode("latin-1") == body


async def test_the_proxys_login_takes_the_place_of_the_callers() -> None:
    behind = Behind()
    async with serving(behind.answer) as upstream:
        proxy = Proxy(Upstream(upstream, token="own"))
        async with proxy.listen() as url, aiohttp.ClientSession() as caller:
            world = World(behind, proxy, url, caller)
            _, told = await world.ask(headers={"Authorization": "Bearer theirs"})
    assert json.loads(told)["Authorization"] == "Bearer own"


async def test_an_answer_of_the_rules_never_reaches_the_server(world: World) -> None:
    world.put(Answer(status=429, headers={"Retry-After": "7"}, body="slowly"), method="POST", times=1)
    async with world.caller.post(world.url) as answer:
        assert (answer.status, answer.headers["Retry-After"], await answer.text()) == (429, "7", "slowly")
    assert world.behind.seen == []
    assert (await world.ask())[0] == (await world.ask(method="POST"))[0] == 201
    assert world.fired == 1


async def test_a_delayed_call_comes_later(world: World) -> None:
    world.put(Delay(seconds=0.2))
    started = asyncio.get_running_loop().time()
    assert (await world.ask())[0] == 201
    assert asyncio.get_running_loop().time() - started >= 0.2
    assert world.fired == 1


async def test_a_held_call_goes_on_when_the_rule_goes(world: World) -> None:
    world.put(Hold())
    asking = asyncio.create_task(world.ask())
    await until(lambda: world.fired)
    assert world.behind.seen == []
    world.proxy.rules.clear()
    assert (await asking)[0] == 201


@pytest.mark.parametrize(("when", "arrives"), [("before", False), ("after", True), ("amid", True)])
async def test_a_cut_connection_is_cut_there(world: World, when: Any, arrives: bool) -> None:
    world.put(Cut(when=when), times=1)
    with pytest.raises((aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)):
        # Not a GET: a caller may send that once more by itself.
        await world.ask("/text", "POST")
    assert world.fired == 1
    assert len(world.behind.seen) == arrives
    assert await world.ask("/text", "POST") == (200, TEXT)


async def test_a_half_closed_answer_ends_too_soon(world: World) -> None:
    world.put(HalfClose(), times=1)
    with pytest.raises(aiohttp.ClientPayloadError):
        await world.ask("/text", "POST")
    assert world.fired == 1
    assert world.behind.seen == ["POST /text"]


@pytest.mark.parametrize(("when", "arrives"), [("before", False), ("after", True)])
async def test_a_process_is_killed_around_the_call(
    world: World, victim: subprocess.Popen[bytes], when: Any, arrives: bool
) -> None:
    world.put(Kill(pid=victim.pid, when=when), method="POST", skip=1, times=1)
    await world.ask(method="POST")
    assert victim.poll() is None
    with pytest.raises(aiohttp.ClientConnectionError):
        await world.ask(method="POST")
    assert await asyncio.to_thread(victim.wait, 5) == -signal.SIGKILL
    assert len(world.behind.seen) == 1 + arrives
    assert world.fired == 1


async def test_a_frozen_process_has_sent_its_call_and_thaws(
    world: World, victim: subprocess.Popen[bytes]
) -> None:
    world.put(Freeze(pid=victim.pid, seconds=0.3), times=1)
    assert (await world.ask())[0] == 201
    assert world.behind.seen == ["GET /"]
    await until(lambda: state(victim.pid) == "T")
    await until(lambda: state(victim.pid) != "T")
    assert victim.poll() is None


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.02)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


async def test_events_pass_one_by_one(world: World) -> None:
    async with world.watch() as events:
        assert [await anext(events) for _ in EVENTS] == EVENTS
        world.behind.going_on.set()
        assert [event async for event in events] == []


async def test_events_are_put_in_and_changed_and_the_stream_ends(world: World) -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
    world.put(Watch(replace={"pod-0": "x"}, inject=(gone,), after=0.1, close_after=0.1), verb="watch")
    async with world.watch() as events:
        seen = [event async for event in events]
    assert [event["type"] for event in seen] == ["ADDED", "ADDED", "ERROR"]
    assert seen[0]["object"]["metadata"]["name"] == "x"
    assert world.fired == 1


async def test_a_silent_stream_says_nothing_and_does_not_end(world: World) -> None:
    world.put(Watch(silent=True), verb="watch")
    async with world.watch() as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.3)
    assert world.fired == 1


async def test_streams_that_are_open_can_be_ended(world: World) -> None:
    async with world.watch() as events:
        await anext(events)
        assert world.proxy.end_streams() == 1
        with pytest.raises(aiohttp.ClientPayloadError):
            _ = [event async for event in events]
    world.behind.going_on.set()
    await until(lambda: world.proxy.end_streams() == 0)


async def test_a_call_whose_caller_went_away_still_arrives(world: World) -> None:
    world.put(Delay(seconds=0.2))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.ask(method="POST"), 0.05)
    await until(lambda: world.behind.seen)
    assert world.fired == 1


async def test_a_server_that_is_down_is_down_through_the_proxy() -> None:
    proxy = Proxy(Upstream("http://127.0.0.1:1"))
    async with proxy.listen() as url, aiohttp.ClientSession() as caller:
        with pytest.raises(aiohttp.ClientConnectionError):
            await World(Behind(), proxy, url, caller).ask(method="POST")


async def test_the_record_says_what_became_of_each_call(world: World) -> None:
    world.put(Cut(when="before"), method="POST")
    await world.ask("/api/v1/pods")
    with pytest.raises(aiohttp.ClientConnectionError):
        await world.ask("/api/v1/namespaces/a/pods", "POST")
    told = [(call["verb"], call["status"], call["rule"]) for call in world.proxy.journal.after(0)]
    assert told == [("list", 201, None), ("create", None, "it")]


async def test_as_a_process_it_takes_its_rules_by_http(tmp_path: Path) -> None:
    behind = Behind()
    async with serving(behind.answer) as upstream:
        with await asyncio.to_thread(FaultProxy(tmp_path, upstream=upstream).start) as proxy:
            await asyncio.to_thread(proxy.put, "busy", Rule(action=Answer(status=503), times=1))
            async with aiohttp.ClientSession() as caller:
                for status in (503, 201):
                    async with caller.get(proxy.url) as answer:
                        assert answer.status == status
            assert await asyncio.to_thread(proxy.fired, "busy") == 1
            calls = await asyncio.to_thread(proxy.calls)
            assert [call["rule"] for call in calls] == ["busy", None]
            await asyncio.to_thread(proxy.clear)
            await asyncio.to_thread(proxy.put, "counted", Rule(action=Pass()))
            assert await asyncio.to_thread(proxy.fired, "counted") == 0
