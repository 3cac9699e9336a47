"""`kubectl rollway doctor` where everything is installed, and after one label is taken away."""

import json
from typing import Any

import pytest

from rollway_testing.plugin import Plugin
from rollway_testing.scenario import DEFAULT, Given, Scenario
from rollway_testing.waiting import eventually

Finding = dict[str, Any]


def findings(scenario: Scenario) -> dict[tuple[str, str], Finding]:
    client = scenario.world.client
    done = Plugin(client.kubeconfig).run("doctor", "--output=json", f"--context={client.context}")
    found = json.loads(done.stdout or "[]")
    assert found, done.stderr
    assert done.returncode == int(any(each["state"] == "missing" for each in found))
    return {(each["check"], each["subject"]): each for each in found}


@pytest.mark.usefixtures("monitoring")
def test_all_is_found_well_and_a_label_that_is_missing_is_named(given: Given, scenario: Scenario) -> None:
    given.a_model()
    given.a_deployment()
    model = ("scraped", f"PodMonitor of {scenario.namespace}/{DEFAULT}")

    # Given Prometheus has read the monitors, nothing is missing from Rollway nor from what is scraped here.
    eventually(
        lambda: findings(scenario).get(model, {}),
        lambda found: found.get("state") == "ok",
        within=120,
        what="the model's pods are scraped",
    )
    seen = findings(scenario)
    for check in ("definition", "operator", "lease", "prometheus"):
        assert {each["state"] for (kind, _), each in seen.items() if kind == check} == {"ok"}
    assert seen["registry", "default"]["state"] == "ok"
    servers = [each for (_, subject), each in seen.items() if subject.startswith("ServiceMonitor of ")]
    assert [each["state"] for each in servers] == ["ok", "ok"]

    # When its author gives the monitor another label, that is named once Prometheus has let the pods go.
    scenario.world.kubernetes.patch(
        "ModelDeployment",
        DEFAULT,
        scenario.namespace,
        {"spec": {"monitoring": {"podMonitor": {"labels": {"release": "another"}}}}},
    )
    found = eventually(
        lambda: findings(scenario)[model],
        lambda found: found["state"] == "missing",
        within=120,
        what="the label is missed",
    )
    assert "the label release=kube-prometheus-stack is missing" in found["says"]
