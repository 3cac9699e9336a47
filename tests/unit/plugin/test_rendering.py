"""What people see of a ModelDeployment, in every situation."""

import io
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kubectl_rollway import objects, resolution, tables, times
from kubectl_rollway.tree import Scene, hints, shares, tree
from rollway_testing.fake_cluster import (
    CANARY,
    CANARY_POD,
    MODEL,
    NOW,
    REVISIONS,
    STABLE,
    STABLE_PODS,
    at_rest,
    awaiting_person,
    condition,
    deployment,
    first,
    mid_step,
    pod,
    preview,
    rolled_back,
    waiting_pod,
)

GOLDEN = Path(__file__).parent / "golden"

PREVIEW_PODS = [pod(f"fraud-8d1a22c0-{end}", "fraud-8d1a22c0") for end in ("a1", "b2")]
LEAVING = pod("fraud-00000000-zz", "fraud-00000000") | {}
LEAVING["metadata"] = LEAVING["metadata"] | {"deletionTimestamp": "2026-11-24T11:59:00Z"}

SITUATIONS: dict[str, tuple[dict[str, Any], list[dict[str, Any]] | None]] = {
    "at-rest": (at_rest(), STABLE_PODS),
    "mid-step": (mid_step(), [*STABLE_PODS, CANARY_POD]),
    "awaiting-person": (awaiting_person(), [*STABLE_PODS, CANARY_POD, LEAVING]),
    "rolled-back": (rolled_back(), STABLE_PODS),
    "preview": (preview(), [*STABLE_PODS, *PREVIEW_PODS]),
    "nothing-serves": (first(), [waiting_pod("fraud-8d1a22c0-m5n6b", "fraud-8d1a22c0")]),
    "not-seen-yet": (deployment(), None),
}


def drawn(renderable: Any, width: int = 110) -> str:
    written = io.StringIO()
    Console(file=written, width=width, highlight=False, markup=False, emoji=False).print(renderable)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def as_tree(body: dict[str, Any], pods: list[dict[str, Any]] | None) -> str:
    kept = objects.stored(REVISIONS)
    scene = Scene(objects.deployment(body), kept, None if pods is None else objects.pods(pods))
    return drawn(tree(scene, NOW))


def compare(name: str, told: str) -> None:
    golden = GOLDEN / f"{name}.txt"
    if "ROLLWAY_REWRITE" in os.environ:
        golden.write_text(told)
    assert told == golden.read_text()


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_tree_shows_the_situation(name: str) -> None:
    compare(name, as_tree(*SITUATIONS[name]))


def test_a_table_has_a_line_for_each() -> None:
    bodies = [at_rest(), mid_step(), rolled_back(), first(), deployment()]
    seen = [objects.deployment(body) for body in bodies]
    narrow = drawn(tables.table(tables.deployments(seen, NOW)))
    wide = drawn(tables.table(tables.deployments(seen, NOW, wide=True, everywhere=True)), width=300)
    compare("table", f"{narrow}\n{wide}")


def test_history_says_what_each_revision_is_now() -> None:
    kept = objects.stored(REVISIONS[1:])
    rows = tables.history(objects.deployment(rolled_back()), kept, NOW)
    compare("history", drawn(tables.table(rows)))


@pytest.mark.parametrize("name", ["at-rest", "mid-step", "rolled-back", "preview", "not-seen-yet"])
def test_what_would_be_deployed_is_said_with_its_source(name: str) -> None:
    compare(f"resolve-{name}", "\n".join(resolution.lines(objects.deployment(SITUATIONS[name][0]))) + "\n")


def test_a_registry_that_names_nothing_is_quoted() -> None:
    missing = condition("ModelResolved", "False", "AliasNotFound", "there is no alias champion")
    body = deployment({"conditions": [missing], "observedGeneration": 3})
    told = "\n".join(resolution.lines(objects.deployment(body)))
    assert "nothing would be deployed: the registry names no version: there is no alias champion" in told
    assert "generation 3; the spec is at generation 4" in told


def test_a_target_that_waits_for_a_person_names_the_command() -> None:
    waits = condition("Paused", "True", "AwaitingPromote", "v13 waits for a person")
    seen = objects.deployment(deployment({"model": MODEL, "stable": STABLE, "conditions": [waits]}))
    assert "  waits for a person: kubectl rollway promote fraud -n team-a" in list(resolution.lines(seen))
    assert resolution.recorded(seen)["awaits"] is True
    assert list(hints(seen)) == ["kubectl rollway promote fraud -n team-a to go on"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("PausedBySpec", ["set spec.paused: false to go on"]),
        ("PausedByVerb", ["kubectl rollway resume fraud -n team-a"]),
        ("StateRebuilt", ["kubectl rollway resume fraud -n team-a"]),
        ("EvidenceMissing", ["kubectl rollway promote fraud -n team-a to go on"]),
        ("RollbackHeld", ["kubectl rollway promote fraud -n team-a to go on"]),
    ],
)
def test_who_waits_is_told_what_to_say(reason: str, told: list[str]) -> None:
    status = {"canary": CANARY, "stable": STABLE, "conditions": [condition("Paused", "True", reason, "held")]}
    seen = objects.deployment(deployment(status))
    assert list(hints(seen)) == [*told, "kubectl rollway abort fraud -n team-a to give up"]


