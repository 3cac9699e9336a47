"""The operator's own account: what it may do, that this suffices, and that no secret it reads is shown anywhere."""

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from rollway_cluster import binaries
from rollway_testing.canary import Canary, Echo
from rollway_testing.controlplane import ControlPlane
from rollway_testing.helm import Helm
from rollway_testing.kubelet import Kubelet
from rollway_testing.processes import MLflowServer
from rollway_testing.stories import REPOSITORY, OperatorProcess, RegisteredModel, Story, condition

Json = dict[str, Any]

CHART = REPOSITORY / "charts/rollway"
GOLDEN = Path(__file__).parent / "golden"
RBAC = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
SECRETS = ("mlflow-token", "mlflow-password")
"""The Secrets, and the ModelRegistries that use them."""
SERVED, OTHER = "served", "other"
SHOWN = (
    *("modeldeployments", "modelregistries", "controllerrevisions", "deployments", "replicasets"),
    *("services", "configmaps", "pods", "events", "leases"),
)


class Account:
    """An operator's service account, with all that a release of the chart grants it and nothing else."""

    def __init__(self, plane: ControlPlane, helm: Helm, release: str, namespaces: list[str]) -> None:
        self._plane, self.namespace = plane, f"{release}-system"
        values = {
            "rbac": {"namespaces": namespaces},
            "registrySecrets": [*SECRETS],
            "crds": {"enabled": False},
        }
        rendered = helm.template(CHART, values, release=release, namespace=self.namespace)
        plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        wanted = [item for item in rendered if item["kind"] in RBAC]
        plane.kubectl("apply", "--server-side", "--filename=-", given=yaml.safe_dump_all(wanted))
        [self.name] = [item["metadata"]["name"] for item in wanted if item["kind"] == "ServiceAccount"]
        self.user = f"system:serviceaccount:{self.namespace}:{self.name}"

    def grants(self, namespace: str) -> str:
        """Give what kubectl lists for it in a namespace, sorted, without what every account may do."""
        everybody = self._rows(namespace, f"system:serviceaccount:{namespace}:default")
        return "\n".join(row for row in self._rows(namespace, self.user) if row not in everybody)

    def _rows(self, namespace: str, user: str) -> list[str]:
        told = self._plane.kubectl("auth", "can-i", "--list", f"--as={user}", f"--namespace={namespace}")
        return sorted(re.sub(r" {2,}", "  ", line).rstrip() for line in told.splitlines()[1:])

    def can(self, verb: str, what: str, namespace: str) -> bool:
        """Ask the API server for one thing: `[group/]resource[:subresource][=name]`."""
        resource, _, name = what.partition("=")
        group, _, plural = resource.rpartition("/")
        plural, _, part = plural.partition(":")
        wanted = {"verb": verb, "group": group, "resource": plural, "subresource": part, "name": name}
        groups = [
            "system:serviceaccounts",
            f"system:serviceaccounts:{self.namespace}",
            "system:authenticated",
        ]
        answer = self._plane.api.create(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "metadata": {},
                "spec": {
                    "user": self.user,
                    "groups": groups,
                    "resourceAttributes": wanted | {"namespace": namespace},
                },
            }
        )
        return bool(answer["status"]["allowed"])

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig with a token of its own, as its pod would have one."""
        token = self._plane.kubectl("create", "token", self.name, f"--namespace={self.namespace}").strip()
        config = yaml.safe_load(self._plane.kubeconfig.read_text())
        for user in config["users"]:
            user["user"] = {"token": token}
        path.write_text(yaml.safe_dump(config))
        return path


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The pinned helm."""
    return Helm(binaries.command("helm"), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def namespaces(plane: ControlPlane) -> None:
    """One namespace that is served in both modes, and one that is only served where all are."""
    for name in (SERVED, OTHER):
        plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


@pytest.fixture(scope="module")
def everywhere(plane: ControlPlane, helm: Helm, namespaces: None) -> Account:
    """The account of an operator that serves every namespace."""
    return Account(plane, helm, "everywhere", [])


@pytest.fixture(scope="module")
def somewhere(plane: ControlPlane, helm: Helm, namespaces: None) -> Account:
    """The account of an operator that serves one namespace."""
    return Account(plane, helm, "somewhere", [SERVED])


# ---------------------------------------------------------------------------------------------------------- may and can


@pytest.mark.parametrize("mode", ["everywhere", "somewhere"])
def test_the_account_may_do_what_the_reviewed_list_says_and_no_more(
    request: pytest.FixtureRequest, mode: str
) -> None:
    account: Account = request.getfixturevalue(mode)
    places = {"its own namespace": account.namespace, "a namespace it serves": SERVED}
    if mode == "somewhere":
        places["another namespace"] = OTHER
    told = (
        "\n\n".join(f"# in {what}\n{account.grants(namespace)}" for what, namespace in places.items()) + "\n"
    )
    golden = GOLDEN / f"account-{mode}.txt"
    if "ROLLWAY_REWRITE" in os.environ:
        golden.write_text(told)
    assert told == golden.read_text()


@pytest.mark.parametrize("mode", ["everywhere", "somewhere"])
@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("get", "secrets"),
        ("list", "secrets"),
        ("watch", "secrets"),
        ("create", "secrets"),
        ("get", "secrets=another"),
        ("create", "pods"),
        ("create", "pods:exec"),
        ("get", "pods:log"),
        ("create", "serviceaccounts:token"),
        ("impersonate", "users"),
        ("create", "rbac.authorization.k8s.io/rolebindings"),
        ("bind", "rbac.authorization.k8s.io/clusterroles"),
        ("escalate", "rbac.authorization.k8s.io/clusterroles"),
        ("patch", "apiextensions.k8s.io/customresourcedefinitions"),
        ("patch", "admissionregistration.k8s.io/validatingwebhookconfigurations"),
        ("patch", "rollway.dev/modeldeployments"),
        ("patch", "rollway.dev/modelregistries"),
        ("get", "nodes"),
    ],
)
def test_the_account_may_not(request: pytest.FixtureRequest, mode: str, verb: str, what: str) -> None:
    account: Account = request.getfixturevalue(mode)
    places = (account.namespace, SERVED, OTHER, "kube-system")
    assert not [place for place in places if account.can(verb, what, place)]


