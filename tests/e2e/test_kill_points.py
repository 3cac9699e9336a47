"""The operator, as a process before a real cluster, killed around its writes: the end is that of the undisturbed tale.

Ten points, drawn by a fixed seed; every point where ROLLWAY_THOROUGH is set, as `make test-kill` does.
"""

import json
import os
import random
from collections.abc import Iterator

import pytest

from rollway_cluster.install import MODELS_SECRET, OPERATOR, SYSTEM_NAMESPACE
from rollway_testing.faults import FaultProxy
from rollway_testing.kills import ON_NODES, Lane, Point, Tale
from rollway_testing.kubelet import RealNodes
from rollway_testing.scenario import Scenario, World
from rollway_testing.stories import OperatorProcess

SEED = 20261124
SAMPLE = 10
AT_ONCE = 5
"""So many models are made ready side by side: a node has room for no more than some."""


@pytest.fixture(scope="module")
def model(world: World, shared: Scenario) -> dict[str, object]:
    """A model with two versions, in a registry that a process outside of the cluster reaches too."""
    shared.given.a_model(versions=2)
    world.kubernetes.create(
        {
            "apiVersion": "rollway.dev/v1alpha1",
            "kind": "ModelRegistry",
            "metadata": {"name": shared.namespace},
            "spec": {
                "mlflow": {"trackingURI": world.registry.tracking_uri, "pollInterval": "1s"},
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
    return {"name": shared.registered("prices"), "registryRef": {"name": shared.namespace}}


@pytest.fixture(scope="module")
def lane(
    world: World, shared: Scenario, model: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lane]:
    """The operator outside of the cluster, behind the proxy, in place of the one inside."""
    folder = tmp_path_factory.mktemp("operator")
    stored = world.kubernetes.get("ConfigMap", OPERATOR, SYSTEM_NAMESPACE)
    assert stored is not None
    runtimes = json.loads(stored["data"]["runtimes.json"])
    with (
        world.operator.replicas(0),
        FaultProxy(tmp_path_factory.mktemp("faults"), kubeconfig=world.client.kubeconfig) as proxy,
    ):
        operator = OperatorProcess(
            folder,
            proxy.kubeconfig,
            namespace=shared.namespace,
            serves=shared.namespace,
            resync=1,
            runtimes=runtimes,
        )
        # From outside of the cluster the operator reaches no pod, and cannot ask what models take.
        asks_nobody = {"signatureCompatibility": "Ignore"}
        parts = (world.kubernetes, proxy, shared.namespace, model, RealNodes(), operator)
        running = Lane(*parts, preTraffic=asks_nobody)
        yield running
        operator.stop()


def test_killed_at_any_write_a_tale_comes_to_the_same_end(lane: Lane) -> None:
    calm = {tale.name: lane.tell(tale) for tale in ON_NODES}
    points = [(tale, point) for tale in ON_NODES for point in calm[tale.name].points]
    if not os.environ.get("ROLLWAY_THOROUGH"):
        points = random.Random(SEED).sample(points, SAMPLE)
    print(f"\n{len(points)} points")
    outcomes = []
    for tale in ON_NODES:
        left = chosen(points, tale)
        while left:
            outcomes += lane.tell_killed(tale, calm[tale.name], left[:AT_ONCE], print)
            del left[:AT_ONCE]
            lane.clear()
    assert not [str(outcome) for outcome in outcomes if outcome.wrong]
    assert sum(outcome.fired for outcome in outcomes) >= 0.9 * len(points)


def chosen(points: list[tuple[Tale, Point]], tale: Tale) -> list[Point]:
    return [point for of, point in points if of is tale]
