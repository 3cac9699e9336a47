"""What the operator says and does when the API server refuses, and when its own kinds are taken away."""

from typing import Any

from rollway_testing.controlplane import ControlPlane
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import REPOSITORY, OperatorProcess, Story, condition
from rollway_testing.waiting import eventually


def quota(namespace: str, config_maps: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": namespace},
        "spec": {"hard": {"count/configmaps": str(config_maps)}},
    }


def versions(story: Story) -> tuple[str, int]:
    own = story.api.get("ModelDeployment", "iris", story.namespace)
    assert own is not None
    return own["metadata"]["resourceVersion"], len(story.api.list("Event", story.namespace))


def test_a_quota_that_stands_in_the_way_is_said_once_and_its_end_is_noticed(
    operator: OperatorProcess, story: Story, api: Kubernetes
) -> None:
    api.apply(quota(story.namespace, 0))
    eventually(
        lambda: api.get("ResourceQuota", "small", story.namespace),
        lambda found: "count/configmaps" in (found or {}).get("status", {}).get("hard", {}),
        within=30,
        what="the quota is in force",
    )
    story.ask()
    status = story.until(lambda status: bool(condition(status, "Stalled")), "the refusal is said")
    stalled = condition(status, "Stalled")
    assert stalled["reason"] == "WriteRefused"
    assert "exceeded quota: small" in stalled["message"]
    assert "raise the namespace's ResourceQuota" in stalled["message"]
    passes = operator.metric('rollway_operator_reconcile_total{result="ok"}')
    before = versions(story)
    eventually(
        lambda: operator.metric('rollway_operator_reconcile_total{result="ok"}') >= passes + 5,
        within=60,
        what="more passes",
    )
    assert versions(story) == before
    api.apply(quota(story.namespace, 20))
    status = story.until_serving("1")
    assert not condition(status, "Stalled")


def test_definitions_that_are_deleted_and_made_again_are_served_again(
    operator: OperatorProcess, story: Story, api: Kubernetes, plane: ControlPlane
) -> None:
    story.ask()
    story.until_serving("1")
    pid = operator.pid
    name = "modeldeployments.rollway.dev"
    plane.kubectl("delete", "crd", name, "--timeout=60s")
    eventually(
        lambda: story.children("Deployment"), lambda left: not left, within=60, what="children are gone"
    )
    eventually(
        lambda: operator.metric("rollway_operator_watch_breaks_total") >= 1,
        within=60,
        what="the watch broke",
    )
    plane.kubectl("apply", "--server-side", f"--filename={REPOSITORY / 'crds'}")
    plane.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
    story.ask()
    story.until_serving("1")
    assert operator.pid == pid
    assert operator.running


def test_in_a_namespace_that_is_being_deleted_nothing_is_made_and_nothing_complained_of(
    operator: OperatorProcess, story: Story, api: Kubernetes
) -> None:
    story.ask()
    story.until_serving("1")
    # Something that takes its time to go keeps the namespace in its end for a while.
    held = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": story.namespace, "finalizers": ["example.com/held"]},
    }
    api.create(held)
    before = len(operator.logged())
    api.delete("Namespace", story.namespace)
    passes = operator.metric('rollway_operator_reconcile_total{result="ok"}')
    eventually(
        lambda: story.children("Deployment"), lambda left: not left, within=60, what="children are gone"
    )
    eventually(
        lambda: operator.logged() and operator.metric("rollway_operator_queue_depth") == 0,
        within=30,
        what="the queue is empty",
    )
    assert operator.metric('rollway_operator_reconcile_total{result="ok"}') >= passes
    loud = [
        line
        for line in operator.logged()[before:]
        if line["level"] in ("WARNING", "ERROR") and story.namespace in str(line)
    ]
    api.patch("ConfigMap", "held", story.namespace, {"metadata": {"finalizers": None}})
    assert loud == []
