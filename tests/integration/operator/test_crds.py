"""The API server refuses, by the CRDs alone, what makes no sense, and says why."""

from typing import Any

import pytest

from rollway_testing.kubernetes import ApiError, Kubernetes

SMALLEST = {"model": {"name": "fraud-detector", "alias": "champion"}}


def deployment(namespace: str, spec: dict[str, Any], name: str = "iris") -> dict[str, Any]:
    kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelDeployment"}
    return {**kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def registry(**spec: Any) -> dict[str, Any]:
    whole = {
        "mlflow": {"trackingURI": "http://mlflow:5000"},
        "artifacts": [{"prefix": "s3://models/"}],
    } | spec
    kind = {"apiVersion": "rollway.dev/v1alpha1", "kind": "ModelRegistry"}
    return {**kind, "metadata": {"name": "other"}, "spec": whole}


def model(**fields: Any) -> dict[str, Any]:
    return {"model": {"name": "fraud-detector"} | fields}


def predictor(**fields: Any) -> dict[str, Any]:
    return SMALLEST | {"predictor": fields}


def smoke_test(**fields: Any) -> dict[str, Any]:
    return SMALLEST | {"preTraffic": {"smokeTest": fields}}


def callers(*peers: dict[str, Any]) -> dict[str, Any]:
    return SMALLEST | {"networkPolicy": {"from": list(peers)}}


def block(cidr: str, *exceptions: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr} | ({"except": list(exceptions)} if exceptions else {})}


def expression(operator: str, *values: str) -> dict[str, Any]:
    said = {"key": "app", "operator": operator} | ({"values": list(values)} if values else {})
    return {"podSelector": {"matchExpressions": [said]}}


