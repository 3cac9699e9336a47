"""The operator's client and its comparison against a real API server, without the operator's process."""

import asyncio
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from rollway_operator.apply import apply
from rollway_operator.cluster import Cluster
from rollway_operator.differs import differs
from rollway_operator.domain import Observed, Plan
from rollway_operator.errors import ClusterError, ConflictError
from rollway_operator.observe import now
from rollway_testing.kubernetes import Kubernetes


@pytest.fixture
def cluster(client: ApiClient) -> Cluster:
    return Cluster(client)


def revision(namespace: str, **data: Any) -> dict[str, Any]:
    metadata = {"name": "iris-1", "namespace": namespace}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": 1,
        "data": data,
    }


def config_map(namespace: str, name: str = "iris", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


async def test_what_is_missing_is_none_and_what_exists_is_not_created_again(
    cluster: Cluster, namespace: str
) -> None:
    assert await cluster.get("ConfigMap", "iris", namespace) is None
    assert await cluster.create(config_map(namespace, a="1")) is not None
    assert await cluster.create(config_map(namespace, a="2")) is None
    found = await cluster.get("ConfigMap", "iris", namespace)
    assert found is not None
    assert (found["kind"], found["data"]) == ("ConfigMap", {"a": "1"})


async def test_annotations_of_a_controller_revision_may_change_after_it_was_made(
    cluster: Cluster, namespace: str
) -> None:
    odd = {
        "z": 1,
        "a": {"float": 30.0, "html": "<&>", "text": "é\u2028", "long": 1e21, "none": None},
        "empty": {},
    }
    desired = revision(namespace, **odd)
    made = await cluster.create(desired)
    assert made is not None
    assert differs(desired, made) is None
    desired["metadata"]["annotations"] = {"rollway.dev/digest": "sha256:1"}
    assert differs(desired, await cluster.apply(desired)) is None


async def test_lists_say_their_kind_and_go_on_page_by_page(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollway_operator.cluster._PAGE", "2")
    for number in range(5):
        made = config_map(namespace, f"iris-{number}")
        made["metadata"]["labels"] = {"app": "iris"}
        await cluster.create(made)
    found = await cluster.list("ConfigMap", namespaces=(namespace,), selector={"app": "iris"})
    assert [item["metadata"]["name"] for item in found] == [f"iris-{number}" for number in range(5)]
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "ConfigMap")}
    everywhere = await cluster.list("ConfigMap", selector={"app": "iris"})
    assert {item["metadata"]["uid"] for item in everywhere} >= {item["metadata"]["uid"] for item in found}


async def test_a_field_that_is_no_longer_applied_goes_away(cluster: Cluster, namespace: str) -> None:
    await cluster.apply(config_map(namespace, a="1", b="2"))
    live = await cluster.get("ConfigMap", "iris", namespace)
    assert live is not None
    desired = config_map(namespace, a="1")
    assert differs(desired, live) is not None
    assert (await cluster.apply(desired))["data"] == {"a": "1"}


async def test_a_status_goes_only_onto_the_object_that_was_read(
    cluster: Cluster, namespace: str, api: Kubernetes
) -> None:
    kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelDeployment"}
    metadata = {"name": "iris", "namespace": namespace}
    made = api.create(
        {**kind, "metadata": metadata, "spec": {"model": {"name": "fraud", "alias": "champion"}}}
    )
    seen = metadata | {"resourceVersion": made["metadata"]["resourceVersion"]}
    await cluster.apply_status({**kind, "metadata": seen, "status": {"message": "first"}})
    with pytest.raises(ConflictError):
        await cluster.apply_status({**kind, "metadata": seen, "status": {"message": "second"}})
    found = await cluster.get("ModelDeployment", "iris", namespace)
    assert found is not None
    assert found["status"]["message"] == "first"


async def test_only_the_very_object_that_was_seen_is_deleted(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(config_map(namespace))
    assert made is not None
    with pytest.raises(ConflictError):
        await cluster.delete("ConfigMap", "iris", namespace, "00000000-0000-0000-0000-000000000000")
    await cluster.delete("ConfigMap", "iris", namespace, made["metadata"]["uid"])
    await cluster.delete("ConfigMap", "iris", namespace, made["metadata"]["uid"])
    assert await cluster.get("ConfigMap", "iris", namespace) is None


async def test_what_the_server_refuses_is_a_cluster_error_with_its_words(
    cluster: Cluster, namespace: str
) -> None:
    broken = config_map(namespace) | {"data": {"not a key": "1"}}
    with pytest.raises(ClusterError, match="a valid config key"):
        await cluster.create(broken)


async def test_a_server_that_does_not_answer_is_a_cluster_error() -> None:
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as client:
        with pytest.raises(ClusterError):
            await Cluster(client).get("ConfigMap", "iris", "default")


async def test_two_passes_at_once_make_no_child_twice(
    cluster: Cluster, namespace: str, api: Kubernetes
) -> None:
    kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelDeployment"}
    metadata = {"name": "iris", "namespace": namespace}
    body = api.create(
        {**kind, "metadata": metadata, "spec": {"model": {"name": "fraud", "alias": "champion"}}}
    )
    owner = {**kind, "name": "iris", "uid": body["metadata"]["uid"], "controller": True}
    child = config_map(namespace, a="1")
    child["metadata"]["ownerReferences"] = [owner]
    plan = Plan(status={"message": "one"}, objects=(child,))
    ended = await asyncio.gather(
        *(apply(cluster, plan, body, Observed(now=now()), lambda *_: None) for _ in range(5)),
        return_exceptions=True,
    )
    assert [end for end in ended if end is None] == [None]
    assert all(isinstance(end, ConflictError) for end in ended if end is not None)
