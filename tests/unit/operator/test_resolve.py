import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rollway_operator.api.v1alpha1 import LabelSelector, ModelDeployment, ModelRegistry
from rollway_operator.domain import ArtifactSource, ModelVersion, Resolution
from rollway_operator.registries import (
    CABundleInvalidError,
    CABundleMissingError,
    Credentials,
    CredentialsMissingError,
    UnreachableError,
)
from rollway_operator.registries.mlflow import MLflowRegistry
from rollway_operator.registries.shared import Health
from rollway_operator.resolve import (
    Resolver,
    SourceNotPermittedError,
    artifact_source,
    registry_status,
    selects,
)
from rollway_testing.clock import without_waiting
from rollway_testing.fake_mlflow import FakeMLflow

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def registry(name: str = "default", **spec: Any) -> ModelRegistry:
    body = {"mlflow": {"trackingURI": "http://mlflow:5000"}, "artifacts": [{"prefix": "s3://models/"}]} | spec
    return ModelRegistry.of(
        {"kind": "ModelRegistry", "metadata": {"name": name, "generation": 1}, "spec": body}
    )


def deployment(current: str | None = None, namespace: str = "team-a", **model: Any) -> ModelDeployment:
    follow = model or {"alias": "champion"}
    status = {"model": {"name": "fraud", "targetVersion": current}} if current else {}
    return ModelDeployment.of(
        {
            "kind": "ModelDeployment",
            "metadata": {"name": "fraud", "namespace": namespace},
            "spec": {"model": {"name": "fraud"} | follow},
            "status": status,
        }
    )


class World:
    """A resolver between a fake MLflow and a cluster that is a few dicts."""

    def __init__(self, *registries: ModelRegistry) -> None:
        self.mlflow = FakeMLflow()
        self.mlflow.register("fraud", "1", "s3://models/fraud/1", "champion")
        self.registries = {one.metadata.name: one for one in registries or (registry(),)}
        self.labels: dict[str, Mapping[str, str]] = {}
        self.secrets: dict[str, Mapping[str, str]] = {}
        self.secret_reads: Counter[str] = Counter()
        self.config_maps: dict[str, Mapping[str, str]] = {}
        self.resolver = Resolver(self._registry, self._labels, self._secret, self._config_map, self._connect)

    async def resolve(self, one: ModelDeployment | None = None) -> Resolution:
        return await self.resolver.resolve(one or deployment(current="1"))

    async def passes_until(self, good: Callable[[Resolution], bool]) -> None:
        resolution = await self.resolve()
        while not good(resolution):
            await asyncio.sleep(resolution.poll_in.total_seconds())
            resolution = await self.resolve()

    async def _registry(self, name: str) -> ModelRegistry | None:
        return self.registries.get(name)

    async def _labels(self, namespace: str) -> Mapping[str, str] | None:
        return self.labels.get(namespace)

    async def _secret(self, name: str) -> Mapping[str, str] | None:
        self.secret_reads[name] += 1
        return self.secrets.get(name)

    async def _config_map(self, name: str) -> Mapping[str, str] | None:
        return self.config_maps.get(name)

    def _connect(
        self,
        name: str,
        uri: str,
        credentials: Callable[[], Awaitable[Credentials | None]],
        ca_bundle: Callable[[], Awaitable[str | None]],
    ) -> MLflowRegistry:
        return MLflowRegistry(name, uri, credentials, ca_bundle, self.mlflow.transport)


# ------------------------------------------------------------------------------------------------ what is resolved


@without_waiting
async def test_an_alias_resolves_to_the_version_it_names() -> None:
    world = World()
    resolution = await world.resolve()
    assert resolution.reason == "Resolved"
    assert resolution.message == "alias 'champion' of 'fraud' is version 1"
    assert resolution.version == ModelVersion("fraud", "1", "run", "s3://models/fraud/1")
    assert resolution.source == ArtifactSource("s3://models/")
    assert resolution.confirmed


@without_waiting
async def test_a_pinned_version_is_not_asked_for_by_alias() -> None:
    world = World()
    resolution = await world.resolve(deployment(version="1"))
    assert resolution.version == ModelVersion("fraud", "1", "run", "s3://models/fraud/1")
    assert world.mlflow.requests == {"model-versions/get": 1, "model-versions/get-download-uri": 1}


