"""What can go wrong in a model pod, and whose fault it is.

ServingError
 ├── SettingsError        the revision's settings cannot be used
 ├── InputError           a client's mistake: 400, INVALID_ARGUMENT
 ├── PredictionError      the model's own failure on a good request: 500, INTERNAL
 ├── UnknownModelError    another model's name or version: 404, NOT_FOUND
 ├── NotReadyError        the model is not loaded yet: 503, UNAVAILABLE
 ├── OverloadError        more requests than the server takes on: 429, RESOURCE_EXHAUSTED
 ├── DeadlineError        the model takes too long: 504, DEADLINE_EXCEEDED
 └── PodFailure           the pod ends; ``reason`` and message go to the termination message
      ├── FetchFailed         nobody's fault: outage, missing credentials
      ├── DigestMismatch      the artifact is not what was accepted
      ├── ArtifactRefused     a path, name, size or count that is not allowed
      ├── NotAModel           no usable MLmodel file
      ├── ModelLoadFailed     the server cannot load the model
      ├── MissingPackage      the model imports what the image lacks
      ├── EnvironmentMismatch the image has other packages than the model asks for
      ├── SmokeTestFailed     the model fails on its own input example, or on a golden case
      └── WarmupFailed        the model fails during warm-up
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar


class ServingError(Exception):
    """Base of every error that this package raises on purpose."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    """What a REST client is answered."""
    code: ClassVar[str] = "INTERNAL"
    """The name of what a gRPC client is answered."""


class SettingsError(ServingError):
    """The revision's settings cannot be used; the message names the field."""


class InputError(ServingError):
    """A client's mistake: which field, what was expected and what came."""

    status = HTTPStatus.BAD_REQUEST
    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, expected: str, came: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {came}")
        self.field = field
        self.expected = expected
        self.came = came


class PredictionError(ServingError):
    """The model failed on a request that its signature allows."""


class UnknownModelError(ServingError):
    """The client asks a model, or a version, that is not served here."""

    status = HTTPStatus.NOT_FOUND
    code = "NOT_FOUND"


class NotReadyError(ServingError):
    """The model is not loaded yet."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "UNAVAILABLE"


class OverloadError(ServingError):
    """As many predictions run and wait as the server takes on."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "RESOURCE_EXHAUSTED"


class DeadlineError(ServingError):
    """The model did not answer within the revision's time-out."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "DEADLINE_EXCEEDED"


class PodFailure(ServingError):  # noqa: N818 - with its subclasses, a reason that the operator reads
    """The pod cannot go on; the class name is the reason that the operator reads."""

    @property
    def reason(self) -> str:
        """The word that goes to the termination message."""
        return type(self).__name__


class FetchFailed(PodFailure):
    """The artifact cannot be had now, and that is nobody's fault."""


class DigestMismatch(PodFailure):
    """The artifact differs from the one that was accepted."""


class ArtifactRefused(PodFailure):
    """The artifact holds something, or is somewhere, that is not allowed."""


class NotAModel(PodFailure):
    """There is no usable MLmodel file."""


class ModelLoadFailed(PodFailure):
    """The server cannot load the model."""


class MissingPackage(PodFailure):
    """The model needs a Python package that the image does not have."""


class EnvironmentMismatch(PodFailure):
    """The image has other packages than the model asks for."""


class SmokeTestFailed(PodFailure):
    """The model fails on its own input example, or on a golden case."""


class WarmupFailed(PodFailure):
    """The model fails while it is warmed up."""
