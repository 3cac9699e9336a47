"""A real Traefik that gets no answer from a canary: what it calls the backends, and what Prometheus has of them."""

import asyncio
import functools
import http.client
import json
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest

from rollway_cluster import binaries
from rollway_operator import traffic
from rollway_operator.analysis import ERROR_RATE, Metric, Phase, Window, judge
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import GatewayRef, Key, StoredRevision
from rollway_operator.gateway_source import GatewayRequests
from rollway_operator.metrics_source import Kept, Rollout
from rollway_operator.prometheus import Prometheus as Client
from rollway_operator.prometheus import Server as Address
from rollway_operator.traffic import Share
from rollway_testing import prometheus
from rollway_testing.controlplane import ControlPlane
from rollway_testing.processes import Server, free_port
from rollway_testing.prometheus import Prometheus
from rollway_testing.waiting import eventually

GATEWAY: Final = GatewayRef("front", "models", "rest")
HOST: Final = "models.example.com"
CLASS: Final = "errors"
OURS, OTHER = Key("a-b", "c"), Key("a", "b-c")
"""Two models of two tenants, whose names read the same where a dash is put between them."""
STEP: Final = 50


class Traefik(Server):
    """Traefik as a process that serves one class of Gateways."""

    def __init__(self, path: Path, kubeconfig: Path) -> None:
        super().__init__(path)
        self._kubeconfig = kubeconfig
        self.port, self.admin = free_port(), free_port()

    def command(self) -> list[str]:
        return [
            str(binaries.command("traefik")),
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            f"--entrypoints.web.address=127.0.0.1:{self.port}",
            f"--entrypoints.traefik.address=127.0.0.1:{self.admin}",
            "--ping=true",
            "--metrics.prometheus=true",
            "--providers.kubernetesgateway=true",
            f"--providers.kubernetesgateway.labelselector=class={CLASS}",
            "--providers.providersthrottleduration=0s",
        ]

    def environment(self) -> dict[str, str]:
        inside = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
        kept = {name: value for name, value in os.environ.items() if name not in inside}
        return kept | {"KUBECONFIG": str(self._kubeconfig)}

    @property
    def health_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self.admin}/ping"]

    def ask(self, key: Key, **headers: str) -> int:
        """Ask a model once; gives the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            path = f"/seldon/{key.namespace}/{key.name}/v2"
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers={"Host": HOST, **sent})
            return connection.getresponse().status
        finally:
            connection.close()

    def asked(self, key: Key, times: int) -> Counter[int]:
        """Ask a model so many times; gives how often each status came."""
        return Counter(self.ask(key) for _ in range(times))


@contextmanager
def backend(*, answers: bool) -> Iterator[tuple[str, int]]:
    """A server on an address that an EndpointSlice may have: it answers, or ends connections without an answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if answers:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: it only chooses the address from which it would be.
        probe.connect(("198.51.100.1", 9))
        address = str(probe.getsockname()[0])
    server = ThreadingHTTPServer((address, 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address, int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def revision(key: Key, number: int) -> StoredRevision:
    settings = {"httpPort": 8080, "grpcPort": 8081}
    return StoredRevision(f"{key.name}-{number}", number, {"version": str(number)}, {}, settings)


def deployment(key: Key) -> ModelDeployment:
    return ModelDeployment.model_validate(
        {
            "apiVersion": "rollway.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": "u", "generation": 1},
            "spec": {"model": {"name": "fraud", "alias": "champion"}},
        }
    )


def model(key: Key, backends: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Yield a model's objects: both revisions' Services, with what is behind them, and its route at half and half."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key.namespace}}
    for number, (address, port) in enumerate(backends, start=1):
        metadata = {"name": f"{key.name}-{number}", "namespace": key.namespace}
        named = {"labels": {"kubernetes.io/service-name": metadata["name"]}}
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": "http", "port": 8080}]},
        }
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata | named,
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "http", "port": port}],
        }
    stable, canary = revision(key, 1), revision(key, 2)
    shares = [Share.of(stable, 100 - STEP), Share.of(canary, STEP)]
    route = traffic.http_route(deployment(key), shares, canary, GATEWAY)
    # Without its owner, which is in no API server.
    yield {**route, "metadata": {"name": key.name, "namespace": key.namespace}}


def front(port: int) -> Iterator[dict[str, Any]]:
    """Yield the class that Traefik serves, and its Gateway."""
    group = "gateway.networking.k8s.io/v1"
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GATEWAY.namespace}}
    yield {
        "apiVersion": group,
        "kind": "GatewayClass",
        "metadata": {"name": CLASS, "labels": {"class": CLASS}},
        "spec": {"controllerName": "traefik.io/gateway-controller"},
    }
    listener = {
        "name": "rest",
        "hostname": HOST,
        "port": port,
        "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    yield {
        "apiVersion": group,
        "kind": "Gateway",
        "metadata": {"name": GATEWAY.name, "namespace": GATEWAY.namespace},
        "spec": {"gatewayClassName": CLASS, "listeners": [listener]},
    }


