"""The revision's settings, as the operator wrote them into the pod's ConfigMap.

Three environment variables say where things are: ``ROLLWAY_CONFIG_DIR`` (default ``/etc/rollway``),
``ROLLWAY_MODEL_DIR`` (``/mnt/models``) and ``ROLLWAY_TERMINATION_LOG`` (``/dev/termination-log``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from rollway_serving.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_BYTES = 1 << 20

SmokeTestSource = Literal["InputExample", "ConfigMap", "Disabled"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the pod's files are."""

    config: Path
    model: Path
    termination: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Places:
        """Read the three paths, each with its default."""
        return cls(
            config=Path(environment.get("ROLLWAY_CONFIG_DIR", "/etc/rollway")),
            model=Path(environment.get("ROLLWAY_MODEL_DIR", "/mnt/models")),
            termination=Path(environment.get("ROLLWAY_TERMINATION_LOG", "/dev/termination-log")),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost the others; each has a default, for revisions made before it existed."""

    max_body_bytes: int = 1 << 20
    header_seconds: float = 5.0
    body_seconds: float = 10.0
    max_concurrency: int = 16
    max_queue: int = 64

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Limits:
        """Check every field that is there."""
        return cls(
            max_body_bytes=int(_number(raw, "limits.maxBodyBytes", low=1, high=1 << 30, default=1 << 20)),
            header_seconds=_number(raw, "limits.headerSeconds", low=0.1, high=3_600, default=5),
            body_seconds=_number(raw, "limits.bodySeconds", low=0.1, high=3_600, default=10),
            max_concurrency=int(_number(raw, "limits.maxConcurrency", low=1, high=1_024, default=16)),
            max_queue=int(_number(raw, "limits.maxQueue", low=0, high=65_536, default=64)),
        )


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests share one call of the model."""

    max_batch_size: int = 32
    """In rows."""
    max_latency_seconds: float = 0.0
    """So long a request waits for others to go with."""

    @classmethod
    def parse(cls, raw: Mapping[str, Any], timeout: float) -> Batching:
        """Check both fields; a request that waits past its deadline would never be answered."""
        return cls(
            max_batch_size=int(_number(raw, "batching.maxBatchSize", low=1, high=100_000, default=32)),
            max_latency_seconds=_number(raw, "batching.maxLatencySeconds", low=0, high=timeout, default=0),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a server needs to know about the revision it serves."""

    name: str
    namespace: str
    revision: str
    model_name: str
    version: str
    timeout_seconds: float
    smoke_test: SmokeTestSource
    warmup_requests: int
    drain_seconds: float
    http_port: int
    grpc_port: int
    metrics_port: int
    tolerance: float = 1e-6
    max_latency_seconds: float | None = None
    limits: Limits = field(default_factory=Limits)
    batching: Batching | None = None

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read ``settings.json``; the error names the field that is wrong."""
        try:
            with path.open("rb") as file:
                raw = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: {error}") from error
        if not isinstance(raw, dict):
            raise SettingsError(f"{path}: expected a JSON object")
        return cls.parse(raw)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Settings:
        """Check every field and its type."""
        timeout = _number(raw, "timeoutSeconds", low=0.001, high=86_400)
        return cls(
            name=_text(raw, "name"),
            namespace=_text(raw, "namespace"),
            revision=_text(raw, "revision"),
            model_name=_text(raw, "modelName"),
            version=_text(raw, "version"),
            timeout_seconds=timeout,
            smoke_test=_source(raw),
            warmup_requests=int(_number(raw, "warmup.requests", low=0, high=1_000_000)),
            drain_seconds=_number(raw, "drainSeconds", low=0, high=3_600),
            http_port=_port(raw, "httpPort"),
            grpc_port=_port(raw, "grpcPort"),
            metrics_port=_port(raw, "metricsPort"),
            tolerance=_number(raw, "smokeTest.tolerance", low=0, high=1e300, default=1e-6),
            max_latency_seconds=_number(raw, "smokeTest.maxLatencySeconds", low=0, high=86_400)
            if _has(raw, "smokeTest.maxLatencySeconds")
            else None,
            limits=Limits.parse(raw),
            batching=Batching.parse(raw, timeout) if _has(raw, "batching") else None,
        )


def _source(raw: Mapping[str, Any]) -> SmokeTestSource:
    source = _text(raw, "smokeTest.source")
    for known in get_args(SmokeTestSource):
        if source == known:
            return cast("SmokeTestSource", known)
    raise SettingsError(
        f"smokeTest.source: expected one of {', '.join(get_args(SmokeTestSource))}, got {source!r}"
    )


def _has(raw: Mapping[str, Any], field: str) -> bool:
    """Whether an optional field is there; ``null`` is as good as absent."""
    value: Any = raw
    for key in field.split("."):
        if not isinstance(value, dict):
            return True  # what is not an object is an error, which `_find` words
        value = value.get(key)
        if value is None:
            return False
    return True


def _find(raw: Mapping[str, Any], field: str) -> Any:
    value: Any = raw
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            raise SettingsError(f"{field}: missing")
        value = value[key]
    return value


def _text(raw: Mapping[str, Any], field: str) -> str:
    value = _find(raw, field)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise SettingsError(f"{field}: expected a printable text, got {value!r}")
    return value


def _number(
    raw: Mapping[str, Any], field: str, *, low: float, high: float, default: float | None = None
) -> float:
    if default is not None and not _has(raw, field):
        return float(default)
    value = _find(raw, field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SettingsError(f"{field}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def _port(raw: Mapping[str, Any], field: str) -> int:
    value = _find(raw, field)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65_535:
        raise SettingsError(f"{field}: expected a port from 1 to 65535, got {value!r}")
    return value
