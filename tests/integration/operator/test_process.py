"""The operator as a process against a real API server and a real MLflow; pods are made but only pretended to run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollway_testing.kubelet import Nature, digest_of
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.processes import MLflowServer
from rollway_testing.stories import (
    OperatorProcess,
    RegisteredModel,
    Story,
    condition,
    pretended_runtimes,
    serves,
)
from rollway_testing.waiting import eventually

KINDS = ("ControllerRevision", "ConfigMap", "Service", "Deployment")


def written(story: Story) -> dict[str, str]:
    """Give the resourceVersion of the object and of everything made for it."""
    own = story.api.get("ModelDeployment", "iris", story.namespace)
    assert own is not None
    items = (own, *(item for kind in KINDS for item in story.children(kind).values()))
    return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in items}


def resyncs(operator: OperatorProcess) -> float:
    return operator.metric('rollway_operator_reconcile_total{result="ok"}')


def await_resyncs(operator: OperatorProcess, number: int = 4) -> None:
    """Wait until some more passes have been made."""
    before = resyncs(operator)
    eventually(lambda: resyncs(operator) >= before + number, within=60, what=f"{number} more passes")


def test_the_first_version_gets_traffic_only_after_its_gates(operator: OperatorProcess, story: Story) -> None:
    story.kubelet.natures["1"] = Nature.WAITING
    story.ask()
    status = story.until(
        lambda status: "canary" in status and story.children("Deployment"), "one pod is tried"
    )
    assert condition(status, "Ready")["status"] == "False"
    assert list(story.counts().values()) == [1]
    assert story.pointed_at() is None
    story.kubelet.natures.clear()
    status = story.until_serving("1")
    assert status["stable"]["digest"] == digest_of("1")
    assert story.pointed_at() == status["stable"]["revision"]
    pinned = story.children("ConfigMap")[status["stable"]["revision"]]["data"]["digest"]
    assert pinned == digest_of("1")


def test_an_alias_that_moves_flips_the_service_and_stops_the_old_pods(
    operator: OperatorProcess, story: Story, model: RegisteredModel
) -> None:
    story.ask(predictor={"replicas": 2})
    old = story.until_serving("1")["stable"]["revision"]
    model.point(model.add_version())
    new = story.until_serving("2")["stable"]["revision"]
    assert story.pointed_at() == new
    story.until(lambda _: story.counts() == {old: 0, new: 2}, "the old revision is at 0, the new at 2")
    assert set(story.children("ControllerRevision")) == {old, new}


def test_a_broken_version_never_gets_traffic_and_status_says_why(
    operator: OperatorProcess, story: Story, model: RegisteredModel
) -> None:
    story.ask()
    old = story.until_serving("1")["stable"]["revision"]
    story.kubelet.natures["2"] = Nature.BROKEN
    model.point(model.add_version())
    status = story.until(lambda status: bool(condition(status, "Stalled")), "the broken version is refused")
    assert condition(status, "Stalled")["reason"] == "SmokeTestFailed"
    assert "as version 2 does" in status["message"]
    assert serves({**status, "conditions": status["conditions"]}, "1") or status["stable"]["version"] == "1"
    assert story.pointed_at() == old
    story.until(lambda _: sorted(story.counts().values()) == [0, 1], "the broken version's pods are gone")


def test_a_change_of_the_count_touches_nothing_but_the_scale(
    operator: OperatorProcess, story: Story, api: Kubernetes
) -> None:
    story.ask()
    revision = story.until_serving("1")["stable"]["revision"]
    before = story.children("Deployment")[revision]
    story.ask(predictor={"replicas": 3})
    story.until(lambda status: status.get("readyReplicas") == 3, "three pods are ready")
    after = story.children("Deployment")[revision]
    assert after["spec"]["replicas"] == 3
    assert after["spec"]["template"] == before["spec"]["template"]
    applied = [entry for entry in after["metadata"]["managedFields"] if entry["operation"] == "Apply"]
    assert not any("f:replicas" in json.dumps(entry["fieldsV1"]) for entry in applied)
    assert list(story.children("ControllerRevision")) == [revision]


def edits(revision: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Every way to spoil a child that a resync must mend: kind, name, merge patch."""
    container = {"name": "server", "image": "evil", "env": [{"name": "A", "value": "1"}]}
    return {
        "the Service points elsewhere": ("Service", "iris", {"spec": {"selector": {"app": "x"}}}),
        "a port is gone": ("Service", revision, {"spec": {"ports": [{"name": "http", "port": 1}]}}),
        "the pin is changed": ("ConfigMap", revision, {"data": {"digest": "sha256:0"}}),
        "data is added": ("ConfigMap", revision, {"data": {"extra": "1"}}),
        "the image is changed": (
            "Deployment",
            revision,
            {"spec": {"template": {"spec": {"containers": [container]}}}},
        ),
        "the count is changed": ("Deployment", revision, {"spec": {"replicas": 0}}),
        "a label is gone": (
            "Service",
            "iris",
            {"metadata": {"labels": {"rollway.dev/model-deployment": None}}},
        ),
        "the digest is changed": (
            "ControllerRevision",
            revision,
            {"metadata": {"annotations": {"rollway.dev/digest": None}}},
        ),
    }


