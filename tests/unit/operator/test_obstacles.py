import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from rollway_operator import obstacles
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import Failure, GatewayRef, Observed, Platform, StoredRevision
from rollway_testing.world import RUNTIME

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLATFORM = Platform(
    {"mlserver": replace(RUNTIME, batching=True), "seldon": replace(RUNTIME, name="seldon")},
    toleration_keys=("nvidia.com/gpu", "spot"),
    http_gateway=GatewayRef("traefik", "models"),
    permitted_hosts=("*.{namespace}.example.com", "models.example.com"),
)
BATCHING = {"maxBatchSize": 32, "maxLatency": "5ms"}
CASE = {"request": {"inputs": [[1.0]]}, "predictions": [2.0]}
GOLDEN: dict[str, Any] = {
    "preTraffic": {"smokeTest": {"source": "ConfigMap", "configMapRef": {"name": "golden"}}}
}


def deployment(**spec: Any) -> ModelDeployment:
    return ModelDeployment.of(
        {
            "metadata": {"name": "fraud", "namespace": "team-a", "uid": "u"},
            "spec": {"model": {"name": "fraud", "alias": "champion"}} | spec,
        }
    )


def found(golden: str | None = None, platform: Platform = PLATFORM, **spec: Any) -> Failure | None:
    return obstacles.find(deployment(**spec), Observed(NOON, golden=golden), platform)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"predictor": {"tolerations": [{"key": "spot", "operator": "Exists"}, {"key": "nvidia.com/gpu"}]}},
        {"predictor": {"nodeSelector": {"gpu": "yes", "kubernetes.io/arch": "arm64", "a" * 63: ""}}},
        {
            "predictor": {
                "resources": {
                    "requests": {"cpu": 1, "ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi"},
                    "limits": {"memory": "1Gi", "nvidia.com/gpu": 1},
                }
            }
        },
        {"predictor": {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": "1"}}}},
        {"networkPolicy": {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "shop"}}}]}},
        {"monitoring": {"podMonitor": {"enabled": False, "labels": {"release": "mine", "a.b/c": ""}}}},
        {"predictor": {"batching": BATCHING}},
        {"predictor": {"runtime": "seldon"}},
        {"route": {"hosts": ["models.example.com", "fraud.team-a.example.com"]}},
    ],
)
def test_what_the_api_server_takes_is_no_obstacle(spec: dict[str, Any]) -> None:
    assert found(**spec) is None


@pytest.mark.parametrize(
    ("spec", "reason", "told"),
    [
        (
            {"predictor": {"runtime": "triton"}},
            "RuntimeNotFound",
            ("spec.predictor.runtime: 'triton'", "(mlserver, seldon)"),
        ),
        (
            {
                "predictor": {
                    "tolerations": [{"key": "spot"}, {"key": "node-role.kubernetes.io/control-plane"}]
                }
            },
            "TolerationNotPermitted",
            (
                "spec.predictor.tolerations",
                "'node-role.kubernetes.io/control-plane'",
                "(nvidia.com/gpu, spot)",
                "modelTolerations",
            ),
        ),
        (
            {
                "analysis": {
                    "metrics": [{"name": "error-rate"}, {"name": "a", "templateRef": {"name": "refunds"}}]
                }
            },
            "TemplateNotFound",
            ("spec.analysis.metrics[1].templateRef.name: 'refunds'", "(none)", "analysis.templates"),
        ),
        (
            {"predictor": {"runtime": "seldon", "batching": BATCHING}},
            "BatchingNotSupported",
            ("spec.predictor.batching", "'seldon'", "(mlserver)"),
        ),
        (
            {"route": {"hosts": ["models.example.com", "fraud.team-b.example.com"]}},
            "HostNotPermitted",
            (
                "spec.route.hosts[1]: 'fraud.team-b.example.com'",
                "namespace 'team-a'",
                "(*.{namespace}.example.com, models.example.com)",
                "gateway.permittedHosts of the chart's values",
            ),
        ),
        (
            {"predictor": {"nodeSelector": {"my pool": "a"}}},
            "SpecInvalid",
            ("spec.predictor.nodeSelector: 'my pool'", "at most 63"),
        ),
        (
            {"predictor": {"nodeSelector": {"UPPER.example/pool": "a"}}},
            "SpecInvalid",
            ("'UPPER.example/pool'",),
        ),
        ({"predictor": {"nodeSelector": {"a" * 64: "a"}}}, "SpecInvalid", ("spec.predictor.nodeSelector",)),
        ({"predictor": {"nodeSelector": {"a\n": "a"}}}, "SpecInvalid", ("'a\\n'",)),
        (
            {
                "networkPolicy": {
                    "from": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"/": ""}}}]
                }
            },
            "SpecInvalid",
            ("spec.networkPolicy.from[1].namespaceSelector.matchLabels: '/'",),
        ),
        (
            {"monitoring": {"podMonitor": {"labels": {"my label": "a"}}}},
            "SpecInvalid",
            ("spec.monitoring.podMonitor.labels: 'my label'", "at most 63"),
        ),
        (
            {"monitoring": {"podMonitor": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}},
            "SpecInvalid",
            ("spec.monitoring.podMonitor.labels: 'app.kubernetes.io/managed-by' is Rollway's own",),
        ),
        (
            {"predictor": {"resources": {"limits": {"gpu": 1}}}},
            "SpecInvalid",
            ("spec.predictor.resources: 'gpu'", "nvidia.com/gpu"),
        ),
        (
            {"predictor": {"resources": {"requests": {"nvidia.com/gpu": 1}}}},
            "SpecInvalid",
            ("spec.predictor.resources: nvidia.com/gpu", "set limits.nvidia.com/gpu to 1"),
        ),
    ],
)
def test_an_obstacle_names_the_field_the_value_and_the_way_out(
    spec: dict[str, Any], reason: str, told: tuple[str, ...]
) -> None:
    failure = found(**spec)
    assert failure is not None
    assert failure.reason == reason
    assert [part for part in told if part not in failure.message] == []


