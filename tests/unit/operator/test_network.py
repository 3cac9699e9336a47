from typing import Any

import pytest

from rollway_operator import network
from rollway_operator.api.v1alpha1 import EgressRule, NetworkPolicy
from rollway_operator.domain import Platform

SETTINGS = {"httpPort": 8080, "grpcPort": 8081, "metricsPort": 8082}
PLATFORM = Platform(
    {},
    namespace="rollway-system",
    prometheus_namespaces=("monitoring",),
    gateway_namespaces=("istio-system", "traefik"),
)
ANY_POD: dict[str, Any] = {"namespaceSelector": {}}
METADATA = {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}


def of_namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]


def given(*rules: dict[str, Any]) -> list[dict[str, Any]]:
    """Write an entry's egress as a revision's inputs hold it."""
    return [
        EgressRule.model_validate(rule).model_dump(by_alias=True, exclude_defaults=True) for rule in rules
    ]


def egress(**entry: Any) -> list[dict[str, Any]]:
    """Give the rules beside the one for DNS."""
    dns, *rest = network.egress([{"prefix": "s3://models/"} | entry])
    assert [(port["protocol"], port["port"]) for port in dns["ports"]] == [("UDP", 53), ("TCP", 53)]
    assert dns["to"] == [ANY_POD]
    return rest


def test_whom_nobody_names_is_any_pod_and_each_of_the_others_gets_its_own_ports() -> None:
    assert network.ingress(None, [SETTINGS], PLATFORM) == [
        {"from": [ANY_POD], "ports": ports(8080, 8081)},
        {"from": [of_namespace("istio-system"), of_namespace("traefik")], "ports": ports(8080, 8081)},
        {"from": [of_namespace("rollway-system")], "ports": ports(8080, 8082)},
        {"from": [of_namespace("monitoring")], "ports": ports(8082)},
    ]


def test_a_namespace_that_the_administrator_does_not_name_gets_no_rule() -> None:
    rules = network.ingress(None, [SETTINGS], Platform({}, namespace="rollway-system"))
    # An empty `from` would mean everybody.
    assert [rule["from"] for rule in rules] == [[ANY_POD], [of_namespace("rollway-system")]]


def test_whom_the_spec_names_is_let_in_as_it_stands_there() -> None:
    peers = [
        {"podSelector": {"matchLabels": {"app": "shop"}}},
        {"namespaceSelector": {}, "podSelector": {}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]
    policy = NetworkPolicy.model_validate({"from": peers})
    assert network.ingress(policy, [SETTINGS], PLATFORM)[0] == {"from": peers, "ports": ports(8080, 8081)}


def test_two_revisions_with_other_ports_are_both_reached() -> None:
    other = {"httpPort": 9000, "grpcPort": 8081, "metricsPort": 6000}
    rules = network.ingress(None, [SETTINGS, other], PLATFORM)
    assert rules[0]["ports"] == ports(8080, 8081, 9000)
    assert rules[3]["ports"] == ports(6000, 8082)


# ------------------------------------------------------------------------------------------------------------- egress


@pytest.mark.parametrize(
    ("entry", "numbers"),
    [
        ({}, (443,)),
        ({"endpoint": "http://s3.mlflow.svc:8333"}, (8333,)),
        ({"endpoint": "http://s3"}, (80,)),
        ({"endpoint": "https://s3"}, (443,)),
        ({"endpoint": "https://[fd00::1]:9000"}, (9000,)),
        ({"endpoint": "https://s3:99999"}, (443,)),
        ({"prefix": "mlflow-artifacts:/", "trackingURI": "http://mlflow:5000"}, (5000,)),
        ({"roleARN": "arn:aws:iam::123456789012:role/r"}, (443,)),
        ({"roleARN": "arn:aws:iam::123456789012:role/r", "endpoint": "http://s3:8333"}, (443, 8333)),
        ({"roleARN": "arn:aws:iam::123456789012:role/r", "stsEndpoint": "http://sts:5001"}, (443, 5001)),
    ],
)
def test_without_a_word_of_the_administrator_the_ports_of_the_addresses_are_open(
    entry: dict[str, Any], numbers: tuple[int, ...]
) -> None:
    [rule] = egress(**entry)
    assert rule["ports"] == ports(*numbers)
    assert rule["to"][:2] == [ANY_POD, {"ipBlock": METADATA}]


@pytest.mark.parametrize(
    ("block", "exceptions"),
    [
        ({"cidr": "0.0.0.0/0"}, ["169.254.0.0/16"]),
        ({"cidr": "169.0.0.0/8"}, ["169.254.0.0/16"]),
        ({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}, ["10.0.0.0/8", "169.254.0.0/16"]),
        ({"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}, ["169.254.0.0/16"]),
        ({"cidr": "0.0.0.0/0", "except": ["169.0.0.0/8"]}, ["169.0.0.0/8"]),
        ({"cidr": "10.0.0.0/8"}, None),
        ({"cidr": "::/0"}, ["fe80::/10", "fd00:ec2::254/128"]),
        ({"cidr": "fd00::/8"}, ["fd00:ec2::254/128"]),
    ],
)
def test_link_local_addresses_are_taken_out_of_what_the_administrator_writes(
    block: dict[str, Any], exceptions: list[str] | None
) -> None:
    [rule] = egress(egress=given({"to": [{"ipBlock": block}], "ports": [{"port": 443}]}))
    [peer] = rule["to"]
    assert peer["ipBlock"]["cidr"] == block["cidr"]
    assert peer["ipBlock"].get("except") == exceptions


@pytest.mark.parametrize("cidr", ["169.254.169.254/32", "169.254.0.0/16", "fe80::/64", "no range"])
def test_a_rule_that_leads_to_nothing_but_link_local_addresses_is_left_out(cidr: str) -> None:
    assert egress(egress=given({"to": [{"ipBlock": {"cidr": cidr}}]})) == []


def test_a_rule_without_peers_means_any_address_but_those() -> None:
    [rule] = egress(egress=given({"ports": [{"port": 8333}]}))
    assert {"ipBlock": METADATA} in rule["to"]
    assert rule["ports"] == ports(8333)


def test_what_the_administrator_writes_is_all_that_is_open() -> None:
    rule = {"to": [of_namespace("mlflow")], "ports": [{"port": 8333}, {"port": 9000, "endPort": 9010}]}
    role = "arn:aws:iam::123456789012:role/r"
    [only] = egress(egress=given(rule), endpoint="http://s3:1", roleARN=role)
    assert only["to"] == [of_namespace("mlflow")]
    assert only["ports"] == [{"protocol": "TCP", **port} for port in rule["ports"]]


def test_two_revisions_from_the_same_place_need_no_rule_twice() -> None:
    entry = {"prefix": "s3://models/", "endpoint": "http://s3:8333"}
    assert network.egress([entry, entry]) == network.egress([entry])
    assert len(network.egress([entry, {"prefix": "s3://others/"}])) == 3
