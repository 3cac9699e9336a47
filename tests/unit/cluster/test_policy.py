"""NetworkPolicies come out as the iptables rules that mean the same."""

from typing import Any

import pytest

from rollway_cluster import policy

ALLOW_ALL = ("-j", "RETURN")


def pod(name: str, address: str, namespace: str = "team-a", **labels: str) -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"phase": "Running", "podIP": address},
    }


def network_policy(namespace: str = "team-a", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "rule", "namespace": namespace}, "spec": {"podSelector": {}, **spec}}


MODEL = pod("model", "10.98.0.2", app="model")
CLIENT = pod("client", "10.98.0.3", app="client")
STRANGER = pod("stranger", "10.98.0.4", namespace="team-b", app="client")
PODS = [MODEL, CLIENT, STRANGER]
NAMESPACES = [{"metadata": {"name": name, "labels": {"team": name}}} for name in ("team-a", "team-b")]
ONLY_MODEL: dict[str, Any] = {"podSelector": {"matchLabels": {"app": "model"}}}


def rules(*policies: dict[str, Any], pods: list[dict[str, Any]] = PODS) -> list[policy.Rule]:
    """The rules of the one chain that there is, but for its last, which rejects."""
    chains = policy.chains(pods, NAMESPACES, policies)
    children = [name for name in chains if name != policy.PARENT]
    assert len(children) == 1, chains
    assert chains[children[0]][-1] == policy.REJECT
    return list(chains[children[0]][:-1])


def test_without_policies_everything_passes() -> None:
    assert policy.chains(PODS, NAMESPACES, []) == {policy.PARENT: (policy.ESTABLISHED,)}


def test_a_policy_without_rules_lets_nothing_in() -> None:
    assert rules(network_policy(**ONLY_MODEL, policyTypes=["Ingress"])) == []


def test_an_ingress_chain_is_reached_by_packets_to_the_pod() -> None:
    chains = policy.chains(PODS, NAMESPACES, [network_policy(**ONLY_MODEL, policyTypes=["Ingress"])])
    child = next(name for name in chains if name != policy.PARENT)
    assert chains[policy.PARENT] == (policy.ESTABLISHED, ("-d", "10.98.0.2/32", "-j", child))


def test_an_egress_chain_is_reached_by_packets_from_the_pod() -> None:
    chains = policy.chains(PODS, NAMESPACES, [network_policy(**ONLY_MODEL, policyTypes=["Egress"])])
    child = next(name for name in chains if name != policy.PARENT)
    assert chains[policy.PARENT] == (policy.ESTABLISHED, ("-s", "10.98.0.2/32", "-j", child))


def test_an_empty_rule_lets_everything_in() -> None:
    assert rules(network_policy(**ONLY_MODEL, ingress=[{}])) == [ALLOW_ALL]


def test_a_pod_selector_means_pods_of_the_policys_namespace() -> None:
    peer = {"podSelector": {"matchLabels": {"app": "client"}}}
    assert rules(network_policy(**ONLY_MODEL, ingress=[{"from": [peer]}])) == [
        ("-s", "10.98.0.3/32", *ALLOW_ALL)
    ]


def test_both_selectors_of_one_peer_must_match() -> None:
    peer = {
        "namespaceSelector": {"matchLabels": {"team": "team-b"}},
        "podSelector": {"matchLabels": {"app": "client"}},
    }
    assert rules(network_policy(**ONLY_MODEL, ingress=[{"from": [peer]}])) == [
        ("-s", "10.98.0.4/32", *ALLOW_ALL)
    ]


def test_two_peers_are_alternatives() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"team": "team-b"}}}, {"podSelector": {}}]
    sources = {rule[1] for rule in rules(network_policy(**ONLY_MODEL, ingress=[{"from": peers}]))}
    assert sources == {"10.98.0.2/32", "10.98.0.3/32", "10.98.0.4/32"}


def test_peers_that_match_nobody_let_nobody_in() -> None:
    peer = {"podSelector": {"matchLabels": {"app": "nobody"}}}
    assert rules(network_policy(**ONLY_MODEL, ingress=[{"from": [peer]}])) == []


