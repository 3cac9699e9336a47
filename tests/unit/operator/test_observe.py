import json
from datetime import UTC, datetime
from typing import Any

import pytest

from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import Failure, Fault, Observed
from rollway_operator.observe import model_pod, observed, refusal, with_golden

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DIGEST = f"sha256:{'a' * 64}"
DEPLOYMENT = {"metadata": {"name": "iris", "namespace": "team-a", "uid": "u-1"}}


def a_model(**spec: Any) -> ModelDeployment:
    whole = {"model": {"name": "fraud", "alias": "champion"}} | spec
    return ModelDeployment.of({"metadata": DEPLOYMENT["metadata"], "spec": whole})


def pod(
    fetch: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    conditions: dict[str, dict[str, str]] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    told = {"PodScheduled": {"status": "True"}} | (conditions or {})
    statuses = {"initContainerStatuses": ("fetch", fetch), "containerStatuses": ("server", server)}
    return {
        "metadata": {
            "name": "iris-1a-x",
            "labels": {"rollway.dev/model-deployment": "iris", "rollway.dev/revision": "iris-1a"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "iris-1a-5f", "controller": True}],
        }
        | metadata,
        "status": {"conditions": [{"type": type_} | rest for type_, rest in told.items()]}
        | {
            key: [{"name": name, "image": "img", "restartCount": 0} | status]
            for key, (name, status) in statuses.items()
            if status is not None
        },
    }


def ended(code: int, message: Any = None, reason: str = "Error") -> dict[str, Any]:
    text = message if isinstance(message, str | None) else json.dumps(message)
    return {"terminated": {"exitCode": code, "reason": reason, "message": text}}


def crashed(code: int, message: Any = None, reason: str = "Error", restarts: int = 1) -> dict[str, Any]:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}
    return {"state": waiting, "lastState": ended(code, message, reason), "restartCount": restarts}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


FETCHED = {"state": ended(0, {"digest": DIGEST, "inputExample": True}, "Completed")}
RUNNING = {"state": {"running": {"startedAt": "2026-01-01T12:00:00Z"}}}
READY = {"Ready": {"status": "True"}}


