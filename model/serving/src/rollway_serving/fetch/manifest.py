"""What was fetched, and the one digest that stands for all of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, order=True)
class FetchedFile:
    """One file as it was read."""

    path: str
    size: int
    sha256: str


def digest(files: Iterable[FetchedFile]) -> str:
    r"""SHA-256 over one JSON line a file, sorted by path.

    >>> digest([FetchedFile("b", 0, "00"), FetchedFile("a", 1, "ff")])[:23]
    'sha256:0b1a4d01635863e3'

    The two lines hashed are ``{"path":"a","size":1,"sha256":"ff"}\n{"path":"b","size":0,"sha256":"00"}\n``.
    """
    hasher = hashlib.sha256()
    for file in sorted(files):
        line = {"path": file.path, "size": file.size, "sha256": file.sha256}
        hasher.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return f"sha256:{hasher.hexdigest()}"
