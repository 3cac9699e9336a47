"""How requests reach revisions: what routes and Services are made, and what live routes say."""

import copy
import doctest
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_operator import manifests, traffic
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.differs import differs, repair
from rollway_operator.domain import GatewayRef, ModelVersion, Object, Platform, StoredRevision
from rollway_operator.traffic import Share
from rollway_testing.world import RUNTIME, SOURCE

HTTP = GatewayRef("traefik", "models", "web")
GRPC = GatewayRef("traefik", "models-grpc")
DEPLOYMENT = ModelDeployment.of(
    {
        "metadata": {"name": "fraud", "namespace": "team-a", "uid": "u"},
        "spec": {"model": {"name": "fraud", "alias": "champion"}},
    }
)


def revision(version: str) -> StoredRevision:
    runtime = replace(RUNTIME, http_port=9000 + int(version), grpc_port=9100 + int(version))
    model = ModelVersion("fraud", version, f"run{version}", f"s3://models/fraud/{version}")
    chosen = manifests.inputs(DEPLOYMENT, model, SOURCE, runtime)
    return manifests.new_revision(DEPLOYMENT, chosen, runtime, ())


STABLE, CANARY = revision("1"), revision("2")
SHARES = [Share.of(STABLE, 90), Share.of(CANARY, 10)]


def http_route(shares: list[Share] = SHARES, track: StoredRevision | None = CANARY) -> Any:
    return traffic.http_route(DEPLOYMENT, shares, track, HTTP, ["Models.example.com"])


def grpc_route(shares: list[Share] = SHARES, track: StoredRevision | None = CANARY) -> Any:
    return traffic.grpc_route(DEPLOYMENT, shares, track, GRPC)


def test_the_examples_of_the_docstrings_hold() -> None:
    result = doctest.testmod(traffic)
    assert result.attempted > 5
    assert result.failed == 0


# ----------------------------------------------------------------------------------------------------------- routes


def test_an_http_route_takes_the_models_path_away_and_splits_its_traffic() -> None:
    route = http_route()
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["metadata"]["name"] == "fraud"
    assert route["spec"]["parentRefs"] == [
        {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "namespace": "traefik",
            "name": "models",
            "sectionName": "web",
        }
    ]
    assert route["spec"]["hostnames"] == ["models.example.com"]
    path = {"type": "PathPrefix", "value": "/seldon/team-a/fraud"}
    header = {"type": "Exact", "name": "x-rollway-track", "value": "canary"}
    tracked, shared = route["spec"]["rules"]
    assert tracked["matches"] == [{"path": path, "headers": [header]}]
    assert shared["matches"] == [{"path": path}]
    assert tracked["backendRefs"] == [backend(CANARY, 9002, 1)]
    assert shared["backendRefs"] == [backend(STABLE, 9001, 90), backend(CANARY, 9002, 10)]
    for rule in (tracked, shared):
        rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
        assert rule["filters"] == [{"type": "URLRewrite", "urlRewrite": rewrite}]


def backend(to: StoredRevision, port: int, weight: int) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": to.name, "port": port, "weight": weight}


def test_a_grpc_route_knows_a_model_by_its_metadata_alone() -> None:
    route = grpc_route()
    own = [
        {"type": "Exact", "name": "seldon", "value": "fraud"},
        {"type": "Exact", "name": "namespace", "value": "team-a"},
    ]
    header = {"type": "Exact", "name": "x-rollway-track", "value": "canary"}
    assert route["spec"]["rules"] == [
        {"matches": [{"headers": [*own, header]}], "backendRefs": [backend(CANARY, 9102, 1)]},
        {
            "matches": [{"headers": own}],
            "backendRefs": [backend(STABLE, 9101, 90), backend(CANARY, 9102, 10)],
        },
    ]
    assert route["spec"]["hostnames"] == []
    assert "sectionName" not in route["spec"]["parentRefs"][0]


@pytest.mark.parametrize("make", [http_route, grpc_route])
def test_without_a_candidate_there_is_no_rule_for_the_track_header(make: Any) -> None:
    [rule] = make([Share.of(STABLE, 100)], None)["spec"]["rules"]
    assert "x-rollway-track" not in str(rule)


@pytest.mark.parametrize("make", [http_route, grpc_route])
def test_a_candidate_without_weight_is_reached_by_the_track_header_alone(make: Any) -> None:
    tracked, shared = make([Share.of(STABLE, 100), Share.of(CANARY, 0)])["spec"]["rules"]
    assert [each["name"] for each in tracked["backendRefs"]] == [CANARY.name]
    assert [each["name"] for each in shared["backendRefs"]] == [STABLE.name]


