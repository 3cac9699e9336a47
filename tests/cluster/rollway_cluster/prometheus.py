"""Monitoring for tests: Prometheus Operator with one Prometheus, which scrapes what carries the usual label."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rollway_cluster import binaries
from rollway_cluster.binaries import PROMETHEUS_VERSION
from rollway_cluster.client import MADE_BY, Client, Object
from rollway_cluster.definitions import Definitions
from rollway_cluster.manifests import CONFINED, NOBODY

NAMESPACE = "monitoring"
OPERATOR, RELOADER, PROMETHEUS = IMAGES = ("prometheus-operator", "prometheus-config-reloader", "prometheus")
NAME = "main"
"""The object of kind Prometheus."""
LABELS = {"release": "kube-prometheus-stack"}
"""What a monitor or rule must carry to be selected, as with the chart that most clusters have."""
CLUSTER_WIDE = ("rollway-prometheus-operator", "rollway-prometheus")
"""The ClusterRoles and their bindings."""
_SERVICE, _PORT, _PORT_NAME = "prometheus-operated", 9090, "web"
"""What the operator calls the Service of every Prometheus of a namespace, and its port."""
_GROUP = "monitoring.coreos.com"
PROMETHEUSES = f"prometheuses.{_GROUP}"
POD_MONITORS = f"podmonitors.{_GROUP}"
_KINDS = ("prometheuses", "servicemonitors", "podmonitors", "probes", "prometheusrules")
"""Those that the operator cannot do without; the others are not defined."""


@dataclass(frozen=True)
class Monitoring:
    """The Prometheus of a cluster: where pods reach it, and what it answers this process."""

    client: Client
    namespace: str = NAMESPACE
    url: str = f"http://{_SERVICE}.{NAMESPACE}.svc:{_PORT}"

    def values(self) -> Object:
        """What charts/rollway has to know of it."""
        return {"networkPolicy": {"prometheusNamespaces": [self.namespace]}}

    def query(self, expression: str) -> list[Object]:
        """The vector that an expression has as its value now: each element with ``metric`` and ``value``."""
        answer = self.ask(f"query?query={quote(expression, safe='')}")
        result: list[Object] = answer["result"]
        return result

    def targets(self) -> list[Object]:
        """What it scrapes now: each with ``labels``, ``health`` (up, down, unknown) and ``lastError``."""
        found: list[Object] = self.ask("targets?state=active")["activeTargets"]
        return found

    def ask(self, path: str) -> Any:
        """The ``data`` of an answer of its API, asked through the API server."""
        place = f"/api/v1/namespaces/{self.namespace}/services/{_SERVICE}:{_PORT_NAME}/proxy"
        return json.loads(self.client.run("get", "--raw", f"{place}/api/v1/{path}"))["data"]


def definitions() -> list[Path]:
    """The files that define what the operator needs, of its own version."""
    binaries.build((binaries.PROMETHEUS_OPERATOR,))
    folder = binaries.folder(binaries.PROMETHEUS_OPERATOR) / "definitions"
    return [folder / f"{_GROUP}_{kind}.yaml" for kind in _KINDS]


DEFINITIONS = Definitions(
    name="Prometheus Operator's API",
    part=NAMESPACE,
    known_by=PROMETHEUSES,
    used=tuple(f"{kind}.{_GROUP}" for kind in _KINDS),
    files=definitions,
)


def pod_monitor(name: str, namespace: str, pods: dict[str, str], port: str) -> Object:
    """Have pods with these labels scraped at one of their ports, by its name."""
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "PodMonitor",
        "metadata": {"name": name, "namespace": namespace, "labels": MADE_BY | LABELS},
        "spec": {"selector": {"matchLabels": pods}, "podMetricsEndpoints": [{"port": port}]},
    }


ANSWERS = (
    *("endpointslices", f"--selector=kubernetes.io/service-name={_SERVICE}"),
    "--for=jsonpath={.endpoints[0].conditions.ready}=true",
)
"""What ``kubectl wait`` is asked for, until the API server knows where to pass questions on."""


def available(found: Object | None) -> bool:
    """Whether the Prometheus that an object asks for runs as its present spec says."""
    if found is None:
        return False
    generation = found["metadata"]["generation"]
    conditions = {
        condition["type"]: condition["status"]
        for condition in found.get("status", {}).get("conditions", ())
        if condition.get("observedGeneration") == generation
    }
    return conditions.get("Available") == conditions.get("Reconciled") == "True"


def operator(image: str, reloader: str) -> list[Object]:
    """The operator with what it may do; the namespace and the definitions exist."""
    container = {
        "name": OPERATOR,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            f"--prometheus-config-reloader={reloader}",
            # Another operator's Prometheuses are that one's.
            f"--prometheus-instance-namespaces={NAMESPACE}",
            # By default it has a hundredth of a processor, for which each change would wait.
            "--config-reloader-cpu-limit=0",
        ],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": CONFINED,
    }
    labels = {"app": OPERATOR}
    return [
        _account(OPERATOR),
        *_permissions(CLUSTER_WIDE[0], OPERATOR, _OF_THE_OPERATOR),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _in_namespace(OPERATOR),
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": OPERATOR,
                        "securityContext": NOBODY,
                        "containers": [container],
                    },
                },
            },
        },
    ]


def prometheus(image: str, scrape_interval: str) -> list[Object]:
    """A Prometheus of every namespace's monitors and rules that carry the label, which the operator makes run."""
    selected = {"matchLabels": LABELS}
    selectors = {
        name: value
        for kind in ("podMonitor", "serviceMonitor", "probe", "rule")
        for name, value in ((f"{kind}Selector", selected), (f"{kind}NamespaceSelector", {}))
    }
    reloader = {
        "name": "config-reloader",
        # As the operator has them, but for the last three: by its defaults a new monitor waits for minutes.
        "args": [
            "--listen-address=:8080",
            f"--reload-url=http://127.0.0.1:{_PORT}/-/reload",
            "--config-file=/etc/prometheus/config/prometheus.yaml.gz",
            "--config-envsubst-file=/etc/prometheus/config_out/prometheus.env.yaml",
            f"--watched-dir=/etc/prometheus/rules/prometheus-{NAME}-rulefiles-0",
            "--watch-interval=3s",
            "--delay-interval=1s",
            "--retry-interval=1s",
        ],
    }
    return [
        _account(PROMETHEUS),
        *_permissions(CLUSTER_WIDE[1], PROMETHEUS, _OF_PROMETHEUS),
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "Prometheus",
            "metadata": _in_namespace(NAME),
            "spec": {
                "image": image,
                "version": f"v{PROMETHEUS_VERSION}",
                "imagePullPolicy": "IfNotPresent",
                "replicas": 1,
                "serviceAccountName": PROMETHEUS,
                "serviceDiscoveryRole": "EndpointSlice",
                "scrapeInterval": scrape_interval,
                "evaluationInterval": scrape_interval,
                "retention": "6h",
                "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
                "securityContext": NOBODY | {"fsGroup": NOBODY["runAsUser"]},
                "containers": [reloader],
                **selectors,
            },
        },
    ]


_READ = ["get", "list", "watch"]
_OF_THE_OPERATOR: list[Object] = [
    {
        "apiGroups": [_GROUP],
        "resources": [*_KINDS, "prometheuses/finalizers", "prometheuses/status", "servicemonitors/status"],
        "verbs": ["*"],
    },
    {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "delete"]},
    {
        "apiGroups": [""],
        "resources": ["services", "services/finalizers", "endpoints"],
        "verbs": ["get", "create", "update", "delete"],
    },
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": _READ},
    {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get"]},
]
_OF_PROMETHEUS: list[Object] = [
    {"apiGroups": [""], "resources": ["services", "endpoints", "pods", "namespaces"], "verbs": _READ},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _READ},
]


def _permissions(name: str, account: str, rules: list[Object]) -> list[Object]:
    group = "rbac.authorization.k8s.io"
    metadata = {"name": name, "labels": MADE_BY}
    return [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
        },
    ]


def _account(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _in_namespace(name)}


def _in_namespace(name: str) -> Object:
    return {"name": name, "namespace": NAMESPACE, "labels": MADE_BY}
