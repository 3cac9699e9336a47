"""Canaries on a real cluster, behind a real Gateway and by counts of pods: what callers see of each version."""

import functools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from statistics import NormalDist
from typing import Any

import pytest

from rollway_cluster import jobs, judge
from rollway_cluster.demo import how_it_ended
from rollway_cluster.install import Installation
from rollway_cluster.report import table
from rollway_cluster.traefik import Gateway
from rollway_testing import models
from rollway_testing.scenario import Given, Scenario, Then, When, World
from rollway_testing.stories import condition
from rollway_testing.waiting import eventually, throughout

RATE = 10.0
STEPS = [{"setWeight": 20}, {"pause": {"duration": "5s"}}, {"setWeight": 50}, {"pause": {"duration": "5s"}}]
# Latencies on a machine that runs everything at once vary: three times stable's is slow without doubt.
ANALYSIS = {
    "metrics": [
        {"name": "error-rate", "thresholdRange": {"max": "0.05"}, "minSamples": 10},
        {"name": "latency-p99", "thresholdRange": {"max": "8"}, "minSamples": 10},
    ]
}
CANARY: dict[str, Any] = {"strategy": {"canary": {"steps": STEPS}}, "analysis": ANALYSIS}
WAITS: dict[str, Any] = {"strategy": {"canary": {"steps": [*STEPS[:1], {"pause": {}}]}}, "analysis": ANALYSIS}
WAITS_AT_HALF: dict[str, Any] = {"strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}}
LEAST = 5
"""An autoscaled model's pods."""
SECONDS_TO_END = 240.0
CONFIDENCE = 0.999


@dataclass(frozen=True)
class Bad:
    """A version that is bad in its own way, and the reasons with which it may end."""

    make: Callable[..., models.Artifact]
    reasons: frozenset[str]
    more: Mapping[str, Any] = field(default_factory=dict)
    refused: bool = False
    """It never gets traffic."""


BAD: Mapping[str, Bad] = {
    "slow": Bad(models.slow, frozenset({"AnalysisFailed"}), {"seconds": 1.0}),
    "erroring": Bad(models.erroring, frozenset({"AnalysisFailed"}), {"share": 0.5}),
    "crashing": Bad(models.crashing, frozenset({"CanaryRestarted"}), {"after": 3}),
    "eating memory": Bad(models.eating_memory, frozenset({"CanaryOomKilled"}), {"mebibytes": 64}),
    "hanging": Bad(models.hanging, frozenset({"CanaryStuck", "AnalysisFailed", "CanaryUnready"})),
    "of another signature": Bad(
        models.needing_another_column, frozenset({"SignatureIncompatible"}), refused=True
    ),
    "answering NaN": Bad(
        lambda folder, **_: models.answering_nan(folder), frozenset({"SmokeTestFailed"}), refused=True
    ),
    "never ready": Bad(
        lambda folder, **_: models.never_ready(folder),
        frozenset({"ProgressDeadlineExceeded"}),
        refused=True,
    ),
}
SAMPLED = ("erroring", "crashing")
"""What is tried without a Gateway, too, where ROLLWAY_THOROUGH is not set: the rules are the same."""


GATEWAY = pytest.param("gateway", marks=pytest.mark.gateway)
behind_a_gateway = pytest.mark.parametrize("through", [GATEWAY], indirect=True, scope="module")
by_counts_of_pods = pytest.mark.parametrize("through", ["ratio"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["ratio", GATEWAY])
def through(
    request: pytest.FixtureRequest, world: World, installer: Callable[..., Installation], routed: bool
) -> Iterator[Gateway | None]:
    """What shares the traffic: Traefik, or the counts of pods."""
    if request.param == "ratio":
        yield None
    elif routed:
        yield world.installation.gateway
    else:
        yield installer(request.getfixturevalue("gateway")).gateway
        installer()


def until_ended(scenario: Scenario, version: str = "2") -> dict[str, Any]:
    entry = eventually(
        lambda: how_it_ended(scenario.deployment("prices"), version),
        bool,
        within=SECONDS_TO_END,
        what=f"the rollout of v{version} ends",
        told=lambda _: scenario.status("prices"),
    )
    assert entry is not None
    return entry


def most(share: float, number: int) -> float:
    """The most successes of so many draws that chance explains."""
    z = NormalDist().inv_cdf(CONFIDENCE)
    return number * share + z * math.sqrt(number * share * (1 - share)) + 1


def test_a_good_version_is_promoted_through_its_steps(
    given: Given, when: When, then: Then, through: Gateway | None
) -> None:
    given.a_model(versions=2)
    given.a_deployment(**CANARY)
    with when.traffic_flows(gateway=through):
        when.the_alias_moves_to("2")
        then.it_settles_on("2", within=SECONDS_TO_END)
        then.it_has_pods(1)
    then.no_request_failed(answered_by={"1", "2"})
    entry = until_ended(given.scenario)
    assert (entry["outcome"], entry["reason"]) == ("Promoted", "AnalysisSucceeded")


def test_bad_versions_are_rolled_back_and_stable_fails_no_request(
    given: Given, when: When, scenario: Scenario, through: Gateway | None, say: Callable[[str], None]
) -> None:
    kinds = [kind for kind in BAD if not BAD[kind].refused]
    if through is None and not os.environ.get("ROLLWAY_THOROUGH"):
        kinds = list(SAMPLED)
    given.a_model()
    given.a_deployment(predictor={"timeout": "5s", "resources": {"limits": {"memory": "600Mi"}}}, **CANARY)
    with when.traffic_flows(rate=RATE, gateway=through, timeout=8):
        ends = told_one_by_one(scenario, kinds)
    tally = tally_of(scenario, ends, say)
    # Who gives no answer names nobody: no more may fail than canaries had of the traffic, and their last pods' time.
    lasted = sum(seconds_of(entry) for _, entry in ends.values())
    assert len(tally.failures) <= most(0.5, int(RATE * lasted)), tally.failures[:20]


@behind_a_gateway
def test_versions_that_fail_their_gates_never_get_traffic(
    given: Given, when: When, scenario: Scenario, through: Gateway, say: Callable[[str], None]
) -> None:
    given.a_model()
    given.a_deployment(progressDeadlineSeconds=45, **CANARY)
    with when.traffic_flows(rate=RATE, gateway=through):
        ends = told_one_by_one(scenario, [kind for kind in BAD if BAD[kind].refused])
    tally = tally_of(scenario, ends, say)
    assert tally.by_version.keys() == {"1"}
    assert not tally.failures, tally.failures[:20]


Ends = Mapping[str, tuple[str, Mapping[str, Any]]]
"""By the kind of a bad version: its number, and the entry of the history that says how it ended."""


def told_one_by_one(scenario: Scenario, kinds: Iterable[str]) -> Ends:
    """Have the alias move to one bad version after the other, each when the one before has ended."""
    ends = {}
    for number, kind in enumerate(kinds, 2):
        make = functools.partial(BAD[kind].make, number=number, **BAD[kind].more)
        version = scenario.given.a_version(make)
        scenario.when.the_alias_moves_to(version)
        ends[kind] = version, until_ended(scenario, version)
        scenario.then.it_goes_on_serving("1")
        assert [share["percent"] for share in scenario.status("prices")["traffic"]] == [100]
    return ends


def tally_of(scenario: Scenario, ends: Ends, say: Callable[[str], None]) -> judge.Tally:
    """Show what callers saw of each version; each ended for a reason of its kind, and stable failed nothing."""
    tally = scenario.tally
    assert tally is not None
    rows = [row(kind, *ends[kind], tally) for kind in ends]
    head = (
        "version",
        "ended as",
        "answered well",
        "failed",
        "seconds with traffic",
        "from the first bad answer",
    )
    for line in table(head, rows, right=(2, 3, 4, 5)):
        say(line)
    assert tally.failed_by.get("1", 0) == 0, tally.failures[:5]
    for kind, (_, entry) in ends.items():
        assert entry["outcome"] == "Aborted", f"{kind}: {entry}"
        assert entry["reason"] in BAD[kind].reasons, f"{kind}: {entry}"
    return tally


def row(kind: str, version: str, entry: Mapping[str, Any], tally: judge.Tally) -> tuple[str, ...]:
    first, last = tally.spans.get(version, (0.0, 0.0))
    well, badly = tally.by_version.get(version, 0), tally.failed_by.get(version, 0)
    bad = tally.failed_since.get(version, first)  # a slow version answers badly from its first answer on
    return kind, entry["reason"], str(well), str(badly), f"{last - first:.1f}", f"{last - bad:.1f}"


def seconds_of(entry: Mapping[str, Any]) -> float:
    """How long a rollout took."""
    started, finished = (datetime.fromisoformat(entry[key]) for key in ("startedAt", "finishedAt"))
    return (finished - started).total_seconds()


@behind_a_gateway
def test_malformed_requests_to_the_canary_alone_roll_nothing_back(
    given: Given, when: When, then: Then, through: Gateway
) -> None:
    given.a_model(versions=2)
    given.a_deployment(**WAITS)
    when.the_alias_moves_to("2")
    scenario = given.scenario
    url = f"{through.url}/seldon/{scenario.namespace}/prices/v2/models/prices/infer"
    with when.traffic_flows(gateway=through):
        held(scenario, "PauseStep")
        assert ask_badly(scenario, url, 200) == {400: 200}
        when.somebody_says("promote", scenario.status("prices")["canary"]["revision"])
        then.it_settles_on("2", within=SECONDS_TO_END)
    then.no_request_failed(answered_by={"1", "2"})


def held(scenario: Scenario, reason: str, name: str = "prices") -> None:
    """Wait until a canary waits for a person, or for proof."""
    scenario.then.it_says("Paused", True, reason, name=name, within=SECONDS_TO_END)


ASK_BADLY = """
import collections, json, sys, urllib.error, urllib.request
said = collections.Counter()
for _ in range(int(sys.argv[2])):
    headers = {"x-rollway-track": "canary", "content-type": "application/json"}
    request = urllib.request.Request(sys.argv[1], b'{"inputs": [{"name": "age"}]}', headers)
    try:
        said[urllib.request.urlopen(request, timeout=5).status] += 1
    except urllib.error.HTTPError as error:
        said[error.code] += 1
print(json.dumps(said))
"""


def ask_badly(scenario: Scenario, url: str, times: int) -> dict[int, int]:
    """Send what no model takes to the canary alone; gives how often each status came back."""
    world = scenario.world
    command = ["python", "-c", ASK_BADLY, url, str(times)]
    pod = jobs.pod(world.installation.images["training"], command, {})
    (said,) = jobs.run(world.client, scenario.namespace, "ask-badly", pod)
    return {int(status): count for status, count in said.items()}


@behind_a_gateway
@pytest.mark.parametrize("on_inconclusive", ["Pause", "Promote", "Abort"])
def test_without_requests_it_holds_then_does_as_it_was_told(
    given: Given, when: When, then: Then, scenario: Scenario, through: Gateway, on_inconclusive: str
) -> None:
    given.a_model(versions=2)
    judged = ANALYSIS | {"deadline": "25s", "onInconclusive": on_inconclusive}
    given.a_deployment(**CANARY | {"analysis": judged})
    when.the_alias_moves_to("2")
    held(scenario, "EvidenceMissing")
    if on_inconclusive == "Pause":
        held(scenario, "AnalysisInconclusive")
        then.an_event_says("AnalysisInconclusive", "rollway.dev/promote=")
    elif on_inconclusive == "Promote":
        then.it_settles_on("2", within=SECONDS_TO_END)
    else:
        assert until_ended(scenario)["reason"] == "DeadlineExceeded"
        assert "rejected" not in scenario.status("prices")
        then.it_goes_on_serving("1", seconds=10)
        assert "canary" not in scenario.status("prices")


@behind_a_gateway
def test_weights_are_true(
    given: Given, when: When, scenario: Scenario, through: Gateway, say: Callable[[str], None]
) -> None:
    requests = 10_000 if os.environ.get("ROLLWAY_THOROUGH") else 2_000
    weights = (1, 10, 50, 99)
    given.a_model(versions=2)
    steps: list[dict[str, Any]] = []
    for weight in weights:
        steps += [{"setWeight": weight}, {"pause": {}}]
    given.a_deployment(**CANARY | {"strategy": {"canary": {"steps": steps}}})
    when.the_alias_moves_to("2")
    rows = []
    for weight in weights:
        in_force(scenario, weight)
        with when.traffic_flows(rate=100, gateway=through) as traffic:
            eventually(
                lambda: len(traffic.lines),
                lambda sent: sent >= requests,
                within=600,
                what="requests are sent",
            )
        tally = scenario.tally
        assert tally is not None
        assert not tally.failures, tally.failures[:5]
        got, sent = tally.by_version["2"], tally.sent
        rows.append((f"{weight} %", str(sent), f"{100 * got / sent:.2f} %"))
        share = weight / 100
        assert sent - most(1 - share, sent) <= got <= most(share, sent), rows
        revision = scenario.status("prices")["canary"]["revision"]
        when.somebody_says("promote", f"{revision}/from-{weight}")
    for line in table(("weight", "requests", "answered by the canary"), rows):
        say(line)


def in_force(scenario: Scenario, weight: int) -> None:
    """Wait until a canary has its weight, and the step's time runs."""
    eventually(
        lambda: scenario.status("prices").get("canary", {}),
        lambda canary: canary.get("weight") == weight and "stepStartedAt" in canary,
        within=SECONDS_TO_END,
        what=f"the weight {weight} is in force",
    )


@by_counts_of_pods
@pytest.mark.usefixtures("through")
def test_without_a_gateway_new_connections_are_shared_as_the_pods_are(
    given: Given, when: When, then: Then, scenario: Scenario, say: Callable[[str], None]
) -> None:
    steps = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]
    given.a_model(versions=2)
    given.a_deployment(predictor={"replicas": 3}, strategy={"canary": {"steps": steps}}, analysis=ANALYSIS)
    when.the_alias_moves_to("2")
    rows = []
    for weight, percent in ((25, 25), (60, 50)):
        in_force(scenario, weight)
        with when.traffic_flows(rate=60) as traffic:
            eventually(
                lambda: len(traffic.lines), lambda sent: sent >= 2000, within=120, what="requests are sent"
            )
        tally, status = scenario.tally, scenario.status("prices")
        assert tally is not None
        assert not tally.failures, tally.failures[:5]
        assert {share["version"]: share["percent"] for share in status["traffic"]}["2"] == percent
        fresh = [line["version"] for line in traffic.lines if line["mode"].endswith("fresh")]
        got, sent = fresh.count("2"), len(fresh)
        rows.append((f"{weight} %", f"{percent} %", str(sent), f"{100 * got / sent:.1f} %"))
        assert sent - most(1 - percent / 100, sent) <= got <= most(percent / 100, sent), rows
        when.somebody_says("promote", f"{status['canary']['revision']}/from-{weight}")
    then.an_event_says("WeightApproximated")
    for line in table(("weight", "said", "fresh connections", "answered by the canary"), rows):
        say(line)


@behind_a_gateway
def test_one_tenant_reaches_no_other(given: Given, when: When, scenario: Scenario, through: Gateway) -> None:
    given.a_model(versions=1)
    given.a_deployment()
    neighbour = Scenario(scenario.world, f"{scenario.namespace[:30]}-x", scenario.folder / "x")
    with neighbour.running():
        neighbour.given.a_model(versions=2)
        neighbour.when.the_alias_moves_to("2")
        neighbour.given.a_deployment(serving="2")
        with when.traffic_flows(gateway=through), neighbour.when.traffic_flows(gateway=through):
            throughout(lambda: True, bool, seconds=5, what="both send")
        scenario.then.no_request_failed(answered_by={"1"})
        neighbour.then.no_request_failed(answered_by={"2"})
        neighbour.when.the_spec_changes({"route": {"hosts": ["models.example.com"]}})
        neighbour.then.it_says("Stalled", True, "HostNotPermitted", "spec.route.hosts")


@contextmanager
def fewest_ready(scenario: Scenario) -> Iterator[Callable[[], int]]:
    """Look every half a second how many pods are ready; gives the fewest, of both revisions together."""
    seen, over = [LEAST], threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            pods = scenario.children("Pod")
            seen.append(sum(condition(pod["status"], "Ready").get("status") == "True" for pod in pods))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: min(seen)
    finally:
        over.set()
        looking.join()


@pytest.mark.thorough
@behind_a_gateway
@pytest.mark.parametrize("ends", ["promoted", "aborted"])
def test_an_autoscaled_model_never_has_fewer_pods_than_it_began_with(
    given: Given, when: When, then: Then, scenario: Scenario, through: Gateway, ends: str
) -> None:

    def scalers() -> list[Any]:
        return scenario.children("HorizontalPodAutoscaler")

    scaling = {"autoscaling": {"minReplicas": LEAST, "maxReplicas": LEAST + 3}}
    predictor = {"replicas": LEAST, "resources": {"requests": {"cpu": "50m"}}}
    given.a_model(versions=2)
    given.a_deployment(predictor=predictor | scaling, **WAITS_AT_HALF)
    with when.traffic_flows(gateway=through), fewest_ready(scenario) as fewest:
        when.the_alias_moves_to("2")
        held(scenario, "PauseStep")
        canary = scenario.status("prices")["canary"]["revision"]
        when.the_spec_changes({"predictor": {"autoscaling": None}})
        eventually(
            scalers,
            lambda found: not found,
            within=60,
            what="no scaler",
        )
        when.the_spec_changes({"predictor": scaling})
        if ends == "promoted":
            when.somebody_says("promote", canary)
            then.it_settles_on("2", within=SECONDS_TO_END)
        else:
            when.somebody_says("abort", canary)
            then.it_settles_on("1", within=SECONDS_TO_END)
        eventually(
            lambda: [scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers()],
            lambda scaled: scaled == [scenario.status("prices")["stable"]["revision"]],
            within=30,
            what="the scaler scales stable",
        )
    then.no_request_failed(answered_by={"1", "2"})
    assert fewest() >= LEAST


def test_blue_green_shows_the_new_version_then_flips(
    given: Given, when: When, then: Then, scenario: Scenario, through: Gateway | None
) -> None:
    given.a_model(versions=2)
    given.a_deployment(strategy={"blueGreen": {"autoPromotion": False, "scaleDownDelaySeconds": 2}})
    with when.traffic_flows(gateway=through):
        when.the_alias_moves_to("2")
        held(scenario, "AwaitingPromote")
        preview = scenario.world.kubernetes.get("Service", "prices-preview", scenario.namespace)
        assert preview is not None
        revision = scenario.status("prices")["canary"]["revision"]
        assert preview["spec"]["selector"]["rollway.dev/revision"] == revision
        when.somebody_says("promote", revision)
        then.it_settles_on("2", within=SECONDS_TO_END)
        then.only_stable_has_pods()
    then.no_request_failed(answered_by={"1", "2"})
