import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from rollway_operator import telemetry
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
