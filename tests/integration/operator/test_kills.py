"""Roll-outs during which the operator is killed before each of its writes in turn, on a real API server."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kubernetes.aio.client import ApiClient

from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.cluster import Cluster
from rollway_operator.domain import ArtifactSource, ModelVersion, Platform, Resolution, Runtime
from rollway_operator.errors import TemporaryError
from rollway_operator.evidence import Evidence
from rollway_operator.metrics_source import PodMetrics
from rollway_operator.observe import Observer
from rollway_operator.reconcile import Context, reconcile
from rollway_testing.kubelet import Kubelet
from rollway_testing.kubernetes import Kubernetes

RUNTIME = Runtime(
    "mlserver", "img@sha256:0", ("fetch",), 8080, 8081, 8082, "/v2/models/{name}/ready", "/live", 5
)
MOST_WRITES = 34


class KilledError(Exception):
    """The process is no more."""


class MortalCluster(Cluster):
    """Dies before one of its writes; writes of Events do not count."""

    def __init__(self, client: ApiClient) -> None:
        super().__init__(client)
        self.writes = 0
        self.dies_before: int | None = None

    async def _call(self, method: str, path: str, *rest: Any, **more: Any) -> tuple[int, bytes]:
        if method != "GET" and not path.endswith("/events"):
            if self.writes == self.dies_before:
                self.dies_before = None
                raise KilledError
            self.writes += 1
        return await super()._call(method, path, *rest, **more)


class FixedRegistry:
    """Names one version, at once and confirmed."""

    def __init__(self) -> None:
        self.version = "1"

    async def resolve(self, _: ModelDeployment) -> Resolution:
        version = ModelVersion("fraud", self.version, f"run-{self.version}", f"s3://models/{self.version}")
        return Resolution(
            "Resolved", "", version, ArtifactSource("s3://models/"), poll_in=timedelta(minutes=1)
        )


class Rollout:
    """One ModelDeployment of many in a namespace, worked on by passes in this process."""

    def __init__(self, api: Kubernetes, cluster: MortalCluster, namespace: str, name: str) -> None:
        self.api, self.cluster, self.namespace, self.name = api, cluster, namespace, name
        self.registry = FixedRegistry()
        resolver: Any = self.registry
        platform = Platform({"mlserver": RUNTIME})
        self._context = Context(
            cluster, Observer(cluster), resolver, platform, Evidence(PodMetrics()), lambda _: None
        )
        spec = {
            "model": {"name": "fraud", "alias": "champion"},
            "preTraffic": {"signatureCompatibility": "Ignore"},
            "strategy": {"rollingUpdate": {}},
            "revisionHistoryLimit": 0,
        }
        kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelDeployment"}
        api.create({**kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})

    async def make_a_pass(self) -> bool:
        """Make one pass; tell whether it wrote anything."""
        before = self.cluster.writes
        body = await self.cluster.get("ModelDeployment", self.name, self.namespace)
        assert body is not None
        try:
            await reconcile(self._context, body)
        except (KilledError, TemporaryError):
            return True
        return self.cluster.writes > before

    def end(self) -> dict[str, Any]:
        """Say what is there, with what differs between equal roll-outs left out."""
        own = self.api.get("ModelDeployment", self.name, self.namespace)
        assert own is not None
        found: dict[str, Any] = {"status": _timeless(own["status"])}
        for kind in ("ControllerRevision", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget"):
            for item in self.api.list(kind, self.namespace, {"rollway.dev/model-deployment": self.name}):
                found[f"{kind} {item['metadata']['name']}"] = _essence(kind, item)
        # The names of objects, and so their hashes, are all that tells these roll-outs apart.
        text = re.sub(rf"\b{self.name}\b", "it", json.dumps(found, sort_keys=True))
        ended: dict[str, Any] = json.loads(text)
        return ended


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _timeless(item)
            for key, item in value.items()
            if key not in ("lastTransitionTime", "targetSince", "startedAt", "finishedAt")
        }
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _essence(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: item["metadata"].get(key) for key in ("labels", "annotations")}
    if kind == "Deployment":
        metadata["annotations"] = None
        return {"metadata": metadata, "replicas": item["spec"]["replicas"]}
    if kind in ("Service", "PodDisruptionBudget"):
        return {"metadata": metadata, "selector": item["spec"]["selector"]}
    return {
        "metadata": metadata,
        "revision": item.get("revision"),
        "digest": item.get("data", {}).get("digest"),
    }


async def test_killed_before_any_write_a_rollout_comes_to_the_same_end(
    api: Kubernetes, client: ApiClient, namespace: str, kubelet: Kubelet
) -> None:
    undisturbed = Rollout(api, MortalCluster(client), namespace, "calm")
    rollouts = [undisturbed]
    for number in range(MOST_WRITES):
        cluster = MortalCluster(client)
        cluster.dies_before = number
        rollouts.append(Rollout(api, cluster, namespace, f"k{number}"))
    for version in ("1", "2"):
        for rollout in rollouts:
            rollout.registry.version = version
        await settle(rollouts, kubelet, version)
    assert undisturbed.cluster.writes < MOST_WRITES, "each write of a roll-out has one that dies before it"
    assert sum(rollout.cluster.dies_before is None for rollout in rollouts[1:]) >= undisturbed.cluster.writes
    expected = undisturbed.end()
    for rollout in rollouts:
        ended = rollout.end()
        wrong = {key: (ended.get(key), expected.get(key)) for key in ended | expected}
        assert not {key: both for key, both in wrong.items() if both[0] != both[1]}, rollout.name


async def settle(rollouts: list[Rollout], kubelet: Kubelet, version: str) -> None:
    """Make passes over all until the version serves everywhere and nobody writes any more."""
    for _ in range(60):
        kubelet.step()
        wrote = [await rollout.make_a_pass() for rollout in rollouts]
        items = rollouts[0].api.list("ModelDeployment", rollouts[0].namespace)
        serving = [item.get("status", {}).get("stable", {}).get("version") == version for item in items]
        if not any(wrote) and all(serving):
            return
    raise AssertionError(f"version {version} does not serve everywhere: {serving}, {wrote}")
