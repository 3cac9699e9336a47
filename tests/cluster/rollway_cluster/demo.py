"""``demo`` and ``demo-down``: from training a model to canaries under traffic, on the cluster that is there."""

import argparse
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rollway_cluster import jobs
from rollway_cluster.client import Client, Object
from rollway_cluster.cluster import Cluster, select
from rollway_cluster.errors import ClusterError
from rollway_cluster.images import REPOSITORY
from rollway_cluster.install import (
    MLFLOW_NAMESPACE,
    MODELS_BUCKET,
    MODELS_SECRET,
    OPERATOR,
    SYSTEM_NAMESPACE,
    Installation,
    client_of,
    install,
    install_gateway,
    install_monitoring,
    load_images,
    model_namespace,
    uninstall,
)
from rollway_cluster.judge import Expected, Tally, tally, wrong
from rollway_cluster.prometheus import LABELS, Monitoring
from rollway_cluster.reference import expected, move_alias, newest_version, prepare
from rollway_cluster.report import Report, table
from rollway_cluster.traefik import Gateway

NAMESPACE = "rollway-demo"
EXAMPLE = "examples/01-smallest.yaml"
NAME = MODEL = SAMPLE = "breast-cancer"
ALIAS = "champion"
REQUESTS_A_SECOND = 40
QUICK_CANARY = {
    "strategy": {
        "canary": {
            "steps": [
                {"setWeight": 10},
                {"pause": {"duration": "10s"}},
                {"setWeight": 50},
                {"pause": {"duration": "10s"}},
            ]
        }
    },
    "analysis": {
        "metrics": [
            {"name": "error-rate", "thresholdRange": {"max": "0.02"}, "minSamples": 20},
            {"name": "latency-p99", "thresholdRange": {"max": "3"}, "minSamples": 20},
        ]
    },
}
"""The default canary with shorter pauses, and room for the latencies of a machine that does everything at once."""

SPOILT = {
    "slow": "takes a second for each prediction",
    "erring": "fails every third prediction",
    "nan": "answers NaN, to its own example, too",
}
"""Versions that work where they were trained and not where they serve."""

_STARTED_THE_CLUSTER = "rollway.dev/demo-started-the-cluster"
_SECONDS_TO_SERVE = 300.0
_SECONDS_OF_TRAFFIC_BEFORE = 3
_SECONDS_OF_TRAFFIC_AFTER = 5


def up(_: argparse.Namespace) -> None:
    """Run the demo; what goes wrong ends with what to look at."""
    report = Report.for_terminal(os.environ)
    cluster = select()
    try:
        with _alone(cluster):
            _run(cluster, report)
    except ClusterError as error:
        report.finish()
        raise ClusterError(f"{error}\n\n{_where_to_look(cluster)}") from error
    report.finish()
    client = client_of(cluster)
    report.show(
        [
            "It still runs. Look at it, run `make demo` again for the next two versions, or `make demo-down`:",
            f"export KUBECONFIG={client.kubeconfig}",
            f"kubectl --context={client.context} get mdep --namespace={NAMESPACE} --output=wide",
        ]
    )


def down(_: argparse.Namespace) -> None:
    """Remove what the demo made, with the cluster if the demo started it."""
    report = Report.for_terminal(os.environ)
    cluster = select()
    client = client_of(cluster)
    if not _answers(client):
        report.say(
            f"{cluster.context} does not answer: nothing is left in it (`make cluster-down` removes its rests)"
        )
        return
    namespace = client.get("namespace", NAMESPACE) or {}
    if namespace.get("metadata", {}).get("annotations", {}).get(_STARTED_THE_CLUSTER):
        with report.step(f"the cluster {cluster.context}, which the demo started"):
            cluster.down()
        return
    with report.step(f"what the demo made in {cluster.context}"):
        uninstall(client, NAMESPACE, say=report.say)


