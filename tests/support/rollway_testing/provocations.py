"""What makes each alert of the charts fire on a real cluster, with the real rules, and what ends it again.

One model for each cause, so that causes lie side by side and each alert names its own. What a cause needs is there
before it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx

from rollway_cluster import prometheus
from rollway_cluster.install import MLFLOW_NAMESPACE, OPERATOR
from rollway_cluster.install import SYSTEM_NAMESPACE as SYSTEM
from rollway_testing import models
from rollway_testing.alerts import Labels, Phase, Provocation
from rollway_testing.kubernetes import ApiError
from rollway_testing.waiting import eventually, throughout

if TYPE_CHECKING:
    from rollway_cluster.prometheus import Monitoring
    from rollway_cluster.traefik import Gateway
    from rollway_testing.scenario import Maker, Scenario, World

NOT_PROVOKED: Final[Mapping[str, str]] = {
    "RollwayModelHeldForEvidence": "it waits for an hour",
    "RollwayModelAwaitsPerson": "it waits for four hours",
    "RollwayOperatorQueueStuck": "32 passes at once must hang for minutes, which time-outs do not let them",
}
"""Alerts that cannot be made to fire honestly within half an hour, and why."""

MLFLOW: Final = "mlflow"
"""The release, and so its job and its ServiceMonitor."""
AGAIN: Final = "rollway-operator-again"
"""The Deployment and the Lease of a second operator."""
NOBODY: Final = "nobody"
"""A runtime whose image cannot be pulled, a receiver that refuses, a Service that is not there."""
HERE: Final = "rollway-alerts"
"""The name of what is made outside of the namespaces of models."""
REGISTRIES: Final = "modelregistries.rollway.dev"
REFUSED: Final = 20
"""ModelDeployments whose status cannot be written: with fewer the failures are lost among the other passes."""
BREAKS: Final = 7
"""One more than the rule needs, since a range seldom begins just before the first."""
_SECONDS_TO_SERVE: Final = 600.0
"""A dozen servers begin at once."""
_SECONDS_TO_HAPPEN: Final = 120.0
_SECONDS_TO_JUDGE: Final = 900.0
_MARK: Final = "alerts.rollway.dev"
"""The domain of labels that are made here."""

AT_HALF: Final[dict[str, Any]] = {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}
BY_ERRORS: Final[dict[str, Any]] = {
    "metrics": [{"name": "error-rate", "thresholdRange": {"max": "0.05"}, "minSamples": 10}]
}


@dataclass
class Bench:
    """A cluster in which Rollway is installed as `values` says, and the namespaces in which trouble is made."""

    world: World
    monitoring: Monitoring
    gateway: Gateway
    models: Scenario
    unrouted: Scenario
    """Its routes alone can be refused."""
    refused: Scenario
    """Its writes alone can be refused."""
    making: threading.Lock = field(default_factory=threading.Lock)
    """Held while a model is made: MLflow's client and the pickling of code are for one thread at a time."""
    lasting: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What goes on until the end."""

    def values(self, evidence: str) -> dict[str, Any]:
        """More values of charts/rollway: evidence from this address, and a receiver that takes nothing."""
        receiver = {
            "name": NOBODY,
            "type": "webhook",
            "urlSecret": {"name": HERE, "key": "url"},
            "events": ["RolledBack"],
            "namespaces": [self.models.namespace],
        }
        return {
            "prometheus": {"url": evidence, "staleSeconds": 30},
            "notifications": {"receivers": [receiver]},
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have the receiver's Secret, and end at the end what lasted until then."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": HERE, "namespace": SYSTEM},
            # MLflow answers 404 or 405 here, as a chat does for a webhook that somebody removed.
            "stringData": {"url": f"{self.world.installation.tracking_uri}/a-hook-that-was-removed"},
        }
        self.world.client.apply(secret)
        try:
            with self.lasting:
                yield
        finally:
            self.world.client.delete("secret", HERE, SYSTEM)

    def serve(
        self, name: str, bad: Maker | None = None, *, scenario: Scenario | None = None, **spec: Any
    ) -> None:
        """Have a ModelDeployment serve a good version, its model's first; the second one is bad."""
        scenario = scenario or self.models
        with self.making:
            scenario.given.a_model(name)
            if bad:
                scenario.given.a_version(bad, model=name)
            scenario.given.a_deployment(name, serving=None, **spec)
        scenario.then.it_settles_on("1", name, within=_SECONDS_TO_SERVE)

    def turn_to(self, version: str, name: str) -> None:
        """Move the alias, and wait until the version serves."""
        self.models.when.the_alias_moves_to(version, name)
        self.models.then.it_settles_on(version, name, within=_SECONDS_TO_SERVE)

    @contextlib.contextmanager
    def traffic(
        self, name: str, *, rate: float, gateway: Gateway | None = None, timeout: float = 10
    ) -> Iterator[None]:
        """Send requests, whose answers nobody judges."""
        traffic = self.models.when.traffic(name, rate=rate, gateway=gateway, timeout=timeout)
        try:
            traffic.start()
            yield
        finally:
            traffic.remove()

    def keep(self, going: contextlib.AbstractContextManager[None]) -> None:
        """Begin what goes on until the end: rates go on to need requests when the cause is gone."""
        going.__enter__()
        self.lasting.push(going)

    def status(self, name: str) -> dict[str, Any]:
        """Read the status of a ModelDeployment, of whatever generation."""
        found: dict[str, Any] = self.models.deployment(name).get("status", {})
        return found

    def replace(self, kind: str, name: str, namespace: str | None, path: str, value: object) -> None:
        """Put another value in the place that a JSON pointer names."""
        place = (f"--namespace={namespace}",) if namespace else ()
        patch = json.dumps([{"op": "replace", "path": path, "value": value}])
        self.world.client.run("patch", kind, name, *place, "--type=json", f"--patch={patch}")


