"""What a Gateway got no answer to: which of Traefik's names are surely a model's, and what is counted of them."""

import doctest
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs

import httpx
import pytest

from rollway_operator import promql, traefik
from rollway_operator.analysis import Counters
from rollway_operator.analysis import Sample as Both
from rollway_operator.domain import GatewayRef
from rollway_operator.gateway_source import GatewayRequests
from rollway_operator.prometheus import Prometheus, Server
from rollway_operator.traefik import Route

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
GATEWAY: Final = GatewayRef("traefik", "models", "rest")
ROUTE: Final = Route("team-a", "fraud", GATEWAY, "/seldon/team-a/fraud", url="https://models.example.com")
STABLE, CANARY = REVISIONS = ("fraud-1", "fraud-2")
TRACKED: Final = f'{next(ROUTE.rules())} && Header("x-rollway-track","canary")'


def backend(
    revision: str,
    route: Route = ROUTE,
    *,
    rule: str | None = None,
    entry_point: str = "web",
    index: str = "1",
) -> str:
    """Name a backend as Traefik 3.7.13 does."""
    hashed = route.hash(entry_point, index, rule or next(route.rules()))
    gateway = f"{route.gateway.namespace}-{route.gateway.name}"
    return (
        f"httproute-{route.namespace}-{route.name}-gw-{gateway}-ep-{entry_point}-{index}-{hashed}"
        f"-svc-{route.namespace}-{revision}-0@kubernetesgateway"
    )


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(traefik).failed == 0


# -------------------------------------------------------------------------------------------------------- the names


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ('Host("foo.com") && Path("/bar")', "799bcbf0c2317c5d1c93"),
        ('Host("foo.com") && (Path("/bar") || PathPrefix("/bar/"))', "78ef4770613eae69b5da"),
        (
            '(Host("foo.com") || HostRegexp("^[a-z0-9-\\\\.]+\\\\.bar\\\\.com$")) && PathPrefix("/")',
            "103fc02323de64ca0fc6",
        ),
    ],
)
def test_the_hash_is_the_one_of_traefik_s_own_tests(rule: str, told: str) -> None:
    """From kubernetes_test.go of Traefik 3.7.13."""
    route = Route("default", "http-app-1", GatewayRef("default", "my-gateway"), "/bar")
    assert route.hash("web", "0", rule) == told


def test_the_rules_are_written_as_traefik_writes_them() -> None:
    route = Route("default", "http-app-1", GatewayRef("default", "my-gateway"), "/bar", hosts=["foo.com"])
    assert 'Host("foo.com") && (Path("/bar") || PathPrefix("/bar/"))' in route.rules()
    several = Route("default", "a", GATEWAY, "/bar", hosts=["foo.com", "*.bar.com"])
    beginnings = [rule.partition(" && (Path")[0] for rule in several.rules()]
    wildcard = 'HostRegexp("^[a-z0-9-\\\\.]+\\\\.bar\\\\.com$")'
    assert beginnings == [f'(Host("foo.com") || {wildcard})', 'Host("foo.com")', wildcard]


@pytest.mark.parametrize("rule", [*ROUTE.rules()])
def test_a_backend_is_known_whatever_the_listener_s_host_name(rule: str) -> None:
    assert ROUTE.revision(backend(CANARY, rule=rule), *REVISIONS) == CANARY


@pytest.mark.parametrize(
    "name",
    [
        backend("fraud-3"),
        backend(CANARY, rule=TRACKED),
        backend(CANARY, rule='Host("elsewhere.example.org") && PathPrefix("/")'),
        backend(CANARY, index="2").replace("-2-", "-3-", 1),
        backend(CANARY, Route("team", "a-fraud", GATEWAY, ROUTE.path)).replace("svc-team-", "svc-team-a-"),
        backend(CANARY, Route("team-a", "fraud", GatewayRef("traefik-models", "x"), ROUTE.path)),
        backend(CANARY).replace("@kubernetesgateway", "@file"),
        "team-a-fraud-2-http-8080@kubernetesgateway",  # as Traefik named it before 3.7.6
        "",
    ],
    ids=["third", "header", "rule", "index", "namespace", "gateway", "provider", "older", "none"],
)
def test_a_name_that_is_not_surely_a_model_s_is_nobody_s(name: str) -> None:
    assert ROUTE.revision(name, *REVISIONS) is None


def test_two_models_that_traefik_s_dashes_do_not_tell_apart_are_told_apart() -> None:
    ours, other = (
        Route(namespace, name, GATEWAY, f"/seldon/{namespace}/{name}")
        for namespace, name in (("a-b", "c"), ("a", "b-c"))
    )
    theirs = backend("b-c-1", other)
    assert backend("c-1", ours).partition("-ep-")[0] == theirs.partition("-ep-")[0]
    assert ours.revision(theirs, "c-1") is None
    assert other.revision(theirs, "b-c-1") == "b-c-1"


