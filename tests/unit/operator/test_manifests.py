"""What a revision's inputs become: the pod, its settings and the objects beside it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollway_operator import manifests
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import ArtifactSource, ModelVersion, Platform, Runtime, StoredRevision
from rollway_operator.settings import Settings
from rollway_serving.settings import Settings as ServerSettings
from rollway_testing.world import RUNTIME, SOURCE

VERSION = ModelVersion("fraud", "3", "run3", "s3://models/fraud/3")


def deployment(**spec: Any) -> ModelDeployment:
    return ModelDeployment.of(
        {
            "metadata": {"name": "fraud", "namespace": "team-a", "uid": "u"},
            "spec": {"model": {"name": "fraud", "alias": "champion"}} | spec,
        }
    )


def revision(runtime: Runtime = RUNTIME, source: ArtifactSource = SOURCE, **spec: Any) -> StoredRevision:
    made = deployment(**spec)
    return manifests.new_revision(made, manifests.inputs(made, VERSION, source, runtime), runtime, ())


def fetch_of(made: StoredRevision) -> dict[str, Any]:
    [fetch] = made.template["spec"]["initContainers"]
    return dict(fetch)


def server_of(made: StoredRevision) -> dict[str, Any]:
    [server] = made.template["spec"]["containers"]
    return dict(server)


def environment(made: StoredRevision) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in fetch_of(made)["env"]}


# ----------------------------------------------------------------------------------------------- the runtime's


def test_a_runtime_that_gives_only_what_it_must_adds_nothing_to_the_pod() -> None:
    made = revision()
    assert "imagePullSecrets" not in made.template["spec"]
    assert not {"command", "lifecycle"} & server_of(made).keys()
    assert "limits" not in made.settings
    assert made.template["spec"]["terminationGracePeriodSeconds"] == 5 + 30 + 5


def test_what_a_runtime_adds_reaches_the_pod_and_the_server() -> None:
    runtime = replace(
        RUNTIME,
        server_command=("seldon-core-microservice", "Model"),
        pre_stop_seconds=10,
        image_pull_secrets=("mirror",),
        limits={"maxBodyBytes": 2048},
    )
    made = revision(runtime)
    assert made.template["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
    assert made.template["spec"]["terminationGracePeriodSeconds"] == 10 + 5 + 30 + 5
    assert server_of(made)["command"] == ["seldon-core-microservice", "Model"]
    assert server_of(made)["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    assert made.settings["limits"] == {"maxBodyBytes": 2048}


def test_the_environment_is_compared_and_told_unless_somebody_chose_otherwise() -> None:
    assert environment(revision())["ROLLWAY_ENVIRONMENT_POLICY"] == "Warn"


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"maxBodyBytes": 1024, "headerSeconds": 0.1, "bodySeconds": 0.1, "maxConcurrency": 1, "maxQueue": 0},
        {
            "maxBodyBytes": 1 << 30,
            "headerSeconds": 3600,
            "bodySeconds": 3600,
            "maxConcurrency": 1024,
            "maxQueue": 65536,
        },
    ],
)
def test_the_server_understands_the_limits_that_the_operator_takes(
    limits: dict[str, float], tmp_path: Path
) -> None:
    definition = {
        "image": "a:1",
        "fetchCommand": ["fetch"],
        "ports": {"http": 8080, "grpc": 8081, "metrics": 8082},
        "readinessPath": "/ready",
        "livenessPath": "/live",
        "drainSeconds": 5,
        "limits": limits,
    }
    file = tmp_path / "runtimes.json"
    file.write_text(json.dumps({"mlserver": definition}))
    settings = Settings.from_environment({"ROLLWAY_NAMESPACE": "rollway", "ROLLWAY_RUNTIMES_FILE": str(file)})
    made = revision(settings.runtimes["mlserver"])
    read = ServerSettings.parse(json.loads(json.dumps(made.settings))).limits
    found = (
        read.max_body_bytes,
        read.header_seconds,
        read.body_seconds,
        read.max_concurrency,
        read.max_queue,
    )
    assert found == (tuple(limits.values()) or (1 << 20, 5, 10, 16, 64))


# ------------------------------------------------------------------------------------------------ what was chosen


def test_what_nobody_chose_stands_in_no_input() -> None:
    """A newer operator's defaults must never make an old revision look different, and so restart its pods."""
    assert revision().inputs.keys() == {"model", "version", "runId", "uri", "runtime", "image", "artifacts"}
    assert revision(predictor={"replicas": 3}, networkPolicy={"enabled": False}).inputs == revision().inputs


