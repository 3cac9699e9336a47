"""The operator, as a process, killed before and after each of its writes: the end is that of the undisturbed tale."""

import random

import pytest

from rollway_testing.kills import DELETION, FIRST, TALES, Lane, Tale, tell_in, until_ended

from .conftest import NewLane

SEED = 20261123
SAMPLE = 4
BRIEFLY = ("version change", "undo", "canary promoted", "canary rolled back", "blue-green")
MAY_VARY = ("patch modeldeployments/status", "apply modeldeployments/status", "create events")
"""How many of these a tale has depends on when a pass comes: one of them may be missing when it is told again."""


@pytest.fixture(scope="module")
def lanes(new_lane: NewLane, thorough: bool) -> list[Lane]:
    """Namespaces with an operator each."""
    return [new_lane(f"lane-{number}") for number in range(4 if thorough else 2)]


@pytest.fixture(scope="module")
def routed_lanes(new_lane: NewLane) -> list[Lane]:
    """Some whose operator knows of a Gateway."""
    return [new_lane(f"routed-{number}", routed=True) for number in range(2)]


@pytest.mark.parametrize(
    "tale",
    [
        pytest.param(tale, id=tale.name, marks=() if tale.name in BRIEFLY else pytest.mark.thorough)
        for tale in TALES
    ],
)
def test_killed_at_any_write_a_tale_comes_to_the_same_end(
    request: pytest.FixtureRequest, alone: None, tale: Tale, thorough: bool
) -> None:
    lanes: list[Lane] = request.getfixturevalue("routed_lanes" if tale.routed else "lanes")
    calm = lanes[0].tell(tale)
    print(f"\n{tale.name}: {len(calm.points) // 2} writes")
    if tale.name == "delete":
        assert calm.points == (), "children go by owner reference: the operator has nothing to write"
        return
    chosen = (
        calm.points if thorough else random.Random(SEED).sample(calm.points, min(SAMPLE, len(calm.points)))
    )
    outcomes = tell_in(lanes, tale, calm, chosen, print)
    assert not [str(outcome) for outcome in outcomes if outcome.wrong]
    unfired = [outcome.point for outcome in outcomes if not outcome.fired]
    assert not [point for point in unfired if f"{point.verb} {point.resource}" not in MAY_VARY]
    assert len(unfired) < max(2, len(outcomes) // 10)


def test_deleted_while_the_operator_is_down_everything_goes(lanes: list[Lane], alone: None) -> None:
    lane = lanes[0]
    story = lane.told(FIRST)
    lane.operator.kill()
    story.meanwhile = lambda: None
    DELETION.act(story)
    until_ended(story, DELETION, within=60)
    lane.operator.start()
    lane.until_quiet()
    assert DELETION.ended(story, {}), "and nothing comes back"
