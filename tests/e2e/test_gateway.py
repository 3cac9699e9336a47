"""What Rollway's routes need of the Gateways that tests have, shown on routes made by hand."""

import base64
import secrets
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest
import trustme

from rollway_cluster import jobs, traefik
from rollway_cluster.client import MADE_BY, Client
from rollway_cluster.cluster import Cluster
from rollway_cluster.install import client_of, load_images, make_namespace
from rollway_cluster.traefik import Gateway
from rollway_testing.waiting import eventually

ECHO = """
import http.server, os
from concurrent import futures
import grpc

NAME = os.environ["NAME"]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer

    def do_GET(self):
        body = f"{NAME} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: NAME.encode())

calls = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Echo()])
calls.add_insecure_port("0.0.0.0:8081")
calls.start()
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
ASK = """
import json, sys, time, urllib.error, urllib.request
end = time.monotonic() + 5
said = {}
while len(said) < len(sys.argv[1:]) and time.monotonic() < end:
    for url in sys.argv[1:]:
        try:
            said[url] = urllib.request.urlopen(url, timeout=1).read().decode().split()[1]
        except OSError:
            time.sleep(0.1)
print(json.dumps(said))
"""
CANARY = {"x-rollway-track": "canary"}
REST_HOST, GRPC_HOST = "models.example.com", "grpc.example.com"


@pytest.fixture(scope="module")
def image(cluster: Cluster, say: Callable[[str], None]) -> str:
    return load_images(cluster, ["training"], say)["training"]


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Client:
    return client_of(cluster)


@pytest.fixture(scope="module")
def namespace(client: Client, gateway: Gateway, image: str) -> Iterator[str]:
    """A stable and a canary that only the Gateways' namespace may ask, and a route to both for each protocol."""
    name = f"gateway-{secrets.token_hex(2)}"
    make_namespace(client, name)
    client.apply(policy(gateway), *workload("stable", image), *workload("canary", image), namespace=name)
    client.apply(http_route(gateway, name), grpc_route(gateway, name), namespace=name)
    client.run("wait", "pods", "--all", f"--namespace={name}", "--for=condition=Ready", "--timeout=60s")
    yield name
    client.run("delete", "namespace", name, "--wait=false")


@pytest.fixture
def http(client: Client, namespace: str) -> Iterator[httpx.Client]:
    with traefik.reach(client) as (url, _), httpx.Client(base_url=url, trust_env=False) as session:
        path = f"/seldon/{namespace}/echo/ready"
        eventually(
            lambda: (session.get(path).status_code, session.get(path, headers=CANARY).status_code),
            lambda seen: seen == (200, 200),
            within=20,
            what="the route is served",
        )
        yield session


def policy(gateway: Gateway) -> dict[str, Any]:
    allowed = {"matchLabels": {"kubernetes.io/metadata.name": gateway.namespace}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "echo"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "echo"}},
            "ingress": [{"from": [{"namespaceSelector": allowed}]}],
        },
    }


def workload(name: str, image: str) -> list[dict[str, Any]]:
    labels = {"app": "echo", "track": name}
    spec = jobs.pod(image, ["python", "-c", ECHO], {"NAME": name})
    spec["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    ports = [
        {"name": "http", "port": 8080, "appProtocol": "http"},
        {"name": "grpc", "port": 8081, "appProtocol": "kubernetes.io/h2c"},
    ]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": ports},
        },
    ]


def http_route(gateway: Gateway, namespace: str) -> dict[str, Any]:
    path = {"path": {"type": "PathPrefix", "value": f"/seldon/{namespace}/echo"}}
    rewrite = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
    }
    return route(
        *("HTTPRoute", gateway.http, gateway.namespace),
        {
            "matches": [path | {"headers": equal(CANARY)}],
            "filters": [rewrite],
            "backendRefs": backends(8080, canary=1),
        },
        {"matches": [path], "filters": [rewrite], "backendRefs": backends(8080, stable=90, canary=10)},
    )


def grpc_route(gateway: Gateway, namespace: str) -> dict[str, Any]:
    named = {"seldon": "echo", "namespace": namespace}
    return route(
        *("GRPCRoute", gateway.grpc, gateway.namespace),
        {"matches": [{"headers": equal(named | CANARY)}], "backendRefs": backends(8081, canary=1)},
        {"matches": [{"headers": equal(named)}], "backendRefs": backends(8081, stable=90, canary=10)},
    )


def route(kind: str, gateway: str, namespace: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "echo"},
        "spec": {"parentRefs": [{"name": gateway, "namespace": namespace}], "rules": list(rules)},
    }


