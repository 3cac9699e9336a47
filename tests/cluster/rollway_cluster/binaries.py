"""Builds the cluster's programs from their pinned Go modules, once for each checksum, into the user's cache folder."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rollway_cluster.errors import ClusterError

SOURCES = Path(__file__).parents[1] / "modules"
KUBERNETES_VERSION = "v1.36.4"
SECONDS_BETWEEN_PROGRESS = 5.0


@dataclass(frozen=True)
class Files:
    """Files of a module that is required, kept in a folder beside the programs."""

    name: str
    module: str
    source: str


@dataclass(frozen=True)
class Module:
    """One Go module under ``modules/`` and the programs that come out of it."""

    name: str
    programs: tuple[str, ...]
    package: str = "tool"
    flags: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    patched: tuple[str, ...] = ()
    """Folders whose go.mod requires one module: a copy of it is built in, with their folders in place of its own."""
    files: tuple[Files, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return SOURCES / self.name

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows ``go build``, but for where the result goes."""
        linker = " ".join(("-s", "-w", *(f"-X {stamp}" for stamp in self.stamps)))
        return ("-trimpath", "-buildvcs=false", "-ldflags", linker, *self.flags, self.package)

    @property
    def commands(self) -> dict[str, str]:
        """Each command by the program that answers to it."""
        return {program: program for program in self.programs} | dict.fromkeys(self.links, self.programs[0])


def _kubernetes_stamps() -> tuple[str, ...]:
    # kubectl refuses to compare itself with a server whose version is empty.
    _, minor, _ = KUBERNETES_VERSION.split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": "1",
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "rollway",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple(f"{package}.{name}={value}" for package in packages for name, value in values.items())


# What a local cluster starts with, and the tools beside it.
CLUSTER = (
    Module(
        "kubernetes",
        programs=("kubernetes",),
        package=".",
        stamps=_kubernetes_stamps(),
        links=(
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
        ),
    ),
    Module(
        "containerd",
        programs=("containerd", "containerd-shim-runc-v2", "ctr"),
        flags=("-tags", "no_btrfs no_zfs no_devmapper no_aufs"),
    ),
    Module("pause", programs=("pause",), package="."),
    Module("coredns", programs=("coredns",)),
    Module("helm", programs=("helm",)),
    Module("metrics-server", programs=("metrics-server",)),
    Module("actionlint", programs=("actionlint",)),
)
TRAEFIK = Module(
    "traefik",
    programs=("traefik",),
    patched=("lego",),
    files=(Files("gateway-api", "sigs.k8s.io/gateway-api", "config/crd/standard"),),
)
PROMETHEUS_VERSION = "3.16.0"
PROMETHEUS = Module(
    "prometheus",
    programs=("prometheus", "promtool"),
    # Of the two dozen ways to discover targets, most with the SDK of a cloud, the one that is used here.
    flags=("-tags", "remove_all_sd enable_kubernetes_sd"),
    stamps=(f"github.com/prometheus/common/version.Version={PROMETHEUS_VERSION}",),
)
PROMETHEUS_OPERATOR = Module(
    "prometheus-operator",
    programs=("operator", "prometheus-config-reloader"),
    links=("prometheus-operator",),
    files=(
        Files(
            "definitions",
            "github.com/prometheus-operator/prometheus-operator",
            "example/prometheus-operator-crd",
        ),
    ),
)
MONITORING = (PROMETHEUS, PROMETHEUS_OPERATOR)
MODULES = (*CLUSTER, TRAEFIK, *MONITORING)


def cache_folder() -> Path:
    """Where everything that can be made again is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rollway"


def key(module: Module) -> str:
    """The checksum of everything that decides what a module builds to."""
    digest = hashlib.sha256()
    files = (part for each in module.files for part in (each.name, each.module, each.source))
    words = (*module.arguments, *module.programs, *module.links, *module.patched, *files)
    digest.update("\0".join(words).encode())
    nested = sorted(path for name in ("go.mod", "go.sum") for path in module.folder.glob(f"*/**/{name}"))
    sources = [module.folder / "go.mod", module.folder / "go.sum", *sorted(module.folder.rglob("*.go"))]
    for path in (*sources, *nested):
        content = path.read_bytes() if path.exists() else b""
        digest.update(f"\0{path.relative_to(module.folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def folder(module: Module) -> Path:
    """Where a module's programs are once they are built."""
    return cache_folder() / "cluster" / f"{module.name}-{key(module)}"


def command(name: str) -> Path:
    """The path of a command, built first if need be."""
    module = next(module for module in MODULES if name in module.commands)
    build((module,))
    return folder(module) / name


def on_path_or_built(name: str) -> Path:
    """A command from PATH, or else the one built here."""
    found = shutil.which(name)
    return Path(found) if found else command(name)


