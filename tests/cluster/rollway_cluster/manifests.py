"""The objects that every local cluster starts with: CoreDNS, metrics-server and the default StorageClass."""

from typing import Any

from rollway_cluster import containers
from rollway_cluster.layout import Layout

Object = dict[str, Any]
SYSTEM = "kube-system"
STORAGE_CLASS = "local"
PROVISIONER = "rollway.dev/local-storage"
NOBODY: Object = {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}}
CONFINED: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def everything(layout: Layout, *, forward: bool) -> Object:
    """All of them as one list; ``forward`` says whether there is a name server to ask about the outside."""
    items = [storage_class(), *coredns(layout, forward=forward), *metrics_server()]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def storage_class() -> Object:
    """The default class, whose volumes are folders on the node."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def coredns(layout: Layout, *, forward: bool) -> list[Object]:
    """The cluster's names, at the address that the kubelet tells every pod."""
    labels = {"k8s-app": "kube-dns"}
    corefile = f"""
.:53 {{
  errors
  health :8081
  ready :8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
    ttl 5
  }}
  {"forward . /etc/resolv.conf" if forward else "# no name server to forward to"}
  cache 5
  prometheus :9153
}}
""".lstrip()
    pod = _pod(
        "coredns",
        args=["-conf", "/etc/coredns/Corefile"],
        probe={"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        volume={"name": "corefile", "configMap": {"name": "coredns"}},
        mount="/etc/coredns",
    )
    # The cluster's own name server cannot be the one it asks.
    pod["dnsPolicy"] = "Default"
    return [
        _account("coredns"),
        _role(
            "system:coredns",
            [
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        ),
        _binding("system:coredns", "ClusterRole", "system:coredns", "coredns"),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": SYSTEM},
            "data": {"Corefile": corefile},
        },
        _deployment("coredns", labels, pod),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": SYSTEM, "labels": labels},
            "spec": {
                "clusterIP": layout.dns_address,
                "selector": labels,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ],
            },
        },
    ]


def metrics_server() -> list[Object]:
    """``kubectl top`` and the figures that a HorizontalPodAutoscaler reads."""
    labels = {"k8s-app": "metrics-server"}
    pod = _pod(
        "metrics-server",
        args=[
            "--cert-dir=/tmp",
            "--secure-port=10250",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "--metric-resolution=10s",
            # Must be shorter than the resolution.
            "--kubelet-request-timeout=5s",
        ],
        probe={"httpGet": {"path": "/readyz", "port": 10250, "scheme": "HTTPS"}, "periodSeconds": 1},
        volume={"name": "tmp", "emptyDir": {}},
        mount="/tmp",
    )
    return [
        _account("metrics-server"),
        _role(
            "system:metrics-server",
            [
                {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
            ],
        ),
        _binding("system:metrics-server", "ClusterRole", "system:metrics-server", "metrics-server"),
        _binding("metrics-server:auth", "ClusterRole", "system:auth-delegator", "metrics-server"),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "metrics-server-auth-reader", "namespace": SYSTEM},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": "extension-apiserver-authentication-reader",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "metrics-server", "namespace": SYSTEM}],
        },
        _deployment("metrics-server", labels, pod),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "metrics-server", "namespace": SYSTEM, "labels": labels},
            "spec": {"selector": labels, "ports": [{"name": "https", "port": 443, "targetPort": 10250}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {"name": "metrics-server", "namespace": SYSTEM, "port": 443},
            },
        },
    ]


def _pod(program: str, args: list[str], probe: Object, volume: Object, mount: str) -> Object:
    container = {
        "name": program,
        "image": containers.image(program),
        "imagePullPolicy": "Never",
        "args": args,
        "securityContext": CONFINED,
        "readinessProbe": probe,
        "volumeMounts": [{"name": volume["name"], "mountPath": mount}],
    }
    return {
        "serviceAccountName": program,
        "priorityClassName": "system-cluster-critical",
        "securityContext": NOBODY,
        "containers": [container],
        "volumes": [volume],
    }


def _deployment(name: str, labels: dict[str, str], pod: Object) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": SYSTEM, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _account(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SYSTEM}}


def _role(name: str, rules: list[Object]) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }


def _binding(name: str, kind: str, role: str, account: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": SYSTEM}],
    }
