from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from rollway_operator import reconcile as module
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import Observed, Plan, Platform, Resolution
from rollway_operator.evidence import Evidence
from rollway_operator.metrics_source import PodMetrics
from rollway_operator.reconcile import Context, Look, look_again, reconcile

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FAR = timedelta(seconds=30)
RESOLVED = Resolution("Resolved", "champion is v1", poll_in=FAR)
DEPLOYMENT = ModelDeployment.of(
    {
        "metadata": {"name": "iris", "namespace": "team-a"},
        "spec": {"model": {"name": "fraud", "alias": "champion"}},
    }
)
AT_REST = Look(DEPLOYMENT, RESOLVED, NOON, FAR, under_way=False)


class Answering:
    """A resolver with one answer; everything else of a context may not be touched."""

    def __init__(self, answer: Resolution) -> None:
        self._answer = answer

    async def resolve(self, _: ModelDeployment) -> Resolution:
        return self._answer


def context(answer: Resolution) -> Context:
    resolver: Any = Answering(answer)
    nothing: Any = None
    return Context(nothing, nothing, resolver, Platform({}), Evidence(PodMetrics()), lambda _: None)


async def test_at_rest_the_registry_alone_is_asked_and_says_when_to_ask_again() -> None:
    sooner = replace(RESOLVED, poll_in=timedelta(seconds=3))
    again = await look_again(context(sooner), AT_REST)
    assert again == replace(AT_REST, come_back=timedelta(seconds=3))


@pytest.mark.parametrize(
    "news",
    [
        replace(RESOLVED, message="champion is v2"),
        Resolution("AliasNotFound", "gone"),
        replace(RESOLVED, confirmed=False),
    ],
)
async def test_news_of_the_registry_need_a_whole_pass(news: Resolution) -> None:
    assert await look_again(context(news), AT_REST) is None


async def test_while_pods_are_waited_for_the_registry_is_not_enough() -> None:
    assert await look_again(context(RESOLVED), replace(AT_REST, under_way=True)) is None


GOLDEN_SPEC = {
    "model": {"name": "fraud", "alias": "champion"},
    "preTraffic": {"smokeTest": {"source": "ConfigMap", "configMapRef": {"name": "cases"}}},
}
BODY: dict[str, Any] = {
    "metadata": {"name": "iris", "namespace": "team-a", "uid": "u", "resourceVersion": "7"},
    "spec": GOLDEN_SPEC,
}


class Cases:
    """A cluster that holds golden data and nothing else."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        assert (kind, name, namespace) == ("ConfigMap", "cases", "team-a")
        return {"data": {"golden.json": self.text}}


class Seen:
    """An observer that saw one thing."""

    async def observe(self, _: object) -> Observed:
        return Observed(NOON, versions=frozenset({("u", "7")}))


def whole_context(cluster: Any) -> Context:
    resolver, observer = cast("Any", Answering(RESOLVED)), cast("Any", Seen())
    return Context(cluster, observer, resolver, Platform({}), Evidence(PodMetrics()), lambda _: None)


def decides(monkeypatch: pytest.MonkeyPatch, decided: Plan) -> dict[str, Any]:
    monkeypatch.setattr(module, "plan", lambda *_: decided)
    return BODY | {"status": dict(decided.status)}


async def test_golden_data_are_looked_at_again_though_no_list_shows_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = Cases("[1]")
    found = await reconcile(whole_context(cases), decides(monkeypatch, Plan(status={"phase": "Healthy"})))
    assert found is not None
    assert not found.wrote
    assert found.versions == {("u", "7")}
    assert await look_again(whole_context(cases), found)
    cases.text = "[2]"
    assert await look_again(whole_context(cases), found) is None


@pytest.mark.parametrize(
    ("decided", "timed"),
    [
        (Plan(status={"phase": "Healthy"}), False),
        (Plan(status={"phase": "Progressing"}, under_way=True), True),
        (Plan(status={"phase": "Paused", "canary": {"revision": "iris-1", "version": "1"}}), True),
    ],
)
async def test_time_alone_decides_while_something_is_under_way_or_a_candidate_is_there(
    monkeypatch: pytest.MonkeyPatch, decided: Plan, timed: bool
) -> None:
    found = await reconcile(whole_context(Cases("[]")), decides(monkeypatch, decided))
    assert found is not None
    assert found.timed is timed