def essence(child: dict[str, Any] | None) -> dict[str, Any] | None:
    """Leave out of a child what each write changes."""
    if child is None:
        return None
    kept = {key: value for key, value in child.items() if key not in ("metadata", "status")}
    return kept | {key: child["metadata"].get(key) for key in ("labels", "ownerReferences")}


@pytest.mark.parametrize("edit", edits("x"))
def test_an_edited_child_is_mended(
    operator: OperatorProcess, story: Story, api: Kubernetes, edit: str
) -> None:
    story.ask()
    revision = story.until_serving("1")["stable"]["revision"]
    kind, name, patch = edits(revision)[edit]
    before = essence(api.get(kind, name, story.namespace))
    api.patch(kind, name, story.namespace, patch)
    assert essence(api.get(kind, name, story.namespace)) != before or kind == "ControllerRevision"
    eventually(
        lambda: essence(api.get(kind, name, story.namespace)),
        lambda now: now == before,
        within=30,
        what="mended",
    )
    await_resyncs(operator)
    warnings = [line for line in operator.logged() if "stays different" in line["message"]]
    assert not warnings


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_child_is_made_again(
    operator: OperatorProcess, story: Story, api: Kubernetes, kind: str
) -> None:
    story.ask()
    status = story.until_serving("1")
    before = story.children(kind)
    for name in before:
        api.delete(kind, name, story.namespace)
    eventually(
        lambda: story.children(kind).keys(), lambda now: now == before.keys(), within=30, what="made again"
    )
    assert story.until_serving("1")["stable"] == status["stable"]
    assert {name: essence(item) for name, item in story.children(kind).items() if kind != "Service"} == {
        name: essence(item) for name, item in before.items() if kind != "Service"
    }


def test_at_rest_nothing_is_written(operator: OperatorProcess, story: Story) -> None:
    story.ask()
    story.until_serving("1")
    await_resyncs(operator)
    before = written(story)
    events = len(story.api.list("Event", story.namespace))
    await_resyncs(operator, 10)
    assert written(story) == before
    assert len(story.api.list("Event", story.namespace)) == events


def test_a_service_of_somebody_else_is_left_alone_and_said(
    operator: OperatorProcess, story: Story, api: Kubernetes
) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "iris", "namespace": story.namespace},
        "spec": {"selector": {"app": "somebody"}, "ports": [{"port": 80}]},
    }
    made = api.create(foreign)
    story.ask()
    status = story.until(lambda status: bool(condition(status, "Stalled")), "the conflict is said")
    assert condition(status, "Stalled")["reason"] == "NameConflict"
    assert "Service iris" in status["message"]
    await_resyncs(operator)
    before = written(story)
    await_resyncs(operator)
    assert written(story) == before
    assert api.get("Service", "iris", story.namespace) == made
    reasons = [event["reason"] for event in api.list("Event", story.namespace)]
    assert reasons.count("NameConflict") == 1
    api.delete("Service", "iris", story.namespace)
    story.until_serving("1")


