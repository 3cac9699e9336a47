"""Writes the CRDs from the types of `api`: `make generate` runs it, `make check` fails where the tree differs.

Pydantic's JSON schema becomes a structural one (Kubernetes' own dialect): references inlined, `null` branches, titles
and class defaults dropped, `anyOf` gone. What pydantic calls a maximum length of a mapping is `maxProperties` here.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from rollway_operator.api import v1alpha1 as api

Schema = dict[str, Any]

SCHEMA_DEFAULTS = {("predictor",): {}, ("predictor", "replicas"): 1, ("predictor", "runtime"): "mlserver"}
"""The only defaults that are stored in objects: `scale` needs the first two. All others are the operator's."""

KEPT = (
    "type",
    "description",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)

NAME_RULE = api.rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
    "metadata.name must be at most 40 lower-case letters, digits and dashes and begin with a letter: it names Services",
)


def structural(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Schema:
    """Turn a schema of pydantic's into a structural schema; `path` says where it stands, for defaults."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        return structural({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions, path)
    if "anyOf" in schema:
        (branch,) = (option for option in schema["anyOf"] if option.get("type") != "null")
        return structural({**branch, **{k: v for k, v in schema.items() if k != "anyOf"}}, definitions, path)
    result = leaf(schema)
    if "const" in schema:
        result |= {"type": "string", "enum": [schema["const"]]}
    if schema.get("x-kubernetes-int-or-string"):
        del result["type"]
        result |= {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema:
        result["properties"] = {
            name: structural(part, definitions, (*path, name)) for name, part in schema["properties"].items()
        }
    if isinstance(schema.get("additionalProperties"), Mapping):
        result["additionalProperties"] = structural(schema["additionalProperties"], definitions, (*path, "*"))
        if "maxLength" in result:
            result["maxProperties"] = result.pop("maxLength")
    if "items" in schema:
        result["items"] = structural(schema["items"], definitions, (*path, "[]"))
    if path in SCHEMA_DEFAULTS:
        result["default"] = SCHEMA_DEFAULTS[path]
        result.pop("required", None)
    return result


def leaf(schema: Mapping[str, Any]) -> Schema:
    """Keep what Kubernetes knows too; a pattern that `api.form` puts into words becomes a rule that says them."""
    result: Schema = {key: schema[key] for key in KEPT if key in schema}
    if "x-form" in schema:
        number = "type(self) == int || " if schema.get("x-kubernetes-int-or-string") else ""
        worded = api.rule(f"{number}self.matches(r'{result.pop('pattern')}')", schema["x-form"])
        result["x-kubernetes-validations"] = [worded, *result.get("x-kubernetes-validations", ())]
    return result


def of(model: type[BaseModel]) -> Schema:
    """Give the structural schema of one type of the API."""
    schema = model.model_json_schema(by_alias=True)
    return structural(schema, schema.get("$defs", {}))


def crd(  # noqa: PLR0913 - a CRD is made of these
    kind: type[BaseModel],
    spec: type[BaseModel],
    status: type[BaseModel],
    *,
    names: Mapping[str, Any],
    scope: str,
    columns: tuple[tuple[str, str, str, int], ...],
    validations: tuple[dict[str, str], ...] = (),
    scale: Mapping[str, str] | None = None,
) -> Schema:
    """Assemble a CustomResourceDefinition; a column is (name, type, JSON path, priority)."""
    status_schema = of(status)
    conditions = status_schema["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    schema: Schema = {
        "type": "object",
        "description": (kind.__doc__ or "").strip(),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "rollway.dev/v1alpha1."},
            "kind": {"type": "string", "description": f"{kind.__name__}."},
            "metadata": {"type": "object"},
            "spec": of(spec),
            "status": status_schema,
        },
    }
    if validations:
        schema["x-kubernetes-validations"] = list(validations)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names['plural']}.{api.GROUP}",
            "labels": {"app.kubernetes.io/part-of": "rollway"},
        },
        "spec": {
            "group": api.GROUP,
            "scope": scope,
            "names": {"kind": kind.__name__, "listKind": f"{kind.__name__}List", **names},
            "versions": [
                {
                    "name": api.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}} | ({"scale": dict(scale)} if scale else {}),
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path}
                        | ({"priority": priority} if priority else {})
                        for name, type_, path, priority in columns
                    ],
                }
            ],
        },
    }


def model_deployment() -> Schema:
    """Give the CRD of ModelDeployment."""
    return crd(
        api.ModelDeployment,
        api.ModelDeploymentSpec,
        api.ModelDeploymentStatus,
        scope="Namespaced",
        names={
            "plural": "modeldeployments",
            "singular": "modeldeployment",
            "shortNames": ["mdep"],
            "categories": ["all", "ml"],
        },
        validations=(NAME_RULE,),
        scale={
            "specReplicasPath": ".spec.predictor.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
        columns=(
            ("Model", "string", ".spec.model.name", 0),
            ("Stable", "string", ".status.stable.version", 0),
            ("Canary", "string", ".status.canary.version", 0),
            ("Weight", "integer", ".status.canary.weight", 0),
            ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
            ("Phase", "string", ".status.phase", 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
            ("Alias", "string", ".spec.model.alias", 1),
            ("Runtime", "string", ".spec.predictor.runtime", 1),
            ("URL", "string", ".status.url", 1),
            ("Message", "string", ".status.message", 1),
        ),
    )


def model_registry() -> Schema:
    """Give the CRD of ModelRegistry."""
    return crd(
        api.ModelRegistry,
        api.ModelRegistrySpec,
        api.ModelRegistryStatus,
        scope="Cluster",
        names={
            "plural": "modelregistries",
            "singular": "modelregistry",
            "shortNames": ["mreg"],
            "categories": ["ml"],
        },
        columns=(
            ("Address", "string", ".spec.mlflow.trackingURI", 0),
            ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
            ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1),
        ),
    )


def main(folders: list[str]) -> None:
    """Write both CRDs into each of the folders named on the command line."""
    for document in (model_deployment(), model_registry()):
        text = (
            "# Generated by `make generate` from operator/src/rollway_operator/api; do not edit.\n"
            + yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False, width=120)
        )
        for folder in map(Path, folders):
            folder.mkdir(parents=True, exist_ok=True)
            plural = document["spec"]["names"]["plural"]
            (folder / f"{api.GROUP}_{plural}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