def test_what_somebody_chose_stands_in_the_inputs_and_in_the_pod() -> None:
    toleration = {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
    made = revision(predictor={"tolerations": [toleration], "environmentPolicy": "Enforce"})
    assert made.inputs["tolerations"] == [toleration]
    assert made.inputs["environmentPolicy"] == "Enforce"
    assert made.template["spec"]["tolerations"] == [toleration]
    assert environment(made)["ROLLWAY_ENVIRONMENT_POLICY"] == "Enforce"
    assert not manifests.same_inputs(made.inputs, revision().inputs)


def test_the_smoke_test_reaches_the_server_as_numbers() -> None:
    assert revision().settings["smokeTest"] == {"source": "InputExample"}
    test = {"source": "InputExample", "maxLatency": "500ms", "tolerance": "0.001"}
    made = revision(preTraffic={"smokeTest": test})
    assert made.settings["smokeTest"] == {
        "source": "InputExample",
        "maxLatencySeconds": 0.5,
        "tolerance": 0.001,
    }
    read = ServerSettings.parse(json.loads(json.dumps(made.settings)))
    assert (read.max_latency_seconds, read.tolerance) == (0.5, 0.001)


def test_numbers_are_rendered_as_the_api_server_gives_them_back() -> None:
    made = revision(replace(RUNTIME, drain_seconds=5.0, limits={"headerSeconds": 5.0, "bodySeconds": 0.5}))
    text = manifests.config_map(deployment(), made)["data"]["settings.json"]
    assert '"drainSeconds": 5,' in text
    assert '"headerSeconds": 5' in text
    assert '"bodySeconds": 0.5' in text
    assert "5.0" not in text


def test_golden_data_are_copied_to_the_letter() -> None:
    text = '[ {"request": {"inputs": [1]},\n  "predictions": [2.50]} ]'
    spec = {"preTraffic": {"smokeTest": {"source": "ConfigMap", "configMapRef": {"name": "golden"}}}}
    made = deployment(**spec)
    chosen = manifests.inputs(made, VERSION, SOURCE, RUNTIME, text)
    stored = manifests.new_revision(made, chosen, RUNTIME, ())
    assert manifests.config_map(made, stored)["data"]["golden.json"] == text
    assert stored.settings["smokeTest"] == {"source": "ConfigMap"}
    assert "golden.json" not in manifests.config_map(made, revision())["data"]
    assert not manifests.same_inputs(chosen, manifests.inputs(made, VERSION, SOURCE, RUNTIME, text + " "))


def test_golden_data_that_no_test_asks_for_are_left_out() -> None:
    assert "golden" not in manifests.inputs(deployment(), VERSION, SOURCE, RUNTIME, "[]")


# ------------------------------------------------------------------------------------------------ what fetch alone has

ROLE = ArtifactSource(
    "s3://models/", role_arn="arn:aws:iam::123456789012:role/models", sts_endpoint="http://sts:5000"
)


def test_a_role_is_assumed_with_a_token_that_only_fetch_has() -> None:
    made = revision(source=ROLE)
    assert (
        environment(made).items()
        >= {
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/models",
            "AWS_ROLE_SESSION_NAME": made.name,
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/sts.amazonaws.com/serviceaccount/token",
            "ROLLWAY_STS_ENDPOINT": "http://sts:5000",
        }.items()
    )
    [volume] = [volume for volume in made.template["spec"]["volumes"] if "projected" in volume]
    token = {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}
    assert volume["projected"] == {"sources": [{"serviceAccountToken": token}]}
    assert made.template["spec"]["automountServiceAccountToken"] is False


def test_a_ca_bundle_is_mounted_in_fetch_alone() -> None:
    made = revision(source=replace(SOURCE, ca_bundle_name="corporate-ca"))
    assert environment(made)["ROLLWAY_CA_BUNDLE"] == "/etc/rollway-ca/ca.crt"
    [volume] = [volume for volume in made.template["spec"]["volumes"] if volume["name"] == "ca-bundle"]
    assert volume["configMap"] == {
        "name": "corporate-ca",
        "items": [{"key": "ca.crt", "path": "ca.crt"}],
        "optional": True,
    }


@pytest.mark.parametrize(
    "source",
    [
        SOURCE,
        ROLE,
        replace(ROLE, ca_bundle_name="corporate-ca"),
        ArtifactSource("mlflow-artifacts:/", tracking_uri="http://mlflow", credentials_secret_name="reader"),
    ],
    ids=["keys", "role", "role-and-ca", "mlflow"],
)
def test_the_server_sees_no_credential_of_any_kind(source: ArtifactSource) -> None:
    server = server_of(revision(source=source))
    assert "env" not in server
    assert "envFrom" not in server
    assert [mount["name"] for mount in server["volumeMounts"]] == ["model", "revision", "tmp"]


def test_a_source_comes_back_from_the_inputs_as_it_was() -> None:
    whole = ArtifactSource(
        "s3://models/",
        "http://s3:8333",
        "eu-west-3",
        None,
        None,
        ROLE.role_arn,
        "http://sts",
        "ca",
        ({"ports": [{"port": 1}]},),
    )
    for source in (whole, SOURCE, ArtifactSource("s3://models/")):
        stored = json.loads(json.dumps(revision(source=source).inputs["artifacts"]))
        assert manifests.source_of(stored) == source


def test_an_edited_registry_entry_alone_makes_no_new_revision() -> None:
    assert manifests.same_inputs(revision(source=ROLE).inputs, revision().inputs)


# ------------------------------------------------------------------------------------------------------ network policy


def test_the_network_policy_holds_for_every_pod_of_the_model() -> None:
    policy = manifests.network_policy(deployment(), [revision()], Platform({"mlserver": RUNTIME}))
    assert policy["metadata"]["name"] == "fraud"
    assert policy["spec"]["podSelector"] == {"matchLabels": {"rollway.dev/model-deployment": "fraud"}}
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["ingress"]
    assert policy["spec"]["egress"]


def test_a_stable_and_a_candidate_each_reach_what_they_fetch_from() -> None:
    revisions = [revision(), revision(source=replace(SOURCE, endpoint="http://s3:8333"))]
    policy = manifests.network_policy(deployment(), revisions, Platform({"mlserver": RUNTIME}))
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
    assert ports == [[53, 53], [443], [8333]]


# --------------------------------------------------------------------------------------------------------- pod monitor


def pod_monitor(administrators: dict[str, str] | None = None, **monitor: Any) -> Any:
    asked = {"monitoring": {"podMonitor": monitor}} if monitor else {}
    platform = Platform({"mlserver": RUNTIME}, monitor_labels=administrators or {})
    return manifests.pod_monitor(deployment(**asked), platform)


def test_a_monitor_selects_the_pods_of_one_model_and_says_what_they_are() -> None:
    spec = pod_monitor()["spec"]
    assert spec["selector"] == {"matchLabels": {"rollway.dev/model-deployment": "fraud"}}
    of_pods = revision().template["metadata"]["labels"]
    assert set(spec["podTargetLabels"]) <= of_pods.keys()
    (endpoint,) = spec["podMetricsEndpoints"]
    (server,) = revision().template["spec"]["containers"]
    assert endpoint["port"] in [port["name"] for port in server["ports"]]
    assert endpoint["honorLabels"] is False


@pytest.mark.parametrize(
    ("set_by_administrator", "asked", "found"),
    [
        ({"release": "one"}, {}, {"release": "one"}),
        ({"release": "one"}, {"team": "a"}, {"release": "one", "team": "a"}),
        ({"release": "one"}, {"release": "two"}, {"release": "two"}),
        ({}, {}, {}),
    ],
)
def test_a_monitor_has_the_administrators_labels_and_the_authors(
    set_by_administrator: dict[str, str], asked: dict[str, str], found: dict[str, str]
) -> None:
    ours = manifests.metadata_of(deployment(), "fraud")["labels"]
    assert pod_monitor(set_by_administrator, labels=asked)["metadata"]["labels"] == found | ours


def test_no_label_of_a_monitor_replaces_one_by_which_its_owner_is_known() -> None:
    ours = manifests.metadata_of(deployment(), "fraud")["labels"]
    theirs = dict.fromkeys(ours, "another")
    assert pod_monitor(theirs, labels=theirs)["metadata"]["labels"] == ours
