import copy
from typing import Any

import pytest

from rollway_operator.differs import differs, repair

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "iris", "labels": {"app": "iris"}},
    "spec": {
        "selector": {"matchLabels": {"app": "iris"}},
        "template": {
            "spec": {
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "server",
                        "image": "server@sha256:1",
                        "env": [{"name": "A", "value": "1"}],
                        "resources": {"requests": {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": 1}},
                        "ports": [{"name": "http", "containerPort": 8080}],
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            }
        },
    },
}
LIVE: dict[str, Any] = {
    **copy.deepcopy(DEPLOYMENT),
    "status": {"replicas": 1},
}
LIVE["metadata"] |= {
    "uid": "u",
    "resourceVersion": "7",
    "annotations": {"deployment.kubernetes.io/revision": "1"},
}
LIVE["spec"] |= {"replicas": 3, "progressDeadlineSeconds": 600}
LIVE["spec"]["template"]["spec"] |= {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always"}
LIVE["spec"]["template"]["spec"]["containers"][0] |= {"terminationMessagePath": "/dev/termination-log"}
LIVE["spec"]["template"]["spec"]["containers"][0]["ports"][0] |= {"protocol": "TCP"}


def service(selector: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": "iris"} | more, "spec": {"selector": selector}}


def config_map(**data: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": "iris"}, "data": data}


def container(live: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = live["spec"]["template"]["spec"]["containers"][0]
    return found


def test_what_the_server_and_other_controllers_add_is_no_difference() -> None:
    assert differs(DEPLOYMENT, LIVE) is None


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ("500m", "0.5"),
        ("500m", 0.5),
        ("1", 1),
        ("1Gi", "1024Mi"),
        ("1Gi", "1073741824"),
        ("1000Ki", "1024000"),
        ("1k", "1000"),
        ("2e3", "2k"),
        ("1M", "1e6"),
        ("0.1", "100m"),
    ],
)
def test_quantities_are_compared_by_what_they_mean(desired: Any, live: Any) -> None:
    wanted = {"metadata": {}, "spec": {"resources": {"limits": {"nvidia.com/gpu": desired}}}}
    found = {"metadata": {}, "spec": {"resources": {"limits": {"nvidia.com/gpu": live}}}}
    assert differs(wanted, found) is None


def test_what_an_autoscaler_goes_by_is_a_quantity() -> None:
    wanted, found = ({"metadata": {}, "target": {"averageValue": value}} for value in ("1024Mi", "1Gi"))
    assert differs(wanted, found) is None


@pytest.mark.parametrize(("desired", "live"), [("1Gi", "1G"), ("500m", "501m"), ("1", "1m"), ("1", "many")])
def test_different_quantities_are_a_difference(desired: Any, live: Any) -> None:
    wanted = {"metadata": {}, "spec": {"limits": {"cpu": desired}}}
    assert differs(wanted, {"metadata": {}, "spec": {"limits": {"cpu": live}}}) is not None


def test_text_that_looks_like_a_quantity_is_text_elsewhere() -> None:
    wanted, found = ({"metadata": {"labels": {"version": version}}} for version in ("1k", "1000"))
    assert differs(wanted, found) == 'metadata.labels.version: "1k" desired, "1000" found'


def test_the_first_difference_is_named_with_its_path() -> None:
    live = copy.deepcopy(LIVE)
    container(live)["image"] = "other"
    where = "spec.template.spec.containers.0.image"
    assert differs(DEPLOYMENT, live) == f'{where}: "server@sha256:1" desired, "other" found'


def test_an_added_list_element_is_a_difference() -> None:
    live = copy.deepcopy(LIVE)
    container(live)["env"].append({"name": "B", "value": "2"})
    assert differs(DEPLOYMENT, live) == "spec.template.spec.containers.0.env: 1 elements desired, 2 found"


def test_a_list_added_to_a_pod_template_is_a_difference_that_the_repair_removes() -> None:
    live = copy.deepcopy(LIVE)
    template = live["spec"]["template"]["spec"]
    template["tolerations"] = [{"operator": "Exists"}]
    assert differs(DEPLOYMENT, live) == "spec.template.spec.tolerations: not desired"
    assert repair(DEPLOYMENT, live)["spec"]["template"]["spec"]["tolerations"] is None
    del template["tolerations"]
    live["spec"]["clusterIPs"] = ["10.0.0.1"]
    assert differs(DEPLOYMENT, live) is None


def test_a_removed_field_is_a_difference() -> None:
    live = copy.deepcopy(LIVE)
    del live["spec"]["template"]["spec"]["automountServiceAccountToken"]
    where = "spec.template.spec.automountServiceAccountToken"
    assert differs(DEPLOYMENT, live) == f"{where}: false desired, nothing found"


def test_a_volume_of_another_sort_is_a_difference() -> None:
    live = copy.deepcopy(LIVE)
    live["spec"]["template"]["spec"]["volumes"] = [{"name": "tmp", "hostPath": {"path": "/"}}]
    assert differs(DEPLOYMENT, live) is not None


@pytest.mark.parametrize("empty", [None, "", [], ()])
def test_what_the_server_leaves_out_when_empty_is_no_difference(empty: Any) -> None:
    assert differs({"metadata": {}, "spec": {"field": empty}}, {"metadata": {}, "spec": {}}) is None


@pytest.mark.parametrize(("desired", "live"), [(True, 1), (False, 0), (0, False)])
def test_booleans_are_not_numbers(desired: Any, live: Any) -> None:
    assert differs({"metadata": {}, "field": desired}, {"metadata": {}, "field": live}) is not None


def test_labels_of_others_are_no_difference() -> None:
    live = service({"app": "iris"}, labels={"team": "a"})
    assert differs(service({"app": "iris"}), live) is None


@pytest.mark.parametrize("selector", [{"app": "iris", "extra": "x"}, {"app": "other"}, {}])
def test_selectors_are_compared_for_equality(selector: dict[str, str]) -> None:
    assert differs(service({"app": "iris"}), service(selector)) is not None


def test_data_is_compared_for_equality() -> None:
    assert differs(config_map(a="1"), config_map(a="1", b="2")) == "data.b: not desired"
    assert differs(config_map(a="1"), config_map(a="2")) is not None
    assert differs(config_map(a="1"), config_map(a="1")) is None


def managed(
    fields: dict[str, Any], manager: str = "rollway-operator", operation: str = "Apply"
) -> dict[str, Any]:
    return {"managedFields": [{"manager": manager, "operation": operation, "fieldsV1": fields}]}


def test_a_field_that_we_applied_and_no_longer_desire_is_a_difference() -> None:
    fields: dict[str, Any] = {"f:metadata": {"f:labels": {"f:old": {}}}}
    live = service({"app": "iris"}, labels={"old": "1"}, **managed(fields))
    assert differs(service({"app": "iris"}), live) == "metadata.labels: applied before, no longer desired"
    kept = service({"app": "iris"}, labels={"old": "1"})
    assert differs(kept, live) is None


def test_an_element_that_we_applied_and_no_longer_desire_is_a_difference() -> None:
    key = 'k:{"containerPort":9090,"protocol":"TCP"}'
    fields: dict[str, Any] = {"f:spec": {"f:ports": {key: {".": {}, "f:containerPort": {}}}}}
    live = {"metadata": managed(fields), "spec": {"ports": [{"containerPort": 9090, "protocol": "TCP"}]}}
    assert differs({"metadata": {}, "spec": {"ports": [{"containerPort": 9090}]}}, live) is None
    live["spec"] = {"ports": [{"containerPort": 8080, "protocol": "TCP"}]}
    difference = differs({"metadata": {}, "spec": {"ports": [{"containerPort": 8080}]}}, live)
    assert difference is not None
    assert "applied before" in difference


@pytest.mark.parametrize(("manager", "operation"), [("kubectl", "Apply"), ("rollway-operator", "Update")])
def test_fields_of_others_and_of_creation_are_no_difference(manager: str, operation: str) -> None:
    fields: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    live = service({"app": "iris"}, **managed(fields, manager, operation))
    assert differs(service({"app": "iris"}), live) is None


def test_the_repair_removes_what_others_added() -> None:
    assert repair(config_map(a="1"), config_map(a="2", b="2")) == {"data": {"a": "1", "b": None}}
    live = copy.deepcopy(LIVE)
    container(live)["env"].append({"name": "B", "value": "2"})
    assert repair(DEPLOYMENT, live)["spec"]["template"]["spec"]["containers"] == [container(DEPLOYMENT)]


def test_the_repair_leaves_counts_and_defaults_alone() -> None:
    assert "replicas" not in repair(DEPLOYMENT, LIVE)["spec"]


def policy(**spec: Any) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "podSelector": {"matchLabels": {"app": "iris"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": 8080}]}],
        "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]}],
    }
    return {"kind": "NetworkPolicy", "metadata": {"name": "iris"}, "spec": ours | spec}


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        ({"ingress": []}, "spec.ingress"),
        ({"ingress": [{}, *policy()["spec"]["ingress"]]}, "spec.ingress"),
        ({"ingress": [{"ports": [{"protocol": "TCP", "port": 8080}]}]}, "spec.ingress.0.from"),
        (
            {
                "ingress": [
                    {
                        "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}],
                        "ports": [{"protocol": "TCP", "port": 8080}],
                    }
                ]
            },
            "spec.ingress.0.from.0.podSelector",
        ),
        (
            {
                "ingress": [
                    {
                        "from": [{"namespaceSelector": {}}],
                        "ports": [{"protocol": "TCP", "port": 8080, "endPort": 9000}],
                    }
                ]
            },
            "spec.ingress.0.ports.0.endPort",
        ),
        ({"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}, "spec.egress.0.to.0.ipBlock.except"),
        ({"egress": [{}]}, "spec.egress.0.to"),
        ({"policyTypes": ["Ingress"]}, "spec.policyTypes"),
        (
            {
                "podSelector": {
                    "matchLabels": {"app": "iris"},
                    "matchExpressions": [{"key": "a", "operator": "Exists"}],
                }
            },
            "spec.podSelector.matchExpressions",
        ),
    ],
)
def test_any_edit_of_a_network_policy_is_a_difference_that_a_patch_removes(
    edit: dict[str, Any], path: str
) -> None:
    live = policy(**edit)
    assert str(differs(policy(), live)).startswith(path)
    merged = merge_patch(live["spec"], repair(policy(), live)["spec"])
    assert differs(policy(), live | {"spec": merged}) is None


def merge_patch(target: Any, patch: Any) -> Any:
    """Do what RFC 7386 says."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        merged.pop(key, None)
        if value is not None:
            merged[key] = merge_patch(target.get(key) if isinstance(target, dict) else None, value)
    return merged


def monitor(**endpoint: Any) -> dict[str, Any]:
    ours = {"port": "metrics", "path": "/metrics", "honorLabels": False}
    spec = {"podTargetLabels": ["rollway.dev/revision"], "podMetricsEndpoints": [ours | endpoint]}
    return {"kind": "PodMonitor", "metadata": {"name": "iris"}, "spec": spec}


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        ({"honorLabels": True}, "spec.podMetricsEndpoints.0.honorLabels"),
        ({"relabelings": [{"targetLabel": "pod"}]}, "spec.podMetricsEndpoints.0.relabelings"),
        ({"interval": "1h"}, "spec.podMetricsEndpoints.0.interval"),
    ],
)
def test_any_edit_of_how_pods_are_scraped_is_a_difference_that_a_patch_removes(
    edit: dict[str, Any], path: str
) -> None:
    live = monitor(**edit)
    assert str(differs(monitor(), live)).startswith(path)
    merged = merge_patch(live["spec"], repair(monitor(), live)["spec"])
    assert differs(monitor(), live | {"spec": merged}) is None
