"""Every panel and rule has data in a real Prometheus that scrapes what the code exports, of a canary under way."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, start_http_server

from rollway_operator import telemetry
from rollway_operator.series import Series
from rollway_serving.limits import Admission
from rollway_serving.metrics import Method, Metrics
from rollway_serving.settings import Settings
from rollway_testing import monitoring
from rollway_testing.processes import free_port
from rollway_testing.prometheus import Prometheus, Targets, running
from rollway_testing.waiting import eventually

SINCE = "2026-01-01T12:00:00Z"
ASKED = Method("rest", "infer", "predictions")


def condition(type_: str, status: str, reason: str) -> dict[str, Any]:
    told = {"type": type_, "status": status, "reason": reason, "message": ""}
    return told | {"observedGeneration": 1, "lastTransitionTime": SINCE}


def result(name: str, threshold: str) -> dict[str, Any]:
    told = {"name": name, "phase": "Inconclusive", "value": "0.001", "interval": ["-0.004", "0.011"]}
    return told | {"threshold": threshold, "samples": 412}


PROMOTED = {"revision": "fraud-1", "version": "1", "outcome": "Promoted", "reason": "GatesPassed"}
BODY: dict[str, Any] = {
    "metadata": {"namespace": "team-a", "name": "fraud", "uid": "u", "resourceVersion": "1"},
    "spec": {
        "model": {"name": "fraud", "alias": "champion"},
        "predictor": {"runtime": "mlserver"},
        "strategy": {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}]}},
    },
    "status": {
        "phase": "Paused",
        "model": {"name": "fraud", "targetRevision": "fraud-1", "targetSince": SINCE},
        "stable": {"revision": "fraud-1", "version": "1", "readyReplicas": 1},
        "canary": {
            "revision": "fraud-2",
            "version": "2",
            "readyReplicas": 1,
            "startedAt": SINCE,
            "weight": 10,
            "currentStepIndex": 1,
        },
        "replicas": 1,
        "analysis": {
            "phase": "Running",
            "metricResults": [
                result("error-rate", "<= 0.02"),
                result("latency-p99", "< 0.01 slower than 0.25 s"),
            ],
        },
        "history": [PROMOTED | {"startedAt": SINCE, "finishedAt": "2026-01-01T12:01:00Z"}],
        "conditions": [condition("Ready", "True", "PodsReady"), condition("Paused", "True", "PauseStep")],
    },
}


def counted() -> None:
    """Let the operator count something of everything."""
    telemetry.LEADER.set(1)
    telemetry.RESYNCED.set_to_current_time()
    telemetry.RECONCILES.labels("ok").inc()
    telemetry.RECONCILE_SECONDS.observe(0.1)
    telemetry.WRITES.labels("Service").inc()
    telemetry.REGISTRY_REQUESTS.labels("default", "ok").inc()
    telemetry.REGISTRY_SECONDS.labels("default").observe(0.1)
    with telemetry.ApiRequest("list") as request:
        request.code = "200"


def model(version: str) -> Metrics:
    """What a pod of this version says."""
    settings = Settings(
        name="fraud",
        namespace="team-a",
        revision=f"fraud-{version}",
        model_name="fraud",
        version=version,
        timeout_seconds=30,
        smoke_test="Disabled",
        warmup_requests=0,
        drain_seconds=0,
        http_port=8080,
        grpc_port=8081,
        metrics_port=8082,
    )
    metrics = Metrics(settings, (ASKED,), Admission(concurrency=1, queue=1, seconds=1))
    metrics.loaded(flavor="sklearn")
    return metrics


@contextmanager
def served(registry: CollectorRegistry) -> Iterator[str]:
    """Answer a scraper for as long as it takes; gives the address."""
    port = free_port()
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    yield f"127.0.0.1:{port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    series = Series()
    series.deployment_seen(BODY)
    series.registry_seen(
        {"metadata": {"name": "default"}, "status": {"conditions": [condition("Ready", "True", "Reachable")]}}
    )
    of_objects = CollectorRegistry()
    of_objects.register(series)
    counted()
    pods = {version: model(version) for version in ("1", "2")}
    with ExitStack() as stack:
        operator = {"namespace": "rollway-system", "pod": "rollway-operator-0"}
        targets: Targets = {
            "rollway-operator": {stack.enter_context(served(REGISTRY)): operator},
            # No namespace but the objects' own, which the operator's ServiceMonitor puts before that of the pod.
            "objects": {stack.enter_context(served(of_objects)): {}},
            "mlflow": {stack.enter_context(served(CollectorRegistry())): {"namespace": "mlflow"}},
            "models": {
                stack.enter_context(served(metrics.registry)): {
                    "namespace": "team-a",
                    "pod": f"fraud-{version}-x",
                    "rollway_dev_model_deployment": "fraud",
                    "rollway_dev_revision": f"fraud-{version}",
                    "app_kubernetes_io_version": version,
                }
                for version, metrics in pods.items()
            },
        }
        found = stack.enter_context(running(tmp_path, targets=targets, rule_files=monitoring.RULE_FILES))
        found.await_up(5)
        for metrics in pods.values():
            metrics.called(1)
            metrics.answered(ASKED, 200, 0.01)
        yield found


def test_every_panel_and_rule_has_data(prometheus: Prometheus) -> None:
    eventually(
        lambda: monitoring.unanswered(
            prometheus.query, namespace="team-a", name="fraud", metric="error-rate"
        ),
        lambda missing: missing == {},
        within=60,
        what="all have data",
    )


def test_the_canary_is_told_from_stable(prometheus: Prometheus) -> None:
    failed = "track:rollway_inference_errors:ratio_rate5m"
    found = eventually(
        lambda: prometheus.query(failed), lambda found: len(found) == 2, within=60, what="rates of both"
    )
    tracks = {(each["metric"]["track"], each["metric"]["version"]) for each in found}
    assert tracks == {("stable", "1"), ("canary", "2")}
