"""Ask an MLflow tracking server about registered models, and believe no more of its answers than needed.

The server may hang, redirect, answer HTML, or send what somebody with write access to it wants us to read:
redirects are not followed, proxy variables are ignored, time and size are bounded, and everything but the expected
JSON is an error in one sentence. The sentences name no address, since they end in the status that tenants read.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from rollway_operator import answers, telemetry
from rollway_operator.answers import AnswerError
from rollway_operator.registries import (
    CABundleInvalidError,
    CertificateNotTrustedError,
    Credentials,
    CredentialsRefusedError,
    ModelNotFoundError,
    RegisteredVersion,
    RegistryError,
    UnreachableError,
    UnusableAnswerError,
    VersionNotFoundError,
)

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0
LARGEST_ANSWER = 1024 * 1024
CREDENTIALS_SECONDS = 60.0
"""How long credentials and trusted certificates are used before they are read again."""
_REMEMBERED_URIS = 4096
# The server closes idle connections after five seconds: let go of them first, lest a request meet the closing.
_IDLE_SECONDS = 2.0


class _Answer(BaseModel):
    """The part of an MLflow answer that matters; MLflow leaves empty fields out."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class _Alias(_Answer):
    alias: str
    version: str


class _RegisteredModel(_Answer):
    name: str
    aliases: tuple[_Alias, ...] = ()


class _RegisteredModelAnswer(_Answer):
    registered_model: _RegisteredModel


class _Tag(_Answer):
    key: str
    value: str = ""


class _ModelVersion(_Answer):
    name: str
    version: str
    creation_timestamp: int = 0
    run_id: str = ""
    status: str = "READY"
    tags: tuple[_Tag, ...] = ()


class _ModelVersionAnswer(_Answer):
    model_version: _ModelVersion


class _UriAnswer(_Answer):
    artifact_uri: str


class _SearchAnswer(_Answer):
    registered_models: tuple[_RegisteredModel, ...] = ()


class _ErrorAnswer(_Answer):
    error_code: str = ""


class _NotFoundError(RegistryError):
    """MLflow says RESOURCE_DOES_NOT_EXIST, or that the name cannot exist."""


A = TypeVar("A", bound=_Answer)
_NOT_THERE = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})


async def _nothing() -> None:
    return None


