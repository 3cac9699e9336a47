"""What is counted as evidence, and what verdicts it leads to."""

import doctest
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from math import ceil, inf, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_operator import analysis as module
from rollway_operator.analysis import (
    ERROR_RATE,
    LATENCY_P99,
    Claim,
    Counters,
    Lack,
    Metric,
    Pair,
    Phase,
    Reading,
    Result,
    Sample,
    Stuck,
    Window,
    difference,
    evidence,
    judge,
    level,
    needed,
    share,
    share_evidence,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = timedelta(seconds=5)
ERRORS = Metric(ERROR_RATE, 0.02, 50)
LATENCY = Metric(LATENCY_P99, 1.5, 50)
BOUNDS = (0.01, 0.03, 0.045, 0.06, 0.5, inf)


class Story:
    """A rollout as it is read: one pod a side unless others are named, and a reading every five seconds."""

    def __init__(self) -> None:
        self.window = Window()
        self.now = BEGIN
        self.step = 0
        self.pods: dict[str, dict[str, Counters]] = {
            "stable": {"s": Counters()},
            "canary": {"c": Counters()},
        }
        self.missing: dict[str, dict[str, str]] = {"stable": {}, "canary": {}}
        self.read()

    def read(self) -> "Story":
        self.window = self.window.add(
            Sample(
                *(Reading(self.now, dict(self.pods[side]), dict(self.missing[side])) for side in self.pods)
            ),
            self.step,
        )
        self.now += EVERY
        return self

    def count(
        self, pod: str, *, seconds: float | None = None, bounds: tuple[float, ...] = BOUNDS, **more: int
    ) -> "Story":
        """Add to what a pod counted; where it is said how long its requests took, its buckets too."""
        side = "canary" if pod.startswith("c") else "stable"
        before = self.pods[side].get(pod, Counters())
        timed = more.get("ok", 0) + more.get("server_error", 0)
        buckets = before.buckets
        if seconds is not None:
            buckets = {b: before.buckets.get(b, 0) + (timed if seconds <= b else 0) for b in bounds}
        counts = {
            name: getattr(before, name) + number for name, number in more.items() if name != "in_progress"
        }
        self.pods[side][pod] = replace(
            before, **counts, buckets=buckets, in_progress=more.get("in_progress", before.in_progress)
        )
        return self

    def traffic(
        self, canary: tuple[int, int], stable: tuple[int, int], seconds: float | None = None
    ) -> "Story":
        """Count requests and errors of both sides, and read them."""
        for pod, (number, errors) in (("c", canary), ("s", stable)):
            self.count(pod, ok=number - errors, server_error=errors, seconds=seconds)
        return self.read()

    def goes_to(self, step: int) -> "Story":
        """Go to another step, and read once in it."""
        self.step = step
        return self.read()

    def verdict(self, metric: Metric = ERRORS, confidence: float = 0.95) -> Result:
        return judge(metric, self.window, confidence, self.now)


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(module)
    assert (result.attempted > 10, result.failed) == (True, 0)


# ------------------------------------------------------------------------------------------------- the intervals


@st.composite
def pairs(draw: st.DrawFn, most: int = 4) -> list[Pair]:
    def side() -> tuple[int, int]:
        number = draw(st.integers(1, 10_000))
        return draw(st.integers(0, number)), number

    return [Pair(*side(), *side()) for _ in range(draw(st.integers(1, most)))]


CONFIDENCE = st.floats(0.5, 0.9999)
NEARLY = 2e-5


@given(pairs(), CONFIDENCE)
def test_the_interval_contains_the_estimate_and_stays_possible(found: list[Pair], confidence: float) -> None:
    estimate = difference(found, confidence)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(pairs(most=1), CONFIDENCE, CONFIDENCE)
def test_more_confidence_takes_a_wider_interval(found: list[Pair], one: float, other: float) -> None:
    narrow, wide = (difference(found, confidence) for confidence in sorted((one, other)))
    assert wide.low <= narrow.low + NEARLY
    assert narrow.high <= wide.high + NEARLY


@given(pairs())
def test_the_order_of_the_steps_does_not_matter(found: list[Pair]) -> None:
    one, other = difference(found, 0.95), difference(found[::-1], 0.95)
    assert one.low == pytest.approx(other.low, abs=NEARLY)
    assert one.high == pytest.approx(other.high, abs=NEARLY)


@given(pairs(most=1), st.floats(-1, 1), st.sampled_from(Claim))
def test_no_rates_beyond_a_value_suit_a_step_better_than_the_best(
    found: list[Pair], value: float, claim: Claim
) -> None:
    (pair,) = found

    def likelihood(errors: float, number: float, rate: float) -> float:
        parts = ((errors, rate), (number - errors, 1 - rate))
        if any(count and not chance for count, chance in parts):
            return -inf
        return sum(count * log(chance) for count, chance in parts if count)

    best = module.best(pair, value, claim)
    for stable, canary in product((n / 50 for n in range(51)), repeat=2):
        if canary - stable >= value if claim is Claim.BELOW else canary - stable <= value:
            at = likelihood(pair.canary_errors, pair.canary_n, canary) + likelihood(
                pair.stable_errors, pair.stable_n, stable
            )
            assert at == -inf or at <= best + 1e-6 * abs(best) + NEARLY


@given(pairs(), st.floats(-0.99, 0.99), CONFIDENCE)
def test_a_value_outside_of_the_interval_is_one_that_the_evidence_speaks_against(
    found: list[Pair], value: float, confidence: float
) -> None:
    estimate, enough = difference(found, confidence), level(confidence)
    if value < estimate.low - NEARLY:
        assert evidence(found, value, Claim.ABOVE) >= enough
    elif value > estimate.high + NEARLY:
        assert evidence(found, value, Claim.BELOW) >= enough


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.2])
@pytest.mark.parametrize("excess", [0.0, 0.02])
def test_the_truth_is_in_the_interval_at_all_looks_together(rate: float, excess: float) -> None:
    random, runs, missed = Random(f"{rate} {excess}"), 60, 0
    for _ in range(runs):
        steps = [Pair(0, 0, 0, 0), Pair(0, 0, 0, 0)]
        for look in range(30):
            step, of_canary, of_stable = (0, 5, 45) if look < 10 else (1, 30, 30)
            steps[step] += Pair(
                sum(random.random() < rate + excess for _ in range(of_canary)),
                of_canary,
                sum(random.random() < rate for _ in range(of_stable)),
                of_stable,
            )
            told = [pair for pair in steps if pair.canary_n]
            if max(evidence(told, excess, claim) for claim in Claim) >= level(0.95):
                missed += 1
                break
    assert missed <= 0.05 * runs


