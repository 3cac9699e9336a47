import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rollway_operator.domain import GatewayRef, Platform, Runtime
from rollway_operator.errors import SettingsError
from rollway_operator.notify import Receiver
from rollway_operator.prometheus import Server
from rollway_operator.settings import Provider, Settings

MLSERVER = {
    "image": "docker.io/rollway/mlserver@sha256:1",
    "fetchCommand": ["python", "-m", "rollway_serving.fetch"],
    "ports": {"http": 8080, "grpc": 8081, "metrics": 8082},
    "readinessPath": "/v2/models/{name}/ready",
    "livenessPath": "/v2/health/live",
    "drainSeconds": 5,
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "runtimes.json"
    file.write_text(json.dumps({"mlserver": MLSERVER}))
    return {"ROLLWAY_NAMESPACE": "rollway-system", "ROLLWAY_RUNTIMES_FILE": str(file)}


def test_what_is_not_set_has_a_default(environment: dict[str, str]) -> None:
    settings = Settings.from_environment(environment)
    assert settings == Settings(
        namespace="rollway-system",
        identity="",
        lease="rollway-operator",
        watch_namespaces=(),
        runtimes={
            "mlserver": Runtime(
                name="mlserver",
                image="docker.io/rollway/mlserver@sha256:1",
                fetch_command=("python", "-m", "rollway_serving.fetch"),
                http_port=8080,
                grpc_port=8081,
                metrics_port=8082,
                readiness_path="/v2/models/{name}/ready",
                liveness_path="/v2/health/live",
                drain_seconds=5.0,
            )
        },
        log_level="INFO",
        health_port=8080,
        metrics_port=8081,
        resync=timedelta(seconds=20),
        cluster_domain="cluster.local",
        monitor_labels={},
    )


def test_what_a_runtime_may_add_is_read_as_it_stands(environment: dict[str, str]) -> None:
    added: dict[str, Any] = {
        "serverCommand": ["seldon-core-microservice"],
        "preStopSeconds": 10,
        "imagePullSecrets": ["mirror"],
        "limits": {"maxBodyBytes": 2048, "headerSeconds": 2.5},
        "batching": True,
    }
    Path(environment["ROLLWAY_RUNTIMES_FILE"]).write_text(json.dumps({"mlserver": MLSERVER | added}))
    runtime = Settings.from_environment(environment).runtimes["mlserver"]
    assert runtime.server_command == ("seldon-core-microservice",)
    assert runtime.pre_stop_seconds == 10
    assert runtime.image_pull_secrets == ("mirror",)
    assert runtime.limits == {"maxBodyBytes": 2048, "headerSeconds": 2.5}
    assert runtime.batching


def test_the_platform_is_what_every_pass_needs(environment: dict[str, str]) -> None:
    lists = {
        "ROLLWAY_PROMETHEUS_NAMESPACES": "monitoring",
        "ROLLWAY_GATEWAY_NAMESPACES": "traefik,istio-system",
        "ROLLWAY_TOLERATION_KEYS": "nvidia.com/gpu",
        "ROLLWAY_GATEWAY_HTTP": "traefik/models/websecure",
        "ROLLWAY_GATEWAY_GRPC": "traefik/models.grpc",
        "ROLLWAY_GATEWAY_URL": "https://models.example.com/",
        "ROLLWAY_PERMITTED_HOSTS": "models.example.com, *.{namespace}.example.com",
        "ROLLWAY_MONITOR_LABELS": "release=kube-prometheus-stack, example.com/team=",
    }
    settings = Settings.from_environment(environment | lists)
    assert settings.platform == Platform(
        settings.runtimes,
        cluster_domain="cluster.local",
        namespace="rollway-system",
        prometheus_namespaces=("monitoring",),
        gateway_namespaces=("istio-system", "traefik"),
        toleration_keys=("nvidia.com/gpu",),
        http_gateway=GatewayRef("traefik", "models", "websecure"),
        grpc_gateway=GatewayRef("traefik", "models.grpc"),
        gateway_url="https://models.example.com",
        permitted_hosts=("*.{namespace}.example.com", "models.example.com"),
        monitor_labels={"release": "kube-prometheus-stack", "example.com/team": ""},
    )


@pytest.mark.parametrize(
    "url",
    ["http://models", "https://models.example.com:8443/inference", "http://10.0.0.1:80", "http://[::1]"],
)
def test_the_gateways_url_is_kept_as_it_stands(environment: dict[str, str], url: str) -> None:
    assert Settings.from_environment(environment | {"ROLLWAY_GATEWAY_URL": url}).gateway_url == url


def test_what_the_chart_leaves_empty_is_no_gateway(environment: dict[str, str]) -> None:
    names = ("GATEWAY_HTTP", "GATEWAY_GRPC", "GATEWAY_URL", "PERMITTED_HOSTS")
    platform = Settings.from_environment(environment | {f"ROLLWAY_{name}": "" for name in names}).platform
    assert platform == Platform(platform.runtimes, namespace="rollway-system", monitor_labels={})


def test_without_pod_monitors_no_label_matters(environment: dict[str, str]) -> None:
    told = {"ROLLWAY_POD_MONITORS": "false", "ROLLWAY_MONITOR_LABELS": "release=kube-prometheus-stack"}
    platform = Settings.from_environment(environment | told).platform
    assert platform.monitor_labels is None
    assert platform.optional_kinds == frozenset()


def test_namespaces_are_a_list_with_commas(environment: dict[str, str]) -> None:
    assert Settings.from_environment(
        environment | {"ROLLWAY_WATCH_NAMESPACES": " b, a,,a"}
    ).watch_namespaces == (
        "a",
        "b",
    )


def test_an_empty_variable_counts_as_absent(environment: dict[str, str]) -> None:
    assert Settings.from_environment(environment | {"ROLLWAY_RESYNC_SECONDS": ""}).resync == timedelta(
        seconds=20
    )


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("ROLLWAY_NAMESPACE", "", "give it the operator's own namespace"),
        ("ROLLWAY_RUNTIMES_FILE", "", "give it the file that `runtimes` of the chart's values is mounted as"),
        ("ROLLWAY_HEALTH_PORT", "70000", "use a port from 1 to 65535"),
        ("ROLLWAY_METRICS_PORT", "http", "use a port from 1 to 65535"),
        ("ROLLWAY_RESYNC_SECONDS", "0", "use whole seconds from 1 to 3600"),
        ("ROLLWAY_RESYNC_SECONDS", "1.5", "use whole seconds from 1 to 3600"),
        ("ROLLWAY_LOG_LEVEL", "LOUD", "use DEBUG, INFO, WARNING or ERROR"),
        ("ROLLWAY_GATEWAY_HTTP", "models", "use namespace/name or namespace/name/section of a Gateway"),
        ("ROLLWAY_GATEWAY_HTTP", "a/b/c/d", "use namespace/name"),
        ("ROLLWAY_GATEWAY_GRPC", "team.a/models", "use namespace/name"),
        ("ROLLWAY_GATEWAY_GRPC", "Traefik/models", "use namespace/name"),
        ("ROLLWAY_GATEWAY_URL", "models.example.com", "use http:// or https:// with a host"),
        ("ROLLWAY_GATEWAY_URL", "ftp://models.example.com", "use http:// or https:// with a host"),
        ("ROLLWAY_GATEWAY_URL", "https://", "use http:// or https:// with a host"),
        ("ROLLWAY_GATEWAY_URL", "https://user@models", "such as https://models.example.com"),
        ("ROLLWAY_GATEWAY_URL", "https://models?a=b", "such as https://models.example.com"),
        ("ROLLWAY_PERMITTED_HOSTS", "models.*.example.com", "such as *.{namespace}.example.com"),
        ("ROLLWAY_PERMITTED_HOSTS", "*", "with '*' as the whole first label"),
        ("ROLLWAY_PERMITTED_HOSTS", "a.example.com,*a.example.com", "has '*a.example.com'"),
        ("ROLLWAY_PERMITTED_HOSTS", "{name}.example.com", "{namespace} for the model's own"),
        ("ROLLWAY_PERMITTED_HOSTS", "Models.example.com", "in lower case"),
        ("ROLLWAY_MONITOR_LABELS", "release", "such as release=kube-prometheus-stack"),
        ("ROLLWAY_MONITOR_LABELS", "no key=a", "use labels as key=value"),
        ("ROLLWAY_MONITOR_LABELS", "a=b=c", "has 'a=b=c'"),
        ("ROLLWAY_POD_MONITORS", "yes", "use true or false"),
        ("ROLLWAY_RUNTIMES_FILE", "/nowhere/runtimes.json", "mount the chart's ConfigMap"),
    ],
)
def test_a_wrong_variable_is_named_with_its_fix(
    environment: dict[str, str], name: str, value: str, fix: str
) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_environment(environment | {name: value})
    assert str(error.value).startswith(name)
    assert fix in str(error.value)


