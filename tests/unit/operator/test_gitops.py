"""What Flux, Helm and Argo CD make of each situation; every status is one that the operator itself wrote."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml

from rollway_operator.api.v1alpha1 import ModelRegistry
from rollway_operator.registries import UnreachableError
from rollway_operator.registries.shared import Health as RegistryHealth
from rollway_operator.resolve import registry_status
from rollway_testing.argocd import Health, HealthStatus, health
from rollway_testing.kstatus import Kstatus, compute
from rollway_testing.world import Nature, World

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "examples" / "argocd"
DEADLINE = 30

Status = Mapping[str, Any]


def world() -> World:
    """Give a cluster in which a ModelDeployment was just made."""
    return World(
        spec={
            "model": {"name": "fraud", "alias": "champion"},
            "predictor": {"replicas": 2},
            "strategy": {"rollingUpdate": {}},
            "progressDeadlineSeconds": DEADLINE,
        }
    )


def body(world: World, status: Status) -> dict[str, Any]:
    """Give what the API server has of the object; no status is none there, too."""
    told = {"kind": "ModelDeployment", "metadata": {"name": "fraud", "generation": world.generation}}
    return told | ({"status": dict(status)} if status else {})


# ----------------------------------------------------------------------------------------------------- situations


def not_seen_yet(world: World) -> Status:
    return world.status


def first_version_on_its_way(world: World) -> Status:
    world.reconcile()
    return world.status


def no_first_version(world: World) -> Status:
    world.trouble = "AliasNotFound"
    world.settle()
    return world.status


def stable_only(world: World) -> Status:
    world.settle()
    return world.status


def change_not_seen_yet(world: World) -> Status:
    world.settle()
    world.edit(predictor={"replicas": 3})
    return world.status


def next_version_on_its_way(world: World) -> Status:
    world.settle()
    world.target = "2"
    world.reconcile()
    return world.status


def paused_by_the_spec(world: World) -> Status:
    world.settle()
    world.edit(paused=True)
    world.target = "2"
    world.settle()
    return world.status


def paused_a_pod_missing(world: World) -> Status:
    paused_by_the_spec(world)
    return stable_below_its_count(world)


def paused_by_the_verb(world: World) -> Status:
    world.settle()
    world.say("pause", world.serving)
    world.target = "2"
    world.settle()
    return world.status


def paused_in_the_middle(world: World) -> Status:
    next_version_on_its_way(world)
    world.say("pause", world.serving)
    world.settle()
    return world.status


def version_waits_for_promote(world: World) -> Status:
    world.edit(model={**world.spec["model"], "updatePolicy": "Manual"})
    world.settle()
    world.target = "2"
    world.settle()
    return world.status


def rolled_back_by_itself(world: World) -> Status:
    world.natures["2"] = Nature.BROKEN
    world.settle()
    world.target = "2"
    world.settle()
    return world.status


def rolled_back_and_acknowledged(world: World) -> Status:
    rolled_back_by_itself(world)
    world.say("ack", world.serving)
    world.settle()
    return world.status


def undone_by_a_person(world: World) -> Status:
    world.settle()
    first = world.serving
    world.target = "2"
    world.settle()
    world.say("undo", first)
    world.settle()
    assert world.serving == first
    return world.status


def registry_unreachable(world: World) -> Status:
    world.settle()
    world.trouble = "RegistryUnreachable"
    world.settle()
    return world.status


def alias_gone(world: World) -> Status:
    world.settle()
    world.trouble = "AliasNotFound"
    world.settle()
    return world.status


def spec_that_cannot_run(world: World) -> Status:
    world.settle()
    world.edit(predictor={"runtime": "triton"})
    world.settle()
    return world.status


def no_stable_pod_ready(world: World) -> Status:
    world.settle()
    world.pods = [replace(pod, ready=False) for pod in world.pods]
    world.reconcile()
    return world.status


def stable_below_its_count(world: World) -> Status:
    world.settle()
    world.pods = [world.pods[0], replace(world.pods[1], ready=False)]
    world.reconcile()
    return world.status


def canary(world: World, nature: Nature = Nature.GOOD, pause: str | None = "5s", rate: int = 40) -> None:
    """Move the alias to version 2, which gets a tenth of the traffic."""
    world.natures["2"] = nature
    wait = {"pause": {"duration": pause} if pause else {}}
    metrics = [{"name": "error-rate", "minSamples": 10}]
    world.edit(
        strategy={"canary": {"steps": [{"setWeight": 10}, wait]}},
        analysis={"metrics": metrics, "deadline": "30s"},
    )
    world.settle()
    world.target, world.rate = "2", rate
    run_until(world, lambda: world.status.get("canary", {}).get("weight") == 10)


def run_until(world: World, holds: Callable[[], object]) -> None:
    for _ in range(300):
        if holds():
            return
        world.reconcile()
        world.tick()
    raise AssertionError(world.status)


def waits_for(world: World, reason: str) -> None:
    run_until(world, lambda: (world.condition("Paused") or {}).get("reason") == reason)


def canary_running(world: World) -> Status:
    canary(world)
    return world.status


def canary_waits_for_a_person(world: World) -> Status:
    canary(world, pause=None)
    waits_for(world, "PauseStep")
    return world.status


def canary_lacks_evidence(world: World) -> Status:
    canary(world, rate=0)
    waits_for(world, "AnalysisInconclusive")
    return world.status


def rolled_back_by_analysis(world: World) -> Status:
    canary(world, nature=Nature.ERRING)
    run_until(world, lambda: "canary" not in world.status)
    return world.status


def past_the_deadline(before: Callable[[World], Status]) -> Callable[[World], Status]:
    """Let a situation last longer than progressDeadlineSeconds."""

    def situation(world: World) -> Status:
        before(world)
        world.now += timedelta(seconds=DEADLINE + 1)
        world.reconcile()
        return world.status

    return situation


@dataclass(frozen=True)
class Row:
    """One situation, and what is said of it: the condition Ready, those that are there only while True, the tools."""

    title: str
    """As docs/gitops.md has it."""
    arise: Callable[[World], Status]
    ready: str
    others: tuple[str, ...]
    kstatus: Kstatus
    argo_cd: HealthStatus


CURRENT, IN_PROGRESS, FAILED = Kstatus.CURRENT, Kstatus.IN_PROGRESS, Kstatus.FAILED
HEALTHY, PROGRESSING = HealthStatus.HEALTHY, HealthStatus.PROGRESSING
SUSPENDED, DEGRADED = HealthStatus.SUSPENDED, HealthStatus.DEGRADED
WORKS, WAITS, BOTH = ("Reconciling",), ("Paused",), ("Paused", "Reconciling")
STUCK, LATE = ("Stalled",), ("Reconciling", "Stalled")
NONE_LATE, FEW_LATE = past_the_deadline(no_stable_pod_ready), past_the_deadline(stable_below_its_count)

TABLE = (
    Row("new, not seen by the operator yet", not_seen_yet, "absent", (), CURRENT, PROGRESSING),
    Row("first version on its way", first_version_on_its_way, "False", WORKS, IN_PROGRESS, PROGRESSING),
    Row("no first version is named", no_first_version, "False", WORKS, IN_PROGRESS, PROGRESSING),
    Row("stable only", stable_only, "True", (), CURRENT, HEALTHY),
    Row("a change not seen by the operator yet", change_not_seen_yet, "True", (), IN_PROGRESS, PROGRESSING),
    Row("another version on its way", next_version_on_its_way, "True", WORKS, IN_PROGRESS, PROGRESSING),
    Row("canary running", canary_running, "True", WORKS, IN_PROGRESS, PROGRESSING),
    Row("canary at a `pause: {}`", canary_waits_for_a_person, "True", WAITS, CURRENT, SUSPENDED),
    Row("canary held for want of evidence", canary_lacks_evidence, "True", WAITS, CURRENT, SUSPENDED),
    Row("rolled back by its analysis", rolled_back_by_analysis, "True", STUCK, FAILED, DEGRADED),
    Row("`spec.paused`", paused_by_the_spec, "True", WAITS, CURRENT, SUSPENDED),
    Row("`spec.paused`, a pod missing", paused_a_pod_missing, "True", BOTH, IN_PROGRESS, PROGRESSING),
    Row("the verb `pause`", paused_by_the_verb, "True", WAITS, CURRENT, SUSPENDED),
    Row("the verb `pause`, mid-rollout", paused_in_the_middle, "True", WAITS, CURRENT, SUSPENDED),
    Row("a version waits for `promote`", version_waits_for_promote, "True", WAITS, CURRENT, SUSPENDED),
    Row("rolled back by itself", rolled_back_by_itself, "True", STUCK, FAILED, DEGRADED),
    Row("the same, after the verb `ack`", rolled_back_and_acknowledged, "True", (), CURRENT, HEALTHY),
    Row("undone by a person", undone_by_a_person, "True", (), CURRENT, HEALTHY),
    Row("registry unreachable", registry_unreachable, "True", (), CURRENT, HEALTHY),
    Row("alias gone", alias_gone, "True", (), CURRENT, HEALTHY),
    Row("a spec that cannot run", spec_that_cannot_run, "True", STUCK, FAILED, DEGRADED),
    Row("no ready stable pod", no_stable_pod_ready, "False", WORKS, IN_PROGRESS, PROGRESSING),
    Row("no ready stable pod, past the deadline", NONE_LATE, "False", LATE, FAILED, DEGRADED),
    Row("stable below its count", stable_below_its_count, "True", WORKS, IN_PROGRESS, PROGRESSING),
    Row("stable below its count, past the deadline", FEW_LATE, "True", LATE, FAILED, DEGRADED),
)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.title)
def test_tools_show_what_a_situation_is(row: Row) -> None:
    here = world()
    status = row.arise(here)
    found = body(here, status)
    holds = {one["type"]: one["status"] for one in status.get("conditions", ())}
    assert holds.get("Ready", "absent") == row.ready
    assert tuple(name for name in ("Paused", "Reconciling", "Stalled") if name in holds) == row.others
    assert compute(found) == row.kstatus
    shown = health(SCRIPTS / "rollway.dev_ModelDeployment.lua", found)
    assert shown.status == row.argo_cd
    if status.get("observedGeneration") == here.generation:
        assert shown.message == status["message"]
    else:
        assert shown.message.startswith("waiting for the operator to look")


def test_the_document_tells_each_situation_so() -> None:
    text = (ROOT / "docs" / "gitops.md").read_text()
    lines = text.split("| situation |")[1].splitlines()
    told = {
        cells[1]: cells[2:-1] for line in lines if (cells := [cell.strip() for cell in line.split("|")])[2:]
    }
    assert {row.title: told.get(row.title) for row in TABLE} == {
        row.title: [row.ready, ", ".join(row.others), row.kstatus, row.argo_cd] for row in TABLE
    }


# ------------------------------------------------------------------------------------------------- the algorithm


def resource(*conditions: tuple[str, str], generation: int = 1, **metadata: str) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation, **metadata},
        "status": {
            "observedGeneration": 1,
            "conditions": [{"type": type_, "status": status} for type_, status in conditions],
        },
    }


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (resource(("Ready", "True"), deletionTimestamp="2026-01-01T00:00:00Z"), Kstatus.TERMINATING),
        (resource(("Ready", "True"), ("Stalled", "True"), generation=2), IN_PROGRESS),
        (resource(("Ready", "True"), ("Reconciling", "True")), IN_PROGRESS),
        (resource(("Ready", "True"), ("Stalled", "True")), FAILED),
        (resource(("Reconciling", "True"), ("Stalled", "True")), IN_PROGRESS),
        (resource(("Stalled", "True"), ("Reconciling", "True")), FAILED),
        (resource(("Reconciling", "False"), ("Stalled", "Unknown"), ("Ready", "True")), CURRENT),
        (resource(("Ready", "False")), IN_PROGRESS),
        (resource(("Ready", "Unknown")), IN_PROGRESS),
        (resource(("Healthy", "False")), CURRENT),
        ({"metadata": {"generation": 1}}, CURRENT),
    ],
)
def test_kstatus_goes_by_its_own_order(found: dict[str, Any], status: Kstatus) -> None:
    assert compute(found) == status


def test_what_is_not_ready_is_never_called_healthy() -> None:
    found = resource(("Ready", "False"))
    found["status"]["message"] = "v1: 0 of 1 pods ready"
    shown = health(SCRIPTS / "rollway.dev_ModelDeployment.lua", found)
    assert shown == Health(PROGRESSING, "v1: 0 of 1 pods ready")


# ---------------------------------------------------------------------------------------------------- registries


def registry(generation: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "kind": "ModelRegistry",
        "metadata": {"name": "default", "generation": generation},
        "spec": {"mlflow": {"trackingURI": "http://mlflow:5000"}, "artifacts": [{"prefix": "s3://models/"}]},
        **status,
    }


@pytest.mark.parametrize(
    ("answers", "generation", "kstatus", "shown"),
    [
        (True, 1, CURRENT, Health(HEALTHY, "the registry answers")),
        (False, 1, IN_PROGRESS, Health(DEGRADED, "it is down")),
        (True, 2, CURRENT, Health(PROGRESSING, "waiting for the operator to look at the last change")),
    ],
)
def test_tools_show_whether_a_registry_answers(
    answers: bool, generation: int, kstatus: Kstatus, shown: Health
) -> None:
    told = RegistryHealth() if answers else RegistryHealth(UnreachableError("it is down"))
    status = registry_status(ModelRegistry.of(registry()), told, datetime(2026, 1, 1, tzinfo=UTC))
    found = registry(generation, status=status)
    assert compute(found) == kstatus
    assert health(SCRIPTS / "rollway.dev_ModelRegistry.lua", found) == shown


def test_a_registry_that_nobody_looked_at_is_not_called_healthy() -> None:
    assert health(SCRIPTS / "rollway.dev_ModelRegistry.lua", registry()).status == PROGRESSING


# ----------------------------------------------------------------------------------------- what is to be pasted


def test_the_config_map_holds_the_scripts_word_for_word() -> None:
    patch = yaml.safe_load((SCRIPTS / "argocd-cm.yaml").read_text())
    assert (patch["kind"], patch["metadata"]["name"]) == ("ConfigMap", "argocd-cm")
    assert patch["data"] == {
        f"resource.customizations.health.{script.stem}": script.read_text()
        for script in SCRIPTS.glob("*.lua")
    }


def test_the_document_shows_the_script_word_for_word() -> None:
    script = (SCRIPTS / "rollway.dev_ModelDeployment.lua").read_text()
    assert indent(script, "    ") in (ROOT / "docs" / "gitops.md").read_text()


def test_there_is_a_script_for_each_kind() -> None:
    definitions = [yaml.safe_load(path.read_text())["spec"] for path in (ROOT / "crds").glob("*.yaml")]
    assert {script.stem for script in SCRIPTS.glob("*.lua")} == {
        f"{definition['group']}_{definition['names']['kind']}" for definition in definitions
    }
