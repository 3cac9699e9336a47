"""Ask a Prometheus one question: the instant query of its HTTP API, and what may come instead of an answer.

    POST /api/v1/query ──► samples, or the reason why there are none

The address is the administrator's, but what answers there may be anything: redirects are not followed, proxy variables
are ignored, time, size and the number of connections are bounded, and half of an answer is none.
"""

import asyncio
import ssl
from collections.abc import Container, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rollway_operator import answers
from rollway_operator.answers import AnswerError
from rollway_operator.errors import SettingsError
from rollway_operator.telemetry import PROMETHEUS_QUERIES

SECONDS: Final = 3.0
"""How long an answer may take."""
LARGEST_ANSWER: Final = 16 * 1024 * 1024
_CONNECTIONS: Final = 8
_LONGEST_REASON: Final = 200


class ProviderError(Exception):
    """Prometheus has not answered the question; the message says why."""


@dataclass(frozen=True)
class Server:
    """A Prometheus, or what speaks like one, as the administrator named it."""

    url: str
    token_file: Path | None = None
    """Where the bearer token lies, if it wants one; read for each question, since it may change."""
    ca_file: Path | None = None
    """Certificates to trust, if not those of the system; read once."""


@dataclass(frozen=True)
class Sample:
    """One sample of an instant vector."""

    labels: Mapping[str, str]
    """The name of its metric among them, as `__name__`."""
    value: str
    """As Prometheus writes it: it may be NaN or an infinity."""

    def put_there(self, own: Container[str]) -> frozenset[tuple[str, str]]:
        """Give the labels that are not the server's `own`, but tell what was scraped, and are one for a scrape."""
        return frozenset((name, value) for name, value in self.labels.items() if name not in own)


class Prometheus:
    """Asks one Prometheus, with a bounded number of questions at a time."""

    def __init__(self, server: Server, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Connect to `server`, and to nothing else."""
        self._url = f"{server.url}/api/v1/query"
        self._token_file = server.token_file
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._client = httpx.AsyncClient(
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(SECONDS),
            limits=httpx.Limits(max_connections=_CONNECTIONS),
            verify=trusted(server.ca_file),
            transport=transport,
        )

    async def query(self, expression: str) -> list[Sample]:
        """Evaluate an expression now; its value must be an instant vector. Raises ProviderError."""
        try:
            async with asyncio.timeout(SECONDS), self._places:
                found = _samples(await self._post(expression))
        except (TimeoutError, httpx.TimeoutException) as error:
            PROMETHEUS_QUERIES.labels("timeout").inc()
            raise ProviderError(f"Prometheus did not answer within {SECONDS:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            PROMETHEUS_QUERIES.labels("error").inc()
            raise ProviderError(f"Prometheus could not be reached: {type(error).__name__}") from error
        except ProviderError:
            PROMETHEUS_QUERIES.labels("error").inc()
            raise
        PROMETHEUS_QUERIES.labels("ok").inc()
        return found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, expression: str) -> bytes:
        # Names of many pods are longer than an address may be, so it is no GET.
        headers = {"Authorization": f"Bearer {_token(self._token_file)}"} if self._token_file else {}
        async with self._client.stream(
            "POST", self._url, data={"query": expression}, headers=headers
        ) as response:
            try:
                body = await answers.body(response, LARGEST_ANSWER)
            except AnswerError as error:
                raise ProviderError(f"Prometheus {error}") from error
        if response.status_code != HTTPStatus.OK:
            raise ProviderError(_refusal(response, body))
        return body


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the certificates of a file in PEM form, without one those of the system; raises SettingsError."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"ROLLWAY_PROMETHEUS_CA_FILE: {ca_file} has no certificates that can be read; put them in PEM form into "
            "the Secret that prometheus.caSecret of the chart's values names"
        ) from error


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ProviderError("the bearer token for Prometheus cannot be read") from error
    if not token.isprintable() or not token:
        raise ProviderError("the bearer token for Prometheus is none")
    return token


# ------------------------------------------------------------------------------------------------------- the answer


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Point(_Part):
    metric: dict[str, str]
    value: tuple[float, str]


class _Vector(_Part):
    result_type: Literal["vector"] = Field(alias="resultType")
    result: list[_Point]


class _Answer(_Part):
    status: Literal["success"]
    data: _Vector
    warnings: list[str] = []


class _Refusal(_Part):
    error_type: str = Field(alias="errorType")
    error: str


def _samples(body: bytes) -> list[Sample]:
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError as error:
        raise ProviderError("Prometheus did not answer with an instant vector") from error
    if answer.warnings:
        raise ProviderError(f"Prometheus answered in part: {_line(answer.warnings[0])}")
    return [Sample(point.metric, point.value[1]) for point in answer.data.result]


def _refusal(response: httpx.Response, body: bytes) -> str:
    redirect = ", a redirect, which is never followed" if response.is_redirect else ""
    said = f"Prometheus answered with status {response.status_code}{redirect}"
    try:
        refusal = _Refusal.model_validate_json(body)
    except ValidationError:
        return said
    return f"{said}: {_line(f'{refusal.error_type}: {refusal.error}')}"


def _line(text: str) -> str:
    """Cut what somebody else wrote to one short line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_REASON]
