"""charts/rollway: what it renders, what it lets the operator do, and what it refuses."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_operator.domain import GatewayRef
from rollway_operator.notify import DEFAULT_EVENTS
from rollway_operator.settings import Settings
from rollway_testing.helm import Helm, HelmRefusedError, Manifest, closed_levels, misspelt, of_kind

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "rollway"
GOLDEN = Path(__file__).parent / "golden"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())

Render = Callable[..., list[Manifest]]


@pytest.fixture
def render(helm: Helm) -> Render:
    """Render the chart as the release ``rollway`` in ``rollway-system``."""

    def rendered(**values: object) -> list[Manifest]:
        return helm.template(CHART, values, release="rollway", namespace="rollway-system")

    return rendered


def operator_pod(manifests: list[Manifest]) -> Manifest:
    """Return the pod template of the operator."""
    [deployment] = of_kind(manifests, "Deployment")
    template: Manifest = deployment["spec"]["template"]
    return template


def environment(manifests: list[Manifest]) -> dict[str, str]:
    """Return the operator's environment variables that have a plain value."""
    [container] = operator_pod(manifests)["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def runtimes_config(manifests: list[Manifest]) -> Manifest:
    """Return the ConfigMap that the operator reads."""
    [config] = [each for each in of_kind(manifests, "ConfigMap") if "runtimes.json" in each["data"]]
    return config


def settings_of(manifests: list[Manifest], folder: Path) -> Settings:
    """Return what the operator reads out of its environment and of the files that are mounted."""
    for name, text in runtimes_config(manifests)["data"].items():
        (folder / name).write_text(text)
    variables = environment(manifests) | {"ROLLWAY_NAMESPACE": "rollway-system"}
    for name in ("ROLLWAY_RUNTIMES_FILE", "ROLLWAY_TEMPLATES_FILE", "ROLLWAY_NOTIFICATIONS_FILE"):
        mounted = Path(variables[name])
        assert mounted.parent == Path("/etc/rollway")
        variables[name] = str(folder / mounted.name)
    return Settings.from_environment(variables)


def grants(manifests: list[Manifest]) -> list[dict[str, Any]]:
    """Return what the rendered bindings let the operator's account do, and where."""
    roles = {
        (kind, role["metadata"]["name"]): role
        for kind in ("ClusterRole", "Role")
        for role in of_kind(manifests, kind)
    }
    [account] = of_kind(manifests, "ServiceAccount")
    subject = {
        "kind": "ServiceAccount",
        "name": account["metadata"]["name"],
        "namespace": account["metadata"]["namespace"],
    }
    found = []
    for binding in of_kind(manifests, "ClusterRoleBinding") + of_kind(manifests, "RoleBinding"):
        assert binding["subjects"] == [subject]
        role = roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
        found.append({"in": binding["metadata"].get("namespace", "every namespace"), "rules": role["rules"]})
    return found


@pytest.mark.parametrize(
    ("golden", "namespaces"),
    [("rollway-cluster-wide.yaml", []), ("rollway-namespaced.yaml", ["team-a", "team-b"])],
)
def test_the_operator_may_do_what_the_reviewed_list_says_and_no_more(
    render: Render, golden: str, namespaces: list[str]
) -> None:
    manifests = render(rbac={"namespaces": namespaces}, registrySecrets=["mlflow"])
    assert grants(manifests) == yaml.safe_load((GOLDEN / golden).read_text())


GATEWAY = {
    "http": {"namespace": "traefik", "name": "models", "sectionName": "websecure"},
    "grpc": {"namespace": "edge", "name": "models-grpc"},
    "url": "https://models.example.com",
    "permittedHosts": ["models.example.com", "*.{namespace}.example.com"],
}
"""Both Gateways, with all that can be said of them."""


@pytest.mark.parametrize("named", [("http", "grpc"), ("http",), ("grpc",)], ids=" and ".join)
@pytest.mark.parametrize("namespaces", [[], ["team-a"]], ids=["everywhere", "somewhere"])
def test_with_a_gateway_the_operator_may_write_routes_and_nothing_else_more(
    render: Render, named: tuple[str, ...], namespaces: list[str]
) -> None:
    def granted(**values: object) -> list[tuple[str, dict[str, Any]]]:
        return [
            (grant["in"], rule)
            for grant in grants(render(rbac={"namespaces": namespaces}, **values))
            for rule in grant["rules"]
        ]

    without = granted()
    routes = {
        "apiGroups": ["gateway.networking.k8s.io"],
        "resources": ["httproutes", "grpcroutes"],
        "verbs": ["get", "list", "create", "patch", "delete"],
    }
    more = [rule for rule in granted(gateway={name: GATEWAY[name] for name in named}) if rule not in without]
    assert more == [((namespaces or ["every namespace"])[0], routes)]


def test_no_rule_has_a_wildcard(render: Render) -> None:
    for grant in grants(render(registrySecrets=["mlflow"], gateway=GATEWAY)):
        for rule in grant["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]


def test_without_registry_secrets_no_rule_mentions_secrets(render: Render) -> None:
    for grant in grants(render(registrySecrets=[])):
        for rule in grant["rules"]:
            assert "secrets" not in rule["resources"]


def test_registry_secrets_may_only_be_got_by_name_in_the_namespace_of_the_release(render: Render) -> None:
    with_secrets = [
        (grant["in"], rule)
        for grant in grants(render(registrySecrets=["mlflow", "other"]))
        for rule in grant["rules"]
        if "secrets" in rule["resources"]
    ]
    rule = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["mlflow", "other"],
        "verbs": ["get"],
    }
    assert with_secrets == [("rollway-system", rule)]


def test_registry_ca_bundles_may_only_be_got_by_name_in_the_namespace_of_the_release(render: Render) -> None:
    def of_config_maps(**values: object) -> list[tuple[str, dict[str, Any]]]:
        return [
            (grant["in"], rule)
            for grant in grants(render(rbac={"namespaces": ["team-a"]}, **values))
            for rule in grant["rules"]
            if rule["resources"] == ["configmaps"]
        ]

    rule = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["mlflow-ca"],
        "verbs": ["get"],
    }
    assert of_config_maps(registryCABundles=["mlflow-ca"]) == [("rollway-system", rule)]
    assert of_config_maps() == []


