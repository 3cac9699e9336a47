"""A cluster with MLflow, an S3 store and Rollway; a namespace for each scenario; and what to look at when one fails.

Tests run side by side, by several pytest workers on one cluster, but for those marked `alone` and, since Rollway is
installed once for all, `gateway`: `tests/e2e/run` runs the three kinds one after the other.
"""

import fcntl
import os
import re
import secrets
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_cluster.cluster import Cluster, select
from rollway_cluster.errors import ClusterError
from rollway_cluster.images import REPOSITORY
from rollway_cluster.install import (
    RUNTIMES,
    Installation,
    client_of,
    install,
    install_gateway,
    install_monitoring,
    load_images,
    together,
)
from rollway_cluster.prometheus import Monitoring
from rollway_cluster.traefik import Gateway
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.operator import Operator
from rollway_testing.registry import Registry
from rollway_testing.scenario import Given, Scenario, Then, When, World

OURS = re.compile(r"(kind-)?rollway(-[a-z0-9-]+)?")
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")

Turn = Callable[[], AbstractContextManager[None]]
"""Holds everybody else off for as long as it lasts."""


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Progress that is seen while it is made, on standard error, which a worker has from its master."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def write(text: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stderr.write(f"  {WORKER} {text}\n" if WORKER else f"  {text}\n")

    return write


@pytest.fixture(scope="session")
def one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Turn:
    """What workers do in turn: the cluster is one, and a release of helm's is changed by one."""
    folder = tmp_path_factory.getbasetemp()
    lock = (folder.parent if WORKER else folder) / "installing"

    @contextmanager
    def turn() -> Iterator[None]:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    return turn


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that CLUSTER selects; one that did not run before does not run afterwards."""
    selected = select()
    if not OURS.fullmatch(selected.context) and selected.context != os.environ.get("ROLLWAY_CONTEXT"):
        pytest.exit(f"{selected.context} is not a cluster for tests; name it in ROLLWAY_CONTEXT if it is", 2)
    was_up = selected.status()
    if WORKER and not was_up:
        raise ClusterError(
            "workers share a cluster that is up: `make cluster-up`, or `make e2e`, which does it"
        )
    selected.up()
    yield selected
    if not was_up:
        selected.down()


def runtime(name: str, image: str) -> dict[str, Any]:
    """What the chart's values say of this inference server, else of one that is used as Rollway's mlserver is."""
    values = yaml.safe_load((REPOSITORY / "charts/rollway/values.yaml").read_text())["runtimes"]
    return dict(values.get(name, values["mlserver"])) | {"image": image}


@pytest.fixture(scope="session")
def monitoring(cluster: Cluster, say: Callable[[str], None], one_at_a_time: Turn) -> Monitoring:
    """The Prometheus that scrapes all that every test of a session runs."""
    with one_at_a_time():
        return install_monitoring(cluster, say)


@pytest.fixture(scope="session")
def installer(
    cluster: Cluster, monitoring: Monitoring, say: Callable[[str], None], one_at_a_time: Turn
) -> Callable[..., Installation]:
    """Install everything, or again: with a gateway, with more values, or with more runtimes, each of an image."""
    client = client_of(cluster)

    def run(
        gateway: Gateway | None = None, *, values: Mapping[str, Any] | None = None, **runtimes: str
    ) -> Installation:
        with one_at_a_time():
            images = load_images(cluster, say=say)
            servers = {name: images[name] for name in RUNTIMES} | runtimes
            chosen = {"runtimes": {name: runtime(name, image) for name, image in servers.items()}}
            chosen = together(chosen, dict(values or {}))
            return install(client, images, values=chosen, gateway=gateway, monitoring=monitoring, say=say)

    return run


@pytest.fixture(scope="session")
def gateway(cluster: Cluster, say: Callable[[str], None], one_at_a_time: Turn) -> Gateway:
    """Gateways, which Rollway makes routes for only where it is installed with them."""
    with one_at_a_time():
        return install_gateway(cluster, say)


@pytest.fixture(scope="session")
def routed(request: pytest.FixtureRequest) -> bool:
    """Whether all that is tested now needs Gateways: Rollway is installed with them from the start then."""
    return all(item.get_closest_marker("gateway") for item in request.session.items)


@pytest.fixture(scope="session")
def world(
    request: pytest.FixtureRequest, cluster: Cluster, installer: Callable[..., Installation], routed: bool
) -> Iterator[World]:
    """The cluster with everything installed."""
    client = client_of(cluster)
    installation = installer(request.getfixturevalue("gateway") if routed else None)
    with Kubernetes.connect(client) as kubernetes:
        registry = Registry(client, kubernetes, installation)
        yield World(cluster, client, kubernetes, installation, registry, Operator(kubernetes))
        registry.close()


def _scenario(world: World, request: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[Scenario]:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_").removesuffix(".py"))
    return Scenario(world, f"{name[:40].strip('-')}-{secrets.token_hex(2)}", folder).running()


@pytest.fixture
def scenario(world: World, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scenario]:
    """A namespace of the test's own."""
    with _scenario(world, request, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared(
    world: World, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenario]:
    """A namespace that the tests of a module share, where each leaves the model serving."""
    with _scenario(world, request, tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.fixture(scope="module")
def serving(shared: Scenario) -> Scenario:
    """It, with the model `prices`, whose first of two versions serves when the tests begin."""
    shared.given.a_model(versions=2)
    shared.given.a_deployment()
    return shared


@pytest.fixture
def given(scenario: Scenario) -> Given:
    return scenario.given


@pytest.fixture
def when(scenario: Scenario) -> When:
    return scenario.when


@pytest.fixture
def then(scenario: Scenario) -> Then:
    return scenario.then


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report: Any = yield
    # When a test is torn down there is no cluster left to ask.
    if report.failed and call.when != "teardown":
        arguments = getattr(item, "funcargs", {})
        for scenario in (arguments.get("scenario"), arguments.get("shared")):
            if scenario is not None:
                report.sections.append((f"namespace {scenario.namespace}", scenario.report()))
    return report
