"""`kubectl rollway` as a process against a real API server; the test plays the operator."""

import base64
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_testing.controlplane import ControlPlane
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.plugin import Plugin
from rollway_testing.processes import free_port
from rollway_testing.waiting import eventually

from .conftest import NewKubeconfig

Fraud = dict[str, Any]

VERBS = {
    "promote": "fraud-8d1a22c0",
    "abort": "fraud-8d1a22c0",
    "undo": "fraud-7c9f0a1b",
    "pause": "fraud-7c9f0a1b",
    "resume": "fraud-7c9f0a1b",
    "restart": "fraud-7c9f0a1b",
    "ack": "fraud-7c9f0a1b",
}


def annotations(api: Kubernetes, namespace: str) -> dict[str, str]:
    found = api.get("ModelDeployment", "fraud", namespace)
    assert found
    return dict(found["metadata"].get("annotations", {}))


def hear(api: Kubernetes, namespace: str, verb: str, *, reason: str, says: str) -> None:
    """Do as the operator does once a verb is there: remember it, then tell what came of it."""
    key = f"rollway.dev/{verb}"
    value = eventually(lambda: annotations(api, namespace).get(key), within=30, what="the verb is written")
    found = api.get("ModelDeployment", "fraud", namespace)
    assert found
    assert value
    api.set_status("ModelDeployment", "fraud", namespace, found["status"] | {"lastHandled": {verb: value}})
    about = {
        "apiVersion": "rollway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "name": "fraud",
        "namespace": namespace,
    }
    api.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"fraud.{verb}", "namespace": namespace},
            "involvedObject": about | {"uid": found["metadata"]["uid"]},
            "type": "Normal",
            "reason": reason,
            "message": f"{key}: {value}: {says}",
        }
    )


def test_get_and_status_show_what_the_api_server_holds(plugin: Plugin, fraud: Fraud, namespace: str) -> None:
    listed = plugin.run("get")
    assert listed.returncode == 0, listed.stderr
    header, line = listed.stdout.splitlines()
    assert header.split() == ["NAME", "MODEL", "STABLE", "CANARY", "WEIGHT", "READY", "PHASE", "AGE"]
    assert line.split()[:6] == ["fraud", "fraud-detector", "12", "13", "True", "Progressing"]
    everywhere = plugin.run("get", "--all-namespaces").stdout.splitlines()
    assert [namespace, "fraud"] in [row.split()[:2] for row in everywhere]

    shown = plugin.run("status", "fraud")
    assert shown.returncode == 0, shown.stderr
    assert f"fraud  {namespace}  Progressing" in shown.stdout
    assert "stable  v12  fraud-7c9f0a1b  2 ready" in shown.stdout
    assert "canary  v13  fraud-8d1a22c0  0 ready" in shown.stdout
    assert "previous  v11  fraud-55aa55aa" in shown.stdout


def test_programs_read_json_and_yaml(plugin: Plugin, fraud: Fraud) -> None:
    got = json.loads(plugin.run("get", "fraud", "-o", "json").stdout)
    assert got["metadata"]["uid"] == fraud["metadata"]["uid"]
    status = json.loads(plugin.run("status", "fraud", "-o", "json").stdout)
    assert (status["status"], status["pods"]) == (fraud["status"], [])
    history = yaml.safe_load(plugin.run("history", "fraud", "-o", "yaml").stdout)
    assert [(entry["version"], entry["now"]) for entry in history] == [
        ("12", "stable"),
        ("11", "kept, served"),
    ]
    target = json.loads(plugin.run("resolve", "fraud", "-o", "json").stdout)
    assert (target["targetVersion"], target["onItsWay"], target["serves"]) == ("13", True, False)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_writes_its_annotation_and_nothing_else(
    plugin: Plugin, api: Kubernetes, namespace: str, fraud: Fraud, verb: str
) -> None:
    done = plugin.run(verb, "fraud", "--no-wait")
    assert done.returncode == 0, done.stderr
    found = api.get("ModelDeployment", "fraud", namespace)
    assert found
    ((key, value),) = found["metadata"]["annotations"].items()
    assert key == f"rollway.dev/{verb}"
    assert re.fullmatch(rf"{VERBS[verb]}/[0-9a-f]{{6}}", value)
    assert (found["spec"], found["status"]) == (fraud["spec"], fraud["status"])
    assert found["metadata"]["generation"] == fraud["metadata"]["generation"]