Cause = Callable[[Bench], contextlib.AbstractContextManager[None]]


def of_model(name: str) -> Callable[[Bench], Labels]:
    """Alerts about a ModelDeployment of the namespace of models."""
    return lambda bench: {"namespace": bench.models.namespace, "name": name}


def of_unrouted(bench: Bench) -> Labels:
    """Alerts about the model whose routes are refused."""
    return {"namespace": bench.unrouted.namespace, "name": "unrouted"}


def of_registry(bench: Bench) -> Labels:
    """Alerts about the registry that may fail."""
    return {"registry": bench.models.namespace}


def of_operator(_bench: Bench) -> Labels:
    """Alerts about the operator."""
    return {"job": OPERATOR}


def of_mlflow(_bench: Bench) -> Labels:
    """Alerts about MLflow."""
    return {"job": MLFLOW}


def serving(name: str, bad: Maker | None = None, **spec: Any) -> Callable[[Bench], None]:
    """Prepare a model that serves, with a second version that is bad."""
    return lambda bench: bench.serve(name, bad, **spec)


# ------------------------------------------------------------------------------------------- what pods count or lack


def turned(name: str, *, rate: float, timeout: float = 10) -> Cause:
    """The bad version serves under traffic; then the good one does, with as many requests."""

    @contextlib.contextmanager
    def cause(bench: Bench) -> Iterator[None]:
        bench.keep(bench.traffic(name, rate=rate, timeout=timeout))
        bench.turn_to("2", name)
        yield
        bench.turn_to("1", name)

    return cause


@contextlib.contextmanager
def crashing(bench: Bench) -> Iterator[None]:
    """The server ends after some predictions, again and again, until there are no more requests."""
    bench.turn_to("2", "crashing")
    with bench.traffic("crashing", rate=5):
        yield
    bench.models.when.the_alias_moves_to("1", "crashing")


@contextlib.contextmanager
def without_an_image(bench: Bench) -> Iterator[None]:
    """A candidate's pods have addresses, and no server that answers there."""
    when, then = bench.models.when, bench.models.then
    when.the_spec_changes({"predictor": {"runtime": NOBODY}}, "unpulled")
    yield
    when.the_spec_changes({"predictor": None}, "unpulled")
    then.it_settles_on("1", "unpulled")


