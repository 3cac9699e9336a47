"""With `recreate` the old pods are gone before the new ones start, and come back where those are broken."""

from rollway_testing import models
from rollway_testing.scenario import Given, Then, When


def test_the_old_version_stops_before_the_new_one_starts(given: Given, when: When, then: Then) -> None:
    given.a_model(versions=2)
    given.a_deployment(strategy={"recreate": {}})
    when.the_alias_moves_to("2")
    then.revisions_never_overlap_until("2")
    then.it_serves("2")


def test_a_broken_new_version_gives_way_to_the_old_one(given: Given, when: When, then: Then) -> None:
    given.a_model()
    given.a_version(models.answering_nan)
    given.a_deployment(strategy={"recreate": {}})
    before = then.pods()
    when.the_alias_moves_to("2")
    then.it_says("Stalled", True, "SmokeTestFailed", "v2: ")
    then.it_serves("1")
    assert not before.keys() & then.pods().keys(), "the old pods were never stopped"