def test_the_operator_watches_the_namespaces_that_it_may_act_in(render: Render) -> None:
    assert environment(render())["ROLLWAY_WATCH_NAMESPACES"] == ""
    manifests = render(rbac={"namespaces": ["team-a", "team-b"]})
    assert environment(manifests)["ROLLWAY_WATCH_NAMESPACES"] == "team-a,team-b"


def test_settings_reach_the_operator_as_environment(render: Render) -> None:
    settings = environment(render(logLevel="DEBUG", resyncSeconds=3600, clusterDomain="corp.example"))
    assert settings["ROLLWAY_LOG_LEVEL"] == "DEBUG"
    assert settings["ROLLWAY_RESYNC_SECONDS"] == "3600"
    assert settings["ROLLWAY_CLUSTER_DOMAIN"] == "corp.example"


def test_what_the_administrator_permits_reaches_the_operator_as_lists(render: Render) -> None:
    unset = environment(render())
    for name in ("ROLLWAY_TOLERATION_KEYS", "ROLLWAY_PROMETHEUS_NAMESPACES", "ROLLWAY_GATEWAY_NAMESPACES"):
        assert unset[name] == ""
    settings = environment(
        render(
            modelTolerations=[{"key": "nvidia.com/gpu"}, {"key": "spot"}],
            networkPolicy={"prometheusNamespaces": ["monitoring"], "gatewayNamespaces": ["traefik", "istio"]},
        )
    )
    assert settings["ROLLWAY_TOLERATION_KEYS"] == "nvidia.com/gpu,spot"
    assert settings["ROLLWAY_PROMETHEUS_NAMESPACES"] == "monitoring"
    assert settings["ROLLWAY_GATEWAY_NAMESPACES"] == "traefik,istio"


def test_the_gateways_reach_the_operator_as_the_values_name_them(render: Render) -> None:
    names = ("GATEWAY_HTTP", "GATEWAY_GRPC", "GATEWAY_URL", "PERMITTED_HOSTS")
    unset, settings = environment(render()), environment(render(gateway=GATEWAY))
    assert [unset[f"ROLLWAY_{name}"] for name in names] == ["", "", "", ""]
    assert [settings[f"ROLLWAY_{name}"] for name in names] == [
        "traefik/models/websecure",
        "edge/models-grpc",
        "https://models.example.com",
        "models.example.com,*.{namespace}.example.com",
    ]