def test_models_of_two_tenants_share_no_path_and_no_metadata() -> None:
    other = ModelDeployment.of(
        {
            "metadata": {"name": "fraud", "namespace": "team-b", "uid": "v"},
            "spec": {"model": {"name": "fraud", "alias": "champion"}},
        }
    )
    ours = [http_route(), grpc_route()]
    theirs = [
        traffic.http_route(other, SHARES, CANARY, HTTP),
        traffic.grpc_route(other, SHARES, CANARY, GRPC),
    ]
    for mine, foreign in zip(ours, theirs, strict=True):
        matches = [rule["matches"] for rule in foreign["spec"]["rules"]]
        assert [rule for rule in mine["spec"]["rules"] if rule["matches"] in matches] == []


# ------------------------------------------------------------------------------------------------- routes as they live


def as_served(route: Any) -> Any:
    """Give a route as the API server and a Gateway make it: with every default of the definitions."""
    live = copy.deepcopy(route)
    live["metadata"] |= {"generation": 3, "uid": "r", "resourceVersion": "7"}
    for parent in live["spec"]["parentRefs"]:
        default(parent, group="gateway.networking.k8s.io", kind="Gateway")
    for rule in live["spec"]["rules"]:
        for match in rule["matches"]:
            if route["kind"] == "HTTPRoute":
                default(match, path={"type": "PathPrefix", "value": "/"})
                default(match["path"], type="PathPrefix", value="/")
            for header in match.get("headers", ()):
                default(header, type="Exact")
        for reference in rule["backendRefs"]:
            default(reference, group="", kind="Service", weight=1)
    return live


def default(part: dict[str, Any], **values: Any) -> None:
    for key, value in values.items():
        part.setdefault(key, value)


@pytest.mark.parametrize("make", [http_route, grpc_route])
@pytest.mark.parametrize("track", [CANARY, None])
def test_what_the_api_server_adds_to_a_route_is_no_difference(
    make: Any, track: StoredRevision | None
) -> None:
    route = make(track=track)
    assert differs(route, as_served(route)) is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda spec: spec["rules"].pop(0),
        lambda spec: spec["rules"].append({"backendRefs": [{"name": "other", "port": 80}]}),
        lambda spec: spec["rules"][1]["backendRefs"][0].update(weight=50),
        lambda spec: spec["rules"][1]["backendRefs"][0].update(namespace="team-b"),
        lambda spec: spec["rules"][1]["backendRefs"].append({"name": "other", "port": 80, "weight": 10}),
        lambda spec: spec["rules"][1]["matches"][0].update(method="GET"),
        lambda spec: spec["rules"][1].update(timeouts={"request": "1s"}),
        lambda spec: spec["rules"][1].update(name="mine"),
        lambda spec: spec["parentRefs"][0].update(port=8080),
        lambda spec: spec["parentRefs"].append({"name": "other"}),
        lambda spec: spec.update(hostnames=["other.example.com"]),
    ],
)
@pytest.mark.parametrize("make", [http_route, grpc_route])
def test_any_edit_of_a_route_is_a_difference_that_the_repair_removes(make: Any, edit: Any) -> None:
    desired = make()
    live = as_served(desired)
    edit(live["spec"])
    assert differs(desired, live) is not None
    # A merge patch replaces lists as a whole, and all of a route's spec are lists.
    live["spec"] |= repair(desired, live)["spec"]
    assert differs(desired, live) is None


@pytest.mark.parametrize("make", [http_route, grpc_route])
@pytest.mark.parametrize("track", [CANARY, None])
def test_weights_are_read_back_from_a_live_route(make: Any, track: StoredRevision | None) -> None:
    assert traffic.weights_of(as_served(make(track=track))) == {STABLE.name: 90, CANARY.name: 10}
    alone = make([Share.of(STABLE, 100), Share.of(CANARY, 0)], track)
    assert traffic.weights_of(as_served(alone)) == {STABLE.name: 100}


def test_weights_that_others_wrote_are_read_as_the_gateway_understands_them() -> None:
    live = as_served(http_route())
    tracked, shared = live["spec"]["rules"]
    shared["backendRefs"] = [{"name": "a"}, {"name": "b", "weight": 0}]
    tracked["matches"][0]["headers"][0]["name"] = "X-Rollway-Track"
    assert traffic.weights_of(live) == {"a": 1}
    live["spec"]["rules"] = [tracked]
    assert traffic.weights_of(live) == {}
    assert traffic.weights_of({"spec": {}}) == {}


def judged(*parents: dict[str, Any], generation: int = 3) -> Object:
    live = as_served(http_route())
    live["metadata"]["generation"] = generation
    return {**live, "status": {"parents": list(parents)}}