@contextlib.contextmanager
def unselected(bench: Bench) -> Iterator[None]:
    """The model's PodMonitor carries the label of another Prometheus."""
    labels = dict.fromkeys(prometheus.LABELS, "another")
    bench.models.when.the_spec_changes({"monitoring": {"podMonitor": {"labels": labels}}}, "unselected")
    yield
    bench.models.when.the_spec_changes({"monitoring": None}, "unselected")


def unlabelled(release: str, namespace: str) -> Cause:
    """The ServiceMonitor lacks the label by which Prometheus selects it."""

    @contextlib.contextmanager
    def cause(bench: Bench) -> Iterator[None]:
        def label(*changes: str) -> None:
            bench.world.client.run("label", "servicemonitor", release, f"--namespace={namespace}", *changes)

        label(*(f"{name}-" for name in prometheus.LABELS))
        try:
            yield
        finally:
            label(*(f"{name}={value}" for name, value in prometheus.LABELS.items()))

    return cause


# -------------------------------------------------------------------------------------- what ModelDeployments say


@contextlib.contextmanager
def rolled_back(bench: Bench) -> Iterator[None]:
    """A canary fails under traffic; then a person takes note."""
    with bench.traffic("rolled", rate=10, gateway=bench.gateway):
        bench.models.when.the_alias_moves_to("2", "rolled")
        yield
    bench.models.when.somebody_says("ack", bench.status("rolled")["stable"]["revision"], "rolled")


@contextlib.contextmanager
def held(bench: Bench) -> Iterator[None]:
    """A canary fails under traffic and keeps its share, until a person aborts it."""
    with bench.traffic("held", rate=10, gateway=bench.gateway):
        bench.models.when.the_alias_moves_to("2", "held")
        yield
        bench.models.when.somebody_says("abort", bench.status("held")["canary"]["revision"], "held")
        bench.models.then.it_settles_on("1", "held")


def judged(bench: Bench, name: str) -> bool:
    """Whether a canary has failed, whatever came of that."""
    status = bench.status(name)
    return bool(status.get("canary", {}).get("held")) or any(
        entry["version"] == "2" for entry in status.get("history", ())
    )


def watched(bench: Bench) -> None:
    """Prepare a canary that waits in a step while its evidence is read, once that of the others is not needed more."""
    bench.serve(
        "watched",
        functools.partial(models.regressor, number=2),
        strategy=AT_HALF,
        analysis=BY_ERRORS,
    )
    bench.keep(bench.traffic("watched", rate=4, gateway=bench.gateway))
    bench.models.when.the_alias_moves_to("2", "watched")
    bench.models.then.it_says("Paused", True, "PauseStep", name="watched", within=_SECONDS_TO_SERVE)
    for name in ("rolled", "held"):
        eventually(functools.partial(judged, bench, name), within=_SECONDS_TO_JUDGE, what=f"{name} is judged")


@contextlib.contextmanager
def without_evidence(bench: Bench) -> Iterator[None]:
    """What stands before Prometheus answers the operator with 500."""
    bench.models.when.prometheus_is("error")
    try:
        yield
    finally:
        bench.models.when.prometheus_is("none")


@contextlib.contextmanager
def stalled(bench: Bench) -> Iterator[None]:
    """A version answers NaN to its own example, until the alias goes back."""
    bench.models.when.the_alias_moves_to("2", "stalled")
    yield
    bench.turn_to("1", "stalled")


@contextlib.contextmanager
def unresolved(bench: Bench) -> Iterator[None]:
    """The alias is deleted, and set again."""
    bench.models.when.the_alias_is_deleted("unresolved")
    yield
    bench.models.when.the_alias_moves_to("1", "unresolved")


@contextlib.contextmanager
def spoiled(bench: Bench) -> Iterator[None]:
    """A bit of the artifacts is not as it was when a second pod fetches them; then it is again."""
    when = bench.models.when
    when.a_byte_is_flipped("1", "spoiled")
    when.it_is_scaled_to(2, "spoiled")
    yield
    when.a_byte_is_flipped("1", "spoiled")
    when.it_is_scaled_to(1, "spoiled")


