"""ModelDeployments that are read at the same time are read together."""

import asyncio
from typing import Any

import pytest

from rollway_operator.errors import ClusterError
from rollway_operator.labels import MODEL_DEPLOYMENT
from rollway_operator.observe import CHILDREN, Observer, versions

LISTS = len(CHILDREN) + 1


def model(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "team-a", "uid": f"u-{name}", "resourceVersion": "1"}}


def child(kind: str, name: str, owner: str, version: str = "1", **metadata: Any) -> dict[str, Any]:
    reference = {"kind": "ModelDeployment", "name": owner, "uid": f"u-{owner}", "controller": True}
    told = {"uid": f"{kind}-{name}", "resourceVersion": version, "ownerReferences": [reference]}
    return {"kind": kind, "metadata": {"name": name, "namespace": "team-a"} | told | metadata}


def pod(name: str, owner: str, version: str = "1") -> dict[str, Any]:
    told = {"uid": f"Pod-{name}", "resourceVersion": version, "labels": {MODEL_DEPLOYMENT: owner}}
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "team-a"} | told}


class Listing:
    """Lists what is there, when it is let."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = list(items)
        self.asked: list[tuple[str, ...]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.away = False

    async def list(self, kind: str, *, selector: Any = None, **_: Any) -> Any:
        if kind == CHILDREN[0]:
            self.asked.append(selector[MODEL_DEPLOYMENT])
        found = [item for item in self.items if item["kind"] == kind]
        await self.open.wait()
        if self.away:
            raise ClusterError("away")
        return found

    async def pages(self, kind: str, **_: Any) -> Any:
        for item in self.items:
            if item["kind"] == kind:
                yield [item]


def made(listing: Listing) -> Observer:
    cluster: Any = listing
    return Observer(cluster)


async def test_who_comes_while_a_read_is_under_way_has_a_part_in_the_next_and_not_in_that_one() -> None:
    listing = Listing()
    observer = made(listing)
    listing.open.clear()
    asking = [asyncio.create_task(observer.observe(model("one")))]
    await asyncio.sleep(0)
    listing.items.append(child("ConfigMap", "two-1", "two"))
    asking += [asyncio.create_task(observer.observe(model(name))) for name in ("two", "three")]
    await asyncio.sleep(0)
    listing.open.set()
    _, two, three = await asyncio.gather(*asking)
    assert listing.asked == [("one",), ("three", "two")]
    assert set(two.objects) == {("ConfigMap", "two-1")}
    assert set(three.objects) == set()


async def test_no_more_are_read_together_than_fit_into_an_address() -> None:
    listing = Listing()
    observer = made(listing)
    await asyncio.gather(*(observer.observe(model(f"m{number}")) for number in range(120)))
    assert [len(names) for names in listing.asked] == [1, 50, 50, 19]


async def test_a_failure_is_told_to_each_and_the_next_read_is_a_new_one() -> None:
    listing = Listing()
    observer = made(listing)
    listing.away = True
    told = await asyncio.gather(*(observer.observe(model(n)) for n in "ab"), return_exceptions=True)
    assert [type(error) for error in told] == [ClusterError, ClusterError]
    listing.away = False
    await observer.observe(model("a"))


async def test_what_one_cannot_be_read_from_fails_none_of_the_others() -> None:
    unreadable = child("ControllerRevision", "one-1", "one") | {"revision": 1, "data": {}}
    observer = made(Listing(unreadable, child("Service", "two", "two")))
    one, two = await asyncio.gather(
        *(observer.observe(model(name)) for name in ("one", "two")), return_exceptions=True
    )
    assert isinstance(one, KeyError)
    assert not isinstance(two, BaseException)
    assert set(two.objects) == {("Service", "two")}


async def test_who_is_cut_short_leaves_the_others_their_answer() -> None:
    listing = Listing()
    observer = made(listing)
    listing.open.clear()
    tasks = [asyncio.create_task(observer.observe(model(name))) for name in ("one", "two", "three")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    listing.open.set()
    await tasks[2]
    assert listing.asked == [("one",), ("three",)]


MOVES: dict[str, Any] = {
    "a child": lambda items: items.__setitem__(0, child("Service", "iris", "iris", "2")),
    "a child less": lambda items: items.pop(0),
    "a child more": lambda items: items.append(child("ConfigMap", "iris-1", "iris")),
    "a child made anew": lambda items: items.__setitem__(0, child("Service", "iris", "iris", uid="other")),
    "a child taken away": lambda items: items.__setitem__(0, child("Service", "iris", "other")),
    "a pod": lambda items: items.__setitem__(1, pod("iris-1-x", "iris", "2")),
    "a pod less": lambda items: items.pop(1),
    "an autoscaler": lambda items: items.append(
        {
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "any", "namespace": "team-a"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "iris-1"}},
        }
    ),
}


@pytest.mark.parametrize("move", MOVES)
async def test_the_versions_of_a_resync_are_those_of_a_pass_until_anything_moves(move: str) -> None:
    scaled = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale"}
    listing = Listing(
        child("Service", "iris", "iris"),
        pod("iris-1-x", "iris"),
        child("Deployment", "iris-1", "iris", managedFields=[scaled]),
        child("Service", "other", "other"),
        pod("other-1-x", "other"),
    )
    cluster: Any = listing
    before = (await Observer(cluster).observe(model("iris"))).versions
    assert (await versions(cluster, ()))(model("iris")) == before
    MOVES[move](listing.items)
    after = (await Observer(cluster).observe(model("iris"))).versions
    assert (await versions(cluster, ()))(model("iris")) == after != before


async def test_the_version_of_the_modeldeployment_itself_counts() -> None:
    cluster: Any = Listing()
    changed = model("iris")
    changed["metadata"]["resourceVersion"] = "2"
    of = await versions(cluster, ())
    assert of(changed) != of(model("iris"))


class Serving:
    """An API server that knows some kinds, by the group that defines them."""

    def __init__(self, **known: str) -> None:
        self.known = known
        self.asked: list[tuple[str, str]] = []

    async def served(self, group: str, version: str) -> frozenset[str]:
        self.asked.append((group, version))
        return frozenset(name for name, of in self.known.items() if of == group)


async def test_of_the_optional_kinds_those_are_read_that_the_api_server_knows() -> None:
    cluster: Any = Serving(httproutes="gateway.networking.k8s.io", podmonitors="gateway.networking.k8s.io")
    observer = Observer(cluster, ["HTTPRoute", "GRPCRoute", "PodMonitor"])
    await observer.discover()
    assert list(observer.children) == [*CHILDREN, "HTTPRoute"]
    assert sorted(cluster.asked) == [("gateway.networking.k8s.io", "v1"), ("monitoring.coreos.com", "v1")]
    cluster.known["podmonitors"] = "monitoring.coreos.com"
    await observer.discover()
    assert list(observer.children) == [*CHILDREN, "HTTPRoute", "PodMonitor"]


async def test_nothing_is_asked_for_where_no_optional_kind_is_of_use() -> None:
    cluster: Any = Serving()
    await Observer(cluster).discover()
    assert cluster.asked == []
