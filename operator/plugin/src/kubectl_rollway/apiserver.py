"""One API server over HTTP: what `cluster` promises."""

import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from kubectl_rollway import kubeconfig
from kubectl_rollway.cluster import Cluster, Complaint, Object, Place
from kubectl_rollway.errors import (
    ForbiddenError,
    NotFoundError,
    PluginError,
    RefusedError,
    UnreachableError,
    one_line,
)
from kubectl_rollway.kubeconfig import Access, Credentials

MANAGER: Final = "kubectl-rollway"

_DEPLOYMENTS: Final = "/apis/rollway.dev/v1alpha1"
_PAGE: Final = "500"
_MERGE: Final = "application/merge-patch+json"
_MANIFESTS: Final = {"ModelDeployment": "modeldeployments", "ModelRegistry": "modelregistries"}


def connect(place: Place, *, timeout: float = 20.0) -> Cluster:
    """Find the cluster that is meant; it is asked only later."""
    access = kubeconfig.find(place.kubeconfig, place.context, place.namespace, os.environ)
    return ApiServer(access, timeout)


class ApiServer:
    """One API server, over HTTP."""

    def __init__(self, access: Access, timeout: float) -> None:
        self._access = access
        self._timeout = timeout
        self._http: httpx.Client | None = None

    @property
    def namespace(self) -> str:
        """The namespace that is meant where none is named."""
        return self._access.namespace

    def deployments(self, namespace: str | None) -> list[Object]:
        """List the ModelDeployments of a namespace, or of all."""
        return self._list(_path(_DEPLOYMENTS, "modeldeployments", namespace))

    def deployment(self, namespace: str, name: str) -> Object:
        """Get one ModelDeployment."""
        return self._call("GET", _path(_DEPLOYMENTS, "modeldeployments", namespace, name))

    def revisions(self, namespace: str, name: str) -> list[Object]:
        """List the ControllerRevisions of a ModelDeployment."""
        path = _path("/apis/apps/v1", "controllerrevisions", namespace)
        return self._list(path, labelSelector=f"rollway.dev/model-deployment={name}")

    def pods(self, namespace: str, name: str) -> list[Object]:
        """List the pods of a ModelDeployment."""
        path = _path("/api/v1", "pods", namespace)
        return self._list(path, labelSelector=f"rollway.dev/model-deployment={name}")

    def events(self, namespace: str, name: str) -> list[Object]:
        """List the Events about a ModelDeployment."""
        about = f"involvedObject.kind=ModelDeployment,involvedObject.name={name}"
        return self._list(_path("/api/v1", "events", namespace), fieldSelector=about)

    def annotate(self, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Set annotations of a ModelDeployment."""
        self._call(
            "PATCH",
            _path(_DEPLOYMENTS, "modeldeployments", namespace, name),
            {"fieldManager": MANAGER},
            {"metadata": {"annotations": dict(annotations)}},
            _MERGE,
        )

    def complaints(self, manifest: Object) -> list[Complaint]:
        """Have the API server check a manifest without storing it, in the place of the object that is there."""
        metadata = dict(manifest.get("metadata") or {})
        namespaced = manifest["kind"] == "ModelDeployment"
        namespace = (metadata.get("namespace") or self.namespace) if namespaced else None
        collection = _path(_DEPLOYMENTS, _MANIFESTS[manifest["kind"]], namespace)
        path = f"{collection}/{quote(str(metadata['name']), safe='')}"
        query = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": MANAGER}
        try:
            try:
                there = self._call("GET", path)
            except NotFoundError:
                self._call("POST", collection, query, {**manifest, "metadata": metadata})
            else:
                # What the file does not say is meant to be absent: a patch would mix both and blame the file for it.
                metadata["resourceVersion"] = there["metadata"]["resourceVersion"]
                self._call(
                    "PUT",
                    path,
                    query,
                    {**manifest, "metadata": {**metadata, "namespace": namespace} if namespace else metadata},
                )
        except ComplaintsError as error:
            return error.complaints
        return []

    def namespaces(self) -> list[str]:
        """List the names of all namespaces."""
        return [str(item["metadata"]["name"]) for item in self._list("/api/v1/namespaces")]

    def listed(
        self, root: str, plural: str, namespace: str | None = None, **selectors: str
    ) -> list[Object] | None:
        """List any kind, of a namespace or of all; None where the API server does not know it."""
        try:
            return self._list(_path(root, plural, namespace), **selectors)
        except UnknownKindError:
            return None

    def through(self, namespace: str, service: str, path: str, query: Mapping[str, str]) -> Object:
        """Get a path of a Service (`name:port`) through the API server."""
        return self._call("GET", f"{_path('/api/v1', 'services', namespace, service)}/proxy{path}", query)

    # ------------------------------------------------------------------------------------------------------ HTTP

    def _list(self, path: str, **query: str) -> list[Object]:
        items: list[Object] = []
        query["limit"] = _PAGE
        while True:
            answer = self._call("GET", path, query)
            items += answer.get("items") or []
            query["continue"] = (answer.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return items

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        answer = self._send(method, path, query, body, content_type)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self._access.renewable:
            # Credentials that are made for a while ended: others are made, once.
            self._close()
            answer = self._send(method, path, query, body, content_type)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            # Of a group that it does not know an API server says so in plain text.
            unknown = answer.status_code == httpx.codes.NOT_FOUND
            raise (UnknownKindError if unknown else UnreachableError)(
                f"{self._access.server} does not answer as an API server does (HTTP {answer.status_code})"
            )
        if not answer.is_success:
            raise _refusal(answer.status_code, found, self._access.server)
        return found

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Object | None,
        content_type: str,
    ) -> httpx.Response:
        if self._http is None:
            self._http = _client(self._access, self._timeout)
        params = {key: value for key, value in (query or {}).items() if value}
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body else {})
        extensions = {"sni_hostname": self._access.server_name} if self._access.server_name else {}
        request = self._http.build_request(
            method,
            f"{self._access.server}{path}",
            params=params,
            headers=headers,
            json=body,
            extensions=extensions,
        )
        try:
            return self._http.send(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = one_line(error) or type(error).__name__
            raise UnreachableError(f"cannot reach {self._access.server}: {why}") from error

    def _close(self) -> None:
        if self._http:
            self._http.close()
        self._http = None


class UnknownKindError(UnreachableError):
    """The API server does not know the kind that was asked for."""


class ComplaintsError(RefusedError):
    """The API server refused what was written."""

    def __init__(self, message: str, complaints: list[Complaint]) -> None:
        super().__init__(message)
        self.complaints = complaints


def _refusal(code: int, status: Mapping[str, Any], server: str) -> PluginError:
    """Put an answer that is no success into words, with the exit code that belongs to it."""
    message = one_line(status.get("message") or f"HTTP {code}")
    details = status.get("details") or {}
    if code == httpx.codes.UNAUTHORIZED:
        return UnreachableError(f"{server} does not accept the credentials of this context")
    if code == httpx.codes.FORBIDDEN and status.get("reason") == "Forbidden" and "cannot" in message:
        return ForbiddenError(message)
    if code == httpx.codes.NOT_FOUND:
        if details.get("name"):
            return NotFoundError(message)
        return UnknownKindError(f"{server} does not know ModelDeployments: is Rollway installed there?")
    if code == httpx.codes.TOO_MANY_REQUESTS or code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return UnreachableError(f"{server}: {message}")
    causes = [
        Complaint(
            one_line(cause.get("field", "")),
            one_line(cause.get("message", "")).removeprefix("Invalid value: "),
        )
        for cause in details.get("causes") or ()
    ]
    return ComplaintsError(message, causes or [Complaint("", message)])


def _path(root: str, plural: str, namespace: str | None, name: str | None = None) -> str:
    place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{place}/{plural}" + (f"/{quote(name, safe='')}" if name else "")


def _client(access: Access, timeout: float) -> httpx.Client:
    credentials = access.credentials()
    headers = list(access.headers)
    if credentials.token:
        headers.append(("Authorization", f"Bearer {credentials.token}"))
    try:
        return httpx.Client(
            verify=_context(access, credentials),
            proxy=access.proxy,
            headers=headers,
            auth=None if credentials.token else credentials.password,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
        )
    except (ValueError, ImportError) as error:
        raise UnreachableError(f"the kubeconfig's proxy-url cannot be used: {error}") from error


def _context(access: Access, credentials: Credentials) -> ssl.SSLContext:
    """Trust whom the kubeconfig trusts, and be who it says."""
    try:
        authority = access.authority.decode("ascii") if access.authority else None
        context = ssl.create_default_context(cadata=authority)
        if not access.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if credentials.certificate and credentials.key:
            with _file(credentials.certificate + b"\n" + credentials.key) as path:
                context.load_cert_chain(path)
    except (ValueError, ssl.SSLError) as error:
        raise UnreachableError(f"the kubeconfig's certificates cannot be used: {error}") from error
    return context


@contextmanager
def _file(content: bytes) -> Iterator[Path]:
    """Hold bytes in a file that is ours alone: Python reads certificates from nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pem"
        path.touch(0o600)
        path.write_bytes(content)
        yield path
