from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import Platform, Resolution
from rollway_operator.reconcile import Context, Look, look_again

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
    return Context(nothing, nothing, resolver, Platform({}))


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
