"""What the operator says about itself: one JSON object a log record, and a few metrics.

Log lines carry text that others wrote (names, messages of servers). JSON escapes line breaks and other
control characters, so no such text can make a line of its own, and each field is cut to a length.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, start_http_server

LONGEST_FIELD: Final = 2000
_FIELDS = ("object", "revision", "reason")

RECONCILES = Counter("rollway_operator_reconcile_total", "Passes over ModelDeployments.", ["result"])
RECONCILE_SECONDS = Histogram(
    "rollway_operator_reconcile_duration_seconds",
    "How long a pass took.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
QUEUE_DEPTH = Gauge("rollway_operator_queue_depth", "ModelDeployments that are due and wait for their pass.")
LEADER = Gauge("rollway_leader", "1 in the replica that holds the lease, 0 in those that stand by.")
WRITES = Counter("rollway_operator_writes_total", "Writes to the API server.", ["kind"])
WATCH_BREAKS = Counter(
    "rollway_operator_watch_breaks_total", "Times that the watch broke and was begun again."
)
REGISTRY_REQUESTS = Counter(
    "rollway_operator_registry_requests_total", "Requests to model registries.", ["registry", "result"]
)


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