def test_undo_goes_to_the_revision_that_the_api_server_keeps(
    plugin: Plugin, api: Kubernetes, namespace: str, fraud: Fraud
) -> None:
    status = {key: value for key, value in fraud["status"].items() if key != "canary"}
    api.set_status("ModelDeployment", "fraud", namespace, None)
    api.set_status("ModelDeployment", "fraud", namespace, status)
    assert plugin.run("undo", "fraud", "--no-wait").returncode == 0
    assert annotations(api, namespace)["rollway.dev/undo"].startswith("fraud-55aa55aa/")


def test_a_verb_prints_what_the_operator_says(
    plugin: Plugin, api: Kubernetes, namespace: str, fraud: Fraud
) -> None:
    with plugin.start("abort", "fraud") as process:
        hear(api, namespace, "abort", reason="VerbHandled", says="v13 is aborted")
        told, aside = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "v13 is aborted\n")
    assert aside == f"fraud: rollway.dev/abort={annotations(api, namespace)['rollway.dev/abort']}\n"


def test_a_verb_that_the_operator_ignores_exits_with_1(
    plugin: Plugin, api: Kubernetes, namespace: str, fraud: Fraud
) -> None:
    with plugin.start("promote", "fraud") as process:
        hear(api, namespace, "promote", reason="VerbIgnored", says="ignored: nothing holds it")
        told, aside = process.communicate(timeout=60)
    assert (process.returncode, told) == (1, "")
    assert aside.endswith("Error: the operator did nothing: ignored: nothing holds it\n")


def test_a_wait_that_does_not_come_in_time_exits_with_4(plugin: Plugin, fraud: Fraud) -> None:
    done = plugin.run("wait", "fraud", "--version", "13", "--timeout", "1s")
    assert done.returncode == 4
    assert "Error: not promoted within 1s: v13: waiting for the first pod" in done.stderr


def test_a_wait_ends_once_the_version_serves(
    plugin: Plugin, api: Kubernetes, namespace: str, fraud: Fraud
) -> None:
    with plugin.start("wait", "fraud", "--version=13", "--timeout=1m") as process:
        assert process.stderr
        assert "waiting for the first pod" in process.stderr.readline()
        status = {key: value for key, value in fraud["status"].items() if key != "canary"}
        status["stable"] = {"revision": "fraud-8d1a22c0", "version": "13", "readyReplicas": 2}
        api.set_status("ModelDeployment", "fraud", namespace, None)
        api.set_status("ModelDeployment", "fraud", namespace, status)
        told, _ = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "v13 serves (fraud-8d1a22c0)\n")


def test_watching_goes_on_until_it_is_interrupted(
    plugin: Plugin, api: Kubernetes, namespace: str, fraud: Fraud
) -> None:
    with plugin.start("status", "fraud", "--watch") as process:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        assert "Progressing" in next(lines)
        api.set_status("ModelDeployment", "fraud", namespace, fraud["status"] | {"phase": "Degraded"})
        assert any("Degraded" in line for line in lines)
        process.send_signal(signal.SIGINT)
        _, aside = process.communicate(timeout=60)
    assert (process.returncode, aside) == (0, "")


def test_what_is_not_there_exits_with_3(plugin: Plugin) -> None:
    done = plugin.run("status", "nothing")
    assert done.returncode == 3
    assert done.stderr == 'Error: modeldeployments.rollway.dev "nothing" not found\n'


@pytest.mark.parametrize("command", [["get"], ["status", "fraud"], ["wait", "fraud"], ["undo", "fraud"]])
def test_an_api_server_that_is_not_there_exits_with_5(kubeconfig: NewKubeconfig, command: list[str]) -> None:
    nowhere = kubeconfig("nowhere", cluster={"server": f"https://127.0.0.1:{free_port()}"})
    done = Plugin(nowhere).run(*command)
    assert done.returncode == 5
    assert re.fullmatch(
        r"Error: cannot reach https://127\.0\.0\.1:\d+: .*Connection refused.*\n", done.stderr
    )