class MLflowRegistry:
    """One MLflow tracking server, named as its ModelRegistry is."""

    def __init__(
        self,
        name: str,
        tracking_uri: str,
        credentials: Callable[[], Awaitable[Credentials | None]],
        ca_bundle: Callable[[], Awaitable[str | None]] = _nothing,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Ask the server at `tracking_uri`.

        Once a minute `credentials` gives what to show it, and `ca_bundle` the certificates (PEM) to trust; None means
        the public ones.
        """
        self._name = name
        self._read_credentials = credentials
        self._read_ca_bundle = ca_bundle
        self._transport = transport
        self._authorisation: httpx.Auth | None = None
        self._trusted: str | None = None
        self._current_until = float("-inf")
        self._uris: dict[tuple[str, str], tuple[int, str]] = {}
        self._url = self._base(tracking_uri)
        self._client = self._connect(None)
        self._retired: httpx.AsyncClient | None = None

    def _connect(self, trusted: ssl.SSLContext | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url,
            verify=True if trusted is None else trusted,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(keepalive_expiry=_IDLE_SECONDS),
            transport=self._transport,
        )

    async def aliases(self, model: str) -> Mapping[str, str]:
        """Give all aliases of a model, with the version that each names."""
        try:
            answer = await self._get("registered-models/get", _RegisteredModelAnswer, name=model)
        except _NotFoundError as error:
            raise ModelNotFoundError(
                f"registry '{self._name}' has no model '{model}' (spec.model.name): register it, or create a "
                "ModelDeployment of another"
            ) from error
        registered = answer.registered_model
        self._check(registered.name == model, f"asked for model '{model}', it described another")
        return {alias.alias: alias.version for alias in registered.aliases}

    async def version(self, model: str, version: str) -> RegisteredVersion:
        """Describe one version of a model, with the URI to download it from.

        MLflow never changes where a version's artifacts are, so that is asked for once. A number is given again
        when the newest version was deleted, and then has another creation time.
        """
        try:
            answer = await self._get("model-versions/get", _ModelVersionAnswer, name=model, version=version)
            found = answer.model_version
            self._check(
                (found.name, found.version) == (model, version),
                f"asked for version {version} of '{model}', it described another",
            )
            created, uri = self._uris.get((model, version), (None, ""))
            if created != found.creation_timestamp:
                asked = await self._get(
                    "model-versions/get-download-uri", _UriAnswer, name=model, version=version
                )
                uri = asked.artifact_uri
                self._remember(model, version, found.creation_timestamp, uri)
        except _NotFoundError as error:
            raise VersionNotFoundError(
                f"registry '{self._name}' has no version {version} of model '{model}': register it, or name another in "
                "spec.model.version"
            ) from error
        tags = {tag.key: tag.value for tag in found.tags}
        return RegisteredVersion(model, version, found.run_id, uri, ready=found.status == "READY", tags=tags)

    async def ping(self) -> None:
        """Ask for at most one model, only to know whether the server answers."""
        await self._get("registered-models/search", _SearchAnswer, max_results="1")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        if self._retired:
            await self._retired.aclose()

    def _base(self, tracking_uri: str) -> httpx.URL:
        try:
            return httpx.URL(f"{tracking_uri.rstrip('/')}/api/2.0/mlflow/")
        except (httpx.InvalidURL, UnicodeError) as error:
            raise UnreachableError(f"the trackingURI of registry '{self._name}' is not a URL") from error

    def _remember(self, model: str, version: str, created: int, uri: str) -> None:
        self._uris.pop((model, version), None)
        self._uris[model, version] = (created, uri)
        if len(self._uris) > _REMEMBERED_URIS:
            del self._uris[next(iter(self._uris))]

    async def _get(self, call: str, shape: type[A], **parameters: str) -> A:
        try:
            with telemetry.REGISTRY_SECONDS.labels(self._name).time():
                answer = await self._ask(call, shape, parameters)
        except RegistryError as error:
            telemetry.REGISTRY_REQUESTS.labels(self._name, _result(error)).inc()
            raise
        telemetry.REGISTRY_REQUESTS.labels(self._name, "ok").inc()
        return answer

    async def _ask(self, call: str, shape: type[A], parameters: Mapping[str, str]) -> A:
        authorisation = await self._prepare()
        try:
            async with (
                asyncio.timeout(TOTAL_SECONDS),
                self._client.stream("GET", call, params=parameters, auth=authorisation) as response,
            ):
                body = await answers.body(response, LARGEST_ANSWER)
        except AnswerError as error:
            raise self._unusable(f"it {error}") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UnreachableError(
                f"registry '{self._name}' did not answer within {TOTAL_SECONDS:.0f} s"
            ) from error
        except (httpx.HTTPError, UnicodeError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                self._current_until = float("-inf")
                raise CertificateNotTrustedError(
                    f"registry '{self._name}' shows a certificate that is not trusted; have its CA put into the "
                    "ConfigMap of spec.mlflow.caBundleRef"
                ) from error
            raise UnreachableError(
                f"registry '{self._name}' cannot be reached: {type(error).__name__}"
            ) from error
        self._check_status(response, body)
        try:
            return shape.model_validate_json(body)
        except ValidationError as error:
            raise self._unusable("it is not what MLflow answers") from error

    def _check_status(self, response: httpx.Response, body: bytes) -> None:
        """Raise what a response means that is not JSON with status 200."""
        status = response.status_code
        json = (
            response.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        )
        if status == httpx.codes.UNAUTHORIZED:
            self._current_until = float("-inf")
            raise CredentialsRefusedError(f"registry '{self._name}' refused the operator's credentials (401)")
        if status == httpx.codes.FORBIDDEN:
            # Of this one model, perhaps: one tenant's choice of a name must not stop everybody's polls.
            raise UnusableAnswerError(f"registry '{self._name}' refused the operator's request (403)")
        if response.is_client_error and json and status != httpx.codes.TOO_MANY_REQUESTS:
            if _error_code(body) in _NOT_THERE:
                raise _NotFoundError(f"registry '{self._name}' does not have it")
            raise self._unusable(f"it has status {status}")
        if status != httpx.codes.OK:
            redirect = ", a redirect, which is never followed" if response.is_redirect else ""
            raise UnreachableError(f"registry '{self._name}' answered with status {status}{redirect}")
        if not json:
            raise UnreachableError(f"registry '{self._name}' answered with something other than JSON")

    async def _prepare(self) -> httpx.Auth | None:
        """Read what is shown and trusted, where the last reading is too old."""
        now = asyncio.get_running_loop().time()
        if now >= self._current_until:
            self._authorisation = _auth(await self._read_credentials())
            await self._trust(await self._read_ca_bundle())
            self._current_until = now + CREDENTIALS_SECONDS
        return self._authorisation

    async def _trust(self, ca_bundle: str | None) -> None:
        """Connect anew where other certificates are trusted now; requests under way end on the old connections."""
        if ca_bundle == self._trusted:
            return
        connected = self._connect(self._context(ca_bundle))
        before, self._retired = self._retired, self._client
        self._client, self._trusted = connected, ca_bundle
        if before:
            await before.aclose()

    def _context(self, ca_bundle: str | None) -> ssl.SSLContext | None:
        if ca_bundle is None:
            return None
        try:
            # Given nothing, the standard library would trust the public ones instead.
            return ssl.create_default_context(cadata=ca_bundle or "nothing")
        except (ssl.SSLError, ValueError, TypeError) as error:
            raise CABundleInvalidError(
                f"ca.crt in the ConfigMap of spec.mlflow.caBundleRef of registry '{self._name}' holds no certificates "
                "in PEM form"
            ) from error

    def _check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise self._unusable(otherwise)

    def _unusable(self, why: str) -> UnusableAnswerError:
        return UnusableAnswerError(f"the answer of registry '{self._name}' cannot be used: {why}")


class _BearerAuth(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = self._header
        yield request


def _auth(credentials: Credentials | None) -> httpx.Auth | None:
    if credentials is None:
        return None
    if credentials.token is not None:
        return _BearerAuth(credentials.token)
    return httpx.BasicAuth(credentials.username or "", credentials.password or "")


def _error_code(body: bytes) -> str:
    try:
        return _ErrorAnswer.model_validate_json(body).error_code
    except ValidationError:
        return ""


def _result(error: RegistryError) -> str:
    match error:
        case UnreachableError():
            return "unreachable"
        case _NotFoundError():
            return "not_found"
        case _:
            return "refused"
