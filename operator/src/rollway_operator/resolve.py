"""Ask the registry which version a ModelDeployment means, and whether it may be served from where it lies.

    ModelDeployment ──► ModelRegistry, permitted? ──► version ──► download URI, permitted? ──► Resolution

Nothing here raises for what a registry does or holds: a pass goes on with the reason, what serves goes on serving.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from rollway_operator.api.v1alpha1 import (
    Condition,
    LabelSelector,
    LabelSelectorRequirement,
    MLflow,
    ModelDeployment,
    ModelRegistry,
)
from rollway_operator.domain import ArtifactSource, ModelVersion, Object, Resolution
from rollway_operator.manifests import CA_KEY
from rollway_operator.registries import (
    CABundleMissingError,
    Credentials,
    CredentialsMissingError,
    RegisteredVersion,
    Registry,
    RegistryError,
    UnreachableError,
)
from rollway_operator.registries.mlflow import MLflowRegistry
from rollway_operator.registries.shared import (
    SETTLE_SECONDS,
    Follow,
    Health,
    SharedRegistry,
    Target,
    is_confirmed,
)

DEFAULT_REGISTRY = "default"
RESOLVED = "Resolved"
_SHORTEST_POLL_SECONDS = 1.0
_SHOWN_LENGTH = 80
_POLL_AFTER_REFUSAL = timedelta(seconds=10)
"""A refusal is looked at again early: often somebody is about to mend it, and shared answers make it cheap."""

LookUp = Callable[[str], Awaitable[Mapping[str, str] | None]]
Connect = Callable[
    [str, str, Callable[[], Awaitable[Credentials | None]], Callable[[], Awaitable[str | None]]], Registry
]
"""Makes the backend of a ModelRegistry from its name, its tracking URI, its credentials and the CAs to trust."""


class NotPermittedError(RegistryError):
    """The ModelRegistry does not exist or is not for this namespace; which of both is not told."""

    reason = "RegistryNotPermitted"


class VersionNotReadyError(RegistryError):
    """The version is still being registered, or that failed."""

    reason = "VersionNotReady"


class SourceNotPermittedError(RegistryError):
    """The version's artifacts lie where the ModelRegistry does not permit, or their URI is not plain."""

    reason = "SourceNotPermitted"


class TagMissingError(RegistryError):
    """The version does not carry a tag that the spec requires, or with another value."""

    reason = "TagMissing"

    def __init__(self, message: str, version: str) -> None:
        super().__init__(message)
        self.version = version


