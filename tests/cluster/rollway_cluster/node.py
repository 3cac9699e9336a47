"""The node: one process that is init in namespaces of its own, and starts, restarts and reaps the components.

``up`` starts it by ``unshare`` with new process, mount and network namespaces. What the components make in them
(processes, mounts, network devices, iptables rules, sockets under /run) lives and ends with this one process, however
it ends; only control groups and what is written under the state folder outlive it.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rollway_cluster import api, components
from rollway_cluster.components import Component
from rollway_cluster.configuration import RUNTIME_STATE
from rollway_cluster.layout import Layout

DEVICE = "eth0"
# Programs write to these whatever their configuration says; each is hidden below an empty folder of the node's own.
PRIVATE_FOLDERS = ("/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni")
SECONDS_BEFORE_RESTART = 1.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    """Run the node of the cluster that the arguments name."""
    state, name, number = sys.argv[1:]
    layout = Layout(Path(state), name, int(number))
    os.chdir(layout.state)
    _mounts()
    _network(layout)
    init = Init(layout)
    init.start(components.etcd(layout), components.containerd(layout), components.apiserver(layout))
    init.run_until_ready()
    init.start(components.controller_manager(layout), *components.node(layout))
    init.run()


class Init:
    """Holds the components by their process ids, and reaps everything else that ends."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._running: dict[int, Component] = {}
        self._due: list[tuple[float, Component]] = []
        self._signals = {signal.SIGCHLD, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def start(self, *started: Component) -> None:
        """Start components now."""
        for component in started:
            self._running[self._spawn(component)] = component

    def run_until_ready(self) -> None:
        """Mind the components until the API server is ready: those that come next need it."""
        client = api.Api(self._layout)
        while True:
            self._step(0.1)
            try:
                if client.request("GET", "/readyz", timeout=2.0) == "ok":
                    return
            except (OSError, api.ApiError):
                continue

    def run(self) -> None:
        """Mind the components for ever."""
        while True:
            self._step(SECONDS_BEFORE_RESTART)

    def _step(self, seconds: float) -> None:
        received = signal.sigtimedwait(self._signals, seconds)
        if received is not None and received.si_signo == signal.SIGTERM:
            # The kernel ends every process of the namespace with this one.
            sys.exit(0)
        self._reap()
        now = time.monotonic()
        due = [component for when, component in self._due if when <= now]
        self._due = [(when, component) for when, component in self._due if when > now]
        self.start(*due)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            component = self._running.pop(pid, None)
            if component is not None:
                code = os.waitstatus_to_exitcode(status)
                print(f"{component.name} ended ({code}), starting it again", flush=True)
                self._due.append((time.monotonic() + SECONDS_BEFORE_RESTART, component))

    def _spawn(self, component: Component) -> int:
        log = str(self._layout.log / f"{component.name}.log")
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        environment["PATH"] = f"{self._layout.bin}:{PATH}"
        return os.posix_spawn(
            component.argv[0],
            component.argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
        )


def _mounts() -> None:
    # unshare made every mount private; kubelet and containerd need to pass mounts on among themselves.
    _run("mount", "--make-rshared", "/")
    for folder in PRIVATE_FOLDERS:
        _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)
    RUNTIME_STATE.mkdir()


def _network(layout: Layout) -> None:
    while subprocess.run(["ip", "link", "show", DEVICE], capture_output=True, check=False).returncode != 0:
        # ``up`` moves the device into this namespace, whose process id it knows only now.
        time.sleep(0.02)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{layout.node_address}/{layout.node_network.prefixlen}", "dev", DEVICE)
    _run("ip", "link", "set", DEVICE, "up")
    _run("ip", "route", "add", "default", "via", layout.host_address)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")
    pods = str(layout.pod_network)
    _run("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-s", pods, "-o", DEVICE, "-j", "MASQUERADE")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    main()
