"""What the operator does when nobody asks for anything: nothing, unless somebody spoiled what is there."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rollway_faultproxy.rules import Hold, Rule
from rollway_testing.controlplane import ControlPlane
from rollway_testing.faults import FaultProxy
from rollway_testing.kills import DELETION, FIRST, KINDS, Lane, differences_of, end_of, until_ended
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.processes import MLflowServer
from rollway_testing.stories import Story
from rollway_testing.waiting import eventually, throughout

from .conftest import NewLane

OBJECTS = 20


@pytest.fixture(scope="module")
def lane(new_lane: NewLane) -> Lane:
    """A namespace whose operator works at the rate that the chart sets, and knows of a Gateway."""
    return new_lane("at-rest", resync=20, routed=True)


@pytest.fixture(scope="module")
def resting(lane: Lane) -> list[Story]:
    """Many ModelDeployments that serve."""
    lane.operator.start()
    stories = [lane.story() for _ in range(OBJECTS)]
    scaling = {"minReplicas": 1, "maxReplicas": 3}
    for story in stories:
        story.spec["predictor"] = {"autoscaling": scaling}
        FIRST.act(story)
    for story in stories:
        until_ended(story, FIRST)
    return stories


@pytest.mark.thorough
def test_nothing_is_written_but_the_lease(
    lane: Lane, resting: list[Story], faults: FaultProxy, alone: None
) -> None:
    resync = 22
    lane.until_quiet(resync * 6, resyncs_of_quiet=1)
    mark = lane.mark()
    seconds = 300
    throughout(lambda: lane.operator.running, bool, seconds=seconds, what="the operator runs")
    calls = faults.calls(mark)
    counted = Counter(f"{call['verb']} {call['resource']}" for call in calls)
    print(f"\n{OBJECTS} objects, {seconds} s: {dict(counted)}")
    assert counted["list modeldeployments"] >= seconds // resync, "resyncs were made"
    assert {call["resource"] for call in calls if call["mutating"]} <= {"leases"}


SPOILT: dict[str, dict[str, Any]] = {
    "NetworkPolicy": {"spec": {"egress": []}},
    "Service": {"spec": {"selector": {"app": "x"}}},
    "ConfigMap": {"data": {"digest": "sha256:0"}},
    "Deployment": {"spec": {"replicas": 0}},
    "ControllerRevision": {"metadata": {"annotations": {"rollway.dev/digest": None}}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 9}},
    "HorizontalPodAutoscaler": {"spec": {"maxReplicas": 9}},
    "PodMonitor": {"spec": {"podTargetLabels": []}},
    "HTTPRoute": {"spec": {"hostnames": ["elsewhere.example.com"]}},
    "GRPCRoute": {"spec": {"hostnames": ["elsewhere.example.com"]}},
}


@pytest.mark.thorough
def test_children_deleted_or_edited_are_healed_within_half_a_minute(
    lane: Lane, resting: list[Story], alone: None, api: Kubernetes
) -> None:
    before = [end_of(story) for story in resting]
    for number, story in enumerate(resting):
        kind = KINDS[number // 2 % len(KINDS)]
        if number % 2:
            for name in story.children(kind):
                api.delete(kind, name, story.namespace)
        else:
            # The Service and the policy of the whole are named as it is, the others as their revision.
            name = max(story.children(kind))
            api.patch(kind, name, story.namespace, SPOILT[kind])
    spoiled = time.monotonic()
    assert sum(end_of(story) != was for story, was in zip(resting, before, strict=True)) > OBJECTS // 2

    def unhealed() -> dict[str, Any]:
        lane.kubelet.step()
        pairs = zip(resting, before, strict=True)
        return {story.name: wrong for story, was in pairs if (wrong := differences_of(end_of(story), was))}

    eventually(unhealed, lambda wrong: not wrong, within=60, what="all is as it was")
    seconds = time.monotonic() - spoiled
    print(f"\nhealed after {seconds:.1f} s")
    assert seconds <= 30


def test_a_horizontal_pod_autoscaler_made_by_hand_is_not_fought(
    new_lane: NewLane, plane: ControlPlane, alone: None
) -> None:
    lane = new_lane("autoscaled")
    story = lane.told(FIRST)
    (deployment,) = story.children("Deployment")
    plane.kubectl("autoscale", "deployment", deployment, "--min=3", "--max=5", "--namespace=autoscaled")
    eventually(story.counts, lambda counts: counts == {deployment: 3}, within=60, what="it is scaled to 3")
    mark = lane.mark()
    throughout(story.counts, lambda counts: counts == {deployment: 3}, seconds=8, what="3 pods stay")
    assert [call for call in lane.writes(mark) if call["resource"] == "deployments/scale"] == []
    story.until(lambda status: status["readyReplicas"] == 3, "the status counts them")


@pytest.mark.thorough
def test_with_the_registry_hanging_a_deleted_object_is_gone(
    lane: Lane, alone: None, api: Kubernetes, mlflow_server: MLflowServer, tmp_path: Path
) -> None:
    with FaultProxy(tmp_path, upstream=mlflow_server.uri) as tracking:
        spec = {
            "mlflow": {"trackingURI": tracking.url, "pollInterval": "1s"},
            "artifacts": [{"prefix": "s3://models/", "endpoint": "http://127.0.0.1:1"}],
        }
        kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelRegistry"}
        api.apply({**kind, "metadata": {"name": "hanging"}, "spec": spec})
        try:
            lane.operator.start()
            story = lane.story()
            story.spec["model"] |= {"registryRef": {"name": "hanging"}}
            FIRST.act(story)
            until_ended(story, FIRST)
            tracking.put("hanging", Rule(action=Hold()))
            eventually(lambda: tracking.fired("hanging"), within=60, what="the registry is asked and hangs")
            DELETION.act(story)
            until_ended(story, DELETION, within=60)
        finally:
            api.delete("ModelRegistry", "hanging")
            tracking.clear()
