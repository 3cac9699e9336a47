"""Where files come from: an S3 bucket, or the artifact store that an MLflow tracking server passes on."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import httpx
import obstore
from obstore import exceptions as obstore_errors
from obstore.store import S3Store

from rollway_serving.errors import FetchFailed
from rollway_serving.fetch import paths
from rollway_serving.fetch.door import Door
from rollway_serving.fetch.trust import check_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from obstore.store import ClientConfig

    from rollway_serving.fetch.identity import WebIdentity
    from rollway_serving.fetch.paths import Location
    from rollway_serving.fetch.trust import Trust

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 15.0
_CHUNK = 1 << 20
_FORBIDDEN = re.compile(r"\b40[13] (Unauthorized|Forbidden)\b")
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


class Transient(Exception):  # noqa: N818 - a state of affairs, not a fault
    """This attempt failed; another one may not."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the store lists it."""

    path: str
    size: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class Keys:
    """An S3 access key."""

    key_id: str
    secret: str = field(repr=False)


class Source(Protocol):
    """A store that can list a model's folder and read a part of one file."""

    ranged: bool
    """Whether parts of one file may be read at the same time."""

    async def files(self) -> list[RemoteFile]:
        """List every file; names and caps are checked while listing."""

    def read(self, file: RemoteFile, start: int, end: int) -> AsyncIterator[bytes]:
        """Read the bytes from ``start`` up to ``end``."""

    async def close(self) -> None:
        """Let go of connections."""


class S3Source:
    """A folder in an S3 bucket."""

    ranged = True

    def __init__(
        self,
        location: Location,
        *,
        endpoint: str | None,
        region: str | None,
        keys: Keys | WebIdentity,
        trust: Trust,
    ) -> None:
        region = region or "us-east-1"
        endpoint = endpoint or f"https://s3.{region}.amazonaws.com"
        self._location = location
        self._identity = None if isinstance(keys, Keys) else keys
        self._door = Door(endpoint)
        self._options: ClientConfig = {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": f"{2 * _CONNECT_SECONDS:g}s",  # to the endpoint, through the door
            "read_timeout": f"{_READ_SECONDS:g}s",
            "timeout": "10m",
        }
        if trust.bundle is not None:
            self._options["root_certificate"] = trust.bundle
        self._config: dict[str, Any] = {
            "endpoint": endpoint,
            "region": region,
            "virtual_hosted_style_request": False,
        }
        if isinstance(keys, Keys):
            self._config |= {"access_key_id": keys.key_id, "secret_access_key": keys.secret}
        else:
            self._config |= {"credential_provider": keys}
        self._opened: S3Store | None = None

    async def files(self) -> list[RemoteFile]:
        """List every object under the folder."""
        files: list[RemoteFile] = []
        prefix = self._location.key
        store = await self._store()
        with self._errors():
            async for page in obstore.list(store, prefix=prefix or None):
                for entry in page:
                    path = entry["path"].removeprefix(prefix).removeprefix("/")
                    if entry["size"] == 0 and (not path or path.endswith("/")):
                        continue  # the marker that some tools leave for a folder
                    files.append(RemoteFile(paths.check_name(path), entry["size"], entry["e_tag"]))
                    paths.check_caps(len(files), sum(file.size for file in files))
        return files

    async def read(self, file: RemoteFile, start: int, end: int) -> AsyncIterator[bytes]:
        """Read a range of one object, which must still be the one that was listed."""
        key = "/".join((*self._location.segments, file.path))
        store = await self._store()
        with self._errors():
            options: Any = {"range": (start, end)}
            if file.etag:
                options["if_match"] = file.etag
            answer = await obstore.get_async(store, key, options=options)
            async for chunk in answer.stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)

    async def close(self) -> None:
        """Close every connection."""
        await self._door.close()
        if self._identity:
            await self._identity.close()

    async def _store(self) -> S3Store:
        """The client, which goes out by the door alone, with credentials that are still good."""
        if self._identity:
            await self._identity.renew()
        if self._opened is None:
            options: ClientConfig = {**self._options, "proxy_url": await self._door.open()}
            self._opened = S3Store(
                self._location.bucket,
                client_options=options,
                retry_config={"max_retries": 0},
                **self._config,
            )
        return self._opened

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Sort the store's errors into those that time may heal and those it cannot."""
        try:
            yield
        except (obstore_errors.BaseError, OSError) as error:
            if self._door.refused:
                raise FetchFailed(
                    f"the S3 endpoint redirects to {self._door.refused}, which is not followed: "
                    "correct the ModelRegistry's artifacts[].endpoint or .region"
                ) from error
            classes = (obstore_errors.PermissionDeniedError, obstore_errors.UnauthenticatedError)
            # A listing that is refused has no class of its own.
            if isinstance(error, classes) or _FORBIDDEN.search(str(error)):
                raise FetchFailed(f"S3 refuses the credentials: {_first_line(error)}") from error
            check_certificate("S3", error)
            raise Transient(f"S3: {self._door.trouble or _first_line(error)}") from error


