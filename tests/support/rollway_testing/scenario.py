"""Given, when, then: what users and accidents do to models on a real cluster, and what must come of it.

    def test_an_alias_move_fails_no_request(given, when, then):
        given.a_model(versions=2)
        given.a_deployment(alias="champion")
        with when.traffic_flows():
            when.the_alias_moves_to("2")
            then.it_serves("2")
        then.no_request_failed(answered_by={"1", "2"})

One model and one ModelDeployment, both called ``prices``, are meant where no other name is given.
"""

import contextlib
import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from rollway_cluster import jobs, judge
from rollway_cluster.client import Client, diagnose
from rollway_cluster.cluster import Cluster
from rollway_cluster.install import MODELS_SECRET, Installation, model_namespace
from rollway_cluster.prometheus import Monitoring
from rollway_cluster.traefik import Gateway
from rollway_testing import faulty_registry, models
from rollway_testing.kubernetes import ApiError, Kubernetes, Object
from rollway_testing.models import Answers, Artifact
from rollway_testing.operator import Operator
from rollway_testing.registry import Registry, Source
from rollway_testing.waiting import eventually, throughout
from rollway_training.samples import held_out_rows

DEFAULT: Final = "prices"
RATE: Final = 20.0
_POLL: Final = "2s"

_SECONDS_TO_SERVE: Final = 180.0
_SECONDS_TO_ROUTE: Final = 10.0
_SECONDS_TO_SAY: Final = 60.0
_SECONDS_TO_HEAL: Final = 30.0
_SECONDS_TO_DRAIN: Final = 60.0
_CHILDREN: Final = (
    *(
        "ControllerRevision",
        "ConfigMap",
        "Deployment",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PodMonitor",
        "Pod",
    ),
)

Maker = Callable[[Path], Artifact]


@dataclass(frozen=True)
class World:
    """What every scenario of a session shares."""

    cluster: Cluster
    client: Client
    kubernetes: Kubernetes
    installation: Installation
    registry: Registry
    operator: Operator


