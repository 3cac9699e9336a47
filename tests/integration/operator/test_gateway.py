"""Canaries behind a Gateway, on an API server that knows routes; the Gateway itself only pretends (gateways.py)."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from rollway_testing.controlplane import ControlPlane
from rollway_testing.gateways import ENVIRONMENT, URL
from rollway_testing.kubelet import Nature
from rollway_testing.processes import MLflowServer
from rollway_testing.stage import Actor, Seen, Stage, Telling, Until
from rollway_testing.stories import OperatorProcess, RegisteredModel, condition
from rollway_testing.tellings import (
    Place,
    at_each_step,
    chosen,
    comes_to,
    ended,
    first,
    let_go,
    loses_its_status,
    on_its_way,
    seconds,
    throughout,
    told,
    version_serves,
    weighs,
)

NAMESPACE: Final = "routed"
VERSIONS: Final = 3


@pytest.fixture(scope="module")
def stage(
    plane: ControlPlane,
    mlflow_server: MLflowServer,
    registry: str,
    shared_operator: OperatorProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """A namespace whose operator knows of Gateways, and a model with three versions."""
    shared_operator.stop()
    plane.apply_gateway_api()
    model = RegisteredModel(mlflow_server.uri, NAMESPACE)
    for _ in range(VERSIONS):
        model.add_version()
    plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    operator = OperatorProcess(
        tmp_path_factory.mktemp("routing"),
        plane.kubeconfig,
        namespace=NAMESPACE,
        serves=NAMESPACE,
        more=ENVIRONMENT,
    )
    yield Stage(plane.api, NAMESPACE, model, operator, routed=True)
    operator.stop()


@pytest.fixture(scope="module")
def endings(request: pytest.FixtureRequest, stage: Stage) -> Mapping[str, Exception | None]:
    """How each telling that was chosen has ended."""
    return stage.play(chosen(request))


def shared(old: str, new: str, weight: int) -> Until:
    """Both routes share requests so, and status says that it is in force."""
    weights = [{old: 100 - weight, new: weight}] * 2

    def holds(seen: Seen) -> bool:
        return bool(seen.weights == weights and "stepStartedAt" in seen.canary and weighs(weight).holds(seen))

    return Until(f"{weight} % are in force", holds)


def versions(seen: Seen) -> list[str]:
    return [route["metadata"]["resourceVersion"] for route in (seen.own, *seen.routes.values())]


def uids(seen: Seen) -> set[str]:
    return {route["metadata"]["uid"] for route in seen.routes.values()}


def tracked(seen: Seen) -> set[str]:
    """Name the Services that requests with the track header are led to."""
    return {
        backend["name"]
        for route in seen.routes.values()
        for rule in route["spec"]["rules"]
        if any(
            header["name"] == "x-rollway-track"
            for match in rule["matches"]
            for header in match.get("headers", ())
        )
        for backend in rule["backendRefs"]
    }


@told
def test_a_good_version_gets_its_very_shares_and_callers_of_the_service_see_stable(act: Actor) -> Telling:
    yield from first(act, predictor={"replicas": 3})
    seen = yield Until("the routes are taken", lambda seen: seen.reason("RoutesReady") == "RoutesAccepted")
    old = seen.stable["revision"]
    assert seen.weights == [{old: 100}] * 2
    assert seen.status["url"] == f"{URL}/seldon/{NAMESPACE}/{act.story.name}"
    before = versions(seen)
    yield from throughout(6, "nothing is written", lambda seen: versions(seen) == before)
    act.fares("2", Nature.GOOD)
    act.point("2")
    seen = yield on_its_way("2")
    new = seen.canary["revision"]
    yield Until("people can look at it", lambda seen: tracked(seen) == {new})
    seen = yield shared(old, new, 10)
    assert seen.shares == [("1", 90), ("2", 10)]
    assert seen.leads_to == old
    assert seen.counts == {old: 3, new: 1}
    seen = yield shared(old, new, 50)
    assert seen.shares == [("1", 50), ("2", 50)]
    assert seen.leads_to == old
    assert seen.counts == {old: 3, new: 2}
    seen = yield version_serves("2")
    assert seen.history[-1] == ("2", "Promoted", "AnalysisSucceeded")
    seen = yield Until("the routes lead to it alone", lambda seen: seen.weights == [{new: 100}] * 2)
    assert seen.shares == [("2", 100)]
    assert tracked(seen) == set()
    assert act.lost == 0


@told
@pytest.mark.parametrize("nature", [Nature.ERRING, Nature.DYING])
def test_a_bad_version_is_rolled_back_by_one_write_of_each_route(act: Actor, nature: Nature) -> Telling:
    act.fares("2", nature)
    yield from first(act)
    act.point("2")
    yield weighs(10)
    seen = yield Until("it is rolled back", lambda seen: seen.reason("Stalled") == "RolledBack")
    old = seen.stable["revision"]
    yield Until("the routes lead to stable alone", lambda seen: seen.weights == [{old: 100}] * 2)
    seen = yield ended("1")
    assert seen.shares == [("1", 100)]
    assert tracked(seen) == set()


@told
@at_each_step
def test_another_version_takes_its_place(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    act.point("3")
    seen = yield on_its_way("3")
    assert seen.history[-1] == ("2", "Cancelled", "TargetMoved")
    act.story.say("promote-full", seen.canary["revision"])
    seen = yield version_serves("3")
    assert "closed" not in seen.status["model"]
    assert act.lost == 0


@told
@at_each_step
def test_moved_back_it_ends_and_nothing_is_closed(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    act.point("1")
    seen = yield ended("1")
    assert seen.history[-1] == ("2", "Cancelled", "TargetMoved")
    yield Until("the routes lead to stable alone", lambda seen: seen.shares == [("1", 100)])
    assert "closed" not in seen.status["model"]
    assert act.lost == 0


@told
@at_each_step
def test_with_its_status_wiped_traffic_stays_as_it_is_and_it_goes_on(act: Actor, place: Place) -> Telling:
    yield from comes_to(act, place)
    routes = (yield seconds(0)).weights
    yield from loses_its_status(act, place)
    yield from throughout(4, "the routes share alike", lambda seen: seen.weights == routes)
    yield from let_go(act, place)
    assert act.lost == 0


@told
def test_a_weight_counts_from_when_the_gateway_has_taken_it(act: Actor) -> Telling:
    assert act.gateway is not None
    yield from first(act)
    act.gateway.left.add(act.story.name)
    act.point("2")
    yield weighs(10)
    yield from throughout(6, "no clock runs", lambda seen: "stepStartedAt" not in seen.canary)
    seen = yield seconds(0)
    assert seen.canary["weight"] == 10
    assert condition(seen.status, "RoutesReady")["status"] == "False"
    act.gateway.left.discard(act.story.name)
    yield version_serves("2")


@told
def test_routes_that_are_refused_are_told_and_no_step_begins(act: Actor) -> Telling:
    assert act.gateway is not None
    act.gateway.refused.add(act.story.name)
    yield from first(act)
    seen = yield Until("it is told", lambda seen: seen.reason("RoutesReady") == "RouteNotAccepted")
    assert "NotAllowedByListeners" in seen.message("RoutesReady")
    act.point("2")
    # Each route is another one now, and until the Gateway has looked nobody knows that it is refused, too.
    waits = ("GatewayUnusable", "WeightPending")
    yield Until("it waits", lambda seen: seen.reason("Reconciling") in waits)
    yield from throughout(6, "no step begins", lambda seen: "stepStartedAt" not in seen.canary)
    seen = yield seconds(0)
    assert seen.reason("Reconciling") in waits
    act.gateway.refused.discard(act.story.name)
    yield version_serves("2")


@told
def test_hosts_and_a_deleted_or_edited_route_come_back(act: Actor) -> Telling:
    api, name = act.story.api, act.story.name
    host = f"fraud.{NAMESPACE}.example.com"
    yield from first(act, route={"hosts": [host]})
    seen = yield Until("the routes are there", lambda seen: len(seen.routes) == 2)
    assert seen.routes["HTTPRoute"]["spec"]["hostnames"] == [host]
    assert seen.status["url"] == f"https://{host}/seldon/{NAMESPACE}/{name}"
    before, specs = uids(seen), {kind: route["spec"] for kind, route in seen.routes.items()}

    def mended(seen: Seen) -> bool:
        return {kind: route["spec"] for kind, route in seen.routes.items()} == specs

    for kind in specs:
        api.delete(kind, name, NAMESPACE)
    yield Until("they are made again", lambda seen: mended(seen) and not uids(seen) & before)
    spoilt: dict[str, Any] = {"hostnames": ["evil.example.com"]}
    for kind in specs:
        api.patch(kind, name, NAMESPACE, {"spec": spoilt})
    yield Until("they are mended", mended)
    act.story.ask(route={"hosts": ["fraud.other.example.com"]})
    yield Until("it is refused", lambda seen: seen.reason("Stalled") == "HostNotPermitted")


@told
def test_blue_green_is_previewed_through_the_gateway_and_flips_at_once(act: Actor) -> Telling:
    strategy = {"blueGreen": {"autoPromotion": False, "scaleDownDelaySeconds": 1}}
    yield from first(act, strategy=strategy, analysis=None)
    act.point("2")
    seen = yield Until("it waits for a person", lambda seen: seen.reason("Paused") == "AwaitingPromote")
    old, new = seen.stable["revision"], seen.canary["revision"]
    assert seen.weights == [{old: 100}] * 2
    assert tracked(seen) == {new}
    act.story.say("promote", new)
    yield Until("the routes lead to it alone", lambda seen: seen.weights == [{new: 100}] * 2)
    yield ended("2")
    assert act.lost == 0
