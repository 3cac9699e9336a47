"""A cluster's API as tests read and write it: raw JSON through `kubectl proxy`, which knows every way to log in."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx

from rollway_cluster.client import Client

Object = dict[str, Any]

FIELD_MANAGER: Final = "rollway-tests"

_KINDS: Final = {
    "ModelDeployment": "rollway.dev/v1alpha1/modeldeployments",
    "ModelRegistry": "rollway.dev/v1alpha1/modelregistries",
    "ControllerRevision": "apps/v1/controllerrevisions",
    "Deployment": "apps/v1/deployments",
    "StatefulSet": "apps/v1/statefulsets",
    "Service": "v1/services",
    "ConfigMap": "v1/configmaps",
    "NetworkPolicy": "networking.k8s.io/v1/networkpolicies",
    "PodDisruptionBudget": "policy/v1/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "autoscaling/v2/horizontalpodautoscalers",
    "HTTPRoute": "gateway.networking.k8s.io/v1/httproutes",
    "GRPCRoute": "gateway.networking.k8s.io/v1/grpcroutes",
    "PodMonitor": "monitoring.coreos.com/v1/podmonitors",
    "Secret": "v1/secrets",
    "Pod": "v1/pods",
    "Event": "v1/events",
    "Lease": "coordination.k8s.io/v1/leases",
    "Namespace": "v1/namespaces",
    "SubjectAccessReview": "authorization.k8s.io/v1/subjectaccessreviews",
    "ResourceQuota": "v1/resourcequotas",
}
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_STRATEGIC: Final = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """The API server refused; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the HTTP status."""
        super().__init__(message)
        self.status = status


class Kubernetes:
    """The API server of one cluster."""

    def __init__(self, proxy: str) -> None:
        """Talk through a proxy that is logged in already."""
        self._http = httpx.Client(base_url=proxy, timeout=30.0, trust_env=False)

    @classmethod
    @contextlib.contextmanager
    def connect(cls, client: Client) -> Iterator["Kubernetes"]:
        """Start the proxy, and end it with the context."""
        process = client.follow("proxy", "--port=0", "--reject-paths=^$")
        try:
            said = process.stdout.readline() if process.stdout else ""
            found = re.search(r"(127\.0\.0\.1:\d+)", said)
            if found is None:
                raise ApiError(0, f"kubectl proxy did not start: {said}")
            connection = cls(f"http://{found.group(1)}")
            with contextlib.closing(connection._http):
                yield connection
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, or None where there is none."""
        try:
            return self._call("GET", _path(kind, namespace, name))
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def list(
        self, kind: str, namespace: str | None = None, selector: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Return the objects of a kind that carry all of the labels."""
        labels = ",".join(f"{key}={value}" for key, value in (selector or {}).items())
        items: list[Object] = self._call("GET", _path(kind, namespace), {"labelSelector": labels})["items"]
        return items

    def create(self, manifest: Object) -> Object:
        """Create an object, with every field checked."""
        path = _path(manifest["kind"], manifest["metadata"].get("namespace"))
        return self._call("POST", path, {"fieldValidation": "Strict"}, manifest)

    def apply(self, manifest: Object, *, dry_run: bool = False) -> Object:
        """Apply an object on the server's side, with every field checked."""
        metadata = manifest["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        query |= {"dryRun": "All"} if dry_run else {}
        path = _path(manifest["kind"], metadata.get("namespace"), metadata["name"])
        return self._call("PATCH", path, query, manifest, _APPLY)

    def replace(self, manifest: Object) -> Object:
        """Replace an object by this one, with every field checked."""
        metadata = manifest["metadata"]
        path = _path(manifest["kind"], metadata.get("namespace"), metadata["name"])
        return self._call("PUT", path, {"fieldValidation": "Strict"}, manifest)

    def patch(
        self, kind: str, name: str, namespace: str | None, changes: Object, *, strategic: bool = False
    ) -> Object:
        """Change an object by a merge patch; a strategic one merges lists by the names in them."""
        content_type = _STRATEGIC if strategic else _MERGE
        return self._call(
            "PATCH", _path(kind, namespace, name), {"fieldValidation": "Strict"}, changes, content_type
        )

    def set_status(self, kind: str, name: str, namespace: str | None, status: Object | None) -> Object:
        """Write a status as a kubelet would; None takes it away. Gives the object with what it is now."""
        answer: Object = self._call(
            "PATCH", f"{_path(kind, namespace, name)}/status", {}, {"status": status}, _MERGE
        )
        return answer

    def scale(self, kind: str, name: str, namespace: str, replicas: int) -> None:
        """Write a replica count as `kubectl scale` does."""
        path = f"{_path(kind, namespace, name)}/scale"
        self._call("PATCH", path, {}, {"spec": {"replicas": replicas}}, _MERGE)

    def delete(self, kind: str, name: str, namespace: str | None = None, *, at_once: bool = False) -> None:
        """Delete an object and what it owns, without waiting; gone already is fine."""
        options: Object = {"propagationPolicy": "Background"} | ({"gracePeriodSeconds": 0} if at_once else {})
        try:
            self._call("DELETE", _path(kind, namespace, name), {}, options)
        except ApiError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    def log(self, pod: str, namespace: str, container: str = "", *, tail: int | None = None) -> str:
        """Return what a container has written."""
        query = {"container": container} | ({"tailLines": str(tail)} if tail is not None else {})
        answer = self._http.get(
            f"{_path('Pod', namespace, pod)}/log", params={k: v for k, v in query.items() if v}
        )
        return answer.text if answer.is_success else ""

    def through_service(
        self, service: str, namespace: str, port: str, method: str, path: str, body: object = None
    ) -> httpx.Response:
        """Ask a ready pod behind a Service."""
        return self._http.request(
            method, f"{_path('Service', namespace, service)}:{port}/proxy{path}", json=body, timeout=10.0
        )

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        answer = self._http.request(
            method,
            path,
            params={key: value for key, value in (query or {}).items() if value},
            content=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
        )
        if answer.is_success:
            found: Object = answer.json()
            return found
        try:
            message = str(answer.json()["message"])
        except (ValueError, KeyError):
            message = answer.text
        raise ApiError(answer.status_code, message)


def _path(kind: str, namespace: str | None = None, name: str | None = None) -> str:
    version, _, plural = _KINDS[kind].rpartition("/")
    root = "/apis" if "/" in version else "/api"
    place = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}/{version}{place}/{plural}" + (f"/{name}" if name else "")
