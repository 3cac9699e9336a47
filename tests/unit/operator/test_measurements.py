"""Metrics that an administrator's query measures: what is counted, and what becomes of canaries that are judged so."""

import doctest
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rollway_operator import measurements as module
from rollway_operator.analysis import Lack, Phase
from rollway_operator.measurements import Asked, Measurement, Taken, due, judge
from rollway_testing.world import World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
METRIC: dict[str, Any] = {
    "name": "chargebacks",
    "templateRef": {"name": "chargeback"},
    "interval": "10s",
    "count": 3,
    "thresholdRange": {"max": "0.5"},
}
NOTHING, AWAY = Measurement(why="it has no data"), Measurement(why="Prometheus is away", answered=False)


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(module).failed == 0


def taken(asked: Asked, *found: float | Measurement) -> Taken:
    so_far = Taken(asked.name, asked.basis)
    for number, each in enumerate(found):
        measurement = each if isinstance(each, Measurement) else Measurement(each)
        so_far = so_far.add(asked, measurement, NOW + number * MINUTE)
    return so_far


@pytest.mark.parametrize(
    ("limits", "found", "phase", "reason"),
    [
        ({}, [], Phase.INCONCLUSIVE, Lack.TOO_FEW_SAMPLES),
        ({}, [0.5], Phase.SUCCESSFUL, None),
        ({}, [0.6], Phase.FAILED, None),
        ({"count": 3}, [0.1, 0.1], Phase.INCONCLUSIVE, Lack.TOO_FEW_SAMPLES),
        ({"count": 3}, [0.1, 0.1, 0.1], Phase.SUCCESSFUL, None),
        ({"count": 3}, [0.1, 0.9], Phase.FAILED, None),
        ({"count": 3, "failure_limit": 1}, [0.9, 0.1], Phase.INCONCLUSIVE, Lack.TOO_FEW_SAMPLES),
        ({"count": 3, "failure_limit": 1}, [0.9, 0.1, 0.1], Phase.SUCCESSFUL, None),
        ({"count": 3, "failure_limit": 1}, [0.9, 0.1, 0.9], Phase.FAILED, None),
        ({}, [NOTHING], Phase.INCONCLUSIVE, Lack.NO_DATA),
        # What gives no number is no evidence: it never counts as one of `count`.
        (
            {"count": 2, "inconclusive_limit": 2},
            [NOTHING, NOTHING, 0.1],
            Phase.INCONCLUSIVE,
            Lack.TOO_FEW_SAMPLES,
        ),
        ({"count": 2, "inconclusive_limit": 2}, [NOTHING, NOTHING], Phase.INCONCLUSIVE, Lack.NO_DATA),
        ({"count": 2, "inconclusive_limit": 2}, [0.1, NOTHING, NOTHING, 0.1], Phase.SUCCESSFUL, None),
        ({"count": 9, "inconclusive_limit": 2}, [0.1] + [NOTHING] * 3, Phase.INCONCLUSIVE, Lack.NO_DATA),
        ({"inconclusive_limit": 2}, [AWAY], Phase.INCONCLUSIVE, Lack.PROVIDER_ERROR),
    ],
)
def test_a_verdict_is_a_matter_of_counting(
    limits: dict[str, int], found: list[float | Measurement], phase: Phase, reason: Lack | None
) -> None:
    asked = Asked("chargebacks", "chargeback", most=0.5, **limits)  # type: ignore[arg-type]
    result = judge(asked, taken(asked, *found))
    assert (result.phase, result.reason) == (phase, reason)


def test_what_was_not_answered_is_no_measurement() -> None:
    asked = Asked("chargebacks", "chargeback", most=0.5)
    before = taken(asked, NOTHING)
    after = before.add(asked, AWAY, NOW + 9 * MINUTE)
    assert (after.at, after.inconclusive, after.unanswered) == (before.at, 1, "Prometheus is away")


@pytest.mark.parametrize("values", [["NaN"], ["+Inf"], ["-Inf"], ["many"], [], ["1", "2"]])
def test_what_is_no_one_number_is_none(values: list[str]) -> None:
    found = Measurement.of(values)
    assert (found.value, found.answered) == (None, True)
    assert found.why


def test_one_is_due_each_interval_until_it_is_decided() -> None:
    asked = Asked("chargebacks", "chargeback", most=0.5, interval=MINUTE, count=2, inconclusive_limit=1)
    none = taken(asked)
    assert [due(asked, none, NOW, NOW + after * MINUTE) for after in (0, 0.9, 1)] == [False, False, True]
    one = taken(asked, 0.1)
    assert [due(asked, one, NOW - 9 * MINUTE, NOW + after * MINUTE) for after in (0.9, 1)] == [False, True]
    for decided in ([0.1, 0.1], [0.9], [NOTHING, NOTHING]):
        assert not due(asked, taken(asked, *decided), NOW, NOW + 99 * MINUTE)