def test_where_no_toleration_is_permitted_the_message_says_none() -> None:
    failure = found(platform=Platform({"mlserver": RUNTIME}), predictor={"tolerations": [{"key": "spot"}]})
    assert failure is not None
    assert "permits (none)" in failure.message


def test_where_no_host_is_permitted_the_message_says_none() -> None:
    failure = found(platform=replace(PLATFORM, permitted_hosts=()), route={"hosts": ["models.example.com"]})
    assert failure is not None
    assert "permits in namespace 'team-a' (none)" in failure.message


def test_a_host_without_a_gateway_is_told_that_there_is_none() -> None:
    failure = found(platform=replace(PLATFORM, http_gateway=None), route={"hosts": ["models.example.com"]})
    assert failure is not None
    assert failure.reason == "HostNotPermitted"
    for part in ("spec.route.hosts[0]", "no Gateway is configured", "gateway.http", "gateway.permittedHosts"):
        assert part in failure.message


def test_where_no_runtime_batches_the_message_says_none() -> None:
    failure = found(platform=Platform({"mlserver": RUNTIME}), predictor={"batching": BATCHING})
    assert failure is not None
    assert "(none)" in failure.message


def test_batching_of_an_unknown_runtime_is_told_as_an_unknown_runtime() -> None:
    failure = found(predictor={"runtime": "triton", "batching": BATCHING})
    assert failure is not None
    assert failure.reason == "RuntimeNotFound"


# ------------------------------------------------------------------------------------------------- golden data


def test_golden_data_that_can_be_used_are_no_obstacle() -> None:
    assert found(golden=json.dumps([CASE, CASE]), **GOLDEN) is None


def test_golden_data_are_not_looked_for_where_no_test_asks_for_them() -> None:
    assert found(golden="{", preTraffic={"smokeTest": {"source": "Disabled"}}) is None
    assert obstacles.golden_name(deployment()) is None
    assert obstacles.golden_name(deployment(**GOLDEN)) == "golden"


def test_a_missing_config_map_is_named_with_its_key_and_namespace() -> None:
    failure = found(**GOLDEN)
    assert failure is not None
    assert failure.reason == "GoldenNotFound"
    for part in ("spec.preTraffic.smokeTest.configMapRef.name", "'team-a'", "'golden'", "golden.json"):
        assert part in failure.message


@pytest.mark.parametrize(
    ("golden", "problem"),
    [
        ("", "is not JSON (line 1, column 1)"),
        ("[{]", "is not JSON (line 1, column 3)"),
        ("[" * 200_000, "is not JSON"),
        ("{}", "is not a JSON list of cases"),
        ("null", "is not a JSON list of cases"),
        ("[]", "is not a JSON list of cases"),
        (json.dumps([CASE, 1]), "has a case [1] that is not an object"),
        (json.dumps([{"predictions": [1]}]), "has a case [0] whose request is not an object"),
        (json.dumps([{"request": [1], "predictions": [1]}]), "has a case [0] whose request is not an object"),
        (json.dumps([{"request": {}, "predictions": 1}]), "has a case [0] whose predictions is not a list"),
        (json.dumps([CASE]) + " " * 256 * 1024, "bytes, more than 262144"),
    ],
)
def test_golden_data_that_cannot_be_used_say_why(golden: str, problem: str) -> None:
    failure = found(golden=golden, **GOLDEN)
    assert failure is not None
    assert failure.reason == "GoldenInvalid"
    assert problem in failure.message
    assert '[{"request": {…}, "predictions": […]}, …]' in failure.message


def test_golden_data_that_a_revision_has_already_are_not_read_again() -> None:
    revision = StoredRevision("fraud-1", 1, {"version": "1", "golden": "{"}, {}, {})
    observed = Observed(NOON, revisions=(revision,), golden="{")
    assert obstacles.find(deployment(**GOLDEN), observed, PLATFORM) is None
