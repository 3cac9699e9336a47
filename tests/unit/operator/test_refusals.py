"""Writes that the API server refuses for good: said once in status, never in turn with something else."""

import copy
import itertools
from typing import Any

import pytest

from rollway_operator.domain import ModelVersion, Platform, Resolution
from rollway_operator.errors import (
    ClusterError,
    ConflictError,
    EndingError,
    ForbiddenError,
    InvalidError,
)
from rollway_operator.evidence import Evidence
from rollway_operator.metrics_source import PodMetrics
from rollway_operator.notify import Notice
from rollway_operator.observe import Observer
from rollway_operator.reconcile import Context, reconcile
from rollway_testing.world import RUNTIME, SOURCE

RESOLVED = Resolution(
    "Resolved", "champion is v1", ModelVersion("fraud", "1", "run1", "s3://models/1"), SOURCE
)
QUOTA = 'create ConfigMap iris-1: 403 Forbidden: configmaps "iris-1" is forbidden: exceeded quota: small'
RBAC = (
    'create ConfigMap iris-1: 403 Forbidden: configmaps is forbidden: User "system:serviceaccount:r:o" cannot create '
    'resource "configmaps" in API group "" in the namespace "team-a"'
)
POLICY = "create ConfigMap iris-1: 403 Forbidden: admission webhook denied the request: no team label"
WEBHOOK = 'create ConfigMap iris-1: 400 : admission webhook "a" denied the request: no team label'
INVALID = "create ConfigMap iris-1: 422 Invalid: data: Too long"


class Cluster:
    """Keeps objects with versions, and refuses to make ConfigMaps as long as `refusal` is set."""

    def __init__(self) -> None:
        self._versions = map(str, itertools.count(2))
        metadata = {
            "name": "iris",
            "namespace": "team-a",
            "uid": "u",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T11:00:00Z",
        }
        self.own: dict[str, Any] = {
            "kind": "ModelDeployment",
            "metadata": metadata,
            "spec": {"model": {"name": "fraud", "alias": "champion"}},
        }
        self.children: dict[tuple[str, str], dict[str, Any]] = {}
        self.refusal: ClusterError | None = None
        self.statuses = 0
        self.events: list[str] = []

    async def get(self, kind: str, name: str, _namespace: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.children.get((kind, name)))

    async def list(self, kind: str, **_: Any) -> list[dict[str, Any]]:
        return [copy.deepcopy(item) for (known, _), item in self.children.items() if known == kind]

    async def make(self, manifest: dict[str, Any]) -> dict[str, Any]:
        kind = manifest["kind"]
        if kind == "Event":
            self.events.append(manifest["reason"])
            return manifest
        if kind == "ConfigMap" and self.refusal:
            raise self.refusal
        made = copy.deepcopy(manifest)
        made["metadata"]["uid"] = f"{kind}-{manifest['metadata']['name']}"
        self.children[kind, manifest["metadata"]["name"]] = made
        return copy.deepcopy(made)

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return copy.deepcopy(self.children[manifest["kind"], manifest["metadata"]["name"]])

    async def apply_status(self, manifest: dict[str, Any]) -> None:
        if manifest["metadata"]["resourceVersion"] != self.own["metadata"]["resourceVersion"]:
            raise ConflictError("changed")
        self.statuses += 1
        self.own["status"] = copy.deepcopy(manifest["status"])
        self.own["metadata"]["resourceVersion"] = next(self._versions)

    async def scale(self, _namespace: str, deployment: str, replicas: int) -> None:
        self.children["Deployment", deployment]["spec"]["replicas"] = replicas

    @property
    def stalled(self) -> dict[str, Any]:
        conditions = self.own["status"]["conditions"]
        return next((one for one in conditions if one["type"] == "Stalled"), {})


class Resolver:
    async def resolve(self, _: object) -> Resolution:
        return RESOLVED


async def passes(cluster: Cluster, number: int = 8) -> list[Notice]:
    told: list[Notice] = []
    client: Any = cluster
    resolver: Any = Resolver()
    context = Context(
        client,
        Observer(client),
        resolver,
        Platform({"mlserver": RUNTIME}),
        Evidence(PodMetrics()),
        told.append,
    )
    for _ in range(number):
        try:
            await reconcile(context, copy.deepcopy(cluster.own))
        except (ConflictError, EndingError):
            continue
    return told


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (ForbiddenError(QUOTA), "raise the namespace's ResourceQuota"),
        (ForbiddenError(RBAC), "grant it to the operator's service account"),
        (ForbiddenError(POLICY), "change the policy"),
        (InvalidError(WEBHOOK), "change the policy"),
        (InvalidError(INVALID), "correct the field that it names"),
    ],
)
async def test_a_refused_write_is_said_once_with_the_servers_words_and_the_remedy(
    refusal: ClusterError, remedy: str
) -> None:
    cluster = Cluster()
    cluster.refusal = refusal
    (notice,) = await passes(cluster)
    assert (notice.event, notice.reason) == ("Stalled", "WriteRefused")
    assert str(refusal) in notice.message
    assert cluster.stalled["reason"] == "WriteRefused"
    assert str(refusal) in cluster.stalled["message"]
    assert remedy in cluster.stalled["message"]
    assert cluster.own["status"]["phase"] == "Degraded"
    assert cluster.events.count("WriteRefused") == 1
    before, since = cluster.statuses, cluster.stalled["lastTransitionTime"]
    assert await passes(cluster) == []
    assert cluster.statuses == before
    assert cluster.stalled["lastTransitionTime"] == since


async def test_another_refusal_replaces_the_first() -> None:
    cluster = Cluster()
    cluster.refusal = ForbiddenError(QUOTA)
    await passes(cluster)
    cluster.refusal = ForbiddenError(RBAC)
    await passes(cluster)
    assert RBAC in cluster.stalled["message"]


async def test_once_the_write_is_taken_the_status_is_as_if_it_had_always_been() -> None:
    refused, undisturbed = Cluster(), Cluster()
    refused.refusal = ForbiddenError(QUOTA)
    await passes(refused)
    refused.refusal = None
    await passes(refused)
    await passes(undisturbed)
    assert not refused.stalled
    assert refused.own["status"]["phase"] == undisturbed.own["status"]["phase"]
    assert refused.own["status"]["message"] == undisturbed.own["status"]["message"]
    assert refused.children.keys() == undisturbed.children.keys()


async def test_a_changed_spec_is_taken_up_while_a_write_is_refused() -> None:
    cluster = Cluster()
    cluster.refusal = ForbiddenError(QUOTA)
    await passes(cluster)
    cluster.own["spec"]["predictor"] = {"replicas": 3}
    cluster.own["metadata"]["generation"] = 2
    await passes(cluster)
    assert cluster.own["status"]["observedGeneration"] == 2
    assert cluster.stalled["observedGeneration"] == 2
    before = cluster.statuses
    await passes(cluster)
    assert cluster.statuses == before


async def test_in_a_namespace_that_is_being_deleted_nothing_is_said() -> None:
    cluster = Cluster()
    cluster.refusal = EndingError("create ConfigMap iris-1: 403 Forbidden: the namespace is being terminated")
    await passes(cluster)
    assert not cluster.stalled
    assert "WriteRefused" not in cluster.events
