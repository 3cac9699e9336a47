"""Everything is scraped by a Prometheus that nobody told of Rollway, and no caller can make it keep more."""

import secrets
import time
from collections.abc import Iterator

import httpx
import pytest

from rollway_cluster.install import MLFLOW_NAMESPACE, SYSTEM_NAMESPACE
from rollway_cluster.prometheus import Monitoring
from rollway_testing import models
from rollway_testing.scenario import DEFAULT, Scenario, When
from rollway_testing.waiting import eventually
from rollway_training.samples import held_out_rows

SECONDS_TO_SCRAPE = 150.0
"""A kubelet brings a changed Secret into a pod within a minute and a half, and Prometheus' configuration is one."""
REQUESTS = 1_000
REPLICAS = 2


@pytest.fixture(scope="module")
def model(shared: Scenario) -> Scenario:
    """A namespace with the model `prices`, served by two pods."""
    shared.given.a_model()
    shared.given.a_deployment(predictor={"replicas": REPLICAS})
    return shared


@pytest.fixture(scope="module")
def scraped(monitoring: Monitoring, model: Scenario) -> Monitoring:
    """Prometheus, once it has scraped each of the model's pods."""
    await_targets(monitoring, model.namespace, pods_of(model))
    return monitoring


@pytest.fixture
def http(model: Scenario) -> Iterator[httpx.Client]:
    """The model's REST API."""
    with (
        model.world.client.forward(f"service/{DEFAULT}", model.namespace, 8080) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client,
    ):
        yield client


def pods_of(scenario: Scenario) -> set[str]:
    """The names of the model's pods."""
    return {pod["metadata"]["name"] for pod in scenario.children("Pod")}


def health(monitoring: Monitoring, namespace: str) -> dict[str, str]:
    """Whether the last scrape of each pod of a namespace went well: `up` or not.

    The series `up` says the same, but stays for five minutes where a whole job is taken out of the configuration.
    """
    found = [target for target in monitoring.targets() if target["labels"].get("namespace") == namespace]
    return {target["labels"]["pod"]: target["health"] for target in found}


def await_targets(monitoring: Monitoring, namespace: str, pods: set[str]) -> None:
    """Wait until these pods and no others are targets of a namespace, and all are up."""
    eventually(
        lambda: health(monitoring, namespace),
        lambda found: found == dict.fromkeys(pods, "up"),
        within=SECONDS_TO_SCRAPE,
        what=f"{len(pods)} targets of {namespace} are up",
        told=lambda found: (found, [target["lastError"] for target in monitoring.targets()]),
    )


def series(monitoring: Monitoring, namespace: str, since: float) -> int:
    """How many series the pods of a namespace have, once each was scraped after a moment (unix time)."""
    eventually(
        lambda: monitoring.query(f'min(timestamp(up{{namespace="{namespace}"}}))'),
        lambda found: bool(found) and float(found[0]["value"][1]) > since,
        within=SECONDS_TO_SCRAPE,
        what="the pods are scraped again",
    )
    # Those that were scraped: what rules make of them, and what the operator says of the model, comes with time.
    (counted,) = monitoring.query(f'count({{job="{namespace}/{DEFAULT}", pod!=""}})')
    return int(counted["value"][1])


@pytest.mark.parametrize(
    ("namespace", "selector"),
    [
        (SYSTEM_NAMESPACE, {"app.kubernetes.io/name": "rollway"}),
        (MLFLOW_NAMESPACE, {"app.kubernetes.io/name": "mlflow", "app.kubernetes.io/component": "server"}),
    ],
)
def test_what_the_charts_run_is_scraped(
    monitoring: Monitoring, model: Scenario, namespace: str, selector: dict[str, str]
) -> None:
    pods = {pod["metadata"]["name"] for pod in model.world.kubernetes.list("Pod", namespace, selector)}
    assert pods
    await_targets(monitoring, namespace, pods)


def test_each_pod_of_a_model_is_scraped(scraped: Monitoring, model: Scenario) -> None:
    pods = pods_of(model)
    assert len(pods) == REPLICAS
    await_targets(scraped, model.namespace, pods)


def test_the_series_of_a_pod_say_whose_they_are(scraped: Monitoring, model: Scenario) -> None:
    stable = model.status(DEFAULT)["stable"]
    found = scraped.query(f'rollway_model_info{{namespace="{model.namespace}"}}')
    assert {each["metric"]["pod"] for each in found} == pods_of(model)
    told = {
        "rollway_dev_model_deployment": DEFAULT,
        "rollway_dev_revision": stable["revision"],
        "app_kubernetes_io_version": stable["version"],
        "job": f"{model.namespace}/{DEFAULT}",
    }
    for each in found:
        assert told.items() <= each["metric"].items()


def test_callers_add_no_series(scraped: Monitoring, model: Scenario, http: httpx.Client) -> None:
    """Of each kind of answer the first may add its constants, so some of each kind come before."""
    ask(http, 20)
    before = series(scraped, model.namespace, time.time())
    statuses = ask(http, REQUESTS)
    assert statuses == {200, 400, 404}
    after = series(scraped, model.namespace, time.time())
    assert after == before
    print(f"\n{before} series before {REQUESTS} requests and after")


def ask(http: httpx.Client, count: int) -> set[int]:
    """Send so many requests in which all that a caller can choose is never the same; the statuses that came."""
    row = held_out_rows(models.SAMPLE).iloc[[0]]
    inputs = [
        {"name": str(column), "datatype": "FP64", "shape": [1], "data": values.tolist()}
        for column, values in row.items()
    ]
    statuses = set()
    for number in range(count):
        word = secrets.token_hex(8)
        headers = {f"x-{word}": word, "user-agent": word, "x-request-id": word}
        good = {"id": word, "inputs": inputs}
        path, body = (
            (f"/v2/models/{DEFAULT}/infer?{word}={word}", good),
            (f"/v2/models/{word}/infer", good),
            (f"/v2/models/{DEFAULT}/infer", {"id": word, "inputs": [{**inputs[0], "name": word}]}),
            (f"/{word}", good),
        )[number % 4]
        statuses.add(http.post(path, headers=headers, json=body).status_code)
    return statuses


def test_without_a_pod_monitor_there_is_no_target(scraped: Monitoring, model: Scenario) -> None:
    when = When(model)
    when.the_spec_changes({"monitoring": {"podMonitor": {"enabled": False}}})
    eventually(
        lambda: model.children("PodMonitor"),
        lambda found: found == [],
        within=SECONDS_TO_SCRAPE,
        what="the PodMonitor goes",
    )
    await_targets(scraped, model.namespace, set())
    when.the_spec_changes({"monitoring": None})
    await_targets(scraped, model.namespace, pods_of(model))