def at_marked_nodes(name: str, replicas: int) -> Callable[[Bench], None]:
    """Prepare a model that runs only on nodes with a label, which all have."""

    def prepare(bench: Bench) -> None:
        mark(bench, name)
        bench.lasting.callback(unmark, bench, name)
        bench.serve(name, predictor={"replicas": replicas, "nodeSelector": {f"{_MARK}/{name}": "here"}})

    return prepare


def mark(bench: Bench, name: str) -> None:
    """Put a model's label on all nodes."""
    bench.world.client.run("label", "nodes", "--all", "--overwrite", f"{_MARK}/{name}=here")


def unmark(bench: Bench, name: str) -> None:
    """Take it away."""
    bench.world.client.run("label", "nodes", "--all", f"{_MARK}/{name}-")


def without_a_node(name: str) -> Cause:
    """A pod is deleted, and no node takes the one that replaces it."""

    @contextlib.contextmanager
    def cause(bench: Bench) -> Iterator[None]:
        unmark(bench, name)
        try:
            pod = bench.models.children("Pod", name)[0]["metadata"]["name"]
            bench.world.kubernetes.delete("Pod", pod, bench.models.namespace)
            yield
        finally:
            mark(bench, name)

    return cause


@contextlib.contextmanager
def unrouted(bench: Bench) -> Iterator[None]:
    """The Gateway's listener takes routes of every namespace but the model's."""
    all_but_one = {
        "key": "kubernetes.io/metadata.name",
        "operator": "NotIn",
        "values": [bench.unrouted.namespace],
    }

    def allow(namespaces: Mapping[str, Any]) -> None:
        path = "/spec/listeners/0/allowedRoutes/namespaces"
        bench.replace("gateway", bench.gateway.http, bench.gateway.namespace, path, namespaces)

    allow({"from": "Selector", "selector": {"matchExpressions": [all_but_one]}})
    try:
        yield
    finally:
        allow({"from": "All"})


def with_a_registry(bench: Bench) -> None:
    """Prepare a registry that may fail, which no model follows."""
    bench.models.given.a_registry_that_may_fail()


@contextlib.contextmanager
def without_a_registry(bench: Bench) -> Iterator[None]:
    """A tracking server answers with 500."""
    bench.models.when.the_registry_is("error")
    try:
        yield
    finally:
        bench.models.when.the_registry_is("none")


# -------------------------------------------------------------------------------------------------------- the operator


@contextlib.contextmanager
def kept_out(bench: Bench) -> Iterator[None]:
    """A NetworkPolicy lets everybody but Prometheus reach the operator."""
    live = bench.world.kubernetes.get("Deployment", OPERATOR, SYSTEM)
    assert live is not None
    others = {
        "key": "kubernetes.io/metadata.name",
        "operator": "NotIn",
        "values": [bench.monitoring.namespace],
    }
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": HERE, "namespace": SYSTEM},
        "spec": {
            "podSelector": live["spec"]["selector"],
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"namespaceSelector": {"matchExpressions": [others]}}]}],
        },
    }
    bench.world.client.apply(policy)
    try:
        yield
    finally:
        bench.world.client.delete("networkpolicy", HERE, SYSTEM)


def refusable(bench: Bench) -> None:
    """Prepare ModelDeployments that have no pods, since the registry does not know their model."""
    names = [f"refused-{number}" for number in range(REFUSED)]
    for name in names:
        bench.refused.given.a_deployment(name, model="unknown", serving=None)
    eventually(
        lambda: [name for name in names if not bench.refused.status(name)],
        lambda left: not left,
        within=_SECONDS_TO_HAPPEN,
        what="each has its first status",
    )