@pytest.mark.parametrize(
    ("seen", "reason", "fault", "message"),
    [
        (
            pod(crashed(1, {"reason": "FetchFailed", "message": "the store does not answer"})),
            "FetchFailed",
            Fault.NOBODY,
            "the store does not answer",
        ),
        (pod(crashed(1, {"reason": "DigestMismatch", "message": "x"})), "DigestMismatch", Fault.MODEL, "x"),
        (pod(crashed(1, {"reason": "ArtifactRefused", "message": "x"})), "ArtifactRefused", Fault.MODEL, "x"),
        (pod({"state": ended(1, {"reason": "NotAModel", "message": "x"})}), "NotAModel", Fault.MODEL, "x"),
        (
            pod(crashed(1, {"reason": "EnvironmentMismatch", "message": "x"})),
            "EnvironmentMismatch",
            Fault.MODEL,
            "x",
        ),
        (pod(crashed(1)), "FetchFailed", Fault.NOBODY, "fetch exited with code 1"),
        (
            pod(crashed(1, {"reason": "ModelLoadFailed"})),
            "FetchFailed",
            Fault.NOBODY,
            "fetch exited with code 1",
        ),
        (
            pod(crashed(137, reason="OOMKilled")),
            "OOMKilled",
            Fault.NOBODY,
            "fetch used more memory than its limit",
        ),
        (
            pod(waiting("ErrImagePull", "1 of 7")),
            "ImagePullBackOff",
            Fault.NOBODY,
            "the node cannot pull img",
        ),
        (
            pod(waiting("ImagePullBackOff", "2 of 7")),
            "ImagePullBackOff",
            Fault.NOBODY,
            "the node cannot pull img",
        ),
        (pod(waiting("InvalidImageName", "no")), "InvalidImageName", Fault.NOBODY, "fetch: no"),
        (
            pod(waiting("CreateContainerConfigError", 'secret "models-s3" not found')),
            "CreateContainerConfigError",
            Fault.NOBODY,
            'fetch: secret "models-s3" not found',
        ),
        (
            pod(FETCHED, waiting("ImagePullBackOff")),
            "ImagePullBackOff",
            Fault.NOBODY,
            "the node cannot pull img",
        ),
        (
            pod(
                conditions={
                    "PodScheduled": {"status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                }
            ),
            "Unschedulable",
            Fault.NOBODY,
            "0/3 nodes",
        ),
        (
            pod(FETCHED, crashed(1, {"reason": "SmokeTestFailed", "message": "NaN in row 0"})),
            "SmokeTestFailed",
            Fault.MODEL,
            "NaN in row 0",
        ),
        (
            pod(FETCHED, crashed(1, {"reason": "ModelLoadFailed"})),
            "ModelLoadFailed",
            Fault.MODEL,
            "ModelLoadFailed",
        ),
        (
            pod(FETCHED, crashed(1, {"reason": "MissingPackage", "message": "x"})),
            "MissingPackage",
            Fault.MODEL,
            "x",
        ),
        (
            pod(FETCHED, crashed(1, {"reason": "WarmupFailed", "message": "x"})),
            "WarmupFailed",
            Fault.MODEL,
            "x",
        ),
        (pod(FETCHED, crashed(3)), "ServerExited", Fault.MODEL, "the server exited with code 3"),
        (pod(FETCHED, {"state": ended(0)}), "ServerExited", Fault.MODEL, "the server exited with code 0"),
        (
            pod(FETCHED, crashed(1, {"reason": "DigestMismatch", "message": "says the model"})),
            "ServerExited",
            Fault.MODEL,
            "the server exited with code 1",
        ),
        (
            pod(FETCHED, crashed(137, reason="OOMKilled")),
            "OOMKilled",
            Fault.MODEL,
            "the server used more memory than its limit",
        ),
        (
            pod(FETCHED, {"state": ended(137, "lost", "ContainerStatusUnknown")}),
            "ContainerStatusUnknown",
            Fault.NOBODY,
            "server: lost",
        ),
        (
            pod(FETCHED, {"state": ended(128, "no such file", "StartError")}),
            "StartError",
            Fault.NOBODY,
            "server: no such file",
        ),
    ],
)
def test_a_pod_that_is_not_ready_says_why_and_whose_fault_it_is(
    seen: dict[str, Any], reason: str, fault: Fault, message: str
) -> None:
    assert model_pod(seen).failure == Failure(reason, message, fault)


@pytest.mark.parametrize(
    "seen",
    [
        pod(),
        pod(RUNNING, waiting("PodInitializing")),
        pod(FETCHED, {"state": {"running": {}}}),
        pod(FETCHED, RUNNING),
        pod(FETCHED, RUNNING | {"lastState": ended(1, {"reason": "SmokeTestFailed"})}, READY),
        pod(FETCHED, crashed(143), deletionTimestamp="2026-01-01T00:00:00Z"),
    ],
)
def test_a_pod_that_starts_serves_or_goes_has_no_failure(seen: dict[str, Any]) -> None:
    assert model_pod(seen).failure is None


def test_a_failure_stays_said_while_the_container_is_tried_again() -> None:
    again = pod(
        RUNNING | {"lastState": ended(1, {"reason": "FetchFailed", "message": "x"}), "restartCount": 1}
    )
    assert model_pod(again).failure == Failure("FetchFailed", "x", Fault.NOBODY)


def test_the_digest_is_what_fetch_told_in_this_pod() -> None:
    seen = model_pod(pod(FETCHED, RUNNING, READY))
    assert (seen.digest, seen.input_example, seen.ready, seen.server_since) == (DIGEST, True, True, NOON)


@pytest.mark.parametrize(
    ("told", "environment"),
    [
        (
            "scikit-learn 1.5.2 installed,\nmodel wants ==1.4.0",
            "scikit-learn 1.5.2 installed, model wants ==1.4.0",
        ),
        ("", None),
        (["scikit-learn"], None),
        (None, None),
    ],
)
def test_a_mismatch_of_the_environment_is_what_fetch_told(told: Any, environment: str | None) -> None:
    fetch = {"state": ended(0, {"digest": DIGEST, "environment": told}, "Completed")}
    assert model_pod(pod(fetch, RUNNING)).environment == environment


@pytest.mark.parametrize(
    "fetch",
    [
        {"state": ended(1, {"digest": DIGEST})},
        {"state": {"running": {}}, "lastState": ended(0, {"digest": DIGEST})},
        {"state": ended(0, {"digest": "sha256:short"})},
        {"state": ended(0, {"digest": f"{DIGEST}\n"})},
        {"state": ended(0, {"digest": 7})},
        {"state": ended(0, [DIGEST])},
        {"state": ended(0, DIGEST)},
        {"state": ended(0, "[" * 4096)},
        {"state": ended(0, "9" * 4096)},
        {"state": ended(0, "")},
        {"state": ended(0)},
    ],
)
def test_nothing_else_is_a_digest(fetch: dict[str, Any]) -> None:
    assert model_pod(pod(fetch, RUNNING)).digest is None


@pytest.mark.parametrize(
    "hostile", ["{", "null", "[1]", "[" * 4096, '{"reason": []}', '{"reason": {"a": 1}}', "\x00"]
)
def test_a_malformed_message_is_no_reason(hostile: str) -> None:
    failure = model_pod(pod(FETCHED, crashed(1, hostile))).failure
    assert failure == Failure("ServerExited", "the server exited with code 1", Fault.MODEL)


def test_a_message_is_one_line_of_limited_length() -> None:
    text = "a\nb\x1b[31m\t" + "c" * 5000
    failure = model_pod(pod(FETCHED, crashed(1, {"reason": "SmokeTestFailed", "message": text}))).failure
    assert failure is not None
    assert failure.message.startswith("a b [31m ccc")
    assert len(failure.message) == 300


def test_a_message_that_is_not_text_leaves_the_reason() -> None:
    failure = model_pod(pod(FETCHED, crashed(1, {"reason": "SmokeTestFailed", "message": {"a": 1}}))).failure
    assert failure == Failure("SmokeTestFailed", "SmokeTestFailed", Fault.MODEL)


def test_restarts_and_memory_kills_stay_known_once_the_pod_is_ready_again() -> None:
    seen = model_pod(
        pod(FETCHED, RUNNING | {"lastState": ended(137, reason="OOMKilled"), "restartCount": 4}, READY)
    )
    assert (seen.restarts, seen.oom_killed, seen.failure) == (4, True, None)


def test_a_pod_without_any_status_is_just_not_ready() -> None:
    seen = model_pod({"metadata": pod()["metadata"]})
    assert (seen.ready, seen.digest, seen.failure, seen.restarts) == (False, None, None, 0)


def child(kind: str, name: str, uid: str = "u-1", **more: Any) -> dict[str, Any]:
    owner = {"kind": "ModelDeployment", "name": "iris", "uid": uid, "controller": True}
    return {"kind": kind, "metadata": {"name": name, "ownerReferences": [owner]}} | more


def test_only_children_under_our_control_count() -> None:
    ours, other = child("Service", "iris"), child("Service", "iris-2", uid="u-2")
    orphan = {"kind": "ConfigMap", "metadata": {"name": "iris"}}
    assert observed(DEPLOYMENT, [ours, other, orphan], [], NOON).objects == {("Service", "iris"): ours}


def test_revisions_come_back_as_they_were_stored_oldest_first() -> None:
    data = {"inputs": {"version": "1"}, "template": {"spec": {}}, "settings": {"httpPort": 8080}}
    first, second = (child("ControllerRevision", f"iris-{n}", revision=n, data=data) for n in (1, 2))
    first["metadata"]["annotations"] = {"rollway.dev/digest": DIGEST, "rollway.dev/outcome": "Promoted"}
    seen = observed(DEPLOYMENT, [second, first], [], NOON).revisions
    assert [revision.name for revision in seen] == ["iris-1", "iris-2"]
    assert (seen[0].digest, seen[0].outcome, seen[0].version) == (DIGEST, "Promoted", "1")
    assert (seen[1].digest, seen[1].outcome, seen[1].outcome_message) == (None, None, "")


@pytest.mark.parametrize(
    "stranger",
    [
        pod() | {"status": {"phase": "Failed", "reason": "Evicted"}},
        pod(ownerReferences=[]),
        pod(ownerReferences=[{"kind": "ReplicaSet", "name": "other-5f", "controller": True}]),
        pod(labels={"rollway.dev/model-deployment": "iris"}),
    ],
)
def test_pods_that_ended_or_that_no_replica_set_of_ours_made_are_left_out(stranger: dict[str, Any]) -> None:
    assert observed(DEPLOYMENT, [], [stranger, pod()], NOON).pods == (model_pod(pod()),)


def test_a_quota_that_refuses_pods_is_told_without_the_names_that_change() -> None:
    text = 'pods "iris-1a-5f-abcde" is forbidden: exceeded quota: small, requested: pods=1'
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": text}
    workload = child("Deployment", "iris-1a", status={"conditions": [condition]})
    told = "no pod can be made: exceeded quota: small, requested: pods=1"
    assert refusal(workload) == Failure("FailedCreate", told, Fault.NOBODY)
    assert observed(DEPLOYMENT, [workload], [], NOON).refusals == {"iris-1a": refusal(workload)}


class Holding:
    """A cluster that holds one ConfigMap and counts how often it is asked."""

    def __init__(self, data: dict[str, str] | None) -> None:
        self._data = data
        self.asked: list[tuple[str, str, str]] = []

    async def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        self.asked.append((kind, name, namespace))
        return None if self._data is None else {"kind": kind, "data": self._data}


@pytest.mark.parametrize(
    ("data", "golden"), [({"golden.json": "[]"}, "[]"), ({"other": "[]"}, None), ({}, None), (None, None)]
)
async def test_golden_data_are_read_by_name_in_the_namespace_of_the_model(
    data: dict[str, str] | None, golden: str | None
) -> None:
    cluster: Any = Holding(data)
    test = {"source": "ConfigMap", "configMapRef": {"name": "golden"}}
    seen = await with_golden(cluster, a_model(preTraffic={"smokeTest": test}), Observed(NOON))
    assert seen == Observed(NOON, golden=golden)
    assert cluster.asked == [("ConfigMap", "golden", "team-a")]


async def test_without_golden_data_nothing_is_asked() -> None:
    cluster: Any = Holding({"golden.json": "[]"})
    assert await with_golden(cluster, a_model(), Observed(NOON)) == Observed(NOON)
    assert cluster.asked == []


@pytest.mark.parametrize(
    ("since", "status", "started", "unready"),
    [
        # It turned unready while its server ran: it had been ready.
        ("2026-01-01T12:05:00Z", "False", True, True),
        # It was never ready: False from the pod's making on, however long its server took to start.
        ("2026-01-01T11:58:00Z", "False", True, False),
        # Its server ended and was started again: the crash is told by itself.
        ("2026-01-01T11:59:59Z", "False", False, False),
        ("2026-01-01T12:05:00Z", "False", False, False),
        ("2026-01-01T12:05:00Z", "True", True, False),
    ],
)
def test_only_a_pod_that_had_been_ready_counts_as_unready(
    since: str, status: str, started: bool, unready: bool
) -> None:
    told = {"ContainersReady": {"status": status, "lastTransitionTime": since}}
    seen = model_pod(pod(FETCHED, RUNNING | {"started": started}, told))
    assert seen.unready_since == (datetime.fromisoformat(since) if unready else None)
