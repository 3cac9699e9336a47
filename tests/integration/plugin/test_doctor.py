"""`kubectl rollway doctor` as a process against a real API server, which knows monitors; Prometheus is pretended."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from rollway_testing.controlplane import ControlPlane
from rollway_testing.plugin import Plugin
from rollway_testing.waiting import eventually

Object = dict[str, Any]

GROUP = "monitoring.coreos.com"
SYSTEM = "rollway-system"
LABEL = {"release": "kube-prometheus-stack"}


def definition(kind: str, plural: str) -> Object:
    """Define a kind of Prometheus Operator's, with any content."""
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


KINDS = {"Prometheus": "prometheuses", "ServiceMonitor": "servicemonitors", "PodMonitor": "podmonitors"}


def of_monitoring(kind: str, name: str, namespace: str, labels: Object, spec: Object) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata, "spec": spec}


class PretendedPrometheus:
    """Answers `/api/v1/targets` with what the test says."""

    def __init__(self) -> None:
        """Listen on loopback."""
        self.targets: list[Object] = []
        pretended = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/api/v1/targets?state=active"
                body = json.dumps({"status": "success", "data": {"activeTargets": pretended.targets}})
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def prometheus() -> Iterator[PretendedPrometheus]:
    """One that scrapes nothing yet."""
    made = PretendedPrometheus()
    yield made
    made.close()


def apply(plane: ControlPlane, *manifests: Object) -> None:
    plane.kubectl("apply", "--server-side", "--filename=-", given=yaml.safe_dump_all(manifests))


def operator() -> list[Object]:
    labels = {"app.kubernetes.io/name": "rollway", "app.kubernetes.io/component": "operator"}
    container = {
        "name": "operator",
        "image": "rollway/operator:0.1.0",
        "env": [{"name": "ROLLWAY_LEASE_NAME", "value": "rollway-operator"}],
    }
    metadata = {"name": "rollway-operator", "namespace": SYSTEM}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    selected = {"selector": {"matchLabels": labels}}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata | {"labels": labels},
            "spec": {"replicas": 1, **selected, "template": template},
        },
    ]


def found(plugin: Plugin, *words: str) -> dict[tuple[str, str], Object]:
    done = plugin.run("doctor", "--output=json", *words)
    findings = json.loads(done.stdout)
    assert done.returncode == int(any(each["state"] == "missing" for each in findings)), done.stderr
    return {(each["check"], each["subject"]): each for each in findings}


def test_it_finds_what_is_missing_from_an_api_server_until_nothing_is_scraped_in_vain(
    plane: ControlPlane,
    plugin: Plugin,
    namespace: str,
    fraud: Object,
    prometheus: PretendedPrometheus,
) -> None:
    # Given our definitions alone, they are found as they come with the plugin, and little else is.
    seen = found(plugin)
    for name in ("modeldeployments.rollway.dev", "modelregistries.rollway.dev"):
        assert seen["definition", name]["state"] == "ok"
    assert seen["operator", ""]["says"] == "there is no Deployment of the operator"
    assert seen["registry", ""]["state"] == "missing"
    assert seen["monitoring", ""]["state"] == "warning"

    # When an operator, monitors and a Prometheus come, of which the model's has another label,
    apply(plane, *operator(), *(definition(*each) for each in KINDS.items()))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    selectors = {kind: {"matchLabels": LABEL} for kind in ("podMonitorSelector", "serviceMonitorSelector")}
    everywhere: Object = {"podMonitorNamespaceSelector": {}, "serviceMonitorNamespaceSelector": {}}
    manifests = [
        of_monitoring("Prometheus", "main", namespace, {}, selectors | everywhere),
        of_monitoring("PodMonitor", "fraud", namespace, {"release": "other"}, {}),
    ]
    eventually(lambda: _taken(plane, manifests), within=30, what="the new kinds are served")

    # Then the label that is missing is named,
    model = ("scraped", f"PodMonitor of {namespace}/fraud")
    through = found(plugin)["prometheus", ""]
    assert through["state"] == "warning"
    assert "prometheus-operated" in through["says"]
    direct = f"--prometheus={prometheus.url}"
    seen = found(plugin, direct)
    assert seen["prometheus", ""]["says"] == "answers"
    assert seen["operator", f"{SYSTEM}/rollway-operator"]["says"] == "0 of 1 replicas ready"
    assert seen["lease", f"{SYSTEM}/rollway-operator"]["says"] == "nobody holds it"
    assert seen[model]["state"] == "missing"
    assert "the label release=kube-prometheus-stack is missing" in seen[model]["says"]

    # and once it is there and Prometheus scrapes, nothing is missing of it.
    apply(plane, of_monitoring("PodMonitor", "fraud", namespace, LABEL, {}))
    assert found(plugin, direct)[model]["says"] == "Prometheus has no target of it"
    pool = f"podMonitor/{namespace}/fraud/0"
    prometheus.targets = [{"scrapePool": pool, "health": "up", "lastError": ""}]
    assert found(plugin, direct)[model]["says"] == "1 of 1 targets up"


def _taken(plane: ControlPlane, manifests: list[Object]) -> bool:
    try:
        apply(plane, *manifests)
    except RuntimeError:
        return False
    return True


def test_an_address_that_is_no_prometheus_ends_with_5(plugin: Plugin) -> None:
    done = plugin.run("doctor", "--prometheus=http://127.0.0.1:1")
    assert done.returncode == 5
    assert "cannot ask http://127.0.0.1:1: " in done.stderr
