"""NetworkPolicies as iptables rules: a pure function from the API's objects to chains of rules.

Every pod that a policy selects gets one chain a direction. A packet that a rule of the chain allows returns to the
parent chain, where the other end's chain has its say; one that no rule allows is rejected at the chain's end. IPv4.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any

Object = Mapping[str, Any]
Rule = tuple[str, ...]
Chains = dict[str, tuple[Rule, ...]]

PARENT = "ROLLWAY-POLICY"
ESTABLISHED: Rule = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "RETURN")
REJECT: Rule = ("-j", "REJECT", "--reject-with", "icmp-admin-prohibited")
# policy type: (its rules, their peers, what matches the pod, what matches the peer)
DIRECTIONS = {"Ingress": ("ingress", "from", "-d", "-s"), "Egress": ("egress", "to", "-s", "-d")}


def chains(pods: Sequence[Object], namespaces: Sequence[Object], policies: Sequence[Object]) -> Chains:
    """Every chain by its name, the parent first."""
    world = _World(pods, namespaces)
    parent: list[Rule] = [ESTABLISHED]
    children: Chains = {}
    for pod in world.pods:
        for direction, (_, _, near, _) in DIRECTIONS.items():
            selecting = [policy for policy in policies if _selects(policy, pod, direction)]
            if selecting:
                name = _chain_name(pod, direction)
                parent.append((near, f"{pod['status']['podIP']}/32", "-j", name))
                allowed = [rule for policy in selecting for rule in world.allowed(policy, pod, direction)]
                # The same peer may be allowed twice; once is enough.
                children[name] = (*dict.fromkeys(allowed), REJECT)
    return {PARENT: tuple(parent), **children}


def restore_input(wanted: Chains, present: Sequence[str]) -> str:
    """What iptables-restore reads to replace all chains at once, and to delete those no longer wanted."""
    stale = [name for name in present if name not in wanted]
    lines = ["*filter", *(f":{name} - [0:0]" for name in (*wanted, *stale))]
    lines += [f"-A {name} {' '.join(rule)}" for name, rules in wanted.items() for rule in rules]
    lines += [f"-X {name}" for name in stale]
    return "\n".join([*lines, "COMMIT", ""])


def comes_first(forward: str) -> bool:
    """Whether packets pass the policies before any other rule of the FORWARD chain, listed by ``-S``, accepts them."""
    rules = [line for line in forward.splitlines() if line.startswith("-A")]
    return rules[:1] == [f"-A FORWARD -j {PARENT}"]


def matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects; an empty one selects everything."""
    selector = selector or {}
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_expression_holds(each, labels) for each in selector.get("matchExpressions") or ())


def _expression_holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case unknown:
            raise ValueError(f"unknown operator {unknown}")


class _World:
    """The pods and namespaces that peers are looked for among."""

    def __init__(self, pods: Sequence[Object], namespaces: Sequence[Object]) -> None:
        self.pods = sorted(
            (pod for pod in pods if _has_own_address(pod)), key=lambda pod: str(pod["metadata"]["uid"])
        )
        self._namespaces = {each["metadata"]["name"]: _labels(each) for each in namespaces}

    def allowed(self, policy: Object, pod: Object, direction: str) -> Iterator[Rule]:
        """What a policy lets through to or from a pod."""
        rules, peers, _, far = DIRECTIONS[direction]
        namespace = policy["metadata"]["namespace"]
        for rule in policy["spec"].get(rules) or ():
            listed = rule.get(peers)
            # No list means anybody; a list whose peers are nobody now means nobody.
            ends: list[Rule] = [()]
            if listed:
                ends = [(far, address) for peer in listed for address in self._addresses(peer, namespace)]
            # A named ingress port is the pod's own; a named egress port is each peer's.
            owners = [pod] if direction == "Ingress" else self.pods
            for end in ends:
                for port in _ports(rule.get("ports"), owners):
                    yield (*end, *port, "-j", "RETURN")

    def _addresses(self, peer: Object, namespace: str) -> list[str]:
        if block := peer.get("ipBlock"):
            return _block(block)
        return [
            f"{pod['status']['podIP']}/32"
            for pod in self.pods
            if self._in_namespace(peer, pod, namespace) and matches(peer.get("podSelector"), _labels(pod))
        ]

    def _in_namespace(self, peer: Object, pod: Object, namespace: str) -> bool:
        own = pod["metadata"]["namespace"]
        if peer.get("namespaceSelector") is None:
            return bool(own == namespace)
        return matches(peer["namespaceSelector"], self._namespaces.get(own, {}))


def _selects(policy: Object, pod: Object, direction: str) -> bool:
    spec = policy["spec"]
    return (
        policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
        and direction in (spec.get("policyTypes") or ("Ingress",))
        and matches(spec.get("podSelector"), _labels(pod))
    )


def _has_own_address(pod: Object) -> bool:
    status = pod.get("status") or {}
    running = status.get("phase") in ("Pending", "Running")
    return running and bool(status.get("podIP")) and not pod["spec"].get("hostNetwork")


def _labels(item: Object) -> Mapping[str, str]:
    return item["metadata"].get("labels") or {}


def _block(block: Object) -> list[str]:
    if ":" in block["cidr"]:
        return []
    networks = [IPv4Network(block["cidr"], strict=False)]
    for text in block.get("except") or ():
        without = IPv4Network(text, strict=False)
        networks = [
            part
            for network in networks
            for part in (network.address_exclude(without) if without.subnet_of(network) else [network])
        ]
    return [str(network) for network in networks]


def _ports(ports: Sequence[Object] | None, owners: Sequence[Object]) -> Iterator[Rule]:
    if not ports:
        yield ()
        return
    for entry in ports:
        protocol = str(entry.get("protocol", "TCP"))
        port = entry.get("port")
        if port is None:
            yield ("-p", protocol.lower())
        elif isinstance(port, int):
            last = f":{entry['endPort']}" if "endPort" in entry else ""
            yield ("-p", protocol.lower(), "--dport", f"{port}{last}")
        else:
            for number in sorted({found for pod in owners for found in _named(pod, port, protocol)}):
                yield ("-p", protocol.lower(), "--dport", str(number))


def _named(pod: Object, name: str, protocol: str) -> Iterator[int]:
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                yield port["containerPort"]


def _chain_name(pod: Object, direction: str) -> str:
    # iptables allows 28 characters.
    digest = hashlib.sha256(pod["metadata"]["uid"].encode()).hexdigest()[:10]
    return f"{PARENT}-{direction[0]}{digest}"
