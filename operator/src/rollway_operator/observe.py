"""Read the cluster's side of a ModelDeployment once, into one value; the only module that reads the clock.

Pods tell their story in text that a model may have written: termination messages are parsed as hostile input, and only
what `fetch` says, which runs no model code, counts as a digest.
"""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from rollway_operator import labels
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.cluster import Cluster, api_of, controller_of, is_controlled, plural
from rollway_operator.domain import PROMOTED, Failure, Fault, Object, Observed, Pod, StoredRevision, Versions
from rollway_operator.manifests import GOLDEN_KEY, closing_of
from rollway_operator.obstacles import golden_name

CHILDREN: Final = (
    "ControllerRevision",
    "Deployment",
    "Service",
    "ConfigMap",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
)

_TOGETHER: Final = 50
"""How many ModelDeployments are read at once: their names must fit into an address."""

_MESSAGE_LENGTH: Final = 300
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")

_IMAGE_PULL: Final = frozenset({"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "ImageInspectError"})
_WAITS_FOR_NOBODY: Final = frozenset(
    {"InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_NODES_FAULT: Final = frozenset({"StartError", "ContainerCannotRun", "ContainerStatusUnknown"})
_TOLD_BY_FETCH: Final = {
    "FetchFailed": Fault.NOBODY,
    "DigestMismatch": Fault.MODEL,
    "ArtifactRefused": Fault.MODEL,
    "NotAModel": Fault.MODEL,
    "EnvironmentMismatch": Fault.MODEL,
}
_TOLD_BY_SERVER: Final = dict.fromkeys(
    ("ModelLoadFailed", "MissingPackage", "SmokeTestFailed", "WarmupFailed"), Fault.MODEL
)


def now() -> datetime:
    """Read the clock."""
    return datetime.now(UTC)


class Observer:
    """Reads all that belongs to ModelDeployments: together for those of a namespace that ask at the same time.

    What answers was read after it was asked for: who comes while a read is under way has a part in the next.
    """

    def __init__(self, cluster: Cluster, optional: Iterable[str] = ()) -> None:
        """Read from one cluster; `optional` are the kinds that models have here where the API server knows them."""
        self._cluster = cluster
        self._optional = frozenset(optional)
        self.served: Set[str] = frozenset()
        """Those of them that the API server knows."""
        self._waiting: dict[str, list[tuple[Object, asyncio.Future[Observed]]]] = defaultdict(list)
        self._reading: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def children(self) -> tuple[str, ...]:
        """The kinds that belong to a ModelDeployment here."""
        return (*CHILDREN, *sorted(self.served))

    async def discover(self) -> None:
        """Find out which optional kinds the API server knows: what defines them may be installed later."""
        apis = {api_of(kind) for kind in self._optional}
        known = {api: await self._cluster.served(*api) for api in apis}
        self.served = frozenset(kind for kind in self._optional if plural(kind) in known[api_of(kind)])

    async def observe(self, deployment: Object) -> Observed:
        """Read the children and the pods of one ModelDeployment."""
        namespace = deployment["metadata"]["namespace"]
        answer: asyncio.Future[Observed] = asyncio.get_running_loop().create_future()
        self._waiting[namespace].append((deployment, answer))
        try:
            async with self._reading[namespace]:
                if not answer.done():
                    waiting = self._waiting[namespace]
                    together, self._waiting[namespace] = waiting[:_TOGETHER], waiting[_TOGETHER:]
                    await self._answer(namespace, together)
            return await answer
        finally:
            answer.cancel()  # nobody waits for it any more

    async def _answer(self, namespace: str, asked: Iterable[tuple[Object, asyncio.Future[Observed]]]) -> None:
        waiting = [(deployment, answer) for deployment, answer in asked if not answer.done()]
        try:
            deployments = [deployment for deployment, _ in waiting]
            found = await _read(self._cluster, namespace, deployments, self.children, self.served)
        except Exception as error:  # noqa: BLE001 - told to each who asked
            for _, answer in waiting:
                _settle(answer, error)
            return
        for deployment, answer in waiting:
            try:
                _settle(answer, found(deployment))
            except Exception as error:  # noqa: BLE001 - what one cannot be read from says nothing of the others
                _settle(answer, error)


def _settle(answer: asyncio.Future[Observed], said: Observed | Exception) -> None:
    if answer.done():
        return
    if isinstance(said, Exception):
        answer.set_exception(said)
    else:
        answer.set_result(said)


async def _read(
    cluster: Cluster, namespace: str, deployments: Iterable[Object], kinds: Iterable[str], served: Set[str]
) -> Callable[[Object], Observed]:
    """Read what belongs to some ModelDeployments of a namespace, one list a kind; the answer tells each its own."""
    names = tuple(sorted({deployment["metadata"]["name"] for deployment in deployments}))
    selector = {labels.MODEL_DEPLOYMENT: names}
    *lists, pods = await asyncio.gather(
        *(cluster.list(kind, namespaces=(namespace,), selector=selector) for kind in (*kinds, "Pod"))
    )
    children = [child for found in lists for child in found]
    suspects = [child for child in children if _counted_by_another(child)]
    scaled = await _autoscaled(cluster, (namespace,), suspects)
    moment = now()
    children_of: dict[str, list[Object]] = defaultdict(list)
    pods_of: dict[str, list[Object]] = defaultdict(list)
    for child in children:
        children_of[_owner(child)].append(child)
    for pod in pods:
        pods_of[_model(pod)].append(pod)

    def of(deployment: Object) -> Observed:
        metadata = deployment["metadata"]
        mine = children_of[metadata["uid"]], pods_of[metadata["name"]]
        return replace(observed(deployment, *mine, moment, scaled), served=served)

    return of


async def with_golden(cluster: Cluster, deployment: ModelDeployment, seen: Observed) -> Observed:
    """Add the smoke test's data, where the spec names a ConfigMap: it is the author's, and no list has it."""
    name = golden_name(deployment)
    if name is None:
        return seen
    found = await cluster.get("ConfigMap", name, deployment.metadata.namespace)
    return replace(seen, golden=(found or {}).get("data", {}).get(GOLDEN_KEY))


async def versions(
    cluster: Cluster, namespaces: Iterable[str], kinds: Iterable[str] = CHILDREN
) -> Callable[[Object], Versions]:
    """Read the versions of all that belongs to every ModelDeployment, and keep nothing else: a page at a time."""
    places, selector = tuple(namespaces), {labels.MANAGED_BY: labels.FIELD_MANAGER}
    of_children: dict[str, set[tuple[str, str]]] = defaultdict(set)
    of_pods: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    suspects: list[Object] = []
    for kind in kinds:
        async for page in cluster.pages(kind, namespaces=places, selector=selector, metadata_only=True):
            for child in page:
                of_children[_owner(child)].add(_version(child))
            suspects += filter(_counted_by_another, page)
    async for page in cluster.pages("Pod", namespaces=places, selector=selector, metadata_only=True):
        for pod in page:
            of_pods[pod["metadata"]["namespace"], _model(pod)].add(_version(pod))
    scaled = await _autoscaled(cluster, places, suspects)
    for suspect in suspects:
        if _place(suspect) in scaled:
            of_children[_owner(suspect)].add(_autoscaled_version(_name(suspect)))

    def of(deployment: Object) -> Versions:
        own = {_version(deployment)}
        return frozenset(own | of_children[deployment["metadata"]["uid"]] | of_pods[_place(deployment)])

    return of


def _version(item: Object) -> tuple[str, str]:
    return item["metadata"].get("uid", ""), item["metadata"].get("resourceVersion", "")


def _autoscaled_version(deployment: str) -> tuple[str, str]:
    """An autoscaler is another object, which changes at each of its looks: only that there is one counts."""
    return "autoscaled", deployment


def _owner(child: Object) -> str:
    return str(controller_of(child).get("uid", ""))


def _model(pod: Object) -> str:
    return str(pod["metadata"].get("labels", {}).get(labels.MODEL_DEPLOYMENT, ""))


def _place(item: Object) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


Scaled = Set[tuple[str, str]]
"""Namespace and name of Deployments."""


async def _autoscaled(cluster: Cluster, namespaces: tuple[str, ...], suspects: Iterable[Object]) -> Scaled:
    """Find the Deployments that an autoscaler targets, among those whose count somebody else has set."""
    suspected = frozenset(map(_place, suspects))
    if not suspected:
        return frozenset()
    return suspected & {
        (scaler["metadata"]["namespace"], scaler["spec"]["scaleTargetRef"]["name"])
        for scaler in await cluster.list("HorizontalPodAutoscaler", namespaces=namespaces)
        if scaler["spec"]["scaleTargetRef"]["kind"] == "Deployment"
    }


def _counted_by_another(child: Object) -> bool:
    return child["kind"] == "Deployment" and any(
        entry.get("subresource") == "scale" and entry.get("manager") != labels.FIELD_MANAGER
        for entry in child["metadata"].get("managedFields", ())
    )


def observed(
    deployment: Object,
    children: Iterable[Object],
    pods: Iterable[Object],
    moment: datetime,
    scaled: Scaled = frozenset(),
) -> Observed:
    """Make the value of what was listed: only children under the ModelDeployment's control count."""
    own = {
        (child["kind"], child["metadata"]["name"]): child
        for child in children
        if is_controlled(child, deployment)
    }
    pods = sorted(pods, key=_name)
    autoscaled = frozenset(
        name
        for kind, name in own
        if kind == "Deployment" and (deployment["metadata"]["namespace"], name) in scaled
    )
    revisions = (stored_revision(child) for (kind, _), child in own.items() if kind == "ControllerRevision")
    return Observed(
        now=moment,
        revisions=tuple(sorted(revisions, key=lambda revision: revision.number)),
        objects=own,
        pods=tuple(model_pod(pod) for pod in pods if _counts(pod)),
        refusals={
            name: failure
            for (kind, name), child in sorted(own.items())
            if kind == "Deployment" and (failure := refusal(child))
        },
        autoscaled=autoscaled,
        versions=frozenset(
            {
                *map(_version, (deployment, *own.values(), *pods)),
                *map(_autoscaled_version, autoscaled),
            }
        ),
    )


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def stored_revision(child: Object) -> StoredRevision:
    """Read a ControllerRevision."""
    metadata, data = child["metadata"], child["data"]
    annotations = metadata.get("annotations", {})
    outcome, closing = annotations.get(labels.OUTCOME), annotations.get(labels.CLOSED)
    return StoredRevision(
        name=metadata["name"],
        number=child["revision"],
        inputs=data["inputs"],
        template=data["template"],
        settings=data["settings"],
        digest=annotations.get(labels.DIGEST),
        outcome=outcome,
        outcome_message=annotations.get(labels.OUTCOME_MESSAGE, ""),
        closing=closing_of(closing) if closing else None,
        promoted=labels.SERVED in annotations or outcome == PROMOTED,
    )


def refusal(workload: Object) -> Failure | None:
    """Read why a Deployment's pods are not even made."""
    for condition in workload.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            # The text before names a pod that never was, another one at each attempt.
            said = condition.get("message", "").rpartition(" is forbidden: ")[2]
            return Failure(
                condition.get("reason", "FailedCreate"), f"no pod can be made: {_plain(said)}", Fault.NOBODY
            )
    return None


# --------------------------------------------------------------------------------------------------------------- pods


def _counts(pod: Object) -> bool:
    """Leave out pods that ended for good (evicted ones stay listed) and pods that no ReplicaSet of a revision made."""
    revision = pod["metadata"].get("labels", {}).get(labels.REVISION)
    owner = controller_of(pod)
    made_by_us = owner.get("kind") == "ReplicaSet" and str(owner.get("name")).startswith(f"{revision}-")
    return bool(revision) and made_by_us and pod.get("status", {}).get("phase") not in {"Failed", "Succeeded"}


def model_pod(pod: Object) -> Pod:
    """Read one model pod."""
    metadata, status = pod["metadata"], pod.get("status", {})
    fetch = _container(status.get("initContainerStatuses", ()), "fetch")
    server = _container(status.get("containerStatuses", ()), "server")
    fetched = _fetched(fetch)
    digest, example = fetched.get("digest"), fetched.get("inputExample")
    running = server.get("state", {}).get("running", {})
    terminating = "deletionTimestamp" in metadata
    ready = _condition(status, "Ready").get("status") == "True"
    return Pod(
        name=metadata["name"],
        revision=metadata["labels"][labels.REVISION],
        ready=ready,
        terminating=terminating,
        server_since=_moment(running.get("startedAt")),
        restarts=server.get("restartCount", 0),
        oom_killed=_ended(server).get("reason") == "OOMKilled",
        crashed_at=_moment(_ended(server).get("finishedAt")),
        unready_since=_unready_since(status, server),
        address=status.get("podIP"),
        uid=metadata.get("uid", ""),
        digest=digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None,
        input_example=example if isinstance(example, bool) else None,
        environment=_plain(fetched.get("environment")) or None,
        failure=None if ready or terminating else _failure(status, fetch, server),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _unready_since(status: Object, server: Object) -> datetime | None:
    """Say since when a pod that had been ready is not, by its kubelet's own word.

    Where a node does not answer any more, it is the cluster that takes Ready away; ContainersReady stays as it was. It
    is False from a pod's making on: only what turned False while this server ran had been ready.
    """
    told = _condition(status, "ContainersReady")
    began = _moment(server.get("state", {}).get("running", {}).get("startedAt"))
    since = _moment(told.get("lastTransitionTime"))
    if not server.get("started") or told.get("status") != "False" or began is None or since is None:
        return None
    return since if since > began else None


def _failure(status: Object, fetch: Object, server: Object) -> Failure | None:
    """Say why a pod is not ready, if something is wrong; it stays said while the container is tried again."""
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return Failure(
            scheduled.get("reason", "Unschedulable"), _plain(scheduled.get("message", "")), Fault.NOBODY
        )
    return _blocked(fetch) or _fetch_failure(fetch) or _blocked(server) or _server_failure(server)


def _blocked(container: Object) -> Failure | None:
    """Say what keeps a container from being started: never the model's fault."""
    waiting = container.get("state", {}).get("waiting", {})
    reason = waiting.get("reason", "")
    if reason in _IMAGE_PULL:
        # Kubernetes swings between two reasons and texts here; one steady sentence keeps the status still.
        return Failure("ImagePullBackOff", f"the node cannot pull {container.get('image', '')}", Fault.NOBODY)
    if reason in _WAITS_FOR_NOBODY:
        return Failure(reason, f"{container['name']}: {_plain(waiting.get('message', ''))}", Fault.NOBODY)
    ended = _ended(container)
    if ended.get("reason") in _NODES_FAULT:
        return Failure(
            ended["reason"], f"{container['name']}: {_plain(ended.get('message', ''))}", Fault.NOBODY
        )
    return None


def _fetch_failure(fetch: Object) -> Failure | None:
    ended = _ended(fetch)
    if not ended or ended.get("exitCode") == 0:
        return None
    if ended.get("reason") == "OOMKilled":
        return Failure("OOMKilled", "fetch used more memory than its limit", Fault.NOBODY)
    silent = Failure("FetchFailed", f"fetch exited with code {ended.get('exitCode')}", Fault.NOBODY)
    return _told(ended, _TOLD_BY_FETCH) or silent


def _server_failure(server: Object) -> Failure | None:
    ended = _ended(server)
    if not ended:
        return None
    if ended.get("reason") == "OOMKilled":
        return Failure("OOMKilled", "the server used more memory than its limit", Fault.MODEL)
    silent = Failure("ServerExited", f"the server exited with code {ended.get('exitCode')}", Fault.MODEL)
    return _told(ended, _TOLD_BY_SERVER) or silent


def _ended(container: Object) -> Mapping[str, Any]:
    """Give how a container ended last, if it ever did."""
    state, last = container.get("state", {}), container.get("lastState", {})
    ended: Mapping[str, Any] = state.get("terminated") or last.get("terminated") or {}
    return ended


def _fetched(fetch: Object) -> Mapping[str, Any]:
    """Give what `fetch` told about the artifacts that are in the pod now."""
    ended = fetch.get("state", {}).get("terminated", {})
    return _message(ended) if ended.get("exitCode") == 0 else {}


def _told(ended: Mapping[str, Any], reasons: Mapping[str, Fault]) -> Failure | None:
    told = _message(ended)
    reason = told.get("reason")
    if not isinstance(reason, str) or reason not in reasons:
        return None
    return Failure(reason, _plain(told.get("message")) or reason, reasons[reason])


def _message(ended: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read a termination message; whatever is not a JSON object says nothing."""
    try:
        told = json.loads(ended.get("message") or "null")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _plain(text: object) -> str:
    """Make one line of any text, cut to a length."""
    line = _UNPRINTABLE.sub(" ", text).strip() if isinstance(text, str) else ""
    return line if len(line) <= _MESSAGE_LENGTH else f"{line[: _MESSAGE_LENGTH - 1]}…"


def _container(statuses: Iterable[Object], name: str) -> Object:
    return next((status for status in statuses if status["name"] == name), {})


def _condition(status: Object, type_: str) -> Mapping[str, Any]:
    conditions: Iterable[Mapping[str, Any]] = status.get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == type_), {})
