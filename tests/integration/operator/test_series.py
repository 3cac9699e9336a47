"""The operator's metrics beside what stands in the cluster: what a canary's series say, and that none stays."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story
from rollway_testing.tellings import ANALYSIS, CALLERS, PERSON
from rollway_testing.waiting import eventually

MANY: Final = 200

Samples = Mapping[tuple[str, ...], float]


def own(operator: OperatorProcess, namespace: str, name: str = "iris") -> Samples:
    """Read the samples of one ModelDeployment, by name and the values of its further labels in their order."""
    return {
        (
            sample.name.removeprefix("rollway_modeldeployment_"),
            *(sample.labels[label] for label in sorted(sample.labels.keys() - {"namespace", "name"})),
        ): sample.value
        for sample in operator.samples()
        if sample.labels.get("namespace") == namespace and sample.labels.get("name") == name
    }


def told(status: dict[str, Any]) -> Samples:
    """Say what Prometheus must read where this is the status of a canary that is judged."""
    stable, canary = status["stable"], status["canary"]
    samples = {
        ("phase", status["phase"]): 1.0,
        ("replicas", "stable"): status["replicas"],
        ("ready_replicas", "stable"): stable["readyReplicas"],
        ("ready_replicas", "canary"): canary["readyReplicas"],
        ("version_info", stable["revision"], "stable", stable["version"]): 1,
        ("version_info", canary["revision"], "canary", canary["version"]): 1,
        ("canary_weight_percent",): canary["weight"],
        ("step",): canary["currentStepIndex"],
        ("steps",): 2,
    }
    for one in status["conditions"]:
        if one["status"] != "Unknown":
            samples["condition", one["reason"], one["type"]] = one["status"] == "True"
    verdicts = {"Successful": "Pass", "Failed": "Fail", "Inconclusive": "Inconclusive"}
    for result in status["analysis"]["metricResults"]:
        lower, upper = result["interval"]
        limit = {"error-rate": 0.02, "latency-p99": 0.01}[result["name"]]
        numbers = {"value": result["value"], "lower": lower, "upper": upper, "threshold": limit}
        for name, number in (numbers | {"samples": result["samples"]}).items():
            samples[f"metric_{name}", result["name"]] = float(number)
        samples["metric_verdict", result["name"], verdicts[result["phase"]]] = 1
    return samples


def is_judged(status: dict[str, Any]) -> bool:
    results = status.get("analysis", {}).get("metricResults", ())
    return len(results) == 2 and all("interval" in result for result in results)


def test_a_canarys_series_are_what_its_status_says_and_go_with_it(
    operator: OperatorProcess, story: Story, model: RegisteredModel, api: Kubernetes
) -> None:
    steps = [{"setWeight": 50}, PERSON]
    story.ask(strategy={"canary": {"steps": steps}}, analysis=ANALYSIS, predictor={"replicas": 2})
    story.until_serving("1")
    first = ("rollouts_total", "Promoted", "GatesPassed")
    eventually(
        lambda: own(operator, story.namespace), lambda now: now.get(first) == 1, within=30, what="counted"
    )
    story.callers(CALLERS)
    model.point(model.add_version())
    story.until(
        lambda status: status.get("canary", {}).get("weight") == 50 and is_judged(status), "it is judged"
    )
    eventually(
        lambda: (told(story.status()), own(operator, story.namespace)),
        lambda both: both[0].items() <= both[1].items(),
        within=60,
        what="the series are what the status says",
        told=lambda both: both[0].items() - both[1].items(),
    )
    began = own(operator, story.namespace)["rollout_start_timestamp_seconds",]
    assert 0 < time.time() - began < 300

    story.say("promote-full", story.status()["canary"]["revision"])
    story.until_serving("2")
    ended = ("rollouts_total", "Promoted", "AnalysisSucceeded")
    by_a_person = ("rollouts_total", "Promoted", "Promoted")
    samples = eventually(
        lambda: own(operator, story.namespace),
        lambda now: now[ended] + now[by_a_person] == 1,
        within=30,
        what="the promotion is counted",
    )
    assert 0 < samples["promotion_seconds",] < 300
    assert samples["canary_weight_percent",] == 0
    assert not any(key[0] in ("step", "rollout_start_timestamp_seconds", "metric_value") for key in samples)
    passes = 'rollway_operator_reconcile_total{result="ok"}'
    before = operator.metric(passes)
    eventually(lambda: operator.metric(passes) >= before + 4, within=60, what="more passes")
    rollouts = {key: value for key, value in own(operator, story.namespace).items() if key[0] == ended[0]}
    assert rollouts == {key: value for key, value in samples.items() if key[0] == ended[0]}
    assert sum(rollouts.values()) == 2

    api.delete("ModelDeployment", story.name, story.namespace)
    eventually(
        lambda: own(operator, story.namespace), lambda now: not now, within=30, what="no series is left"
    )


def test_the_operator_tells_how_it_works(operator: OperatorProcess, registry: str) -> None:
    eventually(
        lambda: operator.metric(f'rollway_modelregistry_ready{{registry="{registry}"}}'),
        lambda ready: ready == 1,
        within=60,
        what="the registry is ready",
    )
    for verb, code in (("get", "200"), ("list", "200"), ("update", "200")):
        assert operator.metric(f'rollway_operator_api_requests_total{{code="{code}",verb="{verb}"}}') > 0
    assert operator.metric('rollway_operator_api_request_duration_seconds_count{verb="list"}') > 0
    assert (
        operator.metric(f'rollway_operator_registry_request_duration_seconds_count{{registry="{registry}"}}')
        > 0
    )
    assert 0 <= time.time() - operator.metric("rollway_operator_resync_timestamp_seconds") < 60
    assert any(sample.name == "rollway_operator_build_info" for sample in operator.samples())


def test_two_hundred_objects_that_come_and_go_leave_no_series(
    operator: OperatorProcess, api: Kubernetes, namespace: str
) -> None:
    def names() -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {(sample.name, frozenset(sample.labels.items())) for sample in operator.samples()}

    def made(number: int) -> dict[str, Any]:
        metadata = {"name": f"m{number}", "namespace": namespace}
        model = {"name": f"model-{number}", "alias": "champion", "registryRef": {"name": f"absent-{number}"}}
        kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelDeployment"}
        return {**kind, "metadata": metadata, "spec": {"model": model}}

    def of_ours() -> int:
        return sum(sample.labels.get("namespace") == namespace for sample in operator.samples())

    eventually(
        lambda: operator.metric('rollway_modelregistry_ready{registry="default"}') == 1,
        within=60,
        what="it works",
    )
    before = names()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: api.create(made(number)), range(MANY)))
        eventually(of_ours, lambda found: found >= MANY * 10, within=180, what="all have series")
        list(pool.map(lambda number: api.delete("ModelDeployment", f"m{number}", namespace), range(MANY)))
    eventually(of_ours, lambda found: found == 0, within=120, what="none is left")
    added = {name for name, labels in names() - before if "m1" in str(labels) or "absent" in str(labels)}
    assert added == set()