def test_a_promotion_under_way_is_past_every_step() -> None:
    body = mid_step()
    body["status"]["canary"] |= {"promoting": "every metric has passed", "currentStepIndex": 4}
    told = as_tree(body, [])
    assert "▶ promote" in told
    assert told.count("✓") == 5  # four steps and a metric


def test_the_default_steps_are_shown_where_the_spec_names_none() -> None:
    body = mid_step()
    del body["spec"]["strategy"]
    told = as_tree(body, [])
    assert "▶ pause 60s  3m20s since the weight is in force" in told
    assert "  setWeight 50" in told


def test_shares_are_worked_out_where_the_operator_does_not_say_them() -> None:
    body = mid_step()
    del body["status"]["traffic"]
    told = [(share.version, share.percent, share.tag) for share in shares(objects.deployment(body))]
    assert told == [("12", 90, "stable"), ("13", 10, "canary")]


@pytest.mark.parametrize("percent", [0, 1, 10, 50, 99, 100])
def test_the_bar_is_always_as_long(percent: int) -> None:
    body = mid_step()
    for share, part in zip(body["status"]["traffic"], (100 - percent, percent), strict=True):
        share["percent"] = part
    told = as_tree(body, [])
    assert told.count("█") + told.count("▒") == 40
    assert ("▒" in told) == (percent > 0)
    assert ("█" in told) == (percent < 100)


HOSTILE = "\x1b[31mred\x1b[0m [bold]b[/bold]\r\nsecond\x00\x9b line :smile:"


def test_what_others_wrote_is_shown_as_text_and_obeyed_by_no_terminal() -> None:
    body = mid_step()
    body["status"]["message"] = HOSTILE
    body["status"]["conditions"][0]["message"] = HOSTILE
    body["status"]["analysis"]["metricResults"][0]["message"] = HOSTILE
    body["spec"]["model"]["name"] = HOSTILE
    told = as_tree(body, [pod("a\x1b[2Jb", "fraud-8d1a22c0")])
    assert not {character for character in told if ord(character) < 32 or 127 <= ord(character) < 160} - {
        "\n"
    }
    assert "[31mred [0m [bold]b[/bold] second line :smile:" in told


@pytest.mark.parametrize("odd", [None, 7, "text", [], [None], {"a": 1}, [{"a": []}], True])
@pytest.mark.parametrize(
    "field",
    [
        "model",
        "stable",
        "canary",
        "traffic",
        "analysis",
        "history",
        "rejected",
        "lastHandled",
        "conditions",
        "phase",
    ],
)
def test_an_odd_field_never_breaks_the_view(field: str, odd: object) -> None:
    for body in (at_rest(), mid_step(), rolled_back()):
        body["status"][field] = odd
        assert "fraud" in as_tree(body, [CANARY_POD])
        seen = objects.deployment(body)
        kept = objects.stored(REVISIONS)
        assert tables.deployments([seen], NOW, wide=True).lines
        assert isinstance(tables.recorded(seen, kept), list)
        assert resolution.recorded(seen)["model"] == "fraud-detector"


@pytest.mark.parametrize(
    "body", [{}, {"metadata": None, "spec": 3, "status": "x"}, {"spec": {"strategy": []}}]
)
def test_an_object_of_nothing_is_shown_as_nothing(body: dict[str, Any]) -> None:
    assert "has not said anything yet" in as_tree(body, [{}, {"status": {"containerStatuses": "x"}}])


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (waiting_pod("a", "b"), "Init:fetch"),
        (waiting_pod("a", "b", "ImagePullBackOff"), "Init:ImagePullBackOff"),
        (
            pod("a", "b", containerStatuses=[{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
            "CrashLoopBackOff",
        ),
        (pod("a", "b", containerStatuses=[{"state": {"terminated": {"reason": "OOMKilled"}}}]), "OOMKilled"),
        (pod("a", "b", initContainerStatuses=[{"state": {"terminated": {"exitCode": 0}}}]), "Running"),
        (pod("a", "b", containerStatuses=[], reason="Evicted", phase="Failed"), "Evicted"),
        (LEAVING, "Terminating"),
    ],
)
def test_a_pod_is_summed_up_in_kubectls_words(body: dict[str, Any], state: str) -> None:
    (seen,) = objects.pods([body])
    assert seen.state == state


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (1500, "25m"),
        (18600, "5h10m"),
        (100_000, "27h"),
        (183_600, "2d3h"),
        (864_000, "10d"),
        (100_000_000, "3y"),
    ],
)
def test_a_duration_is_coarser_the_longer_it_is(seconds: int, told: str) -> None:
    assert times.span(timedelta(seconds=seconds)) == told
