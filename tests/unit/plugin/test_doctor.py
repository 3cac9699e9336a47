"""What `kubectl rollway doctor` finds, and what it says is to be done."""

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import Result

from kubectl_rollway.errors import ForbiddenError, UnreachableError
from kubectl_rollway.lint import schemas
from kubectl_rollway.objects import Fields
from kubectl_rollway.selecting import lacking
from rollway_testing.fake_cluster import NOW, FakeCluster, at_rest

Object = dict[str, Any]
Run = Callable[..., Result]
Spoil = Callable[[FakeCluster], None]

OPERATOR = "app.kubernetes.io/name=rollway,app.kubernetes.io/component=operator"
MLFLOW = "app.kubernetes.io/name=mlflow,app.kubernetes.io/component=server"
WEB = "prometheus-operated:web"
TARGETS = "/api/v1/targets?state=active"
LABELS = {"release": "kube-prometheus-stack"}


def named(name: str, namespace: str = "", **more: Any) -> Object:
    place = {"namespace": namespace} if namespace else {}
    return {"metadata": {"name": name, **place, **more.pop("metadata", {})}, **more}


def holds(type_: str, status: str = "True", message: str = "") -> Object:
    return {"conditions": [{"type": type_, "status": status, "reason": type_, "message": message}]}


def server(name: str, namespace: str, of: str, part: str, **environment: str) -> Object:
    labels = {
        "app.kubernetes.io/name": of,
        "app.kubernetes.io/instance": of,
        "app.kubernetes.io/component": part,
    }
    env = [{"name": key, "value": value} for key, value in environment.items()]
    return named(
        name,
        namespace,
        metadata={"labels": labels},
        spec={"replicas": 1, "template": {"spec": {"containers": [{"name": part, "env": env}]}}},
        status={"readyReplicas": 1},
    )


def service_monitor(name: str, namespace: str, of: str) -> Object:
    selector = {"matchLabels": {"app.kubernetes.io/name": of}}
    return named(name, namespace, metadata={"labels": dict(LABELS)}, spec={"selector": selector})


def target(pool: str, health: str = "up", error: str = "") -> Object:
    return {"scrapePool": pool, "health": health, "lastError": error}


POOLS = (
    "serviceMonitor/rollway-system/rollway-operator/0",
    "serviceMonitor/mlflow/mlflow/0",
    "podMonitor/team-a/fraud/0",
    "podMonitor/team-a/fraud/0",
)


