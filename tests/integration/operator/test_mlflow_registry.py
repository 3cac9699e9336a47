"""The operator's view of a real MLflow server: what it resolves, what it costs, and what happens when it is gone."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest

from rollway_operator.api.v1alpha1 import ModelDeployment, ModelRegistry
from rollway_operator.domain import Resolution
from rollway_operator.registries import Credentials, RegistryError
from rollway_operator.registries.mlflow import MLflowRegistry
from rollway_operator.registries.shared import Health
from rollway_operator.resolve import Resolver
from rollway_testing.fake_mlflow import FakeMLflow
from rollway_testing.processes import MLflowServer

_NUMBERS = itertools.count(1)


class Writer:
    """Writes to the server what a data scientist writes, by its REST API."""

    def __init__(self, uri: str) -> None:
        self._client = httpx.Client(base_url=f"{uri}/api/2.0/mlflow/", timeout=30)

    def call(self, method: str, path: str, **body: Any) -> Any:
        answer = self._client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()

    def model(self) -> str:
        name = f"asked-{next(_NUMBERS)}"
        self.call("POST", "registered-models/create", name=name)
        return name

    def version(self, model: str, *aliases: str) -> str:
        source = f"s3://models/{model}"
        made = self.call("POST", "model-versions/create", name=model, source=source)["model_version"]
        for alias in aliases:
            self.point(model, alias, made["version"])
        version: str = made["version"]
        return version

    def logged_model_version(self, model: str) -> str:
        """Register a version as `log_model` of MLflow 3 does: its source is models:/m-…."""
        logged = self.call("POST", "logged-models", experiment_id="0", name="model")["model"]["info"][
            "model_id"
        ]
        self.call("PATCH", f"logged-models/{logged}", model_id=logged, status="LOGGED_MODEL_READY")
        made = self.call(
            "POST", "model-versions/create", name=model, source=f"models:/{logged}", model_id=logged
        )
        version: str = made["model_version"]["version"]
        return version

    def point(self, model: str, alias: str, version: str) -> None:
        self.call("POST", "registered-models/alias", name=model, alias=alias, version=version)

    def drop_alias(self, model: str, alias: str) -> None:
        self.call("DELETE", "registered-models/alias", name=model, alias=alias)

    def drop_version(self, model: str, version: str) -> None:
        self.call("DELETE", "model-versions/delete", name=model, version=version)

    def close(self) -> None:
        self._client.close()


class Counting(httpx.AsyncHTTPTransport):
    """The real network, with a count of the requests by call."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests[request.url.path.partition("/api/2.0/mlflow/")[2]] += 1
        return await super().handle_async_request(request)


class Asking:
    """A resolver whose cluster holds one ModelRegistry."""

    def __init__(self, uri: str, poll_interval: str = "1s") -> None:
        self.network = Counting()
        self.registry = ModelRegistry.of(
            {
                "metadata": {"name": "default"},
                "spec": {
                    "mlflow": {"trackingURI": uri, "pollInterval": poll_interval},
                    "artifacts": [{"prefix": "s3://models/"}, {"prefix": "mlflow-artifacts:/"}],
                },
            }
        )
        self.resolver = Resolver(self._registry, self._nothing, self._nothing, self._nothing, self._connect)

    async def resolve(self, model: str, current: str | None = None, **follow: str) -> Resolution:
        body = {
            "metadata": {"name": "fraud", "namespace": "team-a"},
            "spec": {"model": {"name": model} | (follow or {"alias": "champion"})},
            "status": {"model": {"name": model, "targetVersion": current}} if current else {},
        }
        return await self.resolver.resolve(ModelDeployment.of(body))

    async def until(
        self, good: Callable[[Resolution], bool], model: str, current: str, **follow: str
    ) -> Resolution:
        """Make passes when the resolver asks for them, until one is good."""
        async with asyncio.timeout(60):
            resolution = await self.resolve(model, current, **follow)
            while not good(resolution):
                await asyncio.sleep(resolution.poll_in.total_seconds())
                resolution = await self.resolve(model, current, **follow)
        return resolution

    async def _registry(self, name: str) -> ModelRegistry | None:
        return self.registry if name == "default" else None

    async def _nothing(self, _: str) -> Mapping[str, str] | None:
        return None

    def _connect(
        self,
        name: str,
        uri: str,
        credentials: Callable[[], Awaitable[Credentials | None]],
        ca_bundle: Callable[[], Awaitable[str | None]],
    ) -> MLflowRegistry:
        return MLflowRegistry(name, uri, credentials, ca_bundle, self.network)


@pytest.fixture
def writer(mlflow_server: MLflowServer) -> Any:
    made = Writer(mlflow_server.uri)
    yield made
    made.close()


@pytest.fixture
async def asking(mlflow_server: MLflowServer) -> AsyncIterator[Asking]:
    made = Asking(mlflow_server.uri)
    yield made
    await made.resolver.aclose()


def version_of(resolution: Resolution) -> str | None:
    return resolution.version.version if resolution.version else None


async def test_a_moved_alias_is_followed_and_counts_after_it_was_read_twice(
    asking: Asking, writer: Writer
) -> None:
    model = writer.model()
    writer.version(model, "champion")
    assert version_of(await asking.resolve(model)) == "1"
    writer.version(model, "champion")
    moved = await asking.until(lambda found: version_of(found) == "2", model, current="1")
    assert not moved.confirmed
    confirmed = await asking.until(lambda found: found.confirmed, model, current="1")
    assert version_of(confirmed) == "2"