@dataclass(frozen=True)
class _Stage:
    """What every step after the installation works with."""

    client: Client
    installation: Installation
    gateway: Gateway
    monitoring: Monitoring
    report: Report

    def run(self, name: str, pod: Object) -> list[jobs.Line]:
        """Run a pod as a Job to its end."""
        return jobs.run(self.client, NAMESPACE, name, pod, say=self.report.say)

    def pod(self, module: str, *arguments: str) -> Object:
        """The pod of one of the training image's programs, with what opens MLflow and the store."""
        environment = {
            "MLFLOW_TRACKING_URI": self.installation.tracking_uri,
            "MLFLOW_LOGGING_LEVEL": "ERROR",
            "MLFLOW_S3_ENDPOINT_URL": self.installation.s3_endpoint,
            "AWS_DEFAULT_REGION": self.installation.region,
            "AWS_ACCESS_KEY_ID": jobs.from_secret(MODELS_SECRET, "accessKeyId"),
            "AWS_SECRET_ACCESS_KEY": jobs.from_secret(MODELS_SECRET, "secretAccessKey"),
        }
        command = ("python", "-m", module, *arguments)
        return jobs.pod(self.installation.images["training"], command, environment)

    def client_pod(self, verb: str, served: Object, *arguments: str) -> Object:
        """The pod of a client that asks the model that is served, through the Gateway."""
        served_at = ("--http", served["status"]["url"], "--grpc", self.gateway.grpc_target)
        address = (*served_at, "--route", f"{NAMESPACE}/{NAME}")
        named = ("--model", NAME, "--sample", SAMPLE)
        return self.pod("rollway_training.client", verb, *address, *named, *arguments)


