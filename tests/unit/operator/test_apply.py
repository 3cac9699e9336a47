import copy
import itertools
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rollway_operator.apply import apply, apply_status, gap
from rollway_operator.cluster import is_controlled
from rollway_operator.domain import Event, Observed, Plan, Ref, Scale
from rollway_operator.errors import (
    ClusterError,
    ConflictError,
    InvalidError,
    NameConflictError,
    VanishingError,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BODY: dict[str, Any] = {
    "apiVersion": "rollway.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {
        "name": "iris",
        "namespace": "team-a",
        "uid": "u-1",
        "resourceVersion": "7",
        "generation": 1,
        "creationTimestamp": "2026-01-01T11:00:00Z",
    },
    "spec": {},
    "status": {"phase": "Pending"},
}


class FakeCluster:
    """Keeps objects in memory and remembers what was written, in order; what is in `refuses` fails."""

    def __init__(self, *present: dict[str, Any]) -> None:
        self.objects = {(item["kind"], item["metadata"]["name"]): item for item in present}
        self.written: list[str] = []
        self.refuses: set[str] = set()
        self.status: dict[str, Any] = {}
        self.deleted: list[tuple[str, str]] = []
        self._uids = itertools.count(1)

    def observed(self) -> Observed:
        own = {key: item for key, item in self.objects.items() if is_controlled(item, BODY)}
        return Observed(now=NOON, objects=copy.deepcopy(own))

    async def get(self, kind: str, name: str, _namespace: str | None = None) -> dict[str, Any] | None:
        return self.objects.get((kind, name))

    async def make(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        kind, name = manifest["kind"], manifest["metadata"].get("name", "")
        self._write(f"create {kind} {name}".strip())
        if (kind, name) in self.objects:
            return None
        made = copy.deepcopy(manifest)
        made["metadata"]["uid"] = f"child-{next(self._uids)}"
        self.objects[kind, name] = made
        return made

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self._write(f"apply {kind} {name}")
        live = self.objects[kind, name]
        for part in ("spec", "data"):
            if part in manifest:
                live[part] = live.get(part, {}) | copy.deepcopy(manifest[part])
        return live

    async def merge(self, manifest: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self._write(f"merge {kind} {name}")
        live = self.objects[kind, name]
        for part, changes in patch.items():
            merged = live.get(part, {}) | changes
            live[part] = {key: value for key, value in merged.items() if value is not None}
        return live

    async def apply_status(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self._write("status")
        if manifest["metadata"]["resourceVersion"] != "7":
            raise ConflictError("changed")
        self.status = manifest["status"]
        return manifest

    async def merge_status(self, _manifest: dict[str, Any], patch: dict[str, Any]) -> None:
        self._write("merge status")
        assert patch["metadata"]["resourceVersion"] == "7"
        self.status = patch["status"]

    async def scale(self, _namespace: str, deployment: str, replicas: int) -> None:
        self._write(f"scale {deployment} {replicas}")
        self.objects["Deployment", deployment]["spec"]["replicas"] = replicas

    async def delete(self, kind: str, name: str, _namespace: str, uid: str) -> None:
        self._write(f"delete {kind} {name} {uid}")
        del self.objects[kind, name]

    def _write(self, what: str) -> None:
        if any(what.startswith(refused) for refused in self.refuses):
            raise ClusterError(what)
        self.written.append(what)


def child(kind: str, name: str, uid: str = "u-1", **more: Any) -> dict[str, Any]:
    owner = {"kind": "ModelDeployment", "name": "iris", "uid": uid, "controller": True}
    metadata = {"name": name, "namespace": "team-a", "ownerReferences": [owner]}
    return {"apiVersion": "x/v1", "kind": kind, "metadata": metadata} | more


def existing(item: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    live = copy.deepcopy(item)
    live["metadata"] |= {"uid": "child-0"} | metadata
    return live


WORKLOAD = child("Deployment", "iris-1", spec={"template": {"image": "a"}})
SERVICE = child("Service", "iris", spec={"selector": {"rev": "1"}})
CONFIG = child("ConfigMap", "iris-1", data={"digest": ""})
STATUS = {"phase": "Progressing"}
PLAN = Plan(
    status=STATUS,
    objects=(CONFIG, SERVICE, WORKLOAD),
    scales=(Scale("iris-1", 2),),
    events=(Event("Normal", "RolloutStarted", "v1 starts"),),
)


def unheard(*_: object) -> None:
    """Hear of no status."""


async def run(cluster: Any, plan: Plan = PLAN, body: dict[str, Any] = BODY) -> list[str]:
    await apply(cluster, plan, body, cluster.observed(), unheard)
    written: list[str] = cluster.written
    return written


async def test_the_decision_is_written_first_then_what_follows_in_order() -> None:
    assert await run(FakeCluster()) == [
        "status",
        "create ConfigMap iris-1",
        "create Service iris",
        "create Deployment iris-1",
        "create Event iris.64752550bf000",
    ]


async def test_a_deployment_is_created_with_its_count_and_never_applied_with_one() -> None:
    cluster = FakeCluster()
    await run(cluster)
    assert cluster.objects["Deployment", "iris-1"]["spec"]["replicas"] == 2
    other = FakeCluster()
    await run(other, Plan(status=STATUS, objects=(WORKLOAD,)))
    assert other.objects["Deployment", "iris-1"]["spec"]["replicas"] == 0
    assert "replicas" not in WORKLOAD["spec"]


async def test_the_second_pass_over_the_same_plan_writes_nothing() -> None:
    cluster = FakeCluster()
    await run(cluster)
    cluster.written.clear()
    idle = Plan(status=STATUS, objects=PLAN.objects, scales=PLAN.scales)
    body = BODY | {"status": dict(cluster.status)}
    assert gap(idle, body, cluster.observed()) is None
    assert await run(cluster, idle, body) == []


async def test_only_what_differs_is_applied() -> None:
    workload = existing(WORKLOAD)
    workload["spec"] = {"replicas": 2, "template": {"image": "b"}}
    cluster = FakeCluster(existing(CONFIG), existing(SERVICE), workload)
    plan = Plan(status=BODY["status"], objects=PLAN.objects, scales=PLAN.scales)
    assert gap(plan, BODY, cluster.observed()) == (
        'Deployment iris-1: spec.template.image: "a" desired, "b" found'
    )
    assert await run(cluster, plan) == ["apply Deployment iris-1"]
    assert cluster.objects["Deployment", "iris-1"]["spec"]["replicas"] == 2


async def test_counts_go_through_scale_only_and_only_where_they_differ() -> None:
    one, two = existing(WORKLOAD), existing(child("Deployment", "iris-2", spec=WORKLOAD["spec"]))
    one["spec"]["replicas"], two["spec"]["replicas"] = 2, 2
    cluster = FakeCluster(one, two)
    plan = Plan(status=BODY["status"], scales=(Scale("iris-1", 2), Scale("iris-2", 0)))
    assert gap(plan, BODY, cluster.observed()) == "Deployment iris-2: 0 replicas desired"
    assert await run(cluster, plan) == ["scale iris-2 0"]


async def test_what_others_added_to_data_is_removed() -> None:
    spoilt = existing(CONFIG)
    spoilt["data"] = {"digest": "", "extra": "1"}
    cluster = FakeCluster(spoilt)
    plan = Plan(status=BODY["status"], objects=(CONFIG,))
    assert await run(cluster, plan) == ["apply ConfigMap iris-1", "merge ConfigMap iris-1"]
    assert cluster.objects["ConfigMap", "iris-1"]["data"] == {"digest": ""}


async def test_what_cannot_be_applied_beside_what_is_there_is_patched() -> None:
    spoilt = existing(SERVICE)
    spoilt["spec"] = {"selector": {"rev": "2"}}
    cluster = FakeCluster(spoilt)

    async def refuse(_: object) -> None:
        raise InvalidError("duplicate")

    cluster.apply = refuse  # type: ignore[method-assign, assignment]
    assert await run(cluster, Plan(status=BODY["status"], objects=(SERVICE,))) == ["merge Service iris"]
    assert cluster.objects["Service", "iris"]["spec"] == SERVICE["spec"]


async def test_prunes_delete_the_very_object_that_was_seen() -> None:
    cluster = FakeCluster(existing(CONFIG))
    plan = Plan(status=BODY["status"], prunes=(Ref("ConfigMap", "iris-1"), Ref("Service", "iris-1")))
    assert gap(plan, BODY, cluster.observed()) == "ConfigMap iris-1: no longer wanted"
    assert await run(cluster, plan) == ["delete ConfigMap iris-1 child-0"]


async def test_an_event_that_cannot_be_recorded_fails_nothing() -> None:
    cluster = FakeCluster()
    cluster.refuses = {"create Event iris.64752550bf000"}
    assert (await run(cluster))[-1] == "create Deployment iris-1"


async def test_a_conflict_on_status_ends_the_pass_before_any_child_is_written() -> None:
    cluster = FakeCluster()
    body = copy.deepcopy(BODY)
    body["metadata"]["resourceVersion"] = "6"
    with pytest.raises(ConflictError):
        await run(cluster, body=body)
    assert cluster.written == ["status"]


@pytest.mark.parametrize("owners", [[], [{"kind": "Other", "name": "iris", "uid": "x", "controller": True}]])
async def test_an_object_of_somebody_else_stops_the_pass_before_anything_is_written(
    owners: list[Any],
) -> None:
    cluster = FakeCluster(existing(SERVICE, ownerReferences=owners))
    with pytest.raises(NameConflictError, match="Service iris exists"):
        await run(cluster)
    assert cluster.written == []


async def test_a_new_revisions_names_are_not_asked_for_one_by_one() -> None:
    cluster = FakeCluster()
    asked = []

    async def get(kind: str, name: str, _: str | None = None) -> None:
        asked.append(f"{kind} {name}")

    cluster.get = get  # type: ignore[method-assign, assignment]
    await run(cluster)
    assert asked == ["Service iris"]


async def test_a_revisions_name_that_is_taken_is_found_when_it_is_made_and_from_then_on_before_any_write() -> (
    None
):
    cluster = FakeCluster(existing(WORKLOAD, ownerReferences=[]))
    with pytest.raises(NameConflictError, match="Deployment iris-1 exists"):
        await run(cluster)
    cluster.written.clear()
    stalled = {"conditions": [{"type": "Stalled", "reason": "NameConflict"}]}
    with pytest.raises(NameConflictError, match="Deployment iris-1 exists"):
        await run(cluster, body=BODY | {"status": stalled})
    assert cluster.written == []
    del cluster.objects["Deployment", "iris-1"]
    assert "create Deployment iris-1" in await run(cluster, body=BODY | {"status": stalled})


async def test_the_remains_of_an_earlier_revision_are_waited_for_when_it_is_made() -> None:
    remains = existing(child("ConfigMap", "iris-1", uid="u-0"), deletionTimestamp=NOON.isoformat())
    cluster = FakeCluster(remains)
    with pytest.raises(VanishingError):
        await run(cluster)
    assert cluster.written == ["status", "create ConfigMap iris-1"]


async def test_one_of_ours_that_lost_its_labels_is_found_by_its_name() -> None:
    cluster = FakeCluster(existing(CONFIG), existing(SERVICE), existing(WORKLOAD))
    cluster.objects["Deployment", "iris-1"]["spec"]["replicas"] = 2
    cluster.objects["ConfigMap", "iris-1"]["data"] = {"digest": "spoilt"}
    await apply(cluster, Plan(status=STATUS, objects=PLAN.objects), BODY, Observed(now=NOON), unheard)  # type: ignore[arg-type]
    assert cluster.written == [
        "status",
        "create ConfigMap iris-1",  # answered: exists already
        "apply ConfigMap iris-1",
        "create Deployment iris-1",
    ]
    assert cluster.objects["ConfigMap", "iris-1"]["data"] == {"digest": ""}


@pytest.mark.parametrize(
    ("deleted", "age", "error"),
    [
        (NOON - timedelta(seconds=30), 3600, VanishingError),
        (NOON - timedelta(seconds=90), 3600, NameConflictError),
        (None, 30, VanishingError),
        (None, 90, NameConflictError),
    ],
)
async def test_the_remains_of_an_earlier_object_are_waited_for_a_minute(
    deleted: datetime | None, age: int, error: type[Exception]
) -> None:
    remains = existing(child("Service", "iris", uid="u-0", spec=SERVICE["spec"]))
    if deleted:
        remains["metadata"]["deletionTimestamp"] = deleted.isoformat()
    body = copy.deepcopy(BODY)
    body["metadata"]["creationTimestamp"] = (NOON - timedelta(seconds=age)).isoformat()
    cluster = FakeCluster(remains)
    with pytest.raises(error):
        await run(cluster, body=body)
    assert cluster.written == []


async def test_a_child_that_is_being_deleted_is_come_back_to_after_all_else_is_done() -> None:
    cluster = FakeCluster(existing(SERVICE, deletionTimestamp=NOON.isoformat()))
    only_that = Plan(status=BODY["status"], objects=(SERVICE,))
    assert gap(only_that, BODY, cluster.observed()) == "Service iris: is being deleted"
    with pytest.raises(VanishingError):
        await run(cluster)
    assert cluster.written[-1] == "create Event iris.64752550bf000"


async def test_a_child_that_appears_between_looking_and_creating_ends_the_pass() -> None:
    cluster = FakeCluster()

    async def nothing(*_: object) -> None:
        return None

    cluster.get = nothing  # type: ignore[method-assign, assignment]
    cluster.objects["Service", "iris"] = existing(SERVICE, ownerReferences=[])
    with pytest.raises(ConflictError):
        await run(cluster)


@pytest.mark.parametrize(
    ("desired", "live", "written"),
    [
        ({"phase": "A"}, {"phase": "A"}, False),
        ({"phase": "A"}, {"phase": "B"}, True),
        ({}, {"phase": "B"}, True),
        (
            {"conditions": [{"type": "A"}, {"type": "B"}]},
            {"conditions": [{"type": "B"}, {"type": "A"}]},
            False,
        ),
        ({"conditions": [{"type": "A"}]}, {"conditions": [{"type": "A", "status": "True"}]}, True),
        ({"conditions": []}, {}, False),
    ],
)
async def test_a_status_is_written_only_if_it_differs(
    desired: dict[str, Any], live: dict[str, Any], written: bool
) -> None:
    cluster: Any = FakeCluster()
    assert await apply_status(cluster, BODY | {"status": live}, desired) is written
    assert cluster.written == (["status"] if written else [])


@pytest.mark.parametrize(
    ("entry", "written"),
    [
        ({"manager": "rollway-operator", "operation": "Apply", "subresource": "status"}, "status"),
        ({"manager": "kubectl", "operation": "Update"}, "status"),
        ({"manager": "kubectl-edit", "operation": "Update", "subresource": "status"}, "merge status"),
        ({"manager": "rollway-operator", "operation": "Update", "subresource": "status"}, "merge status"),
    ],
)
async def test_what_somebody_else_wrote_into_a_status_is_taken_away(
    entry: dict[str, str], written: str
) -> None:
    cluster: Any = FakeCluster()
    live = {"phase": "B", "stable": {"revision": "x", "version": "9"}, "canary": {"revision": "y"}}
    body = BODY | {"metadata": BODY["metadata"] | {"managedFields": [entry]}, "status": live}
    desired = {"phase": "A", "stable": {"revision": "x"}}
    assert await apply_status(cluster, body, desired)
    assert cluster.written == [written]
    removed = {"stable": {"revision": "x", "version": None}, "canary": None}
    assert cluster.status == desired | (removed if written == "merge status" else {})


Change = tuple[Mapping[str, Any], Mapping[str, Any]]


@pytest.mark.parametrize("refused", ["create ConfigMap", "nothing"])
async def test_a_status_is_told_of_once_it_is_written_and_before_what_follows_from_it(refused: str) -> None:
    cluster, told = FakeCluster(), list[Change]()
    cluster.refuses = {refused}
    with suppress(ClusterError):
        await apply(cluster, PLAN, BODY, cluster.observed(), lambda *change: told.append(change))  # type: ignore[arg-type]
    assert told == [(BODY["status"], STATUS)]


async def test_a_status_that_was_not_written_or_is_so_already_is_told_to_nobody() -> None:
    cluster, told = FakeCluster(), list[Change]()
    cluster.refuses = {"status"}
    with pytest.raises(ClusterError):
        await apply(cluster, PLAN, BODY, cluster.observed(), lambda *change: told.append(change))  # type: ignore[arg-type]
    cluster.refuses = set()
    body = BODY | {"status": STATUS}
    await apply(cluster, PLAN, body, cluster.observed(), lambda *change: told.append(change))  # type: ignore[arg-type]
    assert told == []
