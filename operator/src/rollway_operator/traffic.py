"""How requests reach a model's revisions: desired routes and shared Services, and what live routes say; pure.

HTTPRoute   path /seldon/<namespace>/<name>, stripped           weights between the revisions' Services, on http
GRPCRoute   metadata seldon: <name>, namespace: <namespace>     the same weights, on grpc
            either with x-rollway-track: canary                 the candidate, whatever its weight
Service     <name>              one revision's pods (manifests.service), or all pods of the model (shared_service)
Service     <name>-preview      the pods of a blue-green candidate

With these come what follows stable's pods (autoscaler, disruption budget), how many pods a share of the traffic takes,
and which host names the administrator permits. Routes spell out every field that the API server would add.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from rollway_operator import labels, manifests
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import GatewayRef, Object, Platform, StoredRevision

Json = dict[str, Any]

TRACK_HEADER: Final = "x-rollway-track"
CANARY_TRACK: Final = "canary"

_GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
_CPU_PERCENT: Final = 80
"""The load at which an autoscaler adds pods where the spec names no metric, as the API server would have it."""

_HOST_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Share:
    """The part of the traffic that a revision takes, and the ports of its Service."""

    revision: str
    weight: int
    http_port: int
    grpc_port: int

    @classmethod
    def of(cls, revision: StoredRevision, weight: int) -> Self:
        """Give a revision its share; its settings know its ports."""
        return cls(revision.name, weight, revision.settings["httpPort"], revision.settings["grpcPort"])


# ----------------------------------------------------------------------------------------------------------- routes


def path_of(deployment: ModelDeployment) -> str:
    """Say under which path a Gateway serves a model."""
    return f"/seldon/{deployment.metadata.namespace}/{deployment.metadata.name}"


def http_route(
    deployment: ModelDeployment,
    shares: Sequence[Share],
    track: StoredRevision | None,
    gateway: GatewayRef,
    hosts: Sequence[str] = (),
) -> Object:
    """Lead a model's path to its revisions by their shares, and requests with the track header to `track` alone."""
    path = {"type": "PathPrefix", "value": path_of(deployment)}
    rewrite = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
    }

    def rule(match: Json, backends: Iterable[Share]) -> Json:
        return {
            "matches": [{"path": path} | match],
            "filters": [rewrite],
            "backendRefs": [_backend(share, share.http_port) for share in backends],
        }

    tracked = (
        [rule({"headers": [_header(TRACK_HEADER, CANARY_TRACK)]}, [Share.of(track, 1)])] if track else []
    )
    return _route("HTTPRoute", deployment, gateway, hosts, [*tracked, rule({}, _with_traffic(shares))])


def grpc_route(
    deployment: ModelDeployment, shares: Sequence[Share], track: StoredRevision | None, gateway: GatewayRef
) -> Object:
    """Lead calls with a model's metadata to its revisions, as http_route does; every model has the same methods."""
    own = [_header("seldon", deployment.metadata.name), _header("namespace", deployment.metadata.namespace)]

    def rule(headers: Sequence[Json], backends: Iterable[Share]) -> Json:
        return {
            "matches": [{"headers": [*own, *headers]}],
            "backendRefs": [_backend(share, share.grpc_port) for share in backends],
        }

    tracked = [rule([_header(TRACK_HEADER, CANARY_TRACK)], [Share.of(track, 1)])] if track else []
    # Without host names: the listener's holds, which is seldom one that REST has, too (docs/gateway.md).
    return _route("GRPCRoute", deployment, gateway, (), [*tracked, rule([], _with_traffic(shares))])


def _route(
    kind: str, deployment: ModelDeployment, gateway: GatewayRef, hosts: Sequence[str], rules: Sequence[Json]
) -> Object:
    section = {"sectionName": gateway.section} if gateway.section else {}
    return {
        "apiVersion": f"{_GATEWAY_GROUP}/v1",
        "kind": kind,
        "metadata": manifests.metadata_of(deployment, deployment.metadata.name),
        "spec": {
            "parentRefs": [
                {
                    "group": _GATEWAY_GROUP,
                    "kind": "Gateway",
                    "namespace": gateway.namespace,
                    "name": gateway.name,
                    **section,
                }
            ],
            # Empty, too, so that one that somebody adds is found and taken away.
            "hostnames": [host.lower() for host in hosts],
            "rules": list(rules),
        },
    }