@pytest.mark.parametrize(
    ("runtimes", "field"),
    [
        ({}, "the file"),
        ([], "the file"),
        ({"mlserver": MLSERVER | {"imgae": "x"}}, "mlserver.imgae"),
        ({"mlserver": MLSERVER | {"image": ""}}, "mlserver.image"),
        ({"mlserver": MLSERVER | {"ports": {"http": 0, "grpc": 1, "metrics": 2}}}, "mlserver.ports.http"),
        ({"mlserver": MLSERVER | {"livenessPath": "v2"}}, "mlserver.livenessPath"),
        ({"mlserver": MLSERVER | {"preStopSeconds": -1}}, "mlserver.preStopSeconds"),
        ({"mlserver": MLSERVER | {"limits": {"maxBodyBytes": 1}}}, "mlserver.limits.maxBodyBytes"),
        ({"mlserver": MLSERVER | {"limits": {"maxBody": 2048}}}, "mlserver.limits.maxBody"),
        ({"mlserver": MLSERVER | {"batching": "often"}}, "mlserver.batching"),
        ({"mlserver": {key: value for key, value in MLSERVER.items() if key != "ports"}}, "mlserver.ports"),
    ],
)
def test_a_wrong_runtime_is_named_by_its_field(
    environment: dict[str, str], runtimes: Any, field: str
) -> None:
    Path(environment["ROLLWAY_RUNTIMES_FILE"]).write_text(json.dumps(runtimes))
    with pytest.raises(
        SettingsError, match=f"runtimes.json: {field}: .*; correct `runtimes` in the chart's values"
    ):
        Settings.from_environment(environment)