def parent(
    accepted: str = "True", resolved: str = "True", observed: int = 3, message: str = "", **at: str
) -> dict[str, Any]:
    where = {"namespace": "traefik", "name": "models", "sectionName": "web"} | at
    conditions = [
        {
            "type": type_,
            "status": status,
            "reason": reason,
            "observedGeneration": observed,
            "message": message,
        }
        for type_, status, reason in (
            ("Accepted", accepted, "NoMatchingListenerHostname"),
            ("ResolvedRefs", resolved, "BackendNotFound"),
        )
    ]
    return {"parentRef": where, "controllerName": "example.com/gateway", "conditions": conditions}


def test_a_route_is_in_force_once_its_gateway_took_this_very_version() -> None:
    assert traffic.is_in_force(judged(parent()), HTTP)
    assert traffic.is_in_force(judged(parent(name="other", accepted="False"), parent()), HTTP)


@pytest.mark.parametrize(
    "route",
    [
        as_served(http_route()),
        judged(),
        judged(parent(accepted="False")),
        judged(parent(resolved="False")),
        judged(parent(accepted="Unknown")),
        judged(parent(observed=2)),
        judged(parent(name="other")),
        judged(parent(namespace="team-a")),
        judged(parent(sectionName="websecure")),
        judged({**parent(), "conditions": []}),
        {**judged(), "status": {"parents": None}},
    ],
)
def test_a_route_is_not_in_force_before(route: Object) -> None:
    assert not traffic.is_in_force(route, HTTP)


def test_a_parent_without_a_namespace_is_a_gateway_beside_the_route() -> None:
    beside = parent()
    del beside["parentRef"]["namespace"], beside["parentRef"]["sectionName"]
    assert traffic.is_in_force(judged(beside), GatewayRef("team-a", "models"))
    assert not traffic.is_in_force(judged(beside), HTTP)


def test_a_refusal_is_told_in_the_gateways_words() -> None:
    refused = judged(parent(resolved="False", message="no Service fraud-1"))
    assert traffic.refusal(refused) == (
        "HTTPRoute at Gateway traefik/models: ResolvedRefs is False, BackendNotFound: no Service fraud-1"
    )
    wordless = judged(parent(accepted="False"))
    assert str(traffic.refusal(wordless)).endswith("Accepted is False, NoMatchingListenerHostname")


def test_who_was_not_judged_yet_was_not_refused() -> None:
    for route in (as_served(http_route()), judged(parent()), judged(parent(accepted="False", observed=2))):
        assert traffic.refusal(route) is None


# --------------------------------------------------------------------------------------------------------- Services


def test_the_shared_service_selects_every_pod_and_remembers_who_is_stable() -> None:
    alone = manifests.service(DEPLOYMENT, "fraud", STABLE)
    shared = traffic.shared_service(DEPLOYMENT, STABLE)
    assert shared["spec"]["selector"] == {"rollway.dev/model-deployment": "fraud"}
    assert shared["spec"]["ports"] == alone["spec"]["ports"]
    assert shared["metadata"] == {
        **alone["metadata"],
        "annotations": {"rollway.dev/stable": STABLE.name},
    }


def test_going_back_to_stable_alone_is_one_difference_of_one_object() -> None:
    alone = manifests.service(DEPLOYMENT, "fraud", STABLE)
    assert differs(alone, traffic.shared_service(DEPLOYMENT, STABLE)) is not None
    assert differs(traffic.shared_service(DEPLOYMENT, STABLE), alone) is not None


def test_a_preview_has_a_service_of_its_own() -> None:
    preview = traffic.preview_service(DEPLOYMENT, CANARY)
    assert preview["metadata"]["name"] == "fraud-preview"
    assert preview["spec"]["selector"] == manifests.service(DEPLOYMENT, "fraud", CANARY)["spec"]["selector"]


# ------------------------------------------------------------------------------------------- what follows stable's pods


def test_an_autoscaler_scales_one_revision_by_the_metrics_of_the_spec() -> None:
    metrics = [{"type": "Resource", "resource": {"name": "memory"}}]
    made = traffic.autoscaler(DEPLOYMENT, STABLE.name, 2, 8, metrics)
    assert made["metadata"]["name"] == "fraud"
    assert made["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": STABLE.name},
        "minReplicas": 2,
        "maxReplicas": 8,
        "metrics": metrics,
    }