def _with_traffic(shares: Iterable[Share]) -> Iterator[Share]:
    return (share for share in shares if share.weight > 0)


def _backend(share: Share, port: int) -> Json:
    return {"group": "", "kind": "Service", "name": share.revision, "port": port, "weight": share.weight}


def _header(name: str, value: str) -> Json:
    return {"type": "Exact", "name": name, "value": value}


def weights_of(route: Object) -> dict[str, int]:
    """Read from a live route how requests without the track header are shared; nobody with weight 0 is in it."""
    rules = (rule for rule in route["spec"].get("rules", ()) if not _is_tracked(rule))
    backends = next((rule.get("backendRefs", ()) for rule in rules), ())
    weights = {backend["name"]: int(backend.get("weight", 1)) for backend in backends}
    return {name: weight for name, weight in weights.items() if weight > 0}


def _is_tracked(rule: Mapping[str, Any]) -> bool:
    headers = (header for match in rule.get("matches", ()) for header in match.get("headers", ()))
    return any(header["name"].lower() == TRACK_HEADER for header in headers)


def is_in_force(route: Object, gateway: GatewayRef) -> bool:
    """Tell whether the Gateway says of this very route that it took it and found what it refers to."""
    return any(
        _judged(parent, route, "Accepted") == "True" and _judged(parent, route, "ResolvedRefs") == "True"
        for parent in _parents(route)
        if _is_at(parent, route, gateway)
    )


def refusal(route: Object) -> str | None:
    """Say why a Gateway does not take a live route as it is now; None where it does, or has not looked yet."""
    for parent in _parents(route):
        for condition in parent.get("conditions", ()):
            judged = condition["type"] in ("Accepted", "ResolvedRefs") and _is_of_now(condition, route)
            if judged and condition["status"] == "False":
                at = parent["parentRef"]
                gateway = f"{at.get('namespace', route['metadata']['namespace'])}/{at['name']}"
                why = ": ".join(part for part in (condition["reason"], condition.get("message")) if part)
                return f"{route['kind']} at Gateway {gateway}: {condition['type']} is False, {why}"
    return None


def _parents(route: Object) -> Sequence[Mapping[str, Any]]:
    parents: Sequence[Mapping[str, Any]] = route.get("status", {}).get("parents") or ()
    return parents


def _is_at(parent: Mapping[str, Any], route: Object, gateway: GatewayRef) -> bool:
    at = parent["parentRef"]
    namespace = at.get("namespace", route["metadata"]["namespace"])
    return (namespace, at["name"], at.get("sectionName")) == (
        gateway.namespace,
        gateway.name,
        gateway.section,
    )


def _judged(parent: Mapping[str, Any], route: Object, type_: str) -> str | None:
    """Give the status of one condition, if it speaks of the route as it is now."""
    found = (each for each in parent.get("conditions", ()) if each["type"] == type_)
    return next((each["status"] for each in found if _is_of_now(each, route)), None)


def _is_of_now(condition: Mapping[str, Any], route: Object) -> bool:
    return bool(condition.get("observedGeneration") == route["metadata"].get("generation"))


# --------------------------------------------------------------------------------------------------------- Services


def shared_service(deployment: ModelDeployment, revision: StoredRevision) -> Object:
    """Point the model's Service at all of its pods, and write down which revision is stable meanwhile."""
    made = manifests.service(deployment, deployment.metadata.name, revision)
    return {
        **made,
        "metadata": {**made["metadata"], "annotations": {labels.STABLE: revision.name}},
        "spec": {**made["spec"], "selector": labels.selector(deployment.metadata.name)},
    }


def preview_service(deployment: ModelDeployment, revision: StoredRevision) -> Object:
    """Point the Service `<name>-preview` at a candidate that has no traffic yet."""
    return manifests.service(deployment, preview_name(deployment), revision)


def preview_name(deployment: ModelDeployment) -> str:
    """Name the Service of a blue-green candidate."""
    return f"{deployment.metadata.name}-preview"


# ------------------------------------------------------------------------------------------- what follows stable's pods


def autoscaler(
    deployment: ModelDeployment,
    revision: str,
    min_replicas: int,
    max_replicas: int,
    metrics: Sequence[Mapping[str, Any]] = (),
) -> Object:
    """Let a revision's Deployment be scaled; metrics are those of autoscaling/v2, CPU at 80 % where there are none."""
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _CPU_PERCENT}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": manifests.metadata_of(deployment, deployment.metadata.name),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": revision},
            "minReplicas": min_replicas,
            # A rollout may keep more pods than a spec edited meanwhile allows; the API server takes no smaller maximum.
            "maxReplicas": max(min_replicas, max_replicas),
            "metrics": [dict(metric) for metric in metrics] or [{"type": "Resource", "resource": cpu}],
        },
    }


