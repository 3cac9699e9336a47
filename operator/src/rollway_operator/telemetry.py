"""What the operator says about itself: one JSON object a log record, and a few metrics.

Log lines carry text that others wrote (names, messages of servers). JSON escapes line breaks and other
control characters, so no such text can make a line of its own, and each field is cut to a length.
"""

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final, Self

from prometheus_client import Counter, Gauge, Histogram, Info, start_http_server

from rollway_operator import __version__
from rollway_operator.queue import WorkQueue

LONGEST_FIELD: Final = 2000
_FIELDS = ("object", "revision", "reason")

_REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

RECONCILES = Counter("rollway_operator_reconcile_total", "Passes over ModelDeployments.", ["result"])
RECONCILE_SECONDS = Histogram(
    "rollway_operator_reconcile_duration_seconds",
    "How long a pass took.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
QUEUE_DEPTH = Gauge("rollway_operator_queue_depth", "ModelDeployments that are due and wait for their pass.")
QUEUE_OLDEST = Gauge(
    "rollway_operator_queue_oldest_seconds",
    "How long the ModelDeployment that is due for longest has waited for its pass; 0 if none is due.",
)
RESYNCED = Gauge(
    "rollway_operator_resync_timestamp_seconds", "When a resync last succeeded; 0 before the first."
)
API_REQUESTS = Counter(
    "rollway_operator_api_requests_total",
    "Requests to the API server by HTTP status; none where no answer came.",
    ["verb", "code"],
)
API_SECONDS = Histogram(
    "rollway_operator_api_request_duration_seconds",
    "Time from a request to the API server to the end of its answer, or until none came.",
    ["verb"],
    buckets=_REQUEST_BOUNDS,
)
LEADER = Gauge("rollway_leader", "1 in the replica that holds the lease, 0 in those that stand by.")
WRITES = Counter("rollway_operator_writes_total", "Writes to the API server.", ["kind"])
WATCH_BREAKS = Counter(
    "rollway_operator_watch_breaks_total", "Times that the watch broke and was begun again."
)
REGISTRY_REQUESTS = Counter(
    "rollway_operator_registry_requests_total", "Requests to model registries.", ["registry", "result"]
)
PROMETHEUS_QUERIES = Counter(
    "rollway_operator_prometheus_queries_total", "Questions to Prometheus.", ["result"]
)
NOTIFICATIONS = Counter(
    "rollway_operator_notifications_total",
    "Notices by what became of them: sent, retried (an attempt that failed), dropped.",
    ["receiver", "result"],
)
NOTIFICATIONS_QUEUED = Gauge("rollway_operator_notifications_queued", "Notices that were not delivered yet.")
REGISTRY_SECONDS = Histogram(
    "rollway_operator_registry_request_duration_seconds",
    "Time from a request to a model registry to its answer, or until none came.",
    ["registry"],
    buckets=_REQUEST_BOUNDS,
)
Info("rollway_operator_build", "1, with the operator's version.").info({"version": __version__})


class ApiRequest:
    """Measures one request to the API server, from entering to leaving; `code` is told once there is an answer."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self.code = "none"

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        API_SECONDS.labels(self._verb).observe(time.monotonic() - self._began)
        API_REQUESTS.labels(self._verb, self.code).inc()


def measure_queue(queue: WorkQueue[Any]) -> None:
    """Measure this queue at each scrape from now on; it is asked by the thread that answers Prometheus."""
    QUEUE_DEPTH.set_function(lambda: len(queue))
    QUEUE_OLDEST.set_function(lambda: queue.oldest_seconds)


def forget_registry(name: str) -> None:
    """Drop what was counted of a registry that is gone: names must not pile up."""
    for metric in (REGISTRY_REQUESTS, REGISTRY_SECONDS):
        metric.remove_by_labels({"registry": name})


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, logger, message, and of what it speaks."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        line |= {name: _cut(value) for name in _FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["exception"] = _cut(self.formatException(record.exc_info), keep_end=True)
        return json.dumps(line)


def configure_logging(level: str) -> None:
    """Send every record of the process to standard error as JSON; libraries speak from WARNING on.

    At lower levels HTTP clients log addresses and headers, and with them what nobody should read in a log.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.getLogger("rollway_operator").setLevel(level)


def serve_metrics(port: int) -> None:
    """Answer Prometheus on `/metrics`, from a thread of its own."""
    start_http_server(port)


def _cut(value: object, *, keep_end: bool = False) -> str:
    text = str(value)
    if len(text) <= LONGEST_FIELD:
        return text
    return f"…{text[-LONGEST_FIELD:]}" if keep_end else f"{text[:LONGEST_FIELD]}…"