def test_a_share_is_where_its_interval_says() -> None:
    for successes, number in ((0, 50), (1, 100), (40, 4000), (100, 100)):
        found = share(successes, number, 0.95)
        assert 0 <= found.low <= found.value == successes / number <= found.high <= 1
        assert share_evidence(successes, number, found.high + NEARLY) >= level(0.95) or found.high == 1


# -------------------------------------------------------------------------------------------------- the counting


def test_the_first_reading_of_a_pod_is_where_counting_starts() -> None:
    story = Story()
    story.count("c", ok=5, server_error=5).read()
    story.count("c2", ok=700, server_error=300).read()
    assert story.window.samples_in_step(0) == 10
    story.count("c2", ok=1).read()
    assert story.window.samples_in_step(0) == 11


def test_a_server_that_started_again_counts_from_nothing() -> None:
    story = Story()
    story.count("c", ok=90, server_error=10).read()
    story.pods["canary"]["c"] = Counters(
        ok=95, server_error=2
    )  # only the errors tell that it is another life
    story.read()
    tally = story.window.strata[0].canary
    assert (tally.n, tally.errors) == (100 + 97, 12)


def test_a_histogram_that_is_gone_means_that_the_server_started_again() -> None:
    story = Story()
    story.count("c", ok=50, seconds=0.02).read()
    story.pods["canary"]["c"] = Counters(ok=60)
    story.read()
    assert story.window.samples_in_step(0) == 110
    assert story.window.strata[0].canary.timed == 50


