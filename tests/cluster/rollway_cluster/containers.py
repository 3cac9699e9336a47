"""containerd's images, by its own command line."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from rollway_cluster import archives, binaries
from rollway_cluster.errors import ClusterError
from rollway_cluster.layout import Layout

# The programs that run as pods (pause holds each pod), as images of nothing but themselves.
PODS = ("pause", "coredns", "metrics-server")


def image(program: str) -> str:
    """The name of a program's image; the tag changes with the program."""
    return f"localhost/rollway/{program}:{binaries.key(_module(program))}"


def answers(layout: Layout) -> bool:
    """Whether containerd is there."""
    return _ctr(layout, "version", check=False).returncode == 0


def archive(program: str, say: Callable[[str], None] = print) -> Path:
    """The archive of a program's image; the program and the archive are made first if need be."""
    module = _module(program)
    binaries.build((module,), say)
    folder = binaries.folder(module)
    path = folder / f"{program}.tar"
    if not path.exists():
        archives.write(folder / program, image(program), path)
    return path


def import_pods(layout: Layout) -> None:
    """Import the images of the cluster's own pods."""
    present = set(_ctr(layout, "images", "ls", "-q").stdout.split())
    for program in PODS:
        if image(program) not in present:
            _ctr(layout, "images", "import", str(archive(program)))


def load(layout: Layout, path: Path) -> dict[str, str]:
    """Import an archive's images; each one's name with the digest by which pods can name it, by its name."""
    _ctr(layout, "images", "import", str(path))
    loaded = {}
    for name in archives.names(path):
        rows = _ctr(layout, "images", "ls", f"name=={name}").stdout.splitlines()[1:]
        digest = rows[0].split()[2]
        reference = f"{name.rpartition(':')[0]}@{digest}"
        # Without a registry, a name with a digest is known only by being tagged so.
        _ctr(layout, "images", "tag", "--force", name, reference)
        loaded[name] = reference
    return loaded


def _module(program: str) -> binaries.Module:
    return next(module for module in binaries.MODULES if program in module.commands)


def _ctr(layout: Layout, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    argv = [f"{layout.bin}/ctr", "--address", str(layout.socket), "--namespace", "k8s.io", *arguments]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and result.returncode != 0:
        raise ClusterError(f"ctr {' '.join(arguments)} failed: {result.stderr.strip()}")
    return result
