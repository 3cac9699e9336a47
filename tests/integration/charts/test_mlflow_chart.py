"""charts/mlflow: what it renders, and what it refuses."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_testing.helm import Helm, HelmRefusedError, Manifest, closed_levels, misspelt, of_kind

CHART = Path(__file__).parents[3] / "charts" / "mlflow"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
STORE = {"enabled": True, "credentialsSecretName": "s3-credentials"}
EXTERNAL = {"database": {"uriSecretName": "postgres"}, "artifacts": {"destination": "s3://bucket/runs"}}

Render = Callable[..., list[Manifest]]


@pytest.fixture
def render(helm: Helm) -> Render:
    """Render the chart as the release ``mlflow`` in the namespace ``mlflow``."""

    def rendered(**values: object) -> list[Manifest]:
        return helm.template(CHART, values, release="mlflow", namespace="mlflow")

    return rendered


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the one object of this kind and name."""
    [found] = [each for each in of_kind(manifests, kind) if each["metadata"]["name"] == name]
    return found


def container(manifests: list[Manifest], kind: str = "Deployment", name: str = "mlflow") -> Manifest:
    """Return the one container of a workload."""
    [found] = named(manifests, kind, name)["spec"]["template"]["spec"]["containers"]
    only: Manifest = found
    return only


def flags(manifests: list[Manifest]) -> dict[str, str]:
    """Return the server's flags."""
    parts = (part.partition("=") for part in container(manifests)["command"] if part.startswith("--"))
    return {name: value for name, _, value in parts}


def environment(found: Manifest) -> dict[str, Any]:
    """Return a container's variables: the value, or where it comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in found["env"]}


def workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return every pod's specification by its workload's name."""
    return {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]
        for kind in ("Deployment", "Job")
        for manifest in of_kind(manifests, kind)
    }


def test_the_server_answers_to_each_of_its_names_plain_and_with_any_port(render: Render) -> None:
    names = [
        *("mlflow", "mlflow.mlflow", "mlflow.mlflow.svc", "mlflow.mlflow.svc.corp.example"),
        *("ml.example.org", "gateway.internal", "localhost", "127.0.0.1", "$(POD_IP)"),
    ]
    manifests = render(
        clusterDomain="corp.example",
        ingress={"enabled": True, "hosts": ["ml.example.org"]},
        allowedHosts=["gateway.internal"],
    )
    assert flags(manifests)["--allowed-hosts"].split(",") == [
        host for name in names for host in (name, f"{name}:*")
    ]
    assert environment(container(manifests))["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_services_are_where_the_examples_look_for_them(render: Render) -> None:
    manifests = render(s3=STORE)
    assert named(manifests, "Service", "mlflow")["spec"]["ports"][0]["port"] == 5000
    assert named(manifests, "Service", "s3")["spec"]["ports"][0]["port"] == 8333


def test_by_default_runs_and_artifacts_are_on_a_volume_that_outlives_the_release(render: Render) -> None:
    manifests = render()
    assert environment(container(manifests))["MLFLOW_BACKEND_STORE_URI"] == "sqlite:////data/mlflow.db"
    assert flags(manifests)["--artifacts-destination"] == "/data/artifacts"
    claim = named(manifests, "PersistentVolumeClaim", "mlflow")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    [volume] = [each for each in workloads(manifests)["mlflow"]["volumes"] if each["name"] == "data"]
    assert volume["persistentVolumeClaim"]["claimName"] == "mlflow"


def test_one_sqlite_file_has_one_pod_and_its_schema_is_upgraded_before_the_server(render: Render) -> None:
    deployment = named(render(), "Deployment", "mlflow")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    [migrate] = deployment["spec"]["template"]["spec"]["initContainers"]
    assert "mlflow db upgrade sqlite:////data/mlflow.db" in migrate["command"][-1]


@pytest.mark.parametrize(
    "values",
    [{"database": EXTERNAL["database"]}, {"artifacts": EXTERNAL["artifacts"]}, {}],
)
def test_more_replicas_are_refused_while_anything_is_on_a_volume(
    render: Render, values: dict[str, Any]
) -> None:
    with pytest.raises(HelmRefusedError, match="SQLite and a folder serve one pod"):
        render(replicas=2, **values)


def test_with_a_database_and_a_bucket_the_server_needs_no_volume(render: Render) -> None:
    manifests = render(replicas=2, **EXTERNAL)
    deployment = named(manifests, "Deployment", "mlflow")
    assert deployment["spec"]["strategy"] == {"type": "RollingUpdate"}
    assert "initContainers" not in deployment["spec"]["template"]["spec"]
    assert of_kind(manifests, "PersistentVolumeClaim") == []
    uri = {"secretKeyRef": {"name": "postgres", "key": "uri"}}
    assert environment(container(manifests))["MLFLOW_BACKEND_STORE_URI"] == uri
    migrate = named(manifests, "Job", "mlflow-migrate")
    assert migrate["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert environment(container(manifests, "Job", "mlflow-migrate"))["MLFLOW_BACKEND_STORE_URI"] == uri


def test_no_credential_is_on_a_command_line(render: Render) -> None:
    for values in ({"s3": STORE}, EXTERNAL):
        for spec in workloads(render(**values)).values():
            text = json.dumps([each["command"] for each in spec["containers"]])
            assert "Secret" not in text
            assert "postgres" not in text


def test_the_server_serves_artifacts_and_metrics_and_runs_no_jobs(render: Render) -> None:
    manifests = render()
    assert {"--serve-artifacts", "--expose-prometheus"} <= set(flags(manifests))
    assert environment(container(manifests))["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_with_the_store_proxied_artifacts_go_to_its_bucket_with_its_keys(render: Render) -> None:
    manifests = render(s3=STORE)
    assert flags(manifests)["--artifacts-destination"] == "s3://mlflow/"
    settings = environment(container(manifests))
    assert settings["MLFLOW_S3_ENDPOINT_URL"] == "http://s3.mlflow.svc:8333"
    assert settings["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "s3-credentials", "key": "accessKeyId"}}


def test_a_bucket_of_aws_needs_neither_endpoint_nor_keys(render: Render) -> None:
    settings = environment(container(render(**EXTERNAL)))
    assert settings["AWS_DEFAULT_REGION"] == "us-east-1"
    assert not {"MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"} & set(settings)


def test_of_the_store_only_the_gateway_that_asks_for_keys_listens_beyond_loopback(render: Render) -> None:
    manifests = render(s3=STORE)
    command = container(manifests, name="mlflow-s3")["command"]
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"} <= set(command)
    policy = named(manifests, "NetworkPolicy", "mlflow-s3")["spec"]
    assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8333}]}]


