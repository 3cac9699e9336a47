"""The control groups under which the kubelet makes those of the pods."""

import os
import time
from pathlib import Path

from rollway_cluster.layout import Layout

ROOT = Path("/sys/fs/cgroup")
DELEGATED = {"cpu", "cpuset", "memory", "pids", "io", "hugetlb"}


def unified() -> bool:
    """Whether this machine has cgroup v2 alone."""
    return (ROOT / "cgroup.controllers").exists()


def create(layout: Layout) -> None:
    """Make the cluster's group in every hierarchy."""
    for hierarchy in _hierarchies():
        group = hierarchy / layout.cgroup
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # Under v1 a new group has none, and nothing runs in it.
            if hierarchy.name == "cpuset":
                (group / name).write_text((hierarchy / name).read_text())
    if unified():
        controllers = (ROOT / "cgroup.controllers").read_text().split()
        wanted = "".join(f"+{name} " for name in controllers if name in DELEGATED)
        (ROOT / "cgroup.subtree_control").write_text(wanted)
        (ROOT / layout.cgroup / "cgroup.subtree_control").write_text(wanted)


def remove(layout: Layout, seconds: float = 10.0) -> None:
    """Remove the cluster's groups, bottom up; a group is busy until the kernel is done with what ran in it."""
    deadline = time.monotonic() + seconds
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / layout.cgroup, topdown=False):
            while True:
                try:
                    Path(folder).rmdir()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)


def _hierarchies() -> list[Path]:
    if unified():
        return [ROOT]
    return [path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink()]
