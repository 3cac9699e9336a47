"""What a model pod counts: the same names from every runtime, with no label that a client can set.

The values of ``protocol``, ``method`` and ``outcome`` are constants of this program. Seldon's two executor
histograms have Seldon's labels and buckets, so that dashboards made for Seldon work. Where Seldon names a container's
image and tag, this names the registered model and its version; ``predictor_name`` is the revision.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from rollway_serving.limits import Admission
    from rollway_serving.settings import Settings

asked: ContextVar[Method] = ContextVar("asked")
"""What the request of this task asked, for whoever calls the model."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = ("ok", "client_error", "server_error", "shed")
_GROWTH = 1.185
_FIRST_BOUND, _LAST_BOUND = 0.001, 30.0
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)
_SELDON_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_SELDON_SERVER_LABELS = (
    "deployment_name",
    "predictor_name",
    "predictor_version",
    "service",
    "method",
    "code",
)
_SELDON_CLIENT_LABELS = (
    "deployment_name",
    "predictor_name",
    "predictor_version",
    "service",
    "model_name",
    "model_image",
    "model_version",
    "method",
    "code",
)
_SHED_STATUSES = frozenset({429, 503})
_SHED_CODES = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_CLIENTS_CODES = frozenset(
    {
        "CANCELLED",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
    }
)


def bounds() -> tuple[float, ...]:
    """The latency histogram's bounds: each less than 1.19 times the last, so a quantile is off by less than that.

    >>> bounds()[:4], bounds()[-1], len(bounds())
    ((0.001, 0.001185, 0.001404, 0.001664), 30.0, 62)
    """
    found = [_FIRST_BOUND]
    while found[-1] * _GROWTH < _LAST_BOUND:
        found.append(float(f"{found[-1] * _GROWTH:.4g}"))
    return (*found, _LAST_BOUND)


@dataclass(frozen=True, slots=True)
class Method:
    """Something that a client may ask of the model."""

    protocol: str
    """``rest`` or ``grpc``."""
    name: str
    """What it is called in our own metrics."""
    service: str
    """What it is called in Seldon's: ``predictions``, ``feedback``, or gRPC's full name of the method."""


def outcome_of(code: int | str) -> str:
    """Whose doing an answer is, by its HTTP status or the name of its gRPC code.

    >>> [outcome_of(code) for code in (200, 413, 429, 503, 500, 504)]
    ['ok', 'client_error', 'shed', 'shed', 'server_error', 'server_error']
    >>> [outcome_of(code) for code in ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")]
    ['ok', 'client_error', 'shed', 'server_error']
    """
    if isinstance(code, int):
        if code in _SHED_STATUSES:
            return "shed"
        return "ok" if code < 400 else "client_error" if code < 500 else "server_error"
    if code in _SHED_CODES:
        return "shed"
    return "ok" if code == "OK" else "client_error" if code in _CLIENTS_CODES else "server_error"


class Metrics:
    """The one registry of a server; it may be used from any thread."""

    def __init__(self, settings: Settings, methods: tuple[Method, ...], admission: Admission) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._settings = settings
        self._requests = Counter(
            "rollway_inference_requests",
            "Requests to the model by how they ended; shed: not taken on, for the load or before it was ready.",
            ("protocol", "method", "outcome"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "rollway_inference_request_duration_seconds",
            "Time from a request's last byte to the end of its answer.",
            ("protocol", "method", "outcome"),
            buckets=bounds(),
            registry=self.registry,
        )
        self._rows = Histogram(
            "rollway_inference_batch_rows",
            "Rows in one call of the model.",
            buckets=_ROWS,
            registry=self.registry,
        )
        self._info = Gauge(
            "rollway_model_info",
            "1, with what is served.",
            ("model", "version", "revision", "flavor", "path"),
            registry=self.registry,
        )
        Gauge(
            "rollway_inference_queue_depth",
            "Requests that wait for a place.",
            registry=self.registry,
        ).set_function(lambda: admission.waiting)
        Gauge(
            "rollway_inference_requests_in_progress",
            "Predictions that run, those that have passed their deadline among them.",
            registry=self.registry,
        ).set_function(lambda: admission.running)
        self._seldon_server = Histogram(
            "seldon_api_executor_server_requests_seconds",
            "A histogram of latencies for executor server",
            _SELDON_SERVER_LABELS,
            buckets=_SELDON_BOUNDS,
            registry=self.registry,
        )
        self._seldon_client = Histogram(
            "seldon_api_executor_client_requests_seconds",
            "A histogram of latencies for client calls from executor",
            _SELDON_CLIENT_LABELS,
            buckets=_SELDON_BOUNDS,
            registry=self.registry,
        )
        for method in methods:
            for outcome in OUTCOMES:  # a rate needs the zero before the first one
                self._requests.labels(method.protocol, method.name, outcome)

    def loaded(self, *, flavor: str, path: str = "original") -> None:
        """Say what is served; ``path`` is how it predicts: the original model, or what was compiled of it."""
        self._info.labels(
            self._settings.model_name, self._settings.version, self._settings.revision, flavor, path
        ).set(1)

    def answered(self, method: Method, code: int | str, seconds: float) -> None:
        """Count a request by the HTTP status or the name of the gRPC code that it was answered."""
        outcome = outcome_of(code)
        self._requests.labels(method.protocol, method.name, outcome).inc()
        self._durations.labels(method.protocol, method.name, outcome).observe(seconds)
        self._seldon_server.labels(
            self._settings.name, self._settings.revision, self._settings.version, *_seldon(method, code)
        ).observe(seconds)

    def called(self, rows: int) -> None:
        """Count a call of the model that gave an answer, for one request or for several."""
        self._rows.observe(rows)

    def predicted(self, method: Method, seconds: float) -> None:
        """Count a request that the model has answered; ``seconds`` includes the wait for a place."""
        settings = self._settings
        service, verb, code = _seldon(method, 200 if method.protocol == "rest" else "OK")
        self._seldon_client.labels(
            settings.name,
            settings.revision,
            settings.version,
            service,
            settings.name,
            settings.model_name,
            settings.version,
            verb,
            code,
        ).observe(seconds)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        text: bytes = generate_latest(self.registry)
        return text


def _seldon(method: Method, code: int | str) -> tuple[str, str, str]:
    """Service, method and code as Seldon writes them: ``post``, ``200`` and ``unary``, ``InvalidArgument``."""
    if isinstance(code, int):
        return method.service, "post", str(code)
    words = "OK" if code == "OK" else "".join(word.capitalize() for word in code.split("_"))
    return method.service, "unary", "Canceled" if words == "Cancelled" else words
