"""The operator's process with a real Prometheus, which scrapes what a pretended Traefik says in Traefik's own words."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from rollway_operator.domain import GatewayRef
from rollway_operator.traefik import REQUESTS, Route
from rollway_operator.traffic import weights_of
from rollway_testing import prometheus
from rollway_testing.controlplane import ControlPlane
from rollway_testing.gateways import ENVIRONMENT, HTTP, PretendedGateway
from rollway_testing.kubelet import Kubelet
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.pods import everybodys
from rollway_testing.prometheus import Prometheus
from rollway_testing.rogue import Rogue, answers
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story, condition

NAMESPACE: Final = "refused"
NAME: Final = "iris"
GATEWAYS, GATEWAY = HTTP.split("/")
SPEC: Final[dict[str, Any]] = {
    "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "5m"}}]}},
    "analysis": {"metrics": [{"name": "error-rate", "thresholdRange": {"max": "0.05"}, "minSamples": 20}]},
}
HEAD: Final = (
    f"# HELP {REQUESTS} How many HTTP requests processed on a service, partitioned by status code, protocol, and "
    f"method.\n# TYPE {REQUESTS} counter\n"
)


class PretendedTraefik(Rogue):
    """Counts as much at each look as if requests came, and the canary refused each of its own."""

    def __init__(self, api: Kubernetes) -> None:
        super().__init__(answers(200, HEAD.encode(), content_type="text/plain; version=0.0.4"))
        self._api = api
        self._counts: Counter[tuple[str, str]] = Counter()
        self.refused = False
        """Whether the canary does."""

    def step(self) -> None:
        """Have 20 requests come, by the weights of the live route."""
        route = self._api.get("HTTPRoute", NAME, NAMESPACE)
        if route is None:
            return
        named = Route(NAMESPACE, NAME, GatewayRef(GATEWAYS, GATEWAY), f"/seldon/{NAMESPACE}/{NAME}")
        label = f"httproute-{NAMESPACE}-{NAME}-gw-{GATEWAYS}-{GATEWAY}-ep-websecure-1"
        hashed = named.hash("websecure", "1", next(named.rules()))
        for place, (revision, weight) in enumerate(weights_of(route).items()):
            service = f"{label}-{hashed}-svc-{NAMESPACE}-{revision}-{place}@kubernetesgateway"
            self._counts["502" if self.refused and place else "200", service] += 20 * weight // 100
        text = HEAD + "".join(
            f'{REQUESTS}{{code="{code}",method="POST",protocol="http",service="{service}"}} {count}\n'
            for (code, service), count in self._counts.items()
        )
        self.behave = answers(200, text.encode(), content_type="text/plain; version=0.0.4")


@pytest.fixture
def traefik(api: Kubernetes) -> Iterator[PretendedTraefik]:
    running = PretendedTraefik(api)
    yield running
    running.close()


@pytest.fixture
def server(traefik: PretendedTraefik, tmp_path: Path) -> Iterator[Prometheus]:
    scraped = {f"127.0.0.1:{traefik.port}": {"namespace": GATEWAYS, "pod": "traefik-1"}}
    with prometheus.running(tmp_path, targets={"traefik": scraped, "models": {}}) as running:
        yield running


@pytest.fixture
def story(
    plane: ControlPlane,
    registry: str,
    server: Prometheus,
    traefik: PretendedTraefik,
    model: RegisteredModel,
    tmp_path: Path,
) -> Iterator[Story]:
    """A ModelDeployment behind the Gateway, whose version 1 serves callers; version 2 is registered."""
    plane.apply_gateway_api()
    api = plane.api
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    model.add_version()
    environment = ENVIRONMENT | {
        "ROLLWAY_GATEWAY_NAMESPACES": GATEWAYS,
        "ROLLWAY_PROMETHEUS_URL": server.url,
        "ROLLWAY_PROMETHEUS_STALE_SECONDS": "30",
        "ROLLWAY_PROMETHEUS_GATEWAY_ERRORS": "traefik",
    }

    def meanwhile() -> None:
        traefik.step()
        server.aim(
            {
                "models": {
                    f"{pod['status']['podIP']}:{everybodys().port}": {
                        "namespace": NAMESPACE,
                        "pod": pod["metadata"]["name"],
                    }
                    for pod in api.list("Pod", NAMESPACE)
                    if pod["status"].get("podIP")
                }
            }
        )

    kubelet = Kubelet(api, NAMESPACE, PretendedGateway(api, NAMESPACE))
    running = Story(api, kubelet, NAMESPACE, model.name, name=NAME, meanwhile=meanwhile)
    with OperatorProcess(
        tmp_path / "operator", plane.kubeconfig, namespace=NAMESPACE, serves=NAMESPACE, more=environment
    ):
        running.ask(**SPEC)
        running.until_serving("1")
        running.callers(20)
        yield running
        api.delete("ModelDeployment", NAME, NAMESPACE)


def passes(status: dict[str, Any]) -> bool:
    [result] = status.get("analysis", {}).get("metricResults") or [{}]
    return bool(result.get("phase") == "Successful")


def test_a_canary_that_only_the_gateway_sees_fail_is_rolled_back(
    story: Story, traefik: PretendedTraefik, model: RegisteredModel
) -> None:
    """Its pods answer all that comes to them, and Prometheus has that."""
    model.point("2")
    story.until(
        lambda status: status.get("canary", {}).get("weight") == 50, "version 2 has half of the traffic"
    )
    story.until(passes, "its error rate is seen to be good, and the Gateway says nothing against it")
    traefik.refused = True
    status = story.until(
        lambda status: [entry for entry in status.get("history", ()) if entry["version"] == "2"],
        "version 2 is given up",
    )
    entry = status["history"][-1]
    assert (entry["outcome"], entry["reason"]) == ("Aborted", "CanaryGatewayErrors")
    assert (
        "requests that the Gateway got no answer to: canary error rate"
        in condition(status, "Stalled")["message"]
    )
    assert "rejected" not in status
    assert status["stable"]["version"] == "1"
