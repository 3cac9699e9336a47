"""Which cluster is meant, and what is shown to it."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_rollway import kubeconfig
from kubectl_rollway.errors import UnreachableError
from kubectl_rollway.kubeconfig import Access, find


def config(path: Path, **users: dict[str, Any]) -> Path:
    """Write a kubeconfig with one context for each user, the first of which is current."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "current-context": next(iter(users), ""),
        "contexts": [{"name": name, "context": {"cluster": "c", "user": name}} for name in users],
        "clusters": [{"name": "c", "cluster": {"server": "https://here:6443/"}}],
        "users": [{"name": name, "user": user} for name, user in users.items()],
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def test_the_file_of_the_home_folder_is_read_last(home: Path) -> None:
    config(home / ".kube/config", at_home={"token": "home"})
    variable = config(home / "variable", by_variable={"token": "variable"})
    option = config(home / "option", by_option={"token": "option"})
    assert find(None, None, None, {}).credentials().token == "home"
    assert find(None, None, None, {"KUBECONFIG": str(variable)}).credentials().token == "variable"
    environment = {"KUBECONFIG": str(variable)}
    assert find(str(option), None, None, environment).credentials().token == "option"


def test_files_are_merged_and_the_first_counts(home: Path) -> None:
    first = config(home / "first", a={"token": "first"})
    second = config(home / "second", a={"token": "second"}, b={"token": "other"})
    both = {"KUBECONFIG": os.pathsep.join([str(home / "missing"), "", str(first), str(second)])}
    assert find(None, None, None, both).credentials().token == "first"
    assert find(None, "b", None, both).credentials().token == "other"


def test_the_namespace_is_the_options_then_the_contexts(home: Path) -> None:
    file = config(home / "config", a={})
    assert find(str(file), None, None, {}).namespace == "default"
    document = yaml.safe_load(file.read_text())
    document["contexts"][0]["context"]["namespace"] = "team-a"
    file.write_text(yaml.safe_dump(document))
    assert find(str(file), None, None, {}).namespace == "team-a"
    assert find(str(file), None, "team-b", {}).namespace == "team-b"


def test_files_are_found_from_the_kubeconfigs_folder(home: Path) -> None:
    user = {"client-certificate": "pki/me.crt", "client-key": "pki/me.key", "tokenFile": "token"}
    file = config(home / "elsewhere/config", a=user)
    folder = file.parent
    (folder / "pki").mkdir()
    (folder / "pki/me.crt").write_text("certificate")
    (folder / "pki/me.key").write_text("key")
    (folder / "token").write_text("secret\n")
    shown = find(str(file), None, None, {}).credentials()
    assert (shown.certificate, shown.key, shown.token) == (b"certificate", b"key", "secret")
    assert "secret" not in repr(shown)


def test_what_stands_in_the_file_goes_before_what_it_names(home: Path) -> None:
    data = base64.b64encode(b"held").decode()
    file = config(home / "config", a={"client-key-data": data, "client-key": "missing"})
    assert find(str(file), None, None, {}).credentials().key == b"held"


def test_who_acts_for_another_says_so(home: Path) -> None:
    user = {
        "token": "t",
        "as": "robot",
        "as-groups": ["g1", "g2"],
        "as-user-extra": {"scope": ["x"]},
        "as-uid": "7",
    }
    found = find(str(config(home / "config", a=user)), None, None, {})
    assert found.headers == (
        ("Impersonate-User", "robot"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "g1"),
        ("Impersonate-Group", "g2"),
        ("Impersonate-Extra-scope", "x"),
    )
    assert "'t'" not in repr(found)


def program(home: Path, body: str) -> dict[str, Any]:
    """Make an `exec` entry whose program is some Python."""
    file = home / "login"
    file.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}\n")
    file.chmod(0o700)
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./login",
        "args": ["get-token"],
        "env": [{"name": "PROFILE", "value": "dev"}],
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }


def test_a_program_makes_the_credentials(home: Path) -> None:
    body = """
told = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
words = [sys.argv[1], os.environ["PROFILE"], told["spec"]["cluster"]["server"], told["spec"]["interactive"]]
print(json.dumps({"status": {"token": "|".join(map(str, words))}}))
"""
    found = find(str(config(home / "config", a={"exec": program(home, body)})), None, None, {})
    assert found.renewable
    assert found.credentials().token == "get-token|dev|https://here:6443/|False"


def test_a_program_may_give_a_certificate(home: Path) -> None:
    body = 'print(json.dumps({"status": {"clientCertificateData": "CERT", "clientKeyData": "KEY"}}))'
    shown = find(str(config(home / "config", a={"exec": program(home, body)})), None, None, {}).credentials()
    assert (shown.certificate, shown.key) == (b"CERT", b"KEY")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit(3)", "login, which makes the credentials of this context, failed"),
        ("print('hello')", "printed no ExecCredential"),
        ("print('{}')", "printed no ExecCredential"),
        ("print('[]')", "printed no ExecCredential"),
        ("print('{\"status\": null}')", "printed no ExecCredential"),
    ],
)
def test_a_program_that_fails_is_named(home: Path, body: str, why: str) -> None:
    found = find(str(config(home / "config", a={"exec": program(home, body)})), None, None, {})
    with pytest.raises(UnreachableError, match=why):
        found.credentials()


def test_a_program_that_is_missing_is_named_with_its_hint(home: Path) -> None:
    missing = {"command": "no-such-login", "installHint": "install it", "apiVersion": "v1"}
    found = find(str(config(home / "config", a={"exec": missing})), None, None, {})
    with pytest.raises(UnreachableError, match=r"no-such-login.*is not there. install it"):
        found.credentials()


def test_what_kubectl_no_longer_knows_is_refused(home: Path) -> None:
    found = find(str(config(home / "config", a={"auth-provider": {"name": "gcp"}})), None, None, {})
    with pytest.raises(UnreachableError, match="auth-provider"):
        found.credentials()


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("{", "is no YAML"),
        ("- a", "is no mapping"),
        ("", "no context is chosen"),
        ("current-context: x", 'there is no context "x" in the kubeconfig; there are: none'),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: c}}, {name: y}, 7]}",
            'names no server for the context "x"',
        ),
    ],
)
def test_a_kubeconfig_that_names_no_cluster_says_why(home: Path, written: str, why: str) -> None:
    (home / "config").write_text(written)
    with pytest.raises(UnreachableError, match=why):
        find(str(home / "config"), None, None, {})


def test_a_file_that_was_named_must_be_there(home: Path) -> None:
    with pytest.raises(UnreachableError, match="there is no kubeconfig"):
        find(str(home / "missing"), None, None, {})
    with pytest.raises(UnreachableError, match="no context is chosen"):
        find(None, None, None, {})


def test_damaged_data_is_named(home: Path) -> None:
    found = find(str(config(home / "config", a={"client-key-data": "%%%"})), None, None, {})
    with pytest.raises(UnreachableError, match="client-key-data in the kubeconfig is no base64"):
        found.credentials()


def test_a_pod_without_a_kubeconfig_uses_its_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = home / "account"
    account.mkdir()
    for name, text in (("namespace", "team-a\n"), ("ca.crt", "CA"), ("token", "pods")):
        (account / name).write_text(text)
    monkeypatch.setattr(kubeconfig, "_POD", account)
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found: Access = find(None, None, None, environment)
    assert (found.server, found.namespace, found.authority) == ("https://[fd00::1]:443", "team-a", b"CA")
    assert found.credentials().token == "pods"
    assert (
        find(None, None, None, environment | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}).server
        == "https://10.0.0.1:443"
    )
    config(home / ".kube/config", a={"token": "mine"})
    assert find(None, None, None, environment).credentials().token == "mine"


def test_what_is_told_to_a_program_holds_no_secret(home: Path) -> None:
    body = 'print(json.dumps({"status": {"token": os.environ["KUBERNETES_EXEC_INFO"]}}))'
    user = {"exec": program(home, body), "token": "mine"}
    told = find(str(config(home / "config", a=user)), None, None, {}).credentials().token
    assert json.loads(str(told))["spec"] == {
        "interactive": False,
        "cluster": {"server": "https://here:6443/"},
    }