@pytest.mark.parametrize(
    ("model", "reason", "message"),
    [
        ({"alias": "nobody"}, "AliasNotFound", "model 'fraud' has no alias 'nobody'"),
        ({"version": "9"}, "VersionNotFound", "registry 'default' has no version 9 of model 'fraud'"),
        ({"name": "gone", "alias": "champion"}, "ModelNotFound", "registry 'default' has no model 'gone'"),
    ],
)
@without_waiting
async def test_what_the_registry_lacks_is_said_by_name(
    model: dict[str, str], reason: str, message: str
) -> None:
    resolution = await World().resolve(deployment(**model))
    assert (resolution.reason, resolution.version) == (reason, None)
    assert resolution.message.startswith(message)
    assert "spec.model." in resolution.message


@without_waiting
async def test_a_version_that_is_still_being_registered_is_not_taken() -> None:
    world = World()
    world.mlflow.versions["fraud"]["1"].status = "PENDING_REGISTRATION"
    resolution = await world.resolve()
    assert (resolution.reason, resolution.version) == ("VersionNotReady", None)


# ---------------------------------------------------------------------------------------------- how much is asked


@without_waiting
async def test_many_followers_of_one_model_cost_one_request_a_poll_and_one_a_version() -> None:
    world = World()
    followers = [world.resolve(deployment(current="1", namespace=f"team-{n}")) for n in range(50)]
    assert {resolution.reason for resolution in await asyncio.gather(*followers)} == {"Resolved"}
    assert world.mlflow.requests == {
        "registered-models/get": 1,
        "model-versions/get": 1,
        "model-versions/get-download-uri": 1,
    }


@without_waiting
async def test_an_hour_of_passes_asks_once_a_poll_interval() -> None:
    world = World()
    for _ in range(360):
        await world.resolve()
        await asyncio.sleep(10)
    assert 110 <= world.mlflow.requests["registered-models/get"] <= 121
    assert world.mlflow.requests["model-versions/get"] == world.mlflow.requests["registered-models/get"]
    assert world.mlflow.requests["model-versions/get-download-uri"] == 1


@without_waiting
async def test_the_next_pass_comes_when_the_answer_is_too_old() -> None:
    world = World()
    await world.resolve()
    await asyncio.sleep(12)
    resolution = await world.resolve()
    assert timedelta(seconds=17) < resolution.poll_in <= timedelta(seconds=18)


@without_waiting
async def test_what_is_missing_is_asked_for_once_a_poll_however_many_want_it() -> None:
    world = World()
    await asyncio.gather(*(world.resolve(deployment(version="9", namespace=f"team-{n}")) for n in range(20)))
    await world.resolve(deployment(version="9"))
    assert world.mlflow.requests == {"model-versions/get": 1}


@without_waiting
async def test_a_pass_that_is_cancelled_takes_nobodys_answer_away() -> None:
    world = World()
    first = asyncio.create_task(world.resolve())
    second = asyncio.create_task(world.resolve())
    await asyncio.sleep(0.001)
    first.cancel()
    assert (await second).reason == "Resolved"
    assert world.mlflow.requests["registered-models/get"] == 1


@without_waiting
async def test_a_version_number_given_again_has_its_uri_asked_for_again() -> None:
    world = World()
    await world.resolve()
    world.mlflow.delete("fraud", "1")
    world.mlflow.register("fraud", "1", "s3://models/fraud/other", "champion").created = 2000
    await asyncio.sleep(31)
    resolution = await world.resolve()
    assert resolution.version is not None
    assert resolution.version.uri == "s3://models/fraud/other"
    assert not resolution.confirmed


# ----------------------------------------------------------------------------------- a changed target is read twice


@without_waiting
async def test_the_first_version_ever_counts_at_once() -> None:
    assert (await World().resolve(deployment())).confirmed