def scraped(*targets: Object) -> Object:
    return {"status": "success", "data": {"activeTargets": list(targets)}}


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster in which all is well."""
    selectors = {
        f"{kind}{what}Selector": {"matchLabels": LABELS} if not what else {}
        for kind in ("podMonitor", "serviceMonitor")
        for what in ("", "Namespace")
    }
    operator = server(
        "rollway-operator",
        "rollway-system",
        "rollway",
        "operator",
        ROLLWAY_LEASE_NAME="rollway-operator",
        ROLLWAY_GATEWAY_HTTP="traefik/http/web",
        ROLLWAY_GATEWAY_GRPC="",
    )
    lease = {
        "holderIdentity": "rollway-operator-1",
        "renewTime": (NOW - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    definitions = [
        named(
            f"{kind.lower()}{'s' if kind.endswith('t') else ''}.rollway.dev".replace(
                "registry.", "registries."
            ),
            spec={"versions": [{"name": version, "schema": {"openAPIV3Schema": schema}}]},
            status=holds("Established"),
        )
        for kind, (version, schema) in schemas().items()
    ]
    kinds = {
        "customresourcedefinitions": copy.deepcopy(definitions),
        "leases": [named("rollway-operator", "rollway-system", spec=lease)],
        "modelregistries": [named("default", status=holds("Ready", message="answers"))],
        "gateways": [
            named("http", "traefik", spec={"listeners": [{"name": "web"}]}, status=holds("Programmed"))
        ],
        "prometheuses": [named("main", "monitoring", spec=selectors)],
        "servicemonitors": [
            service_monitor("rollway-operator", "rollway-system", "rollway"),
            service_monitor("mlflow", "mlflow", "mlflow"),
        ],
        "podmonitors": [named("fraud", "team-a", metadata={"labels": dict(LABELS)})],
        "namespaces": [
            named("team-a", metadata={"labels": {"kubernetes.io/metadata.name": "team-a"}}),
            named("monitoring"),
        ],
        "modeldeployments": [at_rest()],
    }
    made = FakeCluster()
    made.kinds = {(plural, ""): items for plural, items in kinds.items()}
    made.kinds["deployments", OPERATOR] = [operator]
    made.kinds["deployments", MLFLOW] = [server("mlflow", "mlflow", "mlflow", "server")]
    made.services["monitoring", WEB, TARGETS] = scraped(*map(target, POOLS))
    return made


def findings(run: Run, *words: str) -> list[Object]:
    result = run("doctor", "-o", "json", *words)
    found: list[Object] = json.loads(result.stdout)
    assert result.exit_code == int(any(each["state"] == "missing" for each in found))
    return found


def troubles(run: Run, *words: str) -> list[Object]:
    return [each for each in findings(run, *words) if each["state"] != "ok"]


def the(cluster: FakeCluster, plural: str, selector: str = "") -> Object:
    return cluster.kinds[plural, selector][0]


def test_where_all_is_well_it_says_so_and_ends_with_0(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["STATE", "CHECK"],
        *(["ok", "definition"],) * 2,
        ["ok", "operator"],
        ["ok", "lease"],
        ["ok", "registry"],
        ["ok", "gateway"],
        ["ok", "prometheus"],
        *(["ok", "scraped"],) * 3,
    ]
    assert "2 of 2 targets up" in result.stdout


def test_what_is_to_be_done_stands_below_the_table(cluster: FakeCluster, run: Run) -> None:
    cluster.kinds["modelregistries", ""] = []
    result = run("doctor")
    assert result.exit_code == 1
    assert "missing   registry" in result.stdout
    assert "\nregistry: kubectl apply a ModelRegistry, such as examples/registry.yaml\n" in result.stdout
    assert "1 of 10 checks found something missing" in result.output


def empties(plural: str, selector: str = "") -> Spoil:
    return lambda cluster: cluster.kinds.__setitem__((plural, selector), [])


def sets(plural: str, *path: str, to: Any, selector: str = "") -> Spoil:
    def spoil(cluster: FakeCluster) -> None:
        at = the(cluster, plural, selector)
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to

    return spoil


def lets_go(plural: str, *path: str) -> Spoil:
    def spoil(cluster: FakeCluster) -> None:
        at = the(cluster, plural)
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return spoil


def answers(*targets: Object) -> Spoil:
    return lambda cluster: cluster.services.__setitem__(("monitoring", WEB, TARGETS), scraped(*targets))


LATE = (NOW - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
BUT_THE_MODEL = [target(pool) for pool in POOLS[:2]]


def unscraped(spoil: Spoil) -> Spoil:
    """Spoil something so that the model's pods are not scraped."""

    def both(cluster: FakeCluster) -> None:
        answers(*BUT_THE_MODEL)(cluster)
        spoil(cluster)

    return both


