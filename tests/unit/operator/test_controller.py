import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rollway_operator import controller as module
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.cluster import Objects
from rollway_operator.controller import Controller
from rollway_operator.domain import Resolution
from rollway_operator.errors import ClusterError
from rollway_operator.health import Health
from rollway_operator.reconcile import Context, Look
from rollway_operator.series import Series
from rollway_operator.settings import Settings
from rollway_testing.clock import without_waiting

RESOLVED = Resolution("Resolved", "champion is v1")
KINDS = (
    "ModelDeployment",
    "ModelRegistry",
    "ControllerRevision",
    "Deployment",
    "Service",
    "ConfigMap",
    "Pod",
)


def deployment(name: str = "iris", generation: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "rollway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"u-{name}",
            "generation": generation,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T11:00:00Z",
        }
        | metadata,
        "spec": {"model": {"name": "fraud", "alias": "champion", "registryRef": {"name": "absent"}}},
    }


class FakeCluster:
    """Holds ModelDeployments and CRDs in memory, keeps their status, and may be away."""

    def __init__(self, *present: dict[str, Any]) -> None:
        crd: dict[str, Any] = {"spec": {"x-kubernetes-validations": []}}
        self.objects = {(item["kind"], item["metadata"]["name"]): item for item in present}
        for plural in ("modeldeployments", "modelregistries"):
            self.objects["CustomResourceDefinition", f"{plural}.rollway.dev"] = crd
        self.gets: list[str] = []
        self.lists = 0
        self.statuses = 0
        self.away = False

    async def get(self, kind: str, name: str, _namespace: str | None = None) -> dict[str, Any] | None:
        if self.away:
            raise ClusterError("away")
        if kind == "ModelDeployment":
            self.gets.append(name)
        return copy.deepcopy(self.objects.get((kind, name)))

    async def list(self, kind: str, **_: Any) -> list[dict[str, Any]]:
        if self.away:
            raise ClusterError("away")
        self.lists += 1
        return [copy.deepcopy(item) for (known, _), item in self.objects.items() if known == kind]

    async def pages(self, kind: str, **_: Any) -> AsyncIterator[Objects]:
        yield await self.list(kind)

    async def served(self, _group: str, _version: str) -> frozenset[str]:
        return frozenset()

    async def apply_status(self, manifest: dict[str, Any]) -> None:
        self.statuses += 1
        written = self.objects[manifest["kind"], manifest["metadata"]["name"]]
        written["status"] = manifest["status"]
        self.touch(written)

    def touch(self, item: dict[str, Any]) -> None:
        item["metadata"]["resourceVersion"] = str(int(item["metadata"]["resourceVersion"]) + 1)

    async def make(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return manifest


def made(cluster: FakeCluster, health: Health, path: Path) -> Controller:
    runtime = {
        "image": "img",
        "fetchCommand": ["fetch"],
        "ports": {"http": 1, "grpc": 2, "metrics": 3},
        "readinessPath": "/r",
        "livenessPath": "/l",
        "drainSeconds": 5,
    }
    file = path / "runtimes.json"
    file.write_text(json.dumps({"mlserver": runtime}))
    settings = Settings.from_environment({"ROLLWAY_NAMESPACE": "rollway", "ROLLWAY_RUNTIMES_FILE": str(file)})
    client: Any = cluster
    return Controller(client, settings, health, Series(), lambda _: None)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[FakeCluster], Controller]:
    return lambda cluster: made(cluster, Health(), tmp_path)


Make = Callable[[FakeCluster], Controller]


@without_waiting
async def test_resyncs_of_an_object_at_rest_write_nothing(make: Make) -> None:
    cluster = FakeCluster(deployment())
    controller = make(cluster)
    await controller.start()
    await asyncio.sleep(60)
    lists = cluster.lists
    await asyncio.sleep(600)
    assert cluster.lists - lists > 27 * len(KINDS)
    assert cluster.statuses == 1
    await controller.stop()


