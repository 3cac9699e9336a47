"""An autoscaler that somebody made for stable's Deployment says how many pods there are, and nobody fights it."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rollway_operator.domain import Observed
from rollway_operator.observe import Observer
from rollway_testing.world import World

UID = "u-1"
MODEL = {"metadata": {"name": "iris", "namespace": "team-a", "uid": UID}}


@dataclass
class Autoscaled(World):
    """A world in which autoscalers target some Deployments."""

    autoscaled: set[str] = field(default_factory=set)

    def observed(self) -> Observed:
        return replace(super().observed(), autoscaled=frozenset(self.autoscaled))


def count(world: World, revision: str) -> int:
    return int(world.objects["Deployment", revision]["spec"]["replicas"])


def scale(world: World, revision: str, replicas: int) -> None:
    world.objects["Deployment", revision]["spec"]["replicas"] = replicas


def serving() -> tuple[Autoscaled, str]:
    world = Autoscaled()
    world.settle()
    return world, str(world.status["stable"]["revision"])


def test_a_count_set_by_hand_is_set_back_and_an_autoscalers_is_kept() -> None:
    world, stable = serving()
    scale(world, stable, 3)
    world.settle()
    assert count(world, stable) == 1
    world.autoscaled.add(stable)
    scale(world, stable, 3)
    world.settle()
    assert count(world, stable) == 3
    assert world.status["readyReplicas"] == 3


def test_the_next_version_comes_up_with_as_many_pods_as_the_autoscaler_chose() -> None:
    world, old = serving()
    world.autoscaled.add(old)
    scale(world, old, 3)
    world.settle()
    world.target = "2"
    world.settle()
    new = world.status["stable"]["revision"]
    assert new != old
    assert [ready for revision, ready in world.flips if revision == new] == [3]


def test_a_deployment_at_zero_is_brought_up_since_no_autoscaler_does() -> None:
    world, stable = serving()
    world.autoscaled.add(stable)
    scale(world, stable, 0)
    world.settle()
    assert count(world, stable) == 1


class Listed:
    """A cluster with one Deployment and one autoscaler; remembers what was listed."""

    def __init__(self, counted_by: str) -> None:
        owner = {"kind": "ModelDeployment", "name": "iris", "uid": UID, "controller": True}
        entry = {"manager": counted_by, "operation": "Update", "subresource": "scale"}
        metadata = {
            "name": "iris-1",
            "namespace": "team-a",
            "ownerReferences": [owner],
            "managedFields": [entry],
        }
        scaler = {
            "metadata": {"name": "any", "namespace": "team-a"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "iris-1"}},
        }
        self.items: dict[str, dict[str, Any]] = {
            "Deployment": {"kind": "Deployment", "metadata": metadata, "spec": {"replicas": 3}},
            "HorizontalPodAutoscaler": scaler,
        }
        self.asked: list[str] = []

    async def list(self, kind: str, *, selector: Any = None, **_: Any) -> list[dict[str, Any]]:
        ours = selector is not None
        if not ours:
            self.asked.append(kind)
        # The autoscaler is somebody else's: it has none of our labels.
        return [self.items[kind]] if kind in self.items and ours is (kind == "Deployment") else []


@pytest.mark.parametrize(
    ("counted_by", "found"), [("kube-controller-manager", {"iris-1"}), ("rollway-operator", set())]
)
async def test_autoscalers_are_asked_for_only_where_somebody_else_set_a_count(
    counted_by: str, found: set[str]
) -> None:
    cluster: Any = Listed(counted_by)
    seen = await Observer(cluster).observe(MODEL)
    assert seen.autoscaled == found
    assert ("HorizontalPodAutoscaler" in cluster.asked) is bool(found)
