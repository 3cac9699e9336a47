"""When a wait is over, and with which exit code."""

from typing import Any

import pytest

from kubectl_rollway import objects, times
from kubectl_rollway.errors import ForbiddenError, UnreachableError
from kubectl_rollway.verdicts import VERDICTS
from rollway_testing.fake_cluster import (
    CANARY,
    MODEL,
    READY,
    STABLE,
    FakeCluster,
    at_rest,
    awaiting_person,
    condition,
    deployment,
    first,
    mid_step,
    preview,
    rolled_back,
)

from .conftest import Run


def late() -> dict[str, Any]:
    body = at_rest()
    body["status"]["observedGeneration"] = 3
    return body


def undone() -> dict[str, Any]:
    """v13 served, and a person went back to v12."""
    closed = {
        "revision": CANARY["revision"],
        "version": "13",
        "reason": "Undone",
        "message": "by a person",
        "rejected": False,
    }
    return deployment({"model": MODEL | {"closed": closed}, "stable": STABLE, "conditions": [READY]})


def stalled() -> dict[str, Any]:
    """v13 finds no node."""
    body = mid_step()
    body["status"]["conditions"].append(
        condition("Stalled", "True", "ProgressDeadlineExceeded", "no node has room")
    )
    return body


def acknowledged() -> dict[str, Any]:
    body = rolled_back()
    body["status"]["model"]["closed"]["acknowledged"] = True
    body["status"]["conditions"].pop()
    return body


def retried() -> dict[str, Any]:
    """v13 is tried again, and still listed as rejected."""
    body = mid_step()
    body["status"]["rejected"] = rolled_back()["status"]["rejected"]
    return body


@pytest.mark.parametrize(
    ("what", "body", "version", "holds"),
    [
        ("promoted", at_rest(), None, True),
        ("promoted", at_rest(), "12", True),
        ("promoted", at_rest(), "13", None),  # the alias has not moved yet
        ("promoted", late(), None, None),
        ("promoted", deployment(), None, None),
        ("promoted", first(), None, None),
        ("promoted", mid_step(), None, None),
        ("promoted", mid_step(), "13", None),
        ("promoted", awaiting_person(), None, None),
        ("promoted", rolled_back(), None, False),
        ("promoted", rolled_back(), "13", False),
        ("promoted", rolled_back(), "14", None),  # what failed is another version
        ("promoted", undone(), None, False),
        ("promoted", undone(), "13", False),
        ("promoted", stalled(), None, False),
        ("promoted", stalled(), "13", False),
        ("promoted", stalled(), "14", None),
        ("promoted", acknowledged(), None, False),
        ("promoted", retried(), "13", None),
        ("settled", at_rest(), None, True),
        ("settled", at_rest(), "12", True),
        ("settled", at_rest(), "13", None),
        ("settled", late(), None, None),
        ("settled", deployment({}), None, None),
        ("settled", first(), None, None),
        ("settled", mid_step(), None, None),
        ("settled", mid_step(), "13", None),
        ("settled", awaiting_person(), None, True),
        ("settled", preview(), "13", True),
        ("settled", rolled_back(), None, False),
        ("settled", rolled_back(), "13", False),
        ("settled", rolled_back(), "14", None),
        ("settled", undone(), None, True),
        ("settled", undone(), "13", False),
        ("settled", acknowledged(), None, True),
        ("settled", stalled(), None, False),
        ("settled", retried(), "13", None),
    ],
)
def test_a_wait_is_over_once_it_holds_or_cannot(
    what: str, body: dict[str, Any], version: str | None, holds: bool | None
) -> None:
    verdict = VERDICTS[what](objects.deployment(body), version)
    assert verdict.holds is holds
    assert verdict.why


def test_what_comes_is_waited_for_and_told_on_the_way(run: Run, cluster: FakeCluster) -> None:
    done = at_rest()
    done["status"]["stable"] = STABLE | {"version": "13"}
    cluster.script = [mid_step(), mid_step(), UnreachableError("away"), awaiting_person(), done]
    result = run("wait", "fraud", "--version", "13")
    assert (result.exit_code, result.stdout) == (0, "v13 serves (fraud-7c9f0a1b)\n")
    assert result.stderr.splitlines() == [
        "canary v13 at 10 %, step 2/4: error-rate holds (412 samples)",
        "v13 at 25 % waits for a person",
    ]


def test_what_was_rolled_back_exits_with_1(run: Run, cluster: FakeCluster) -> None:
    cluster.script = [mid_step(), rolled_back()]
    result = run("wait", "fraud", "--for", "settled")
    assert result.exit_code == 1
    assert "Error: AnalysisFailed: canary error rate 7.2%" in result.stderr


def test_what_does_not_come_in_time_exits_with_4(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step())
    result = run("wait", "fraud", "--timeout", "1m30s")
    assert result.exit_code == 4
    assert "Error: not promoted within 90s: canary v13 at 10 %" in result.stderr
    assert len(cluster.asked) == 91


def test_a_timeout_of_nothing_looks_once(run: Run, cluster: FakeCluster) -> None:
    cluster.add(at_rest())
    assert run("wait", "fraud", "--timeout", "0").exit_code == 0
    assert len(cluster.asked) == 1


def test_a_cluster_that_went_away_for_good_exits_with_5(run: Run, cluster: FakeCluster) -> None:
    cluster.script = [mid_step(), UnreachableError("cannot reach it")]
    result = run("wait", "fraud", "--timeout", "5s")
    assert result.exit_code == 5
    assert "cannot reach it" in result.stderr


@pytest.mark.parametrize("first_answer", [UnreachableError("away"), ForbiddenError("you cannot")])
def test_a_cluster_that_never_answered_is_not_waited_for(
    run: Run, cluster: FakeCluster, first_answer: UnreachableError
) -> None:
    cluster.script = [first_answer, at_rest()]
    assert run("wait", "fraud").exit_code == 5


@pytest.mark.parametrize(
    ("text", "told"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), ("45", 45), ("0", 0)],
)
def test_a_duration_is_read_as_kubectl_reads_it(text: str, told: float) -> None:
    assert times.seconds(text) == told


@pytest.mark.parametrize("text", ["", "x", "10 m", "-5s", "10d", "m", "1h30"])
def test_what_is_no_duration_is_wrong_usage(run: Run, text: str) -> None:
    assert times.seconds(text) is None
    result = run("wait", "fraud", f"--timeout={text}")
    assert result.exit_code == 2
    assert "is no duration such as 90s" in result.stderr