@without_waiting
async def test_an_event_that_changes_nothing_anybody_asked_for_queues_nothing(make: Make) -> None:
    cluster = FakeCluster(deployment())
    controller = make(cluster)
    await controller.start()
    await asyncio.sleep(5)
    before = len(cluster.gets)
    for version in range(2, 20):
        controller.deployment_changed(
            deployment(resourceVersion=str(version)) | {"status": {"phase": "Healthy"}}
        )
    await asyncio.sleep(1)
    assert len(cluster.gets) == before
    await controller.stop()


@pytest.mark.parametrize(
    "changed",
    [
        {"generation": 2},
        {"labels": {"team": "a"}},
        {"annotations": {"rollway.dev/promote": "x"}},
        {"deletionTimestamp": "2026-01-01T12:00:00Z"},
        {"uid": "another"},
    ],
)
def test_an_event_that_changes_what_was_asked_for_makes_a_pass(make: Make, changed: dict[str, Any]) -> None:
    @without_waiting
    async def story() -> None:
        cluster = FakeCluster(deployment())
        controller = make(cluster)
        await controller.start()
        await asyncio.sleep(5)
        before = len(cluster.gets)
        controller.deployment_changed(deployment(**changed))
        await asyncio.sleep(1)
        assert len(cluster.gets) == before + 1
        await controller.stop()

    story()


@without_waiting
async def test_a_deleted_object_is_never_passed_again(make: Make) -> None:
    cluster = FakeCluster(deployment())
    controller = make(cluster)
    await controller.start()
    await asyncio.sleep(5)
    del cluster.objects["ModelDeployment", "iris"]
    controller.deployment_gone(deployment())
    before = len(cluster.gets)
    await asyncio.sleep(600)
    assert len(cluster.gets) == before
    await controller.stop()


@without_waiting
async def test_a_registry_that_changes_has_its_followers_passed(make: Make) -> None:
    cluster = FakeCluster(deployment("one"), deployment("two"), deployment("other"))
    cluster.objects["ModelDeployment", "other"]["spec"]["model"]["registryRef"]["name"] = "elsewhere"
    controller = make(cluster)
    await controller.start()
    await asyncio.sleep(5)
    cluster.gets.clear()
    body = {
        "kind": "ModelRegistry",
        "metadata": {"name": "absent", "uid": "r", "generation": 1},
        "spec": {
            "mlflow": {"trackingURI": "http://127.0.0.1:1"},
            "artifacts": [{"prefix": "s3://models/"}],
            "allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "nobody"}}},
        },
    }
    controller.registry_changed(body)
    await asyncio.sleep(1)
    assert sorted(cluster.gets) == ["one", "two"]
    controller.registry_changed(body | {"status": {"conditions": []}})
    await asyncio.sleep(1)
    assert len(cluster.gets) == 2
    await controller.stop()