class Resolver:
    """Resolves every ModelDeployment of the process; those that follow the same model share the requests."""

    def __init__(
        self,
        registry: Callable[[str], Awaitable[ModelRegistry | None]],
        namespace_labels: LookUp,
        secret: LookUp,
        config_map: LookUp,
        connect: Connect = MLflowRegistry,
    ) -> None:
        """Look up ModelRegistries, the labels of namespaces, Secrets and ConfigMaps of the operator's, all by name.

        `secret` and `config_map` give data, or None where there is none of that name or it may not be read.
        """
        self._registry = registry
        self._namespace_labels = namespace_labels
        self._secret = secret
        self._config_map = config_map
        self._connect = connect
        self._shared: dict[str, tuple[MLflow, SharedRegistry]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def resolve(self, deployment: ModelDeployment) -> Resolution:
        """Find the version that a ModelDeployment means now, or the reason why there is none."""
        try:
            registry = await self._permitted(deployment)
            shared = self._share(registry)
        except RegistryError as error:
            return Resolution(error.reason, str(error), poll_in=_POLL_AFTER_REFUSAL)
        try:
            return await _resolve(deployment, registry, shared)
        except UnreachableError as error:
            wait = max(_SHORTEST_POLL_SECONDS, shared.back_off)
            return Resolution(error.reason, str(error), poll_in=timedelta(seconds=wait))
        except RegistryError as error:
            return Resolution(
                error.reason,
                str(error),
                held_back=error.version if isinstance(error, TagMissingError) else None,
                poll_in=min(_POLL_AFTER_REFUSAL, registry.spec.poll_interval),
            )

    async def health(self, registry: ModelRegistry) -> Health:
        """Say whether a registry answers; it is asked only where nobody did within its poll interval."""
        try:
            return await self._share(registry).health()
        except UnreachableError as error:
            return Health(error)

    async def aclose(self) -> None:
        """Close every connection."""
        for name in tuple(self._shared):
            self._retire(name)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _permitted(self, deployment: ModelDeployment) -> ModelRegistry:
        """Find the ModelRegistry; a missing one and one that is not permitted look the same from outside."""
        reference = deployment.spec.model.registry_ref
        name = reference.name if reference else DEFAULT_REGISTRY
        namespace = deployment.metadata.namespace
        registry = await self._registry(name)
        if registry is None:
            self._retire(name)
        elif await self._may_use(namespace, registry):
            return registry
        raise NotPermittedError(
            f"there is no ModelRegistry '{name}' that namespace '{namespace}' may use (spec.model.registryRef): its "
            "administrator makes it, or permits the namespace"
        )

    async def _may_use(self, namespace: str, registry: ModelRegistry) -> bool:
        allowed = registry.spec.allowed_namespaces
        if allowed.from_ == "All":
            return True
        if allowed.selector is None:
            return False
        labels = await self._namespace_labels(namespace)
        return labels is not None and selects(allowed.selector, labels)

    def _share(self, registry: ModelRegistry) -> SharedRegistry:
        """Give the one SharedRegistry of a ModelRegistry, made again when what it says of MLflow changed."""
        name, mlflow = registry.metadata.name, registry.spec.mlflow
        known = self._shared.get(name)
        if known is not None and known[0] == mlflow:
            return known[1]
        self._retire(name)
        connection = self._connect(
            name,
            mlflow.tracking_uri,
            lambda: self._credentials(name, mlflow),
            lambda: self._ca_bundle(name, mlflow),
        )
        interval = max(_SHORTEST_POLL_SECONDS, registry.spec.poll_interval.total_seconds())
        shared = SharedRegistry(connection, interval)
        self._shared[name] = mlflow, shared
        return shared

    def _retire(self, name: str) -> None:
        known = self._shared.pop(name, None)
        if known is not None:
            task = asyncio.create_task(known[1].aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _credentials(self, name: str, mlflow: MLflow) -> Credentials | None:
        if mlflow.credentials_ref is None:
            return None
        secret = await self._secret(mlflow.credentials_ref.name)
        credentials = Credentials.of(secret) if secret is not None else None
        if credentials is None:
            raise CredentialsMissingError(
                f"the operator has no credentials for registry '{name}': the Secret cannot be read, or has neither "
                "username and password nor token"
            )
        return credentials

    async def _ca_bundle(self, name: str, mlflow: MLflow) -> str | None:
        if mlflow.ca_bundle_ref is None:
            return None
        data = await self._config_map(mlflow.ca_bundle_ref.name)
        if data is None or CA_KEY not in data:
            raise CABundleMissingError(
                f"the operator has no CA bundle for registry '{name}': the ConfigMap of spec.mlflow.caBundleRef cannot "
                f"be read, or has no key {CA_KEY}"
            )
        return data[CA_KEY]


async def _resolve(
    deployment: ModelDeployment, registry: ModelRegistry, shared: SharedRegistry
) -> Resolution:
    model, status = deployment.spec.model, deployment.status.model
    current = status.target_version if status else None
    target = await shared.target(Follow(model.name, model.alias, model.version), current)
    found = target.version
    if not found.ready:
        raise VersionNotReadyError(
            f"version {found.version} of model '{found.model}' is not READY in the registry: its registration is still "
            "PENDING_REGISTRATION, or failed; finish it, or register a new version"
        )
    _check_tags(found, model.require_tags or {})
    uri, source = artifact_source(found.uri, registry)
    message = f"'{model.name}' is version {found.version}"
    if model.alias is not None:
        message = f"alias '{model.alias}' of '{model.name}' is version {found.version}"
    confirmed = is_confirmed(target, current)
    if not confirmed:
        message += f", and not yet read twice, {SETTLE_SECONDS:.0f} s apart"
    return Resolution(
        RESOLVED,
        message,
        version=ModelVersion(found.model, found.version, found.run_id, uri),
        source=source,
        confirmed=confirmed,
        poll_in=timedelta(seconds=_poll_in(target, confirmed, shared)),
    )


def _check_tags(found: RegisteredVersion, required: Mapping[str, str]) -> None:
    """Raise for the first required tag that a version does not carry."""
    for tag, wanted in sorted(required.items()):
        value = found.tags.get(tag)
        if value != wanted:
            carried = "is missing" if value is None else f"is {_quoted(value)}"
            raise TagMissingError(
                f"version {found.version} of model '{found.model}': tag {_quoted(tag)} {carried}, and "
                f"spec.model.requireTags wants {_quoted(wanted)}; set it in the registry to let this version go",
                found.version,
            )


def _quoted(text: str) -> str:
    """Show a text that anybody may have written: in one line, its beginning alone."""
    return repr(text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…")


def _poll_in(target: Target, confirmed: bool, shared: SharedRegistry) -> float:
    wait = shared.next_poll(target.asked) if confirmed else shared.settles_in(target)
    return max(0.1, wait)


# --------------------------------------------------------------------------------------------------- where from

_NAME = re.compile(r"[A-Za-z0-9.-]{1,63}")


def registry_followed(body: Object) -> str:
    """Name the ModelRegistry that a ModelDeployment follows, as it stands in the cluster."""
    return str(body["spec"].get("model", {}).get("registryRef", {}).get("name", DEFAULT_REGISTRY))


def artifact_source(uri: str, registry: ModelRegistry) -> tuple[str, ArtifactSource]:
    r"""Give a download URI in its plain form, and the way to the longest permitted prefix that it is under.

    The URI comes from whoever may write to the registry, so only what has one reading passes:

        s3://models/fraud/3                     under s3://models/              yes
        mlflow-artifacts://mlflow:5000/1/m-7    the tracking server itself      yes: mlflow-artifacts:/1/m-7
        s3://models-of-others/fraud/3           prefixes end at a slash         no
        s3://models/a/../../b, …/%2e%2e/b       .. . % \ // ? # NUL             no
        models:/m-7, file:///etc, http://host   names no artifact store         no
    """
    name = registry.metadata.name
    plain = _plain(uri, registry)
    under = [entry for entry in registry.spec.artifacts if plain.startswith(_folder(entry.prefix))]
    if not under:
        raise SourceNotPermittedError(
            f"registry '{name}' permits no artifacts in {_place(plain)}: its administrator lists what it does in the "
            "ModelRegistry's spec.artifacts"
        )
    entry = max(under, key=lambda entry: len(_folder(entry.prefix)))
    through_server = plain.startswith("mlflow-artifacts:")
    return plain, ArtifactSource(
        prefix=_folder(entry.prefix),
        endpoint=entry.endpoint,
        region=entry.region,
        credentials_secret_name=entry.credentials_secret_name,
        tracking_uri=registry.spec.mlflow.tracking_uri if through_server else None,
        role_arn=entry.role_arn,
        sts_endpoint=entry.sts_endpoint,
        ca_bundle_name=entry.ca_bundle_ref.name if entry.ca_bundle_ref else None,
        egress=tuple(
            rule.model_dump(mode="json", by_alias=True, exclude_defaults=True) for rule in entry.egress
        ),
    )


def _plain(uri: str, registry: ModelRegistry) -> str:
    """Bring a URI into the form `s3://bucket/path` or `mlflow-artifacts:/path`; refuse what has two readings."""
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in {"s3", "mlflow-artifacts"}:
        raise SourceNotPermittedError(
            f"registry '{registry.metadata.name}' gives {_place(uri)}, where no artifacts are fetched from"
        )
    authority, path = "", rest
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        path = slash + path
    path = path.removesuffix("/")
    segments = path.split("/")[1:]
    if (
        not path.startswith("/")
        or any(segment in {"", "."} or ".." in segment for segment in segments)
        or not uri.isprintable()
        or any(character in uri for character in "%\\?#")
    ):
        raise SourceNotPermittedError(
            f"registry '{registry.metadata.name}' gives a URI in {_place(uri)} that is not plain: it is refused"
        )
    if scheme == "s3":
        return f"s3://{authority}{path}"
    if authority not in {"", urlsplit(registry.spec.mlflow.tracking_uri).netloc}:
        raise SourceNotPermittedError(
            f"registry '{registry.metadata.name}' gives artifacts of another tracking server: refused"
        )
    return f"mlflow-artifacts:{path}"


def _folder(prefix: str) -> str:
    """End a prefix with its slash, so that `s3://models` never permits `s3://models-of-others`."""
    return prefix if prefix.endswith("/") else f"{prefix}/"


def _place(uri: str) -> str:
    """Name a URI's scheme and bucket for a message; nothing else of it is repeated."""
    scheme, _, rest = uri.partition(":")
    if not _NAME.fullmatch(scheme):
        return "a URI without a scheme"
    bucket = rest.removeprefix("//").partition("/")[0] if rest.startswith("//") else ""
    return f"{scheme}://{bucket}" if _NAME.fullmatch(bucket) else f"{scheme}:/"


# -------------------------------------------------------------------------------------------------- who may ask


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Say whether a label selector matches; an empty one matches everything, as everywhere in Kubernetes."""
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _meets(requirement, labels) for requirement in selector.match_expressions
    )


def _meets(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


# ----------------------------------------------------------------------------------------- the registry's status


def registry_status(registry: ModelRegistry, health: Health, now: datetime) -> dict[str, Any]:
    """Give the status that a ModelRegistry should have; it equals the present one when nothing happened."""
    failure = health.failure
    before = next((condition for condition in registry.status.conditions if condition.type == "Ready"), None)
    status: Literal["True", "False"] = "True" if failure is None else "False"
    ready = Condition(
        type="Ready",
        status=status,
        observed_generation=registry.metadata.generation,
        last_transition_time=before.last_transition_time
        if before and before.status == status
        else now.replace(microsecond=0),
        reason="Reachable" if failure is None else failure.health_reason,
        message="the registry answers" if failure is None else str(failure),
    )
    return {"conditions": [ready.model_dump(mode="json", by_alias=True)]}