class MlflowSource:
    """A folder of the artifact store behind an MLflow tracking server."""

    ranged = False

    def __init__(
        self,
        location: Location,
        *,
        tracking_uri: str,
        basic: tuple[str, str] | None,
        token: str | None,
        trust: Trust,
    ) -> None:
        self._location = location
        self._client = httpx.AsyncClient(
            base_url=tracking_uri,
            verify=trust.context(),
            auth=basic,
            headers={"authorization": f"Bearer {token}"} if token else {},
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
        )

    async def files(self) -> list[RemoteFile]:
        """List the folder and, level by level, those in it."""
        files: list[RemoteFile] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            for entry in await self._list_one(folder):
                name, is_folder = str(entry.get("path", "")), bool(entry.get("is_dir"))
                path = paths.check_name(f"{folder}/{name}" if folder else name)
                if is_folder:
                    folders.append(path)
                else:
                    files.append(RemoteFile(path, _size(entry), None))
                paths.check_caps(len(files) + len(folders), sum(file.size for file in files))
        return files

    async def read(self, file: RemoteFile, start: int, end: int) -> AsyncIterator[bytes]:
        """Read one file; a server that knows no ranges sends all of it, and what is not wanted is dropped."""
        path = "/".join((*self._location.segments, *file.path.split("/")))
        headers = {"range": f"bytes={start}-{end - 1}"} if start else {}
        with _http_errors():
            async with self._client.stream("GET", f"{_ARTIFACTS}/{quote(path)}", headers=headers) as answer:
                _check_status(answer)
                position = start if answer.status_code == httpx.codes.PARTIAL_CONTENT else 0
                async for chunk in answer.aiter_bytes(_CHUNK):
                    wanted = chunk[max(0, start - position) : max(0, end - position)]
                    position += len(chunk)
                    if wanted:
                        yield wanted
                    if position > end:
                        raise Transient(f"{file.path} is longer than it was listed")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _list_one(self, folder: str) -> list[dict[str, Any]]:
        path = "/".join(filter(None, (self._location.key, folder)))
        with _http_errors():
            answer = await self._client.get(_ARTIFACTS, params={"path": path} if path else {})
            if answer.status_code == httpx.codes.NOT_FOUND:
                return []
            _check_status(answer)
            try:
                entries = answer.json().get("files", [])
            except (ValueError, AttributeError):
                raise Transient("the tracking server answered with something that is not JSON") from None
        if not isinstance(entries, list) or any(not isinstance(entry, dict) for entry in entries):
            raise Transient("the tracking server's list of artifacts has another form")
        return entries


@contextlib.contextmanager
def _http_errors() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        check_certificate("the tracking server", error)
        raise Transient(f"the tracking server: {type(error).__name__} {_first_line(error)}") from error


def _check_status(answer: httpx.Response) -> None:
    code = answer.status_code
    if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise FetchFailed(f"the tracking server refuses the credentials (HTTP {code})")
    if answer.is_redirect:
        raise FetchFailed(f"the tracking server answers with a redirect (HTTP {code}), which is not followed")
    if not answer.is_success:
        raise Transient(f"the tracking server answered HTTP {code}")


def _size(entry: dict[str, Any]) -> int:
    try:
        size = int(entry.get("file_size", 0))
    except (TypeError, ValueError):
        raise Transient("the tracking server lists a file without a size") from None
    if size < 0:
        raise Transient("the tracking server lists a file without a size")
    return size


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