def test_a_pod_that_was_missing_is_counted_over_the_gap() -> None:
    story = Story()
    gone = story.pods["canary"].pop("c")
    story.missing["canary"]["c"] = "c did not answer within 2 s"
    story.read()
    story.pods["canary"]["c"] = replace(gone, ok=40)
    del story.missing["canary"]["c"]
    story.read()
    assert story.window.samples_in_step(0) == 40


def test_what_began_in_another_step_belongs_to_neither() -> None:
    story = Story().traffic((10, 0), (90, 0))
    gone = story.pods["canary"].pop("c")
    story.missing["canary"]["c"] = "c did not answer within 2 s"
    story.read()
    story.pods["canary"] = {"c": replace(gone, server_error=30)}
    story.missing["canary"] = {}
    story.goes_to(1)
    story.count("c", ok=4).read()
    assert [story.window.samples_in_step(step) for step in (0, 1)] == [10, 4]
    assert story.window.strata[1].canary.errors == 0


def test_a_pod_that_left_is_forgotten() -> None:
    story = Story()
    story.count("c2", ok=100).read()
    del story.pods["canary"]["c2"]
    story.read()
    story.count("c2", ok=500).read()
    assert story.window.samples_in_step(0) == 0


def test_all_requests_count_as_traffic_and_only_the_models_own_as_samples() -> None:
    story = Story()
    story.count("c", ok=1, server_error=2, client_error=4, shed=8).count("s", client_error=3).read()
    window = story.window
    assert (window.canary_requests(0), window.stable_requests(0)) == (15, 3)
    assert (window.samples_in_step(0), window.canary_requests(1)) == (3, 0)
    assert window.started == BEGIN


COUNTS = st.builds(
    lambda ok, errors, slow: Counters(
        ok=ok, server_error=errors, buckets={0.1: max(0, ok + errors - slow), inf: ok + errors}
    ),
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(0, 500),
)


SIDE = st.dictionaries(st.sampled_from("abc"), COUNTS)


@given(st.lists(st.tuples(SIDE, SIDE, st.integers(0, 2)), max_size=8), st.floats(0.5, 1, exclude_max=True))
def test_whatever_pods_say_the_counts_make_sense_and_there_is_a_verdict(
    story: list[tuple[dict[str, Counters], dict[str, Counters], int]], confidence: float
) -> None:
    window = Window()
    for number, (stable, canary, step) in enumerate(story):
        before = window
        at = BEGIN + timedelta(seconds=number)
        window = window.add(Sample(Reading(at, stable), Reading(at, canary)), step)
        for which, stratum in window.strata.items():
            for tally in (stratum.canary, stratum.stable):
                counts = list(tally.buckets.values())
                assert 0 <= tally.errors <= tally.n <= tally.requests
                assert counts == sorted(counts)
                assert min(counts, default=0) >= 0
            assert stratum.canary.n >= before.samples_in_step(which)
    for metric in (ERRORS, LATENCY):
        result = judge(replace(metric, min_samples=5), window, confidence, BEGIN + timedelta(seconds=10))
        if result.interval and result.value is not None:
            assert result.interval[0] <= result.value <= result.interval[1]


# ------------------------------------------------------------------------------------------------ the error rate


def test_few_errors_among_many_requests_pass() -> None:
    result = Story().traffic((1000, 3), (9000, 27)).verdict()
    assert (result.phase, result.samples, result.threshold) == (Phase.SUCCESSFUL, 1000, "<= 0.02")
    assert (
        result.message == "canary error rate 0.3% (0\N{EN DASH}1.6%) exceeds stable 0.3% by no more than 2%"
    )


def test_many_errors_fail_with_the_numbers() -> None:
    result = Story().traffic((128, 16), (1000, 4)).verdict()
    assert result.phase is Phase.FAILED
    assert (
        result.message == "canary error rate 12.5% (3.4\N{EN DASH}29.8%) exceeds stable 0.4% by more than 2%"
    )
    assert result.value == pytest.approx(16 / 128 - 0.004)
    assert result.interval is not None
    assert result.interval[0] > 0.02