RECEIVER = {"name": "on-call", "type": "slack", "urlSecret": {"name": "slack", "key": "url"}}


@pytest.fixture
def notifications(environment: dict[str, str], tmp_path: Path) -> Path:
    """The file of receivers; it has none yet."""
    file = tmp_path / "notifications.json"
    file.write_text("{}")
    environment |= {"ROLLWAY_NOTIFICATIONS_FILE": str(file), "ROLLWAY_RECEIVERS_FOLDER": "/etc/receivers"}
    return file


def test_receivers_are_read_with_the_file_that_has_their_address(
    environment: dict[str, str], notifications: Path
) -> None:
    assert Settings.from_environment(environment | {"ROLLWAY_NOTIFICATIONS_FILE": ""}).receivers == ()
    assert Settings.from_environment(environment).receivers == ()
    notifications.write_text(json.dumps({"receivers": [RECEIVER]}))
    assert Settings.from_environment(environment).receivers == (
        Receiver("on-call", "slack", Path("/etc/receivers/on-call/url"), "key url of Secret slack"),
    )


@pytest.mark.parametrize(
    ("receivers", "complaint"),
    [
        ([RECEIVER | {"type": "email"}], "notifications.json: receivers.0.type: .*; correct `notifications`"),
        (
            [RECEIVER | {"events": ["Failed"]}],
            "notifications.json: receivers.0.events.0: .*; correct `notifications`",
        ),
        (
            [RECEIVER | {"url": "https://x"}],
            "notifications.json: receivers.0.url: .*; correct `notifications`",
        ),
        ([RECEIVER | {"name": "../x"}], "notifications.json: receivers.0.name: .*; correct `notifications`"),
        ([RECEIVER, RECEIVER], "ROLLWAY_NOTIFICATIONS_FILE: receivers: on-call is there twice"),
    ],
)
def test_a_wrong_receiver_is_named_by_its_field(
    environment: dict[str, str], notifications: Path, receivers: Any, complaint: str
) -> None:
    notifications.write_text(json.dumps({"receivers": receivers}))
    with pytest.raises(SettingsError, match=complaint):
        Settings.from_environment(environment)


@pytest.mark.parametrize("name", ["RUNTIMES", "NOTIFICATIONS", "TEMPLATES"])
def test_a_file_that_is_named_and_cannot_be_read_is_said(
    environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    for file, why in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(SettingsError) as error:
            Settings.from_environment(environment | {f"ROLLWAY_{name}_FILE": str(file)})
        complaint = f"ROLLWAY_{name}_FILE: {file} cannot be read ({why}); mount the chart's ConfigMap"
        assert str(error.value) == complaint


def test_evidence_comes_from_prometheus_where_one_is_named(
    environment: dict[str, str], tmp_path: Path
) -> None:
    assert Settings.from_environment(environment).prometheus is None
    environment["ROLLWAY_PROMETHEUS_URL"] = "http://prometheus:9090/"
    assert Settings.from_environment(environment).prometheus == Provider(Server("http://prometheus:9090"))
    token = tmp_path / "token"
    token.touch()
    more = {
        "ROLLWAY_PROMETHEUS_FALLBACK": "Direct",
        "ROLLWAY_PROMETHEUS_STALE_SECONDS": "45",
        "ROLLWAY_PROMETHEUS_TOKEN_FILE": str(token),
    }
    named = Settings.from_environment(environment | more).prometheus
    assert named == Provider(
        Server("http://prometheus:9090", token), stale=timedelta(seconds=45), falls_back=True
    )


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("URL", "prometheus:9090", "use http:// or https://"),
        ("FALLBACK", "true", "use Hold or Direct"),
        ("STALE_SECONDS", "0", "use whole seconds"),
        ("GATEWAY_ERRORS", "envoy", "use traefik"),
        (
            "GATEWAY_ERRORS",
            "traefik",
            "ROLLWAY_GATEWAY_HTTP is not set; set gateway.http of the chart's values",
        ),
        ("TOKEN_FILE", "/nowhere/token", "which cannot be read; name a file that is mounted"),
        ("CA_FILE", "/nowhere/ca.crt", "which cannot be read; name a file that is mounted"),
    ],
)
def test_what_is_wrong_with_prometheus_is_said_by_its_name(
    environment: dict[str, str], name: str, value: str, complaint: str
) -> None:
    variables = {"ROLLWAY_PROMETHEUS_URL": "http://p", f"ROLLWAY_PROMETHEUS_{name}": value}
    with pytest.raises(SettingsError, match=f"ROLLWAY_PROMETHEUS_{name} is .*{complaint}"):
        Settings.from_environment(environment | variables)