def test_what_the_chart_says_of_prometheus_is_what_the_operator_reads(render: Render) -> None:
    names = ("URL", "FALLBACK", "STALE_SECONDS", "GATEWAY_ERRORS", "TOKEN_FILE", "CA_FILE")
    unset = environment(render())
    assert [unset.get(f"ROLLWAY_PROMETHEUS_{name}") for name in names] == ["", "Hold", "90", "", None, None]
    manifests = render(
        prometheus={
            "url": "https://prometheus:9090",
            "fallback": "Direct",
            "staleSeconds": 45,
            "gatewayErrors": "traefik",
            "tokenSecret": {"name": "prometheus", "key": "token.txt"},
            "caSecret": {"name": "authority", "key": "tls.crt"},
        }
    )
    settings = environment(manifests)
    files = ["/etc/prometheus-token/token", "/etc/prometheus-ca/ca.crt"]
    read = [settings[f"ROLLWAY_PROMETHEUS_{name}"] for name in names]
    assert read == ["https://prometheus:9090", "Direct", "45", "traefik", *files]
    spec = operator_pod(manifests)["spec"]
    secrets = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
    mounted = {
        f"{mount['mountPath']}/{item['path']}": (secrets[mount["name"]]["secretName"], item["key"])
        for mount in spec["containers"][0]["volumeMounts"]
        for item in secrets.get(mount["name"], {}).get("items", ())
    }
    assert mounted == dict(zip(files, [("prometheus", "token.txt"), ("authority", "tls.crt")], strict=True))


def test_a_secret_may_have_a_name_and_a_key_that_yaml_takes_for_something_else(render: Render) -> None:
    secret = {"name": "123", "key": "true"}
    manifests = render(
        prometheus={"url": "http://prometheus", "tokenSecret": secret, "caSecret": secret},
        notifications={"receivers": [RECEIVER | {"urlSecret": secret}]},
    )
    secrets = [each["secret"] for each in operator_pod(manifests)["spec"]["volumes"] if "secret" in each]
    assert [(each["secretName"], each["items"][0]["key"]) for each in secrets] == [("123", "true")] * 3


def test_the_templates_of_the_values_are_those_that_the_operator_reads(
    render: Render, tmp_path: Path
) -> None:
    query = 'sum(chargebacks{namespace={{namespace}},revision={{canary}}}) > bool 0 or "a \\"b\\""\n'
    manifests = render(
        prometheus={"url": "http://prometheus"}, analysis={"templates": {"chargeback": {"query": query}}}
    )
    assert settings_of(manifests, tmp_path).templates == {"chargeback": query}


def test_what_the_chart_says_of_gateways_is_what_the_operator_reads(render: Render, tmp_path: Path) -> None:
    manifests = render(gateway=GATEWAY)
    platform = settings_of(manifests, tmp_path).platform
    assert platform.http_gateway == GatewayRef("traefik", "models", "websecure")
    assert platform.grpc_gateway == GatewayRef("edge", "models-grpc")
    assert platform.gateway_url == "https://models.example.com"
    assert platform.permitted_hosts == ("*.{namespace}.example.com", "models.example.com")
    assert platform.gateway_namespaces == ("edge", "traefik")
    assert {name: runtime.batching for name, runtime in platform.runtimes.items()} == {
        "mlserver": True,
        "seldon": False,
    }


@pytest.mark.parametrize(
    ("gateway", "listed", "namespaces"),
    [
        (GATEWAY, [], "traefik,edge"),
        ({"http": GATEWAY["http"], "grpc": GATEWAY["http"]}, [], "traefik"),
        ({"grpc": GATEWAY["grpc"]}, [], "edge"),
        (GATEWAY, ["envoy-gateway-system"], "envoy-gateway-system"),
    ],
)
def test_pods_of_the_gateways_namespaces_reach_models_unless_others_are_named(
    render: Render, gateway: dict[str, Any], listed: list[str], namespaces: str
) -> None:
    settings = environment(render(gateway=gateway, networkPolicy={"gatewayNamespaces": listed}))
    assert settings["ROLLWAY_GATEWAY_NAMESPACES"] == namespaces


def test_the_operator_pod_satisfies_the_restricted_pod_security_standard(render: Render) -> None:
    spec = operator_pod(render())["spec"]
    [container] = spec["containers"]
    assert "initContainers" not in spec
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all("hostPort" not in port for port in container["ports"])
    assert [set(volume) - {"name"} for volume in spec["volumes"]] == [{"configMap"}]


