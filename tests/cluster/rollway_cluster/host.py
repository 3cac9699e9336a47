"""What this machine must have before a local cluster can start on it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from rollway_cluster import cgroups
from rollway_cluster.configuration import PLUGINS, RUNC
from rollway_cluster.errors import ClusterError
from rollway_cluster.layout import Layout

# Debian's packages, each by a file that it brings.
PACKAGES = {
    "runc": RUNC,
    "containernetworking-plugins": PLUGINS / "bridge",
    "iptables": Path("/usr/sbin/iptables"),
    "conntrack": Path("/usr/sbin/conntrack"),
    "iproute2": Path("/usr/sbin/ip"),
}
CONTROLLERS = {"cpu", "cpuset", "memory", "pids"}
LONGEST_SOCKET_PATH = 100


def require(layout: Layout) -> None:
    """Raise one error that names everything missing."""
    require_root()
    missing = [*_packages(), *_kernel(), *_state(layout)]
    if missing:
        raise ClusterError(
            "this machine cannot run a local cluster:\n" + "\n".join(f"- {each}" for each in missing)
        )


def require_root() -> None:
    """Raise an error unless this is root."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a local cluster needs root: be root, or start a Docker engine and use CLUSTER=kind"
        )


def _packages() -> Iterator[str]:
    names = [name for name, path in PACKAGES.items() if not path.exists()]
    if names:
        yield f"missing Debian packages: apt-get install {' '.join(names)}"


def _kernel() -> Iterator[str]:
    # Each is a module that may only need loading.
    for module, sign in (("overlay", "overlayfs"), ("br_netfilter", "filtering on bridges"), ("veth", "")):
        if shutil.which("modprobe"):
            subprocess.run(["modprobe", "--quiet", module], capture_output=True, check=False)
        if sign and not _has(module):
            yield f"no {sign} in this kernel (module {module})"
    lacking = CONTROLLERS - _controllers()
    if lacking:
        yield f"no control groups for {', '.join(sorted(lacking))} under {cgroups.ROOT}"


def _has(module: str) -> bool:
    if module == "overlay":
        return "\toverlay\n" in Path("/proc/filesystems").read_text()
    return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()


def _controllers() -> set[str]:
    if cgroups.unified():
        return set((cgroups.ROOT / "cgroup.controllers").read_text().split())
    return {path.name for path in cgroups.ROOT.iterdir()} if cgroups.ROOT.exists() else set()


def _state(layout: Layout) -> Iterator[str]:
    if len(str(layout.socket)) > LONGEST_SOCKET_PATH:
        yield f"{layout.socket} is too long for a socket: set ROLLWAY_CLUSTER_STATE to a shorter folder"
    if layout.state.is_relative_to("/run") or layout.state.is_relative_to("/var/log"):
        yield f"{layout.state} is hidden from the node: set ROLLWAY_CLUSTER_STATE to another folder"
    existing = next(path for path in (layout.state, *layout.state.parents) if path.exists())
    if _filesystem(existing) == "overlay":
        yield f"{existing} is on overlayfs, where images cannot be unpacked: set ROLLWAY_CLUSTER_STATE to another disk"


def _filesystem(path: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    around = [(len(point), kind) for point, kind in mounts if path.is_relative_to(point)]
    # Of several mounts on one point the last is seen.
    return max(enumerate(around), key=lambda numbered: (numbered[1][0], numbered[0]))[1][1]
