"""Who may reach a model's pods, and what they may reach, on a network that enforces it."""

import pytest

from rollway_cluster import jobs
from rollway_cluster.client import Client
from rollway_cluster.install import MLFLOW_NAMESPACE
from rollway_testing.scenario import Scenario, World

# A network knows a new pod a moment after it has started: what is not reached at once is tried for a while.
CONNECT = """
import json, socket, sys, time
reached = dict.fromkeys(sys.argv[1:], False)
end = time.monotonic() + 5
while not all(reached.values()) and time.monotonic() < end:
    for place in [place for place, done in reached.items() if not done]:
        host, port = place.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            reached[place] = True
        except OSError:
            time.sleep(0.1)
print(json.dumps(reached))
"""


@pytest.fixture
def elsewhere(scenario: Scenario) -> str:
    """Another team's namespace."""
    return scenario.namespace


def from_a_pod(client: Client, namespace: str, image: str, *places: str) -> dict[str, bool]:
    spec = jobs.pod(image, ["python", "-c", CONNECT, *places], {})
    (reached,) = jobs.run(client, namespace, "connect", spec)
    return dict(reached)


def address(scenario: Scenario) -> str:
    (pod,) = scenario.children("Pod")
    return str(pod["status"]["podIP"])


def test_any_pod_may_ask_for_predictions_and_none_but_prometheus_for_metrics(
    world: World, serving: Scenario, elsewhere: str
) -> None:
    host = address(serving)
    places = {name: f"{host}:{port}" for name, port in (("http", 8080), ("grpc", 8081), ("metrics", 8082))}
    image = world.installation.images["training"]
    reached = from_a_pod(world.client, elsewhere, image, *places.values())
    assert {name: reached[place] for name, place in places.items()} == {
        "http": True,
        "grpc": True,
        "metrics": False,
    }


def test_only_those_it_names_may_ask_where_it_names_them(
    world: World, serving: Scenario, elsewhere: str
) -> None:
    allowed = {"matchLabels": {"kubernetes.io/metadata.name": serving.namespace}}
    serving.when.the_spec_changes({"networkPolicy": {"from": [{"namespaceSelector": allowed}]}})
    image, place = world.installation.images["training"], f"{address(serving)}:8080"
    serving.then.it_is_restored(
        "NetworkPolicy", "prices", lambda found: "namespaceSelector" in str(found["spec"]["ingress"])
    )
    serving.then.it_settles_on("1")
    assert from_a_pod(world.client, elsewhere, image, place) == {place: False}
    assert from_a_pod(world.client, serving.namespace, image, place) == {place: True}


def test_a_model_reaches_its_artifacts_and_nothing_else(world: World, serving: Scenario) -> None:
    (pod,) = serving.children("Pod")
    places = [f"s3.{MLFLOW_NAMESPACE}.svc:8333", f"mlflow.{MLFLOW_NAMESPACE}.svc:5000"]
    command = ["exec", pod["metadata"]["name"], f"--namespace={serving.namespace}", "--container=server"]
    said = world.client.run(*command, "--", "python", "-c", CONNECT, *places)
    (reached,), _ = jobs.split(said.splitlines())
    assert reached == {places[0]: True, places[1]: False}