@pytest.mark.parametrize(
    ("spoil", "state", "check", "says", "fix"),
    [
        (
            sets("customresourcedefinitions", "metadata", "name", to="x"),
            *("missing", "definition", "is not installed", "helm upgrade --install rollway"),
        ),
        (
            sets("customresourcedefinitions", "status", to=holds("Established", "False")),
            *("missing", "definition", "the API server does not serve it", "kubectl describe crd "),
        ),
        (
            sets("customresourcedefinitions", "spec", to={"versions": []}),
            *("warning", "definition", "is of another version", "the plugin of the operator's version"),
        ),
        (
            sets("deployments", "status", to={}, selector=OPERATOR),
            *("missing", "operator", "0 of 1 replicas ready", "kubectl logs deployment/rollway-operator"),
        ),
        (
            sets("deployments", "spec", "replicas", to=2, selector=OPERATOR),
            *("warning", "operator", "1 of 2 replicas ready", "kubectl describe deployment rollway-operator"),
        ),
        (
            sets("deployments", "spec", "replicas", to=0, selector=OPERATOR),
            *("missing", "operator", "is scaled to 0", "--namespace rollway-system --replicas=1"),
        ),
        (empties("leases"), "missing", "lease", "nobody holds it", "kubectl logs deployment/"),
        (
            sets("leases", "spec", "renewTime", to=LATE),
            *("missing", "lease", "rollway-operator-1 has not renewed it", "kubectl logs deployment/"),
        ),
        (empties("modelregistries"), "missing", "registry", "there is no ModelRegistry", "examples/registry"),
        (
            sets("modelregistries", "status", to=holds("Ready", "False", "no answer in time")),
            *("missing", "registry", "Ready: no answer in time", "kubectl describe mreg default"),
        ),
        (
            sets("modelregistries", "status", to={}),
            *("missing", "registry", "the operator has not looked yet", "kubectl describe mreg default"),
        ),
        (empties("gateways"), "missing", "gateway", "there is no such Gateway", "gateway.http"),
        (
            lambda cluster: cluster.kinds.pop(("gateways", "")),
            *("missing", "gateway", "does not know Gateways", "install the Gateway API"),
        ),
        (
            sets("gateways", "spec", "listeners", to=[{"name": "other"}]),
            *("missing", "gateway", "it has no listener web", "its listeners are other"),
        ),
        (
            sets("gateways", "status", to=holds("Programmed", "False", "no address")),
            *("missing", "gateway", "is not Programmed: no address", "kubectl describe gateway http"),
        ),
        (
            lambda cluster: cluster.kinds.pop(("podmonitors", "")),
            *(
                "warning",
                "monitoring",
                "does not know monitoring.coreos.com/v1",
                "install Prometheus Operator",
            ),
        ),
        (empties("podmonitors"), "missing", "scraped", "there is none", "monitoring.enabled: true"),
        (
            unscraped(sets("podmonitors", "metadata", "labels", to={"release": "other"})),
            "missing",
            "scraped",
            "monitoring/main does not select it: the label release=kube-prometheus-stack is missing",
            "add release=kube-prometheus-stack to monitoring.labels in the values of charts/rollway",
        ),
        (
            unscraped(lets_go("prometheuses", "spec", "podMonitorSelector")),
            *("missing", "scraped", "selects no PodMonitor", "set spec.podMonitorSelector of Prometheus"),
        ),
        (
            unscraped(lets_go("prometheuses", "spec", "podMonitorNamespaceSelector")),
            *("missing", "scraped", "selects in its own namespace alone", "podMonitorNamespaceSelector"),
        ),
        (
            unscraped(
                sets("prometheuses", "spec", "podMonitorNamespaceSelector", to={"matchLabels": {"a": "b"}})
            ),
            *("missing", "scraped", "does not select namespace team-a", "kubectl label namespace team-a a=b"),
        ),
        (
            answers(*BUT_THE_MODEL),
            *("missing", "scraped", "Prometheus has no target of it", "wait a minute"),
        ),
        (
            answers(*BUT_THE_MODEL, target(POOLS[2]), target(POOLS[2], "down", "connection refused")),
            *("missing", "scraped", "1 of 2 targets down: connection refused", "prometheusNamespaces"),
        ),
        (
            unscraped(sets("modeldeployments", "status", to={})),
            *("warning", "scraped", "no pods to scrape yet", "wait for its first version"),
        ),
    ],
)
def test_each_trouble_is_found_alone_and_with_its_fix(
    cluster: FakeCluster, run: Run, spoil: Spoil, state: str, check: str, says: str, fix: str
) -> None:
    spoil(cluster)
    (found,) = troubles(run)
    assert (found["state"], found["check"]) == (state, check)
    assert says in found["says"]
    assert fix in found["fix"]


def test_without_an_operator_the_chart_is_named(cluster: FakeCluster, run: Run) -> None:
    empties("deployments", OPERATOR)(cluster)
    assert [each["says"] for each in troubles(run)] == ["there is no Deployment of the operator"]


def test_without_a_gateway_in_the_values_none_is_missed(cluster: FakeCluster, run: Run) -> None:
    the(cluster, "deployments", OPERATOR)["spec"]["template"]["spec"]["containers"][0]["env"].pop(1)
    empties("gateways")(cluster)
    assert troubles(run) == []


def test_who_wants_no_pod_monitor_misses_none(cluster: FakeCluster, run: Run) -> None:
    the(cluster, "modeldeployments")["spec"]["monitoring"] = {"podMonitor": {"enabled": False}}
    empties("podmonitors")(cluster)
    assert troubles(run) == []


