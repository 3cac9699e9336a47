"""What Prometheus reads of ModelDeployments and ModelRegistries."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rollway_operator.domain import Key
from rollway_operator.series import Series

IRIS = Key("team-a", "iris")
PROMOTED = {
    "revision": "iris-1",
    "version": "1",
    "outcome": "Promoted",
    "reason": "GatesPassed",
    "startedAt": "2026-01-01T12:00:05Z",
    "finishedAt": "2026-01-01T12:01:00Z",
}
ABORTED = PROMOTED | {
    "revision": "iris-2",
    "version": "2",
    "outcome": "Aborted",
    "reason": "AnalysisFailed",
    "finishedAt": "2026-01-01T13:00:00Z",
}
ERROR_RATE = {
    "name": "error-rate",
    "phase": "Inconclusive",
    "value": "0.001",
    "interval": ["-0.004", "0.011"],
    "threshold": "<= 0.02",
    "samples": 412,
}
LATENCY = {
    "name": "latency-p99",
    "phase": "Successful",
    "value": "0.001",
    "interval": ["0", "0.004"],
    "threshold": "< 0.01 slower than 0.25 s",
    "samples": 412,
}


def condition(type_: str, status: str, reason: str) -> dict[str, Any]:
    told = {"type": type_, "status": status, "reason": reason, "message": "secret words"}
    return told | {"observedGeneration": 1, "lastTransitionTime": "2026-01-01T12:00:00Z"}


AT_REST: dict[str, Any] = {
    "phase": "Healthy",
    "message": "v1: 2 of 2 pods ready",
    "model": {"name": "fraud", "targetRevision": "iris-1", "targetSince": "2026-01-01T12:00:00Z"},
    "stable": {"revision": "iris-1", "version": "1", "readyReplicas": 2},
    "replicas": 3,
    "readyReplicas": 2,
    "history": [PROMOTED],
    "conditions": [
        condition("Ready", "True", "PodsReady"),
        condition("ModelResolved", "False", "AliasNotFound"),
    ],
}
A_CANARY: dict[str, Any] = AT_REST | {
    "phase": "Progressing",
    "canary": {
        "revision": "iris-2",
        "version": "2",
        "readyReplicas": 1,
        "startedAt": "2026-01-01T12:30:00Z",
        "weight": 10,
        "currentStepIndex": 1,
    },
    "analysis": {"phase": "Running", "metricResults": [ERROR_RATE, LATENCY]},
}


class World:
    """Bodies as the API server gives them, and what is read of them."""

    def __init__(self) -> None:
        self.series = Series()
        self.registry = CollectorRegistry()
        self.registry.register(self.series)
        self.version = 0

    def body(
        self,
        status: Mapping[str, Any],
        *,
        name: str = "iris",
        uid: str = "u",
        model: str = "fraud",
        **spec: Any,
    ) -> dict[str, Any]:
        self.version += 1
        metadata = {"namespace": "team-a", "name": name, "uid": uid, "resourceVersion": str(self.version)}
        predictor = {"runtime": "mlserver", "replicas": 3}
        asked = {"model": {"name": model, "alias": "champion"}, "predictor": predictor} | spec
        return {"metadata": metadata, "spec": asked, "status": status}

    def see(self, status: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        body = self.body(status, **more)
        self.series.deployment_seen(body)
        return body

    def see_registry(self, *conditions: dict[str, Any], name: str = "default") -> None:
        self.series.registry_seen({"metadata": {"name": name}, "status": {"conditions": list(conditions)}})

    def read(self, name: str, /, **labels: str) -> float | None:
        key = {"namespace": "team-a", "name": "iris"}
        return self.registry.get_sample_value(f"rollway_modeldeployment_{name}", key | labels)

    def samples(self, name: str = "") -> dict[tuple[str, ...], float]:
        """Give every sample, by its name and the values of its own labels."""
        return {
            (
                sample.name.removeprefix("rollway_modeldeployment_"),
                *(value for label, value in sample.labels.items() if label not in ("namespace", "name")),
            ): sample.value
            for family in self.series.collect()
            for sample in family.samples
            if sample.name.endswith(name)
        }

    def ended(self) -> dict[tuple[str, ...], float]:
        return {key[1:]: value for key, value in self.samples("rollouts_total").items() if value}


@pytest.fixture
def world() -> World:
    return World()


def test_at_rest_there_are_phase_version_pods_and_conditions_and_nothing_of_a_rollout(world: World) -> None:
    world.see(AT_REST)
    zeros = {key: value for key, value in world.samples().items() if key[0] == "rollouts_total"}
    assert set(zeros.values()) == {0}
    assert {key: value for key, value in world.samples().items() if key not in zeros} == {
        ("info", "fraud", "champion", "default", "mlserver", "canary", "true"): 1,
        ("phase", "Pending"): 0,
        ("phase", "Progressing"): 0,
        ("phase", "Paused"): 0,
        ("phase", "Healthy"): 1,
        ("phase", "Degraded"): 0,
        ("condition", "Ready", "PodsReady"): 1,
        ("condition", "ModelResolved", "AliasNotFound"): 0,
        ("version_info", "stable", "1", "iris-1"): 1,
        ("replicas", "stable"): 3,
        ("ready_replicas", "stable"): 2,
        ("canary_weight_percent",): 0,
        ("promotion_seconds",): 60,
    }


def test_a_canary_adds_its_version_its_place_and_what_each_metric_says(world: World) -> None:
    world.see(AT_REST)
    before = world.samples()
    world.see(A_CANARY)
    now = world.samples()
    assert {key: value for key, value in now.items() if before.get(key) != value} == {
        ("phase", "Progressing"): 1,
        ("phase", "Healthy"): 0,
        ("version_info", "canary", "2", "iris-2"): 1,
        ("ready_replicas", "canary"): 1,
        ("canary_weight_percent",): 10,
        ("step",): 1,
        ("steps",): 4,
        ("rollout_start_timestamp_seconds",): 1767270600,
        ("metric_value", "error-rate"): 0.001,
        ("metric_lower", "error-rate"): -0.004,
        ("metric_upper", "error-rate"): 0.011,
        ("metric_threshold", "error-rate"): 0.02,
        ("metric_samples", "error-rate"): 412,
        ("metric_verdict", "error-rate", "Pass"): 0,
        ("metric_verdict", "error-rate", "Fail"): 0,
        ("metric_verdict", "error-rate", "Inconclusive"): 1,
        ("metric_value", "latency-p99"): 0.001,
        ("metric_lower", "latency-p99"): 0,
        ("metric_upper", "latency-p99"): 0.004,
        ("metric_threshold", "latency-p99"): 0.01,
        ("metric_samples", "latency-p99"): 412,
        ("metric_verdict", "latency-p99", "Pass"): 1,
        ("metric_verdict", "latency-p99", "Fail"): 0,
        ("metric_verdict", "latency-p99", "Inconclusive"): 0,
    }
    world.see(AT_REST)
    assert world.samples() == before


def test_the_steps_are_those_of_the_spec_and_only_a_canary_has_any(world: World) -> None:
    world.see(A_CANARY, strategy={"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}})
    assert world.read("steps") == 2
    world.see(A_CANARY, strategy={"blueGreen": {}})
    assert world.read("steps") is world.read("step") is None
    assert world.read("rollout_start_timestamp_seconds") == 1767270600


def test_a_metric_without_numbers_has_none_but_a_verdict(world: World) -> None:
    few = {"name": "error-rate", "phase": "Inconclusive", "samples": 0, "reason": "NoData"}
    world.see(A_CANARY | {"analysis": {"phase": "Running", "metricResults": [few]}})
    named = {key for key in world.samples() if key[0].startswith("metric_")}
    assert {key[0] for key in named} == {"metric_samples", "metric_verdict"}
    assert world.read("metric_verdict", metric="error-rate", verdict="Inconclusive") == 1


def test_what_is_no_number_in_a_status_is_no_sample(world: World) -> None:
    forged = ERROR_RATE | {"value": "many", "interval": ["nan", "inf"], "threshold": "<="}
    world.see(A_CANARY | {"analysis": {"phase": "Running", "metricResults": [forged]}})
    assert {key[0] for key in world.samples() if key[0].startswith("metric_")} == {
        "metric_samples",
        "metric_verdict",
    }


def test_a_status_that_cannot_be_read_has_no_series_and_hinders_no_other(world: World) -> None:
    world.see(AT_REST)
    world.see(AT_REST, name="other")
    world.see(AT_REST | {"phase": "Splendid"})
    assert world.read("phase", phase="Healthy") is None
    assert world.read("phase", name="other", phase="Healthy") == 1


HOSTILE = 'a"b\\c\nrollway_leader 7\n{x="y"} é'


def test_hostile_names_stay_within_their_label(world: World) -> None:
    world.see(AT_REST, model=HOSTILE)
    families = text_string_to_metric_families("\n".join(_lines(world)) + "\n")
    told = {family.name: family.samples for family in families}
    assert [info.labels["model"] for info in told["rollway_modeldeployment_info"]] == [HOSTILE]
    assert "rollway_leader" not in told


def test_no_message_is_in_any_label(world: World) -> None:
    world.see(A_CANARY)
    assert not any("secret" in line or "pods ready" in line for line in _lines(world))


def _lines(world: World) -> list[str]:
    return generate_latest(world.registry).decode().splitlines()


# -------------------------------------------------------------------------------------------------------------- counts


def test_a_rollout_that_ends_is_counted_once_however_often_it_is_seen(world: World) -> None:
    world.see(A_CANARY)
    assert world.ended() == {}
    ended = AT_REST | {"history": [PROMOTED, ABORTED]}
    for _ in range(3):
        world.series.deployment_seen(world.see(ended))
    assert world.ended() == {("Aborted", "AnalysisFailed"): 1}


def test_what_ended_before_the_process_saw_it_is_not_counted(world: World) -> None:
    world.see(AT_REST | {"history": [PROMOTED, ABORTED]})
    assert world.ended() == {}


def test_the_first_promotion_of_a_new_object_is_counted(world: World) -> None:
    world.see({})
    world.see(AT_REST)
    assert world.ended() == {("Promoted", "GatesPassed"): 1}


def test_a_list_that_is_older_than_an_event_makes_nothing_count_again(world: World) -> None:
    world.see(AT_REST)
    ended = AT_REST | {"history": [PROMOTED, ABORTED]}
    world.see(ended)
    world.see(AT_REST)
    world.see(ended)
    assert world.ended() == {("Aborted", "AnalysisFailed"): 1}


def test_neither_a_lost_status_nor_a_long_history_makes_anything_count_again(world: World) -> None:
    world.see({})
    history: list[dict[str, Any]] = []
    for number in range(30):
        history.append(ABORTED | {"finishedAt": f"2026-01-01T13:00:{number:02}Z"})
        world.see(AT_REST | {"history": history[-10:]})
    world.see({})
    world.see(AT_REST | {"history": history[-10:]})
    assert world.ended() == {("Aborted", "AnalysisFailed"): 30}


def test_another_object_of_the_same_name_begins_at_0(world: World) -> None:
    world.see({})
    world.see(AT_REST)
    world.see({}, uid="another")
    assert world.ended() == {}
    assert world.read("promotion_seconds") is None


def test_the_last_promotions_time_stays_while_another_version_is_tried(world: World) -> None:
    world.see(AT_REST)
    target = {"name": "fraud", "targetRevision": "iris-2", "targetSince": "2026-01-01T12:29:00Z"}
    world.see(A_CANARY | {"model": target})
    assert world.read("promotion_seconds") == 60
    promoted = PROMOTED | {"revision": "iris-2", "finishedAt": "2026-01-01T12:34:00Z"}
    world.see(AT_REST | {"model": target, "history": [PROMOTED, promoted]})
    assert world.read("promotion_seconds") == 300


# ------------------------------------------------------------------------------------------------ what goes, and when


def test_two_hundred_objects_that_come_and_go_leave_nothing(world: World) -> None:
    for number in range(200):
        world.see(A_CANARY, name=f"m{number}", model=f"model-{number}")
        world.see_registry(condition("Ready", "True", "Reachable"), name=f"r{number}")
    assert len(world.samples("ready")) == 200
    assert len(_lines(world)) > 200 * 30
    for number in range(200):
        world.series.deployment_gone(Key("team-a", f"m{number}"))
        world.series.registry_gone(f"r{number}")
    assert world.samples() == {}


def test_who_no_longer_leads_has_no_series_and_counts_anew(world: World) -> None:
    world.see({})
    world.see(AT_REST)
    world.see_registry(condition("Ready", "True", "Reachable"))
    world.series.clear()
    assert world.samples() == {}
    world.see(AT_REST)
    assert world.ended() == {}


@pytest.mark.parametrize(("status", "value"), [("True", 1), ("False", 0), ("Unknown", None)])
def test_a_registry_is_ready_as_its_condition_says(world: World, status: str, value: float | None) -> None:
    world.see_registry(condition("Ready", "True", "Reachable"))
    world.see_registry(condition("Ready", status, "Whatever"))
    assert world.registry.get_sample_value("rollway_modelregistry_ready", {"registry": "default"}) == value


def test_it_is_read_by_another_thread_while_it_changes(world: World) -> None:
    problems: list[Exception] = []
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            try:
                for family in world.series.collect():
                    assert len({tuple(sample.labels.values()) for sample in family.samples}) == len(
                        family.samples
                    )
            except Exception as error:  # noqa: BLE001 - told by the test
                problems.append(error)
                return

    scraping = threading.Thread(target=scrape)
    scraping.start()
    for number in range(1000):
        world.see(A_CANARY, name=f"m{number % 50}")
        world.series.deployment_gone(Key("team-a", f"m{(number + 25) % 50}"))
    done.set()
    scraping.join()
    assert problems == []


def test_all_that_is_collected_was_described(world: World) -> None:
    world.see(A_CANARY)
    described = {family.name: family.type for family in world.series.describe()}
    assert {family.name: family.type for family in world.series.collect()} == described
