"""The process's one client of the API server: raw JSON in and out; each call has a time-out and a place in the rate."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from rollway_operator.errors import (
    ClusterError,
    ConflictError,
    EndingError,
    ForbiddenError,
    InvalidError,
    NotLeaderError,
)
from rollway_operator.labels import FIELD_MANAGER, GROUP
from rollway_operator.telemetry import WRITES, ApiRequest

Json = dict[str, Any]
Objects = list[Json]
Selector = Mapping[str, str | tuple[str, ...]]
"""What labels must be: a value, or one of several."""

_SECONDS: Final = 30.0
_SECONDS_TO_CONNECT: Final = 5.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=_SECONDS, connect=_SECONDS_TO_CONNECT)
_PAGE: Final = "200"
"""A page is decoded at once: a larger one saves little, and takes more memory than all that is kept."""
_CALLS_PER_SECOND: Final = 300.0
"""Far below what an API server takes, which defends itself (429) anyway: it bounds what a fault of ours can cost."""

_BURST: Final = 600.0
_MESSAGE_LENGTH: Final = 500
_ATTEMPTS: Final = 4
_LONGEST_PAUSE: Final = 30.0
_BUSY: Final = (429, 503)
"""Answers of a server that has done nothing yet and may say when to ask again."""

_JSON: Final = "application/json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json"
_APPLY: Final = "application/apply-patch+yaml"
_YAML: Final = "application/yaml"
_MERGE: Final = "application/merge-patch+json"


@dataclass(frozen=True)
class _Kind:
    api_version: str
    plural: str
    namespaced: bool = True


_KINDS: Final[Mapping[str, _Kind]] = {
    "ModelDeployment": _Kind(f"{GROUP}/v1alpha1", "modeldeployments"),
    "ModelRegistry": _Kind(f"{GROUP}/v1alpha1", "modelregistries", namespaced=False),
    "ControllerRevision": _Kind("apps/v1", "controllerrevisions"),
    "Deployment": _Kind("apps/v1", "deployments"),
    "Service": _Kind("v1", "services"),
    "ConfigMap": _Kind("v1", "configmaps"),
    "NetworkPolicy": _Kind("networking.k8s.io/v1", "networkpolicies"),
    "HorizontalPodAutoscaler": _Kind("autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": _Kind("policy/v1", "poddisruptionbudgets"),
    "HTTPRoute": _Kind("gateway.networking.k8s.io/v1", "httproutes"),
    "GRPCRoute": _Kind("gateway.networking.k8s.io/v1", "grpcroutes"),
    "PodMonitor": _Kind("monitoring.coreos.com/v1", "podmonitors"),
    "Pod": _Kind("v1", "pods"),
    "Secret": _Kind("v1", "secrets"),
    "Namespace": _Kind("v1", "namespaces", namespaced=False),
    "Event": _Kind("events.k8s.io/v1", "events"),
    "Lease": _Kind("coordination.k8s.io/v1", "leases"),
    "CustomResourceDefinition": _Kind(
        "apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False
    ),
}


def api_of(kind: str) -> tuple[str, str]:
    """Give the group and the version in which the API server is asked for a kind."""
    group, _, version = _KINDS[kind].api_version.rpartition("/")
    return group, version


def plural(kind: str) -> str:
    """Give the name by which the API server lists a kind."""
    return _KINDS[kind].plural


class Rate:
    """A token bucket: bursts are let through, then calls wait for their turn."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._refilled = 0.0
        self._paused_until = 0.0

    def pause(self, seconds: float) -> None:
        """Hold every call back for a while, and let no burst through afterwards."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    async def turn(self) -> None:
        """Wait until one more call fits into the rate."""
        loop = asyncio.get_running_loop()
        while (rest := self._paused_until - loop.time()) > 0:
            self._tokens, self._refilled = 0.0, self._paused_until
            await asyncio.sleep(rest)
        now = loop.time()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self._per_second)
        self._refilled = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._per_second)


def _unfenced() -> float:
    return math.inf


class Cluster:
    """The API server, as the operator needs it; every failure is a ClusterError or a ConflictError.

    Before each write the fence is asked how long it may take: a write that is sent does not outlive the lease, and
    once that is lost none is sent (NotLeaderError).
    """

    def __init__(self, client: ApiClient, fence: Callable[[], float] = _unfenced) -> None:
        self._client = client
        self._fence = fence
        self._rate = Rate(_CALLS_PER_SECOND, _BURST)

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        """Read one object; None when there is none of that name."""
        status, answer = await self._call("GET", _path(kind, namespace, name))
        return None if status == 404 else _checked(status, answer, f"get {kind} {name}")

    async def served(self, group: str, version: str) -> frozenset[str]:
        """Tell which resources of a group's version the API server serves now, by plural name."""
        status, answer = await self._call("GET", f"/apis/{group}/{version}")
        if status == 404:
            return frozenset()
        found = _checked(status, answer, f"discover {group}/{version}")
        return frozenset(resource["name"] for resource in found["resources"])

    async def list(
        self, kind: str, *, namespaces: Iterable[str] = (), selector: Selector | None = None
    ) -> Objects:
        """List a kind by labels in some namespaces (none named: in all)."""
        pages = self.pages(kind, namespaces=namespaces, selector=selector)
        return [item async for page in pages for item in page]

    async def pages(
        self,
        kind: str,
        *,
        namespaces: Iterable[str] = (),
        selector: Selector | None = None,
        metadata_only: bool = False,
    ) -> AsyncIterator[Objects]:
        """List a kind page by page, for who need not keep them all; on request nothing of them but metadata."""
        places: tuple[str | None, ...] = tuple(namespaces)
        known = {"apiVersion": _KINDS[kind].api_version, "kind": kind}
        for namespace in places or (None,):
            query = {"limit": _PAGE}
            if selector:
                query["labelSelector"] = _label_selector(selector)
            proceed = True
            while proceed:
                accepted = _METADATA if metadata_only else _JSON
                answer = await self._call("GET", _path(kind, namespace), query, accepted=accepted)
                page = _checked(*answer, f"list {kind}")
                # A list's items name no kind, or that of their form; an empty list of metadata has null for items.
                yield [item | known for item in page["items"] or ()]
                proceed = page["metadata"].get("continue")
                query["continue"] = proceed

    async def create(self, manifest: Mapping[str, Any]) -> Json | None:
        """Create an object and give it; None when one of that name exists already."""
        answer, doing = await self._create(manifest), f"create {_named(manifest)}"
        return None if _exists_already(*answer, doing) else _checked(*answer, doing)

    async def make(self, manifest: Mapping[str, Any]) -> bool:
        """Create an object, and do not look at it; False when one of that name exists already."""
        answer, doing = await self._create(manifest), f"create {_named(manifest)}"
        if _exists_already(*answer, doing):
            return False
        _accepted(*answer, doing)
        return True

    async def _create(self, manifest: Mapping[str, Any]) -> tuple[int, bytes]:
        kind, metadata = manifest["kind"], manifest["metadata"]
        path = _path(kind, metadata.get("namespace"))
        # Given YAML the server writes a ControllerRevision's data anew, as it does when one is applied. Given JSON it
        # keeps the very bytes, and to apply the same data then counts as a change of what may not change.
        text = json.dumps(manifest)
        return await self._write(kind, "POST", path, {"fieldManager": FIELD_MANAGER}, text, _YAML)

    async def replace(self, manifest: Mapping[str, Any]) -> Json:
        """Write a whole object over the version that it names; any other there is a ConflictError."""
        query = {"fieldManager": FIELD_MANAGER}
        answer = await self._write(manifest["kind"], "PUT", _path_of(manifest), query, manifest)
        return _checked(*answer, f"put {_named(manifest)}")

    async def apply(self, manifest: Mapping[str, Any]) -> Json:
        """Apply an object that is ours on the server's side; who else wrote a field that we desire loses it."""
        return _checked(*await self._apply(manifest, _path_of(manifest)), f"apply {_named(manifest)}")

    async def apply_status(self, manifest: Mapping[str, Any]) -> None:
        """Apply the status of an object; a resourceVersion in it that is not the newest is a ConflictError."""
        answer = await self._apply(manifest, f"{_path_of(manifest)}/status")
        _accepted(*answer, f"apply {_named(manifest)}")

    async def _apply(self, manifest: Mapping[str, Any], path: str) -> tuple[int, bytes]:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._write(manifest["kind"], "PATCH", path, query, manifest, _APPLY)

    async def merge(self, manifest: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
        """Change one object by a JSON merge patch."""
        query = {"fieldManager": FIELD_MANAGER}
        answer = await self._write(manifest["kind"], "PATCH", _path_of(manifest), query, patch, _MERGE)
        return _checked(*answer, f"patch {_named(manifest)}")

    async def merge_status(self, manifest: Mapping[str, Any], patch: Mapping[str, Any]) -> None:
        """Change the status of an object by a JSON merge patch, which may name a resourceVersion as above."""
        query, path = {"fieldManager": FIELD_MANAGER}, f"{_path_of(manifest)}/status"
        answer = await self._write(manifest["kind"], "PATCH", path, query, patch, _MERGE)
        _accepted(*answer, f"patch {_named(manifest)}")

    async def scale(self, namespace: str, deployment: str, replicas: int) -> None:
        """Set the replica count of a Deployment."""
        path = f"{_path('Deployment', namespace, deployment)}/scale"
        patch = {"spec": {"replicas": replicas}}
        answer = await self._write("Scale", "PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, _MERGE)
        _accepted(*answer, f"scale Deployment {deployment}")

    async def delete(self, kind: str, name: str, namespace: str, uid: str) -> None:
        """Delete the object that has this uid, and what it owns, in the background; gone already is fine."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        status, answer = await self._write(kind, "DELETE", _path(kind, namespace, name), None, options)
        if status != 404:
            _accepted(status, answer, f"delete {kind} {name}")

    async def _write(self, kind: str, *call: Any) -> tuple[int, bytes]:
        """Make a call that changes something, and count it once the server has answered."""
        answer = await self._call(*call)
        WRITES.labels(kind).inc()
        return answer

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | str | None = None,
        content_type: str = _JSON,
        accepted: str = _JSON,
    ) -> tuple[int, bytes]:
        """Call, and call again where the server asks for it, or for credentials that it accepts."""
        for attempt in range(1, _ATTEMPTS + 1):
            await self._rate.turn()
            status, answer, pause = await self._once(method, path, query, body, content_type, accepted)
            if status == 401 and attempt == 1:
                await self._read_credentials()
            elif pause is not None:
                self._rate.pause(pause)
            else:
                break
        return status, answer

    async def _once(self, method: str, *call: Any) -> "_Answer":
        sending = self._send(method, *call)
        if method == "GET":
            return await sending
        # A pass may be cut short between two writes, but none of them: who stops knows what came of all it sent.
        write = asyncio.ensure_future(sending)
        try:
            return await asyncio.shield(write)
        except asyncio.CancelledError:
            await asyncio.gather(write, return_exceptions=True)
            raise

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | str | None,
        content_type: str,
        accepted: str,
    ) -> "_Answer":
        try:
            known = self._client.configuration
            headers = {
                **self._client.default_headers,
                "Accept": accepted,
                "Content-Type": content_type,
            }
            # The client's own way to an address and headers copies and escapes each part, and the body, too: it is a
            # tenth of what a call costs.
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
            url = f"{known.host}{path}?{urlencode(query)}" if query else f"{known.host}{path}"
            # Asked last of all: what was waited for until here counts.
            time_out = _TIMEOUT if method == "GET" else self._time_for_a_write()
            with ApiRequest(_verb(method, query)) as request:
                response = await self._client.call_api(method, url, headers, body, _request_timeout=time_out)
                # Not decoded here: of what was written nobody reads more than that it was.
                answer = await response.read()  # type: ignore[no-untyped-call]
                request.code = str(response.status)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ClusterError(f"{method} {path}: {type(error).__name__}: {error}") from error
        return response.status, answer, _pause(response)

    async def _read_credentials(self) -> None:
        """Read the token anew: it was replaced earlier than it had to be, or the one before was revoked."""
        try:
            fresh = await configuration()
        except (ConfigException, OSError) as error:
            raise ClusterError(f"the credentials were refused, and no others can be read: {error}") from error
        known = self._client.configuration
        known.api_key, known.refresh_api_key_hook = fresh.api_key, fresh.refresh_api_key_hook

    def _time_for_a_write(self) -> aiohttp.ClientTimeout:
        left = self._fence()
        if left <= 0:
            raise NotLeaderError("this replica does not hold the lease: nothing is written")
        return aiohttp.ClientTimeout(total=min(_SECONDS, left), connect=min(_SECONDS_TO_CONNECT, left))


def _verb(method: str, query: Mapping[str, str] | None) -> str:
    """Name a call as Kubernetes does: only lists are read with a query."""
    return _VERBS.get(method) or ("list" if query else "get")


_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

_Answer = tuple[int, bytes, float | None]
"""Status, body, and how long the server asks to be left alone."""


def _pause(response: Any) -> float | None:
    said = str(response.headers.get("Retry-After", ""))
    if response.status not in _BUSY or not (said.isascii() and said.isdigit()):
        return None
    return min(float(said), _LONGEST_PAUSE)


@asynccontextmanager
async def connect() -> AsyncIterator[ApiClient]:
    """Connect as the pod's service account, or outside a cluster as KUBECONFIG says."""
    async with ApiClient(await configuration()) as client:
        yield client


async def configuration() -> Configuration:
    """Read where the API server is and who we are; a service account's token is read again every minute."""
    found = Configuration(client_session_kwargs={"trust_env": False})
    try:
        load_incluster_config(found)  # type: ignore[no-untyped-call]
    except ConfigException:
        await load_kube_config(client_configuration=found)  # type: ignore[no-untyped-call]
    return found


def _label_selector(selector: Selector) -> str:
    terms = (
        f"{key}={value}" if isinstance(value, str) else f"{key} in ({','.join(value)})"
        for key, value in selector.items()
    )
    return ",".join(terms)


def _path(kind: str, namespace: str | None = None, name: str | None = None) -> str:
    known = _KINDS[kind]
    root = "/api/" if "/" not in known.api_version else "/apis/"
    place = f"/namespaces/{quote(namespace)}" if namespace and known.namespaced else ""
    return f"{root}{known.api_version}{place}/{known.plural}" + (f"/{quote(name)}" if name else "")


def _path_of(manifest: Mapping[str, Any]) -> str:
    metadata = manifest["metadata"]
    return _path(manifest["kind"], metadata.get("namespace"), metadata["name"])


def _named(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata'].get('name', '')}"


def _checked(status: int, answer: bytes, doing: str) -> Json:
    _accepted(status, answer, doing)
    return _decoded(answer, doing)


def _exists_already(status: int, answer: bytes, doing: str) -> bool:
    return status == 409 and _decoded(answer, doing).get("reason") == "AlreadyExists"


def _decoded(answer: bytes, doing: str) -> Json:
    try:
        found = json.loads(answer)
    except ValueError as error:
        raise ClusterError(f"{doing}: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise ClusterError(f"{doing}: the answer is not an object")
    return found


def _accepted(status: int, answer: bytes, doing: str) -> None:
    """Raise what an answer means that is no success."""
    if 200 <= status < 300:
        return
    said = _decoded(answer, f"{doing}: {status}")
    message = f"{doing}: {status} {said.get('reason', '')}: {said.get('message', '')}"[:_MESSAGE_LENGTH]
    causes = (said.get("details") or {}).get("causes") or ()
    if status == 403 and any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        raise EndingError(message)
    raise _ERRORS.get(status, ClusterError)(message)


_ERRORS: Final = {400: InvalidError, 403: ForbiddenError, 409: ConflictError, 422: InvalidError}
"""What an admission webhook denies without a code of its own comes as 400."""


def controller_of(child: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the owner reference of an object's controller; empty where it has none."""
    owners: Iterable[Mapping[str, Any]] = child["metadata"].get("ownerReferences", ())
    return next((owner for owner in owners if owner.get("controller")), {})


def is_controlled(child: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    """Tell whether `owner` is the controller of an object: this very one, not another of its name."""
    return bool(controller_of(child).get("uid") == owner["metadata"]["uid"])