@contextlib.contextmanager
def refused(bench: Bench) -> Iterator[None]:
    """A webhook that does not answer stands before each write of a status, and each status must be written."""
    namespace = bench.refused.namespace
    webhook = {
        "name": "status.alerts.rollway.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 2,
        "clientConfig": {"service": {"namespace": namespace, "name": NOBODY}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "rules": [
            {
                "apiGroups": ["rollway.dev"],
                "apiVersions": ["*"],
                "operations": ["UPDATE"],
                "resources": ["modeldeployments/status"],
            }
        ],
    }
    bench.world.client.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": HERE},
            "webhooks": [webhook],
        }
    )
    try:
        eventually(
            functools.partial(writes_are_refused, bench),
            within=_SECONDS_TO_HAPPEN,
            what="the webhook is in force",
        )
        for number in range(REFUSED):
            # What has another generation needs another status.
            bench.refused.when.the_spec_changes({"progressDeadlineSeconds": 900}, f"refused-{number}")
        yield
    finally:
        bench.world.client.delete("validatingwebhookconfiguration", HERE)


def writes_are_refused(bench: Bench) -> bool:
    """Whether a status that nobody needs can not be written."""
    try:
        bench.refused.when.the_status_is({"phase": "Pending"}, "refused-0")
    except ApiError as error:
        return error.status == httpx.codes.INTERNAL_SERVER_ERROR
    return False


@contextlib.contextmanager
def led_twice(bench: Bench) -> Iterator[None]:
    """A second operator, for a namespace without models, has the labels of the first and a Lease of its own."""
    client = bench.world.client
    live = bench.world.kubernetes.get("Deployment", OPERATOR, SYSTEM)
    assert live is not None
    client.apply(*second_operator(live, bench.monitoring.namespace))
    try:
        place = f"--namespace={SYSTEM}"
        client.run("rollout", "status", f"deployment/{AGAIN}", place, "--timeout=120s", seconds=130)
        yield
    finally:
        for kind in ("deployment", "rolebinding", "role"):
            client.delete(kind, AGAIN, SYSTEM)