@without_waiting
async def test_a_moved_alias_counts_once_it_was_read_again_after_five_seconds() -> None:
    world = World()
    world.mlflow.register("fraud", "2", "s3://models/fraud/2", "champion")
    first = await world.resolve()
    assert first.version is not None
    assert first.version.version == "2"
    assert not first.confirmed
    assert timedelta(seconds=4.9) < first.poll_in <= timedelta(seconds=5)
    await asyncio.sleep(3)
    assert not (await world.resolve()).confirmed
    assert world.mlflow.requests["registered-models/get"] == 1
    await asyncio.sleep(2)
    assert (await world.resolve()).confirmed
    assert world.mlflow.requests["registered-models/get"] == 2


@without_waiting
async def test_an_alias_that_moves_back_within_five_seconds_changes_nothing() -> None:
    world = World()
    await world.resolve()
    world.mlflow.register("fraud", "2", "s3://models/fraud/2", "champion")
    await asyncio.sleep(31)
    assert not (await world.resolve()).confirmed
    world.mlflow.point("fraud", "champion", "1")
    await asyncio.sleep(5)
    resolution = await world.resolve()
    assert resolution.version is not None
    assert resolution.version.version == "1"


@without_waiting
async def test_an_alias_that_moves_on_starts_its_five_seconds_again() -> None:
    world = World()
    world.mlflow.register("fraud", "2", "s3://models/fraud/2", "champion")
    await world.resolve()
    world.mlflow.register("fraud", "3", "s3://models/fraud/3", "champion")
    await asyncio.sleep(5)
    resolution = await world.resolve()
    assert resolution.version is not None
    assert resolution.version.version == "3"
    assert not resolution.confirmed


@without_waiting
async def test_following_is_never_later_than_a_poll_and_five_seconds() -> None:
    world = World()
    await world.resolve()
    loop = asyncio.get_running_loop()
    world.mlflow.register("fraud", "2", "s3://models/fraud/2", "champion")
    moved = loop.time()
    await world.passes_until(
        lambda found: found.version is not None and found.version.version == "2" and found.confirmed
    )
    assert loop.time() - moved < 30 + 5 + 1


# ------------------------------------------------------------------------------------------ when it does not answer


@without_waiting
async def test_a_hanging_registry_holds_a_pass_up_for_the_time_out_once() -> None:
    world = World()
    world.mlflow.hang()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    resolution = await world.resolve()
    assert resolution.reason == "RegistryUnreachable"
    assert resolution.message == "registry 'default' did not answer within 10 s"
    assert 9.9 < loop.time() - begun < 11
    for _ in range(60):
        begun = loop.time()
        assert (await world.resolve()).reason == "RegistryUnreachable"
        assert loop.time() - begun < 1.5
        await asyncio.sleep(1)


@without_waiting
async def test_many_models_of_a_hanging_registry_wait_together() -> None:
    world = World()
    world.mlflow.hang()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.gather(*(world.resolve(deployment(name=f"m{n}", alias="champion")) for n in range(100)))
    assert loop.time() - begun < 11


@without_waiting
async def test_a_registry_that_is_down_is_asked_ever_less_often() -> None:
    world = World()
    world.mlflow.refuse_connections()
    for _ in range(600):
        await asyncio.gather(*(world.resolve(deployment(name=f"m{n}", alias="champion")) for n in range(5)))
        await asyncio.sleep(1)
    assert 20 * 5 <= world.mlflow.requests["registered-models/get"] <= 50 * 5


@without_waiting
async def test_failures_at_the_same_time_are_one_failure_to_back_off_from() -> None:
    world = World()
    world.mlflow.refuse_connections()
    many = await asyncio.gather(
        *(world.resolve(deployment(name=f"m{n}", alias="champion")) for n in range(8))
    )
    assert max(resolution.poll_in for resolution in many) == timedelta(seconds=1)


@without_waiting
async def test_an_answer_that_is_young_enough_outlives_the_registry() -> None:
    world = World()
    await world.resolve()
    world.mlflow.refuse_connections()
    assert (await world.resolve(deployment(name="other", alias="a"))).reason == "RegistryUnreachable"
    assert (await world.resolve()).reason == "Resolved"


