"""What the host lends the node: a device with routes, forwarding and masquerade, and takes back."""

import subprocess
from pathlib import Path

from rollway_cluster.errors import ClusterError
from rollway_cluster.layout import Layout
from rollway_cluster.node import DEVICE

SYSCTLS = Path("/proc/sys")
FORWARDING = "net.ipv4.ip_forward"
# The kubelet sets these for the whole machine.
KUBELET_SYSCTLS = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)


# Under /run, so that what an earlier boot had is forgotten.
SAVED_SYSCTLS = Path("/run/rollway-cluster-sysctls")


def connect(layout: Layout, pid: int) -> None:
    """Join host and node, and let the node's packets out."""
    _save_sysctls()
    _sysctl(FORWARDING).write_text("1")
    link = layout.node
    _run("ip", "link", "add", link, "type", "veth", "peer", "name", DEVICE, "netns", str(pid))
    _run("ip", "address", "add", f"{layout.host_address}/{layout.node_network.prefixlen}", "dev", link)
    _run("ip", "link", "set", link, "up")
    for network in (layout.pod_network, layout.service_network):
        _run("ip", "route", "add", str(network), "via", layout.node_address, "dev", link)
    for table, parent, rules in _chains(layout):
        _run("iptables", "-w", "-t", table, "-N", layout.chain)
        for rule in rules:
            _run("iptables", "-w", "-t", table, "-A", layout.chain, *rule)
        _run("iptables", "-w", "-t", table, "-I", parent, "-j", layout.chain)


def disconnect(layout: Layout) -> None:
    """Take everything of ``connect`` back, whatever of it is there."""
    for table, parent, _ in _chains(layout):
        for command in (("-D", parent, "-j", layout.chain), ("-F", layout.chain), ("-X", layout.chain)):
            _run("iptables", "-w", "-t", table, *command, check=False)
    # The routes go with the device.
    _run("ip", "link", "delete", layout.node, check=False)


def restore_sysctls() -> None:
    """Set the kernel's settings as they were before the first cluster started."""
    if SAVED_SYSCTLS.exists():
        for line in SAVED_SYSCTLS.read_text().splitlines():
            name, value = line.split()
            _sysctl(name).write_text(value)
        SAVED_SYSCTLS.unlink()


def _chains(layout: Layout) -> tuple[tuple[str, str, tuple[tuple[str, ...], ...]], ...]:
    link, network = layout.node, str(layout.node_network)
    return (
        ("filter", "FORWARD", (("-i", link, "-j", "ACCEPT"), ("-o", link, "-j", "ACCEPT"))),
        ("nat", "POSTROUTING", (("-s", network, "!", "-o", link, "-j", "MASQUERADE"),)),
    )


def _sysctl(name: str) -> Path:
    return SYSCTLS / name.replace(".", "/")


def _save_sysctls() -> None:
    if not SAVED_SYSCTLS.exists():
        lines = [f"{name} {_sysctl(name).read_text().strip()}\n" for name in (FORWARDING, *KUBELET_SYSCTLS)]
        SAVED_SYSCTLS.write_text("".join(lines))


def _run(*argv: str, check: bool = True) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and result.returncode != 0:
        raise ClusterError(f"{' '.join(argv)} failed: {result.stderr.strip()}")