@pytest.fixture(scope="module")
def traefik(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traefik]:
    """Traefik with two models, of which each has a stable that answers and a canary that does not."""
    plane.apply_gateway_api()
    process = Traefik(tmp_path_factory.mktemp("traefik"), plane.kubeconfig)
    with ExitStack() as stack:
        backends = [stack.enter_context(backend(answers=answers)) for answers in (True, False)]
        manifests = [*front(process.port), *model(OURS, backends), *model(OTHER, backends)]
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        plane.kubectl("apply", "--server-side", "--filename=-", given=given)
        stack.callback(plane.kubectl, "delete", "--wait=false", "--filename=-", given=given)
        stack.enter_context(process)
        for key in (OURS, OTHER):
            eventually(
                functools.partial(process.asked, key, 4),
                lambda statuses: statuses.keys() == {200, 502},
                within=30,
                what=f"Traefik leads requests to both revisions of {key.name}",
            )
        yield process


@pytest.fixture(scope="module")
def server(traefik: Traefik, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, which scrapes Traefik as a PodMonitor has it."""
    as_a_pod = {"namespace": GATEWAY.namespace, "pod": "traefik-1"}
    targets = {"traefik": {f"127.0.0.1:{traefik.admin}": as_a_pod}, "again": {}}
    with prometheus.running(tmp_path_factory.mktemp("prometheus"), targets=targets) as running:
        running.await_up(1)
        yield running


class Watched:
    """A canary of one of the models, by what Prometheus has of Traefik."""

    def __init__(self, server: Prometheus, key: Key, namespace: str = GATEWAY.namespace) -> None:
        self._server, self._key, self._namespace = server, key, namespace
        self._kept = Kept()
        self.window = Window()

    async def read(self) -> Window:
        """Wait for a scrape that began after this moment, and read it."""
        since = datetime.now(UTC).timestamp()
        await asyncio.to_thread(
            eventually,
            lambda: self._server.query("timestamp(traefik_config_reloads_total)"),
            lambda found: found != [] and all(float(each["value"][1]) > since for each in found),
            within=20,
            what="Traefik is scraped again",
        )
        client = Client(Address(self._server.url))
        source = GatewayRequests(
            client, GATEWAY, (self._namespace,), timedelta(seconds=30), f"https://{HOST}"
        )
        stable, canary = (revision(self._key, number).name for number in (1, 2))
        route = source.route(deployment(self._key), ())
        sample = await source.read(route, stable, canary, datetime.now(UTC))
        await client.aclose()
        assert sample is not None
        self.window = self._kept.add(self._key, Rollout(stable, canary), sample, STEP)
        return self.window

    @property
    def counted(self) -> Counter[int]:
        """How often stable answered, and how often there was no answer of the canary's."""
        stratum = self.window.strata[STEP]
        assert stratum.stable.errors == 0
        assert stratum.canary.errors == stratum.canary.n
        return Counter({200: stratum.stable.n, 502: stratum.canary.errors})


async def test_what_callers_saw_is_what_is_counted_and_fails_the_canary(
    traefik: Traefik, server: Prometheus
) -> None:
    watched = Watched(server, OURS)
    await watched.read()
    seen = await asyncio.to_thread(traefik.asked, OURS, 200)
    await watched.read()
    assert seen == watched.counted == {200: 100, 502: 100}
    now = datetime.now(UTC)
    assert judge(Metric(ERROR_RATE, 0.02), watched.window, 0.95, now).phase is Phase.FAILED


async def test_requests_to_another_tenant_s_model_and_those_of_the_track_header_are_not_counted(
    traefik: Traefik, server: Prometheus
) -> None:
    watched, other = Watched(server, OURS), Watched(server, OTHER)
    await watched.read()
    await other.read()
    await asyncio.to_thread(traefik.asked, OTHER, 20)
    assert await asyncio.to_thread(traefik.ask, OURS, x_rollway_track="canary") == 502
    await watched.read()
    await other.read()
    assert watched.counted.total() == 0
    assert other.counted == {200: 10, 502: 10}


async def test_a_traefik_that_starts_again_is_counted_anew(traefik: Traefik, server: Prometheus) -> None:
    await asyncio.to_thread(traefik.asked, OURS, 40)
    watched = Watched(server, OURS)
    await watched.read()
    await asyncio.to_thread(traefik.stop)
    await asyncio.to_thread(traefik.start)
    seen: Counter[int] = Counter()
    while not seen[200] and not seen[502]:  # it learns of its routes a moment after it is there
        seen = await asyncio.to_thread(traefik.asked, OURS, 10)
    await watched.read()
    assert watched.counted == Counter({status: seen[status] for status in (200, 502)})


async def test_a_traefik_elsewhere_or_scraped_twice_is_not_believed(
    traefik: Traefik, server: Prometheus
) -> None:
    elsewhere = Watched(server, OURS, namespace="team-b")
    assert not (await elsewhere.read()).canary.seen
    again = {f"127.0.0.1:{traefik.admin}": {"namespace": GATEWAY.namespace, "pod": "traefik-1"}}
    server.aim({"again": again})
    await asyncio.to_thread(server.await_up, 2)
    watched = Watched(server, OURS)
    await watched.read()
    await asyncio.to_thread(traefik.asked, OURS, 20)
    reading = (await watched.read()).canary.reading
    assert reading is not None
    assert not reading.pods
    assert all(why.endswith("is in Prometheus twice") for why in reading.missing.values())
