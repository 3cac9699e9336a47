"""What is counted, under which names and with which labels."""

import doctest
import re
from itertools import pairwise

import pytest

from rollway_serving import metrics as module
from rollway_serving.limits import Admission
from rollway_serving.metrics import Method, Metrics, bounds, outcome_of
from rollway_serving.settings import Settings

from .test_pod_contract import SETTINGS

REST = Method("rest", "infer", "predictions")
GRPC = Method("grpc", "infer", "/inference.GRPCInferenceService/ModelInfer")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Settings.parse(SETTINGS), (REST, GRPC), Admission(concurrency=1, queue=1, seconds=1))


def value_of(metrics: Metrics, name: str, **labels: str) -> float | None:
    value: float | None = metrics.registry.get_sample_value(name, labels)
    return value


def test_the_bounds_go_from_a_millisecond_to_half_a_minute_in_small_steps() -> None:
    found = bounds()
    assert (found[0], found[-1]) == (0.001, 30.0)
    assert max(later / earlier for earlier, later in pairwise(found)) < 1.19
    assert sorted(set(found)) == list(found)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (200, "ok"),
        (400, "client_error"),
        (404, "client_error"),
        (408, "client_error"),
        (413, "client_error"),
        (429, "shed"),
        (503, "shed"),
        (500, "server_error"),
        (504, "server_error"),
        ("OK", "ok"),
        ("INVALID_ARGUMENT", "client_error"),
        ("NOT_FOUND", "client_error"),
        ("CANCELLED", "client_error"),
        ("RESOURCE_EXHAUSTED", "shed"),
        ("UNAVAILABLE", "shed"),
        ("INTERNAL", "server_error"),
        ("DEADLINE_EXCEEDED", "server_error"),
        ("UNKNOWN", "server_error"),
    ],
)
def test_an_outcome_says_whose_doing_it_was(code: int | str, outcome: str) -> None:
    assert outcome_of(code) == outcome


def test_every_outcome_is_zero_before_it_happens(metrics: Metrics) -> None:
    name = "rollway_inference_requests_total"
    assert value_of(metrics, name, protocol="grpc", method="infer", outcome="server_error") == 0
    metrics.answered(GRPC, "INTERNAL", 0.1)
    assert value_of(metrics, name, protocol="grpc", method="infer", outcome="server_error") == 1


def test_an_answer_is_in_our_metrics_and_in_seldons(metrics: Metrics) -> None:
    metrics.loaded(flavor="sklearn")
    metrics.answered(REST, 200, 0.002)
    metrics.called(7)
    metrics.predicted(REST, 0.001)
    metrics.answered(GRPC, "INVALID_ARGUMENT", 0.002)
    assert value_of(metrics, "rollway_inference_batch_rows_sum") == 7
    assert (
        value_of(
            metrics,
            "rollway_model_info",
            model="fraud detector",
            version="3",
            revision="fraud-7c9f12ab",
            flavor="sklearn",
            path="original",
        )
        == 1
    )
    seldon = {"deployment_name": "fraud", "predictor_name": "fraud-7c9f12ab", "predictor_version": "3"}
    server = "seldon_api_executor_server_requests_seconds_count"
    assert value_of(metrics, server, service="predictions", method="post", code="200", **seldon) == 1
    assert value_of(metrics, server, service=GRPC.service, method="unary", code="InvalidArgument", **seldon)
    client = "seldon_api_executor_client_requests_seconds_count"
    model = {"model_name": "fraud", "model_image": "fraud detector", "model_version": "3"}
    assert value_of(metrics, client, service="predictions", method="post", code="200", **seldon, **model) == 1


def test_the_exposition_has_the_promised_names(metrics: Metrics) -> None:
    metrics.answered(REST, 200, 0.002)
    names = set(re.findall(r"^# TYPE (rollway_\w+)", metrics.exposition().decode(), re.MULTILINE))
    assert {
        "rollway_inference_requests_total",
        "rollway_inference_request_duration_seconds",
        "rollway_inference_batch_rows",
        "rollway_inference_queue_depth",
        "rollway_inference_requests_in_progress",
        "rollway_model_info",
    } <= names


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(module)
    assert (result.attempted > 0, result.failed) == (True, 0)
