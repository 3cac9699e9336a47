"""The operator's process with a real Prometheus between it and the pods: verdicts, queries, a kill."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from rollway_testing import prometheus
from rollway_testing.controlplane import ControlPlane
from rollway_testing.kubelet import Kubelet, Nature
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.pods import everybodys
from rollway_testing.prometheus import Prometheus
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story, condition, serves

_NUMBERS: Final = itertools.count(1)
NAMESPACE: Final = "scraped"
CANARY: Final[dict[str, Any]] = {"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "1s"}}]}}
ERROR_RATE: Final[dict[str, Any]] = {
    "name": "error-rate",
    "thresholdRange": {"max": "0.05"},
    "minSamples": 20,
}
SERVED: Final[dict[str, Any]] = {
    "name": "served",
    "templateRef": {"name": "served"},
    "interval": "2s",
    "count": 2,
    "thresholdRange": {"min": "1"},
    "inconclusiveLimit": 20,
}
TEMPLATES: Final = {
    "served": {
        "query": "sum(rollway_inference_requests_total"
        "{namespace={{namespace}},rollway_dev_revision={{canary}},outcome='ok'})"
    }
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus.running(tmp_path_factory.mktemp("prometheus"), targets={"models": {}}) as running:
        yield running


@pytest.fixture(scope="module")
def operator(
    plane: ControlPlane, registry: str, server: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("scraping")
    (folder / "templates.json").write_text(json.dumps(TEMPLATES))
    plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    environment = {
        "ROLLWAY_PROMETHEUS_URL": server.url,
        "ROLLWAY_PROMETHEUS_STALE_SECONDS": "30",
        "ROLLWAY_TEMPLATES_FILE": str(folder / "templates.json"),
    }
    process = OperatorProcess(
        folder, plane.kubeconfig, namespace=NAMESPACE, serves=NAMESPACE, more=environment
    )
    with process:
        yield process


def aimed(api: Kubernetes, server: Prometheus) -> Callable[[], None]:
    """Have Prometheus scrape the pods that have an address, with the labels that a PodMonitor gives them."""

    def aim() -> None:
        server.aim(
            {
                "models": {
                    f"{pod['status']['podIP']}:{everybodys().port}": {
                        "namespace": NAMESPACE,
                        "pod": pod["metadata"]["name"],
                        "rollway_dev_revision": pod["metadata"]["labels"]["rollway.dev/revision"],
                    }
                    for pod in api.list("Pod", NAMESPACE)
                    if pod["status"].get("podIP") and "rollway.dev/revision" in pod["metadata"]["labels"]
                }
            }
        )

    return aim


@pytest.fixture
def story(
    api: Kubernetes, server: Prometheus, operator: OperatorProcess, model: RegisteredModel
) -> Iterator[Story]:
    """A ModelDeployment whose version 1 serves callers; version 2 is registered."""
    model.add_version()
    kubelet = Kubelet(api, NAMESPACE)
    name = f"iris-{next(_NUMBERS)}"
    running = Story(api, kubelet, NAMESPACE, model.name, name=name, meanwhile=aimed(api, server))
    running.ask(strategy=CANARY, analysis={"metrics": [ERROR_RATE, SERVED]})
    running.until_serving("1")
    running.callers(20)
    yield running
    api.delete("ModelDeployment", running.name, NAMESPACE)


def ended(status: dict[str, Any]) -> bool:
    return any(entry["version"] == "2" for entry in status.get("history", ()))


def test_a_good_version_is_promoted(story: Story, model: RegisteredModel, operator: OperatorProcess) -> None:
    model.point("2")
    story.until(lambda status: serves(status, "2"), "version 2 serves")
    entry = story.status()["history"][-1]
    assert (entry["outcome"], entry["reason"]) == ("Promoted", "AnalysisSucceeded")
    assert operator.metric('rollway_operator_prometheus_queries_total{result="ok"}') > 0


def test_a_bad_version_is_rolled_back(story: Story, model: RegisteredModel) -> None:
    story.kubelet.natures["2"] = Nature.ERRING
    model.point("2")
    status = story.until(ended, "version 2 is given up")
    entry = status["history"][-1]
    assert (entry["outcome"], entry["reason"]) == ("Aborted", "AnalysisFailed")
    assert status["stable"]["version"] == "1"


def test_without_prometheus_a_canary_holds_and_goes_on_afterwards(
    story: Story, model: RegisteredModel, server: Prometheus, operator: OperatorProcess
) -> None:
    server.stop()
    model.point("2")
    status = story.until(
        lambda status: condition(status, "Paused").get("reason") == "EvidenceMissing", "the canary is held"
    )
    results = {result["name"]: result for result in status["analysis"]["metricResults"]}
    assert {name: result["reason"] for name, result in results.items()} == {
        "error-rate": "ProviderError",
        "served": "ProviderError",
    }
    assert "Prometheus could not be reached" in results["error-rate"]["message"]
    assert status["stable"]["version"] == "1"
    server.start()
    story.until(lambda status: serves(status, "2"), "version 2 serves")
