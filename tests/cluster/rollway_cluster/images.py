"""Builds Rollway's images by Docker or buildah, into one archive each in the user's cache folder.

An archive's name carries the checksum of everything that the image is made of, so that an image is built once for each
content and keeps its digest. With buildah the images are in a store of their own beside the archives: the user's images
are neither used nor changed.
"""

import configparser
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from rollway_cluster.binaries import cache_folder
from rollway_cluster.errors import ClusterError

REPOSITORY = Path(__file__).parents[3]
DOCKERFILES = {
    "operator": "operator/Dockerfile",
    "mlserver": "model/serving/Dockerfile",
    "seldon": "model/serving/seldon.Dockerfile",
    "training": "model/training/Dockerfile",
    "mlflow": "charts/mlflow/image/Dockerfile",
    "seaweedfs": "charts/mlflow/s3-image/Dockerfile",
}
BASE = "python:3.11-slim-bookworm"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
AT_A_TIME = 2
ARCHIVES_KEPT = 2
SECONDS_BETWEEN_PROGRESS = 5.0
LINES_OF_A_FAILURE = 25

Say = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """One image, and the tree that it is built from."""

    name: str
    root: Path = REPOSITORY

    @property
    def dockerfile(self) -> Path:
        """What it is built by; its context is the whole tree."""
        return self.root / DOCKERFILES[self.name]

    @property
    def reference(self) -> str:
        """Its name and tag, as the cluster knows them."""
        project = tomllib.loads((self.root / "operator/pyproject.toml").read_text())["project"]
        return f"docker.io/rollway/{self.name}:{project['version']}"

    def inputs(self) -> list[Path]:
        """The files of the tree that go into it."""
        found = {self.dockerfile}
        for source in _copied(self.dockerfile.read_text()):
            matches = [path for match in self.root.glob(source) for path in (match, *match.rglob("*"))]
            if not matches:
                raise ClusterError(f"{DOCKERFILES[self.name]} copies {source}, which does not exist")
            found.update(path for path in matches if path.is_file() and "__pycache__" not in path.parts)
        return sorted(found)

    def key(self, *more: str) -> str:
        """The checksum of what it is made of."""
        digest = hashlib.sha256("\0".join((self.reference, *more)).encode())
        for path in self.inputs():
            content = path.read_bytes()
            mode = path.stat().st_mode & 0o111
            digest.update(f"\0{path.relative_to(self.root)}\0{mode}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:16]


class Builder(Protocol):
    """What can turn a Dockerfile into an archive."""

    @property
    def identity(self) -> str:
        """What of the builder itself goes into an image."""

    def prepare(self, say: Say) -> None:
        """Do once what every image needs."""

    def build(self, image: Image, archive: Path, run: Callable[[Sequence[str]], None]) -> None:
        """Build one image into an archive, with each command line given to ``run``."""


class Docker:
    """A Docker engine that answers."""

    identity = "docker"

    def prepare(self, say: Say) -> None:
        """Nothing: the engine pulls the base itself."""

    def build(self, image: Image, archive: Path, run: Callable[[Sequence[str]], None]) -> None:
        """Build and save one image."""
        engine = ("docker", "build", "--progress", "plain", "--build-arg", "SOURCE_DATE_EPOCH=0")
        run((*engine, "--file", str(image.dockerfile), "--tag", image.reference, str(image.root)))
        run(("docker", "save", "--output", str(archive), image.reference))


class Buildah:
    """Buildah without an engine; the base image is Debian's own Python, put together by mmdebstrap."""

    RECIPE = (
        "mmdebstrap",
        "--variant=minbase",
        "--include=python3,python3-venv,ca-certificates",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        '--customize-hook=ln -s python3.11 "$1/usr/bin/python"',
        "bookworm",
    )
    SETTINGS = (
        *(
            "--env",
            "PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin",
            "--env",
            "LANG=C.UTF-8",
        ),
        *("--cmd", "python3"),
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Layers get the epoch as every file's time: equal content, equal digest.
        self._epoch = ("--timestamp", "0")

    @cached_property
    def identity(self) -> str:
        """The base image's recipe."""
        return hashlib.sha256("\0".join((*self.RECIPE, *self.SETTINGS)).encode()).hexdigest()[:16]

    def prepare(self, say: Say) -> None:
        """Clear away what a killed build left, and make the base image unless it is in the store."""
        self._call("rm", "--all")
        made = f"rollway-base:{self.identity}"
        if not self._has(made):
            say(f"{BASE}: putting it together from Debian's packages")
            started = time.monotonic()
            self._make_base(made)
            say(f"{BASE}: made in {time.monotonic() - started:.0f} s")
        self._call("tag", made, BASE)

    def build(self, image: Image, archive: Path, run: Callable[[Sequence[str]], None]) -> None:
        """Build one image and push it into an archive."""
        with tempfile.TemporaryDirectory() as settings:
            mounts = [part for mount in _mounts(Path(settings)) for part in ("--volume", mount)]
            how = ("--layers", "--isolation", "chroot", "--pull-never", *self._epoch, *mounts)
            what = ("--file", str(image.dockerfile), "--tag", image.reference, str(image.root))
            run(self._line("bud", *how, *what))
        run(self._line("push", "--quiet", image.reference, f"docker-archive:{archive}:{image.reference}"))

    def _make_base(self, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "base.tar"
            _checked([*self.RECIPE, str(tree)], os.environ | {"SOURCE_DATE_EPOCH": "0"})
            container = self._call("from", "scratch")
            try:
                self._call("add", "--quiet", container, str(tree), "/")
                self._call("config", *self.SETTINGS, container)
                self._call("commit", "--quiet", *self._epoch, container, name)
            finally:
                self._call("rm", container)

    def _has(self, name: str) -> bool:
        line = self._line("inspect", "--type", "image", name)
        return subprocess.run(line, capture_output=True, check=False).returncode == 0

    def _call(self, *arguments: str) -> str:
        return _checked(self._line(*arguments))

    def _line(self, *arguments: str) -> list[str]:
        return [*self._buildah, *arguments]

    @cached_property
    def _buildah(self) -> list[str]:
        store = ["buildah", "--root", str(self._folder / "store"), "--runroot", str(self._folder / "run")]
        # With this option no mount stays behind on the store's own folder.
        overlay = [*store, "--storage-driver", "overlay", "--storage-opt", "overlay.skip_mount_home=true"]
        if subprocess.run([*overlay, "info"], capture_output=True, check=False).returncode == 0:
            return overlay
        # Slow and large, but it works on every file system.
        return [*store, "--storage-driver", "vfs"]


def build_images(names: Sequence[str] = (), say: Say = print, root: Path = REPOSITORY) -> dict[str, Path]:
    """Build the images named (all of them if none is), and say where each one's archive is."""
    if unknown := set(names) - DOCKERFILES.keys():
        raise ClusterError(
            f"no image is called {', '.join(sorted(unknown))}: there are {', '.join(DOCKERFILES)}"
        )
    images = [Image(name, root) for name in names or DOCKERFILES]
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    builder = _builder(folder)
    archives = {image: folder / f"{image.name}-{image.key(builder.identity)}.tar" for image in images}
    missing = [image for image, archive in archives.items() if not archive.exists()]
    for image in images:
        if image not in missing:
            archives[image].touch()  # used: not the next to be removed
            say(f"{image.name}: unchanged")
    if missing:
        with _lock(folder / "lock", say):
            builder.prepare(say)
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                for done in [pool.submit(_build, builder, image, archives[image], say) for image in missing]:
                    done.result()
    return {image.name: archive for image, archive in archives.items()}


def _builder(folder: Path) -> Builder:
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    ):
        return Docker()
    if absent := [program for program in ("buildah", "mmdebstrap") if not shutil.which(program)]:
        raise ClusterError(
            f"no Docker engine answers, and there is no {' and no '.join(absent)}: install either"
        )
    return Buildah(folder)


def _build(builder: Builder, image: Image, archive: Path, say: Say) -> None:
    if archive.exists():  # another process built it while this one waited
        return
    log = archive.parent / f"{image.name}.log"
    unfinished = archive.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    started = time.monotonic()
    with log.open("w") as file:

        def run(line: Sequence[str]) -> None:
            file.write(f"$ {shlex.join(line)}\n")
            _followed(image.name, line, file.write, say)

        try:
            builder.build(image, unfinished, run)
        except subprocess.CalledProcessError as error:
            raise ClusterError(f"{image.name}: {error.output}\nthe whole log is {log}") from None
    # An archive appears under its final name whole or not at all.
    unfinished.rename(archive)
    older = sorted(archive.parent.glob(f"{image.name}-*.tar"), key=lambda path: path.stat().st_mtime)
    for path in older[:-ARCHIVES_KEPT]:
        path.unlink()
    size = archive.stat().st_size / 1e6
    say(f"{image.name}: built in {time.monotonic() - started:.0f} s, {size:.0f} MB")


def _followed(name: str, line: Sequence[str], write: Callable[[str], object], say: Say) -> None:
    """Run a command; its steps are said as they begin, its last line every few seconds between them."""
    started = said = time.monotonic()
    last: deque[str] = deque(maxlen=LINES_OF_A_FAILURE)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for text in process.stdout or ():
            write(text)
            last.append(text)
            now = time.monotonic()
            if " STEP " in f" {text}" or now - said > SECONDS_BETWEEN_PROGRESS:
                said = now
                say(f"{name}: {now - started:3.0f} s  {text.strip()[:100]}")
    if process.returncode != 0:
        failure = f"`{shlex.join(line[:1])}` ended with {process.returncode}:\n{''.join(last)}"
        raise subprocess.CalledProcessError(process.returncode, line[0], failure)


def _checked(line: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"`{shlex.join(line[:1])}` ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def _copied(dockerfile: str) -> Iterator[str]:
    """The sources of COPY lines that are of the context."""
    for line in dockerfile.replace("\\\n", " ").splitlines():
        verb, *words = shlex.split(line, comments=True) or [""]
        if verb.upper() == "COPY" and not any(word.startswith("--from=") for word in words):
            *sources, _ = [word for word in words if not word.startswith("--")]
            yield from (source.strip("/") for source in sources)


def _mounts(settings: Path) -> Iterator[str]:
    """What a build sees of this machine and keeps in no layer: how to reach the package index."""
    pip = _pip_settings()
    bundle = Path(pip.get("cert") or os.environ.get("SSL_CERT_FILE") or CA_BUNDLE)
    if bundle.is_file():
        yield f"{bundle}:{CA_BUNDLE}:ro"
        pip["cert"] = str(CA_BUNDLE)
    for number, wheels in enumerate(filter(Path.is_dir, map(Path, pip.pop("find-links", "").split()))):
        yield f"{wheels}:/mnt/wheels{number}:ro"
        pip["find-links"] = f"{pip.get('find-links', '')} /mnt/wheels{number}".strip()
    written = configparser.RawConfigParser()
    written["global"] = pip
    with (settings / "pip.conf").open("w") as file:
        written.write(file)
    yield f"{settings / 'pip.conf'}:/etc/pip.conf:ro"


def _pip_settings() -> dict[str, str]:
    """How pip on this machine reaches its index: the files that it reads, then the environment."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", home / "pip/pip.conf"]
    if named := os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(named))
    read = configparser.RawConfigParser()
    read.read(files)
    names = (
        "index-url",
        "extra-index-url",
        "trusted-host",
        "find-links",
        "proxy",
        "timeout",
        "retries",
        "cert",
    )
    found = dict(read["global"]) if read.has_section("global") else {}
    found |= {
        name: os.environ[key]
        for name in names
        if (key := f"PIP_{name.upper().replace('-', '_')}") in os.environ
    }
    if "PIP_DEFAULT_TIMEOUT" in os.environ:
        found["timeout"] = os.environ["PIP_DEFAULT_TIMEOUT"]
    return {name: found[name] for name in names if name in found}


@contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds images, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