@dataclass
class Scenario:
    """A namespace, what was registered for it, and what its traffic was answered."""

    world: World
    namespace: str
    folder: Path
    answers: dict[str, dict[str, Answers]] = field(default_factory=dict)
    """For each model, what each version says to the held-out rows."""
    model_of: dict[str, str] = field(default_factory=dict)
    """The model that each ModelDeployment serves."""
    tally: judge.Tally | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator["Scenario"]:
        """Have the namespace for as long as the scenario lasts; its end is not waited for."""
        kubernetes = self.world.kubernetes
        model_namespace(self.world.client, self.namespace, self.world.installation)
        try:
            yield self
        finally:
            kubernetes.delete("ModelRegistry", self.namespace)
            kubernetes.delete("Namespace", self.namespace)

    @property
    def given(self) -> "Given":
        """What holds before."""
        return Given(self)

    @property
    def when(self) -> "When":
        """What happens."""
        return When(self)

    @property
    def then(self) -> "Then":
        """What must come of it."""
        return Then(self)

    def registered(self, model: str) -> str:
        """The name under which a model of this scenario is in MLflow, where scenarios share one space."""
        return f"{self.namespace}.{model}"

    def deployment(self, name: str) -> Object:
        """Read a ModelDeployment."""
        found = self.world.kubernetes.get("ModelDeployment", name, self.namespace)
        assert found is not None, f"ModelDeployment {name} is gone"
        return found

    def status(self, name: str) -> Object:
        """Read its status; empty as long as it does not speak of the present spec."""
        found = self.deployment(name)
        status: Object = found.get("status", {})
        return status if status.get("observedGeneration") == found["metadata"]["generation"] else {}

    def children(self, kind: str, name: str = DEFAULT) -> list[Object]:
        """Read what belongs to a ModelDeployment."""
        return self.world.kubernetes.list(kind, self.namespace, {"rollway.dev/model-deployment": name})

    def events(self, name: str = DEFAULT) -> list[Object]:
        """Read the Events about a ModelDeployment."""
        found = self.world.kubernetes.list("Event", self.namespace)
        return [event for event in found if event["involvedObject"].get("name") == name]

    def report(self) -> str:
        """Say all that helps to understand a failure."""
        lines = []
        for found in self.world.kubernetes.list("ModelDeployment", self.namespace):
            name = found["metadata"]["name"]
            lines.append(f"ModelDeployment {name}: {json.dumps(found.get('status'), indent=1)}")
            lines += [f"  event {event['reason']}: {event.get('message')}" for event in self.events(name)]
        for pod in self.world.kubernetes.list("Pod", self.namespace):
            status = pod["status"]
            states = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
            lines.append(f"pod {pod['metadata']['name']}: {status.get('phase')}")
            lines += [
                f"  {state['name']}: ready {state['ready']}, restarts {state['restartCount']}, "
                f"{json.dumps(state['state'])}, before: {json.dumps(state.get('lastState'))}"
                for state in states
            ]
        lines += [diagnose(self.world.client, self.namespace), "operator:", self.world.operator.log()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Answer:
    """What one request came back with."""

    status: int
    version: str | None
    revision: str | None
    outputs: tuple[float, ...]


@dataclass(frozen=True)
class Given:
    """What holds before anything happens."""

    scenario: Scenario

    def a_model(self, name: str = DEFAULT, *, versions: int = 1, source: Source = "s3") -> None:
        """Register good versions 1, 2, …; the alias ``champion`` names the first."""
        for number in range(1, versions + 1):
            self.a_version(functools.partial(models.regressor, number=number), model=name, source=source)
        self.scenario.world.registry.move_alias(self.scenario.registered(name), "champion", "1")

    def a_version(self, make: Maker, *, model: str = DEFAULT, source: Source = "s3") -> str:
        """Register one more version of a model, as a maker makes it, and return it."""
        known = self.scenario.answers.setdefault(model, {})
        artifact = make(self.scenario.folder / f"{model}-{len(known) + 1}")
        version = self.scenario.world.registry.register(self.scenario.registered(model), artifact, source)
        known[version] = artifact.answers
        return version

    def a_deployment(
        self,
        name: str = DEFAULT,
        *,
        model: str | None = None,
        alias: str | None = "champion",
        version: str | None = None,
        registry: str | None = None,
        serving: str | None = "1",
        update_policy: str | None = None,
        **spec: Any,
    ) -> None:
        """Create a ModelDeployment with more fields of its spec, and wait until it serves, if it shall."""
        self.scenario.model_of[name] = model or name
        # What is meant where no strategy is named: the new version takes over once it has passed its gates.
        spec = {"strategy": {"rollingUpdate": {}}} | spec
        chosen = {
            "name": self.scenario.registered(model or name),
            "alias": None if version else alias,
            "version": version,
            "registryRef": {"name": registry} if registry else None,
            "updatePolicy": update_policy,
        }
        self.scenario.world.kubernetes.create(
            {
                "apiVersion": "rollway.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": {"name": name, "namespace": self.scenario.namespace},
                "spec": {"model": {key: value for key, value in chosen.items() if value}} | spec,
            }
        )
        if serving:
            self.scenario.then.it_serves(serving, name, replicas=spec.get("predictor", {}).get("replicas", 1))

    def a_registry_that_may_fail(self) -> str:
        """Run a tracking server that can be told to misbehave, and a ModelRegistry of that address; return its name."""
        world, namespace = self.scenario.world, self.scenario.namespace
        address = self._a_server_that_may_fail("registry", world.installation.tracking_uri)
        world.client.apply(
            {
                "apiVersion": "rollway.dev/v1alpha1",
                "kind": "ModelRegistry",
                "metadata": {"name": namespace},
                "spec": {
                    "mlflow": {"trackingURI": address, "pollInterval": _POLL},
                    "artifacts": [
                        {
                            "prefix": "s3://models/",
                            "endpoint": world.installation.s3_endpoint,
                            "credentialsSecretName": MODELS_SECRET,
                        }
                    ],
                },
            }
        )
        return namespace

    def a_prometheus_that_may_fail(self, monitoring: Monitoring) -> str:
        """Run what stands before a Prometheus and can be told to misbehave; return its address."""
        return self._a_server_that_may_fail("prometheus", monitoring.url)

    def _a_server_that_may_fail(self, name: str, upstream: str) -> str:
        world, namespace = self.scenario.world, self.scenario.namespace
        script = Path(faulty_registry.__file__)
        command = ["python", f"/scripts/{script.name}", upstream]
        spec = jobs.pod(world.installation.images["training"], command, {})
        container = spec["containers"][0]
        container["volumeMounts"].append({"name": "scripts", "mountPath": "/scripts"})
        container["readinessProbe"] = {
            "httpGet": {"path": "/fault", "port": faulty_registry.PORT},
            "periodSeconds": 1,
        }
        spec["volumes"].append({"name": "scripts", "configMap": {"name": name}})
        metadata = {"name": name, "namespace": namespace}
        labels = {"app": name}
        world.client.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata,
                "data": {script.name: script.read_text()},
            },
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata | {"labels": labels}, "spec": spec},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"selector": labels, "ports": [{"name": "http", "port": faulty_registry.PORT}]},
            },
        )
        eventually(
            lambda: self.scenario.when.faults_shown(name),
            lambda shown: shown is not None,
            within=60,
            what=f"{name} answers",
        )
        return f"http://{name}.{namespace}.svc:{faulty_registry.PORT}"


