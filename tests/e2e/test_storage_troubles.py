"""The S3 store is away, or holds other bytes than were accepted: what serves goes on, and status says why."""

import pytest

from rollway_testing.scenario import Given, Then, When

SECONDS_TO_FETCH = 360.0


@pytest.mark.alone
def test_an_outage_of_s3_delays_a_scale_up_and_nothing_else(given: Given, when: When, then: Then) -> None:
    given.a_model()
    given.a_deployment()
    with when.stopped("s3"):
        when.it_is_scaled_to(2)
        then.it_says("ArtifactVerified", False, "FetchFailed", within=120)
        then.it_goes_on_serving("1")
        then.it_has_ready_replicas(1)
    then.it_serves("1", replicas=2, within=SECONDS_TO_FETCH)


def test_a_flipped_byte_never_becomes_a_ready_pod(given: Given, when: When, then: Then) -> None:
    given.a_model()
    given.a_deployment()
    when.a_byte_is_flipped("1")
    when.it_is_scaled_to(2)
    then.it_says("ArtifactVerified", False, "DigestMismatch", "sha256:")
    then.an_event_says("DigestMismatch")
    then.it_goes_on_serving("1", seconds=5)
    then.it_has_ready_replicas(1)