def disruption_budget(deployment: ModelDeployment, revision: str) -> Object:
    """Let nodes be drained one pod of a revision at a time; a pod that is not ready may always go."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": manifests.metadata_of(deployment, deployment.metadata.name),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels.selector(deployment.metadata.name, revision)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


# ------------------------------------------------------------------------------------------------------------ counts


def canary_replicas(weight: int, stable_count: int, *, ratio: bool) -> int:
    """Say how many pods a canary needs for a weight in percent, beside `stable_count` pods of stable.

    A Gateway sends the share that it is told to, so the canary gets as many pods as that load takes, at least one:

    >>> [canary_replicas(weight, 5, ratio=False) for weight in (0, 1, 20, 21, 50, 99, 100)]
    [1, 1, 1, 2, 3, 5, 5]
    >>> [canary_replicas(weight, 1, ratio=False) for weight in (0, 10, 100)]
    [1, 1, 1]

    Without one the counts are the shares: never more than was asked for, at least one, at most as many as stable has:

    >>> [canary_replicas(weight, 9, ratio=True) for weight in (0, 1, 10, 19, 20, 25, 50, 60, 100)]
    [1, 1, 1, 2, 2, 3, 9, 9, 9]
    >>> [canary_replicas(weight, 1, ratio=True) for weight in (0, 10, 50, 100)]
    [1, 1, 1, 1]
    """
    if not ratio:
        return max(1, -(-weight * stable_count // 100))
    if weight >= 100:
        return max(1, stable_count)
    return max(1, min(stable_count, weight * stable_count // (100 - weight)))


def true_percent(canary_ready: int, stable_ready: int) -> tuple[int, int]:
    """Say which percent of new connections canary and stable get where ready pods share them, rounded to 100 in sum.

    >>> true_percent(1, 9), true_percent(1, 2), true_percent(1, 1), true_percent(2, 1)
    ((10, 90), (33, 67), (50, 50), (67, 33))

    Who has a pod has some traffic, however little, and who has none has none; stable's are all where nobody has any:

    >>> true_percent(1, 400), true_percent(400, 1), true_percent(0, 2), true_percent(2, 0), true_percent(0, 0)
    ((1, 99), (99, 1), (0, 100), (100, 0), (0, 100))
    """
    if not canary_ready or not stable_ready:
        canary = 100 if canary_ready else 0
    else:
        # Half a percent goes up.
        whole = canary_ready + stable_ready
        canary = min(99, max(1, (200 * canary_ready + whole) // (2 * whole)))
    return canary, 100 - canary


# ------------------------------------------------------------------------------------------------------------- hosts


def hosts_of(deployment: ModelDeployment, platform: Platform) -> tuple[str, ...]:
    """Give those host names of the spec that may stand in a route: a permission may end while a model serves."""
    asked = deployment.spec.route.hosts if deployment.spec.route else ()
    namespace = deployment.metadata.namespace
    return tuple(host for host in asked if host_permitted(host, namespace, platform.permitted_hosts))


def host_permitted(host: str, namespace: str, patterns: Iterable[str]) -> bool:
    """Tell whether a pattern of the administrator's lets models of a namespace be reached by a host name.

    `{namespace}` stands for the namespace, `*.` at the beginning for exactly one label, and case does not count:

    >>> patterns = ["models.example.com", "*.{namespace}.example.com"]
    >>> [host_permitted(host, "team-a", patterns) for host in ("models.example.com", "Fraud.team-a.example.com")]
    [True, True]
    >>> [host_permitted(host, "team-a", patterns) for host in ("a.team-b.example.com", "a.b.team-a.example.com")]
    [False, False]
    >>> [host_permitted(host, "team-a", patterns) for host in ("team-a.example.com", "*.team-a.example.com")]
    [False, False]
    """
    asked = host.lower()
    if not all(_HOST_LABEL.fullmatch(label) for label in asked.split(".")):
        return False
    filled = (pattern.lower().replace("{namespace}", namespace) for pattern in patterns)
    beside = f"*.{asked.partition('.')[2]}"
    return any(pattern in (asked, beside) for pattern in filled)