def test_certificates_that_are_none_are_found_before_the_operator_starts(
    environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    variables = {"ROLLWAY_PROMETHEUS_URL": "https://p", "ROLLWAY_PROMETHEUS_CA_FILE": str(file)}
    with pytest.raises(SettingsError, match=r"^ROLLWAY_PROMETHEUS_CA_FILE: .*prometheus\.caSecret"):
        Settings.from_environment(environment | variables)


def test_a_gateway_s_counts_need_a_prometheus_that_has_them(environment: dict[str, str]) -> None:
    environment |= {
        "ROLLWAY_GATEWAY_HTTP": "traefik/models",
        "ROLLWAY_PROMETHEUS_GATEWAY_ERRORS": "traefik",
    }
    with pytest.raises(SettingsError, match=r"ROLLWAY_PROMETHEUS_URL is not set; set prometheus\.url"):
        Settings.from_environment(environment)
    environment["ROLLWAY_PROMETHEUS_URL"] = "http://p"
    provider = Settings.from_environment(environment).prometheus
    assert provider is not None
    assert provider.gateway_errors == "traefik"


def write_templates(environment: dict[str, str], tmp_path: Path, templates: object) -> None:
    file = tmp_path / "templates.json"
    file.write_text(json.dumps(templates))
    environment["ROLLWAY_TEMPLATES_FILE"] = str(file)


def test_templates_are_read_as_the_administrator_wrote_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    query = "# the model's share\nsum(a{namespace={{namespace}},revision={{canary}},b=\"{c}\",d='#e'})"
    write_templates(environment, tmp_path, {"chargeback": {"query": query}})
    environment["ROLLWAY_PROMETHEUS_URL"] = "http://p"
    settings = Settings.from_environment(environment)
    assert settings.templates == settings.platform.templates == {"chargeback": query}


def test_no_templates_need_no_prometheus(environment: dict[str, str], tmp_path: Path) -> None:
    write_templates(environment, tmp_path, {})
    assert Settings.from_environment(environment).templates == {}


@pytest.mark.parametrize(
    ("templates", "complaint"),
    [
        (
            {"a": {"query": "up{job={{job}}}"}},
            "template 'a': {{job}} is nothing that is filled in; use {{namespace}}",
        ),
        ({"a": {"query": 'up{job="{{name}}"}'}}, "template 'a': {{name}} stands in quotes; take them away"),
        (
            {"a": {"query": "# it's the model's\nup{job='#{{name}}'}"}},
            "template 'a': {{name}} stands in quotes; take them away",
        ),
        ({"a": {"query": "up{job={{name}"}}, "template 'a': it has braces that do not close"),
        ({"a": {"query": ""}}, "a.query"),
        ({"a": {"query": "up", "interval": "5m"}}, "a.interval"),
        ({"a": "up"}, "correct `analysis.templates` in the chart's values"),
        ([], "correct `analysis.templates` in the chart's values"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_named(
    environment: dict[str, str], tmp_path: Path, templates: object, complaint: str
) -> None:
    write_templates(environment, tmp_path, templates)
    environment["ROLLWAY_PROMETHEUS_URL"] = "http://p"
    with pytest.raises(SettingsError) as error:
        Settings.from_environment(environment)
    assert complaint in str(error.value)


def test_templates_without_a_prometheus_are_refused(environment: dict[str, str], tmp_path: Path) -> None:
    write_templates(environment, tmp_path, {"a": {"query": "up"}})
    with pytest.raises(SettingsError, match=r"ROLLWAY_PROMETHEUS_URL is not set; set prometheus\.url"):
        Settings.from_environment(environment)