def build(modules: Sequence[Module] = MODULES, say: Callable[[str], None] = print) -> None:
    """Build those modules whose programs are not in the cache, one after the other."""
    missing = [module for module in modules if not folder(module).exists()]
    if not missing:
        return
    go = _go(missing)
    cache_folder().joinpath("cluster").mkdir(parents=True, exist_ok=True)
    for number, module in enumerate(missing, 1):
        with _lock(cache_folder() / "cluster" / f"{module.name}.lock", module, say):
            if not folder(module).exists():
                _build(go, module, lambda text, n=number: say(f"[{n}/{len(missing)}] {text}"))  # type: ignore[misc]


def link(target: Path, modules: Sequence[Module] = MODULES) -> bool:
    """Fill a folder with links to every command, and say whether one of them leads elsewhere than before."""
    target.mkdir(parents=True, exist_ok=True)
    changed = False
    for module in modules:
        for name in module.commands:
            path, program = target / name, folder(module) / name
            if path.is_symlink() and path.readlink() == program:
                continue
            changed = True
            path.unlink(missing_ok=True)
            path.symlink_to(program)
    return changed


def complete(module: Module, target: Path, go: str = "go") -> Path:
    """Copy a module's sources, with those folders made that it only patches."""
    _copy(module.folder, target)
    for name in module.patched:
        ours = module.folder / name
        own = {path.name for path in ours.iterdir() if path.is_dir()}
        for path in (target / name).glob("go.*"):
            path.unlink()
        _copy(_required(go, ours), target / name, without=own)
    return target


@contextmanager
def _lock(path: Path, module: Module, say: Callable[[str], None]) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{module.name}: another process builds it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(go: str, module: Module, say: Callable[[str], None]) -> None:
    result = folder(module)
    with tempfile.TemporaryDirectory(dir=result.parent, prefix=f"{module.name}-") as name:
        unfinished = Path(name) / "programs"
        unfinished.mkdir()
        started = time.monotonic()
        sources = complete(module, Path(name) / "sources", go) if module.patched else module.folder
        _run([go, "build", "-v", "-o", f"{unfinished}/", *module.arguments], module, sources, say)
        for linked in module.links:
            (unfinished / linked).symlink_to(module.programs[0])
        for files in module.files:
            _copy(_required(go, sources, files.module) / files.source, unfinished / files.name)
        # A folder appears under its final name whole or not at all.
        unfinished.rename(result)
    say(f"{module.name}: built in {time.monotonic() - started:.0f} s")


def _required(go: str, folder: Path, module: str | None = None) -> Path:
    """Where Go keeps a module that a go.mod requires, or the only one, once the checksum in go.sum holds."""
    argv = [go, "mod", "download", "-json", *([module] if module else [])]
    environment = os.environ | {"GOWORK": "off"}
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(argv[1:])} in {folder} failed: {(done.stderr or done.stdout).strip()}")
    return Path(json.loads(done.stdout)["Dir"])


def _copy(source: Path, target: Path, without: Container[str] = ()) -> None:
    """Copy the files below a folder, but for some of its folders; the copies can be written and deleted."""
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        if path.is_file() and relative.parts[0] not in without:
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / relative)


def _run(argv: list[str], module: Module, folder: Path, say: Callable[[str], None]) -> None:
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            while True:
                try:
                    code = process.wait(SECONDS_BETWEEN_PROGRESS)
                    break
                except subprocess.TimeoutExpired:
                    lines = _lines(output.fileno())
                    downloads = sum(line.startswith("go: downloading") for line in lines)
                    say(
                        f"{module.name}: {time.monotonic() - started:.0f} s, {downloads} modules downloaded, "
                        f"{len(lines) - downloads} packages compiled"
                    )
        finally:
            process.kill()
            process.wait()
        if code != 0:
            tail = "\n".join(line for line in _lines(output.fileno())[-20:])
            raise ClusterError(f"go build of tests/cluster/modules/{module.name} failed ({code}):\n{tail}")


def _lines(descriptor: int) -> list[str]:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode(errors="replace").splitlines()


def _go(modules: Sequence[Module]) -> str:
    needed = max((_go_line(module) for module in modules), key=_numbers)
    names = ", ".join(module.name for module in modules)
    go = shutil.which("go")
    if go is None:
        raise ClusterError(f"Go {needed} or newer is needed to build {names}: https://go.dev/dl/")
    answer = subprocess.run(
        [go, "env", "GOVERSION", "GOTOOLCHAIN"], capture_output=True, text=True, check=True, cwd=SOURCES
    ).stdout.split()
    have, toolchain = answer[0].removeprefix("go"), answer[1] if len(answer) > 1 else "local"
    if _numbers(have) < _numbers(needed) and toolchain.startswith("local"):
        raise ClusterError(
            f"Go {needed} or newer is needed to build {names}, and {go} is {have}: https://go.dev/dl/"
        )
    return go


def _go_line(module: Module) -> str:
    lines = (module.folder / "go.mod").read_text().splitlines()
    return next(line.removeprefix("go ").strip() for line in lines if line.startswith("go "))


def _numbers(version: str) -> tuple[int, ...]:
    plain = version.split("-", maxsplit=1)[0].split("rc", maxsplit=1)[0].split(maxsplit=1)[0]
    return tuple(int(part) for part in plain.split("."))