def test_the_server_is_led_to_by_a_monitor_that_prometheus_selects(render: Render) -> None:
    manifests = render(s3=STORE, monitoring={"force": True, "labels": {"team": "ml"}})
    [monitor] = of_kind(manifests, "ServiceMonitor")
    selector = monitor["spec"]["selector"]["matchLabels"]
    services = [
        each
        for each in of_kind(manifests, "Service")
        if selector.items() <= each["metadata"]["labels"].items()
    ]
    assert [each["metadata"]["name"] for each in services] == ["mlflow"]
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint == {"port": services[0]["spec"]["ports"][0]["name"], "path": "/metrics"}
    chosen = {"release": "kube-prometheus-stack", "team": "ml"}
    assert chosen.items() <= monitor["metadata"]["labels"].items()


@pytest.mark.parametrize("values", [{}, {"enabled": False, "force": True}])
def test_there_is_no_monitor_where_nobody_knows_what_that_is_or_wants_one(
    render: Render, values: dict[str, Any]
) -> None:
    assert of_kind(render(monitoring=values), "ServiceMonitor") == []


def test_the_stores_buckets_are_made_by_the_program_in_the_chart(render: Render) -> None:
    manifests = render(s3=STORE | {"buckets": ["models", "mlflow", "more"]})
    program, *buckets = container(manifests, "Job", "mlflow-s3-buckets")["args"]
    written = (CHART / "files/make_buckets.py").read_text()
    assert ast.dump(ast.parse(program)) == ast.dump(ast.parse(written))
    assert buckets == ["models", "mlflow", "more"]


def test_peers_that_are_named_are_the_only_ones_admitted(render: Render) -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]
    manifests = render(s3=STORE, networkPolicy={"from": peers})
    assert [policy["spec"]["ingress"][0]["from"] for policy in of_kind(manifests, "NetworkPolicy")] == [
        peers,
        peers,
    ]