class Passes:
    """Stands in for the passes: each finds nothing to write, and comes back for nothing but what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.registry_asked = 0
        self.says: dict[str, Any] = {"come_back": timedelta(minutes=10), "under_way": False}
        monkeypatch.setattr(module, "now", self.now)
        monkeypatch.setattr(module, "reconcile", self._reconcile)
        monkeypatch.setattr(module, "look_again", self._look_again)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(seconds=asyncio.get_running_loop().time())

    async def _reconcile(self, context: Context, body: dict[str, Any]) -> Look:
        self.made.append(body["metadata"]["name"])
        seen = await context.observer.observe(body)
        return Look(ModelDeployment.of(body), RESOLVED, self.now(), versions=seen.versions, **self.says)

    async def _look_again(self, _: Context, before: Look) -> Look | None:
        self.registry_asked += 1
        return None if before.under_way else before


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(monkeypatch)


def config_map(**metadata: Any) -> dict[str, Any]:
    owner = {"kind": "ModelDeployment", "name": "iris", "uid": "u-iris", "controller": True}
    named = {"name": "iris-1", "namespace": "team-a", "uid": "c", "resourceVersion": "1"}
    return {"kind": "ConfigMap", "metadata": named | {"ownerReferences": [owner]} | metadata}


@without_waiting
async def test_while_all_versions_stay_resyncs_make_no_pass_and_ask_the_registry(
    make: Make, passes: Passes
) -> None:
    controller = make(FakeCluster(deployment(), config_map()))
    await controller.start()
    await asyncio.sleep(600)
    assert passes.made == ["iris"]
    assert passes.registry_asked >= 27
    await controller.stop()


@pytest.mark.parametrize("spoil", ["edit", "delete", "add", "own"])
def test_whatever_changes_is_passed_within_a_resync(make: Make, passes: Passes, spoil: str) -> None:
    @without_waiting
    async def story() -> None:
        cluster = FakeCluster(deployment(), config_map())
        controller = make(cluster)
        await controller.start()
        await asyncio.sleep(100)
        assert passes.made == ["iris"]
        if spoil == "edit":
            cluster.touch(cluster.objects["ConfigMap", "iris-1"])
        elif spoil == "delete":
            del cluster.objects["ConfigMap", "iris-1"]
        elif spoil == "add":
            cluster.objects["Service", "iris"] = config_map(uid="s") | {"kind": "Service"}
        else:
            cluster.touch(cluster.objects["ModelDeployment", "iris"])
        await asyncio.sleep(23)
        assert passes.made == ["iris", "iris"]
        await asyncio.sleep(100)
        assert passes.made == ["iris", "iris"]
        await controller.stop()

    story()


@without_waiting
async def test_a_pass_that_wrote_is_followed_by_one_that_looks_what_came_of_it(
    make: Make, passes: Passes
) -> None:
    passes.says["wrote"] = True
    controller = make(FakeCluster(deployment()))
    await controller.start()
    await asyncio.sleep(5)
    passes.says["wrote"] = False
    await asyncio.sleep(100)
    assert passes.made == ["iris", "iris"]
    await controller.stop()


@without_waiting
async def test_where_time_alone_may_change_something_a_pass_is_made_though_all_versions_stay(
    make: Make, passes: Passes
) -> None:
    # So is a rollout that is paused with a candidate: nothing is waited for, but the candidate may be stuck too long.
    passes.says |= {"timed": True, "come_back": timedelta(seconds=30)}
    controller = make(FakeCluster(deployment(), config_map()))
    await controller.start()
    await asyncio.sleep(600)
    assert 600 // (30 + 22) <= len(passes.made) <= 600 // 30
    await controller.stop()


@without_waiting
async def test_many_roll_outs_are_looked_at_less_often_each(make: Make, passes: Passes) -> None:
    passes.says |= {"timed": True, "under_way": True, "come_back": timedelta(seconds=1)}
    controller = make(FakeCluster(*(deployment(f"m{number}") for number in range(200))))
    await controller.start()
    await asyncio.sleep(60)
    passes.made.clear()
    await asyncio.sleep(300)
    assert 300 * 10 <= len(passes.made) <= 300 * 21
    assert len(set(passes.made)) == 200
    await controller.stop()


@without_waiting
async def test_few_roll_outs_are_looked_at_as_often_as_they_ask(make: Make, passes: Passes) -> None:
    passes.says |= {"timed": True, "under_way": True, "come_back": timedelta(seconds=1)}
    controller = make(FakeCluster(*(deployment(f"m{number}") for number in range(10))))
    await controller.start()
    await asyncio.sleep(60)
    assert len(passes.made) >= 10 * 55
    await controller.stop()


@without_waiting
async def test_a_resync_that_succeeds_is_a_sign_of_life_and_one_that_fails_is_none(tmp_path: Path) -> None:
    cluster, health = FakeCluster(), Health()
    controller = made(cluster, health, tmp_path)
    await controller.start()
    stuck = []
    for away, seconds in ((False, 3600), (True, 150), (True, 60), (False, 30)):
        cluster.away = away
        await asyncio.sleep(seconds)
        stuck.append(health.stuck)
    assert stuck == [False, False, True, False]
    await controller.stop()


@without_waiting
async def test_missing_crds_are_waited_for_and_the_log_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster, health = FakeCluster(), Health()
    health.lease_answered()
    crd = cluster.objects.pop(("CustomResourceDefinition", "modeldeployments.rollway.dev"))
    controller = made(cluster, health, tmp_path)
    starting = asyncio.create_task(controller.start())
    await asyncio.sleep(timedelta(minutes=1).total_seconds())
    assert not starting.done()
    assert health.unready == "the CustomResourceDefinitions are missing"
    assert "modeldeployments.rollway.dev is missing: install it with `kubectl apply" in caplog.text
    cluster.objects["CustomResourceDefinition", "modeldeployments.rollway.dev"] = crd
    await starting
    assert not health.unready
    await controller.stop()


@without_waiting
async def test_a_crd_without_our_rules_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster()
    cluster.objects["CustomResourceDefinition", "modeldeployments.rollway.dev"] = {"spec": {}}
    controller = make(cluster)
    await controller.start()
    assert "has none of our rules" in caplog.text
    await controller.stop()


@without_waiting
async def test_a_spec_that_an_older_operator_cannot_read_is_said_in_a_condition(make: Make) -> None:
    cluster = FakeCluster(deployment())
    cluster.objects["ModelDeployment", "iris"]["spec"]["model"] = {"name": ["not", "text"]}
    controller = make(cluster)
    await controller.start()
    await asyncio.sleep(120)
    status = cluster.objects["ModelDeployment", "iris"]["status"]
    stalled = next(one for one in status["conditions"] if one["type"] == "Stalled")
    assert stalled["reason"] == "SpecInvalid"
    assert cluster.statuses == 1
    await controller.stop()


# ------------------------------------------------------------------------------------------------------------- metrics


def series_of(controller: Controller) -> set[str]:
    """Name the objects that have series."""
    families = controller._series.collect()  # noqa: SLF001 - it is given by the fixture, and read as Prometheus does
    return {
        str(sample.labels.get("name") or sample.labels["registry"])
        for family in families
        for sample in family.samples
    }


def registry_body(name: str = "shared") -> dict[str, Any]:
    ready = {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T11:00:00Z",
        "reason": "Reachable",
        "message": "the registry answers",
    }
    metadata = {"name": name, "uid": "r", "generation": 1, "resourceVersion": "1"}
    spec = {"mlflow": {"trackingURI": "http://127.0.0.1:1"}, "artifacts": [{"prefix": "s3://models/"}]}
    return {"kind": "ModelRegistry", "metadata": metadata, "spec": spec, "status": {"conditions": [ready]}}


@without_waiting
async def test_what_an_event_shows_is_told_to_prometheus_until_it_is_gone(make: Make, passes: Passes) -> None:
    controller = make(FakeCluster())
    controller.deployment_changed(deployment())
    controller.registry_changed(registry_body())
    assert series_of(controller) == {"iris", "shared"}
    controller.deployment_gone(deployment())
    controller.registry_gone(registry_body())
    assert series_of(controller) == set()


@without_waiting
async def test_a_registry_that_comes_while_a_resync_lists_is_not_forgotten(
    make: Make, passes: Passes
) -> None:
    cluster = FakeCluster()
    controller = make(cluster)
    listed = cluster.list

    async def list_late(kind: str, **_: Any) -> list[dict[str, Any]]:
        found = await listed(kind)
        if kind == "ModelRegistry" and (kind, "shared") not in cluster.objects:
            cluster.objects[kind, "shared"] = registry_body()
            controller.registry_changed(registry_body())
        return found

    cluster.list = list_late  # type: ignore[method-assign]
    await controller.start()
    await asyncio.sleep(5)
    assert series_of(controller) == {"shared"}
    await controller.stop()


@without_waiting
async def test_a_resync_tells_what_the_watch_missed_and_who_stops_leading_tells_nothing(
    make: Make, passes: Passes
) -> None:
    cluster = FakeCluster(deployment("one"), deployment("two"), registry_body())
    controller = make(cluster)
    await controller.start()
    await asyncio.sleep(5)
    assert series_of(controller) == {"one", "two", "shared"}
    del cluster.objects["ModelDeployment", "two"]
    del cluster.objects["ModelRegistry", "shared"]
    await asyncio.sleep(30)
    assert series_of(controller) == {"one"}
    await controller.stop()
    assert series_of(controller) == set()
