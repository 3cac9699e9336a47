"""A model trained by the sample's own program is served from either kind of source, alike over every protocol."""

import pytest

from rollway_cluster import jobs, judge
from rollway_testing.scenario import Scenario, World
from rollway_training import estimators
from rollway_training.samples import SAMPLES

PROTOCOLS = {"rest-v2", "grpc-v2", "invocations"}


def what_training_gives(sample: str) -> tuple[tuple[float, ...], ...]:
    """The answers to the held-out rows of the very model that the sample's program trains, fitted here once more."""
    data = SAMPLES[sample].load()
    model = estimators.linear(SAMPLES[sample].task, 1.0).fit(data.train_rows, data.train_target)
    return tuple((float(answer),) for answer in model.predict(data.held_out_rows))


@pytest.mark.parametrize(
    ("sample", "location"),
    [("breast-cancer", "s3://models/tests/"), ("diabetes", "mlflow-artifacts:/tests/")],
)
def test_a_trained_model_is_answered_for_alike_over_every_protocol(
    world: World, scenario: Scenario, sample: str, location: str
) -> None:
    name = scenario.registered("prices")
    world.registry.train(name, sample, f"{location}{scenario.namespace}")
    assert world.registry.download_uri(name, "1").startswith(location)
    scenario.answers["prices"] = {"1": what_training_gives(sample)}

    scenario.given.a_deployment(serving=None)
    scenario.then.it_settles_on("1")

    command = ["python", "-m", "rollway_training.client", "predict", "--model", "prices", "--sample", sample]
    command += ["--http", "http://prices:8080", "--grpc", "prices:8081"]
    spec = jobs.pod(world.installation.images["training"], command, {})
    answers = jobs.run(world.client, scenario.namespace, "client", spec)
    assert {answer["protocol"] for answer in answers} == PROTOCOLS
    assert [judge.wrong(answer, scenario.answers["prices"]) for answer in answers] == [None] * len(PROTOCOLS)
    revision = scenario.status("prices")["stable"]["revision"]
    assert {(answer["version"], answer["revision"]) for answer in answers} == {("1", revision)}
