import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from rollway_operator import __version__, telemetry
from rollway_operator.queue import WorkQueue
from rollway_operator.telemetry import LONGEST_FIELD, JsonFormatter, configure_logging


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    logger, stream = logging.getLogger("rollway_operator.test"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.propagate = False
    yield stream
    logger.removeHandler(handler)
    logger.propagate = True


def line(stream: io.StringIO) -> dict[str, Any]:
    (only,) = stream.getvalue().splitlines()
    read: dict[str, Any] = json.loads(only)
    return read


LOGGER = logging.getLogger("rollway_operator.test")


def test_a_record_says_when_how_bad_and_what(written: io.StringIO) -> None:
    LOGGER.warning("promoted %s", "fraud-7c9f")
    record = line(written)
    assert record.pop("time").endswith("+00:00")
    assert record == {"level": "WARNING", "logger": "rollway_operator.test", "message": "promoted fraud-7c9f"}


def test_a_record_names_its_object_revision_and_reason_where_given(written: io.StringIO) -> None:
    LOGGER.warning("gone", extra={"object": "team-a/fraud", "revision": "fraud-7c9f", "reason": "Promoted"})
    assert {key: line(written)[key] for key in ("object", "revision", "reason")} == {
        "object": "team-a/fraud",
        "revision": "fraud-7c9f",
        "reason": "Promoted",
    }


def test_what_others_wrote_cannot_begin_a_line_or_colour_a_terminal(written: io.StringIO) -> None:
    LOGGER.warning("%s", 'bad\n{"level": "INFO"}\r\x1b[31m\u2028\x00')
    assert written.getvalue().count("\n") == 1
    assert written.getvalue().rstrip("\n").isprintable()
    assert line(written)["message"] == 'bad\n{"level": "INFO"}\r\x1b[31m\u2028\x00'


def test_a_long_text_is_cut(written: io.StringIO) -> None:
    LOGGER.warning("x" * 100_000, extra={"reason": "y" * 100_000})
    record = line(written)
    assert len(record["message"]) == len(record["reason"]) == LONGEST_FIELD + 1


def test_an_exception_keeps_its_end_which_says_what_happened(written: io.StringIO) -> None:
    try:
        _ = {"": ""}["x" * 10_000 + "the end"]
    except KeyError:
        LOGGER.exception("failed")
    assert line(written)["exception"].rstrip("'").endswith("the end")


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("rollway_operator")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


def test_libraries_do_not_log_what_they_send_even_when_the_operator_logs_everything(
    logging_as_before: None,
) -> None:
    configure_logging("DEBUG")
    assert logging.getLogger("rollway_operator.resolve").isEnabledFor(logging.DEBUG)
    for library in ("httpx", "httpcore", "kopf", "aiohttp"):
        assert not logging.getLogger(library).isEnabledFor(logging.INFO)


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"rollway_operator_{name}", labels) or 0


def test_a_request_to_the_api_server_is_counted_by_its_status_and_timed() -> None:
    before = count("api_requests_total", verb="patch", code="409")
    timed = count("api_request_duration_seconds_count", verb="patch")
    with telemetry.ApiRequest("patch") as request:
        request.code = "409"
    assert count("api_requests_total", verb="patch", code="409") == before + 1
    assert count("api_request_duration_seconds_count", verb="patch") == timed + 1


def test_a_request_that_got_no_answer_is_counted_too() -> None:
    before = count("api_requests_total", verb="delete", code="none")
    with pytest.raises(TimeoutError), telemetry.ApiRequest("delete"):
        raise TimeoutError
    assert count("api_requests_total", verb="delete", code="none") == before + 1


def test_the_queue_is_measured_when_it_is_asked_for() -> None:
    async def work(_: str) -> None:
        return None

    queue = WorkQueue(work, 1)
    telemetry.measure_queue(queue)
    assert count("queue_depth") == count("queue_oldest_seconds") == 0
    queue.add("iris")
    assert count("queue_depth") == 1
    assert 0 < count("queue_oldest_seconds") < count("queue_oldest_seconds")


def test_a_registry_that_is_gone_leaves_no_series() -> None:
    telemetry.REGISTRY_REQUESTS.labels("gone", "ok").inc()
    telemetry.REGISTRY_REQUESTS.labels("gone", "refused").inc()
    telemetry.REGISTRY_SECONDS.labels("gone").observe(1)
    telemetry.forget_registry("gone")
    assert 'registry="gone"' not in generate_latest(REGISTRY).decode()


def test_the_version_is_told() -> None:
    assert count("build_info", version=__version__) == 1


def test_every_metric_of_the_operator_begins_with_its_name() -> None:
    telemetry.REGISTRY_REQUESTS.labels("default", "ok")
    names = {
        row.split()[2]
        for row in generate_latest(REGISTRY).decode().splitlines()
        if row.startswith("# TYPE rollway")
    }
    assert {
        "rollway_operator_reconcile_total",
        "rollway_operator_reconcile_duration_seconds",
        "rollway_operator_registry_requests_total",
        "rollway_operator_queue_depth",
        "rollway_operator_writes_total",
    } <= names
