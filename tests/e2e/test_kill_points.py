"""The operator, as a process before a real cluster, killed around its writes: the end is that of the undisturbed tale.

Ten points, drawn by a fixed seed; every point where ROLLWAY_THOROUGH is set, as `make test-kill` does.
"""

import json
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from rollway_cluster.install import MODELS_SECRET, OPERATOR, SYSTEM_NAMESPACE
from rollway_testing.faults import FaultProxy
from rollway_testing.kills import ON_NODES, Calm, Lane, Outcome, Point, Tale, side_by_side
from rollway_testing.kubelet import RealNodes
from rollway_testing.scenario import Scenario, World
from rollway_testing.stories import OperatorProcess

SEED = 20261124
SAMPLE = 10
LANES = 3
AT_ONCE = 2
"""So many models are made ready side by side in a lane: a node has room for no more than some."""


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
def lanes(
    world: World, shared: Scenario, model: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Lane]]:
    """Namespaces with an operator each, outside of the cluster and behind the proxy, in place of the one inside."""
    stored = world.kubernetes.get("ConfigMap", OPERATOR, SYSTEM_NAMESPACE)
    assert stored is not None
    runtimes = json.loads(stored["data"]["runtimes.json"])
    # From outside of the cluster the operator reaches no pod, and cannot ask what models take.
    asks_nobody = {"signatureCompatibility": "Ignore"}
    with ExitStack() as stack:
        stack.enter_context(world.operator.replicas(0))
        folder = tmp_path_factory.mktemp("faults")
        proxy = stack.enter_context(FaultProxy(folder, kubeconfig=world.client.kubeconfig))
        found = []
        for number in range(LANES):
            folder = tmp_path_factory.mktemp("operator")
            scenario = Scenario(world, f"{shared.namespace}-{number}", folder)
            namespace = stack.enter_context(scenario.running()).namespace
            operator = OperatorProcess(
                folder,
                proxy.kubeconfig,
                namespace=namespace,
                serves=namespace,
                resync=1,
                runtimes=runtimes,
            )
            stack.callback(operator.stop)
            parts = (world.kubernetes, proxy, namespace, model, RealNodes(), operator)
            found.append(Lane(*parts, preTraffic=asks_nobody))
        yield found


@pytest.mark.alone
def test_killed_at_any_write_a_tale_comes_to_the_same_end(lanes: list[Lane]) -> None:
    calm = dict(
        zip(
            ON_NODES, side_by_side(lanes, [partial(undisturbed, tale=tale) for tale in ON_NODES]), strict=True
        )
    )
    points = [(tale, point) for tale in ON_NODES for point in calm[tale].points]
    if not os.environ.get("ROLLWAY_THOROUGH"):
        points = random.Random(SEED).sample(points, SAMPLE)
    print(f"\n{len(points)} points", flush=True)
    tasks = [
        partial(killed, tale=tale, calm=calm[tale], points=chosen[start : start + AT_ONCE])
        for tale in ON_NODES
        for chosen in [[point for of, point in points if of is tale]]
        for start in range(0, len(chosen), AT_ONCE)
    ]
    outcomes = [outcome for told in side_by_side(lanes, tasks) for outcome in told]
    assert not [str(outcome) for outcome in outcomes if outcome.wrong]
    assert sum(outcome.fired for outcome in outcomes) >= 0.9 * len(points)


def undisturbed(lane: Lane, tale: Tale) -> Calm:
    """Tell a tale, and leave the lane as empty as before."""
    try:
        return lane.tell(tale)
    finally:
        lane.clear()


def killed(lane: Lane, tale: Tale, calm: Calm, points: list[Point]) -> list[Outcome]:
    """Tell a tale once for each point, likewise."""
    try:
        return lane.tell_killed(tale, calm, points, partial(print, flush=True))
    finally:
        lane.clear()
