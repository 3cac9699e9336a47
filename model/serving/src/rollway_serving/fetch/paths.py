"""Which places and names are allowed. Nothing here reads or writes: a name is judged before it is used.

>>> Location.parse("s3://models/1/abc/artifacts")
Location(scheme='s3', bucket='models', segments=('1', 'abc', 'artifacts'))
>>> Location.parse("mlflow-artifacts:/1/abc").is_under(Location.parse("mlflow-artifacts:/1"))
True
>>> Location.parse("s3://models-evil/1").is_under(Location.parse("s3://models"))
False
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rollway_serving.errors import ArtifactRefused

MAX_FILES = 200
MAX_BYTES = 2 << 30
MAX_DEPTH = 6
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
_SEGMENT = re.compile(r"[A-Za-z0-9 _.,=@+~()!$&'-]{1,255}")
_CODE_FOR_A_SERVER = frozenset({"model-settings.json", "settings.json"})
"""MLServer obeys these in any folder it is shown, and ``.env``, which the rule for names refuses already."""


@dataclass(frozen=True, slots=True)
class Location:
    """A folder in a bucket, or under the tracking server's artifact root."""

    scheme: Literal["s3", "mlflow-artifacts"]
    bucket: str
    segments: tuple[str, ...]

    @classmethod
    def parse(cls, uri: str) -> Location:
        """Read a URI; one that could mean two places is refused."""
        if uri.startswith("s3://"):
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            if not _BUCKET.fullmatch(bucket) or ".." in bucket:
                raise ArtifactRefused(f"the bucket in {_show(uri)} is not a bucket's name")
            return cls("s3", bucket, _segments(uri, key))
        if uri.startswith("mlflow-artifacts:/"):
            path = uri.removeprefix("mlflow-artifacts:/")
            if path.startswith("/"):
                raise ArtifactRefused(f"{_show(uri)} names another server than the registry's")
            return cls("mlflow-artifacts", "", _segments(uri, path))
        raise ArtifactRefused(f"{_show(uri)} is neither s3:// nor mlflow-artifacts:/")

    def is_under(self, prefix: Location) -> bool:
        """Whether this is the prefix itself or inside it."""
        same_store = (self.scheme, self.bucket) == (prefix.scheme, prefix.bucket)
        return same_store and self.segments[: len(prefix.segments)] == prefix.segments

    @property
    def key(self) -> str:
        """The path inside the store."""
        return "/".join(self.segments)


def check_name(path: str) -> str:
    """Accept a file's path relative to the model's folder, or refuse the whole artifact."""
    segments = path.split("/")
    if len(segments) > MAX_DEPTH:
        raise ArtifactRefused(f"{_show(path)} is deeper than {MAX_DEPTH} levels")
    for segment in segments:
        if not _NAME.fullmatch(segment):
            raise ArtifactRefused(
                f"the file name {_show(path)} is not made of letters, digits, '.', '_' and '-'"
            )
        if segment.lower() in _CODE_FOR_A_SERVER:
            raise ArtifactRefused(f"the file {_show(path)} would be code for a server")
    return path


def check_caps(files: int, size: int) -> None:
    """Refuse an artifact of too many files or bytes."""
    if files > MAX_FILES:
        raise ArtifactRefused(f"the artifact has more than {MAX_FILES} files")
    if size > MAX_BYTES:
        raise ArtifactRefused(f"the artifact is larger than {MAX_BYTES} bytes")


def _segments(uri: str, path: str) -> tuple[str, ...]:
    path = path.removesuffix("/")
    segments = tuple(path.split("/")) if path else ()
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise ArtifactRefused(f"the path in {_show(uri)} is not plain")
    return segments


def _show(text: str) -> str:
    return ascii(text if len(text) <= 200 else text[:197] + "...")
