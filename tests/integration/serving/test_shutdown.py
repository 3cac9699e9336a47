"""Pods are replaced under constant traffic, and no request is lost.

A small balancer stands for the Service: at SIGTERM it sends new connections to the next pod after a second, as
Kubernetes does, while connections that exist stay where they are until someone closes them.
"""

import asyncio
import collections
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from grpc import aio
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from .conftest import MODEL_NAME, NewPod, Pod, Trained, put_object
from .runtimes import Runtime, alike

REMOVAL_SECONDS = 1.0


@dataclass
class Balancer:
    """Sends each new connection to the present target."""

    target: int
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Balancer"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, back_writer), _copy(back_reader, writer), return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@dataclass
class Traffic:
    """Clients that ask all the time and count what they get."""

    expected: list[float]
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    told_to_stop: float = 0.0
    last_by_grpc: dict[str, float] = field(default_factory=dict)
    stopping: bool = False

    async def keep_asking(self, ask: Callable[[], Awaitable[tuple[str, list[float]]]]) -> None:
        while not self.stopping:
            began = time.monotonic()
            try:
                version, data = await asyncio.wait_for(ask(), 10)
            except Exception as error:  # noqa: BLE001 - every kind of failure counts
                self.failures.append(f"{type(error).__name__}: {error}")
            else:
                self.answers[version] += 1
                if not alike(data, self.expected):
                    self.failures.append(f"wrong answer {data}")
            await asyncio.sleep(max(0.0, 0.05 - (time.monotonic() - began)))


async def run_through_a_replacement(old: Pod, new: Pod, values: Any, expected: list[float]) -> Traffic:
    """Ask by REST (kept-alive and fresh) and gRPC while the old pod is told to stop."""
    traffic = Traffic(expected)
    runtime = old.runtime
    request, message = runtime.request(values), runtime.grpc_request(values)
    async with (
        Balancer(old.settings["httpPort"]).listening() as http,
        Balancer(old.settings["grpcPort"]).listening() as grpc_balancer,
        httpx.AsyncClient(trust_env=False, timeout=10) as kept,
        aio.insecure_channel(f"127.0.0.1:{grpc_balancer.port}") as channel,
    ):
        url = f"http://127.0.0.1:{http.port}{runtime.predict_path}"
        predict = channel.unary_unary(runtime.grpc_predict)

        def read(answer: httpx.Response) -> tuple[str, list[float]]:
            answer.raise_for_status()
            return answer.headers["x-model-revision"], runtime.answers(answer.json()).ravel().tolist()

        async def by_kept_connection() -> tuple[str, list[float]]:
            return read(await kept.post(url, json=request))

        async def by_fresh_connection() -> tuple[str, list[float]]:
            async with httpx.AsyncClient(trust_env=False, timeout=10) as fresh:
                return read(await fresh.post(url, json=request))

        async def by_grpc() -> tuple[str, list[float]]:
            call = predict(message)
            answer = await call
            metadata = dict(await call.initial_metadata())
            traffic.last_by_grpc[metadata["x-model-revision"]] = time.monotonic()
            return metadata["x-model-revision"], runtime.grpc_answers(answer).ravel().tolist()

        async with asyncio.TaskGroup() as group:
            for ask in (
                by_kept_connection,
                by_kept_connection,
                by_fresh_connection,
                by_grpc,
                by_grpc,
                by_grpc,
            ):
                group.create_task(traffic.keep_asking(ask))
            await asyncio.sleep(2)
            traffic.told_to_stop = time.monotonic()
            old.processes[0].send_signal(signal.SIGTERM)
            await asyncio.sleep(REMOVAL_SECONDS)
            http.target, grpc_balancer.target = new.settings["httpPort"], new.settings["grpcPort"]
            await asyncio.to_thread(old.processes[0].wait, 60)
            await asyncio.sleep(1)
            traffic.stopping = True
    return traffic