@pytest.mark.parametrize("values", [{"s3": STORE}, EXTERNAL], ids=["store", "external"])
def test_every_pod_satisfies_the_restricted_pod_security_standard(
    render: Render, values: dict[str, Any]
) -> None:
    for spec in workloads(render(**values)).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in spec["containers"] + spec.get("initContainers", []):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in each["resources"]["limits"]
            assert {"name": "tmp", "mountPath": "/tmp"} in each["volumeMounts"]


def test_probes_ask_for_health_which_no_host_check_covers(render: Render) -> None:
    for name, path in (("mlflow", "/health"), ("mlflow-s3", "/healthz")):
        found = container(render(s3=STORE), name=name)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert found[probe]["httpGet"]["path"] == path


def test_every_service_and_policy_finds_its_own_pods_only(render: Render) -> None:
    manifests = render(s3=STORE)
    labels = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "Job")
        for manifest in of_kind(manifests, kind)
    }
    found = {
        (each["kind"], each["metadata"]["name"]): [
            name for name, of_pod in labels.items() if selector.items() <= of_pod.items()
        ]
        for kind in ("Service", "NetworkPolicy")
        for each in of_kind(manifests, kind)
        for selector in [each["spec"].get("selector") or each["spec"]["podSelector"]["matchLabels"]]
    }
    assert found == {
        ("Service", "mlflow"): ["mlflow"],
        ("Service", "s3"): ["mlflow-s3"],
        ("NetworkPolicy", "mlflow"): ["mlflow"],
        ("NetworkPolicy", "mlflow-s3"): ["mlflow-s3"],
    }


def test_alerts_are_about_this_releases_job(helm: Helm) -> None:
    values = {"monitoring": {"force": True, "runbookBase": "https://wiki.example"}}
    [rule] = of_kind(helm.template(CHART, values, release="tracking", namespace="ml"), "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    [group] = rule["spec"]["groups"]
    assert all('job="tracking"' in each["expr"] for each in group["rules"])
    assert all(
        each["annotations"]["runbook_url"] == f"https://wiki.example/{each['alert']}.md"
        for each in group["rules"]
    )


def test_alerts_are_made_where_the_cluster_knows_them_or_when_told_to(render: Render) -> None:
    assert of_kind(render(), "PrometheusRule") == []
    for off in ({"enabled": False}, {"rules": {"enabled": False}}):
        assert of_kind(render(monitoring={"force": True, **off}), "PrometheusRule") == []


@pytest.mark.parametrize("values", [{}, {"s3": STORE}, EXTERNAL], ids=["default", "store", "external"])
def test_the_chart_passes_a_strict_lint(helm: Helm, values: dict[str, Any]) -> None:
    helm.run("lint", "--strict", str(CHART), values=values)


OPEN = {("nodeSelector",), ("ingress", "annotations"), ("monitoring", "labels")}
"""Values whose keys the user chooses."""


@pytest.mark.parametrize("path", list(closed_levels(VALUES, OPEN)), ids=lambda path: ".".join(path) or "top")
def test_a_misspelt_value_is_refused_and_named(helm: Helm, path: tuple[str, ...]) -> None:
    with pytest.raises(HelmRefusedError, match="'misspelt' not allowed") as refusal:
        helm.run("template", "mlflow", str(CHART), values=misspelt(path))
    assert f"at '{''.join(f'/{key}' for key in path)}'" in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"s3": {"enabled": True}}, "at '/s3/credentialsSecretName'"),
        ({"s3": STORE | {"buckets": ["models"]}}, "s3.buckets must hold mlflow"),
        ({"database": {"uri": "sqlite:///:memory:"}}, "'uri' not allowed"),
        ({"artifacts": {"destination": "/data"}}, "at '/artifacts/destination'"),
        ({"ingress": {"enabled": True}}, "at '/ingress/hosts'"),
        ({"image": "rollway/mlflow"}, "at '/image'"),
        ({"replicas": "1"}, "at '/replicas': got string, want integer"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(helm: Helm, values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HelmRefusedError) as refusal:
        helm.run("template", "mlflow", str(CHART), values=values)
    assert complaint in str(refusal.value)


def test_the_notes_name_the_addresses_that_the_services_have(helm: Helm) -> None:
    arguments = ("install", "mlflow", str(CHART), "--namespace", "mlflow", "--dry-run=client")
    notes = helm.run(*arguments, values={"s3": STORE}).partition("NOTES:")[2]
    assert "http://mlflow.mlflow.svc:5000" in notes
    assert "http://s3.mlflow.svc:8333" in notes
