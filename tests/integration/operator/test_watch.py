"""kopf against a few pages of an API server on loopback: what it is told, and what becomes of it at errors."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration
from prometheus_client import REGISTRY

from rollway_operator import handlers
from rollway_operator.cluster import Cluster
from rollway_testing.processes import free_port

GROUP = "/apis/rollway.dev/v1alpha1"
BREAKS = "rollway_operator_watch_breaks_total"


def listed(kind: str, *names: str) -> dict[str, Any]:
    items = [{"metadata": {"name": name, "namespace": "team-a", "uid": name}} for name in names]
    return {"kind": f"{kind}List", "metadata": {"resourceVersion": "1"}, "items": items}


class Api:
    """Has one ModelDeployment; each watch gets the next of `events`, and then stays open."""

    client: ApiClient

    def __init__(self) -> None:
        self.kinds = {"modeldeployments": "ModelDeployment", "modelregistries": "ModelRegistry"}
        self.events: list[dict[str, Any]] = []
        self.watches = 0

    async def page(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/api":
            return web.json_response({"versions": ["v1"]})
        if path == "/apis":
            versions = {"rollway.dev": {"version": "v1alpha1"}, "apiextensions.k8s.io": {"version": "v1"}}
            groups = [
                {"name": name, "versions": [version], "preferredVersion": version}
                for name, version in versions.items()
            ]
            return web.json_response({"groups": groups})
        discovery = {
            "/api/v1": {"namespaces": "Namespace"},
            "/apis/apiextensions.k8s.io/v1": {"customresourcedefinitions": "CustomResourceDefinition"},
            GROUP: self.kinds,
        }
        if path in discovery:
            found = [
                {
                    "name": plural,
                    "kind": kind,
                    "singularName": kind.lower(),
                    "namespaced": plural == "modeldeployments",
                    "verbs": ["get", "list", "watch"],
                }
                for plural, kind in discovery[path].items()
            ]
            return web.json_response({"resources": found})
        plural = path.removeprefix(f"{GROUP}/")
        if plural not in self.kinds:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        if "watch" not in request.query:
            return web.json_response(listed(self.kinds[plural], "iris"))
        return await self._watch(request, plural)

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        self.watches += 1
        response = web.StreamResponse()
        await response.prepare(request)
        if plural == "modeldeployments" and self.events:
            await response.write(json.dumps(self.events.pop(0)).encode() + b"\n")
        await asyncio.sleep(60)
        return response

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        app, port = web.Application(), free_port()
        app.add_routes([web.get("/{path:.*}", self.page)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
        await runner.cleanup()


class Told:
    """Stands where the controller does."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    def __getattr__(self, what: str) -> Any:
        return lambda body: self.heard.put_nowait(f"{what} {body['metadata']['name']}")

    async def hears(self, what: str) -> None:
        async with asyncio.timeout(20):
            while await self.heard.get() != what:
                pass


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr(handlers, "Backoffs", lambda: iter([0.05] * 1000))
    api = Api()
    async with api.served() as server:

        async def configuration() -> Configuration:
            return Configuration(host=server, client_session_kwargs={"trust_env": False})

        monkeypatch.setattr(handlers, "configuration", configuration)
        api.client = ApiClient(await configuration())
        async with api.client:
            yield api


@asynccontextmanager
async def watched(api: Api) -> AsyncIterator[Told]:
    told: Any = Told()
    watching = asyncio.create_task(handlers.watch(told, Cluster(api.client), ()))
    yield told
    watching.cancel()
    await asyncio.wait({watching})
    # Nothing waits for kopf's thread but this test, which must not leave it to the next.
    for thread in threading.enumerate():
        if thread.name == "kopf":
            await asyncio.to_thread(thread.join, 30)
            assert not thread.is_alive()


def breaks() -> float:
    return REGISTRY.get_sample_value(BREAKS) or 0.0


async def test_what_is_there_and_what_changes_is_told(api: Api) -> None:
    changed = listed("ModelDeployment", "other")["items"][0]
    api.events = [{"type": "ADDED", "object": changed}]
    async with watched(api) as told:
        await told.hears("deployment_changed iris")
        await told.hears("deployment_changed other")


@pytest.mark.parametrize("code", [500, 504])
async def test_an_error_within_a_watch_ends_kopf_and_it_is_begun_again(api: Api, code: int) -> None:
    api.events = [
        {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "leader changed"}}
    ] * 3
    before = breaks()
    async with watched(api) as told:
        await told.hears("deployment_changed iris")
        await told.hears("deployment_changed iris")
    assert breaks() == before + 1


async def test_a_watch_that_is_too_old_is_kopfs_own_to_mend(api: Api) -> None:
    api.events = [{"type": "ERROR", "object": {"kind": "Status", "code": 410}}]
    before = breaks()
    async with watched(api) as told:
        await told.hears("deployment_changed iris")
        await told.hears("deployment_changed iris")
    assert breaks() == before


async def test_kinds_that_are_gone_are_waited_for(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    gone = api.kinds.copy()
    api.kinds.clear()
    async with watched(api) as told:
        async with asyncio.timeout(20):
            while "does not serve modeldeployments, modelregistries" not in caplog.text:  # noqa: ASYNC110 - a log
                await asyncio.sleep(0.01)
        api.kinds |= gone
        await told.hears("deployment_changed iris")