@without_waiting
async def test_a_registry_that_comes_back_is_found_within_half_a_minute_by_the_passes_it_asked_for() -> None:
    world = World()
    world.mlflow.refuse_connections()
    for _ in range(20):
        resolution = await world.resolve()
        await asyncio.sleep(resolution.poll_in.total_seconds())
    world.mlflow.recover()
    begun = asyncio.get_running_loop().time()
    await world.passes_until(lambda resolution: resolution.reason == "Resolved")
    assert asyncio.get_running_loop().time() - begun <= 31


@without_waiting
async def test_one_model_that_is_refused_stops_nobody_elses_polls() -> None:
    world = World()
    world.mlflow.register("open", "1", "s3://models/open/1", "champion")
    world.mlflow.answer_with(403, "Permission denied", "text/plain")
    assert (await world.resolve()).message == "registry 'default' refused the operator's request (403)"
    world.mlflow.recover()
    assert (await world.resolve(deployment(name="open", alias="champion"))).reason == "Resolved"


# --------------------------------------------------------------------------------------------------- who may use it

TEAM_A: dict[str, Any] = {
    "allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}
}


@without_waiting
async def test_a_missing_registry_and_a_forbidden_one_look_the_same() -> None:
    forbidden, missing = World(registry(**TEAM_A)), World(registry(name="other"))
    forbidden.labels["team-a"] = {"team": "b"}
    first, second = await forbidden.resolve(), await missing.resolve()
    assert (first.reason, first.message) == (second.reason, second.message)
    assert first.reason == "RegistryNotPermitted"
    assert first.message.startswith("there is no ModelRegistry 'default' that namespace 'team-a' may use")
    assert not forbidden.mlflow.requests


@without_waiting
async def test_a_namespace_that_the_selector_matches_may_use_the_registry() -> None:
    world = World(registry(**TEAM_A))
    world.labels["team-a"] = {"team": "a"}
    assert (await world.resolve()).reason == "Resolved"


@pytest.mark.parametrize(
    ("requirement", "matches"),
    [
        ({"key": "team", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "team", "operator": "In", "values": ["b"]}, False),
        ({"key": "absent", "operator": "In", "values": ["a"]}, False),
        ({"key": "team", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "absent", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "team", "operator": "Exists"}, True),
        ({"key": "absent", "operator": "Exists"}, False),
        ({"key": "team", "operator": "DoesNotExist"}, False),
        ({"key": "absent", "operator": "DoesNotExist"}, True),
    ],
)
def test_a_match_expression_means_what_it_means_in_kubernetes(
    requirement: dict[str, Any], matches: bool
) -> None:
    selector = LabelSelector.model_validate({"matchExpressions": [requirement]})
    assert selects(selector, {"team": "a"}) is matches


def test_an_empty_selector_matches_every_namespace() -> None:
    assert selects(LabelSelector(), {})


# ------------------------------------------------------------------------------------------------ where models lie

STORES = registry(
    artifacts=[
        {"prefix": "s3://models/", "endpoint": "http://s3:8333", "credentialsSecretName": "models-s3"},
        {"prefix": "s3://models/team-a/", "region": "eu-west-3"},
        {"prefix": "mlflow-artifacts:/", "credentialsSecretName": "mlflow-reader"},
    ]
)


@pytest.mark.parametrize(
    ("uri", "plain", "prefix"),
    [
        ("s3://models/fraud/3", "s3://models/fraud/3", "s3://models/"),
        ("s3://models/fraud/3/", "s3://models/fraud/3", "s3://models/"),
        ("s3://models/team-a/3", "s3://models/team-a/3", "s3://models/team-a/"),
        ("s3://models/team-ab/3", "s3://models/team-ab/3", "s3://models/"),
        ("s3://models/name with space/3", "s3://models/name with space/3", "s3://models/"),
        (
            "mlflow-artifacts:/1/models/m-7/artifacts",
            "mlflow-artifacts:/1/models/m-7/artifacts",
            "mlflow-artifacts:/",
        ),
        ("mlflow-artifacts://mlflow:5000/1/m-7", "mlflow-artifacts:/1/m-7", "mlflow-artifacts:/"),
    ],
)
def test_a_uri_under_a_prefix_is_permitted_by_the_longest_one(uri: str, plain: str, prefix: str) -> None:
    found, source = artifact_source(uri, STORES)
    assert (found, source.prefix) == (plain, prefix)


