"""The traffic's plan keeps its rate whatever the server does, and its summary counts what failed."""

from itertools import islice
from typing import Any

import pytest

from rollway_training.traffic import Mode, Summary, failed, plan


def record(**changes: Any) -> dict[str, Any]:
    whole = {
        "mode": "rest-fresh",
        "seconds": 0.5,
        "status": 200,
        "version": "1",
        "model_version": "1",
        "outputs": [1.5],
    }
    return whole | changes


def test_requests_are_due_at_a_constant_rate() -> None:
    assert [due.after for due in islice(plan(20, None, 3), 5)] == [0, 0.05, 0.1, 0.15, 0.2]


def test_a_plan_ends_after_its_seconds() -> None:
    assert len(list(plan(20, 3, 10))) == 60


def test_the_four_modes_take_turns() -> None:
    assert [due.mode for due in islice(plan(1, None, 1), 8)] == [*Mode, *Mode]


def test_every_mode_meets_every_row() -> None:
    met = {(due.mode, due.row) for due in islice(plan(1, None, 3), 12)}
    assert met == {(mode, row) for mode in Mode for row in range(3)}


def test_a_whole_answer_has_not_failed() -> None:
    assert not failed(record())
    assert not failed(record(status="OK"))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 503},
        {"status": "UNAVAILABLE"},
        {"status": "TIMEOUT", "outputs": None},
        {"outputs": None},
        {"version": None},
        {"version": "2"},
    ],
)
def test_an_answer_has_failed_without_status_outputs_or_one_version(changes: dict[str, Any]) -> None:
    assert failed(record(**changes))


def test_the_summary_counts_failures_by_mode_and_answers_by_version() -> None:
    summary = Summary()
    for each in (record(), record(version="2", model_version="2", seconds=2.5), record(status=500)):
        summary.count(each)
    assert summary.totals() == {
        "sent": 3,
        "failed": 1,
        "slowest_seconds": 2.5,
        "sent_by_mode": {"rest-fresh": 3},
        "failed_by_mode": {"rest-fresh": 1},
        "answered_by_version": {"1": 1, "2": 1},
    }
