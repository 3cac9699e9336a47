"""What the fields of a spec become on a real API server: objects that it takes as they are, and healing."""

from dataclasses import replace
from typing import Any

import pytest

from rollway_operator import manifests, traffic
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.differs import differs
from rollway_operator.domain import ArtifactSource, GatewayRef, ModelVersion, Object, Platform
from rollway_testing.controlplane import ControlPlane
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story, condition
from rollway_testing.waiting import eventually
from rollway_testing.world import RUNTIME

CASES = '[{"request": {"inputs": [[1.0]]}, "predictions": [2.5]}]'
EVERYTHING: dict[str, Any] = {
    "model": {"name": "fraud", "alias": "champion", "requireTags": {"validation_status": "approved"}},
    "predictor": {
        "resources": {
            "requests": {"cpu": 1, "memory": "1024Mi"},
            "limits": {"memory": "1Gi", "nvidia.com/gpu": 1},
        },
        "timeout": "1m",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [
            {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
            {"key": "models", "value": "yes"},
        ],
        "environmentPolicy": "Enforce",
    },
    "preTraffic": {
        "smokeTest": {
            "source": "ConfigMap",
            "configMapRef": {"name": "golden"},
            "maxLatency": "500ms",
            "tolerance": "0.001",
        },
        "warmup": {"requests": 0},
    },
    "monitoring": {"podMonitor": {"enabled": True, "labels": {"team": "a", "example.com/cost-centre": ""}}},
    "networkPolicy": {
        "from": [
            {"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "a"}}},
            {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["b", "a"]}]}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ]
    },
}
RULES = (
    {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}, {"port": 8000, "endPort": 8010}]},
    {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mlflow"}}}]},
    {"ports": [{"protocol": "UDP", "port": 123}]},
)
SOURCES = [
    ArtifactSource("s3://models/", "http://s3:8333", "eu-west-3", "models-s3"),
    ArtifactSource(
        "s3://models/",
        role_arn="arn:aws:iam::123456789012:role/models",
        sts_endpoint="http://sts:5000",
        ca_bundle_name="store-ca",
        egress=RULES,
    ),
]


def objects(namespace: str, spec: dict[str, Any], source: ArtifactSource) -> list[Object]:
    """Render all that belongs to one revision, as the operator would for the first time."""
    body = {"metadata": {"name": "iris", "namespace": namespace, "uid": "u"}, "spec": spec}
    made = ModelDeployment.of(body)
    runtime = replace(
        RUNTIME,
        server_command=("serve", "{}"),
        pre_stop_seconds=7,
        image_pull_secrets=("mirror",),
        limits={"maxBodyBytes": 2048, "headerSeconds": 2.5},
    )
    version = ModelVersion("fraud", "3", "run3", "s3://models/fraud/3")
    chosen = manifests.inputs(made, version, source, runtime, CASES)
    revision = manifests.new_revision(made, chosen, runtime, ())
    platform = Platform({}, prometheus_namespaces=("monitoring",), gateway_namespaces=("traefik",))
    shares = [traffic.Share.of(revision, 90), replace(traffic.Share.of(revision, 10), revision="iris-2")]
    gateway = GatewayRef("gateways", "http", "web")
    return [
        traffic.http_route(made, shares, revision, gateway, ["fraud.example.com"]),
        traffic.grpc_route(made, shares, None, replace(gateway, section=None)),
        traffic.disruption_budget(made, revision.name),
        traffic.autoscaler(made, revision.name, 2, 8),
        traffic.shared_service(made, revision),
        traffic.preview_service(made, revision),
        manifests.network_policy(made, [revision], platform),
        manifests.pod_monitor(made, platform),
        manifests.controller_revision(made, revision),
        manifests.config_map(made, revision),
        manifests.service(made, revision.name, revision),
        manifests.workload(made, revision, "stable"),
    ]


@pytest.fixture(scope="module")
def routes(plane: ControlPlane) -> None:
    """The API server knows routes and monitors."""
    plane.apply_gateway_api()
    plane.apply_monitoring_api()