def test_a_new_operator_stands_by_before_the_old_one_goes(render: Render) -> None:
    [deployment] = of_kind(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }


def test_replicas_prefer_different_nodes_and_are_taken_down_one_by_one(render: Render) -> None:
    assert of_kind(render(), "PodDisruptionBudget") == []
    manifests = render(replicas=2)
    [deployment] = of_kind(manifests, "Deployment")
    [budget] = of_kind(manifests, "PodDisruptionBudget")
    [term] = operator_pod(manifests)["spec"]["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert deployment["spec"]["replicas"] == 2
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert term["podAffinityTerm"]["labelSelector"] == deployment["spec"]["selector"]


def test_a_replica_knows_its_pod_and_may_write_the_lease_that_it_is_told_of(render: Render) -> None:
    manifests = render()
    [container] = operator_pod(manifests)["spec"]["containers"]
    sources = {entry["name"]: entry.get("valueFrom") for entry in container["env"]}
    assert sources["ROLLWAY_POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    written = [
        rule
        for grant in grants(manifests)
        for rule in grant["rules"]
        if rule["resources"] == ["leases"] and "update" in rule["verbs"]
    ]
    assert [rule["resourceNames"] for rule in written] == [[environment(manifests)["ROLLWAY_LEASE_NAME"]]]


def test_placement_reaches_the_pod(render: Render) -> None:
    placement: dict[str, Any] = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "preference": {
                            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]
                        },
                    }
                ]
            }
        },
        "priorityClassName": "system-cluster-critical",
    }
    spec = operator_pod(render(**placement))["spec"]
    assert {key: spec[key] for key in placement} == placement


def test_every_selector_finds_the_pod_and_every_object_says_whose_it_is(render: Render) -> None:
    manifests = render(registrySecrets=["mlflow"])
    labels = operator_pod(manifests)["metadata"]["labels"]
    [deployment], [service] = of_kind(manifests, "Deployment"), of_kind(manifests, "Service")
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    for manifest in manifests:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "rollway"