def test_a_block_leaves_its_exceptions_out() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}}
    found = rules(network_policy(**ONLY_MODEL, policyTypes=["Egress"], egress=[{"to": [block]}]))
    assert {rule[1] for rule in found} == {"10.0.0.0/32", "10.0.0.2/31"}
    assert {rule[0] for rule in found} == {"-d"}


def test_ports_name_protocol_number_and_range() -> None:
    ports = [
        {"port": 80},
        {"protocol": "UDP", "port": 53},
        {"port": 9000, "endPort": 9010},
        {"protocol": "SCTP"},
    ]
    assert [rule[:-2] for rule in rules(network_policy(**ONLY_MODEL, ingress=[{"ports": ports}]))] == [
        ("-p", "tcp", "--dport", "80"),
        ("-p", "udp", "--dport", "53"),
        ("-p", "tcp", "--dport", "9000:9010"),
        ("-p", "sctp"),
    ]


def test_a_named_port_is_looked_up_in_the_pod() -> None:
    found = rules(network_policy(**ONLY_MODEL, ingress=[{"ports": [{"port": "http"}]}]))
    assert found == [("-p", "tcp", "--dport", "8080", *ALLOW_ALL)]


def test_a_name_that_the_pod_lacks_opens_nothing() -> None:
    assert rules(network_policy(**ONLY_MODEL, ingress=[{"ports": [{"port": "grpc"}]}])) == []


def test_policies_add_up() -> None:
    one = network_policy(**ONLY_MODEL, ingress=[{"ports": [{"port": 80}]}])
    other = network_policy(**ONLY_MODEL, ingress=[{"ports": [{"port": 90}]}])
    assert [rule[3] for rule in rules(one, other)] == ["80", "90"]


def test_a_policy_selects_only_in_its_own_namespace() -> None:
    chains = policy.chains(PODS, NAMESPACES, [network_policy(namespace="team-b", policyTypes=["Ingress"])])
    assert [rule[1] for rule in chains[policy.PARENT][1:]] == ["10.98.0.4/32"]


def test_pods_that_ended_or_use_the_nodes_network_have_no_rules() -> None:
    ended = pod("ended", "10.98.0.5") | {"status": {"phase": "Succeeded", "podIP": "10.98.0.5"}}
    host = pod("host", "10.99.8.2") | {"spec": {"hostNetwork": True, "containers": []}}
    chains = policy.chains([ended, host], NAMESPACES, [network_policy(policyTypes=["Ingress"])])
    assert list(chains) == [policy.PARENT]


@pytest.mark.parametrize(
    ("operator", "on_a", "on_b", "without"),
    [
        ("In", True, False, False),
        ("NotIn", False, True, True),
        ("Exists", True, True, False),
        ("DoesNotExist", False, False, True),
    ],
)
def test_expressions_select_as_kubernetes_says(operator: str, on_a: bool, on_b: bool, without: bool) -> None:
    expression = {"key": "app", "operator": operator, "values": ["a"]}
    labels: list[dict[str, str]] = [{"app": "a"}, {"app": "b"}, {}]
    assert [policy.matches({"matchExpressions": [expression]}, each) for each in labels] == [
        on_a,
        on_b,
        without,
    ]


def test_one_restore_replaces_all_chains_and_deletes_what_is_stale() -> None:
    text = policy.restore_input(
        {policy.PARENT: (policy.ESTABLISHED,), "NEW": (policy.REJECT,)}, ["NEW", "OLD"]
    )
    assert text.splitlines() == [
        "*filter",
        f":{policy.PARENT} - [0:0]",
        ":NEW - [0:0]",
        ":OLD - [0:0]",
        f"-A {policy.PARENT} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "-A NEW -j REJECT --reject-with icmp-admin-prohibited",
        "-X OLD",
        "COMMIT",
    ]


def test_policies_come_first_only_before_everything_else() -> None:
    ours = f"-A FORWARD -j {policy.PARENT}"
    assert policy.comes_first(f"-P FORWARD ACCEPT\n{ours}\n-A FORWARD -j KUBE-FORWARD\n")
    assert not policy.comes_first(f"-P FORWARD ACCEPT\n-A FORWARD -j KUBE-FORWARD\n{ours}\n")
    assert not policy.comes_first("-P FORWARD ACCEPT\n")
