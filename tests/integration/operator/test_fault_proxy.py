"""The proxy before a real API server: through it kubectl and the operator's client see what they see without it."""

import json
import subprocess
from collections.abc import AsyncIterator, Callable

import pytest

from rollway_operator.cluster import Cluster
from rollway_operator.errors import ConflictError
from rollway_testing.controlplane import ControlPlane
from rollway_testing.faults import FaultProxy

from .conftest import connected

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "it"}, "data": {"a": "1"}}

Kubectl = Callable[..., str]


@pytest.fixture
def through(plane: ControlPlane, faults: FaultProxy, namespace: str) -> Kubectl:
    """kubectl through the proxy, in the test's namespace."""

    def run(*arguments: str, given: object = None) -> str:
        return plane.kubectl(
            *(f"--kubeconfig={faults.kubeconfig}", f"--namespace={namespace}", *arguments),
            given=json.dumps(given) if given else None,
        )

    return run


@pytest.fixture
async def cluster(faults: FaultProxy) -> AsyncIterator[Cluster]:
    """The operator's client, through the proxy."""
    async with connected(faults.kubeconfig) as client:
        yield Cluster(client)


def test_kubectl_sees_the_same(
    plane: ControlPlane, through: Kubectl, namespace: str, faults: FaultProxy
) -> None:
    through("apply", "--server-side", "--filename=-", given=CONFIG_MAP)
    through("label", "configmap", "it", "b=2")
    for path in (
        "/version",
        "/openapi/v3",
        f"/api/v1/namespaces/{namespace}/configmaps",
        "/apis/rollway.dev/v1alpha1",
    ):
        assert through("get", f"--raw={path}") == plane.kubectl("get", f"--raw={path}")
    with pytest.raises(Exception, match="not found"):
        through("get", "configmap", "other")
    through("delete", "configmap", "it")
    assert plane.kubectl("get", "configmap", "it", f"--namespace={namespace}", "--ignore-not-found") == ""
    assert {"apply configmaps", "patch configmaps", "delete configmaps"} <= faults.counts().keys()


def test_a_watch_comes_through_event_by_event(
    plane: ControlPlane, faults: FaultProxy, namespace: str
) -> None:
    argv = [
        *(str(plane.kubeconfig.parent / "bin" / "kubectl"), f"--kubeconfig={faults.kubeconfig}"),
        *("get", "configmaps", "--watch", "--output=name", f"--namespace={namespace}"),
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        try:
            assert watching.stdout.readline() == "configmap/kube-root-ca.crt\n"
            plane.api.create({**CONFIG_MAP, "metadata": {"name": "it", "namespace": namespace}})
            assert watching.stdout.readline() == "configmap/it\n"
        finally:
            watching.kill()


async def test_the_operators_client_sees_the_same(
    cluster: Cluster, plane: ControlPlane, faults: FaultProxy, namespace: str
) -> None:
    big = {**CONFIG_MAP, "metadata": {"name": "it", "namespace": namespace}, "data": {"a": "x" * 900_000}}
    made = await cluster.create(big)
    assert await cluster.create(big) is None
    direct = plane.api.get("ConfigMap", "it", namespace)
    assert made is not None
    assert direct == made == await cluster.get("ConfigMap", "it", namespace)
    assert (await cluster.apply({**big, "data": {"a": "2"}}))["data"] == {"a": "2"}
    with pytest.raises(ConflictError):
        await cluster.delete("ConfigMap", "it", namespace, "00000000-0000-0000-0000-000000000000")
    listed = await cluster.list("ConfigMap", namespaces=(namespace,))
    assert [item["metadata"]["name"] for item in listed] == ["it", "kube-root-ca.crt"]
