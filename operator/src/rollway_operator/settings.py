"""Read the operator's environment, once, into one frozen value; what is wrong is said by its name."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from rollway_operator import labels
from rollway_operator.domain import GatewayRef, Platform, Runtime
from rollway_operator.errors import SettingsError
from rollway_operator.notify import DEFAULT_EVENTS, EventName, Receiver
from rollway_operator.prometheus import Server, trusted
from rollway_operator.promql import template_problem

_Port = Annotated[int, Field(ge=1, le=65535)]
_Text = Annotated[str, StringConstraints(min_length=1)]
_Path = Annotated[str, StringConstraints(pattern=r"^/")]

_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME: Final = rf"{_LABEL}(\.{_LABEL})*"
_GATEWAY: Final = re.compile(rf"(?P<namespace>{_LABEL})/(?P<name>{_NAME})(/(?P<section>{_NAME}))?")
_BASE: Final = re.compile(
    r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~-]+)*"
)
_HOST_LABEL: Final = r"([-a-z0-9]|\{namespace\})+"
_HOST_PATTERN: Final = re.compile(rf"(\*\.)?{_HOST_LABEL}(\.{_HOST_LABEL})*")


class _Closed(BaseModel):
    """A part of runtimes.json, where a misspelt field is an error."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class _Ports(_Closed):
    http: _Port
    grpc: _Port
    metrics: _Port


class _Limits(_Closed):
    max_body_bytes: int | None = Field(default=None, ge=1024, le=1 << 30)
    header_seconds: float | None = Field(default=None, ge=0.1, le=3600)
    body_seconds: float | None = Field(default=None, ge=0.1, le=3600)
    max_concurrency: int | None = Field(default=None, ge=1, le=1024)
    max_queue: int | None = Field(default=None, ge=0, le=65_536)


class _Runtime(_Closed):
    image: _Text
    fetch_command: tuple[_Text, ...] = Field(min_length=1)
    ports: _Ports
    readiness_path: _Path
    liveness_path: _Path
    drain_seconds: float = Field(ge=0, le=600)
    server_command: tuple[_Text, ...] = ()
    pre_stop_seconds: int = Field(default=0, ge=0, le=600)
    image_pull_secrets: tuple[_Text, ...] = ()
    limits: _Limits = _Limits()
    batching: bool = False


class _SecretKey(_Closed):
    name: _Text
    key: _Text


class _Receiver(_Closed):
    name: Annotated[str, StringConstraints(pattern=rf"^{_LABEL}$")]
    type: Literal["slack", "webhook"]
    url_secret: _SecretKey
    events: tuple[EventName, ...] = DEFAULT_EVENTS
    namespaces: tuple[_Text, ...] = ()


class _Notifications(_Closed):
    receivers: tuple[_Receiver, ...] = ()


class _Template(_Closed):
    query: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


_RUNTIMES = TypeAdapter(Annotated[dict[_Text, _Runtime], Field(min_length=1)])
_NOTIFICATIONS = TypeAdapter(_Notifications)
_TEMPLATES = TypeAdapter(dict[_Text, _Template])

_T = TypeVar("_T")


@dataclass(frozen=True)
class Provider:
    """The Prometheus that evidence is read from."""

    server: Server
    stale: timedelta = timedelta(seconds=90)
    """What it scraped longer ago is no evidence."""
    falls_back: bool = False
    """Whether pods are read directly where it has nothing of them."""
    gateway_errors: Literal["traefik"] | None = None
    """Which gateway's counts of requests without an answer it has, too."""