# ------------------------------------------------------------------------------------------------------- the answer


def labels(name: str, code: str = "200", **more: str) -> dict[str, str]:
    put_there = {"namespace": "traefik", "pod": "traefik-1", "instance": "10.0.0.9:8080", "job": "traefik"}
    return {**put_there, "service": name, "code": code, "method": "POST", "protocol": "http", **more}


def counted(name: str, value: str, code: str = "200", *, ago: float = 5, **more: str) -> list[dict[str, Any]]:
    """Give a series and the time of its scrape, as Prometheus does."""
    of = labels(name, code, **more)
    at = (NOW - timedelta(seconds=ago)).timestamp()
    return [
        {"metric": {"__name__": traefik.REQUESTS, **of}, "value": [1.0, value]},
        {"metric": {promql.SCRAPED_AT: "1", **of}, "value": [1.0, str(at)]},
    ]


def source(answer: Callable[[httpx.Request], httpx.Response]) -> GatewayRequests:
    prometheus = Prometheus(Server("http://prometheus:9090"), httpx.MockTransport(answer))
    return GatewayRequests(prometheus, GATEWAY, ("traefik",), timedelta(seconds=90))


async def read(*series: dict[str, Any]) -> Both:
    body = json.dumps(
        {"status": "success", "data": {"resultType": "vector", "result": list(series)}}
    ).encode()
    found = await source(lambda _: httpx.Response(200, content=body)).read(ROUTE, STABLE, CANARY, NOW)
    assert found is not None
    return found


async def test_what_traefik_got_no_answer_to_is_an_error_and_who_left_says_nothing() -> None:
    name = backend(CANARY)
    found = await read(
        *counted(name, "90"),
        *counted(name, "3", "500"),
        *counted(name, "2", "504"),
        *counted(name, "7", "502", method="GET"),
        *counted(name, "5", "499"),
        *counted(backend(STABLE), "1000"),
    )
    at = NOW - timedelta(seconds=5)
    [canary] = found.canary.pods.values()
    assert canary == Counters(ok=95, server_error=7, client_error=5, scraped_at=at)
    [stable] = found.stable.pods.values()
    assert stable == Counters(ok=1000, scraped_at=at)


async def test_each_gateway_pod_counts_for_itself() -> None:
    found = await read(
        *counted(backend(CANARY), "90"),
        *counted(backend(CANARY), "30", pod="traefik-2", instance="10.0.0.10:8080"),
    )
    assert sorted(each.ok for each in found.canary.pods.values()) == [30, 90]


async def test_what_a_service_monitor_renames_is_read_all_the_same() -> None:
    found = await read(*counted("traefik", "90", exported_service=backend(CANARY)))
    assert [each.ok for each in found.canary.pods.values()] == [90]


@pytest.mark.parametrize(
    ("series", "why"),
    [
        ([*counted(backend(CANARY), "90"), *counted(backend(CANARY), "90", job="again")], "twice"),
        (counted(backend(CANARY), "90", ago=91), "was scraped last 91 s ago, which is too long"),
        (counted(backend(CANARY), "90", ago=-60), "was scraped 60 s from now"),
        (counted(backend(CANARY), "90")[:1], "without the time of its scrape"),
        (counted(backend(CANARY), "0.5"), "has a traefik_service_requests_total that is no count"),
    ],
    ids=["twice", "old", "to come", "timeless", "no count"],
)
async def test_what_is_there_and_cannot_be_relied_upon_is_missing(
    series: list[dict[str, Any]], why: str
) -> None:
    found = await read(*series)
    assert not found.canary.pods
    [said] = found.canary.missing.values()
    assert why in said


async def test_names_of_others_are_not_counted() -> None:
    found = await read(*counted(backend(CANARY, rule=TRACKED), "90", "502"))
    assert not found.canary.pods
    assert not found.canary.missing


async def test_only_the_administrator_s_namespaces_are_asked_and_without_an_answer_there_is_none() -> None:
    asked: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(503)

    assert await source(refuse).read(ROUTE, STABLE, CANARY, NOW) is None
    [question] = (parse_qs(request.content.decode())["query"][0] for request in asked)
    parts = [part for part in question.split(" or ") if part.startswith(traefik.REQUESTS)]
    assert len(parts) == 2
    for part in parts:
        assert part.startswith(f'{traefik.REQUESTS}{{namespace=~"traefik",protocol="http",')