def test_where_the_administrator_wants_no_monitoring_none_is_missed(cluster: FakeCluster, run: Run) -> None:
    env = the(cluster, "deployments", OPERATOR)["spec"]["template"]["spec"]["containers"][0]["env"]
    env.append({"name": "ROLLWAY_POD_MONITORS", "value": "false"})
    empties("podmonitors")(cluster)
    empties("servicemonitors")(cluster)
    (found,) = troubles(run)
    assert (found["state"], found["check"]) == ("warning", "monitoring")
    assert found["says"] == "monitoring.enabled is false: models have no PodMonitors"
    assert "monitoring.enabled: true" in found["fix"]


def test_one_prometheus_that_selects_is_enough(cluster: FakeCluster, run: Run) -> None:
    other = copy.deepcopy(the(cluster, "prometheuses"))
    other["metadata"]["name"] = "strict"
    other["spec"]["podMonitorSelector"] = {"matchLabels": {"release": "other"}}
    cluster.kinds["prometheuses", ""].insert(0, other)
    assert troubles(run) == []
    answers(*BUT_THE_MODEL)(cluster)
    assert [each["says"] for each in troubles(run)] == ["Prometheus has no target of it"]


def test_a_prometheus_behind_a_prefix_is_asked_there(cluster: FakeCluster, run: Run) -> None:
    the(cluster, "prometheuses")["spec"]["routePrefix"] = "/prom/"
    cluster.services["monitoring", WEB, f"/prom{TARGETS}"] = cluster.services.pop(
        ("monitoring", WEB, TARGETS)
    )
    assert troubles(run) == []


def test_without_a_prometheus_one_is_asked_for(cluster: FakeCluster, run: Run) -> None:
    empties("prometheuses")(cluster)
    found = troubles(run)
    assert (found[0]["state"], found[0]["says"]) == ("missing", "there is no Prometheus")
    assert {each["state"] for each in found[1:]} == {"warning"}


@pytest.mark.parametrize("error", [ForbiddenError("cannot get services/proxy"), UnreachableError("503")])
def test_a_prometheus_that_cannot_be_asked_is_said_and_labels_are_compared_all_the_same(
    cluster: FakeCluster, run: Run, error: Exception
) -> None:
    cluster.forbids["through"] = error  # type: ignore[assignment]
    the(cluster, "podmonitors")["metadata"]["labels"] = {}
    states = [(each["check"], each["state"]) for each in troubles(run)]
    assert states == [("prometheus", "warning"), *[("scraped", "warning")] * 2, ("scraped", "missing")]


@pytest.mark.parametrize(
    ("plural", "check"),
    [
        ("customresourcedefinitions", "definition"),
        ("leases", "lease"),
        ("modelregistries", "registry"),
        ("gateways", "gateway"),
        ("podmonitors", "monitoring"),
    ],
)
def test_what_may_not_be_read_is_a_warning(cluster: FakeCluster, run: Run, plural: str, check: str) -> None:
    cluster.forbids[plural] = ForbiddenError(f"cannot list {plural}")
    (found,) = troubles(run)
    assert (found["state"], found["check"]) == ("warning", check)
    assert found["says"] == f"not checked: cannot list {plural}"


def test_a_cluster_that_cannot_be_reached_is_no_finding(cluster: FakeCluster, run: Run) -> None:
    cluster.forbids["deployments"] = UnreachableError("cannot reach it")
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (5, "")


def test_what_knows_no_namespaces_is_no_api_server(cluster: FakeCluster, run: Run) -> None:
    cluster.kinds.pop(("namespaces", ""))
    assert run("doctor").exit_code == 5


@pytest.mark.parametrize(
    ("selector", "missing"),
    [
        ({}, ()),
        ({"matchLabels": {"a": "1"}}, ()),
        ({"matchLabels": {"a": "2", "b": "1"}}, ("a=2", "b=1")),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, ()),
        ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["1", "2"]}]}, ("b=1",)),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, ("a-",)),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, ()),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, ("b=true",)),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, ()),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, ("a-",)),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, ()),
    ],
)
def test_what_an_object_lacks_for_a_selector(selector: Object, missing: tuple[str, ...]) -> None:
    assert lacking(Fields(selector), {"a": "1"}) == missing
