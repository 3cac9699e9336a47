"""What users read of the API with kubectl, and what the API server and helm refuse."""

from pathlib import Path

import pytest

from rollway_cluster.errors import ClusterError
from rollway_cluster.images import REPOSITORY
from rollway_testing.kubernetes import Object
from rollway_testing.scenario import Given, Scenario, World

COLUMNS = [
    "NAME",
    "MODEL",
    "STABLE",
    "CANARY",
    "WEIGHT",
    "READY",
    "PHASE",
    "AGE",
    "ALIAS",
    "RUNTIME",
    "URL",
    "MESSAGE",
]
MODEL = {"name": "prices", "alias": "champion"}
REFUSED: dict[str, tuple[str, Object]] = {
    "an alias and a version": ("exactly one of alias and version", {"model": MODEL | {"version": "1"}}),
    "neither alias nor version": ("exactly one of alias and version", {"model": {"name": "prices"}}),
    "the alias latest": ("spec.model.alias.*reserved", {"model": MODEL | {"alias": "latest"}}),
    "an alias that is a version": ("spec.model.alias.*reserved", {"model": MODEL | {"alias": "v3"}}),
    "a version that is a number": (
        "spec.model.version.*must be of type string",
        {"model": {"name": "prices", "version": 3}},
    ),
    "two strategies": (
        "spec.strategy.*exactly one of canary, blueGreen, rollingUpdate and recreate",
        {"model": MODEL, "strategy": {"rollingUpdate": {}, "recreate": {}}},
    ),
    "a request above its limit": (
        "spec.predictor.resources.*at most the limit",
        {
            "model": MODEL,
            "predictor": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
        },
    ),
    "no replica": ("spec.predictor.replicas", {"model": MODEL, "predictor": {"replicas": 0}}),
    "a timeout without unit": ("spec.predictor.timeout", {"model": MODEL, "predictor": {"timeout": "30"}}),
    "a digest that is none": ("spec.model.digest", {"model": MODEL | {"digest": "sha256:123"}}),
    "a misspelt field": (
        'unknown field "spec.predictor.replica"',
        {"model": MODEL, "predictor": {"replica": 2}},
    ),
    "a field of work to come": (
        'unknown field "spec.shadow"',
        {"model": MODEL, "shadow": {"percent": 10}},
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_api_server_refuses(shared: Scenario, what: str) -> None:
    sentence, spec = REFUSED[what]
    shared.then.the_api_refuses(sentence, spec)


def test_the_api_server_refuses_a_name_that_no_service_can_have(shared: Scenario) -> None:
    shared.then.the_api_refuses("metadata.name|name", {"model": MODEL}, name="9lives")


def test_the_model_of_a_modeldeployment_cannot_change(shared: Scenario) -> None:
    shared.given.a_deployment(serving=None)
    shared.then.a_change_is_refused("immutable; create a new ModelDeployment", {"model": {"name": "other"}})


def test_explain_tells_what_each_strategy_does(world: World) -> None:
    text = world.client.run("explain", "mdep.spec.strategy")
    for word in ("rollingUpdate", "recreate", "exactly one", "No request fails", "The default"):
        assert word in " ".join(text.split()), text


def test_get_wide_shows_the_columns_that_matter(world: World, scenario: Scenario, given: Given) -> None:
    given.a_model()
    given.a_deployment()
    head, row = world.client.run("get", "mdep", "-o", "wide", "--namespace", scenario.namespace).splitlines()
    assert head.split() == COLUMNS
    shown = (scenario.registered("prices"), "1", "True", "Healthy", "champion", "mlserver", "http://prices.")
    for value in (*shown, "v1: 1 of 1 pods ready"):
        assert value in row, row


def test_helm_refuses_a_misspelt_value(world: World) -> None:
    chart = REPOSITORY / "charts/rollway"
    with pytest.raises(ClusterError, match="resyncSecond"):
        world.client.install("misspelt", Path(chart), "default", {"resyncSecond": 5})