def test_artifacts_behind_the_tracking_server_come_with_its_address() -> None:
    _, source = artifact_source("mlflow-artifacts:/1/m-7", STORES)
    assert source.tracking_uri == "http://mlflow:5000"
    assert source.credentials_secret_name == "mlflow-reader"


def test_artifacts_in_a_bucket_come_with_its_endpoint_and_no_tracking_server() -> None:
    assert artifact_source("s3://models/fraud/3", STORES)[1] == ArtifactSource(
        "s3://models/", endpoint="http://s3:8333", credentials_secret_name="models-s3"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "models",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "https://models/fraud",
        "ftp://models/fraud",
        "gs://models/fraud",
        "runs:/abc/model",
        "models:/m-7",
        "models:/fraud/3",
        "S3://models/fraud",
        "s3:models/fraud",
        "s3:/models/fraud",
        "s3://models",
        "s3://models/",
        "s3:///models/fraud",
        "s3://models-of-others/fraud",
        "s3://other/models/fraud",
        "s3://user@models/fraud",
        "s3://models:80/fraud",
        "s3://Models/fraud",
        "s3://models//fraud",
        "s3://models/fraud//3",
        "s3://models/../other/fraud",
        "s3://models/fraud/..",
        "s3://models/fraud/../../other",
        "s3://models/./fraud",
        "s3://models/..;/fraud",
        "s3://models/%2e%2e/other",
        "s3://models/%252e%252e/other",
        "s3://models/..%2fother",
        "s3://models\\..\\other",
        "s3://models/fraud\\..",
        "s3://models/fraud\0",
        "s3://models/fraud\n",
        "s3://models/fraud\u202e3",
        "s3://models/fraud?versionId=1",
        "s3://models/fraud#3",
        " s3://models/fraud",
        "mlflow-artifacts:1/m-7",
        "mlflow-artifacts:/",
        "mlflow-artifacts:/../m-7",
        "mlflow-artifacts://other:5000/1/m-7",
        "mlflow-artifacts://mlflow:5000@other/1/m-7",
    ],
)
def test_any_other_uri_is_refused(uri: str) -> None:
    with pytest.raises(SourceNotPermittedError) as refusal:
        artifact_source(uri, STORES)
    assert str(refusal.value).isprintable()


@without_waiting
async def test_a_refused_uri_is_told_by_scheme_bucket_and_registry_and_no_more() -> None:
    world = World()
    world.mlflow.register("fraud", "2", "s3://elsewhere/secret-path/2", "champion")
    resolution = await world.resolve()
    assert resolution.reason == "SourceNotPermitted"
    assert resolution.message.startswith("registry 'default' permits no artifacts in s3://elsewhere:")
    assert "secret-path" not in resolution.message
    assert resolution.version is None


@without_waiting
async def test_a_models_uri_is_no_place_to_fetch_from() -> None:
    world = World()
    world.mlflow.register("fraud", "2", "models:/m-7", "champion")
    assert (
        await world.resolve()
    ).message == "registry 'default' gives models:/, where no artifacts are fetched from"


# ------------------------------------------------------------------------------------------------------ credentials

WITH_SECRET: dict[str, Any] = {
    "mlflow": {"trackingURI": "http://mlflow:5000", "credentialsRef": {"name": "mlflow"}}
}


@pytest.mark.parametrize(
    ("secret", "header"),
    [
        ({"username": "reader", "password": "pass\n"}, "Basic cmVhZGVyOnBhc3M="),
        ({"token": "t0ken\n"}, "Bearer t0ken"),
    ],
)
@without_waiting
async def test_the_operator_shows_what_the_secret_holds(secret: dict[str, str], header: str) -> None:
    world = World(registry(**WITH_SECRET))
    world.secrets["mlflow"] = secret
    assert (await world.resolve()).reason == "Resolved"
    assert {request.headers["authorization"] for request in world.mlflow.seen} == {header}


