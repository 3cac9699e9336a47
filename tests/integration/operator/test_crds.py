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


@pytest.mark.parametrize(
    "spec",
    [
        SMALLEST,
        model(version="12"),
        model(version="12", digest=f"sha256:{'a' * 64}"),
        model(alias="champion", registryRef={"name": "default"}),
        predictor(replicas=3, timeout="250ms", nodeSelector={"gpu": "yes"}),
        predictor(resources={"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
        predictor(resources={"requests": {"cpu": 1}, "limits": {"cpu": "1500m", "nvidia.com/gpu": 1}}),
        SMALLEST | {"strategy": {"recreate": {}}},
        SMALLEST | {"preTraffic": {"smokeTest": {"source": "Disabled"}, "warmup": {"requests": 0}}},
        SMALLEST | {"revisionHistoryLimit": 0, "progressDeadlineSeconds": 60},
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
        (predictor(resources={"requests": {"cpu": "much"}}), "spec.predictor.resources"),
        (
            predictor(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}),
            "each request must be at most the limit",
        ),
        (
            predictor(resources={"requests": {"cpu": 1}, "limits": {"cpu": "500m"}}),
            "each request must be at most the limit",
        ),
        (SMALLEST | {"strategy": {}}, "set exactly one of rollingUpdate and recreate"),
        (
            SMALLEST | {"strategy": {"rollingUpdate": {}, "recreate": {}}},
            "set exactly one of rollingUpdate and recreate",
        ),
        (SMALLEST | {"preTraffic": {"smokeTest": {"source": "Golden"}}}, "spec.preTraffic.smokeTest.source"),
        (SMALLEST | {"progressDeadlineSeconds": 0}, "spec.progressDeadlineSeconds"),
        (SMALLEST | {"revisionHistoryLimit": -1}, "spec.revisionHistoryLimit"),
        (SMALLEST | {"replicas": 2}, "unknown field"),
        (SMALLEST | {"strategy": {"canary": {}}}, "unknown field"),
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
    ],
)
def test_a_registry_that_makes_no_sense_is_refused(api: Kubernetes, spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError) as refused:
        api.apply(registry(**spec), dry_run=True)
    assert why in str(refused.value)


def test_the_count_is_scaled_through_its_own_subresource(api: Kubernetes, namespace: str) -> None:
    api.create(deployment(namespace, SMALLEST))
    api.scale("ModelDeployment", "iris", namespace, 4)
    found = api.get("ModelDeployment", "iris", namespace)
    assert found is not None
    assert found["spec"]["predictor"]["replicas"] == 4
