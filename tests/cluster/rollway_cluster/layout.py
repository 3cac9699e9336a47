"""Names, addresses, ports and folders of one local cluster: all that two on one machine must not share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from rollway_cluster.binaries import cache_folder
from rollway_cluster.errors import ClusterError


@dataclass(frozen=True)
class Ports:
    """Where the control plane listens; a node has all of them to itself."""

    api: int = 6443
    etcd: int = 2379
    etcd_peers: int = 2380
    controllers: int = 10257
    scheduler: int = 10259


@dataclass(frozen=True)
class Layout:
    """One local cluster; ``number`` (0 to 15) selects its networks, ``address`` replaces the node's own address."""

    state: Path
    name: str = "local"
    number: int = 0
    address: str | None = None
    ports: Ports = field(default_factory=Ports)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Layout":
        """The cluster that the command line speaks of: one of ten, which can run beside each other."""
        number = environment.get("ROLLWAY_CLUSTER_NUMBER") or "0"
        if number not in set("0123456789"):
            raise ClusterError(f"ROLLWAY_CLUSTER_NUMBER={number} is not a digit")
        suffix = "" if number == "0" else f"-{number}"
        state = environment.get("ROLLWAY_CLUSTER_STATE")
        folder = Path(state).absolute() if state else cache_folder() / f"local-cluster{suffix}"
        return cls(folder, f"local{suffix}", int(number))

    @property
    def bin(self) -> Path:
        """A folder with every command by its name."""
        return self.state / "bin"

    @property
    def pki(self) -> Path:
        """Keys, certificates and the components' kubeconfig files."""
        return self.state / "pki"

    @property
    def configuration(self) -> Path:
        """The components' configuration files."""
        return self.state / "configuration"

    @property
    def data(self) -> Path:
        """What the components write: gone after ``down``."""
        return self.state / "data"

    @property
    def log(self) -> Path:
        """One log file a component."""
        return self.state / "log"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.state / "kubeconfig"

    @property
    def socket(self) -> Path:
        """Where containerd answers."""
        return self.state / "containerd.sock"

    @property
    def context(self) -> str:
        """The context's name in the kubeconfig."""
        return f"rollway-{self.name}"

    @property
    def node(self) -> str:
        """The node's name, and its network device's on the host."""
        return f"rollway-{self.name}"

    @property
    def cgroup(self) -> str:
        """The control group, in every hierarchy, under which the kubelet makes its own."""
        return f"rollway-{self.name}"

    @property
    def chain(self) -> str:
        """The iptables chain on the host, in the filter and nat tables."""
        return f"ROLLWAY-{self.name.upper()}"

    @property
    def node_network(self) -> IPv4Network:
        """Host and node."""
        return IPv4Network(f"10.99.{8 + self.number}.0/24")

    @property
    def pod_network(self) -> IPv4Network:
        """Pods."""
        return IPv4Network(f"10.98.{self.number}.0/24")

    @property
    def service_network(self) -> IPv4Network:
        """Services."""
        return IPv4Network(f"10.96.{16 * self.number}.0/20")

    @property
    def host_address(self) -> str:
        """The host as the node sees it."""
        return str(self.node_network[1])

    @property
    def node_address(self) -> str:
        """The node as the host sees it."""
        return self.address or str(self.node_network[2])

    @property
    def api_service_address(self) -> str:
        """The API server as pods see it."""
        return str(self.service_network[1])

    @property
    def dns_address(self) -> str:
        """The cluster's name server."""
        return str(self.service_network[10])

    @property
    def server(self) -> str:
        """The API server's address for everything outside pods."""
        return f"https://{self.node_address}:{self.ports.api}"