async def test_a_deleted_alias_is_said_to_be_gone(asking: Asking, writer: Writer) -> None:
    model = writer.model()
    writer.version(model, "champion")
    await asking.resolve(model)
    writer.drop_alias(model, "champion")
    gone = await asking.until(lambda found: found.version is None, model, current="1")
    assert gone.reason == "AliasNotFound"
    assert gone.message.startswith(f"model '{model}' has no alias 'champion'")


async def test_a_deleted_version_is_said_to_be_gone(asking: Asking, writer: Writer) -> None:
    model = writer.model()
    version = writer.version(model)
    assert version_of(await asking.resolve(model, version=version)) == version
    writer.drop_version(model, version)
    gone = await asking.until(lambda found: found.version is None, model, current=version, version=version)
    assert gone.reason == "VersionNotFound"


async def test_deleting_the_version_takes_its_alias_along(asking: Asking, writer: Writer) -> None:
    model = writer.model()
    version = writer.version(model, "champion")
    await asking.resolve(model)
    writer.drop_version(model, version)
    gone = await asking.until(lambda found: found.version is None, model, current=version)
    assert gone.reason == "AliasNotFound"


async def test_a_model_that_was_never_registered_is_not_found(asking: Asking) -> None:
    assert (await asking.resolve("nobody-made-this")).reason == "ModelNotFound"


async def test_a_logged_model_resolves_to_where_its_artifacts_are(asking: Asking, writer: Writer) -> None:
    model = writer.model()
    version = writer.logged_model_version(model)
    resolution = await asking.resolve(model, version=version)
    assert resolution.version is not None
    assert resolution.version.uri.startswith("mlflow-artifacts:/0/models/m-")
    assert resolution.source is not None
    assert resolution.source.tracking_uri == asking.registry.spec.mlflow.tracking_uri


async def test_a_hundred_followers_cost_what_one_costs(mlflow_server: MLflowServer, writer: Writer) -> None:
    model = writer.model()
    writer.version(model, "champion")
    asking = Asking(mlflow_server.uri, poll_interval="10m")
    resolutions = await asyncio.gather(*(asking.resolve(model, current="1") for _ in range(100)))
    assert {resolution.reason for resolution in resolutions} == {"Resolved"}
    assert asking.network.requests == {
        "registered-models/get": 1,
        "model-versions/get": 1,
        "model-versions/get-download-uri": 1,
    }
    assert await asking.resolver.health(asking.registry) == Health()
    assert "registered-models/search" not in asking.network.requests
    await asking.resolver.aclose()


async def test_a_stopped_server_is_unreachable_and_is_found_again_when_it_is_back(
    asking: Asking, writer: Writer, mlflow_server: MLflowServer
) -> None:
    model = writer.model()
    writer.version(model, "champion")
    await asking.resolve(model)
    await asyncio.to_thread(mlflow_server.stop)
    try:
        lost = await asking.until(lambda found: found.version is None, model, current="1")
        assert (lost.reason, lost.message) == (
            "RegistryUnreachable",
            "registry 'default' cannot be reached: ConnectError",
        )
        assert (await asking.resolver.health(asking.registry)).failure is not None
    finally:
        await asyncio.to_thread(mlflow_server.start)
    found = await asking.until(lambda found: found.version is not None, model, current="1")
    assert version_of(found) == "1"
    assert await asking.resolver.health(asking.registry) == Health()


async def test_a_server_that_never_answers_holds_up_nobody_else(writer: Writer, asking: Asking) -> None:
    model = writer.model()
    writer.version(model, "champion")

    async def never(reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
        with contextlib.closing(stream):
            await reader.read()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        hanging = Asking(f"http://127.0.0.1:{port}")
        stuck = asyncio.create_task(hanging.resolve(model))
        passes = 0
        while not stuck.done():
            assert (await asking.resolve(model)).reason == "Resolved"
            passes += 1
            await asyncio.sleep(0.1)
        assert (await stuck).message == "registry 'default' did not answer within 10 s"
        assert passes > 20
        await hanging.resolver.aclose()


async def test_proxies_of_the_environment_are_not_used(
    mlflow_server: MLflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    registry = MLflowRegistry("default", mlflow_server.uri, nobody)
    await registry.ping()
    await registry.aclose()


async def nobody() -> None:
    """Show no credentials."""


async def answers_of(registry: MLflowRegistry, model: str) -> list[object]:
    """Ask for everything that can be asked, and give what was answered or which error it was."""
    told: list[object] = []
    for ask in (
        lambda: registry.aliases(model),
        lambda: registry.aliases("nobody-made-this"),
        lambda: registry.version(model, "1"),
        lambda: registry.version(model, "77"),
        lambda: registry.version(model, "one"),
        lambda: registry.version("nobody-made-this", "1"),
        registry.ping,
    ):
        try:
            told.append(await ask())
        except RegistryError as error:
            told.append((type(error), str(error)))
    return told


async def test_the_fake_server_of_the_unit_tests_answers_as_the_real_one(
    mlflow_server: MLflowServer, writer: Writer
) -> None:
    model = writer.model()
    writer.version(model, "champion", "challenger")
    fake = FakeMLflow()
    fake.register(model, "1", f"s3://models/{model}", "champion", "challenger").run_id = ""
    real = MLflowRegistry("default", mlflow_server.uri, nobody)
    imitated = MLflowRegistry("default", mlflow_server.uri, nobody, transport=fake.transport)
    assert await answers_of(imitated, model) == await answers_of(real, model)
    writer.drop_version(model, "1")
    fake.delete(model, "1")
    assert await answers_of(imitated, model) == await answers_of(real, model)
    await real.aclose()
