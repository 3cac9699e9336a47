import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from rollway_operator.registries import (
    RegisteredVersion,
    RegistryError,
    UnreachableError,
    UnusableAnswerError,
    VersionNotFoundError,
)
from rollway_operator.registries.mlflow import LARGEST_ANSWER, MLflowRegistry
from rollway_testing.clock import without_waiting
from rollway_testing.fake_mlflow import FakeMLflow


async def nobody() -> None:
    return None


def asked(fake: FakeMLflow, uri: str = "http://mlflow:5000") -> MLflowRegistry:
    return MLflowRegistry("default", uri, nobody, transport=fake.transport)


class Streaming(httpx.AsyncBaseTransport):
    """Hands an answer over as it comes; MockTransport reads it whole before."""

    def __init__(self, chunks: Callable[[], AsyncIterator[bytes]]) -> None:
        self._chunks = chunks

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=self._chunks(), headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("status", "content_type", "body", "error", "message"),
    [
        (
            500,
            "application/json",
            '{"error_code": "INTERNAL_ERROR"}',
            UnreachableError,
            "answered with status 500",
        ),
        (503, "text/html", "<html>", UnreachableError, "answered with status 503"),
        (429, "application/json", "{}", UnreachableError, "answered with status 429"),
        (404, "text/html", "<!doctype html>", UnreachableError, "answered with status 404"),
        (
            200,
            "text/html",
            "<html>log in</html>",
            UnreachableError,
            "answered with something other than JSON",
        ),
        (200, "text/plain", "{}", UnreachableError, "answered with something other than JSON"),
        (401, "text/plain", "", UnreachableError, "refused the operator's credentials (401)"),
        (
            403,
            "text/plain",
            "Invalid Host header",
            UnusableAnswerError,
            "refused the operator's request (403)",
        ),
        (400, "application/json", '{"error_code": "BAD_REQUEST"}', UnusableAnswerError, "it has status 400"),
        (200, "application/json", "", UnusableAnswerError, "it is not what MLflow answers"),
        (200, "application/json", "<html>", UnusableAnswerError, "it is not what MLflow answers"),
        (200, "application/json", "[]", UnusableAnswerError, "it is not what MLflow answers"),
        (
            200,
            "application/json",
            '{"registered_model": {"name": 7}}',
            UnusableAnswerError,
            "is not what MLflow answers",
        ),
        (200, "application/json", '{"a":' * 100_000, UnusableAnswerError, "it is not what MLflow answers"),
        (200, "application/json", b"\xff\xfe", UnusableAnswerError, "it is not what MLflow answers"),
        (
            200,
            "application/json",
            " " * (LARGEST_ANSWER + 1),
            UnusableAnswerError,
            "it answered with more than 1024 KiB",
        ),
        (
            200,
            "application/json",
            '{"registered_model": {"name": "b"}}',
            UnusableAnswerError,
            "it described another",
        ),
    ],
)
@without_waiting
async def test_an_answer_that_is_no_answer_is_one_clear_sentence(
    status: int, content_type: str, body: str | bytes, error: type[RegistryError], message: str
) -> None:
    fake = FakeMLflow()
    fake.answer_with(status, body, content_type)
    with pytest.raises(error) as failure:
        await asked(fake).aliases("fraud")
    assert message in str(failure.value)
    assert "'default'" in str(failure.value)
    assert str(failure.value).isprintable()


@without_waiting
async def test_a_redirect_is_not_followed() -> None:
    fake = FakeMLflow()
    fake.answer_with(302, "", location="http://169.254.169.254/latest/meta-data")
    with pytest.raises(UnreachableError, match="status 302, a redirect, which is never followed"):
        await asked(fake).aliases("fraud")
    assert [request.url.host for request in fake.seen] == ["mlflow"]


@without_waiting
async def test_an_answer_without_end_is_cut_off_at_its_largest_size() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    registry = MLflowRegistry("default", "http://mlflow:5000", nobody, transport=Streaming(endless))
    with pytest.raises(UnusableAnswerError, match="answered with more than"):
        await registry.aliases("fraud")
    assert sent <= LARGEST_ANSWER + 65536


@without_waiting
async def test_an_answer_that_trickles_is_cut_off_at_the_time_out() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(1)
            yield b" "

    registry = MLflowRegistry("default", "http://mlflow:5000", nobody, transport=Streaming(trickle))
    with pytest.raises(UnreachableError, match="did not answer within 10 s"):
        await registry.aliases("fraud")


@without_waiting
async def test_a_compressed_answer_is_not_unpacked() -> None:
    fake = FakeMLflow()
    fake.answer_with(200, b"", **{"content-encoding": "br"})
    with pytest.raises(UnusableAnswerError, match="compressed"):
        await asked(fake).aliases("fraud")


@without_waiting
async def test_a_server_under_a_path_is_asked_under_that_path() -> None:
    fake = FakeMLflow()
    fake.register("fraud", "1", "s3://models/1")
    await asked(fake, "http://gateway/ml/flow/").aliases("fraud")
    assert str(fake.seen[0].url) == "http://gateway/ml/flow/api/2.0/mlflow/registered-models/get?name=fraud"


@without_waiting
async def test_a_name_with_strange_characters_stays_one_parameter() -> None:
    fake = FakeMLflow()
    fake.register("a b&version=2", "1", "s3://models/1")
    assert (await asked(fake).version("a b&version=2", "1")).uri == "s3://models/1"


@without_waiting
async def test_a_version_is_described_and_its_uri_asked_for_once() -> None:
    fake = FakeMLflow()
    fake.register("fraud", "1", "s3://models/1")
    registry = asked(fake)
    for _ in range(3):
        assert await registry.version("fraud", "1") == RegisteredVersion("fraud", "1", "run", "s3://models/1")
    assert fake.requests == {"model-versions/get": 3, "model-versions/get-download-uri": 1}


@without_waiting
async def test_a_version_deleted_between_two_requests_is_not_found() -> None:
    fake = FakeMLflow()
    fake.register("fraud", "1", "s3://models/1")
    registry = asked(fake)

    async def deleted_meanwhile(request: httpx.Request) -> httpx.Response:
        fake.recover()
        body = {"model_version": {"name": "fraud", "version": "1", "creation_timestamp": 7}}
        fake.delete("fraud", "1")
        return httpx.Response(200, content=json.dumps(body), headers={"content-type": "application/json"})

    fake.instead = deleted_meanwhile
    with pytest.raises(VersionNotFoundError, match="has no version 1 of model 'fraud'"):
        await registry.version("fraud", "1")
