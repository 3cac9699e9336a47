"""docs/metrics.md lists what the code exports: no series more, none less, each with its type and labels."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, Metric
from prometheus_client.metrics import MetricWrapperBase

from rollway_operator import telemetry
from rollway_operator.series import Series
from rollway_serving.limits import Admission
from rollway_serving.metrics import Metrics

from .test_series import A_CANARY, World, condition

ROOT = Path(__file__).parents[3]
Exported = dict[str, tuple[str, frozenset[str]]]


def listed(section: str) -> Exported:
    text = (ROOT / "docs" / "metrics.md").read_text()
    (found,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    rows = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in found.splitlines()
        if line.startswith("| `")
    )
    return {
        name.strip("`"): (type_, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, type_, labels, _, _ in rows
    }


def exported(families: Iterable[Metric], holder: object) -> Exported:
    """Give name, type and labels as Prometheus has them; of what was never counted the holder's attributes know."""
    named = {
        name: frozenset(metric._labelnames)  # noqa: SLF001 - they are told nowhere else
        for metric in vars(holder).values()
        if isinstance(metric, MetricWrapperBase)
        for name in (family.name for family in metric.describe())
    }
    found = {}
    for family in families:
        seen = {label for sample in family.samples for label in sample.labels} - {"le"}
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        type_ = "gauge" if family.type == "info" else family.type
        found[family.name + suffix] = (type_, named.get(family.name, frozenset(seen)))
    return {name: what for name, what in found.items() if name.startswith(("rollway_", "seldon_"))}


def of_seldon() -> Exported:
    """Read what the seldon runtime adds from its source: seldon-core is not here to be imported."""
    source = (ROOT / "model/serving/src/rollway_serving/seldon_component.py").read_text()
    found = re.findall(r"(Counter|Gauge|Histogram)\(\s*\"(seldon_\w+)\"", source)
    assert found
    return {
        name + ("_total" if kind == "Counter" else ""): (kind.lower(), frozenset()) for kind, name in found
    }


def test_the_operators_are_listed() -> None:
    assert listed("The operator") == exported(REGISTRY.collect(), telemetry)


def test_those_of_objects_are_listed() -> None:
    world = World()
    world.see(A_CANARY)
    world.see_registry(condition("Ready", "True", "Reachable"))
    found = exported(world.series.collect(), world)
    assert {*found} == {*exported(Series().describe(), world)}
    assert (
        listed("Registries")
        | {
            name: (type_, labels | {"namespace", "name"})
            for name, (type_, labels) in listed("ModelDeployments").items()
        }
        == found
    )


def test_the_models_are_listed() -> None:
    not_asked: Any = None
    metrics = Metrics(not_asked, (), Admission(concurrency=1, queue=1, seconds=1))
    assert listed("Models") == exported(metrics.registry.collect(), metrics) | of_seldon()
