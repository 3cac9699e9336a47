"""What the load tests run against: an API server without a node, a small tracking server, and the operator."""

import asyncio
import threading
from collections.abc import Iterator

import httpx
import pytest
from aiohttp import web

from rollway_faultproxy.proxy import serving
from rollway_testing.controlplane import ControlPlane
from rollway_testing.fake_mlflow import FakeMLflow
from rollway_testing.faults import FaultProxy


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane that knows our kinds."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        running.apply_crds()
        yield running


@pytest.fixture(scope="session")
def proxy(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A proxy that only counts."""
    with FaultProxy(tmp_path_factory.mktemp("proxy"), kubeconfig=plane.kubeconfig) as running:
        yield running


@pytest.fixture(scope="session")
def mlflow() -> Iterator[str]:
    """A tracking server with ten models; its address."""
    fake = FakeMLflow()
    for number in range(10):
        fake.register(f"model-{number}", "1", f"s3://models/model-{number}", "champion")

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked = httpx.Request(request.method, f"http://mlflow{request.raw_path}")
        told = await fake.transport.handle_async_request(asked)
        return web.Response(status=told.status_code, body=told.read(), headers=dict(told.headers))

    address: list[str] = []
    started, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(answer) as url:
            address.append(url)
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    started.wait(10)
    yield address[0]
    ended.set()
    thread.join()
