"""Model registries that the operator can ask: what every backend answers, and how it fails."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

from rollway_operator.errors import TemporaryError


class RegistryError(TemporaryError):
    """The registry has no usable answer; the message is one sentence for the object's status."""

    reason: ClassVar[str] = "RegistryUnreachable"
    """The reason of the condition ModelResolved."""


class UnreachableError(RegistryError):
    """The registry as a whole does not answer as it should, whatever it is asked."""

    health_reason: ClassVar[str] = "Unreachable"
    """The reason of the ModelRegistry's condition Ready."""


class CredentialsMissingError(UnreachableError):
    """The Secret that the ModelRegistry names cannot be read, or lacks the keys."""

    health_reason = "CredentialsMissing"


class CredentialsRefusedError(UnreachableError):
    """The registry does not accept the operator's credentials."""

    health_reason = "CredentialsRefused"


class CABundleMissingError(UnreachableError):
    """The ConfigMap that the ModelRegistry names cannot be read, or lacks the key."""

    health_reason = "CABundleMissing"


class CABundleInvalidError(UnreachableError):
    """What the ModelRegistry names as certificates to trust are none."""

    health_reason = "CABundleInvalid"


class CertificateNotTrustedError(UnreachableError):
    """The registry shows a certificate that none of the trusted ones vouches for."""

    health_reason = "CertificateNotTrusted"


class UnusableAnswerError(RegistryError):
    """The registry answers, but not with what was asked about this one model."""


class ModelNotFoundError(RegistryError):
    """The registry has no model of that name."""

    reason = "ModelNotFound"


class VersionNotFoundError(RegistryError):
    """The registry has no such version of the model."""

    reason = "VersionNotFound"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as the registry describes it; `uri` is what it says, not yet checked against anything."""

    model: str
    version: str
    run_id: str
    uri: str
    ready: bool = True
    """False while the version is still being registered, or when that failed."""
    tags: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Not compared: a version is the same whatever people note on it."""


@dataclass(frozen=True)
class Credentials:
    """What the operator shows to a registry: username and password, or a token."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, secret: Mapping[str, str]) -> Self | None:
        """Read a Secret's data; None where it has neither a token nor both username and password."""
        # Secrets made from files end in a line break that nobody means.
        username, password, token = (
            secret.get(key, "").strip("\r\n") for key in ("username", "password", "token")
        )
        if token and token.isascii() and token.isprintable():
            return cls(token=token)
        if username and password:
            return cls(username=username, password=password)
        return None


class Registry(Protocol):
    """A registry of models: each call is answered from the registry itself, or raises a RegistryError."""

    async def aliases(self, model: str) -> Mapping[str, str]:
        """Give all aliases of a model, with the version that each names."""
        ...

    async def version(self, model: str, version: str) -> RegisteredVersion:
        """Describe one version of a model."""
        ...

    async def ping(self) -> None:
        """Ask something small, only to know whether the registry answers."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