def canary(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return SMALLEST | {"strategy": {"canary": {"steps": list(steps)}}} | fields


def weight(percent: int) -> dict[str, Any]:
    return {"setWeight": percent}


def analysis(**fields: Any) -> dict[str, Any]:
    return SMALLEST | {"analysis": fields}


def metric(name: str, **fields: Any) -> dict[str, Any]:
    return analysis(metrics=[{"name": name} | fields])


def templated(name: str = "chargebacks", **fields: Any) -> dict[str, Any]:
    told = {"templateRef": {"name": "chargeback"}, "thresholdRange": {"max": "0.5"}} | fields
    return metric(name, **{key: value for key, value in told.items() if value is not None})


def scaled(**fields: Any) -> dict[str, Any]:
    return predictor(autoscaling={"minReplicas": 1, "maxReplicas": 4} | fields)


def goes_by(type_: str, **fields: Any) -> dict[str, Any]:
    return scaled(
        metrics=[{"type": "Resource", "resource": {"name": "cpu", "target": {"type": type_} | fields}}]
    )


PAUSE: dict[str, Any] = {"pause": {}}


def entry(**fields: Any) -> dict[str, Any]:
    return {"artifacts": [{"prefix": "s3://models/"} | fields]}


ROLE = "arn:aws:iam::123456789012:role/teams/a/models-reader"


@pytest.mark.parametrize(
    "spec",
    [
        SMALLEST,
        model(version="12"),
        model(version="12", digest=f"sha256:{'a' * 64}"),
        model(alias="champion", registryRef={"name": "default"}),
        predictor(replicas=3, timeout="250ms", nodeSelector={"gpu": "yes"}),
        predictor(timeout="86400s"),
        predictor(timeout="1440m"),
        predictor(resources={"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
        predictor(resources={"requests": {"cpu": 1}, "limits": {"cpu": "1500m", "nvidia.com/gpu": 1}}),
        SMALLEST | {"strategy": {"recreate": {}}},
        SMALLEST | {"strategy": {"canary": {}}},
        SMALLEST | {"strategy": {"blueGreen": {}}, "rollback": {"mode": "Manual"}},
        SMALLEST | {"strategy": {"blueGreen": {"autoPromotion": False, "previewSeconds": 0}}},
        canary(weight(0), PAUSE, weight(1), {"pause": {"duration": "24h"}}, weight(99), weight(100)),
        canary(PAUSE, weight(50), analysis={"onInconclusive": "Abort", "deadline": "1h"}),
        analysis(confidence="0.5"),
        analysis(confidence="0.9999", metrics=[{"name": "error-rate"}, {"name": "latency-p99"}]),
        metric("error-rate", compareTo="stable", compareMode="Difference", thresholdRange={"max": "0"}),
        metric("latency-p99", compareMode="Ratio", thresholdRange={"max": "1"}, minSamples=1),
        templated(),
        templated(
            interval="5m",
            count=3,
            failureLimit=0,
            inconclusiveLimit=10,
            thresholdRange={"min": "0", "max": "9"},
        ),
        templated(thresholdRange={"min": "0.98"}),
        SMALLEST | {"route": {"hosts": ["models.example.com", "a.b"]}},
        scaled(minReplicas=4),
        goes_by("Utilization", averageUtilization=70),
        goes_by("AverageValue", averageValue="500m"),
        predictor(batching={"maxBatchSize": 32, "maxLatency": "0ms"}),
        predictor(batching={"maxBatchSize": 2, "maxLatency": "5ms"}, timeout="5ms"),
        SMALLEST | {"preTraffic": {"signatureCompatibility": "Ignore"}},
        SMALLEST | {"preTraffic": {"smokeTest": {"source": "Disabled"}, "warmup": {"requests": 0}}},
        SMALLEST | {"revisionHistoryLimit": 0, "progressDeadlineSeconds": 60},
        model(alias="champion", requireTags={"validation_status": "approved", "a" * 250: "b" * 500}),
        predictor(
            tolerations=[
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                {"key": "spot", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 0},
                {"key": "spot", "operator": "Exists", "value": ""},
            ]
        ),
        predictor(environmentPolicy="Enforce"),
        smoke_test(
            source="ConfigMap", configMapRef={"name": "golden"}, maxLatency="500ms", tolerance="0.001"
        ),
        smoke_test(maxLatency="1s", tolerance="0"),
        SMALLEST | {"networkPolicy": {}},
        SMALLEST | {"networkPolicy": {"enabled": False}},
        callers({"podSelector": {}}, {"namespaceSelector": {}}, {"podSelector": {}, "namespaceSelector": {}}),
        callers(
            block("0.0.0.0/0"),
            block("10.0.0.0/8", "10.1.0.0/16", "10.2.0.1/32"),
            block("fd00::/8", "fd00:1::/32"),
        ),
        callers(
            expression("In", "a", "b"),
            expression("NotIn", "a"),
            expression("Exists"),
            expression("DoesNotExist"),
        ),
    ],
)
def test_what_makes_sense_is_accepted(api: Kubernetes, namespace: str, spec: dict[str, Any]) -> None:
    made = api.create(deployment(namespace, spec))
    assert made["spec"]["predictor"]["replicas"] == spec.get("predictor", {}).get("replicas", 1)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (model(), "set exactly one of alias and version"),
        (model(alias="champion", version="1"), "set exactly one of alias and version"),
        (model(alias="latest"), "'latest' is reserved"),
        (model(alias="v3"), "reserved by MLflow for versions"),
        (model(alias="V12"), "reserved by MLflow for versions"),
        (model(version="first"), "spec.model.version"),
        (model(version="0"), "spec.model.version"),
        (model(alias="a", digest="sha256:short"), "spec.model.digest"),
        (model(alias="a", digest=f"md5:{'a' * 64}"), "spec.model.digest"),
        ({"model": {"alias": "champion"}}, "name"),
        ({"model": {"name": "", "alias": "champion"}}, "spec.model.name"),
        (predictor(replicas=0), "spec.predictor.replicas"),
        (predictor(replicas=-1), "spec.predictor.replicas"),
        (predictor(timeout="30"), "spec.predictor.timeout"),
        (predictor(timeout="0s"), "spec.predictor.timeout"),
        (predictor(timeout="25h"), "must be at most 24h"),
        (predictor(resources={"requests": {"cpu": "much"}}), "spec.predictor.resources"),
        (
            predictor(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}),
            "each request must be at most the limit",
        ),
        (
            predictor(resources={"requests": {"cpu": 1}, "limits": {"cpu": "500m"}}),
            "each request must be at most the limit",
        ),
        (SMALLEST | {"strategy": {}}, "set exactly one of canary, blueGreen, rollingUpdate and recreate"),
        (
            SMALLEST | {"strategy": {"rollingUpdate": {}, "recreate": {}}},
            "set exactly one of canary, blueGreen",
        ),
        (
            SMALLEST | {"strategy": {"canary": {}, "rollingUpdate": {}}},
            "set exactly one of canary, blueGreen",
        ),
        (canary(), "spec.strategy.canary.steps"),
        (canary({}), "set exactly one of setWeight and pause"),
        (canary(weight(10) | PAUSE), "set exactly one of setWeight and pause"),
        (canary(weight(101)), "steps[0].setWeight"),
        (canary(weight(50), weight(10)), "weights must grow from step to step, got [50, 10]"),
        (canary(weight(10), PAUSE, weight(10)), "each weight may be set once, got [10, 10]"),
        (canary(weight(0), PAUSE, weight(100)), "set at least one weight above 0 and below 100"),
        (canary(weight(10), weight(100), PAUSE), "no pause may follow setWeight: 100"),
        (canary(weight(10), {"pause": {"duration": "0s"}}), "steps[1].pause.duration"),
        (canary(weight(10), {"pause": {"duration": "25h"}}), "must be at most 24h"),
        (SMALLEST | {"strategy": {"blueGreen": {"previewSeconds": -1}}}, "blueGreen.previewSeconds"),
        (
            SMALLEST | {"strategy": {"blueGreen": {}}, "analysis": {}},
            "analysis is for the strategy canary alone",
        ),
        (
            SMALLEST | {"strategy": {"rollingUpdate": {}}, "analysis": {}},
            "analysis is for the strategy canary alone",
        ),
        (analysis(confidence="0.49"), "must be at least 0.5 and at most 0.9999"),
        (analysis(confidence="1"), "must be at least 0.5 and at most 0.9999"),
        (analysis(confidence="95%"), 'must be a decimal number in a string, such as "0.95"'),
        (analysis(onInconclusive="Wait"), 'supported values: "Pause", "Promote", "Abort"'),
        (analysis(deadline="soon"), "spec.analysis.deadline"),
        (analysis(metrics=[]), "spec.analysis.metrics"),
        (metric("throughput"), "must be error-rate or latency-p99, or another name with a templateRef"),
        (templated("error-rate"), "must be error-rate or latency-p99, or another name with a templateRef"),
        (templated(templateRef={"name": "A b"}), "must be lower-case letters, digits and '-'"),
        (templated(templateRef={}), "templateRef.name: Required value"),
        (templated(thresholdRange=None), "a templateRef needs a thresholdRange"),
        (templated(thresholdRange={}), "set max, min or both"),
        (templated(thresholdRange={"min": "2", "max": "1"}), "min must be at most max"),
        (templated(thresholdRange={"min": "few"}), "must be a decimal number in a string"),
        (templated(minSamples=5), "minSamples are for error-rate and latency-p99 alone"),
        (templated(compareTo="stable"), "are for error-rate and latency-p99 alone"),
        (templated(compareMode="Ratio"), "are for error-rate and latency-p99 alone"),
        (templated(count=0), "count"),
        (templated(failureLimit=-1), "failureLimit"),
        (templated(interval="often"), "spec.analysis.metrics[0].interval"),
        (metric("error-rate", count=3), "are for a templateRef alone"),
        (metric("error-rate", interval="5m"), "are for a templateRef alone"),
        (metric("error-rate", thresholdRange={"min": "0", "max": "0.1"}), "min is for a templateRef alone"),
        (metric("error-rate", query="up"), "unknown field"),
        (analysis(metrics=[{"name": "error-rate"}, {"name": "error-rate"}]), "Duplicate value"),
        (metric("error-rate", compareMode="Ratio"), "error-rate is compared by Difference"),
        (metric("latency-p99", compareMode="Difference"), "latency-p99 by Ratio"),
        (metric("error-rate", compareTo="yesterday"), "compareTo"),
        (metric("error-rate", thresholdRange={"max": "1"}), "error-rate is a share of requests"),
        (metric("error-rate", thresholdRange={"max": "-0.1"}), "must be a decimal number in a string"),
        (
            metric("latency-p99", thresholdRange={"max": "0.9"}),
            "latency-p99 is a ratio: max must be at least 1",
        ),
        (metric("error-rate", minSamples=0), "minSamples"),
        (SMALLEST | {"rollback": {"mode": "Never"}}, 'supported values: "Automatic", "Manual"'),
        (SMALLEST | {"route": {"hosts": []}}, "spec.route.hosts"),
        (SMALLEST | {"route": {"hosts": ["*.example.com"]}}, "must be a host name in lower case"),
        (SMALLEST | {"route": {"hosts": ["a.b", "a.b"]}}, "Duplicate value"),
        (scaled(minReplicas=5), "minReplicas must be at most maxReplicas"),
        (scaled(minReplicas=0), "minReplicas"),
        (predictor(autoscaling={"minReplicas": 1}), "maxReplicas: Required value"),
        (goes_by("Utilization"), "set averageUtilization exactly with type Utilization"),
        (goes_by("AverageValue", averageUtilization=70), "averageValue exactly with type AverageValue"),
        (scaled(metrics=[{"type": "Pods"}]), 'supported values: "Resource"'),
        (predictor(batching={"maxBatchSize": 1, "maxLatency": "0ms"}), "batching.maxBatchSize"),
        (predictor(batching={"maxBatchSize": 2, "maxLatency": "61s"}), "batching.maxLatency"),
        (
            predictor(batching={"maxBatchSize": 2, "maxLatency": "6ms"}, timeout="5ms"),
            "batching.maxLatency must be at most timeout",
        ),
        (
            SMALLEST | {"preTraffic": {"signatureCompatibility": "Forward"}},
            'supported values: "Backward", "Ignore"',
        ),
        (SMALLEST | {"preTraffic": {"smokeTest": {"source": "Golden"}}}, "spec.preTraffic.smokeTest.source"),
        (SMALLEST | {"progressDeadlineSeconds": 0}, "spec.progressDeadlineSeconds"),
        (SMALLEST | {"revisionHistoryLimit": -1}, "spec.revisionHistoryLimit"),
        (
            model(alias="a", requireTags={"validation_status": True}),
            "spec.model.requireTags.validation_status",
        ),
        (model(alias="a", requireTags={str(n): "" for n in range(11)}), "spec.model.requireTags: Too many"),
        (model(alias="a", requireTags={"": "x"}), "a tag has 1 to 250 characters"),
        (model(alias="a", requireTags={"a" * 251: "x"}), "a tag has 1 to 250 characters"),
        (
            predictor(tolerations=[{"operator": "Exists"}]),
            "spec.predictor.tolerations[0].key: Required value",
        ),
        (predictor(tolerations=[{"key": ""}]), "spec.predictor.tolerations[0].key"),
        (predictor(tolerations=[{"key": "no key"}]), "spec.predictor.tolerations[0].key"),
        (predictor(tolerations=[{"key": "a", "operator": "Gt"}]), 'supported values: "Exists", "Equal"'),
        (
            predictor(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
            "set no value with the operator Exists",
        ),
        (
            predictor(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]),
            "set tolerationSeconds only with the effect NoExecute",
        ),
        (predictor(tolerations=[{"key": "a", "effect": "Never"}]), "spec.predictor.tolerations[0].effect"),
        (predictor(environmentPolicy="Strict"), 'supported values: "Ignore", "Warn", "Enforce"'),
        (smoke_test(source="ConfigMap"), "set configMapRef exactly with source ConfigMap"),
        (smoke_test(configMapRef={"name": "golden"}), "set configMapRef exactly with source ConfigMap"),
        (
            smoke_test(source="InputExample", configMapRef={"name": "golden"}),
            "set configMapRef exactly with source ConfigMap",
        ),
        (smoke_test(source="ConfigMap", configMapRef={"name": "Golden"}), "configMapRef.name"),
        (smoke_test(maxLatency="999999h"), "must be at most 24h"),
        (smoke_test(maxLatency="fast"), "must be a whole number above 0 with its unit"),
        (smoke_test(tolerance="-1"), 'must be a decimal number in a string, such as "0.001"'),
        (smoke_test(tolerance="1e-6"), 'must be a decimal number in a string, such as "0.001"'),
        (smoke_test(tolerance=0.1), "spec.preTraffic.smokeTest.tolerance"),
        (callers(), "spec.networkPolicy.from"),
        (callers({}), "set ipBlock alone, or podSelector, namespaceSelector or both"),
        (
            callers(block("10.0.0.0/8") | {"podSelector": {}}),
            "set ipBlock alone, or podSelector, namespaceSelector or both",
        ),
        (callers(block("10.0.0.0")), "must be a range of addresses, such as 10.0.0.0/8"),
        (callers(block("169.254.169.254/32")), "holds the metadata of cloud machines"),
        (callers(block("169.254.0.0/16")), "holds the metadata of cloud machines"),
        (callers(block("10.0.0.0/8", "11.0.0.0/16")), "must lie inside cidr and be smaller"),
        (callers(block("10.0.0.0/8", "10.0.0.0/8")), "must lie inside cidr and be smaller"),
        (callers(block("10.0.0.0/8", "here")), "must lie inside cidr and be smaller"),
        (callers(block("10.0.0.0/8", "fd00::/64")), "must lie inside cidr and be smaller"),
        (callers(expression("In")), "set values exactly with the operators In and NotIn"),
        (callers(expression("Exists", "a")), "set values exactly with the operators In and NotIn"),
        (callers({"podSelector": {"matchLabels": {"app": "not a value"}}}), "podSelector.matchLabels.app"),
        (SMALLEST | {"networkPolicy": {"enabled": "yes"}}, "spec.networkPolicy.enabled"),
        (SMALLEST | {"networkPolicy": {"egress": []}}, "unknown field"),
        (SMALLEST | {"replicas": 2}, "unknown field"),
        (SMALLEST | {"strategy": {"canary": {"weight": 10}}}, "unknown field"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    api: Kubernetes, namespace: str, spec: dict[str, Any], why: str
) -> None:
    with pytest.raises(ApiError) as refused:
        api.create(deployment(namespace, spec))
    assert why in str(refused.value)


@pytest.mark.parametrize("name", ["1iris", "a" * 41, "iris.v1", "iris-"])
def test_a_name_that_could_not_name_a_service_is_refused(api: Kubernetes, namespace: str, name: str) -> None:
    with pytest.raises(ApiError, match=r"metadata\.name"):
        api.create(deployment(namespace, SMALLEST, name))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"name": "other"}, "name is immutable"),
        ({"registryRef": {"name": "other"}}, "registryRef is immutable"),
        ({"alias": None, "version": None}, "set exactly one"),
    ],
)
def test_a_change_of_what_may_not_change_is_refused(
    api: Kubernetes, namespace: str, changed: dict[str, Any], why: str
) -> None:
    api.create(deployment(namespace, SMALLEST))
    with pytest.raises(ApiError, match=why):
        api.patch("ModelDeployment", "iris", namespace, {"spec": {"model": changed}})