@dataclass(frozen=True)
class When:
    """What happens."""

    scenario: Scenario

    def the_alias_moves_to(self, version: str, model: str = DEFAULT) -> None:
        """Somebody points ``champion`` at another version."""
        self.scenario.world.registry.move_alias(self.scenario.registered(model), "champion", version)

    def the_alias_is_deleted(self, model: str = DEFAULT) -> None:
        """Somebody takes ``champion`` away."""
        self.scenario.world.registry.delete_alias(self.scenario.registered(model), "champion")

    def the_version_is_deleted(self, version: str, model: str = DEFAULT) -> None:
        """Somebody takes a version away."""
        self.scenario.world.registry.delete_version(self.scenario.registered(model), version)

    def a_byte_is_flipped(self, version: str, model: str = DEFAULT) -> None:
        """Something spoils a stored file of a version."""
        self.scenario.world.registry.flip_a_byte(self.scenario.registered(model), version)

    def it_is_scaled_to(self, replicas: int, name: str = DEFAULT) -> None:
        """Somebody uses `kubectl scale`."""
        self.scenario.world.kubernetes.scale("ModelDeployment", name, self.scenario.namespace, replicas)

    def the_spec_changes(self, changes: Object, name: str = DEFAULT) -> None:
        """Somebody edits the ModelDeployment."""
        self.scenario.world.kubernetes.patch(
            "ModelDeployment", name, self.scenario.namespace, {"spec": changes}
        )

    def somebody_says(self, verb: str, value: str, name: str = DEFAULT) -> None:
        """Somebody annotates the ModelDeployment with a verb; the value names a revision."""
        annotation = {"metadata": {"annotations": {f"rollway.dev/{verb}": value}}}
        self.scenario.world.kubernetes.patch("ModelDeployment", name, self.scenario.namespace, annotation)

    def the_status_is(self, status: Object | None, name: str = DEFAULT) -> None:
        """Somebody wipes the status (None), or forges it by a merge patch."""
        namespace = self.scenario.namespace
        self.scenario.world.kubernetes.set_status("ModelDeployment", name, namespace, status)

    def it_is_deleted(self, name: str = DEFAULT) -> None:
        """Somebody deletes the ModelDeployment."""
        self.scenario.world.kubernetes.delete("ModelDeployment", name, self.scenario.namespace)

    def a_child_is_edited(self, kind: str, name: str, changes: Object) -> None:
        """Somebody else edits what the operator has made."""
        self.scenario.world.kubernetes.patch(kind, name, self.scenario.namespace, changes)

    def a_child_is_deleted(self, kind: str, name: str) -> None:
        """Somebody else deletes what the operator has made, and it is gone."""
        kubernetes, namespace = self.scenario.world.kubernetes, self.scenario.namespace
        uid = (kubernetes.get(kind, name, namespace) or {})["metadata"]["uid"]
        kubernetes.delete(kind, name, namespace)
        eventually(
            lambda: kubernetes.get(kind, name, namespace),
            lambda found: found is None or found["metadata"]["uid"] != uid,
            within=_SECONDS_TO_HEAL,
            what=f"{kind} {name} is deleted",
        )

    def the_operator_is_killed(self) -> None:
        """The operator ends without a chance to say anything."""
        self.scenario.world.operator.kill()

    @contextlib.contextmanager
    def stopped(self, server: Literal["mlflow", "s3"]) -> Iterator[None]:
        """MLflow or the S3 store is not there for a while."""
        with self.scenario.world.registry.stopped(server):
            yield

    def the_registry_is(self, fault: str) -> None:
        """The tracking server that may fail does so in this way, or no more (``none``)."""
        self._turn("registry", fault)

    def prometheus_is(self, fault: str) -> None:
        """The Prometheus that may fail does so in this way, or no more (``none``)."""
        self._turn("prometheus", fault)

    def faults_shown(self, server: str = "registry") -> dict[str, int] | None:
        """How often each fault was shown, if the server that may fail runs."""
        shown: dict[str, int] | None = self._ask_for_faults(server, "GET")
        return shown

    def _turn(self, server: str, fault: str) -> None:
        answer = self._ask_for_faults(server, "PUT", fault)
        assert answer is not None, f"there is no fault {fault}"

    def _ask_for_faults(self, server: str, method: str, body: object = None) -> Any:
        kubernetes, namespace = self.scenario.world.kubernetes, self.scenario.namespace
        answer = kubernetes.through_service(server, namespace, "http", method, "/fault", body)
        return answer.json() if answer.is_success else None

    @contextlib.contextmanager
    def traffic_flows(
        self, name: str = DEFAULT, *, rate: float = RATE, gateway: Gateway | None = None, timeout: float = 10
    ) -> Iterator[jobs.Traffic]:
        """Requests come in at a constant rate, over REST and gRPC, on kept-alive and fresh connections."""
        scenario = self.scenario
        traffic = self.traffic(name, rate=rate, gateway=gateway, timeout=timeout)
        try:
            traffic.start()
            yield traffic
            scenario.tally = self.judged(traffic, name)
        finally:
            traffic.remove()

    def traffic(
        self, name: str = DEFAULT, *, rate: float = RATE, gateway: Gateway | None = None, timeout: float = 10
    ) -> jobs.Traffic:
        """Give such traffic, not started: to the model's Service, or through a Gateway."""
        scenario, namespace = self.scenario, self.scenario.namespace
        host = f"{name}.{namespace}.svc"
        address = ["--http", f"http://{host}:8080", "--grpc", f"{host}:8081"]
        if gateway:
            address = ["--http", f"{gateway.url}/seldon/{namespace}/{name}", "--grpc", gateway.grpc_target]
            address += ["--route", f"{namespace}/{name}"]
        command = ["python", "-m", "rollway_training.client", "load", "--rate", f"{rate:g}", "--model", name]
        command += [*address, "--sample", models.SAMPLE, "--timeout", f"{timeout:g}"]
        spec = jobs.pod(scenario.world.installation.images["training"], command, {})
        return jobs.Traffic(scenario.world.client, namespace, f"{name}-traffic", spec)

    def judged(self, traffic: jobs.Traffic, name: str = DEFAULT) -> judge.Tally:
        """End some traffic, and judge every answer."""
        answers = traffic.stop()
        numbers = sorted(answer["number"] for answer in answers)
        assert numbers == list(range(len(numbers))), "the load client lost answers"
        return judge.tally(answers, self.scenario.answers[self.scenario.model_of[name]])