@pytest.mark.parametrize("mode", ["everywhere", "somewhere"])
def test_the_account_reads_the_secrets_that_are_named_for_it(
    request: pytest.FixtureRequest, mode: str
) -> None:
    account: Account = request.getfixturevalue(mode)
    for name in SECRETS:
        assert account.can("get", f"secrets={name}", account.namespace)
        assert not [place for place in (SERVED, OTHER) if account.can("get", f"secrets={name}", place)]


# ------------------------------------------------------------------------------------------------------------- a canary


class RestrictedOperator(OperatorProcess):
    """The operator with its own account's token, at its most talkative."""

    def __init__(self, path: Path, account: Account) -> None:
        super().__init__(path, account.kubeconfig(path.with_suffix(".kubeconfig")))
        self._account = account

    def environment(self) -> dict[str, str]:
        own = {"ROLLWAY_NAMESPACE": self._account.namespace, "ROLLWAY_LEASE_NAME": self._account.name}
        return super().environment() | own | {"ROLLWAY_LOG_LEVEL": "DEBUG"}

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self._metrics}/metrics", trust_env=False).text


@pytest.fixture
def echoes(plane: ControlPlane, mlflow_server: MLflowServer, everywhere: Account) -> Iterator[list[Echo]]:
    """Tracking servers of two ModelRegistries, which are shown a token and a password."""
    servers = []
    for canary, name in zip((Canary.token(), Canary.password()), SECRETS, strict=True):
        servers.append(server := Echo(mlflow_server.uri, canary))
        kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelRegistry"}
        mlflow = {"trackingURI": server.uri, "pollInterval": "1s", "credentialsRef": {"name": name}}
        store = {"endpoint": "http://127.0.0.1:1", "credentialsSecretName": "models-s3"}
        spec = {"mlflow": mlflow, "artifacts": [{"prefix": "s3://models/"} | store]}
        plane.api.create(_secret(name, everywhere.namespace, canary.data))
        plane.api.apply({**kind, "metadata": {"name": name}, "spec": spec})
    yield servers
    for server, name in zip(servers, SECRETS, strict=True):
        plane.api.delete("ModelRegistry", name)
        plane.api.delete("Secret", name, everywhere.namespace)
        server.close()


def _secret(name: str, namespace: str, data: dict[str, str]) -> Json:
    kind = {"apiVersion": "v1", "kind": "Secret"}
    return {**kind, "metadata": {"name": name, "namespace": namespace}, "stringData": data}


@pytest.mark.usefixtures("alone")
def test_no_secret_is_shown_in_a_log_event_status_annotation_or_metric(
    plane: ControlPlane,
    everywhere: Account,
    echoes: list[Echo],
    namespace: str,
    kubelet: Kubelet,
    model: RegisteredModel,
    tmp_path: Path,
) -> None:
    tenants = f"canary-{secrets.token_hex(16)}"
    plane.api.create(_secret("models-s3", namespace, {"accessKeyId": "a", "secretAccessKey": tenants}))
    stories = [Story(plane.api, kubelet, namespace, model.name, name=name) for name in SECRETS]
    with RestrictedOperator(tmp_path / "operator", everywhere) as operator:
        for story, name in zip(stories, SECRETS, strict=True):
            story.spec["model"]["registryRef"] = {"name": name}
            story.ask()
        for story in stories:
            story.until_serving("1")
        for fault in Echo.faults:
            for echo in echoes:
                echo.fault = fault
            for story in stories:
                story.until(lambda status: not resolved(status), f"{fault} is said")
            for echo in echoes:
                assert echo.shown[fault]
                echo.fault = ""
            for story in stories:
                story.until(resolved, f"{fault} is over")
        metrics = operator.metrics()
    objects = plane.kubectl(
        *("get", ",".join(SHOWN), "--all-namespaces", "--output=json", "--show-managed-fields")
    )
    shown = {"log": operator.log.read_text(), "objects": objects, "metrics": metrics}
    forms = {tenants, *(form for echo in echoes for form in echo.canary.forms)}
    assert {where for where, said in shown.items() for form in forms if form in said} == set()
    # The search sees what it should: where the Secrets are named, and that failures were told.
    for name in (*SECRETS, "models-s3"):
        assert f'"name":"{name}"' in re.sub(r"\s", "", objects)
    assert "RegistryUnreachable" in objects
    assert '"level": "DEBUG"' in shown["log"]


def resolved(status: Json) -> bool:
    return bool(condition(status, "ModelResolved")["status"] == "True")