@pytest.mark.parametrize("secret", [None, {}, {"username": "reader"}, {"token": "line\nbreak"}])
@without_waiting
async def test_without_usable_credentials_nothing_is_asked(secret: dict[str, str] | None) -> None:
    world = World(registry(**WITH_SECRET))
    if secret is not None:
        world.secrets["mlflow"] = secret
    resolution = await world.resolve()
    assert resolution.reason == "RegistryUnreachable"
    assert "no credentials" in resolution.message
    assert not world.mlflow.requests
    assert isinstance(
        (await world.resolver.health(world.registries["default"])).failure, CredentialsMissingError
    )


@without_waiting
async def test_refused_credentials_are_read_again_at_the_next_try() -> None:
    world = World(registry(**WITH_SECRET))
    world.secrets["mlflow"] = {"token": "old"}
    world.mlflow.answer_with(401, "no", "text/plain")
    assert (await world.resolve()).message == "registry 'default' refused the operator's credentials (401)"
    world.secrets["mlflow"] = {"token": "new"}
    world.mlflow.recover()
    await asyncio.sleep(2)
    assert (await world.resolve()).reason == "Resolved"
    assert world.mlflow.seen[-1].headers["authorization"] == "Bearer new"


@without_waiting
async def test_the_secret_is_read_once_a_minute_at_most() -> None:
    world = World(registry(**WITH_SECRET))
    world.secrets["mlflow"] = {"token": "t"}
    for _ in range(60):
        await world.resolve()
        await asyncio.sleep(10)
    assert world.secret_reads["mlflow"] <= 11


# ------------------------------------------------------------------------------------------------ the CA bundle


@pytest.mark.parametrize(
    ("data", "failure", "told"),
    [
        (None, CABundleMissingError, "no CA bundle for registry 'default'"),
        ({"ca.pem": "x"}, CABundleMissingError, "has no key ca.crt"),
        ({"ca.crt": ""}, CABundleInvalidError, "holds no certificates in PEM form"),
        ({"ca.crt": "x"}, CABundleInvalidError, "holds no certificates in PEM form"),
    ],
)
@without_waiting
async def test_without_a_usable_ca_bundle_nothing_is_asked(
    data: dict[str, str] | None, failure: type[UnreachableError], told: str
) -> None:
    mlflow = {"trackingURI": "https://mlflow:5000", "caBundleRef": {"name": "mlflow-ca"}}
    world = World(registry(mlflow=mlflow))
    if data is not None:
        world.config_maps["mlflow-ca"] = data
    resolution = await world.resolve()
    assert resolution.reason == "RegistryUnreachable"
    assert told in resolution.message
    assert "spec.mlflow.caBundleRef" in resolution.message
    assert not world.mlflow.requests
    health = await world.resolver.health(world.registries["default"])
    assert isinstance(health.failure, failure)


# ------------------------------------------------------------------------------------------------ the registry object


@without_waiting
async def test_a_changed_registry_is_asked_at_its_new_address() -> None:
    world = World()
    await world.resolve()
    world.registries["default"] = registry(mlflow={"trackingURI": "http://elsewhere:5000"})
    await world.resolve()
    assert [request.url.host for request in world.mlflow.seen[-3:]] == ["elsewhere"] * 3
    await world.resolver.aclose()


@without_waiting
async def test_a_tracking_uri_that_is_no_url_is_said_to_be_none() -> None:
    world = World(registry(mlflow={"trackingURI": "http://mlflow:port"}))
    assert (await world.resolve()).message == "the trackingURI of registry 'default' is not a URL"


@without_waiting
async def test_health_comes_from_the_reads_of_the_followers() -> None:
    world = World()
    await world.resolve()
    assert await world.resolver.health(world.registries["default"]) == Health()
    assert "registered-models/search" not in world.mlflow.requests


@without_waiting
async def test_a_registry_that_nobody_follows_is_probed_once_a_poll_interval() -> None:
    world = World()
    for _ in range(30):
        assert await world.resolver.health(world.registries["default"]) == Health()
        await asyncio.sleep(5)
    assert world.mlflow.requests == {"registered-models/search": 5}


@without_waiting
async def test_health_tells_why_a_registry_does_not_answer() -> None:
    world = World()
    world.mlflow.answer_with(503, "{}")
    health = await world.resolver.health(world.registries["default"])
    assert str(health.failure) == "registry 'default' answered with status 503"