def test_another_template_or_range_is_another_basis() -> None:
    asked = Asked("a", "t", most=0.5)
    assert len({asked.basis, Asked("a", "u", most=0.5).basis, Asked("a", "t", most=0.6).basis}) == 3
    assert asked.basis == Asked("a", "t", most=0.5, count=9).basis


# ------------------------------------------------------------------------------------------------------- the rollouts


def canary(**metric: Any) -> World:
    world = World(gateway=True, templates={"chargeback": "chargebacks"})
    steps = [
        {"setWeight": 10},
        {"pause": {"duration": "5s"}},
        {"setWeight": 50},
        {"pause": {"duration": "5s"}},
    ]
    world.spec = {
        "model": {"name": "fraud", "alias": "champion"},
        "predictor": {"replicas": 3},
        "strategy": {"canary": {"steps": steps}},
        "analysis": {"metrics": [METRIC | metric]},
    }
    world.settle()
    world.rate, world.target = 20, "2"
    return world


def goes_on(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.reconcile()
        world.tick()


def results(world: World) -> dict[str, Any]:
    [result] = world.status["analysis"]["metricResults"]
    return dict(result)


def test_a_canary_is_promoted_when_it_was_measured_often_enough() -> None:
    world = canary()
    goes_on(world, 60)
    assert world.served_version == "2"
    gaps = [later - earlier for earlier, later in zip(world.asked, world.asked[1:], strict=False)]
    assert len(world.asked) == 3
    assert all(gap >= timedelta(seconds=10) for gap in gaps)


def test_one_measurement_out_of_range_aborts() -> None:
    world = canary()
    world.answers = Measurement(0.75)
    goes_on(world, 30)
    [entry] = [entry for entry in world.status["history"] if entry["version"] == "2"]
    assert (world.served_version, entry["reason"]) == ("1", "AnalysisFailed")
    assert (
        "1 of 3 measurements, 1 of them not <= 0.5, and 0 may be; the last is 0.75" in world.status["message"]
    )


def test_a_killed_operator_goes_on_counting() -> None:
    world = canary()
    for _ in range(6):
        goes_on(world, 12)
        world.forget()
    assert world.served_version == "2"
    assert len(world.asked) == 3


def test_without_numbers_a_person_decides() -> None:
    world = canary(inconclusiveLimit=1)
    world.answers = NOTHING
    goes_on(world, 120)
    assert len(world.asked) == 2
    assert (results(world)["phase"], results(world)["reason"]) == ("Inconclusive", "NoData")
    assert world.status["phase"] == "Paused"
    assert world.served_version == "1"
    assert world.status["canary"]["measurements"][0]["inconclusive"] == 2
    world.say("promote", world.status["canary"]["revision"])
    world.answers = Measurement(0.1)
    goes_on(world, 20)
    world.say("promote", world.status.get("canary", world.status["stable"])["revision"], "2")
    goes_on(world, 20)
    assert world.served_version == "2"


def test_while_prometheus_is_away_it_is_asked_again_and_nobody_is_promoted() -> None:
    world = canary()
    world.answers = AWAY
    goes_on(world, 60)
    assert (world.served_version, results(world)["reason"]) == ("1", "ProviderError")
    assert "measurements" not in world.status["canary"]
    world.answers = Measurement(0.1)
    goes_on(world, 60)
    assert world.served_version == "2"


def test_another_range_is_measured_anew() -> None:
    world = canary(count=100)
    goes_on(world, 40)
    before = world.status["canary"]["measurements"][0]
    world.edit(analysis={"metrics": [METRIC | {"count": 9, "thresholdRange": {"max": "0.75"}}]})
    goes_on(world, 5)
    after = world.status["canary"]["measurements"][0]
    assert before["successful"] > 1
    assert (after["successful"], after["basis"] == before["basis"]) == (1, False)


def test_a_template_that_nobody_defined_starts_nothing() -> None:
    world = canary(templateRef={"name": "refunds"})
    goes_on(world, 10)
    stalled = next(condition for condition in world.status["conditions"] if condition["type"] == "Stalled")
    assert stalled["reason"] == "TemplateNotFound"
    assert "spec.analysis.metrics[0].templateRef.name: 'refunds'" in stalled["message"]
    assert "(chargeback)" in stalled["message"]
    assert "canary" not in world.status