@contextmanager
def _alone(cluster: Cluster) -> Iterator[None]:
    cluster.state.mkdir(parents=True, exist_ok=True)
    with (cluster.state / "demo.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"another demo runs on {cluster.context}: wait for its end") from None
        yield


def _run(cluster: Cluster, report: Report) -> None:
    prepare()
    stage = _prepare(cluster, report)
    with report.step("ask the registry from this process") as step:
        newest = newest_version(stage.client, stage.installation, MODEL)
        first, second = str(newest + 1), str(newest + 2)
        step.result = f"{MODEL} has {newest} versions; {first} and {second} follow"
    if stage.client.get("mdep", NAME, NAMESPACE):
        _start_anew(stage)
    _train(stage, first)
    _promote(stage, first, f"promote version {first} to {ALIAS}")
    served = _deploy(stage, first)
    _predict(stage, served, first)

    _train(stage, second)
    with report.step("load both versions in this process") as step:
        right = expected(stage.client, stage.installation, MODEL, (first, second), SAMPLE)
        others = sum(a != b for a, b in zip(right[first], right[second], strict=True))
        step.result = f"their answers differ in {others} of {len(right[first])} rows"
    _canaries_under_traffic(stage, served, first, second, right)
    with report.step("ask Prometheus what it scraped meanwhile") as step:
        step.result = scraped(stage.monitoring.query("up"))
    report.show(stage.client.run("get", "mdep", f"--namespace={NAMESPACE}", "--output=wide").splitlines())


def _prepare(cluster: Cluster, report: Report) -> _Stage:
    with report.step(f"cluster {cluster.context}") as step:
        there = _answers(client_of(cluster))
        cluster.up()
        step.result = "runs already" if there else "started"
    client = client_of(cluster)
    with report.step("images") as step:
        images = load_images(cluster, say=report.say)
        step.result = f"{', '.join(images)}: in the cluster, named by digest"
    with report.step("install Traefik with the Gateway API") as step:
        gateway = install_gateway(cluster, say=report.say)
        step.result = f"Gateways {gateway.http} and {gateway.grpc} in namespace {gateway.namespace}"
    with report.step("install Prometheus with its operator") as step:
        monitoring = install_monitoring(cluster, say=report.say)
        (label,) = (f"{key}: {value}" for key, value in LABELS.items())
        step.result = f"scrapes what has a monitor labelled {label}; namespace {monitoring.namespace}"
    with report.step("install MLflow, S3 and Rollway by their charts") as step:
        installation = install(client, images, gateway=gateway, monitoring=monitoring, say=report.say)
        model_namespace(client, NAMESPACE, installation)
        if not there:
            client.run("annotate", "namespace", NAMESPACE, f"{_STARTED_THE_CLUSTER}=true", "--overwrite")
        step.result = f"namespaces {MLFLOW_NAMESPACE}, {SYSTEM_NAMESPACE}, {NAMESPACE}; ModelRegistry default"
    return _Stage(client, installation, gateway, monitoring, report)


def _start_anew(stage: _Stage) -> None:
    """Remove what an earlier demo left to follow the alias: its canary would wait for traffic that is not there yet."""
    with stage.report.step("remove the ModelDeployment of an earlier demo") as step:
        stage.client.run(
            *("delete", "mdep", NAME, f"--namespace={NAMESPACE}", "--cascade=foreground", "--timeout=120s")
        )
        step.result = "and with it its pods"


def _train(stage: _Stage, version: str) -> None:
    with stage.report.step(f"train and register version {version} as a pod") as step:
        pod = stage.pod(
            *("rollway_training", "train", "--sample", SAMPLE, "--predict-fn", "predict_proba"),
            *("--regularization", f"{regularization(int(version)):.6g}"),
            *("--experiment", MODEL, "--artifact-location", f"s3://{MODELS_BUCKET}/{MODEL}"),
            *("--register", MODEL),
        )
        lines = stage.run(f"train-{version}", pod)
        registered = next(line for line in lines if line.get("event") == "registered")
        if registered["version"] != version:
            raise ClusterError(
                f"version {registered['version']} of {MODEL} was registered where {version} was expected: "
                "does somebody else register versions now?"
            )
        step.result = f"{MODEL} version {version}, run {registered['run_id'][:8]}, artifacts under s3://{MODELS_BUCKET}/"


def _promote(stage: _Stage, version: str, title: str) -> None:
    with stage.report.step(title) as step:
        promote = ("promote", "--model", MODEL, "--version", version, "--alias", ALIAS)
        try:
            lines = stage.run(f"promote-{version}", stage.pod("rollway_training", *promote))
        except jobs.JobFailedError as error:
            for line in error.lines:
                if line.get("event") == "refused":
                    raise ClusterError(f"version {version} was not promoted: {line['reason']}") from error
            raise
        verdict = next(line for line in lines if line.get("event") == "promoted")
        step.result = f"{ALIAS} names version {version}: {verdict['metric']} {verdict['value']:.4f}"


def _deploy(stage: _Stage, version: str) -> Object:
    with stage.report.step(f"apply {EXAMPLE} and wait for Ready") as step:
        stage.client.run(
            *("apply", "--server-side", f"--namespace={NAMESPACE}", f"--filename={REPOSITORY / EXAMPLE}")
        )
        served = _await_served(stage, version)
        step.result = _stable(served)
    return served


def _predict(stage: _Stage, served: Object, version: str) -> None:
    with stage.report.step("predict over REST V2, gRPC V2 and /invocations from a pod") as step:
        lines = stage.run("predict", stage.client_pod("predict", served))
        right = expected(stage.client, stage.installation, MODEL, (version,), SAMPLE)
        step.result = judged(lines, right)


def _canaries_under_traffic(stage: _Stage, served: Object, first: str, second: str, right: Expected) -> None:
    report = stage.report
    with report.step("shorten the canary: 10 % and 50 % for 10 s each") as step:
        patch = ("patch", "mdep", NAME, f"--namespace={NAMESPACE}", "--type=merge")
        stage.client.run(*patch, f"--patch={json.dumps({'spec': QUICK_CANARY})}")
        step.result = "then all traffic, if no metric speaks against it"
    pod = stage.client_pod("load", served, "--rate", str(REQUESTS_A_SECOND))
    with report.step(
        f"constant traffic, {REQUESTS_A_SECOND} requests a second, kept-alive and fresh"
    ) as step:
        traffic = jobs.Traffic(stage.client, NAMESPACE, "traffic", pod)
        traffic.start()
        step.result = "REST and gRPC through the Gateway, each answer with the version that gave it"
    try:
        _await_answers(traffic, first, _SECONDS_OF_TRAFFIC_BEFORE)
        _promote(stage, second, f"move {ALIAS} to version {second} under that traffic")
        with report.step(f"version {second}: a canary, judged, promoted") as step:
            moved = _await_served(stage, second, traffic)
            _await_answers(traffic, second, _SECONDS_OF_TRAFFIC_AFTER)
            step.result = _stable(moved)
        spoilt = [_roll_back(stage, kind, str(int(second) + 1 + i), second) for i, kind in enumerate(SPOILT)]
        _mend(stage, second)
        with report.step("judge every answer by the models in this process") as step:
            told = expected(stage.client, stage.installation, MODEL, spoilt, SAMPLE)
            found = tally(traffic.stop(), {**right, **told})
            report.show(users_saw(found, stage.client.get("mdep", NAME, NAMESPACE) or {}))
            step.result = summary(found)
            if any(found.failed_by.get(version, 0) for version in (first, second)):
                raise ClusterError("\n".join(["a good version failed requests", *found.failures[:10]]))
    finally:
        traffic.remove()


def _roll_back(stage: _Stage, kind: str, version: str, serving: str) -> str:
    """Register a version that is bad in one way, and see it refused or rolled back by itself."""
    with stage.report.step(f"version {version} {SPOILT[kind]}: move {ALIAS} to it") as step:
        program = (Path(__file__).parent / "spoil.py").read_text()
        environment = stage.pod("rollway_training")["containers"][0]["env"]
        pod = jobs.pod(
            stage.installation.images["training"],
            ("python", "-c", program, kind, MODEL, SAMPLE, MODEL, ALIAS),
            {},
        )
        pod["containers"][0]["env"] = environment
        stage.run(f"spoil-{version}", pod)
        ended = _await(stage, lambda found: how_it_ended(found, version) is not None)
        entry = how_it_ended(ended, version) or {}
        if entry["outcome"] != "Aborted" or ended["status"]["stable"]["version"] != serving:
            raise ClusterError(f"version {version} ended as {entry}")
        stalled = next(c for c in ended["status"]["conditions"] if c["type"] == "Stalled")
        step.result = f"{stalled['reason']}: {stalled['message']}"
    return version


def _mend(stage: _Stage, serving: str) -> None:
    """Have the alias name what serves, as whoever was told of the bad version would."""
    with stage.report.step(f"move {ALIAS} back to version {serving}") as step:
        move_alias(stage.client, stage.installation, MODEL, ALIAS, serving)
        mended = _await(stage, lambda found: (found or {}).get("status", {}).get("phase") == "Healthy")
        step.result = f"Healthy: {_message(mended)}"


def scraped(answer: Sequence[Object]) -> str:
    """How many targets are up of those that there are, by namespace."""
    up = Counter(each["metric"]["namespace"] for each in answer if each["value"][1] == "1")
    there = Counter(each["metric"]["namespace"] for each in answer)
    counts = ", ".join(f"{namespace} {up[namespace]} of {there[namespace]}" for namespace in sorted(there))
    return f"targets that are up: {counts or 'none'}"


def how_it_ended(found: Object | None, version: str) -> Object | None:
    """The entry of a version in status.history, once nothing is on its way."""
    status = (found or {}).get("status", {})
    entries = [entry for entry in status.get("history", ()) if entry["version"] == version]
    return entries[-1] if entries and "canary" not in status else None


def users_saw(found: Tally, served: Object) -> list[str]:
    """Lines of a table: what each version answered to whom, and what became of it."""
    ends = {entry["version"]: entry for entry in served.get("status", {}).get("history", ())}
    right = _right(found)
    rows = []
    for version in sorted({*right, *found.failed_by, *ends} - {"nobody"}, key=int):
        first, last = found.spans.get(version, (0.0, 0.0))
        end = ends.get(version, {})
        failed = found.failed_by.get(version, 0)
        rows.append(
            (
                version,
                str(right.get(version, 0)),
                str(failed),
                f"{last - first:.1f}",
                f"{end.get('outcome', '')} {end.get('reason', '')}",
            )
        )
    return table(("version", "answered", "failed", "seconds with traffic", "outcome"), rows, right=(1, 2, 3))


def _await_served(stage: _Stage, version: str, traffic: jobs.Traffic | None = None) -> Object:
    def told(found: Object) -> str:
        message = _message(found)
        # Every two seconds is often enough to watch the traffic.
        sent = len(traffic.lines) // (2 * REQUESTS_A_SECOND) * 2 * REQUESTS_A_SECOND if traffic else 0
        return f"{message} ({sent} requests sent)" if traffic else message

    return _await(stage, lambda found: serves(found, version), told)


def _message(found: Object) -> str:
    return str(found.get("status", {}).get("message", ""))


def _await(
    stage: _Stage, holds: Callable[[Object | None], bool], told: Callable[[Object], str] = _message
) -> Object:
    """Wait until something holds of the ModelDeployment, and say meanwhile what it tells."""
    found = stage.client.wait(
        *("mdep", NAME, NAMESPACE), holds, seconds=_SECONDS_TO_SERVE, say=stage.report.say, told=told
    )
    assert found is not None
    return found


def _await_answers(traffic: jobs.Traffic, version: str, seconds: int) -> None:
    """Wait until so many seconds of traffic were all answered by one version."""
    wanted = seconds * REQUESTS_A_SECOND
    deadline = time.monotonic() + seconds + 60
    while True:
        last = traffic.lines[-wanted:]
        if len(last) == wanted and all(line["version"] == version for line in last):
            return
        if time.monotonic() > deadline:
            others = sorted({str(line["version"] or line["error"]) for line in last} - {version})
            raise ClusterError(
                f"the traffic is not answered by version {version} alone, but also by: {', '.join(others)}"
            )
        time.sleep(0.2)


def regularization(version: int) -> float:
    """Each version is regularised less than the one before, so that each is a little better and answers otherwise."""
    return 0.4 + 9.6 / version


def serves(found: Object | None, version: str) -> bool:
    """Whether a ModelDeployment is Ready with a version and nothing is under way; an error if it cannot become so."""
    status = (found or {}).get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    holds = {name for name, condition in conditions.items() if condition["status"] == "True"}
    if "Stalled" in holds and status.get("model", {}).get("targetVersion") == version:
        stalled = conditions["Stalled"]
        raise ClusterError(f"version {version} is stalled: {stalled['reason']}: {stalled['message']}")
    return (
        found is not None
        and status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("stable", {}).get("version") == version
        and "Ready" in holds
        and "Reconciling" not in holds
    )


def judged(answers: list[jobs.Line], right: Expected) -> str:
    """Say that every protocol's answer equals the model's, or raise what is wrong."""
    for answer in answers:
        if why := wrong(answer, right):
            raise ClusterError(f"{answer['protocol']}: {why}")
    protocols = [str(answer["protocol"]) for answer in answers]
    if sorted(protocols) != ["grpc-v2", "invocations", "rest-v2"]:
        raise ClusterError(f"answers came over {', '.join(protocols) or 'no protocol'}")
    numbers = sum(len(answer["outputs"]) for answer in answers)
    return f"{', '.join(protocols)}: {numbers} numbers, all equal to the model's in this process"


def summary(found: Tally) -> str:
    """The traffic in one line."""
    shares = ", ".join(f"{number} by version {version}" for version, number in sorted(_right(found).items()))
    return f"{found.sent} requests, {len(found.failures)} failed, slowest {found.slowest:.2f} s; {shares}"


def _right(found: Tally) -> Mapping[str, int]:
    return {version: number for version, number in found.by_version.items() if version != "failed"}


def _stable(served: Object) -> str:
    stable = served["status"]["stable"]
    return (
        f"version {stable['version']} serves: revision {stable['revision']}, {stable.get('digest', '')[:19]}…"
    )


def _answers(client: Client) -> bool:
    if not (client.kubeconfig.exists() and client.kubectl.exists()):
        return False
    try:
        return client.run("get", "--raw=/readyz", seconds=10) == "ok"
    except ClusterError:
        return False


def _where_to_look(cluster: Cluster) -> str:
    client = client_of(cluster)
    commands = [
        client.command("get", "mdep", f"--namespace={NAMESPACE}", "--output=wide"),
        client.command("describe", "mdep", NAME, f"--namespace={NAMESPACE}"),
        client.command("logs", f"deployment/{OPERATOR}", f"--namespace={SYSTEM_NAMESPACE}", "--tail=50"),
        client.command("get", "pods", "--all-namespaces"),
    ]
    return "\n".join(["what to look at:", *(f"  {command}" for command in commands)])