@without_waiting
async def test_a_registry_that_refuses_the_probe_is_not_reachable() -> None:
    world = World()
    world.mlflow.answer_with(403, "Invalid Host header", "text/plain")
    health = await world.resolver.health(world.registries["default"])
    assert isinstance(health.failure, UnreachableError)


def test_an_unchanged_health_leaves_the_status_as_it_is() -> None:
    first = registry_status(registry(), Health(), NOON)
    again = registry().model_copy(update={"status": type(registry().status).model_validate(first)})
    assert registry_status(again, Health(), NOON + timedelta(hours=1)) == first
    assert first["conditions"][0] == {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T12:00:00Z",
        "reason": "Reachable",
        "message": "the registry answers",
    }


def test_a_lost_registry_moves_the_transition_time_and_a_new_reason_does_not() -> None:
    def status(before: dict[str, Any], health: Health, minutes: int) -> dict[str, Any]:
        one = registry().model_copy(update={"status": type(registry().status).model_validate(before)})
        return registry_status(one, health, NOON + timedelta(minutes=minutes))

    up = status({}, Health(), 0)
    lost = status(up, Health(UnreachableError("down")), 1)
    refused = status(lost, Health(CredentialsMissingError("none")), 2)
    told = [
        (one["conditions"][0]["reason"], one["conditions"][0]["lastTransitionTime"])
        for one in (up, lost, refused)
    ]
    assert told == [
        ("Reachable", "2026-01-01T12:00:00Z"),
        ("Unreachable", "2026-01-01T12:01:00Z"),
        ("CredentialsMissing", "2026-01-01T12:01:00Z"),
    ]


# -------------------------------------------------------------------------------------------------- required tags


@without_waiting
async def test_a_version_with_every_required_tag_is_taken() -> None:
    world = World()
    world.mlflow.versions["fraud"]["1"].tags = {"validation_status": "approved", "owner": "a", "other": ""}
    required = {"validation_status": "approved", "owner": "a"}
    resolution = await world.resolve(deployment(current="1", alias="champion", requireTags=required))
    assert resolution.reason == "Resolved"


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({}, "tag 'validation_status' is missing"),
        ({"validation_status": "rejected"}, "tag 'validation_status' is 'rejected'"),
        ({"validation_status": "Approved"}, "tag 'validation_status' is 'Approved'"),
        ({"validation_status": ""}, "tag 'validation_status' is ''"),
        ({"validation_status": "a\n" + "b" * 5000}, "tag 'validation_status' is 'a\\nbbb"),
    ],
)
@without_waiting
async def test_a_missing_tag_is_told_with_what_is_wanted_and_what_was_found(
    tags: dict[str, str], found: str
) -> None:
    world = World()
    world.mlflow.versions["fraud"]["1"].tags = tags
    resolution = await world.resolve(
        deployment(alias="champion", requireTags={"validation_status": "approved"})
    )
    assert (resolution.reason, resolution.version, resolution.held_back) == ("TagMissing", None, "1")
    assert found in resolution.message
    assert "version 1 of model 'fraud'" in resolution.message
    assert "spec.model.requireTags wants 'approved'" in resolution.message
    assert len(resolution.message) < 300


@without_waiting
async def test_a_tag_set_later_lets_the_version_go_by_itself() -> None:
    world = World()
    tagged = deployment(current="1", alias="champion", requireTags={"validation_status": "approved"})
    assert (await world.resolve(tagged)).reason == "TagMissing"
    world.mlflow.versions["fraud"]["1"].tags = {"validation_status": "approved"}
    waited = 0.0
    while (resolution := await world.resolve(tagged)).reason != "Resolved":
        assert waited < 60
        waited += resolution.poll_in.total_seconds()
        await asyncio.sleep(resolution.poll_in.total_seconds())
    assert waited <= 31


@without_waiting
async def test_a_tag_that_nobody_requires_changes_nothing() -> None:
    world = World()
    before = await world.resolve()
    world.mlflow.versions["fraud"]["1"].tags = {"note": "seen"}
    await asyncio.sleep(31)
    after = await world.resolve()
    assert after.confirmed
    assert (after.message, after.version) == (before.message, before.version)
