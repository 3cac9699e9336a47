"""The files under examples/ are taken as they are, and the smallest one serves."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_cluster.images import REPOSITORY
from rollway_testing.scenario import Scenario, World

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))


def manifests(path: Path, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = list(yaml.safe_load_all(path.read_text()))
    for manifest in found:
        if manifest["kind"] == "ModelDeployment":
            manifest["metadata"]["namespace"] = namespace
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_api_server_takes_every_example(world: World, path: Path) -> None:
    for manifest in manifests(path, "default"):
        world.kubernetes.apply(manifest, dry_run=True)


def test_the_smallest_example_becomes_ready(world: World, scenario: Scenario) -> None:
    (manifest,) = manifests(EXAMPLES[0], scenario.namespace)
    model = manifest["spec"]["model"]["name"]
    if world.registry.champion(model) is None:
        world.registry.train(model, model, f"s3://models/{model}")
    world.kubernetes.apply(manifest)
    scenario.then.it_settles_on(world.registry.champion(model) or "", manifest["metadata"]["name"])
