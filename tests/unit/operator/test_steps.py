"""The steps of a canary: how entries become steps, and where in them a rollout stands."""

import doctest
from datetime import UTC, datetime

from rollway_operator import steps
from rollway_operator.api.v1alpha1 import CanaryStep, Pause
from rollway_operator.domain import Progress

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = steps.grouped(steps.DEFAULT_STEPS)


def at(weight: int, plan: tuple[steps.Step, ...] = PLAN, **more: object) -> Progress:
    return Progress(weight=weight, steps=steps.fingerprint(plan), set_at=NOW, **more)  # type: ignore[arg-type]


def test_the_examples_hold() -> None:
    result = doctest.testmod(steps)
    assert result.attempted
    assert not result.failed


def test_before_the_first_step_the_first_follows() -> None:
    assert steps.present(PLAN, Progress()) is None
    assert steps.following(PLAN, Progress()) == PLAN[0]


def test_after_the_last_step_the_promotion_follows() -> None:
    assert steps.following(PLAN, at(50)) is None
    assert PLAN[-1].end == 4


def test_a_plan_that_did_not_change_leaves_a_rollout_where_it_is() -> None:
    progress = at(10, index=1, leaving=True)
    assert steps.followed(PLAN, progress) is progress


def test_in_a_changed_plan_the_same_weight_is_the_same_step() -> None:
    plan = steps.grouped([CanaryStep(set_weight=5), CanaryStep(set_weight=10), CanaryStep(pause=Pause())])
    moved = steps.followed(plan, at(10, index=1, started_at=NOW, leaving=True))
    assert (moved.index, moved.leaving, moved.started_at) == (1, False, NOW)


def test_in_a_plan_without_the_present_weight_the_next_higher_follows_at_once() -> None:
    plan = steps.grouped([CanaryStep(set_weight=5), CanaryStep(set_weight=30)])
    moved = steps.followed(plan, at(10))
    assert moved.leaving
    assert steps.following(plan, moved) == plan[1]


def test_in_a_plan_of_lower_weights_the_present_one_is_the_last_step() -> None:
    plan = steps.grouped([CanaryStep(set_weight=5)])
    moved = steps.followed(plan, at(50))
    assert not moved.leaving
    step = steps.present(plan, moved)
    assert step is not None
    assert (step.weight, step.end) == (50, 1)
    assert steps.following(plan, moved) is None


def test_what_is_being_promoted_goes_on_whatever_the_plan_says() -> None:
    moved = steps.followed(steps.grouped([CanaryStep(set_weight=90)]), at(50, promoting="proved"))
    assert moved.promoting == "proved"
    assert not moved.leaving
