"""An API server with our CRDs, a registry of the test's own models, and the operator as a process."""

import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_kube_config

from rollway_testing.controlplane import ControlPlane
from rollway_testing.faults import FaultProxy
from rollway_testing.kills import Lane
from rollway_testing.kubelet import Kubelet
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.processes import MLflowServer
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story

_NUMBERS = itertools.count(1)

NewLane = Callable[..., Lane]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane that knows our kinds."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        running.apply_crds()
        yield running


@pytest.fixture(scope="session")
def thorough() -> bool:
    """Whether `make test-kill` runs: every point and the full durations, not a sample."""
    return bool(os.environ.get("ROLLWAY_THOROUGH"))


@pytest.fixture(scope="session")
def fault_proxy(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """The proxy before the API server."""
    with FaultProxy(tmp_path_factory.mktemp("faults"), kubeconfig=plane.kubeconfig) as running:
        yield running


@pytest.fixture
def api(plane: ControlPlane) -> Kubernetes:
    """Its API."""
    return plane.api


@pytest.fixture
def namespace(api: Kubernetes) -> Iterator[str]:
    """A namespace of the test's own, whose ModelDeployments go with the test."""
    name = f"test-{next(_NUMBERS)}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    _remove_deployments(api, name)


@pytest.fixture(scope="module", autouse=True)
def tidy(plane: ControlPlane) -> Iterator[None]:
    """Leave no ModelDeployment to the operators of the files that follow: they serve every namespace."""
    yield
    _remove_deployments(plane.api)


def _remove_deployments(api: Kubernetes, namespace: str | None = None) -> None:
    for found in api.list("ModelDeployment", namespace):
        api.delete("ModelDeployment", found["metadata"]["name"], found["metadata"]["namespace"])


@pytest.fixture
def kubelet(api: Kubernetes, namespace: str) -> Kubelet:
    """A pretended kubelet for the test's namespace."""
    return Kubelet(api, namespace)


@pytest.fixture
def model(mlflow_server: MLflowServer) -> RegisteredModel:
    """A registered model with one version, which is champion."""
    registered = RegisteredModel(mlflow_server.uri, f"fraud-{next(_NUMBERS)}")
    registered.point(registered.add_version())
    return registered


@pytest.fixture(scope="session")
def registry(plane: ControlPlane, mlflow_server: MLflowServer) -> str:
    """The ModelRegistry `default`."""
    plane.api.apply(
        {
            "apiVersion": "rollway.dev/v1alpha1",
            "kind": "ModelRegistry",
            "metadata": {"name": "default"},
            "spec": {
                "mlflow": {"trackingURI": mlflow_server.uri, "pollInterval": "1s"},
                "artifacts": [{"prefix": "s3://models/", "endpoint": "http://127.0.0.1:1"}],
            },
        }
    )
    return "default"


@pytest.fixture(scope="session")
def two_versions(mlflow_server: MLflowServer) -> RegisteredModel:
    """A registered model with the versions 1 and 2, which no alias points at."""
    registered = RegisteredModel(mlflow_server.uri, "two-versions")
    for _ in range(2):
        registered.add_version()
    return registered


@pytest.fixture(scope="module")
def new_lane(
    plane: ControlPlane,
    fault_proxy: FaultProxy,
    registry: str,
    two_versions: RegisteredModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[NewLane]:
    """Make namespaces with an operator each, which reaches the API server through the proxy alone."""
    folder = tmp_path_factory.mktemp("operators")
    made: list[Lane] = []

    def make(namespace: str, *, resync: int = 1, routed: bool = False) -> Lane:
        if routed:
            plane.apply_gateway_api()
        # Before the operator starts, which finds out at each resync what the API server knows.
        plane.apply_monitoring_api()
        lane = Lane.on(plane, fault_proxy, folder, namespace, two_versions.name, resync=resync, routed=routed)
        made.append(lane)
        return lane

    yield make
    for lane in made:
        lane.stop()


@pytest.fixture(scope="module")
def lane(new_lane: NewLane, request: pytest.FixtureRequest) -> Lane:
    """The one that the tests of a module share."""
    return new_lane(request.path.stem.removeprefix("test_").replace("_", "-"))


@pytest.fixture(scope="session")
def shared_operator(
    plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator's process, not started."""
    process = OperatorProcess(tmp_path_factory.mktemp("operator"), plane.kubeconfig)
    yield process
    process.stop()


@pytest.fixture
def operator(shared_operator: OperatorProcess, registry: str) -> OperatorProcess:
    """The operator, running."""
    return shared_operator.start()


@pytest.fixture
def faults(fault_proxy: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy before the API server, without any rule before and after the test."""
    fault_proxy.clear()
    yield fault_proxy
    fault_proxy.clear()


@pytest.fixture
def alone(shared_operator: OperatorProcess) -> None:
    """No operator runs beside what the test does itself."""
    shared_operator.stop()


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[ApiClient]:
    """What the operator's `Cluster` talks through."""
    configuration = Configuration()
    await load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(kubeconfig), client_configuration=configuration
    )
    async with ApiClient(configuration) as client:
        yield client


@pytest.fixture
async def client(plane: ControlPlane, alone: None) -> AsyncIterator[ApiClient]:
    """The administrator's, while no operator runs."""
    async with connected(plane.kubeconfig) as found:
        yield found


@pytest.fixture
def story(api: Kubernetes, kubelet: Kubelet, namespace: str, model: RegisteredModel) -> Story:
    """The ModelDeployment `iris`, not applied yet."""
    return Story(api, kubelet, namespace, model.name)
