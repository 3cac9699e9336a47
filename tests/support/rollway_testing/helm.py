"""Run helm the way a user does, and read what it renders."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
Values = Mapping[str, Any]


class HelmRefusedError(RuntimeError):
    """Helm ended with an error; the message is what it said."""


class Helm:
    """The helm binary with a home of its own, so that no setting of the caller reaches a test."""

    def __init__(self, binary: Path, home: Path) -> None:
        """Run ``binary`` and let it write under ``home`` only."""
        self._binary = binary
        self._environment = {
            "PATH": os.defpath,
            "HOME": str(home),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }

    def run(self, *arguments: str, values: Values | None = None) -> str:
        """Return what helm prints; ``values`` go in as a file, so that every type is kept."""
        command = [str(self._binary), *arguments, *(["--values", "-"] if values is not None else [])]
        text = yaml.safe_dump(dict(values or {}))
        done = subprocess.run(
            command,
            input=text,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise HelmRefusedError(f"{done.stdout}\n{done.stderr}")
        return done.stdout

    def template(
        self, chart: Path, values: Values | None = None, *, release: str, namespace: str
    ) -> list[Manifest]:
        """Return the objects that ``chart`` renders."""
        text = self.run("template", release, str(chart), "--namespace", namespace, values=values or {})
        return [document for document in yaml.safe_load_all(text) if document]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Return the rendered objects of ``kind``, in helm's order."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def misspelt(path: tuple[str, ...]) -> dict[str, Any]:
    """Return values whose one mistake is an unknown key below ``path``."""
    values: dict[str, Any] = {"misspelt": 1}
    for key in reversed(path):
        values = {key: values}
    return values


def closed_levels(
    values: Mapping[str, Any], opened: Set[tuple[str, ...]], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the path of every mapping of the default values whose keys are fixed: all but those ``opened``."""
    if path not in opened:
        yield path
    for key, value in values.items():
        if isinstance(value, dict):
            yield from closed_levels(value, opened, (*path, key))