def test_between_the_two_it_says_about_how_many_requests_it_takes() -> None:
    result = Story().traffic((100, 1), (900, 9)).verdict()
    assert (result.phase, result.reason) == (Phase.INCONCLUSIVE, None)
    assert "may or may not exceed stable 1% by more than 2%; about " in result.message
    more = needed(ERRORS, Story().traffic((100, 1), (900, 9)).window, 0.95)
    assert more is not None
    grown = 100 + more
    assert (
        Story().traffic((grown, grown // 100), (9 * grown, 9 * grown // 100)).verdict().phase
        is Phase.SUCCESSFUL
    )


def test_it_says_how_long_that_takes_at_the_rate_of_the_present_step() -> None:
    story = Story().traffic((50, 0), (450, 0)).goes_to(1).traffic((10, 0), (10, 0))  # 10 in five seconds
    message = story.verdict().message
    more = needed(ERRORS, story.window, 0.95)
    assert more is not None
    assert message.endswith(
        f"; about {more} more requests, {ceil(more / 2 / 60)} min at the present rate, would tell"
    )


def test_a_rate_on_the_limit_never_tells() -> None:
    assert needed(ERRORS, Story().traffic((1000, 20), (1000, 0)).window, 0.95) is None


def test_clients_errors_and_shed_requests_never_count() -> None:
    story = Story().traffic((400, 0), (400, 0))
    before = story.verdict()
    story.count("c", client_error=100_000, shed=100_000).read()
    assert story.verdict() == before
    assert before.phase is Phase.SUCCESSFUL


def test_a_base_rate_that_moves_with_the_share_fakes_no_difference() -> None:
    story = Story()
    story.traffic((100, 0), (900, 0)).goes_to(1)
    story.traffic((900, 270), (100, 30))  # an outage hits both alike, while the canary has nine tenths
    pooled = difference([Pair(270, 1000, 30, 1000)], 0.95)
    assert pooled.low > 0.02
    result = story.verdict()
    assert result.phase is Phase.INCONCLUSIVE
    assert result.value == pytest.approx(0)


def test_a_difference_is_not_hidden_by_the_shares() -> None:
    story = Story()
    story.traffic((100, 40), (900, 180)).goes_to(1)  # 40 % against 20 %
    story.traffic((900, 180), (100, 0))  # 20 % against none
    assert difference([Pair(220, 1000, 180, 1000)], 0.95).value == pytest.approx(0.04)
    result = story.verdict()
    assert result.phase is Phase.FAILED
    assert result.value == pytest.approx(0.2)


def test_a_step_in_which_one_side_had_nothing_compares_nothing() -> None:
    story = Story().traffic((0, 0), (5000, 0)).goes_to(1).traffic((60, 60), (0, 0))
    result = story.verdict()
    assert (result.phase, result.reason) == (Phase.INCONCLUSIVE, Lack.TOO_FEW_SAMPLES)


def test_status_has_numbers_as_text_without_exponents() -> None:
    told = Story().traffic((2000, 2), (20000, 0)).verdict().as_status()
    assert told == {
        "name": "error-rate",
        "phase": "Successful",
        "value": "0.001",
        "interval": ["-0.0001", "0.0072"],
        "threshold": "<= 0.02",
        "samples": 2000,
        "message": "canary error rate 0.1% (0\N{EN DASH}0.7%) exceeds stable 0% by no more than 2%",
    }


# ------------------------------------------------------------------------------------------- no evidence is none


def test_before_anything_is_read_there_is_no_data() -> None:
    result = judge(ERRORS, Window(), 0.95, BEGIN)
    assert (result.phase, result.reason) == (Phase.INCONCLUSIVE, Lack.NO_DATA)
    assert result.message == "no stable pod was read yet"
    assert result.as_status() == {
        "name": "error-rate",
        "phase": "Inconclusive",
        "samples": 0,
        "reason": "NoData",
        "message": "no stable pod was read yet",
    }


@pytest.mark.parametrize("side", ["stable", "canary"])
def test_a_side_without_pods_is_no_data(side: str) -> None:
    story = Story().traffic((1000, 0), (9000, 0))
    story.pods[side].clear()
    result = story.read().verdict()
    assert (result.phase, result.reason) == (Phase.INCONCLUSIVE, Lack.NO_DATA)
    assert result.message == f"there is no {side} pod to read"


def test_old_readings_are_no_data() -> None:
    story = Story().traffic((1000, 0), (9000, 0))
    assert judge(ERRORS, story.window, 0.95, BEGIN + timedelta(seconds=35)).phase is Phase.SUCCESSFUL
    result = judge(ERRORS, story.window, 0.95, BEGIN + timedelta(seconds=36))
    assert (result.phase, result.reason) == (Phase.INCONCLUSIVE, Lack.NO_DATA)
    assert result.message == "no stable pod was read for 31 s"


@pytest.mark.parametrize(("side", "pod"), [("stable", "s"), ("canary", "c")])
def test_a_pod_that_cannot_be_read_for_half_a_minute_is_the_sources_error(side: str, pod: str) -> None:
    story = Story().count("c2", ok=1).count("s2", ok=1).traffic((1000, 0), (9000, 0))
    del story.pods[side][pod]
    story.missing[side][pod] = f"{pod} did not answer within 2 s"
    for _ in range(5):
        assert story.read().verdict().phase is Phase.SUCCESSFUL
    result = story.read().verdict()
    assert (result.phase, result.reason) == (Phase.INCONCLUSIVE, Lack.PROVIDER_ERROR)
    assert result.message == f"1 of 2 {side} pods could not be read: {pod} did not answer within 2 s"


def test_a_pod_that_was_never_read_is_the_sources_error_at_once() -> None:
    story = Story().traffic((1000, 0), (9000, 0))
    story.missing["canary"]["c2"] = "c2 sent what is not text"
    assert story.read().verdict().reason is Lack.PROVIDER_ERROR


def test_what_pods_that_can_be_read_show_fails_although_others_cannot() -> None:
    story = Story()
    story.missing["canary"]["c2"] = "c2 did not answer within 2 s"
    assert story.traffic((100, 60), (900, 0)).verdict().phase is Phase.FAILED


@pytest.mark.parametrize(
    ("canary", "stable", "message"),
    [
        (49, 500, "49 canary requests were counted, and at least 50 are needed"),
        (500, 49, "49 stable requests were counted, and at least 50 are needed"),
        (0, 0, "0 stable requests were counted, and at least 50 are needed"),
    ],
)
@pytest.mark.parametrize("metric", [ERRORS, LATENCY])
def test_too_few_samples_of_either_side_say_nothing(
    canary: int, stable: int, message: str, metric: Metric
) -> None:
    result = Story().traffic((canary, canary), (stable, 0), seconds=0.01).verdict(metric)
    assert (result.phase, result.reason, result.message) == (
        Phase.INCONCLUSIVE,
        Lack.TOO_FEW_SAMPLES,
        message,
    )


def test_a_metric_that_nobody_knows_is_no_data() -> None:
    result = Story().traffic((1000, 0), (9000, 0)).verdict(Metric("chargeback-rate", 0.5))
    assert (result.reason, result.message) == (Lack.NO_DATA, "nobody knows how to measure 'chargeback-rate'")
    assert needed(Metric("chargeback-rate", 0.5), Window(), 0.95) is None


# ---------------------------------------------------------------------------------------------------- the latency


def latencies(canary: Mapping[float, int], stable: Mapping[float, int], story: Story | None = None) -> Story:
    """Count requests of both sides by how long they took, and read them."""
    story = story or Story()
    for pod, times in (("c", canary), ("s", stable)):
        for seconds, number in times.items():
            story.count(pod, ok=number, seconds=seconds)
    return story.read()


SLOW = "slower than 45 ms (1.5 \N{MULTIPLICATION SIGN} stable's p99 30 ms, rounded up)"


def test_a_canary_as_fast_as_stable_passes() -> None:
    result = latencies({0.02: 1500, 0.4: 2}, {0.02: 9900, 0.4: 90}).verdict(LATENCY)
    assert (result.phase, result.samples) == (Phase.SUCCESSFUL, 1502)
    assert result.threshold == f"< 0.01 {SLOW}"
    assert result.message == f"0.1% of canary requests (0.002\N{EN DASH}0.8%) are {SLOW}, less than 1%"


def test_a_slower_canary_fails() -> None:
    result = latencies({0.02: 120, 0.05: 8}, {0.02: 900}).verdict(LATENCY)
    assert result.phase is Phase.FAILED
    assert result.value == pytest.approx(8 / 128)
    assert result.message.endswith(f"are {SLOW}, more than 1%")


def test_a_canary_within_the_ratio_is_not_slow() -> None:
    assert latencies({0.04: 1000}, {0.02: 9000}).verdict(LATENCY).phase is Phase.SUCCESSFUL


def test_it_takes_some_hundred_fast_requests_to_know_that_less_than_one_in_a_hundred_is_slow() -> None:
    result = latencies({0.02: 300}, {0.02: 2700}).verdict(LATENCY)
    assert (result.phase, result.reason) == (Phase.INCONCLUSIVE, None)
    assert "which may or may not be more than 1%; about " in result.message
    assert latencies({0.02: 440}, {0.02: 2700}).verdict(LATENCY).phase is Phase.SUCCESSFUL


def test_each_step_is_held_against_stable_in_that_step() -> None:
    # The machine is slow in the second step, for both alike.
    story = latencies({0.005: 100}, {0.005: 900})
    story = latencies({0.4: 900}, {0.4: 100}, story.goes_to(1))
    assert story.verdict(replace(LATENCY, limit=1.0)).phase is Phase.SUCCESSFUL


def test_a_step_with_few_requests_of_stable_is_held_against_all_steps() -> None:
    story = latencies({0.02: 100}, {0.02: 900})
    story = latencies({0.02: 900}, {0.005: 10}, story.goes_to(1))
    result = story.verdict(LATENCY)
    assert result.phase is Phase.SUCCESSFUL
    assert result.threshold == f"< 0.01 {SLOW}"


def test_errors_count_in_the_time_they_took() -> None:
    story = Story().count("c", server_error=128, seconds=0.5).count("s", ok=900, seconds=0.02).read()
    assert story.verdict(LATENCY).phase is Phase.FAILED


@pytest.mark.parametrize(
    ("story", "message"),
    [
        (
            latencies({0.02: 900}, {40.0: 900}),
            "1.5 \N{MULTIPLICATION SIGN} stable's p99 is longer than what pods tell apart",
        ),
        (
            latencies({0.02: 900}, {0.4: 900}),
            "1.5 \N{MULTIPLICATION SIGN} stable's p99 is longer than what pods tell apart",
        ),
        (
            Story().count("c", ok=900).count("s", ok=900, seconds=0.02).read(),
            "canary pods do not say how long requests took",
        ),
        (
            Story().count("c", ok=900, seconds=0.02).count("s", ok=900).read(),
            "stable pods do not say how long requests took",
        ),
    ],
)
def test_what_cannot_be_told_about_time_is_no_data(story: Story, message: str) -> None:
    result = story.verdict(LATENCY)
    assert (result.phase, result.reason, result.message) == (Phase.INCONCLUSIVE, Lack.NO_DATA, message)
    assert story.verdict(ERRORS).phase is Phase.SUCCESSFUL


@pytest.mark.parametrize("side", ["c", "s"])
def test_pods_with_other_bounds_leave_no_evidence_of_time(side: str) -> None:
    story = Story()
    story.count(f"{side}2", bounds=(0.1, inf)).read()
    story.count(f"{side}2", ok=10, seconds=0.02, bounds=(0.1, inf))
    story = latencies({0.02: 900}, {0.02: 900}, story)
    result = story.verdict(LATENCY)
    assert (result.reason, result.message) == (
        Lack.NO_DATA,
        "pods of one revision do not tell times apart at the same bounds",
    )
    assert story.verdict(ERRORS).phase is Phase.SUCCESSFUL


def test_revisions_may_have_bounds_of_their_own() -> None:
    story = Story().count("c", ok=900, seconds=0.02, bounds=(0.025, 0.05, inf))
    story.count("s", ok=900, seconds=0.02).read()
    assert story.verdict(LATENCY).threshold.startswith("< 0.01 slower than 50 ms")


# ------------------------------------------------------------------------------------------------------ the stuck


def test_a_pod_is_stuck_since_it_has_requests_in_progress_and_ends_none_well() -> None:
    assert Story().window.stuck is None
    story = Story()
    since = story.now
    story.count("c", in_progress=3).read().count("c", server_error=1).read()
    assert story.window.stuck == Stuck(since, story.now - EVERY)
    assert story.window.canary.stuck == [Stuck(since, story.now - EVERY)]


def test_a_pod_that_ends_requests_well_is_not_stuck() -> None:
    story = Story().count("c", in_progress=3).read()
    since = story.now
    story.count("c", ok=1, in_progress=3).read()
    assert story.window.stuck == Stuck(since, story.now - EVERY)
    story.count("c", in_progress=0).read()
    assert story.window.stuck is None


def test_one_stuck_pod_among_busy_ones_is_found() -> None:
    story = Story()
    since = story.now
    story.count("c", in_progress=1).count("c2", in_progress=1).read()
    for _ in range(5):
        story.count("c2", ok=10).read()
    assert story.window.stuck == Stuck(since, story.now - EVERY)


def test_a_pod_that_cannot_be_read_is_not_said_to_be_stuck() -> None:
    story = Story().count("c", in_progress=1).read()
    story.missing["canary"]["c"] = "c did not answer within 2 s"
    del story.pods["canary"]["c"]
    assert story.read().window.stuck is None


def test_a_server_that_started_again_is_stuck_anew() -> None:
    story = Story().count("c", ok=5).read().count("c", in_progress=1).read()
    since = story.now
    story.pods["canary"]["c"] = Counters(in_progress=1)
    assert story.read().window.stuck == Stuck(since, story.now - EVERY)


# -------------------------------------------------------------------------------------------- what Prometheus scraped


class Scrapes:
    """A rollout as Prometheus has it: each reading is of a scrape, which may be the one of the reading before."""

    def __init__(self) -> None:
        self.window = Window()

    def read(
        self, now: float, canary: Counters | None, step: int = 10, since: float = 0, **stable: Counters
    ) -> "Scrapes":
        at = BEGIN + timedelta(seconds=now)
        pods = {"c": canary} if canary else {}
        sample = Sample(Reading(at, stable), Reading(at, pods, absent={} if canary else {"c": "c is absent"}))
        self.window = self.window.add(sample, step, BEGIN + timedelta(seconds=since))
        return self

    def canary(self, step: int = 10) -> int:
        return self.window.canary_requests(step)


def scrape(second: float, ok: int, **more: int) -> Counters:
    return Counters(ok=ok, scraped_at=BEGIN + timedelta(seconds=second), **more)  # type: ignore[arg-type]


def test_the_same_scrape_counts_once() -> None:
    story = Scrapes()
    for now in range(2, 20, 2):
        story.read(now, scrape(1 if now < 10 else 9, 0 if now < 10 else 40))
    assert story.canary() == 40


def test_an_older_scrape_than_the_last_is_no_restart() -> None:
    """Of two Prometheus behind one address one is behind: what it has is not counted again."""
    story = Scrapes().read(2, scrape(1, 100)).read(12, scrape(11, 200))
    for now, second, ok in ((14, 8, 170), (16, 11, 200), (18, 8, 170), (24, 21, 300)):
        story.read(now, scrape(second, ok))
    assert story.canary() == 200


def test_a_server_that_started_again_between_scrapes_is_counted_anew() -> None:
    assert Scrapes().read(2, scrape(1, 100)).read(12, scrape(11, 30)).canary() == 30


def test_a_scrape_from_before_the_step_belongs_to_no_step() -> None:
    story = Scrapes().read(2, scrape(1, 0)).read(12, scrape(11, 50))
    # The weight was raised at 15; Prometheus scrapes again at 21.
    story.read(16, scrape(11, 50), step=50, since=15)
    story.read(22, scrape(21, 90), step=50, since=15).read(32, scrape(31, 100), step=50, since=15)
    assert (story.canary(10), story.canary(50)) == (50, 10)


def test_what_two_sources_say_is_never_compared() -> None:
    story = Scrapes().read(10, scrape(9, 100)).read(12, Counters(ok=130)).read(14, Counters(ok=140))
    assert story.canary() == 10
    # What was scraped before it was read directly is old; the first scrape after that is where counting starts.
    story.read(16, scrape(13, 135)).read(20, scrape(19, 200)).read(30, scrape(29, 230))
    assert story.canary() == 40


def test_a_pod_of_which_there_is_nothing_is_no_data() -> None:
    story = Scrapes().read(2, scrape(1, 0), s=scrape(1, 0)).read(12, scrape(11, 100), s=scrape(11, 100))
    story.read(20, None, s=scrape(19, 200))
    at = BEGIN + timedelta(seconds=20)
    assert judge(ERRORS, story.window, 0.95, at).reason is not Lack.NO_DATA
    for second in (30, 42):
        story.read(second, None, s=scrape(second - 1, 300))
    found = judge(ERRORS, story.window, 0.95, BEGIN + timedelta(seconds=42))
    assert (found.phase, found.reason) == (Phase.INCONCLUSIVE, Lack.NO_DATA)
    assert found.message == "1 of 1 canary pods could not be read: c is absent"


def test_nobody_is_known_to_be_quiet_before_two_scrapes_say_so() -> None:
    story = Scrapes()
    known = []
    for now, second in ((2, -5), (8, 6), (10, 6), (18, 16)):
        story.read(now, scrape(second, 0), since=1, s=scrape(second, 7))
        known.append(story.window.quiet_until(10))
    assert known == [None, None, None, BEGIN + timedelta(seconds=16)]
    story.read(28, scrape(26, 0), since=1, s=scrape(26, 8))
    assert story.window.quiet_until(10) is None


def test_a_pod_is_stuck_no_longer_than_it_was_seen_to_be() -> None:
    story = Scrapes().read(2, scrape(1, 5, in_progress=1)).read(30, scrape(1, 5, in_progress=1))
    began = BEGIN + timedelta(seconds=1)
    assert story.window.stuck == Stuck(began, began)
    story.read(32, scrape(31, 5, in_progress=1))
    assert story.window.stuck == Stuck(began, BEGIN + timedelta(seconds=31))
    assert story.read(62, scrape(61, 6, in_progress=1)).window.stuck == Stuck(
        *[BEGIN + timedelta(seconds=61)] * 2
    )


# ------------------------------------------------------------------------------------------- how often it is wrong


def verdicts(stable: float, canary: float, readings: int = 10, runs: int = 60) -> list[Phase]:
    """Roll out with these true error rates, at a tenth and at half of the traffic, again and again."""
    random = Random(f"{stable} {canary}")

    def errors(number: int, rate: float) -> int:
        return sum(random.random() < rate for _ in range(number))

    found = []
    for _ in range(runs):
        story = Story()
        for step, (of_canary, of_stable) in enumerate(((10, 90), (50, 50))):
            story.goes_to(step)
            for _ in range(readings):
                story.traffic((of_canary, errors(of_canary, canary)), (of_stable, errors(of_stable, stable)))
        found.append(story.verdict().phase)
    return found


def test_a_canary_as_good_as_stable_hardly_ever_fails() -> None:
    found = verdicts(0.01, 0.01, readings=30)
    assert found.count(Phase.FAILED) <= 1
    assert found.count(Phase.SUCCESSFUL) > 30


def test_a_canary_twice_as_far_off_as_allowed_never_passes() -> None:
    assert verdicts(0.01, 0.05, readings=30).count(Phase.SUCCESSFUL) <= 1


def test_a_canary_that_often_fails_is_nearly_always_found() -> None:
    assert verdicts(0.01, 0.15).count(Phase.FAILED) >= 59
