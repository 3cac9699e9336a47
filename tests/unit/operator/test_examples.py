"""Every example uses only fields that the definitions have; the API server drops others without a word."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_operator.api.v1alpha1 import ModelDeployment, ModelRegistry

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
READERS: dict[str, type[ModelDeployment | ModelRegistry]] = {
    "ModelDeployment": ModelDeployment,
    "ModelRegistry": ModelRegistry,
}
PLURALS = {"ModelDeployment": "modeldeployments", "ModelRegistry": "modelregistries"}


def schema_of(kind: str) -> dict[str, Any]:
    """Return the schema that the generated definition of ``kind`` holds."""
    definition = yaml.safe_load((ROOT / "crds" / f"rollway.dev_{PLURALS[kind]}.yaml").read_text())
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def unknown_fields(value: object, schema: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the path of every field of ``value`` that ``schema`` does not describe."""
    if isinstance(value, list):
        for item in value:
            yield from unknown_fields(item, schema["items"], path)
    elif isinstance(value, dict):
        for key, item in value.items():
            described = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if described is None:
                yield f"{path}.{key}"
            else:
                yield from unknown_fields(item, described, f"{path}.{key}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_nothing_that_the_api_does_not_know(path: Path) -> None:
    example = yaml.safe_load(path.read_text())
    assert (
        list(unknown_fields(example["spec"], schema_of(example["kind"])["properties"]["spec"], "spec")) == []
    )
    READERS[example["kind"]].of(example)


def test_the_readme_of_the_examples_names_each() -> None:
    text = (ROOT / "examples" / "README.md").read_text()
    assert [path.name for path in EXAMPLES if f"]({path.name})" not in text] == []