def equal(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def backends(port: int, **weights: int) -> list[dict[str, Any]]:
    return [{"name": name, "port": port, "weight": weight} for name, weight in weights.items()]


@pytest.mark.parametrize("kind", ["httproute", "grpcroute"])
def test_a_route_of_another_namespace_is_accepted(client: Client, namespace: str, kind: str) -> None:
    def conditions(found: dict[str, Any] | None) -> dict[str, str]:
        parents = (found or {}).get("status", {}).get("parents", [])
        return {each["type"]: each["status"] for parent in parents for each in parent["conditions"]}

    expected = {"Accepted": "True", "ResolvedRefs": "True"}
    client.wait(kind, "echo", namespace, lambda found: conditions(found) == expected, seconds=20)


def test_weights_part_the_requests_of_one_connection_and_the_prefix_is_taken_away(
    http: httpx.Client, namespace: str
) -> None:
    path = f"/seldon/{namespace}/echo/v2/models/echo"
    answered = Counter(http.get(path).text for _ in range(100))
    assert answered.keys() == {"stable /v2/models/echo", "canary /v2/models/echo"}
    assert 9 <= answered["canary /v2/models/echo"] <= 11


def test_a_header_chooses_the_canary(http: httpx.Client, namespace: str) -> None:
    answered = {http.get(f"/seldon/{namespace}/echo/v2", headers=CANARY).text for _ in range(20)}
    assert answered == {"canary /v2"}


def test_another_models_path_is_not_found(http: httpx.Client, namespace: str) -> None:
    assert http.get(f"/seldon/{namespace}/echoes/v2").status_code == 404


def test_weights_part_the_calls_of_one_channel(client: Client, namespace: str) -> None:
    named = (("seldon", "echo"), ("namespace", namespace))
    options = (("grpc.enable_http_proxy", 0),)
    with traefik.reach(client) as (_, target), grpc.insecure_channel(target, options) as channel:
        call = channel.unary_unary("/echo.Echo/Say")

        def answer(*more: tuple[str, str]) -> str:
            try:
                return bytes(call(b"", metadata=(*named, *more), timeout=5)).decode()
            except grpc.RpcError as error:
                return str(error.code())

        eventually(
            lambda: (answer(), answer(*CANARY.items())),
            lambda seen: seen[0] in ("stable", "canary") and seen[1] == "canary",
            within=20,
            what="the route is served",
        )
        answered = Counter(answer() for _ in range(100))
    assert answered.keys() == {"stable", "canary"}
    assert 9 <= answered["canary"] <= 11


def test_a_pod_is_let_in_by_the_gateway_only(
    client: Client, gateway: Gateway, namespace: str, image: str
) -> None:
    through, past = f"{gateway.url}/seldon/{namespace}/echo/v2", f"http://stable.{namespace}.svc:8080/v2"
    (said,) = jobs.run(client, namespace, "ask", jobs.pod(image, ["python", "-c", ASK, through, past], {}))
    assert said == {through: "/v2"}


def guarded(secret: str) -> dict[str, Any]:
    """A Gateway at the entry point that asks who calls, with a host name and a listener for each protocol."""
    listeners = [
        {
            "name": name,
            "hostname": host,
            "port": traefik.GUARDED_PORT,
            "protocol": "HTTPS",
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": secret}]},
            "allowedRoutes": {"namespaces": {"from": "All"}},
        }
        for name, host in (("rest", REST_HOST), ("grpc", GRPC_HOST))
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "guarded", "labels": MADE_BY},
        "spec": {"gatewayClassName": traefik.CLASS, "listeners": listeners},
    }


@pytest.fixture
def authority(client: Client, gateway: Gateway, namespace: str) -> Iterator[trustme.CA]:
    """Who signed the certificate of the guarded Gateway, which the routes have joined."""
    found = trustme.CA()
    certificate = found.issue_cert(REST_HOST, GRPC_HOST)
    pair = {
        "tls.crt": b"".join(part.bytes() for part in certificate.cert_chain_pems),
        "tls.key": certificate.private_key_pem.bytes(),
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "models-tls"},
        "data": {key: base64.b64encode(value).decode() for key, value in pair.items()},
    }
    client.apply(secret, guarded("models-tls"), namespace=gateway.namespace)
    there = replace(gateway, http="guarded", grpc="guarded")
    for section, joined in (("rest", http_route(there, namespace)), ("grpc", grpc_route(there, namespace))):
        joined["metadata"]["name"] = f"guarded-{section}"
        joined["spec"]["parentRefs"][0]["sectionName"] = section
        client.apply(joined, namespace=namespace)
    yield found
    client.delete("gateway", "guarded", gateway.namespace)
    client.delete("secret", "models-tls", gateway.namespace)


def test_tls_ends_at_the_gateway_and_it_asks_who_calls(
    client: Client, namespace: str, authority: trustme.CA
) -> None:
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    asked = {"headers": {"host": REST_HOST}, "extensions": {"sni_hostname": REST_HOST}}
    service = (f"svc/{traefik.NAME}", traefik.NAMESPACE, traefik.GUARDED_PORT)
    with (
        client.forward(*service) as port,
        httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False) as session,
    ):
        path = f"/seldon/{namespace}/echo/v2"
        known = (traefik.USER, traefik.PASSWORD)

        def status(auth: tuple[str, str] | None) -> int:
            try:
                return session.get(path, auth=auth, **asked).status_code  # type: ignore[arg-type]
            except httpx.ConnectError:  # until the certificate is there
                return 0

        eventually(lambda: status(known), lambda seen: seen == 200, within=20, what="the route is served")
        assert (status(None), status((traefik.USER, "guessed"))) == (401, 401)

    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    options = (("grpc.ssl_target_name_override", GRPC_HOST), ("grpc.enable_http_proxy", 0))
    with (
        client.forward(*service) as port,
        grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel,
    ):
        call = channel.unary_unary("/echo.Echo/Say")
        token = base64.b64encode(":".join(known).encode()).decode()

        def answer(*more: tuple[str, str]) -> str:
            try:
                named = (("seldon", "echo"), ("namespace", namespace), *CANARY.items())
                return bytes(call(b"", metadata=(*named, *more), timeout=5)).decode()
            except grpc.RpcError as error:
                return str(error.code())

        authorized = ("authorization", f"Basic {token}")
        eventually(lambda: answer(authorized), lambda seen: seen == "canary", within=20, what="it answers")
        assert answer() == "StatusCode.UNAUTHENTICATED"
