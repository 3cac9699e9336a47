"""Kinds that no cluster has of itself, and that its administrator may have defined already."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollway_cluster.client import MADE_BY, Client, Object

_PART_OF = "app.kubernetes.io/part-of"


@dataclass(frozen=True)
class Definitions:
    """An API of its own: its definitions are taken from the module of whoever serves it."""

    name: str
    """What people call it."""
    part: str
    """The value of a label by which these are told from others that were made here."""
    known_by: str
    """The definition that tells whether anybody has defined them."""
    used: tuple[str, ...]
    """What somebody has who uses it."""
    files: Callable[[], Sequence[Path]]
    """The folders and files that define it, made first if need be."""
    kinds: tuple[str, ...] = ("crd",)
    """What it consists of."""

    def apply(self, client: Client) -> None:
        """Define its kinds, unless somebody else did."""
        found = client.get("crd", self.known_by)
        if found and not made_here(found):
            return
        files = [f"--filename={file}" for file in self.files()]
        # On the server's side: the largest would not fit into the annotation that is kept otherwise.
        client.run("apply", "--server-side", "--force-conflicts", *files)
        labels = [f"{key}={value}" for key, value in self._labels.items()]
        client.run("label", "--overwrite", *files, *labels)
        client.run("wait", "crd", self._selector, "--for=condition=Established", "--timeout=30s")

    def remove(self, client: Client, say: Callable[[str], None]) -> None:
        """Take away what was defined here, unless others use it: every object of theirs would go with it."""
        found = client.get("crd", self.known_by)
        if found is None or not made_here(found):
            return
        if others := client.run("get", ",".join(self.used), "--all-namespaces", "--no-headers").strip():
            say(f"{self.name} stays, since these are not the demo's:\n{others}")
            return
        client.run("delete", ",".join(self.kinds), self._selector)

    @property
    def _labels(self) -> dict[str, str]:
        return MADE_BY | {_PART_OF: self.part}

    @property
    def _selector(self) -> str:
        return "--selector=" + ",".join(f"{key}={value}" for key, value in self._labels.items())


def made_here(found: Object) -> bool:
    """Whether an object is one of those that the demo and the tests made."""
    labels: Object = found["metadata"].get("labels", {})
    return MADE_BY.items() <= labels.items()