def test_the_metrics_service_points_at_the_metrics_port(render: Render) -> None:
    manifests = render()
    [service] = of_kind(manifests, "Service")
    [container] = operator_pod(manifests)["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["metrics"]
    assert str(ports["metrics"]) == environment(manifests)["ROLLWAY_METRICS_PORT"]


def test_a_monitor_that_prometheus_selects_leads_to_the_metrics_service(render: Render) -> None:
    manifests = render(monitoring={"force": True, "labels": {"team": "ml", "app.kubernetes.io/name": "x"}})
    [monitor], [service] = of_kind(manifests, "ServiceMonitor"), of_kind(manifests, "Service")
    labels = service["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    # A Prometheus that overrides honorLabels must have the same series.
    assert "honorLabels" not in endpoint
    assert endpoint["metricRelabelings"] == [
        {"sourceLabels": ["exported_namespace"], "regex": "(.+)", "targetLabel": "namespace"},
        {"regex": "exported_namespace", "action": "labeldrop"},
    ]
    chosen = {"release": "kube-prometheus-stack", "team": "ml"}
    assert monitor["metadata"]["labels"] == chosen | labels


@pytest.mark.parametrize("values", [{}, {"enabled": False, "force": True}])
def test_there_is_no_monitor_where_nobody_knows_what_that_is_or_wants_one(
    render: Render, values: dict[str, Any]
) -> None:
    assert of_kind(render(monitoring=values), "ServiceMonitor") == []


@pytest.mark.parametrize(
    ("monitoring", "expected"),
    [
        ({}, {"release": "kube-prometheus-stack"}),
        ({"labels": {"release": None}}, {}),
        ({"labels": {"team": "ml"}}, {"release": "kube-prometheus-stack", "team": "ml"}),
        ({"enabled": False}, None),
    ],
)
def test_what_the_chart_says_of_monitors_is_what_the_operator_reads(
    render: Render, monitoring: dict[str, Any], expected: dict[str, str] | None, tmp_path: Path
) -> None:
    manifests = render(monitoring=monitoring)
    assert settings_of(manifests, tmp_path).monitor_labels == expected


def test_without_monitoring_the_operator_may_touch_no_monitor(render: Render) -> None:
    def groups(**values: object) -> set[str]:
        rules = [rule for grant in grants(render(**values)) for rule in grant["rules"]]
        return {group for rule in rules for group in rule["apiGroups"]}

    assert groups() - groups(monitoring={"enabled": False}) == {"monitoring.coreos.com"}


def test_the_probes_ask_the_health_port(render: Render) -> None:
    manifests = render()
    [container] = operator_pod(manifests)["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["health"]) == environment(manifests)["ROLLWAY_HEALTH_PORT"]
    for probe, path in {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}.items():
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "health"}


def test_the_operator_reads_exactly_the_runtimes_of_the_values(render: Render) -> None:
    onnx = {**VALUES["runtimes"]["mlserver"], "image": "example/onnx@sha256:" + "a" * 64, "drainSeconds": 7.5}
    manifests = render(runtimes={"onnx": onnx})
    config = runtimes_config(manifests)
    assert json.loads(config["data"]["runtimes.json"]) == {**VALUES["runtimes"], "onnx": onnx}
    spec = operator_pod(manifests)["spec"]
    [container] = spec["containers"]
    assert spec["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    assert (
        container["volumeMounts"][0]["mountPath"] + "/runtimes.json"
        == environment(manifests)["ROLLWAY_RUNTIMES_FILE"]
    )


def test_a_changed_runtime_restarts_the_operator(render: Render) -> None:
    before = operator_pod(render())
    assert operator_pod(render()) == before
    after = operator_pod(render(runtimes={"mlserver": {"image": "rollway/mlserver:9.9.9"}}))
    assert after["metadata"]["annotations"] != before["metadata"]["annotations"]


RECEIVER: dict[str, Any] = {"name": "on-call", "type": "slack", "urlSecret": {"name": "slack", "key": "url"}}


def test_the_operator_tells_exactly_the_receivers_of_the_values(render: Render, tmp_path: Path) -> None:
    audit: dict[str, Any] = {
        "name": "audit",
        "type": "webhook",
        "urlSecret": {"name": "hooks", "key": "audit.url"},
        "events": ["Promoted"],
        "namespaces": ["team-a"],
    }
    manifests = render(notifications={"receivers": [RECEIVER, audit]})
    read = settings_of(manifests, tmp_path).receivers
    assert [(each.name, each.type, each.events, each.namespaces) for each in read] == [
        ("on-call", "slack", DEFAULT_EVENTS, ()),
        ("audit", "webhook", ("Promoted",), ("team-a",)),
    ]
    spec = operator_pod(manifests)["spec"]
    [container] = spec["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"] if mount["readOnly"]}
    for receiver, definition in zip(read, [RECEIVER, audit], strict=True):
        [volume] = [each for each in spec["volumes"] if each["name"] == f"receiver-{receiver.name}"]
        assert volume["secret"] == {
            "secretName": definition["urlSecret"]["name"],
            "optional": True,
            "items": [{"key": definition["urlSecret"]["key"], "path": "url"}],
        }
        assert f"{mounted[volume['name']]}/url" == str(receiver.url_file)
        assert receiver.secret == "key {key} of Secret {name}".format(**definition["urlSecret"])
    assert grants(manifests) == grants(render())


def test_without_receivers_nothing_is_mounted_for_them(render: Render, tmp_path: Path) -> None:
    manifests = render()
    assert settings_of(manifests, tmp_path).receivers == ()
    assert len(operator_pod(manifests)["spec"]["volumes"]) == 1


def test_changed_receivers_restart_the_operator(render: Render) -> None:
    after = operator_pod(render(notifications={"receivers": [RECEIVER]}))
    assert after["metadata"]["annotations"] != operator_pod(render())["metadata"]["annotations"]


def test_two_receivers_of_one_name_are_refused(helm: Helm) -> None:
    receivers = [RECEIVER, RECEIVER | {"type": "webhook"}]
    with pytest.raises(HelmRefusedError, match="the name on-call is there twice; give each receiver its own"):
        helm.run("template", "rollway", str(CHART), values={"notifications": {"receivers": receivers}})


def test_the_definitions_are_the_generated_ones_and_survive_an_uninstall(render: Render) -> None:
    generated = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")}
    assert set(generated) == {"rollway.dev_modeldeployments.yaml", "rollway.dev_modelregistries.yaml"}
    rendered = {crd["metadata"]["name"]: crd for crd in of_kind(render(), "CustomResourceDefinition")}
    for definition in generated.values():
        crd = rendered.pop(definition["metadata"]["name"])
        assert crd["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
        definition["metadata"].setdefault("annotations", {})
        assert crd == definition
    assert not rendered


def test_the_definitions_can_be_left_to_somebody_else(render: Render) -> None:
    assert of_kind(render(crds={"enabled": False}), "CustomResourceDefinition") == []


def test_rules_are_made_where_the_cluster_knows_them_or_when_told_to(helm: Helm, render: Render) -> None:
    assert of_kind(render(), "PrometheusRule") == []
    assert len(of_kind(render(monitoring={"force": True}), "PrometheusRule")) == 3
    command = ("template", "rollway", str(CHART), "--api-versions", "monitoring.coreos.com/v1")
    made = [document for document in yaml.safe_load_all(helm.run(*command)) if document]
    assert len(of_kind(made, "PrometheusRule")) == 3
    for off in ({"enabled": False}, {"rules": {"enabled": False}}):
        assert of_kind(render(monitoring={"force": True, **off}), "PrometheusRule") == []


def test_the_rules_are_those_of_the_files_with_what_is_of_this_release(helm: Helm) -> None:
    values = {
        "resyncSeconds": 60,
        "monitoring": {"force": True, "runbookBase": "https://wiki.example/rollway/"},
    }
    manifests = helm.template(CHART, values, release="models", namespace="rollway-system")
    rendered = {each["metadata"]["name"]: each for each in of_kind(manifests, "PrometheusRule")}
    for path in (CHART / "files/rules").glob("*.yaml"):
        rule = rendered.pop(f"models-{path.stem}")
        assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"
        text = path.read_text().replace("https://rollway.dev/docs/runbooks/", "https://wiki.example/rollway/")
        text = text.replace('job="rollway-operator"', 'job="models-operator"').replace("15 * 20", "15 * 60")
        assert rule["spec"] == yaml.safe_load(text)
        assert "rollway.dev/docs" not in json.dumps(rule)
    assert not rendered


def test_each_dashboard_is_a_config_map_for_grafanas_sidecar(render: Render) -> None:
    files = {path.name: path.read_text() for path in (CHART / "files/dashboards").glob("*.json")}
    assert set(files) == {"fleet.json", "model.json"}
    labels = {"grafana_dashboard": "1", "team": "ml"}
    manifests = render(monitoring={"dashboards": {"labels": labels, "folder": "Models"}})
    made = [each for each in of_kind(manifests, "ConfigMap") if "runtimes.json" not in each["data"]]
    assert sorted(each["metadata"]["name"] for each in made) == [
        "rollway-dashboard-fleet",
        "rollway-dashboard-model",
    ]
    for each in made:
        assert labels.items() <= each["metadata"]["labels"].items()
        assert each["metadata"]["annotations"] == {"grafana_folder": "Models"}
        [(name, text)] = each["data"].items()
        assert json.loads(text) == json.loads(files.pop(name.removeprefix("rollway-")))


@pytest.mark.parametrize("off", [{"enabled": False}, {"dashboards": {"enabled": False}}])
def test_without_dashboards_there_is_only_the_operators_own_config_map(
    render: Render, off: dict[str, Any]
) -> None:
    assert len(of_kind(render(monitoring=off), "ConfigMap")) == 1


def test_the_chart_passes_a_strict_lint(helm: Helm) -> None:
    helm.run("lint", "--strict", str(CHART))


OPEN = {
    ("runtimes",),
    ("nodeSelector",),
    ("analysis", "templates"),
    ("monitoring", "labels"),
    ("monitoring", "dashboards", "labels"),
}
"""Values whose keys the user chooses."""


@pytest.mark.parametrize("path", list(closed_levels(VALUES, OPEN)), ids=lambda path: ".".join(path) or "top")
def test_a_misspelt_value_is_refused_and_named(helm: Helm, path: tuple[str, ...]) -> None:
    with pytest.raises(HelmRefusedError, match="'misspelt' not allowed") as refusal:
        helm.run("template", "rollway", str(CHART), values=misspelt(path))
    assert f"at '{''.join(f'/{key}' for key in path)}'" in str(refusal.value)


@pytest.mark.parametrize(
    "verb", [["lint"], ["template", "rollway"], ["install", "rollway", "--dry-run=client"]]
)
def test_lint_template_and_install_all_refuse_a_misspelt_value(helm: Helm, verb: list[str]) -> None:
    with pytest.raises(HelmRefusedError, match="'resyncSecond' not allowed"):
        helm.run(*verb, str(CHART), values={"resyncSecond": 20})


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"image": "rollway/operator"}, "at '/image'"),
        ({"runtimes": {"mlserver": {"image": ""}}}, "at '/runtimes/mlserver/image'"),
        ({"runtimes": {"bare": {"image": "a:1"}}}, "at '/runtimes/bare': missing properties"),
        ({"runtimes": {"Upper": VALUES["runtimes"]["mlserver"]}}, "'Upper' does not match pattern"),
        ({"runtimes": {"mlserver": {"ports": {"http": 80}}}}, "at '/runtimes/mlserver/ports/http'"),
        (
            {"runtimes": {"mlserver": {"readinessPath": "v2/{model}"}}},
            "at '/runtimes/mlserver/readinessPath'",
        ),
        (
            {"runtimes": {"mlserver": {"limits": {"maxBody": 1}}}},
            "at '/runtimes/mlserver/limits': additional properties 'maxBody' not allowed",
        ),
        ({"runtimes": {"mlserver": {"preStopSeconds": -1}}}, "at '/runtimes/mlserver/preStopSeconds'"),
        (
            {"runtimes": {"mlserver": {"imagePullSecrets": ["*"]}}},
            "at '/runtimes/mlserver/imagePullSecrets/0'",
        ),
        ({"modelTolerations": ["spot"]}, "at '/modelTolerations/0': got string, want object"),
        ({"modelTolerations": [{"key": "no key"}]}, "at '/modelTolerations/0/key'"),
        ({"networkPolicy": {"gatewayNamespaces": "traefik"}}, "at '/networkPolicy/gatewayNamespaces'"),
        ({"gateway": {"http": {"name": "models"}}}, "at '/gateway/http'"),
        ({"gateway": {"grpc": {"namespace": "traefik"}}}, "at '/gateway/grpc'"),
        ({"gateway": {"http": {"sectionName": "web"}}}, "at '/gateway/http'"),
        ({"gateway": {"http": None}}, "at '/gateway': missing property 'http'"),
        ({"gateway": {**GATEWAY, "url": "models.example.com"}}, "at '/gateway/url'"),
        ({"gateway": {**GATEWAY, "url": "https://models?a=b"}}, "at '/gateway/url'"),
        ({"gateway": {"url": "https://models.example.com"}}, "at '/gateway/http'"),
        ({"gateway": {"permittedHosts": ["models.example.com"]}}, "at '/gateway/http'"),
        ({"gateway": {**GATEWAY, "permittedHosts": ["a.*.example.com"]}}, "at '/gateway/permittedHosts/0'"),
        ({"gateway": {**GATEWAY, "permittedHosts": ["*"]}}, "at '/gateway/permittedHosts/0'"),
        ({"runtimes": {"mlserver": {"batching": "yes"}}}, "at '/runtimes/mlserver/batching'"),
        ({"registryCABundles": ["*"]}, "at '/registryCABundles/0'"),
        (
            {"notifications": {"receivers": [RECEIVER | {"type": "email"}]}},
            "at '/notifications/receivers/0/type'",
        ),
        (
            {"notifications": {"receivers": [RECEIVER | {"url": "https://x"}]}},
            "at '/notifications/receivers/0': additional properties 'url' not allowed",
        ),
        (
            {"notifications": {"receivers": [RECEIVER | {"events": ["Failed"]}]}},
            "at '/notifications/receivers/0/events/0'",
        ),
        (
            {"notifications": {"receivers": [RECEIVER | {"urlSecret": {"name": "slack"}}]}},
            "at '/notifications/receivers/0/urlSecret': missing property 'key'",
        ),
        ({"prometheus": {"url": "prometheus:9090"}}, "at '/prometheus/url'"),
        ({"prometheus": {"fallback": True}}, "at '/prometheus/fallback'"),
        ({"prometheus": {"staleSeconds": 1}}, "at '/prometheus/staleSeconds'"),
        ({"prometheus": {"gatewayErrors": "envoy"}}, "at '/prometheus/gatewayErrors'"),
        ({"prometheus": {"tokenSecret": {"name": "token"}}}, "at '/prometheus/tokenSecret'"),
        ({"prometheus": {"caSecret": "ca"}}, "at '/prometheus/caSecret'"),
        ({"analysis": {"templates": {"chargeback": "up"}}}, "at '/analysis/templates/chargeback'"),
        (
            {"analysis": {"templates": {"chargeback": {"query": ""}}}},
            "at '/analysis/templates/chargeback/query'",
        ),
        ({"analysis": {"templates": {"Upper": {"query": "up"}}}}, "'Upper' does not match pattern"),
        ({"logLevel": "info"}, "value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
        ({"resyncSeconds": "20"}, "at '/resyncSeconds': got string, want integer"),
        ({"rbac": {"namespaces": "team-a"}}, "at '/rbac/namespaces': got string, want array"),
        ({"rbac": {"namespaces": ["team-a", "team-a"]}}, "at '/rbac/namespaces'"),
        ({"registrySecrets": ["*"]}, "at '/registrySecrets/0'"),
        ({"resources": {"limits": {"memory": "1 GB"}}}, "at '/resources/limits/memory'"),
        ({"tolerations": [{"keys": "gpu"}]}, "at '/tolerations/0'"),
        ({"affinity": {"podAntiAffinity": {"required": []}}}, "at '/affinity/podAntiAffinity'"),
        ({"monitoring": {"runbookBase": "docs/runbooks"}}, "at '/monitoring/runbookBase'"),
        ({"monitoring": {"labels": {"release": 1}}}, "at '/monitoring/labels/release'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(helm: Helm, values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HelmRefusedError) as refusal:
        helm.run("template", "rollway", str(CHART), values=values)
    assert complaint in str(refusal.value)


def open_objects(schema: object, path: str = "") -> Iterator[str]:
    """Yield the place of every object in ``schema`` that takes keys which nobody described."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from open_objects(item, f"{path}/{index}")
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties", True) is True:
            yield path
        for key, value in schema.items():
            yield from open_objects(value, f"{path}/{key}")


def test_the_schema_is_closed_but_for_what_helm_itself_puts_in() -> None:
    assert list(open_objects(SCHEMA)) == ["/properties/global"]


def test_a_kubernetes_older_than_the_api_needs_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmRefusedError, match="kubeVersion"):
        helm.run("template", "rollway", str(CHART), "--kube-version", "1.32.9")


def test_the_notes_show_a_registry_and_a_model_in_a_namespace_that_is_served(helm: Helm) -> None:
    values = {"rbac": {"namespaces": ["team-a"]}}
    notes = helm.run("install", "rollway", str(CHART), "--dry-run=client", values=values).partition("NOTES:")[
        2
    ]
    assert notes.count("kubectl") == 3
    registry, model = (yaml.safe_load(block.partition("EOF")[0]) for block in notes.split("<<EOF\n")[1:])
    assert registry["kind"] == "ModelRegistry"
    assert (model["kind"], model["metadata"]["namespace"]) == ("ModelDeployment", "team-a")


@pytest.mark.parametrize(
    ("gateway", "told"),
    [
        ({}, "since no Gateway is named"),
        ({"http": GATEWAY["http"]}, "the Gateway traefik/models at /seldon/<namespace>/<name>"),
        (GATEWAY, "at https://models.example.com/seldon/<namespace>/<name>"),
        (GATEWAY, "the Gateway edge/models-grpc with the metadata"),
    ],
)
def test_the_notes_say_how_models_are_reached(helm: Helm, gateway: dict[str, Any], told: str) -> None:
    values = {"gateway": gateway}
    notes = helm.run("install", "rollway", str(CHART), "--dry-run=client", values=values).partition("NOTES:")[
        2
    ]
    assert told in notes


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"monitoring": {"force": True}}, True),
        ({"monitoring": {"force": True}, "networkPolicy": {"prometheusNamespaces": ["monitoring"]}}, False),
        ({}, False),
    ],
    ids=["kept out", "let in", "no monitors"],
)
def test_the_notes_say_when_prometheus_is_kept_out_of_the_models_pods(
    helm: Helm, values: dict[str, Any], *, told: bool
) -> None:
    notes = helm.run("install", "rollway", str(CHART), "--dry-run=client", values=values).partition("NOTES:")[
        2
    ]
    assert ("until networkPolicy.prometheusNamespaces names its namespace" in notes) is told


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted path and the default of every value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def test_the_readme_lists_every_value_with_its_default() -> None:
    rows = [
        [cell.strip().strip("`") for cell in line.split("|")[1:3]]
        for line in (CHART / "README.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert rows == [[path, json.dumps(default)] for path, default in leaves(VALUES)]