def second_operator(live: Mapping[str, Any], namespace: str) -> list[dict[str, Any]]:
    """Give the objects of an operator beside that of a Deployment, which serves one namespace."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": AGAIN, "namespace": SYSTEM}
    own = {f"{_MARK}/again": "true"}
    template = live["spec"]["template"]
    chosen = {"ROLLWAY_LEASE_NAME": AGAIN, "ROLLWAY_WATCH_NAMESPACES": namespace}
    [container] = template["spec"]["containers"]
    environment = [
        {"name": each["name"], "value": chosen[each["name"]]} if each["name"] in chosen else each
        for each in container["env"]
    ]
    pod = {**template["spec"], "containers": [{**container, "env": environment}]}
    account = {
        "kind": "ServiceAccount",
        "name": template["spec"]["serviceAccountName"],
        "namespace": SYSTEM,
    }
    lease = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [AGAIN],
        "verbs": ["get", "update"],
    }
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [lease]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": AGAIN},
            "subjects": [account],
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {**live["spec"]["selector"]["matchLabels"], **own}},
                "template": {
                    "metadata": {"labels": {**template["metadata"]["labels"], **own}},
                    "spec": pod,
                },
            },
        },
    ]


@contextlib.contextmanager
def broken_watch(bench: Bench) -> Iterator[None]:
    """The API server stops to serve ModelRegistries for a moment, again and again."""

    def serve(served: bool) -> None:
        bench.replace("crd", REGISTRIES, None, "/spec/versions/0/served", served)

    served = functools.partial(registries_are_served, bench)
    try:
        for number in range(BREAKS):
            before = breaks(bench)
            serve(False)
            eventually(
                functools.partial(breaks, bench),
                functools.partial(operator.lt, before),
                within=_SECONDS_TO_HAPPEN,
                what=f"the watch breaks for the {number + 1}. time",
            )
            serve(True)
            eventually(served, within=_SECONDS_TO_HAPPEN, what="ModelRegistries are served")
            throughout(served, bool, seconds=until_it_watches(number), what="ModelRegistries are served")
    finally:
        serve(True)
    yield


def registries_are_served(bench: Bench) -> bool:
    """Whether the API server knows ModelRegistries now."""
    try:
        return bool(bench.world.kubernetes.list("ModelRegistry"))
    except ApiError:
        return False


def breaks(bench: Bench) -> float:
    """How often Prometheus knows the watch to have broken."""
    found = bench.monitoring.query("max(rollway_operator_watch_breaks_total)")
    return float(found[0]["value"][1]) if found else 0.0


def until_it_watches(number: int) -> float:
    """Say how long the operator may take after its n-th break, from 0: its delay doubles to half a minute."""
    return min(2.0**number, 30.0) * 1.3 + 15.0


@contextlib.contextmanager
def without_a_lease(bench: Bench) -> Iterator[None]:
    """The operator may read its Lease, and write it no more."""
    name = f"{OPERATOR}-lease"
    role = bench.world.client.get("role", name, SYSTEM)
    assert role is not None
    [(place, verbs)] = [
        (f"/rules/{index}/verbs", rule["verbs"])
        for index, rule in enumerate(role["rules"])
        if rule.get("resourceNames") == [OPERATOR]
    ]
    bench.replace("role", name, SYSTEM, place, ["get"])
    try:
        yield
    finally:
        bench.replace("role", name, SYSTEM, place, verbs)


@contextlib.contextmanager
def gone(bench: Bench) -> Iterator[None]:
    """The operator is scaled to nothing."""
    with bench.world.operator.replicas(0):
        yield


@contextlib.contextmanager
def without_mlflow(bench: Bench) -> Iterator[None]:
    """The image of MLflow cannot be pulled."""
    with bench.world.registry.without_an_image():
        yield


PROVOCATIONS: Final[Sequence[Provocation[Bench]]] = (
    Provocation(
        "a version serves whose server ends after 60 requests; then requests cease",
        {"RollwayModelPodRestarting": of_model("crashing")},
        Phase.BESIDE,
        crashing,
        serving("crashing", functools.partial(models.crashing, number=2, after=60)),
        ends_within=2100,
    ),
    Provocation(
        "a version serves that fails half of 5 requests a second; then the one before",
        {"RollwayModelErrorsFastBurn": of_model("failing")},
        Phase.BESIDE,
        turned("failing", rate=5),
        serving("failing", functools.partial(models.erroring, number=2, share=0.5)),
        ends_within=600,
    ),
    Provocation(
        "a version serves that fails one in twenty of 5 requests a second; then the one before",
        {"RollwayModelErrorsSlowBurn": of_model("ailing")},
        Phase.BESIDE,
        turned("ailing", rate=5),
        serving("ailing", functools.partial(models.erroring, number=2, share=0.05)),
        ends_within=1200,
    ),
    Provocation(
        "a version serves that answers 8 requests a second, each after 2 s, and gets 12; then the one before",
        {
            "RollwayModelLatencyHigh": of_model("overloaded"),
            "RollwayModelShedding": of_model("overloaded"),
        },
        Phase.BESIDE,
        turned("overloaded", rate=12, timeout=30),
        serving("overloaded", functools.partial(models.slow, number=2, seconds=2.0)),
        ends_within=600,
    ),
    Provocation(
        "a candidate's image cannot be pulled; then it is given up",
        {"RollwayModelTargetDown": of_model("unpulled")},
        Phase.BESIDE,
        without_an_image,
        serving("unpulled", progressDeadlineSeconds=3600),
    ),
    Provocation(
        "MLflow's ServiceMonitor loses its label",
        {"MLflowTargetMissing": of_mlflow},
        Phase.BESIDE,
        unlabelled(MLFLOW, MLFLOW_NAMESPACE),
    ),
    Provocation(
        "a NetworkPolicy keeps Prometheus from the operator",
        {"RollwayOperatorDown": of_operator},
        Phase.UNSEEN,
        kept_out,
    ),
    Provocation(
        "a canary fails half of its requests, one receiver of notifications answers 4xx; then `ack`",
        {
            "RollwayModelRolledBack": of_model("rolled"),
            "RollwayNotificationsDropped": lambda _: {"job": OPERATOR, "receiver": NOBODY},
        },
        Phase.SEEN,
        rolled_back,
        serving(
            "rolled",
            functools.partial(models.erroring, number=2, share=0.5),
            strategy=AT_HALF,
            analysis=BY_ERRORS,
        ),
        ends_within=1200,
    ),
    Provocation(
        "a canary fails half of its requests, `rollback.mode` is Manual; then `abort`",
        {
            "RollwayModelRollbackHeld": of_model("held"),
            "RollwayCanaryErrorsHigher": of_model("held"),
        },
        Phase.SEEN,
        held,
        serving(
            "held",
            functools.partial(models.erroring, number=2, share=0.5),
            strategy=AT_HALF,
            analysis=BY_ERRORS,
            rollback={"mode": "Manual"},
        ),
    ),
    Provocation(
        "what stands before Prometheus answers the operator with 500 while a canary waits",
        {"RollwayEvidenceFailing": of_operator},
        Phase.SEEN,
        without_evidence,
        watched,
        ends_within=600,
    ),
    Provocation(
        "the alias moves to a version that answers NaN, and back",
        {"RollwayModelStalled": of_model("stalled")},
        Phase.SEEN,
        stalled,
        serving("stalled", models.answering_nan),
    ),
    Provocation(
        "the alias is deleted, and set again",
        {"RollwayModelNotResolved": of_model("unresolved")},
        Phase.SEEN,
        unresolved,
        serving("unresolved"),
    ),
    Provocation(
        "a bit of the artifacts is flipped, then a second pod wanted; then neither",
        {"RollwayModelDigestMismatch": of_model("spoiled")},
        Phase.SEEN,
        spoiled,
        serving("spoiled"),
    ),
    Provocation(
        "the only pod is deleted, and no node has the label that the next one needs",
        {"RollwayModelNotReady": of_model("unready")},
        Phase.SEEN,
        without_a_node("unready"),
        at_marked_nodes("unready", replicas=1),
    ),
    Provocation(
        "one of two pods is deleted, and no node has the label that the next one needs",
        {"RollwayModelReplicasShort": of_model("short")},
        Phase.SEEN,
        without_a_node("short"),
        at_marked_nodes("short", replicas=2),
    ),
    Provocation(
        "the Gateway's listener takes no routes of the model's namespace",
        {"RollwayModelRoutesNotReady": of_unrouted},
        Phase.SEEN,
        unrouted,
        lambda bench: bench.serve("unrouted", scenario=bench.unrouted),
    ),
    Provocation(
        "the tracking server of a second registry answers 500",
        {"RollwayRegistryUnreachable": of_registry},
        Phase.SEEN,
        without_a_registry,
        with_a_registry,
    ),
    Provocation(
        "the PodMonitor is given the label of another Prometheus",
        {"RollwayModelTargetMissing": of_model("unselected")},
        Phase.SEEN,
        unselected,
        serving("unselected"),
    ),
    Provocation(
        f"a webhook that does not answer stands before the status of {REFUSED} ModelDeployments",
        {"RollwayOperatorErrors": of_operator, "RollwayOperatorAPIErrors": of_operator},
        Phase.SEEN,
        refused,
        refusable,
        ends_within=600,
    ),
    Provocation(
        "a second operator with the labels of the first has a Lease of its own",
        {"RollwayOperatorTwoLeaders": of_operator},
        Phase.SEEN,
        led_twice,
    ),
    Provocation(
        f"the definition of ModelRegistries is not served for a moment, {BREAKS} times",
        {"RollwayOperatorWatchBreaking": of_operator},
        Phase.SEEN,
        broken_watch,
        ends_within=1200,
    ),
    Provocation(
        "the operator's Role lets it read its Lease only",
        {"RollwayOperatorNoLeader": of_operator, "RollwayOperatorNotReconciling": of_operator},
        Phase.LEADERLESS,
        without_a_lease,
    ),
    Provocation(
        "the operator is scaled to nothing",
        {"RollwayOperatorTargetMissing": of_operator},
        Phase.GONE,
        gone,
    ),
    Provocation(
        "MLflow is given an image that cannot be pulled",
        {"MLflowDown": of_mlflow},
        Phase.GONE,
        without_mlflow,
    ),
)