@dataclass(frozen=True)
class Then:
    """What must come of it."""

    scenario: Scenario

    def it_serves(
        self,
        version: str,
        name: str = DEFAULT,
        *,
        replicas: int | None = None,
        within: float = _SECONDS_TO_SERVE,
    ) -> None:
        """The version becomes stable, ready and settled; and it answers as it must."""
        self.it_settles_on(version, name, replicas=replicas, within=within)
        revision = self.scenario.deployment(name)["status"]["stable"]["revision"]
        # The status comes first, then the Service, then what routes by it.
        eventually(
            lambda: self._ask(name),
            lambda answer: answer.revision == revision,
            within=_SECONDS_TO_ROUTE,
            what=f"requests reach {revision}, of v{version}",
        )
        self.it_answers_as(version, name)

    def it_settles_on(
        self,
        version: str,
        name: str = DEFAULT,
        *,
        replicas: int | None = None,
        within: float = _SECONDS_TO_SERVE,
    ) -> None:
        """The version becomes stable and ready, and nothing is under way any more."""

        def settled(status: Object) -> bool:
            stable = status.get("stable", {})
            return (
                stable.get("version") == version
                and _condition(status, "Ready").get("status") == "True"
                and not _condition(status, "Reconciling")
                and "canary" not in status
                and replicas in (None, stable.get("readyReplicas"))
            )

        eventually(
            lambda: self.scenario.status(name),
            settled,
            within=within,
            what=f"{name} serves v{version} with {replicas or 'all'} replicas",
            told=lambda status: json.dumps(status, indent=1),
        )

    def it_answers_as(self, version: str, name: str = DEFAULT) -> None:
        """One request is answered by this version, which is named in status, body and headers."""
        stable = self.scenario.deployment(name)["status"]["stable"]
        assert stable["version"] == version, f"{name} has v{stable['version']} as stable"
        answer = self._ask(name)
        assert answer.status == 200, answer
        assert (answer.version, answer.revision) == (version, stable["revision"])
        expected = self.scenario.answers[self.scenario.model_of[name]][version][0]
        close = [math.isclose(*pair, rel_tol=1e-9) for pair in zip(answer.outputs, expected, strict=True)]
        assert close, "an answer without numbers"
        assert all(close), f"v{version} gives {expected}, the answer says {answer.outputs}"

    def it_goes_on_serving(self, version: str, name: str = DEFAULT, *, seconds: float = 0.0) -> None:
        """Nothing has changed for users: Ready, and every answer for some seconds is this version's."""
        assert _condition(self.scenario.deployment(name)["status"], "Ready")["status"] == "True"
        self.it_answers_as(version, name)
        throughout(
            lambda: self._ask(name),
            lambda answer: (answer.status, answer.version) == (200, version),
            seconds=seconds,
            what=f"v{version} answers",
        )

    def it_says(
        self,
        type_: str,
        status: bool,
        reason: str,
        sentence: str = "",
        name: str = DEFAULT,
        *,
        within: float = _SECONDS_TO_SAY,
    ) -> str:
        """A condition comes to say this, in one sentence that holds the pattern; return the sentence."""

        def said(found: Object) -> bool:
            condition = _condition(found, type_)
            told = (condition.get("status"), condition.get("reason")) == (str(status), reason)
            return told and re.search(sentence, condition["message"]) is not None

        found = eventually(
            lambda: self.scenario.status(name),
            said,
            within=within,
            what=f"{name} says {type_}={status} {reason}, with {sentence!r}",
            told=lambda status: json.dumps(status, indent=1),
        )
        message = str(_condition(found, type_)["message"])
        assert not re.search(r"\n|Traceback", message), f"{type_}: {message!r} is not one sentence"
        return message

    def it_is(self, phase: str, name: str = DEFAULT) -> None:
        """The status sums itself up so."""
        eventually(
            lambda: self.scenario.status(name).get("phase"),
            lambda found: found == phase,
            within=_SECONDS_TO_SAY,
            what=f"{name} is {phase}",
        )

    def the_target_is(self, version: str, name: str = DEFAULT) -> None:
        """The operator has seen where the registry points now."""
        eventually(
            lambda: self.scenario.status(name).get("model", {}).get("targetVersion"),
            lambda found: found == version,
            within=_SECONDS_TO_SAY,
            what=f"{name} has v{version} as its target",
        )

    def an_event_says(self, reason: str, sentence: str = "", name: str = DEFAULT) -> None:
        """An Event with this reason is there, or comes at once."""
        found = eventually(
            lambda: [event for event in self.scenario.events(name) if event["reason"] == reason],
            within=10,
            what=f"an Event {reason} about {name}",
        )
        messages = [str(event.get("message")) for event in found]
        assert any(re.search(sentence, message) for message in messages), f"{reason}: {messages}"

    def a_candidate_starts(self, name: str = DEFAULT) -> None:
        """A roll-out is under way."""
        eventually(
            lambda: self.scenario.status(name).get("canary"),
            within=_SECONDS_TO_SAY,
            what=f"{name} has a candidate",
        )

    def it_has_pods(self, count: int, name: str = DEFAULT) -> None:
        """So many pods are left, those counted that are still finishing."""
        eventually(
            lambda: self.scenario.children("Pod", name),
            lambda pods: len(pods) == count,
            within=_SECONDS_TO_DRAIN,
            what=f"{name} has {count} pods",
            told=lambda pods: [pod["metadata"]["name"] for pod in pods],
        )

    def it_has_ready_replicas(self, count: int, name: str = DEFAULT) -> None:
        """Stable has exactly so many ready pods now."""
        assert self.scenario.status(name)["stable"]["readyReplicas"] == count

    def revisions_never_overlap_until(self, version: str, name: str = DEFAULT) -> None:
        """Pods of one revision only, however often one looks, until the version is stable."""

        def look() -> str:
            pods = self.scenario.children("Pod", name)
            # A pod that has ended is listed for a moment longer; its memory and devices are free already.
            holding = (pod for pod in pods if pod["status"]["phase"] not in {"Succeeded", "Failed"})
            revisions = {pod["metadata"]["labels"]["rollway.dev/revision"] for pod in holding}
            assert len(revisions) < 2, f"pods of {revisions} at once"
            return str(self.scenario.deployment(name)["status"]["stable"]["version"])

        eventually(look, lambda seen: seen == version, within=_SECONDS_TO_SERVE, what=f"v{version} is stable")

    def revisions(self, name: str = DEFAULT) -> dict[str, Object]:
        """The revisions that are stored, by name."""
        return {
            revision["metadata"]["name"]: revision
            for revision in self.scenario.children("ControllerRevision", name)
        }

    def only_stable_has_pods(self, name: str = DEFAULT) -> None:
        """The pods of every other revision have finished and gone."""
        revision = self.scenario.deployment(name)["status"]["stable"]["revision"]
        eventually(
            lambda: self.scenario.children("Pod", name),
            lambda pods: all(pod["metadata"]["labels"]["rollway.dev/revision"] == revision for pod in pods),
            within=_SECONDS_TO_DRAIN,
            what=f"only {revision} has pods",
            told=lambda pods: [pod["metadata"]["name"] for pod in pods],
        )

    def only_stable_gets_traffic(self, name: str = DEFAULT) -> None:
        """The Service points at stable's revision and at no other."""
        revision = self.scenario.deployment(name)["status"]["stable"]["revision"]
        service = self.scenario.world.kubernetes.get("Service", name, self.scenario.namespace)
        assert service is not None
        assert service["spec"]["selector"]["rollway.dev/revision"] == revision

    def nothing_gets_traffic(self, name: str = DEFAULT) -> None:
        """No version was ever promoted: the Service does not exist."""
        assert self.scenario.world.kubernetes.get("Service", name, self.scenario.namespace) is None

    def no_request_failed(self, *, answered_by: Set[str]) -> None:
        """Every request of the traffic was answered in time, and rightly, by these versions."""
        tally = self._tally()
        assert not tally.failures, f"{len(tally.failures)} of {tally.sent} failed:\n" + "\n".join(
            tally.failures[:20]
        )
        assert tally.by_version.keys() == answered_by
        assert tally.sent >= 0.9 * RATE * len(tally.seconds) - RATE, f"{tally.sent} in {len(tally.seconds)} s"

    def requests_failed(self) -> None:
        """The traffic lost requests, and some were answered."""
        tally = self._tally()
        assert 0 < len(tally.failures) < tally.sent, tally

    def pods(self, name: str = DEFAULT) -> dict[str, int]:
        """Each pod by its uid, with the restarts of its containers: equal only where nothing was touched."""
        return {
            pod["metadata"]["uid"]: sum(
                container["restartCount"]
                for key in ("initContainerStatuses", "containerStatuses")
                for container in pod["status"].get(key, [])
            )
            for pod in self.scenario.children("Pod", name)
        }

    def it_is_restored(self, kind: str, name: str, holds: Callable[[Object], bool] = bool) -> None:
        """A child that somebody spoiled is as it was, soon."""
        eventually(
            lambda: self.scenario.world.kubernetes.get(kind, name, self.scenario.namespace),
            lambda found: found is not None and "deletionTimestamp" not in found["metadata"] and holds(found),
            within=_SECONDS_TO_HEAL,
            what=f"{kind} {name} is restored",
        )

    def nothing_is_left(self, name: str = DEFAULT) -> None:
        """The ModelDeployment and all that it had are gone."""
        eventually(
            lambda: (
                [
                    f"{kind} {found['metadata']['name']}"
                    for kind in _CHILDREN
                    for found in self.scenario.children(kind, name)
                ]
                + (
                    [name]
                    if self.scenario.world.kubernetes.get("ModelDeployment", name, self.scenario.namespace)
                    else []
                )
            ),
            lambda left: not left,
            within=_SECONDS_TO_DRAIN,
            what="nothing is left",
        )

    def the_api_refuses(self, sentence: str, spec: Object, name: str = DEFAULT) -> None:
        """The API server takes no ModelDeployment of this spec, and says why."""
        manifest = {
            "apiVersion": "rollway.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": self.scenario.namespace},
            "spec": spec,
        }
        _refused(lambda: self.scenario.world.kubernetes.create(manifest), sentence)

    def a_change_is_refused(self, sentence: str, changes: Object, name: str = DEFAULT) -> None:
        """The API server takes no such edit of the spec, and says why."""
        _refused(lambda: self.scenario.when.the_spec_changes(changes, name), sentence)

    def _tally(self) -> judge.Tally:
        assert self.scenario.tally is not None, "no traffic has flowed"
        return self.scenario.tally

    def _ask(self, name: str) -> Answer:
        row = held_out_rows(models.SAMPLE).iloc[[0]]
        inputs = [
            {"name": str(column), "datatype": "FP64", "shape": [1], "data": values.tolist()}
            for column, values in row.items()
        ]
        answer = self.scenario.world.kubernetes.through_service(
            name, self.scenario.namespace, "http", "POST", f"/v2/models/{name}/infer", {"inputs": inputs}
        )
        outputs = answer.json()["outputs"] if answer.is_success else []
        return Answer(
            answer.status_code,
            answer.headers.get("x-model-version"),
            answer.headers.get("x-model-revision"),
            tuple(float(value) for output in outputs for value in output["data"]),
        )


def _refused(attempt: Callable[[], object], sentence: str) -> None:
    try:
        attempt()
    except ApiError as error:
        said = str(error)
    else:
        raise AssertionError("the API server took it")
    assert re.search(sentence, said, re.DOTALL), f"the API server says: {said}"


def _condition(status: Object, type_: str) -> Object:
    found: list[Object] = status.get("conditions", [])
    return next((condition for condition in found if condition["type"] == type_), {})