@dataclass(frozen=True)
class Settings:
    """What the environment says about this operator."""

    namespace: str
    """The operator's own."""
    identity: str
    """The name of this replica's pod; empty outside of a cluster."""
    lease: str
    """The name of the Lease that the replicas share."""
    watch_namespaces: tuple[str, ...]
    """The namespaces it serves; empty means all."""
    runtimes: Mapping[str, Runtime]
    log_level: str
    health_port: int
    metrics_port: int
    resync: timedelta
    cluster_domain: str
    prometheus_namespaces: tuple[str, ...] = ()
    gateway_namespaces: tuple[str, ...] = ()
    toleration_keys: tuple[str, ...] = ()
    http_gateway: GatewayRef | None = None
    grpc_gateway: GatewayRef | None = None
    gateway_url: str | None = None
    permitted_hosts: tuple[str, ...] = ()
    monitor_labels: Mapping[str, str] | None = None
    receivers: tuple[Receiver, ...] = ()
    """Who is told what happens to models."""
    prometheus: Provider | None = None
    """Where evidence is read; None leaves that to the pods themselves."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Queries that metrics may name."""

    @property
    def platform(self) -> Platform:
        """The part that every pass needs."""
        return Platform(
            runtimes=self.runtimes,
            cluster_domain=self.cluster_domain,
            namespace=self.namespace,
            prometheus_namespaces=self.prometheus_namespaces,
            gateway_namespaces=self.gateway_namespaces,
            toleration_keys=self.toleration_keys,
            http_gateway=self.http_gateway,
            grpc_gateway=self.grpc_gateway,
            gateway_url=self.gateway_url,
            permitted_hosts=self.permitted_hosts,
            monitor_labels=self.monitor_labels,
            templates=self.templates,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables that the chart sets, and the files that some of them name."""
        read = _Reader(environment)
        return cls(
            namespace=read.required("ROLLWAY_NAMESPACE", "the operator's own namespace"),
            identity=read.text("ROLLWAY_POD_NAME", ""),
            lease=read.text("ROLLWAY_LEASE_NAME", "rollway-operator"),
            watch_namespaces=read.names("ROLLWAY_WATCH_NAMESPACES"),
            runtimes=_runtimes(read),
            log_level=read.level("ROLLWAY_LOG_LEVEL", "INFO"),
            health_port=read.port("ROLLWAY_HEALTH_PORT", 8080),
            metrics_port=read.port("ROLLWAY_METRICS_PORT", 8081),
            resync=read.seconds("ROLLWAY_RESYNC_SECONDS", 20),
            cluster_domain=read.text("ROLLWAY_CLUSTER_DOMAIN", "cluster.local"),
            prometheus_namespaces=read.names("ROLLWAY_PROMETHEUS_NAMESPACES"),
            gateway_namespaces=read.names("ROLLWAY_GATEWAY_NAMESPACES"),
            toleration_keys=read.names("ROLLWAY_TOLERATION_KEYS"),
            http_gateway=(gateway := read.gateway("ROLLWAY_GATEWAY_HTTP")),
            grpc_gateway=read.gateway("ROLLWAY_GATEWAY_GRPC"),
            gateway_url=read.url("ROLLWAY_GATEWAY_URL"),
            permitted_hosts=read.host_patterns("ROLLWAY_PERMITTED_HOSTS"),
            monitor_labels=read.labels("ROLLWAY_MONITOR_LABELS")
            if read.switch("ROLLWAY_POD_MONITORS", default=True)
            else None,
            receivers=_receivers(read),
            prometheus=(provider := _provider(read, gateway)),
            templates=_templates(read, provider),
        )


def _provider(read: "_Reader", gateway: GatewayRef | None) -> Provider | None:
    url = read.url("ROLLWAY_PROMETHEUS_URL")
    errors = read.one_of("ROLLWAY_PROMETHEUS_GATEWAY_ERRORS", ("", "traefik"))
    if errors and not (url and gateway):
        missing = "ROLLWAY_GATEWAY_HTTP" if url else "ROLLWAY_PROMETHEUS_URL"
        value = "gateway.http" if url else "prometheus.url"
        raise SettingsError(
            f"ROLLWAY_PROMETHEUS_GATEWAY_ERRORS is {errors!r}, and {missing} is not set; set {value} of the chart's "
            "values, too"
        )
    if url is None:
        return None
    server = Server(url, read.file("ROLLWAY_PROMETHEUS_TOKEN_FILE"), read.file("ROLLWAY_PROMETHEUS_CA_FILE"))
    # Tried here, where a mistake ends the process: later each leader would fail at it, and take the lease again.
    trusted(server.ca_file)
    return Provider(
        server,
        stale=read.seconds("ROLLWAY_PROMETHEUS_STALE_SECONDS", 90),
        falls_back=read.one_of("ROLLWAY_PROMETHEUS_FALLBACK", ("Hold", "Direct")) == "Direct",
        gateway_errors="traefik" if errors else None,
    )


def _templates(read: "_Reader", provider: Provider | None) -> Mapping[str, str]:
    """Read the queries that the administrator wrote; each must be one that can be filled in."""
    name = "ROLLWAY_TEMPLATES_FILE"
    defined = read.json(name, _TEMPLATES, "analysis.templates", absent={})
    for template, each in defined.items():
        if problem := template_problem(each.query):
            raise SettingsError(
                f"{name}: template {template!r}: {problem}, in analysis.templates of the chart's values"
            )
    if defined and provider is None:
        raise SettingsError(
            f"{name} has templates, and ROLLWAY_PROMETHEUS_URL is not set; set prometheus.url, too"
        )
    return {template: each.query for template, each in defined.items()}


def _runtimes(read: "_Reader") -> Mapping[str, Runtime]:
    """Read the inference servers that the administrator defined."""
    defined = read.json("ROLLWAY_RUNTIMES_FILE", _RUNTIMES, "runtimes")
    return {
        name: Runtime(
            name=name,
            image=runtime.image,
            fetch_command=runtime.fetch_command,
            http_port=runtime.ports.http,
            grpc_port=runtime.ports.grpc,
            metrics_port=runtime.ports.metrics,
            readiness_path=runtime.readiness_path,
            liveness_path=runtime.liveness_path,
            drain_seconds=runtime.drain_seconds,
            server_command=runtime.server_command,
            pre_stop_seconds=runtime.pre_stop_seconds,
            image_pull_secrets=runtime.image_pull_secrets,
            limits=runtime.limits.model_dump(by_alias=True, exclude_none=True),
            batching=runtime.batching,
        )
        for name, runtime in defined.items()
    }


def _receivers(read: "_Reader") -> tuple[Receiver, ...]:
    """Read who is told what. The Secrets with their addresses are mounted in one folder, by receiver."""
    name = "ROLLWAY_NOTIFICATIONS_FILE"
    folder = Path(read.text("ROLLWAY_RECEIVERS_FOLDER", "/etc/rollway-receivers"))
    defined = read.json(name, _NOTIFICATIONS, "notifications", absent=_Notifications()).receivers
    names = [receiver.name for receiver in defined]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(
            f"{name}: receivers: {', '.join(twice)} is there twice; give each of `notifications.receivers` in the "
            "chart's values a name of its own"
        )
    return tuple(
        Receiver(
            name=receiver.name,
            type=receiver.type,
            url_file=folder / receiver.name / "url",
            secret=f"key {receiver.url_secret.key} of Secret {receiver.url_secret.name}",
            events=receiver.events,
            namespaces=receiver.namespaces,
        )
        for receiver in defined
    )


class _Reader:
    """Reads single variables, and the files they name; an empty one counts as absent, as in a chart's template."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name, "").strip() or default

    def required(self, name: str, what: str) -> str:
        value = self.text(name, "")
        if not value:
            raise SettingsError(f"{name} is not set; give it {what}")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        given = (part.strip() for part in self._environment.get(name, "").split(","))
        return tuple(sorted({part for part in given if part}))

    def gateway(self, name: str) -> GatewayRef | None:
        value = self.text(name, "")
        if not value:
            return None
        parts = _GATEWAY.fullmatch(value)
        if not parts:
            raise SettingsError(
                f"{name} is {value!r}; use namespace/name or namespace/name/section of a Gateway"
            )
        return GatewayRef(parts["namespace"], parts["name"], parts["section"])

    def url(self, name: str) -> str | None:
        value = self.text(name, "").rstrip("/")
        if value and not _BASE.fullmatch(value):
            raise SettingsError(
                f"{name} is {value!r}; use http:// or https:// with a host, such as https://models.example.com"
            )
        return value or None

    def file(self, name: str) -> Path | None:
        value = self.text(name, "")
        if value and not os.access(value, os.R_OK):
            raise SettingsError(f"{name} is {value!r}, which cannot be read; name a file that is mounted")
        return Path(value) if value else None

    def json(self, name: str, adapter: TypeAdapter[_T], value: str, *, absent: _T | None = None) -> _T:
        """Read the file that `value` of the chart is mounted as; without `absent` it must be named."""
        if absent is not None and not self.text(name, ""):
            return absent
        file = Path(self.required(name, f"the file that `{value}` of the chart's values is mounted as"))
        try:
            return adapter.validate_json(file.read_bytes())
        except OSError as error:
            raise SettingsError(
                f"{name}: {file} cannot be read ({error.strerror}); mount the chart's ConfigMap"
            ) from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise SettingsError(
                f"{file}: {field}: {first['msg']}; correct `{value}` in the chart's values"
            ) from error

    def one_of(self, name: str, choices: Sequence[str]) -> str:
        value = self.text(name, choices[0])
        if value not in choices:
            raise SettingsError(f"{name} is {value!r}; use {' or '.join(filter(None, choices))}")
        return value

    def host_patterns(self, name: str) -> tuple[str, ...]:
        given = self.names(name)
        for pattern in given:
            if not _HOST_PATTERN.fullmatch(pattern):
                raise SettingsError(
                    f"{name} has {pattern!r}; use host names in lower case, with '*' as the whole first label and "
                    "{namespace} for the model's own, such as *.{namespace}.example.com"
                )
        return given

    def labels(self, name: str) -> Mapping[str, str]:
        pairs = [part.partition("=") for part in self.names(name)]
        for key, equals, value in pairs:
            if not (equals and labels.KEY.fullmatch(key) and labels.VALUE.fullmatch(value)):
                raise SettingsError(
                    f"{name} has {key + equals + value!r}; use labels as key=value with commas between them, such as "
                    "release=kube-prometheus-stack"
                )
        return {key: value for key, _, value in pairs}

    def switch(self, name: str, *, default: bool) -> bool:
        value = self.text(name, str(default)).lower()
        if value not in ("true", "false"):
            raise SettingsError(f"{name} is {value!r}; use true or false")
        return value == "true"

    def level(self, name: str, default: str) -> str:
        value = self.text(name, default).upper()
        if value not in logging.getLevelNamesMapping():
            raise SettingsError(f"{name} is {value!r}; use DEBUG, INFO, WARNING or ERROR")
        return value

    def port(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
            raise SettingsError(f"{name} is {value!r}; use a port from 1 to 65535")
        return int(value)

    def seconds(self, name: str, default: int) -> timedelta:
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 3600):
            raise SettingsError(f"{name} is {value!r}; use whole seconds from 1 to 3600")
        return timedelta(seconds=int(value))
