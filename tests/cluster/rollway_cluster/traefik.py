"""Gateways for tests: Traefik with one for HTTP and one for gRPC, which routes of every namespace may join."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rollway_cluster import binaries, prometheus
from rollway_cluster.client import MADE_BY, Client, Object
from rollway_cluster.definitions import Definitions
from rollway_cluster.manifests import CONFINED, NOBODY

NAME = NAMESPACE = "traefik"
CLASS = "rollway-traefik"
HTTP_PORT, GRPC_PORT, GUARDED_PORT, ADMIN_PORT = 8000, 8001, 8443, 8080
USER, PASSWORD = "caller", "not-a-secret"
"""Who may pass the guarded entry point, to which a test can attach a Gateway with a certificate."""
_PORTS = {"http": HTTP_PORT, "grpc": GRPC_PORT, "guarded": GUARDED_PORT}
_ADMIN = "admin"
_MIDDLEWARES = "/etc/traefik/middlewares"
_SERVICE = f"{NAME}.{NAMESPACE}.svc"
_GROUP = "gateway.networking.k8s.io"
GATEWAYS = f"gateways.{_GROUP}"


@dataclass(frozen=True)
class Gateway:
    """The Gateways that Rollway's routes join, and by which addresses pods reach them."""

    http: str = "http"
    grpc: str = "grpc"
    namespace: str = NAMESPACE
    url: str = f"http://{_SERVICE}:{HTTP_PORT}"
    grpc_target: str = f"{_SERVICE}:{GRPC_PORT}"
    permitted_hosts: tuple[str, ...] = ()

    def values(self) -> Object:
        """What charts/rollway has to know of them."""
        http, grpc = ({"name": name, "namespace": self.namespace} for name in (self.http, self.grpc))
        hosts = {"permittedHosts": list(self.permitted_hosts)} if self.permitted_hosts else {}
        return {
            "gateway": {"http": http, "grpc": grpc, "url": self.url, **hosts},
            "networkPolicy": {"gatewayNamespaces": [self.namespace]},
        }


@contextmanager
def reach(client: Client) -> Iterator[tuple[str, str]]:
    """Reach both from this process by forwarded ports; gives the base of URLs, and the target of gRPC channels."""
    service = (f"svc/{NAME}", NAMESPACE)
    with client.forward(*service, HTTP_PORT) as http, client.forward(*service, GRPC_PORT) as grpc:
        yield f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}"


def definitions() -> Path:
    """The folder with the Gateway API's definitions, of the version that Traefik is built with."""
    binaries.build((binaries.TRAEFIK,))
    return binaries.folder(binaries.TRAEFIK) / "gateway-api"


DEFINITIONS = Definitions(
    name="the Gateway API",
    part="gateway-api",
    known_by=GATEWAYS,
    used=(GATEWAYS, f"httproutes.{_GROUP}", f"grpcroutes.{_GROUP}"),
    files=lambda: [definitions()],
    kinds=("crd", "validatingadmissionpolicy", "validatingadmissionpolicybinding"),
)


def programmed(found: Object | None) -> bool:
    """Whether a Gateway is served as its present spec says."""
    if found is None:
        return False
    generation = found["metadata"]["generation"]
    return any(
        (condition["type"], condition["status"], condition.get("observedGeneration"))
        == ("Programmed", "True", generation)
        for condition in found.get("status", {}).get("conditions", ())
    )


def objects(image: str) -> list[Object]:
    """Traefik with what it may do, its class, and both Gateways; the namespace and the definitions exist."""
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _in_namespace(NAME)},
        *_permissions(),
        _middlewares(),
        _deployment(image),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _in_namespace(NAME),
            "spec": {
                "selector": {"app": NAME},
                "ports": [{"name": name, "port": port} for name, port in _PORTS.items()],
            },
        },
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS, "labels": MADE_BY},
            "spec": {"controllerName": "traefik.io/gateway-controller"},
        },
        _gateway(Gateway.http, HTTP_PORT),
        _gateway(Gateway.grpc, GRPC_PORT),
    ]


def monitor() -> Object:
    """What has its counts scraped: by entry point and by backend, as Traefik gives them unasked."""
    return prometheus.pod_monitor(NAME, NAMESPACE, {"app": NAME}, _ADMIN)


def _gateway(name: str, port: int) -> Object:
    # Traefik serves a listener at the entry point of the same port; HTTP there includes gRPC without TLS.
    listener = {
        "name": name,
        "port": port,
        "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "Gateway",
        "metadata": _in_namespace(name),
        "spec": {"gatewayClassName": CLASS, "listeners": [listener]},
    }


def _deployment(image: str) -> Object:
    ((label, value),) = MADE_BY.items()
    container = {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            f"--entrypoints.http.address=:{HTTP_PORT}",
            f"--entrypoints.grpc.address=:{GRPC_PORT}",
            f"--entrypoints.guarded.address=:{GUARDED_PORT}",
            # Before the middlewares of any route: who asks is known before what is asked for.
            "--entrypoints.guarded.http.middlewares=users@file",
            f"--providers.file.directory={_MIDDLEWARES}",
            # The entry point of this name has the probe and the metrics.
            f"--entrypoints.traefik.address=:{ADMIN_PORT}",
            "--ping=true",
            "--metrics.prometheus=true",
            "--providers.kubernetesgateway=true",
            # Another Traefik's classes are that one's.
            f"--providers.kubernetesgateway.labelselector={label}={value}",
            "--providers.providersthrottleduration=0s",
            "--log.level=INFO",
        ],
        "ports": [
            {"name": name, "containerPort": port} for name, port in (*_PORTS.items(), (_ADMIN, ADMIN_PORT))
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": CONFINED,
        "readinessProbe": {"httpGet": {"path": "/ping", "port": _ADMIN}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "middlewares", "mountPath": _MIDDLEWARES},
        ],
    }
    pod = {
        "serviceAccountName": NAME,
        "securityContext": NOBODY,
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "middlewares", "configMap": {"name": "middlewares"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _in_namespace(NAME),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": {"labels": {"app": NAME}}, "spec": pod},
        },
    }


def _middlewares() -> Object:
    hashed = base64.b64encode(hashlib.sha1(PASSWORD.encode(), usedforsecurity=False).digest()).decode()
    users = {"basicAuth": {"users": [f"{USER}:{{SHA}}{hashed}"]}}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _in_namespace("middlewares"),
        "data": {"users.yaml": json.dumps({"http": {"middlewares": {"users": users}}})},
    }


def _permissions() -> list[Object]:
    name = CLASS
    group = "rbac.authorization.k8s.io"
    reported = ["gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "backendtlspolicies"]
    read = ["get", "list", "watch"]
    rules: list[Object] = [
        {"apiGroups": [""], "resources": ["namespaces", "services", "secrets", "configmaps"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": [_GROUP], "resources": [*reported, "referencegrants"], "verbs": read},
        {"apiGroups": [_GROUP], "resources": [f"{kind}/status" for kind in reported], "verbs": ["update"]},
    ]
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": MADE_BY},
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": MADE_BY},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
    ]


def _in_namespace(name: str) -> Object:
    return {"name": name, "namespace": NAMESPACE, "labels": MADE_BY}
