"""Roll-outs from first apply to rest, in a pretended cluster with the test's own clock."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollway_operator import labels, manifests
from rollway_testing.world import RUNTIME, Nature, World, digest_of


def holds(world: World, type_: str) -> bool:
    condition = world.condition(type_)
    return condition is not None and condition["status"] == "True"


def test_the_first_version_gets_traffic_only_once_it_is_ready() -> None:
    world = World().serving_by(2)
    world.reconcile()
    assert world.flips == []
    assert world.condition("Ready") is not None
    assert not holds(world, "Ready")
    world.settle()
    assert world.flips == [(world.serving, 2)]
    assert world.status["stable"]["version"] == "1"
    assert world.status["phase"] == "Healthy"
    assert holds(world, "Ready")
    assert world.condition("Reconciling") is None


def test_a_new_revision_begins_with_one_pod_and_is_pinned_before_the_second() -> None:
    world = World().serving_by(3)
    counts = []
    for _ in range(10):
        world.reconcile()
        (name,) = (name for kind, name in world.objects if kind == "Deployment")
        pinned = world.objects[("ConfigMap", name)]["data"]["digest"]
        counts.append((world.replicas(name), pinned))
        world.tick()
    assert (1, "") in counts
    assert {pinned for count, pinned in counts if count > 1} == {digest_of("1")}


@pytest.mark.parametrize(
    ("input_example", "golden", "skipped"), [(True, None, False), (False, None, True), (False, "[]", False)]
)
def test_gates_that_have_nothing_to_ask_the_model_are_told(
    input_example: bool, golden: str | None, skipped: bool
) -> None:
    world = World(input_example=input_example, golden=golden)
    if golden:
        world.edit(preTraffic={"smokeTest": {"source": "ConfigMap", "configMapRef": {"name": "golden"}}})
    world.settle()
    artifact = world.condition("ArtifactVerified")
    assert artifact
    assert artifact["message"].endswith("the model has no input example") is skipped


def test_the_alias_moves_and_the_old_version_serves_until_the_new_one_is_complete() -> None:
    world = World().serving_by(2)
    world.settle()
    old = world.serving
    world.target = "2"
    world.settle()
    assert world.served_version == "2"
    assert world.flips[-1] == (world.serving, 2)
    assert old
    assert world.replicas(old) == 0
    assert world.events == ["VersionResolved", "RolloutStarted", "ArtifactVerified", "Promoted"] * 2


def test_an_unconfirmed_target_changes_nothing() -> None:
    world = World()
    world.settle()
    world.target = "2"
    confirmed = world.resolution
    world.resolution = lambda: replace(confirmed(), confirmed=False)  # type: ignore[method-assign]
    world.settle()
    assert world.served_version == "1"
    world.resolution = confirmed  # type: ignore[method-assign]
    world.settle()
    assert world.served_version == "2"


@pytest.mark.parametrize(
    "reason", ["RegistryUnreachable", "AliasNotFound", "VersionNotFound", "RegistryNotPermitted"]
)
def test_a_registry_in_trouble_takes_nothing_down(reason: str) -> None:
    world = World()
    world.settle()
    serving = world.serving
    world.trouble = reason
    world.settle()
    assert world.serving == serving
    assert holds(world, "Ready")
    resolved = world.condition("ModelResolved")
    assert resolved
    assert (resolved["status"], resolved["reason"]) == ("False", reason)
    assert world.status["phase"] == "Healthy"
    world.trouble = None
    world.settle()
    assert holds(world, "ModelResolved")


def test_the_registry_may_fail_in_the_middle_of_a_rollout() -> None:
    world = World()
    world.settle()
    world.target = "2"
    world.reconcile()
    world.trouble = "RegistryUnreachable"
    world.settle()
    assert world.served_version == "2"


def test_a_changed_spec_rolls_out_while_the_registry_is_down() -> None:
    world = World()
    world.settle()
    before = world.serving
    world.trouble = "RegistryUnreachable"
    world.edit(predictor={"replicas": 1, "timeout": "10s"})
    world.settle()
    assert world.serving != before
    assert world.served_version == "1"


@pytest.mark.parametrize(
    ("nature", "reason"),
    [
        (Nature.BROKEN, "SmokeTestFailed"),
        (Nature.CRASHING, "CanaryRestarted"),
        (Nature.HANGING, "ProgressDeadlineExceeded"),
    ],
)
def test_a_broken_version_never_gets_traffic_and_status_says_why(nature: Nature, reason: str) -> None:
    world = World(natures={"2": nature})
    world.edit(progressDeadlineSeconds=30)
    world.settle()
    world.target = "2"
    world.settle()
    world.tick(60)  # a hanging model is at rest, too, until its deadline
    world.settle()
    assert world.served_version == "1"
    assert holds(world, "Ready")
    stalled = world.condition("Stalled")
    assert stalled
    assert stalled["reason"] == reason
    assert "v2" in world.status["message"]
    assert "v1 serves" in world.status["message"]
    assert "canary" not in world.status
    assert [pod.revision for pod in world.pods] == [world.serving]
    world.target = "3"
    world.settle()
    assert world.served_version == "3"
    assert world.condition("Stalled") is None


def test_a_closed_version_stays_closed_when_the_target_moves_away_and_back() -> None:
    world = World(natures={"2": Nature.BROKEN})
    world.settle()
    for target in ("2", "1", "2"):
        world.target = target
        world.settle()
    assert world.events.count("RolloutStarted") == 2
    assert world.served_version == "1"


def test_a_changed_spec_opens_a_closed_version() -> None:
    world = World(natures={"2": Nature.BROKEN})
    world.settle()
    world.target = "2"
    world.settle()
    world.natures["2"] = Nature.GOOD
    world.edit(preTraffic={"smokeTest": {"source": "Disabled"}})
    world.settle()
    assert world.served_version == "2"


def test_a_broken_first_version_is_degraded() -> None:
    world = World(natures={"1": Nature.BROKEN})
    world.settle()
    assert world.serving is None
    assert world.status["phase"] == "Degraded"
    assert world.status["message"] == "v1: NaN in row 0"


def test_an_outage_of_the_store_is_waited_out_even_beyond_the_deadline() -> None:
    world = World(natures={"2": Nature.UNFETCHABLE})
    world.edit(progressDeadlineSeconds=30)
    world.settle()
    world.target = "2"
    for _ in range(60):
        world.reconcile()
        world.tick()
    stalled = world.condition("Stalled")
    assert stalled
    assert stalled["reason"] == "ProgressDeadlineExceeded"
    assert "the store does not answer" in stalled["message"]
    world.natures["2"] = Nature.GOOD
    world.settle()  # also: a server that only now began to load is not called stuck
    assert world.served_version == "2"
    assert world.condition("Stalled") is None


def test_the_target_moves_on_in_the_middle_of_a_rollout() -> None:
    world = World(natures={"2": Nature.UNFETCHABLE})
    world.settle()
    world.target = "2"
    world.reconcile()
    world.tick()
    world.target = "3"
    world.settle()
    assert world.served_version == "3"
    assert sorted(pod.revision for pod in world.pods) == [world.serving]


def test_the_target_moves_back_in_the_middle_of_a_rollout() -> None:
    world = World(natures={"2": Nature.UNFETCHABLE})
    world.settle()
    stable = world.serving
    world.target = "2"
    world.reconcile()
    world.tick()
    world.target = "1"
    world.settle()
    assert world.serving == stable
    assert len(world.flips) == 1
    assert world.condition("Stalled") is None


def test_replicas_change_by_scale_alone() -> None:
    world = World()
    world.settle()
    serving, revisions = world.serving, len(world.observed().revisions)
    assert serving
    world.edit(predictor={"replicas": 3})
    world.settle()
    assert world.ready(serving) == 3
    world.edit(predictor={"replicas": 1})
    world.settle()
    assert world.ready(serving) == 1
    assert world.serving == serving
    assert len(world.observed().revisions) == revisions


def test_a_tampered_pod_of_stable_is_not_counted_and_stable_serves_on() -> None:
    world = World()
    world.settle()
    world.pods.append(replace(world.pods[0], name="tampered", digest="sha256:" + "f" * 64))
    plan = world.plan()
    assert plan.status["readyReplicas"] == 1


def test_a_candidate_with_other_bytes_than_pinned_is_dropped() -> None:
    world = World().serving_by(2)
    world.settle()
    world.target = "2"
    while len([pod for pod in world.pods if pod.revision != world.serving and pod.digest]) < 2:
        world.reconcile()
        world.tick()
    last = world.pods[-1]
    world.pods[-1] = replace(last, digest="sha256:" + "f" * 64)
    world.reconcile()
    stalled = world.condition("Stalled")
    assert stalled
    assert stalled["reason"] == "DigestMismatch"
    assert world.served_version == "1"


def test_recreate_stops_the_old_version_before_it_starts_the_new_one() -> None:
    world = World()
    world.edit(strategy={"recreate": {}})
    world.settle()
    old = world.serving
    world.target = "2"
    for _ in range(30):
        world.reconcile()
        world.tick()
        assert len({pod.revision for pod in world.pods}) <= 1
    assert world.served_version == "2"
    assert world.serving != old


def test_recreate_brings_the_old_version_back_when_the_new_one_is_broken() -> None:
    world = World(natures={"2": Nature.BROKEN})
    world.edit(strategy={"recreate": {}})
    world.settle()
    world.target = "2"
    for _ in range(30):
        world.reconcile()
        world.tick()
        assert len({pod.revision for pod in world.pods}) <= 1
        assert world.served_version == "1"
    assert holds(world, "Ready")
    assert holds(world, "Stalled")


def test_a_new_runtime_image_alone_makes_no_revision() -> None:
    world = World()
    world.settle()
    pods, revisions = list(world.pods), world.observed().revisions
    world.runtimes["mlserver"] = replace(RUNTIME, image="rollway/mlserver@sha256:" + "1" * 64)
    world.settle()
    assert world.pods == pods
    assert world.observed().revisions == revisions
    world.target = "2"
    world.settle()
    newest = max(world.observed().revisions, key=lambda revision: revision.number)
    assert newest.inputs["image"].endswith("1" * 64)


def test_a_newer_operator_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.settle()
    before = dict(world.objects)
    monkeypatch.setattr(manifests, "DEFAULT_TIMEOUT", "60s")
    monkeypatch.setattr(
        manifests, "revision_name", lambda name, _chosen, taken: f"{name}-new{len(list(taken))}"
    )
    rendered = manifests.pod_template
    monkeypatch.setattr(
        manifests, "pod_template", lambda *a: {**rendered(*a), "metadata": {"labels": {"new": "yes"}}}
    )
    world.settle()
    assert world.objects == before
    world.target = "2"
    world.settle()
    assert world.serving == "fraud-new1"
    assert world.objects[("Deployment", "fraud-new1")]["spec"]["template"]["metadata"]["labels"] == {
        "new": "yes"
    }


def test_old_revisions_are_kept_up_to_the_limit() -> None:
    world = World()
    world.edit(revisionHistoryLimit=2)
    for version in ("1", "2", "3", "4", "5"):
        world.target = version
        world.settle()
    kept = sorted(revision.version for revision in world.observed().revisions)
    assert kept == ["3", "4", "5"]
    assert len([kind for kind, _ in world.objects if kind == "Deployment"]) == 3


def test_going_back_uses_the_old_revision_again() -> None:
    world = World()
    world.settle()
    first = world.serving
    for version in ("2", "1"):
        world.target = version
        world.settle()
    assert world.serving == first
    assert len(world.observed().revisions) == 2


def test_an_unknown_runtime_is_told_with_those_that_exist() -> None:
    world = World()
    world.edit(predictor={"runtime": "triton"})
    world.settle()
    stalled = world.condition("Stalled")
    assert stalled
    assert stalled["reason"] == "RuntimeNotFound"
    assert "spec.predictor.runtime" in stalled["message"]
    assert "mlserver" in stalled["message"]


def test_at_rest_a_pass_writes_nothing_however_much_time_passes() -> None:
    world = World()
    world.settle()
    world.now += timedelta(days=7)
    assert world.reconcile() == 0


def test_equal_inputs_give_equal_plans() -> None:
    world = World()
    world.reconcile()
    assert world.plan() == world.plan()


def test_a_service_is_not_pointed_back_at_a_stable_without_pods() -> None:
    world = World()
    world.settle()
    world.target = "2"
    world.settle()
    service = world.objects[("Service", "fraud")]
    stable = world.serving
    world.objects[("Service", "fraud")] = {
        **service,
        "spec": {**service["spec"], "selector": labels.selector("fraud", "fraud-other")},
    }
    world.pods = [replace(pod, ready=False) for pod in world.pods]
    world.reconcile()
    assert world.serving == "fraud-other"
    world.settle()
    assert world.serving == stable


def test_names_that_mlflow_allows_become_valid_labels() -> None:
    assert labels.label_value("iris demo1") == "iris-demo1"
    assert labels.label_value("-x" * 50)[0] == "x"
    assert len(labels.label_value("a" * 100)) == 63


def reconcile_until_status_says(world: World, path: str, key: str) -> None:
    """Run passes; kill the operator right after it wrote the status that first has this."""
    for _ in range(20):
        if key in world.plan().status.get(path, {}) and key not in world.status.get(path, {}):
            world.reconcile(writes=1)
            return
        world.reconcile()
        world.tick()
    raise AssertionError(f"status.{path}.{key} never came")


def test_the_old_pods_stay_while_traffic_still_goes_to_them() -> None:
    world = World()
    world.settle()
    old = world.serving
    world.target = "2"
    while world.plan().status["stable"]["version"] == "1":
        world.reconcile()
        world.tick()
    world.reconcile(writes=1)
    world.pods = [replace(pod, ready=pod.revision == old) for pod in world.pods]
    world.reconcile()
    assert world.serving == old
    assert old
    assert world.replicas(old) == 1


def test_a_digest_that_reached_status_alone_still_pins() -> None:
    world = World()
    reconcile_until_status_says(world, "canary", "digest")
    (name,) = (name for kind, name in world.objects if kind == "Deployment")
    assert world.objects[("ConfigMap", name)]["data"]["digest"] == ""
    world.pods = []
    world.reconcile()
    assert world.objects[("ConfigMap", name)]["data"]["digest"] == digest_of("1")


def test_ready_waits_for_the_service() -> None:
    world = World()
    while "stable" not in world.status:
        world.reconcile(writes=1 if "stable" in world.plan().status else None)
        world.tick()
    assert world.serving is None
    ready = world.condition("Ready")
    assert ready
    assert (ready["status"], ready["reason"]) == ("False", "ServiceMissing")
    assert world.status["phase"] == "Progressing"
    world.settle()
    assert holds(world, "Ready")


# --------------------------------------------------------------------------------------------- obstacles and tags

GOLDEN_TEST = {"smokeTest": {"source": "ConfigMap", "configMapRef": {"name": "golden"}}}
CASES = '[{"request": {"inputs": [1]}, "predictions": [2]}]'


def test_an_obstacle_holds_what_is_new_while_what_serves_goes_on_and_then_goes_by_itself() -> None:
    world = World()
    world.settle()
    serving = world.serving
    world.edit(predictor={"tolerations": [{"key": "spot"}]})
    world.target = "2"
    world.settle()
    assert world.serving == serving
    assert holds(world, "Ready")
    stalled = world.condition("Stalled")
    assert stalled
    assert stalled["reason"] == "TolerationNotPermitted"
    assert len(world.observed().revisions) == 1
    world.toleration_keys = ("spot",)
    world.settle()
    assert world.served_version == "2"
    assert world.condition("Stalled") is None


@pytest.mark.parametrize("golden", [None, "{}"])
def test_golden_data_that_cannot_be_used_close_nothing(golden: str | None) -> None:
    world = World(golden=golden)
    world.edit(preTraffic=GOLDEN_TEST)
    world.settle()
    assert world.flips == []
    stalled = world.condition("Stalled")
    assert stalled
    assert stalled["reason"] == ("GoldenInvalid" if golden else "GoldenNotFound")
    world.golden = CASES
    world.settle()
    assert world.served_version == "1"
    assert world.serving
    assert world.objects[("ConfigMap", world.serving)]["data"]["golden.json"] == CASES


def test_edited_golden_data_make_a_new_revision() -> None:
    world = World(golden=CASES)
    world.edit(preTraffic=GOLDEN_TEST)
    world.settle()
    before = world.serving
    world.golden = CASES.replace("2", "3")
    world.settle()
    assert world.serving != before
    world.golden = None
    world.settle()
    assert holds(world, "Ready")
    assert holds(world, "Stalled")


def test_a_version_without_its_tag_waits_while_what_serves_goes_on() -> None:
    world = World()
    world.settle()
    serving = world.serving
    world.target = world.lacking = "2"
    world.settle()
    assert world.serving == serving
    assert holds(world, "Ready")
    resolved = world.condition("ModelResolved")
    assert resolved
    assert (resolved["status"], resolved["reason"]) == ("False", "TagMissing")
    world.lacking = None
    world.settle()
    assert world.served_version == "2"


def test_while_another_version_lacks_its_tag_a_changed_spec_rolls_out_what_serves() -> None:
    world = World()
    world.settle()
    before = world.serving
    world.target = world.lacking = "2"
    world.edit(predictor={"timeout": "10s"})
    world.settle()
    assert world.serving != before
    assert world.served_version == "1"


def test_nothing_new_is_made_of_a_version_that_lost_its_tag() -> None:
    world = World()
    world.settle()
    before = world.serving
    world.lacking = "1"
    world.edit(predictor={"timeout": "10s"})
    world.settle()
    assert world.serving == before
    assert len(world.observed().revisions) == 1


# --------------------------------------------------------------------------------------------------- network policy

POLICY = ("NetworkPolicy", "fraud")


def test_the_network_policy_is_there_before_the_first_pod_and_stays() -> None:
    world = World()
    kinds = [desired["kind"] for desired in world.plan().objects]
    assert kinds.index("NetworkPolicy") < kinds.index("Deployment")
    world.settle()
    before = world.objects[POLICY]
    world.target = "2"
    world.settle()
    assert world.objects[POLICY] == before


def test_the_network_policy_goes_when_the_spec_wants_none_and_comes_back() -> None:
    world = World()
    world.settle()
    pods = list(world.pods)
    world.edit(networkPolicy={"enabled": False})
    world.settle()
    assert POLICY not in world.objects
    world.edit(networkPolicy={"from": [{"podSelector": {}}]})
    world.settle()
    assert world.objects[POLICY]["spec"]["ingress"][0]["from"] == [{"podSelector": {}}]
    assert world.pods == pods


def test_a_network_policy_that_would_be_refused_leaves_the_one_that_is_there() -> None:
    world = World()
    world.settle()
    before = world.objects[POLICY]
    world.edit(networkPolicy={"from": [{"podSelector": {"matchLabels": {"no key": ""}}}]})
    world.settle()
    assert world.objects[POLICY] == before
    stalled = world.condition("Stalled")
    assert stalled
    assert "spec.networkPolicy.from[0].podSelector.matchLabels: 'no key'" in stalled["message"]


# ------------------------------------------------------------------------------------------------------- pod monitor

MONITOR = ("PodMonitor", "fraud")


def test_the_pod_monitor_is_there_with_the_first_pod_and_stays() -> None:
    world = World()
    assert "PodMonitor" in [desired["kind"] for desired in world.plan().objects]
    world.settle()
    before = world.objects[MONITOR]
    world.target = "2"
    world.settle()
    assert world.objects[MONITOR] == before


def test_the_pod_monitor_goes_when_the_spec_wants_none_and_comes_back() -> None:
    world = World()
    world.settle()
    pods = list(world.pods)
    world.edit(monitoring={"podMonitor": {"enabled": False}})
    world.settle()
    assert MONITOR not in world.objects
    world.edit(monitoring={"podMonitor": {"labels": {"team": "a"}}})
    world.settle()
    assert world.objects[MONITOR]["metadata"]["labels"]["team"] == "a"
    assert world.pods == pods


def test_there_is_no_pod_monitor_where_nobody_knows_what_that_is_or_the_administrator_wants_none() -> None:
    for world in (World(monitoring_api=False), World(monitor_labels=None)):
        world.settle()
        assert world.serving
        assert MONITOR not in world.objects


def test_a_pod_monitor_that_would_be_refused_leaves_the_one_that_is_there() -> None:
    world = World()
    world.settle()
    before = world.objects[MONITOR]
    world.edit(monitoring={"podMonitor": {"labels": {"no key": ""}}})
    world.settle()
    assert world.objects[MONITOR] == before
    stalled = world.condition("Stalled")
    assert stalled
    assert "spec.monitoring.podMonitor.labels: 'no key'" in stalled["message"]


def test_an_operator_that_knows_more_restarts_nothing_that_an_older_one_stored() -> None:
    """A revision stored before these fields existed: its policy is made from what it has, its pods stay."""
    world = World()
    world.settle()
    pods, revisions = list(world.pods), world.observed().revisions
    del world.objects[POLICY]
    for child in world.objects.values():
        if child["kind"] == "ControllerRevision":
            [fetch] = child["data"]["template"]["spec"]["initContainers"]
            fetch["env"] = [one for one in fetch["env"] if one["name"] != "ROLLWAY_ENVIRONMENT_POLICY"]
    world.settle()
    assert POLICY in world.objects
    assert world.pods == pods
    assert [revision.name for revision in world.observed().revisions] == [one.name for one in revisions]


def test_a_newer_runtime_image_is_told_once_for_each() -> None:
    world = World()
    world.settle()
    for number in ("1", "2"):
        world.runtimes["mlserver"] = replace(RUNTIME, image=f"rollway/mlserver@sha256:{number * 64}")
        world.settle()
        assert world.status["stable"]["newerImage"].endswith(number * 64)
    assert world.events.count("RuntimeOutdated") == 2
    world.now += timedelta(days=1)
    assert world.reconcile() == 0
    world.target = "2"
    world.settle()
    assert "newerImage" not in world.status["stable"]
    assert world.events.count("RuntimeOutdated") == 2


def test_requirements_that_the_image_does_not_meet_are_told_while_it_is_so() -> None:
    world = World()
    world.settle()
    told = "scikit-learn 1.5.2 installed, model wants ==1.4.0"
    world.pods = [replace(pod, environment=told) for pod in world.pods]
    world.reconcile()
    mismatch = world.condition("EnvironmentMismatch")
    assert mismatch
    assert mismatch["status"] == "True"
    assert mismatch["message"] == f"v1: {told}"
    assert world.events[-1] == "EnvironmentMismatch"
    assert world.status["phase"] == "Healthy"
    assert world.reconcile() == 0
    world.target = "2"
    world.settle()
    assert world.condition("EnvironmentMismatch") is None


def test_history_tells_how_each_rollout_ended() -> None:
    world = World(natures={"2": Nature.BROKEN, "3": Nature.UNFETCHABLE})
    world.settle()
    world.target = "2"
    world.settle()
    world.target = "3"
    world.reconcile()
    world.tick()
    world.target = "1"
    world.settle()
    told = [(entry["version"], entry["outcome"], entry["reason"]) for entry in world.status["history"]]
    assert told == [
        ("1", "Promoted", "GatesPassed"),
        ("2", "Aborted", "SmokeTestFailed"),
        ("3", "Cancelled", "TargetMoved"),
    ]
