"""Put a fetched folder where the server reads it: whole or not at all.

Everything is read into a folder inside the target. An init container that runs again in the same pod finds
what the last run left, and removes it first. The server starts only after a run that ended well.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_INCOMING = ".incoming"


def clean(target: Path) -> Path:
    """Empty the target and make the folder to read into."""
    for entry in target.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    incoming = target / _INCOMING
    incoming.mkdir()
    return incoming


def place(target: Path) -> None:
    """Move what was read into place, with ``MLmodel``, without which nothing is a model, last."""
    incoming = target / _INCOMING
    for entry in sorted(incoming.iterdir(), key=lambda entry: entry.name == "MLmodel"):
        entry.rename(target / entry.name)
    incoming.rmdir()
