"""The one line that a container leaves for the operator when it ends."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rollway_serving.errors import PodFailure

MAX_SENTENCE = 1024
"""Kubernetes cuts a termination message at 4096 bytes; escaped, this many characters always fit."""


def sentence(text: str) -> str:
    """Make one printable line of any text, cut to what a termination message can hold."""
    line = re.sub(r"[^\x20-\x7e]+", " ", text).strip()
    return line if len(line) <= MAX_SENTENCE else line[: MAX_SENTENCE - 3] + "..."


def write(path: Path, message: Mapping[str, object]) -> None:
    """Replace the termination message by this JSON object."""
    path.write_text(json.dumps(message, separators=(",", ":")) + "\n", encoding="utf-8")


def write_failure(path: Path, failure: PodFailure) -> None:
    """Leave the reason and one sentence."""
    write(path, {"reason": failure.reason, "message": sentence(str(failure))})


def clear(path: Path) -> None:
    """Leave no message."""
    path.write_text("", encoding="utf-8")
