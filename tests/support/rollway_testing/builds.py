"""Images of changed sources: what a test proves by a program that is a little different."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from rollway_cluster.cluster import Cluster
from rollway_cluster.images import REPOSITORY, build_images

_SOURCES = {
    "operator": "operator/src/rollway_operator",
    "mlserver": "model/serving/src/rollway_serving",
}
_PARTS = ("operator", "model", "requirements")

Changes = Mapping[str, Mapping[str, str]]
"""For each file of the package, what is replaced by what."""


def another_build(cluster: Cluster, image: str, folder: Path, version: str, changes: Changes) -> str:
    """Build an image of changed sources under another tag, load it and return its reference."""
    for part in _PARTS:
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    _change(folder / "operator/pyproject.toml", {'version = "0.1.0"': f'version = "{version}"'})
    for path, replacements in changes.items():
        _change(folder / _SOURCES[image] / path, replacements)
    (archive,) = build_images([image], root=folder).values()
    (reference,) = cluster.load_images([archive]).values()
    return reference


def _change(path: Path, replacements: Mapping[str, str]) -> None:
    text = path.read_text()
    for old, new in replacements.items():
        assert text.count(old) == 1, f"{path} holds {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    path.write_text(text)