@pytest.mark.parametrize("source", SOURCES, ids=["keys", "role"])
@pytest.mark.parametrize("spec", [{"model": EVERYTHING["model"]}, EVERYTHING], ids=["smallest", "everything"])
def test_the_api_server_takes_every_object_as_it_is_rendered(
    routes: None, api: Kubernetes, namespace: str, spec: dict[str, Any], source: ArtifactSource
) -> None:
    """Else an object at rest would be written again and again."""
    for desired in objects(namespace, spec, source):
        live = api.create({**desired, "metadata": {**desired["metadata"], "ownerReferences": []}})
        live["metadata"]["ownerReferences"] = desired["metadata"]["ownerReferences"]
        assert differs(desired, live) is None


EDITS: dict[str, dict[str, Any]] = {
    "everybody may come": {"ingress": [{}]},
    "nobody may come": {"ingress": []},
    "metadata may be reached": {"egress": [{}]},
    "only some pods are meant": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
    "nothing outgoing is meant": {"policyTypes": ["Ingress"]},
}


def policy(story: Story) -> dict[str, Any] | None:
    found = story.api.get("NetworkPolicy", "iris", story.namespace)
    return found and found["spec"]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_network_policy_is_mended(operator: OperatorProcess, story: Story, edit: str) -> None:
    story.ask()
    story.until_serving("1")
    before = policy(story)
    assert before is not None
    story.api.patch("NetworkPolicy", "iris", story.namespace, {"spec": EDITS[edit]})
    eventually(lambda: policy(story), lambda now: now == before, within=30, what="the policy is mended")


def test_a_network_policy_goes_and_comes_as_the_spec_says_and_no_pod_with_it(
    operator: OperatorProcess, story: Story
) -> None:
    story.ask()
    story.until_serving("1")
    before, pods = policy(story), story.children("Pod").keys()
    story.api.delete("NetworkPolicy", "iris", story.namespace)
    eventually(lambda: policy(story), lambda now: now == before, within=30, what="it is made again")
    story.ask(networkPolicy={"enabled": False})
    story.until(lambda _: policy(story) is None, "there is none")
    callers = [{"podSelector": {"matchLabels": {"app": "shop"}}}]
    story.ask(networkPolicy={"enabled": True, "from": callers})
    story.until(lambda _: (policy(story) or {}).get("ingress", [{}])[0].get("from") == callers, "it is back")
    assert story.children("Pod").keys() == pods


def test_a_tag_set_later_lets_the_version_go_by_itself(
    operator: OperatorProcess, story: Story, model: RegisteredModel
) -> None:
    model.tag("1", "validation_status", "approved")
    story.ask(
        model={"name": model.name, "alias": "champion", "requireTags": {"validation_status": "approved"}}
    )
    story.until_serving("1")
    model.point(model.add_version())
    status = story.until(
        lambda status: condition(status, "ModelResolved").get("reason") == "TagMissing", "the tag is missed"
    )
    assert "'validation_status' is missing" in condition(status, "ModelResolved")["message"]
    assert condition(status, "Ready")["status"] == "True"
    assert status["stable"]["version"] == "1"
    model.tag("2", "validation_status", "approved")
    story.until_serving("2")


def test_golden_data_may_come_after_the_model_and_change_later(
    operator: OperatorProcess, story: Story
) -> None:
    test = {"source": "ConfigMap", "configMapRef": {"name": "golden"}}
    story.ask(preTraffic={"smokeTest": test})
    status = story.until(lambda status: bool(condition(status, "Stalled")), "they are missed")
    assert condition(status, "Stalled")["reason"] == "GoldenNotFound"
    golden = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "golden", "namespace": story.namespace},
        "data": {"golden.json": CASES},
    }
    story.api.create(golden)
    first = story.until_serving("1")["stable"]["revision"]
    assert story.children("ConfigMap")[first]["data"]["golden.json"] == CASES
    changed = CASES.replace("2.5", "2.6")
    story.api.patch("ConfigMap", "golden", story.namespace, {"data": {"golden.json": changed}})
    status = story.until(
        lambda status: status.get("stable", {}).get("revision") not in (None, first), "a new revision serves"
    )
    assert story.children("ConfigMap")[status["stable"]["revision"]]["data"]["golden.json"] == changed
    story.until_serving("1")
