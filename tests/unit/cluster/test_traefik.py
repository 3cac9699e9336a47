"""What Rollway's chart learns of the Gateways for tests, and when they count as there."""

import dataclasses
from typing import Any

import pytest

from rollway_cluster import prometheus, traefik
from rollway_cluster.traefik import Gateway


def test_the_chart_learns_of_both_gateways_and_lets_their_namespace_in() -> None:
    assert Gateway().values() == {
        "gateway": {
            "http": {"name": "http", "namespace": "traefik"},
            "grpc": {"name": "grpc", "namespace": "traefik"},
            "url": "http://traefik.traefik.svc:8000",
        },
        "networkPolicy": {"gatewayNamespaces": ["traefik"]},
    }


def test_hosts_are_permitted_where_a_test_says_so() -> None:
    permitting = dataclasses.replace(Gateway(), permitted_hosts=("*.{namespace}.example.com",))
    assert permitting.values()["gateway"]["permittedHosts"] == ["*.{namespace}.example.com"]


def test_each_listener_has_the_port_of_an_entry_point() -> None:
    objects = traefik.objects("image")
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for gateway in (each for each in objects if each["kind"] == "Gateway"):
        (listener,) = gateway["spec"]["listeners"]
        assert f"--entrypoints.{listener['name']}.address=:{listener['port']}" in container["args"]


def test_the_port_that_is_scraped_is_one_that_its_pods_have() -> None:
    monitor, objects = traefik.monitor(), traefik.objects("image")
    [template] = (each["spec"]["template"] for each in objects if each["kind"] == "Deployment")
    assert monitor["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert monitor["metadata"]["labels"].items() >= prometheus.LABELS.items()
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    [container] = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"--entrypoints.traefik.address=:{ports[endpoint['port']]}" in container["args"]


def test_all_of_it_carries_the_label_by_which_it_is_removed() -> None:
    assert [each for each in traefik.objects("image") if "labels" not in each["metadata"]] == []


@pytest.mark.parametrize(
    ("status", "observed", "expected"),
    [("True", 2, True), ("True", 1, False), ("False", 2, False), ("Unknown", 0, False)],
)
def test_a_gateway_is_programmed_as_its_present_spec_says(status: str, observed: int, expected: bool) -> None:
    condition = {"type": "Programmed", "status": status, "observedGeneration": observed}
    found: dict[str, Any] = {"metadata": {"generation": 2}, "status": {"conditions": [condition]}}
    assert traefik.programmed(found) is expected


def test_a_gateway_that_nobody_looked_at_is_not_programmed() -> None:
    default = {"type": "Programmed", "status": "Unknown", "reason": "Pending"}
    assert not traefik.programmed({"metadata": {"generation": 1}, "status": {"conditions": [default]}})
    assert not traefik.programmed(None)