@pytest.mark.parametrize(
    "changed",
    [
        {"alias": "challenger"},
        {"alias": None, "version": "3"},
        {"digest": f"sha256:{'b' * 64}"},
        {"registryRef": {"name": "default"}},
    ],
)
def test_what_may_change_is_accepted(api: Kubernetes, namespace: str, changed: dict[str, Any]) -> None:
    api.create(deployment(namespace, SMALLEST))
    api.patch("ModelDeployment", "iris", namespace, {"spec": {"model": changed}})


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"artifacts": []}, "spec.artifacts"),
        ({"artifacts": [{"prefix": "s3://models"}]}, "spec.artifacts"),
        ({"artifacts": [{"prefix": "https://models/"}]}, "spec.artifacts"),
        ({"artifacts": [{"prefix": "s3://a-b/"}, {"prefix": "s3://a-b/"}]}, "duplicate entries"),
        ({"mlflow": {"trackingURI": "mlflow:5000"}}, "spec.mlflow.trackingURI"),
        ({"mlflow": {"trackingURI": "http://mlflow", "pollInterval": "often"}}, "spec.mlflow.pollInterval"),
        ({"allowedNamespaces": {"from": "Selector"}}, "set selector exactly when from is Selector"),
        (
            {"allowedNamespaces": {"from": "All", "selector": {}}},
            "set selector exactly when from is Selector",
        ),
        ({"roleARN": "arn:aws:iam::1:role/x"}, "field not declared in schema"),
        (
            entry(roleARN=ROLE, credentialsSecretName="a"),
            "set at most one of roleARN and credentialsSecretName",
        ),
        (entry(roleARN="models-reader"), "must be a role's ARN, such as arn:aws:iam::123456789012:role/"),
        (entry(roleARN=""), "must be a role's ARN"),
        (entry(prefix="mlflow-artifacts:/", roleARN=ROLE), "roleARN is for prefixes of s3:// alone"),
        (entry(stsEndpoint="https://sts"), "set stsEndpoint only with roleARN"),
        (entry(roleARN=ROLE, stsEndpoint="sts"), "must be http:// or https:// with host and port alone"),
        (entry(caBundleRef={}), "caBundleRef.name"),
        (entry(egress=[{"ports": [{"port": 0}]}]), "egress[0].ports[0].port"),
        (entry(egress=[{"ports": [{"port": 9, "endPort": 8}]}]), "endPort must be at least port"),
        (entry(egress=[{"ports": [{"port": "http"}]}]), "egress[0].ports[0].port"),
        (entry(egress=[{"to": [block("169.254.169.254/32")]}]), "holds the metadata of cloud machines"),
        (entry(egress=[{"to": [{}]}]), "set ipBlock alone, or podSelector, namespaceSelector or both"),
        ({"mlflow": {"trackingURI": "https://mlflow", "caBundleRef": {"name": "CA"}}}, "caBundleRef.name"),
    ],
)
def test_a_registry_that_makes_no_sense_is_refused(api: Kubernetes, spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError) as refused:
        api.apply(registry(**spec), dry_run=True)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "spec",
    [
        entry(roleARN=ROLE),
        entry(roleARN="arn:aws-us-gov:iam::123456789012:role/r", stsEndpoint="https://sts.internal:8443"),
        entry(caBundleRef={"name": "store-ca"}, egress=[]),
        entry(egress=[{}, {"to": [block("0.0.0.0/0")], "ports": [{"port": 443}, {"port": 1, "endPort": 2}]}]),
        {"mlflow": {"trackingURI": "https://mlflow", "caBundleRef": {"name": "mlflow-ca"}}},
    ],
)
def test_a_registry_that_makes_sense_is_accepted(api: Kubernetes, spec: dict[str, Any]) -> None:
    api.apply(registry(**spec), dry_run=True)


def test_the_count_is_scaled_through_its_own_subresource(api: Kubernetes, namespace: str) -> None:
    api.create(deployment(namespace, SMALLEST))
    api.scale("ModelDeployment", "iris", namespace, 4)
    found = api.get("ModelDeployment", "iris", namespace)
    assert found is not None
    assert found["spec"]["predictor"]["replicas"] == 4
