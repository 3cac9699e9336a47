"""The runtime `seldon` serves the same model over Seldon's V1 protocol, and a version change fails no request."""

import httpx
import numpy as np
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


def answer_of(scenario: Scenario) -> tuple[int, str | None, object]:
    answer = ask(scenario, a_row())
    data = answer.json().get("data", {}) if answer.is_success else answer.text
    return answer.status_code, answer.headers.get("x-model-version"), data


def it_answers_as(scenario: Scenario, version: str) -> None:
    """The status comes first, then the Service, then what routes by it."""
    status, _, data = eventually(
        lambda: answer_of(scenario),
        lambda answer: answer[:2] == (200, version),
        within=10,
        what=f"requests reach v{version}",
    )
    assert status == 200
    assert isinstance(data, dict)
    assert np.ravel(data["ndarray"]) == pytest.approx(scenario.answers["prices"][version][0], rel=1e-9)


def test_it_answers_as_the_model_does_and_follows_the_alias(serving: Scenario) -> None:
    it_answers_as(serving, "1")
    serving.when.the_alias_moves_to("2")
    serving.then.it_settles_on("2")
    it_answers_as(serving, "2")
    serving.then.only_stable_has_pods()


def test_bad_input_is_refused_with_the_fields_name(serving: Scenario) -> None:
    answer = ask(serving, {"data": {"names": ["age"], "ndarray": [["old"]]}})
    assert answer.status_code == 400
    assert answer.json()["status"]["status"] == 1
    assert "age" in answer.json()["status"]["info"]
