"""What Rollway's chart learns of the Prometheus for tests, how it is asked, and when it counts as there."""

from pathlib import Path
from typing import Any

import pytest

from rollway_cluster import binaries, containers, prometheus
from rollway_cluster.client import Client, Object
from rollway_cluster.demo import scraped
from rollway_cluster.install import together
from rollway_cluster.prometheus import Monitoring
from rollway_cluster.traefik import Gateway

KUBECTL = """#!/bin/sh
echo "$@" > "$0.asked"
echo '{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}}'
"""


def of_kind(kind: str) -> Object:
    made = [*prometheus.operator("operator", "reloader"), *prometheus.prometheus("server", "5s")]
    (found,) = (each for each in made if each["kind"] == kind)
    return found


def test_its_namespace_and_that_of_the_gateways_are_let_in() -> None:
    client = Client(Path("kubectl"), Path("helm"), Path("kubeconfig"), "test")
    values = together(Gateway().values(), Monitoring(client).values())
    assert values["networkPolicy"] == {
        "gatewayNamespaces": ["traefik"],
        "prometheusNamespaces": ["monitoring"],
    }


def test_an_expression_is_asked_through_the_api_server(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    monitoring = Monitoring(Client(kubectl, Path("helm"), Path("kubeconfig"), "test"))
    assert monitoring.query('up{job="a/b"} == 1') == [{"metric": {}}]
    service = "/api/v1/namespaces/monitoring/services/prometheus-operated:web/proxy"
    query = "up%7Bjob%3D%22a%2Fb%22%7D%20%3D%3D%201"
    asked = (tmp_path / "kubectl.asked").read_text()
    assert asked == f"--context=test get --raw {service}/api/v1/query?query={query}\n"


def test_only_what_carries_the_usual_label_is_selected_in_every_namespace() -> None:
    spec = of_kind("Prometheus")["spec"]
    for kind in ("podMonitor", "serviceMonitor", "probe", "rule"):
        assert spec[f"{kind}Selector"] == {"matchLabels": {"release": "kube-prometheus-stack"}}
        assert spec[f"{kind}NamespaceSelector"] == {}


def test_the_version_is_the_one_that_is_built() -> None:
    required = (binaries.SOURCES / "prometheus" / "go.mod").read_text()
    major, minor, patch = binaries.PROMETHEUS_VERSION.split(".")
    assert f"github.com/prometheus/prometheus v0.{major}{int(minor):02}.{patch}" in required
    assert of_kind("Prometheus")["spec"]["version"] == f"v{binaries.PROMETHEUS_VERSION}"


def test_every_image_is_a_program_that_is_built() -> None:
    names = [containers.image(name) for name in prometheus.IMAGES]
    assert len({name.rpartition(":")[0] for name in names}) == len(prometheus.IMAGES)


def test_all_of_it_carries_the_label_by_which_it_is_removed() -> None:
    made = [*prometheus.operator("operator", "reloader"), *prometheus.prometheus("server", "5s")]
    assert [each for each in made if "labels" not in each["metadata"]] == []
    roles = [each["metadata"]["name"] for each in made if each["kind"] == "ClusterRole"]
    assert tuple(roles) == prometheus.CLUSTER_WIDE


@pytest.mark.parametrize(
    ("status", "observed", "expected"), [("True", 2, True), ("True", 1, False), ("Degraded", 2, False)]
)
def test_it_is_available_as_its_present_spec_says(status: str, observed: int, expected: bool) -> None:
    conditions = [
        {"type": "Available", "status": status, "observedGeneration": observed},
        {"type": "Reconciled", "status": "True", "observedGeneration": observed},
    ]
    found: dict[str, Any] = {"metadata": {"generation": 2}, "status": {"conditions": conditions}}
    assert prometheus.available(found) is expected


def test_one_that_nobody_looked_at_is_not_available() -> None:
    assert not prometheus.available({"metadata": {"generation": 1}})
    assert not prometheus.available(None)


def test_the_demo_counts_targets_by_namespace() -> None:
    answer = [
        {"metric": {"namespace": namespace}, "value": [0, value]}
        for namespace, value in (("mlflow", "1"), ("demo", "1"), ("demo", "0"))
    ]
    assert scraped(answer) == "targets that are up: demo 1 of 2, mlflow 1 of 1"
    assert scraped([]) == "targets that are up: none"
