"""The runtime `seldon` serves the same model over Seldon's V1 protocol, and a version change fails no request."""

import math

import httpx
import pytest

from rollway_testing import models
from rollway_testing.scenario import Scenario
from rollway_testing.waiting import eventually
from rollway_training.samples import held_out_rows

PREDICTIONS = "/api/v1.0/predictions"


@pytest.fixture(scope="module")
def serving(shared: Scenario) -> Scenario:
    shared.given.a_model(versions=2)
    shared.given.a_deployment(serving=None, predictor={"runtime": "seldon"})
    shared.then.it_settles_on("1")
    return shared


def ask(scenario: Scenario, body: object) -> httpx.Response:
    kubernetes, namespace = scenario.world.kubernetes, scenario.namespace
    return kubernetes.through_service("prices", namespace, "http", "POST", PREDICTIONS, body)


def a_row() -> dict[str, object]:
    row = held_out_rows(models.SAMPLE).iloc[[0]]
    return {"data": {"names": list(row.columns), "ndarray": row.to_numpy().tolist()}}


def answers_as(scenario: Scenario, version: str) -> bool:
    answer = ask(scenario, a_row())
    if answer.status_code != 200 or answer.headers.get("x-model-version") != version:
        return False
    ((said,),) = answer.json()["data"]["ndarray"]
    return math.isclose(said, scenario.answers["prices"][version][0][0], rel_tol=1e-9)


def test_it_answers_as_the_model_does_and_follows_the_alias(serving: Scenario) -> None:
    assert answers_as(serving, "1")
    serving.when.the_alias_moves_to("2")
    serving.then.it_settles_on("2")
    eventually(lambda: answers_as(serving, "2"), within=10, what="requests reach v2")
    serving.then.only_stable_has_pods()


def test_bad_input_is_refused_with_the_fields_name(serving: Scenario) -> None:
    answer = ask(serving, {"data": {"names": ["age"], "ndarray": [["old"]]}})
    assert answer.status_code == 400
    assert answer.json()["status"]["status"] == 1
    assert "age" in answer.json()["status"]["info"]
