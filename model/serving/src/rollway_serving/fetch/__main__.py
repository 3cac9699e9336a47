"""The init container: ``python -m rollway_serving.fetch``.

It is told by the environment what to fetch (`Request.from_environment`), by ``digest`` in the revision's
folder what the result must be, and ends with one JSON object in the termination message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rollway_serving import termination
from rollway_serving.errors import ArtifactRefused, DigestMismatch, FetchFailed, NotAModel, PodFailure
from rollway_serving.fetch import environment, place
from rollway_serving.fetch.download import Download, Patience
from rollway_serving.fetch.identity import Role, WebIdentity
from rollway_serving.fetch.manifest import digest
from rollway_serving.fetch.paths import Location
from rollway_serving.fetch.sources import Keys, MlflowSource, S3Source, Source
from rollway_serving.fetch.trust import Trust
from rollway_serving.mlmodel import MLmodel
from rollway_serving.settings import Places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rollway_serving.fetch.manifest import FetchedFile

PATIENCE_SECONDS = 60.0
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What to fetch, from where, and with which credentials."""

    location: Location
    endpoint: str | None
    region: str | None
    tracking_uri: str | None
    keys: Keys | None
    role: Role | None
    username: str | None
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)
    trust: Trust = field(repr=False)
    policy: environment.Policy

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Request:
        """Read the environment; a URI outside the allowed prefix is refused before anything is asked."""
        location = Location.parse(variables.get("ROLLWAY_MODEL_URI", ""))
        prefix = Location.parse(variables.get("ROLLWAY_ARTIFACT_PREFIX", ""))
        if not location.is_under(prefix):
            raise ArtifactRefused("the model's download URI is outside the prefix that the registry allows")
        region = variables.get("ROLLWAY_ARTIFACT_REGION") or None
        key_id, secret = variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")
        return cls(
            location=location,
            endpoint=variables.get("ROLLWAY_ARTIFACT_ENDPOINT") or None,
            region=region,
            tracking_uri=variables.get("ROLLWAY_TRACKING_URI") or None,
            keys=Keys(key_id, secret) if key_id and secret else None,
            role=Role.from_environment(variables, region),
            username=variables.get("ROLLWAY_TRACKING_USERNAME") or None,
            password=variables.get("ROLLWAY_TRACKING_PASSWORD") or None,
            token=variables.get("ROLLWAY_TRACKING_TOKEN") or None,
            trust=Trust.load(variables.get("ROLLWAY_CA_BUNDLE")),
            policy=environment.policy(variables.get("ROLLWAY_ENVIRONMENT_POLICY", "")),
        )

    def source(self) -> Source:
        """Open the store."""
        if self.location.scheme == "s3":
            keys = WebIdentity(self.role, self.trust) if self.role else self.keys
            if not keys:
                raise FetchFailed(
                    "there are no S3 credentials: the registry's Secret is missing or lacks its keys"
                )
            return S3Source(
                self.location, endpoint=self.endpoint, region=self.region, keys=keys, trust=self.trust
            )
        if not self.tracking_uri:
            raise FetchFailed("there is no tracking server's address for mlflow-artifacts:/")
        basic = (self.username, self.password or "") if self.username else None
        return MlflowSource(
            self.location,
            tracking_uri=self.tracking_uri,
            basic=basic,
            token=self.token,
            trust=self.trust,
        )


async def fetch(request: Request, places: Places) -> dict[str, object]:
    """Fetch, verify and place the model; the result is the termination message."""
    incoming = place.clean(places.model)
    patience = Patience(PATIENCE_SECONDS)
    source = request.source()
    try:
        listed = await patience.attempt("listing the model's files", source.files)
        if not any(file.path == "MLmodel" for file in listed):
            raise NotAModel("there is no MLmodel file at the model's download URI")
        files = await Download(source, incoming, patience).run(listed)
    finally:
        await source.close()
    found = digest(files)
    _check_pin(found, places)
    mlmodel = MLmodel.load(incoming)
    mismatch = environment.check(incoming, request.policy)
    place.place(places.model)
    told = _success(found, files, mlmodel)
    return told | {"environment": termination.sentence(mismatch)} if mismatch else told


def main() -> int:
    """Fetch, and leave one line whatever happens."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    variables = dict(os.environ)
    for name in variables:  # the store's client would obey them
        if name.startswith("AWS_") or name.lower() in _PROXIES:
            del os.environ[name]
    places = Places.from_environment(variables)
    try:
        message = asyncio.run(fetch(Request.from_environment(variables), places))
    except PodFailure as error:
        return _failed(error, places)
    except Exception as error:  # noqa: BLE001 - a full volume, for one
        _log.exception("the fetch broke")
        return _failed(FetchFailed(f"the fetch broke: {type(error).__name__}: {error}"), places)
    _log.info("fetched %s files, %s bytes, %s", message["files"], message["bytes"], message["digest"])
    termination.write(places.termination, message)
    return 0


def _failed(failure: PodFailure, places: Places) -> int:
    _log.error("%s: %s", failure.reason, failure)
    termination.write_failure(places.termination, failure)
    with contextlib.suppress(OSError):
        place.clean(places.model)
    return 1


def _check_pin(found: str, places: Places) -> None:
    try:
        pin = (places.config / "digest").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise FetchFailed("the revision's folder has no digest file") from None
    if pin and pin != found:
        raise DigestMismatch(f"the artifact's digest is {found}, but {pin} was accepted")


def _success(found: str, files: list[FetchedFile], mlmodel: MLmodel) -> dict[str, object]:
    return {
        "digest": found,
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "flavor": mlmodel.flavor,
        "signature": mlmodel.signature is not None,
        "inputExample": mlmodel.input_example is not None,
    }


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # What the store's client still does on threads of its own must not change how this ends.
    os._exit(code)