def test_a_deleted_object_takes_its_children_along_and_may_come_back(
    operator: OperatorProcess, story: Story, api: Kubernetes
) -> None:
    story.ask()
    story.until_serving("1")
    api.delete("ModelDeployment", "iris", story.namespace)
    story.ask()
    story.until_serving("1")
    own = api.get("ModelDeployment", "iris", story.namespace)
    assert own is not None
    owners = {
        item["metadata"]["ownerReferences"][0]["uid"]
        for kind in KINDS
        for item in story.children(kind).values()
    }
    assert owners == {own["metadata"]["uid"]}


def test_killed_again_and_again_the_operator_comes_to_the_same_end(
    operator: OperatorProcess, story: Story, model: RegisteredModel
) -> None:
    story.ask(predictor={"replicas": 2})
    story.until_serving("1")
    model.point(model.add_version())
    seen = ""
    for _ in range(200):
        status = story.status()
        now = json.dumps([status.get("canary"), status.get("stable"), story.counts()], sort_keys=True)
        if now != seen:
            operator.kill()
            operator.start()
        elif serves(status, "2"):
            break
        seen = now
    new = story.until_serving("2")["stable"]["revision"]
    assert story.pointed_at() == new
    story.until(lambda _: sorted(story.counts().values()) == [0, 2], "the old revision is at 0")
    assert len(story.children("ControllerRevision")) == len(story.children("Deployment")) == 2


def test_an_unreachable_registry_is_said_and_changes_nothing(
    operator: OperatorProcess, story: Story, mlflow_server: MLflowServer
) -> None:
    story.ask()
    before = story.until_serving("1")
    mlflow_server.stop()
    try:
        status = story.until(
            lambda status: condition(status, "ModelResolved")["status"] == "False", "the registry is gone", 90
        )
        assert condition(status, "ModelResolved")["reason"] == "RegistryUnreachable"
        assert condition(status, "Ready")["status"] == "True"
        assert status["stable"] == before["stable"]
        registry = story.api.get("ModelRegistry", "default")
        eventually(
            lambda: story.api.get("ModelRegistry", "default"),
            lambda seen: condition((seen or {})["status"], "Ready")["status"] == "False",
            within=60,
            what="the ModelRegistry says it",
        )
        assert registry is not None
    finally:
        mlflow_server.start()
    story.until(
        lambda status: condition(status, "ModelResolved")["status"] == "True", "the registry is back", 120
    )


def test_a_model_that_moves_while_the_operator_is_away_is_followed_afterwards(
    operator: OperatorProcess, story: Story, model: RegisteredModel
) -> None:
    story.ask()
    story.until_serving("1")
    assert operator.terminate() == 0
    model.point(model.add_version())
    operator.start()
    story.until_serving("2")


def test_a_setting_that_is_wrong_ends_the_process_at_once_and_is_named(tmp_path: Path) -> None:
    runtimes, certificates = tmp_path / "runtimes.json", tmp_path / "ca.crt"
    runtimes.write_text(json.dumps(pretended_runtimes()))
    certificates.write_text("no certificate")
    variables = {
        "ROLLWAY_NAMESPACE": "rollway-system",
        "ROLLWAY_RUNTIMES_FILE": str(runtimes),
        "ROLLWAY_PROMETHEUS_URL": "https://prometheus:9090",
        "ROLLWAY_PROMETHEUS_CA_FILE": str(certificates),
    }
    command = [sys.executable, "-m", "rollway_operator"]
    ended = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"ROLLWAY_PROMETHEUS_CA_FILE: {certificates} has no certificates")
    assert "prometheus.caSecret of the chart's values" in ended.stderr
