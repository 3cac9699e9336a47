"""The rules of a model's NetworkPolicy: who may connect to its pods, and where these may connect to; pure.

in    those whom spec.networkPolicy names, or any pod of the cluster    http, grpc
      the Gateways' namespaces                                          http, grpc
      the operator's namespace                                          http, metrics
      Prometheus' namespaces                                            metrics
out   DNS
      what the registry's entry says, or the ports of its addresses     never link-local addresses
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from rollway_operator.api.v1alpha1 import LINK_LOCAL, NetworkPolicy
from rollway_operator.domain import Platform

Rule = dict[str, Any]

_NEVER: Final = {
    "0.0.0.0/0": (LINK_LOCAL,),
    "::/0": ("fe80::/10", "fd00:ec2::254/128"),
}
"""Where machines keep their metadata, and with it credentials: no rule leads there."""

_ANY_POD: Final[Rule] = {"namespaceSelector": {}}
_ANYWHERE: Final[list[Rule]] = [
    # Where a range is taken to mean no pod, the first names the pods; where it means all, it is said twice.
    _ANY_POD,
    *({"ipBlock": {"cidr": whole, "except": list(never)}} for whole, never in _NEVER.items()),
]
_DNS: Final[Rule] = {
    "to": [_ANY_POD],
    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
}


def ingress(
    policy: NetworkPolicy | None, settings: Iterable[Mapping[str, Any]], platform: Platform
) -> list[Rule]:
    """Give the rules for connections to pods that listen as these revisions' settings say."""
    revisions = list(settings)
    named = (policy and policy.from_) or ()
    callers = [peer.model_dump(mode="json", by_alias=True, exclude_defaults=True) for peer in named] or [
        _ANY_POD
    ]

    def to(*names: str) -> list[Rule]:
        ports = sorted({int(revision[name]) for revision in revisions for name in names})
        return [{"protocol": "TCP", "port": port} for port in ports]

    rules = (
        (callers, to("httpPort", "grpcPort")),
        (_of_namespaces(platform.gateway_namespaces), to("httpPort", "grpcPort")),
        (_of_namespaces((platform.namespace,)), to("httpPort", "metricsPort")),
        (_of_namespaces(platform.prometheus_namespaces), to("metricsPort")),
    )
    return [{"from": peers, "ports": ports} for peers, ports in rules if peers]


def egress(artifacts: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """Give the rules for connections that `fetch` makes to these entries of a ModelRegistry."""
    rules = [_DNS]
    for entry in artifacts:
        found = (_bounded(rule) for rule in entry["egress"]) if "egress" in entry else [_by_address(entry)]
        rules += [rule for rule in found if rule and rule not in rules]
    return rules


def _of_namespaces(names: Iterable[str]) -> list[Rule]:
    return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in names]


def _by_address(entry: Mapping[str, Any]) -> Rule:
    """Allow the ports of an entry's addresses, at any address: names say nothing about who answers to them."""
    through_server = entry["prefix"].startswith("mlflow-artifacts:")
    ports = {_port(entry.get("trackingURI" if through_server else "endpoint"))}
    if "roleARN" in entry:
        ports.add(_port(entry.get("stsEndpoint")))
    return {"to": _ANYWHERE, "ports": [{"protocol": "TCP", "port": port} for port in sorted(ports)]}


def _port(url: str | None) -> int:
    """Read the port of a URL; where there is none, AWS is meant."""
    parts = urlsplit(url or "https:")
    try:
        port = parts.port
    except ValueError:
        port = None
    return port or (80 if parts.scheme == "http" else 443)


def _bounded(rule: Mapping[str, Any]) -> Rule | None:
    """Take link-local addresses out of a rule of the administrator's; None where nothing is left."""
    peers = [peer for given in rule.get("to", ()) for peer in _without_never(given)]
    if rule.get("to") and not peers:
        return None
    ports = [{"protocol": "TCP"} | port for port in rule.get("ports", ())]
    return {"to": peers or _ANYWHERE} | ({"ports": ports} if ports else {})


def _without_never(peer: Mapping[str, Any]) -> Iterator[Rule]:
    block = peer.get("ipBlock")
    if block is None:
        yield dict(peer)
        return
    try:
        network, exceptions = _network(block["cidr"]), [_network(text) for text in block.get("except", ())]
    except ValueError:
        return
    never = [_network(text) for texts in _NEVER.values() for text in texts]
    if any(_within(network, without) for without in never):
        return
    taken_out = [
        without
        for without in never
        if _within(without, network) and not any(_within(without, known) for known in exceptions)
    ]
    # A range that lies in one just taken out would be refused beside it by nobody, but says nothing more.
    kept = [known for known in exceptions if not any(_within(known, without) for without in taken_out)]
    exclusions = [str(found) for found in (*kept, *taken_out)]
    yield {"ipBlock": {"cidr": block["cidr"]} | ({"except": exclusions} if exclusions else {})}


def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text, strict=False)


def _within(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)