def test_an_autoscaler_without_metrics_goes_by_cpu() -> None:
    [metric] = traffic.autoscaler(DEPLOYMENT, STABLE.name, 1, 2)["spec"]["metrics"]
    target = {"type": "Utilization", "averageUtilization": 80}
    assert metric == {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def test_a_minimum_kept_for_a_rollout_raises_the_maximum() -> None:
    spec = traffic.autoscaler(DEPLOYMENT, STABLE.name, 5, 3)["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (5, 5)


def test_a_disruption_budget_covers_the_pods_of_one_revision() -> None:
    made = traffic.disruption_budget(DEPLOYMENT, STABLE.name)
    assert made["metadata"]["name"] == "fraud"
    pods = STABLE.template["metadata"]["labels"]
    assert made["spec"]["selector"]["matchLabels"].items() <= pods.items()
    assert made["spec"]["selector"]["matchLabels"]["rollway.dev/revision"] == STABLE.name
    assert made["spec"]["maxUnavailable"] == 1
    assert made["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


# ----------------------------------------------------------------------------------------------------------- counts

WEIGHTS = st.integers(min_value=0, max_value=100)
COUNTS = st.integers(min_value=1, max_value=1000)


@given(WEIGHTS, COUNTS, st.booleans())
def test_a_canary_has_a_pod_and_never_more_than_stable(weight: int, count: int, ratio: bool) -> None:
    assert 1 <= traffic.canary_replicas(weight, count, ratio=ratio) <= count


@given(WEIGHTS, COUNTS)
def test_behind_a_gateway_a_canarys_pods_carry_no_more_than_stables_did(weight: int, count: int) -> None:
    assert traffic.canary_replicas(weight, count, ratio=False) * 100 >= weight * count


@given(WEIGHTS, COUNTS)
def test_by_ratio_a_canary_of_several_pods_never_gets_more_than_was_asked(weight: int, count: int) -> None:
    canary = traffic.canary_replicas(weight, count, ratio=True)
    assert canary == 1 or canary * 100 <= weight * (canary + count)


@given(st.integers(min_value=0, max_value=1000), st.integers(min_value=0, max_value=1000))
def test_percents_sum_to_100_and_are_off_by_less_than_one(canary_ready: int, stable_ready: int) -> None:
    canary, stable = traffic.true_percent(canary_ready, stable_ready)
    assert canary + stable == 100
    assert min(canary, stable) >= 0
    if whole := canary_ready + stable_ready:
        assert abs(canary - 100 * canary_ready / whole) < 1


# ------------------------------------------------------------------------------------------------------------ hosts


@pytest.mark.parametrize(
    ("host", "pattern"),
    [
        ("models.example.com", "models.example.com"),
        ("MODELS.example.com", "models.Example.com"),
        ("a.team-a.example.com", "*.{namespace}.example.com"),
        ("team-a.example.com", "{namespace}.example.com"),
        ("team-a.example.com", "*.example.com"),
        ("team-a-models.example.com", "{namespace}-models.example.com"),
        ("localhost", "localhost"),
    ],
)
def test_a_host_that_a_pattern_names_is_permitted(host: str, pattern: str) -> None:
    assert traffic.host_permitted(host, "team-a", ["other.example.com", pattern])


@pytest.mark.parametrize(
    ("host", "pattern"),
    [
        ("a.team-b.example.com", "*.{namespace}.example.com"),
        ("team-a.example.com", "*.{namespace}.example.com"),
        ("b.a.team-a.example.com", "*.{namespace}.example.com"),
        (".team-a.example.com", "*.{namespace}.example.com"),
        ("*.team-a.example.com", "*.{namespace}.example.com"),
        ("a.team-aXexample.com", "*.{namespace}.example.com"),
        ("a.team-a.example.com.", "*.{namespace}.example.com"),
        ("a\n.team-a.example.com", "*.{namespace}.example.com"),
        ("{namespace}.example.com", "{namespace}.example.com"),
        ("models.example.com.evil.com", "models.example.com"),
        ("com", "*.com"),
        ("", ""),
    ],
)
def test_a_host_that_no_pattern_names_is_not(host: str, pattern: str) -> None:
    assert not traffic.host_permitted(host, "team-a", [pattern])
    assert not traffic.host_permitted(host, "team-a", [])


def test_a_route_has_only_the_hosts_that_are_permitted_now() -> None:
    asked = ModelDeployment.of(
        {
            "metadata": {"name": "fraud", "namespace": "team-a", "uid": "u"},
            "spec": {
                "model": {"name": "fraud", "alias": "champion"},
                "route": {"hosts": ["b.example.com", "a.team-a.example.com"]},
            },
        }
    )
    platform = Platform({"mlserver": RUNTIME}, permitted_hosts=("*.{namespace}.example.com",))
    assert traffic.hosts_of(asked, platform) == ("a.team-a.example.com",)
    assert traffic.hosts_of(DEPLOYMENT, platform) == ()