@pytest.fixture
def probabilities(array_model: Trained) -> tuple[Any, list[float]]:
    values = array_model.rows.to_numpy()[:1]
    return values, array_model.estimator.predict_proba(values).ravel().tolist()


async def test_a_replaced_pod_loses_no_request(
    new_pod: NewPod,
    array_model: Trained,
    probabilities: tuple[np.ndarray[Any, Any], list[float]],
    runtime: Runtime,
) -> None:
    old = new_pod(array_model.folder, runtime=runtime, revision="old")
    new = new_pod(array_model.folder, runtime=runtime, revision="new")
    for pod in (old, new):
        await asyncio.to_thread(pod.serve_until_ready)
    traffic = await run_through_a_replacement(old, new, *probabilities)
    assert traffic.failures == []
    assert min(traffic.answers["old"], traffic.answers["new"]) > 100, traffic.answers
    assert old.processes[0].returncode == 0
    assert old.termination == {}
    # Every gRPC client had moved by itself when the drain ended: calls on their way when gRPC stops are lost.
    assert traffic.last_by_grpc["old"] - traffic.told_to_stop < old.settings["drainSeconds"] - 0.1


async def test_without_its_drain_a_replaced_pod_loses_requests(
    new_pod: NewPod,
    array_model: Trained,
    probabilities: tuple[np.ndarray[Any, Any], list[float]],
    runtime: Runtime,
) -> None:
    old = new_pod(array_model.folder, runtime=runtime, revision="old", drainSeconds=0)
    new = new_pod(array_model.folder, runtime=runtime, revision="new")
    for pod in (old, new):
        await asyncio.to_thread(pod.serve_until_ready)
    traffic = await run_through_a_replacement(old, new, *probabilities)
    assert traffic.failures


async def test_while_it_drains_a_server_is_unready_and_sends_clients_away(
    new_pod: NewPod, array_model: Trained
) -> None:
    pod = new_pod(array_model.folder)
    await asyncio.to_thread(pod.serve_until_ready)
    pod.processes[0].terminate()
    async with httpx.AsyncClient(base_url=pod.http, trust_env=False) as client:
        path = f"/v2/models/{MODEL_NAME}"
        while (answer := await client.get(f"{path}/ready")).status_code == 200:
            pass
        assert answer.status_code == 503
        assert answer.headers["connection"] == "close"
        assert (await client.get("/v2/health/live")).status_code == 200
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    async with aio.insecure_channel(pod.grpc) as channel:
        ready = await GRPCInferenceServiceStub(channel).ModelReady(pb.ModelReadyRequest(name=MODEL_NAME))
        assert not ready.ready


async def test_a_request_that_outlasts_the_drain_is_answered(
    new_pod: NewPod, array_model: Trained, spoilt: Path, runtime: Runtime
) -> None:
    slow = (
        "__import__('types').SimpleNamespace("
        "predict_proba=lambda rows: (__import__('time').sleep(2), rows[:, :2])[1])"
    )
    put_object(spoilt, slow)
    settings = {"drainSeconds": 0.2, "warmup": {"requests": 0}, "smokeTest": {"source": "Disabled"}}
    pod = new_pod(spoilt, runtime=runtime, **settings)
    await asyncio.to_thread(pod.serve_until_ready)
    values = array_model.rows.to_numpy()[:1]
    expected = values[:, :2].tolist()
    async with (
        httpx.AsyncClient(base_url=pod.http, trust_env=False, timeout=20) as client,
        aio.insecure_channel(pod.grpc) as channel,
    ):
        rest = asyncio.create_task(client.post(runtime.predict_path, json=runtime.request(values)))
        predict = channel.unary_unary(runtime.grpc_predict)
        call = asyncio.ensure_future(predict(runtime.grpc_request(values), timeout=20))
        await asyncio.sleep(0.5)  # both are being answered now
        pod.processes[0].terminate()
        assert runtime.answers((await rest).json()).tolist() == expected
        assert runtime.grpc_answers(await call).tolist() == expected
    assert await asyncio.to_thread(pod.processes[0].wait, 10) == 0
