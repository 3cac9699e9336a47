"""Finds, starts and ends the node's process; a process id counts only together with its command line."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollway_cluster import components
from rollway_cluster.errors import ClusterError
from rollway_cluster.layout import Layout
from rollway_cluster.node import PRIVATE_FOLDERS

NODE_MODULE = "rollway_cluster.node"


@dataclass(frozen=True)
class Running:
    """A component that runs, and the memory it holds."""

    name: str
    pid: int | None
    mebibytes: int = 0


def start(layout: Layout) -> int:
    """Start the node and return the process id, as the host sees it, of its init."""
    for folder in PRIVATE_FOLDERS:
        Path(folder).mkdir(exist_ok=True)
    layout.log.mkdir(parents=True, exist_ok=True)
    layout.data.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with (layout.log / "node.log").open("ab") as log:
        # setsid lets it go, so that it outlives this process. The kernel ends the whole namespace with its init, and
        # --kill-child ends init with unshare.
        namespaces = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--net"]
        subprocess.run(
            ["setsid", "--fork", *namespaces, *_node_argv(layout)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            check=True,
        )
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        pid = init(layout)
        if pid is not None:
            return pid
        time.sleep(0.01)
    raise ClusterError(f"the node did not start: see {layout.log}/node.log")


def init(layout: Layout) -> int | None:
    """The process id, as the host sees it, of the node's init."""
    wanted = _node_argv(layout)[1:]
    for pid in _pids():
        if _argv(pid)[1:] == wanted and _is_init(pid):
            return pid
    return None


def stop(layout: Layout, seconds: float = 20.0) -> None:
    """End the node and everything in it, and wait until it is gone."""
    pid = init(layout)
    if pid is None:
        return
    inside = [each for each in _pids() if _namespace(each) == _namespace(pid)]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + seconds
    while any(_namespace(each) is not None for each in inside):
        if time.monotonic() > deadline:
            raise ClusterError(f"process {pid} and what it started did not end in {seconds:.0f} s")
        time.sleep(0.02)


def any_node() -> bool:
    """Whether a node of whatever cluster runs on this machine."""
    return any(_argv(pid)[1:3] == ["-m", NODE_MODULE] for pid in _pids())


def clean_folders() -> None:
    """Remove the folders that the node's own were mounted over, where they are ours alone."""
    for folder in PRIVATE_FOLDERS:
        path = Path(folder)
        if path.is_relative_to("/var/lib") and path.exists() and not any(path.iterdir()):
            path.rmdir()


def running(layout: Layout) -> list[Running]:
    """Every component with its process id, or none where it does not run."""
    pid = init(layout)
    inside = [] if pid is None else [each for each in _pids() if _namespace(each) == _namespace(pid)]
    found = {_command(_argv(each)): each for each in inside}
    expected = (*components.control_plane(layout), components.containerd(layout), *components.node(layout))
    return [_running(component.name, found.get(_command(component.argv))) for component in expected]


def _command(argv: Sequence[str]) -> tuple[str, ...]:
    """Give a command line without the path of a Python: one environment has several that are the same."""
    name = Path(argv[0]).name if argv else ""
    return ("python", *argv[1:]) if name.startswith("python") else tuple(argv)


def in_network(layout: Layout, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the node's network namespace."""
    pid = init(layout)
    if pid is None:
        raise ClusterError("the node does not run")
    return subprocess.run(
        ["nsenter", "--net", "--target", str(pid), *argv], capture_output=True, text=True, check=False
    )


def _node_argv(layout: Layout) -> list[str]:
    return [sys.executable, "-m", NODE_MODULE, str(layout.state), layout.name, str(layout.number)]


def _running(name: str, pid: int | None) -> Running:
    if pid is None:
        return Running(name, None)
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Running(name, None)
    kibibytes = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
    return Running(name, pid, kibibytes // 1024)


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _is_init(pid: int) -> bool:
    # unshare's own command line is another; a component of this name would not be the first of its namespace.
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    ids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(ids) > 1 and ids[-1] == "1"


def _namespace(pid: int) -> str | None:
    """The process id namespace, or none for a process that has ended, reaped or not."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None
