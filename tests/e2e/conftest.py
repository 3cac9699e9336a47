"""A cluster with MLflow, an S3 store and Rollway; a namespace for each scenario; and what to look at when one fails."""

import os
import re
import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_cluster.cluster import Cluster, select
from rollway_cluster.images import REPOSITORY
from rollway_cluster.install import RUNTIMES, Installation, client_of, install, install_gateway, load_images
from rollway_cluster.traefik import Gateway
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.operator import Operator
from rollway_testing.registry import Registry
from rollway_testing.scenario import Given, Scenario, Then, When, World

OURS = re.compile(r"(kind-)?rollway(-[a-z0-9-]+)?")


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Progress that is seen while it is made: a first start takes its time."""
    plugins = request.config.pluginmanager
    terminal, capture = plugins.getplugin("terminalreporter"), plugins.getplugin("capturemanager")

    def write(text: str) -> None:
        if terminal and capture:
            with capture.global_and_fixture_disabled():
                terminal.write_line(f"  {text}")

    return write


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that CLUSTER selects; one that did not run before does not run afterwards."""
    selected = select()
    if not OURS.fullmatch(selected.context) and selected.context != os.environ.get("ROLLWAY_CONTEXT"):
        pytest.exit(f"{selected.context} is not a cluster for tests; name it in ROLLWAY_CONTEXT if it is", 2)
    was_up = selected.status()
    selected.up()
    yield selected
    if not was_up:
        selected.down()


def runtime(name: str, image: str) -> dict[str, Any]:
    """What the chart's values say of this inference server, else of one that is used as Rollway's mlserver is."""
    values = yaml.safe_load((REPOSITORY / "charts/rollway/values.yaml").read_text())["runtimes"]
    return dict(values.get(name, values["mlserver"])) | {"image": image}


@pytest.fixture(scope="session")
def installer(cluster: Cluster, say: Callable[[str], None]) -> Callable[..., Installation]:
    """Install everything, or again with more runtimes, each of an image, or with a gateway to route by weights."""
    client = client_of(cluster)

    def run(gateway: Gateway | None = None, **runtimes: str) -> Installation:
        images = load_images(cluster, say=say)
        servers = {name: images[name] for name in RUNTIMES} | runtimes
        values = {"runtimes": {name: runtime(name, image) for name, image in servers.items()}}
        return install(client, images, values=values, gateway=gateway, say=say)

    return run


@pytest.fixture(scope="session")
def gateway(cluster: Cluster, say: Callable[[str], None]) -> Gateway:
    """Gateways, which Rollway makes routes for only where it is installed with them."""
    return install_gateway(cluster, say)


@pytest.fixture(scope="session")
def world(cluster: Cluster, installer: Callable[..., Installation]) -> Iterator[World]:
    """The cluster with everything installed."""
    client = client_of(cluster)
    installation = installer()
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