def test_an_api_server_that_is_another_is_not_trusted(kubeconfig: NewKubeconfig) -> None:
    named = kubeconfig("named", cluster={"tls-server-name": "elsewhere.example"})
    done = Plugin(named).run("get")
    assert done.returncode == 5
    assert "certificate verify failed" in done.stderr
    unchecked = kubeconfig(
        "unchecked", cluster={"tls-server-name": "elsewhere.example", "insecure-skip-tls-verify": True}
    )
    assert Plugin(unchecked).run("get").returncode == 0


def test_who_may_not_is_told_and_exits_with_5(
    kubeconfig: NewKubeconfig, namespace: str, fraud: Fraud
) -> None:
    nobody = Plugin(kubeconfig("nobody", user={"as": "nobody"}))
    done = nobody.run("status", "fraud")
    assert done.returncode == 5
    assert 'User "nobody" cannot get resource "modeldeployments"' in done.stderr
    assert nobody.run("pause", "fraud").returncode == 5


def test_a_program_of_the_kubeconfig_logs_in(
    plane: ControlPlane, kubeconfig: NewKubeconfig, tmp_path: Path
) -> None:
    user = yaml.safe_load(plane.kubeconfig.read_text())["users"][0]["user"]
    status = {
        field: _content(user, key)
        for key, field in (("client-certificate", "clientCertificateData"), ("client-key", "clientKeyData"))
    }
    told = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    answer = tmp_path / "credential.json"
    answer.write_text(json.dumps(told))
    file = kubeconfig("by-program")
    document = yaml.safe_load(file.read_text())
    program = {"apiVersion": "client.authentication.k8s.io/v1", "command": "cat", "args": [str(answer)]}
    document["users"][0]["user"] = {"exec": program}
    file.write_text(yaml.safe_dump(document))
    done = Plugin(file).run("get")
    assert done.returncode == 0, done.stderr


def _content(user: dict[str, str], key: str) -> str:
    if key in user:
        return Path(user[key]).read_text()
    return base64.b64decode(user[f"{key}-data"]).decode()


def test_lint_has_the_api_server_check_what_only_it_can(plugin: Plugin, fraud: Fraud, tmp_path: Path) -> None:
    resources = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
    spec = {"model": {"name": "another", "alias": "champion"}, "predictor": {"resources": resources}}
    head = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelDeployment"}
    file = tmp_path / "fraud.yaml"
    file.write_text(yaml.safe_dump({**head, "metadata": {"name": "fraud"}, "spec": spec}, sort_keys=False))
    assert plugin.run("lint", str(file)).returncode == 0
    done = plugin.run("lint", "--server", str(file))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{file}:7: spec.model.name: name is immutable; create a new ModelDeployment",
        f"{file}:10: spec.predictor.resources: each request must be at most the limit of the same name",
    ]
    new = tmp_path / "new.yaml"
    new.write_text(yaml.safe_dump({**head, "metadata": {"name": "new"}, "spec": fraud["spec"]}))
    done = plugin.run("lint", "--server", str(new))
    assert (done.returncode, done.stdout) == (0, "1 object: no problem found\n"), done.stderr
    assert plugin.run("get", "new").returncode == 3


@pytest.fixture
def programs(plane: ControlPlane, tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has kubectl and the plugin's two programs, as pip would install them."""
    for name, module in (
        ("kubectl-rollway", "kubectl_rollway"),
        ("kubectl_complete-rollway", "kubectl_rollway.completion"),
    ):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"PATH": os.pathsep.join([str(tmp_path), str(plane.programs), os.environ["PATH"]])}


def test_kubectl_finds_the_plugin_and_completes_it(
    plugin: Plugin, programs: dict[str, str], fraud: Fraud
) -> None:
    def kubectl(*words: str) -> str:
        return subprocess.run(
            ["kubectl", *words],
            env=plugin.environment() | programs,
            check=True,
            capture_output=True,
            text=True,
            timeout=90,
        ).stdout

    assert "fraud-detector" in kubectl("rollway", "get")
    assert kubectl("__complete", "rollway", "status", "").splitlines() == [
        "fraud\tfraud-detector v12 Progressing",
        ":4",
    ]
    assert "fraud-55aa55aa\tv11" in kubectl("__complete", "rollway", "undo", "fraud", "--to", "")
    assert kubectl("__complete", "rollway", "wait", "fraud", "--for", "p").splitlines() == ["promoted", ":4"]
