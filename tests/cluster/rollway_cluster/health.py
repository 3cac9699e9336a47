"""Asks a local cluster whether its parts work."""

import secrets
import socket
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rollway_cluster import containers, policy, processes
from rollway_cluster.api import Api, ApiError
from rollway_cluster.layout import Layout

NAME = "kubernetes.default.svc.cluster.local"
# How long a node may be silent; the kubelet renews its lease every ten seconds.
LEASE_LASTS = timedelta(seconds=40)


def containerd_answers(layout: Layout) -> bool:
    """Whether images can be imported."""
    return containers.answers(layout)


def api_ready(layout: Layout) -> bool:
    """Whether objects can be applied: the API server is ready and pods can be admitted."""
    try:
        api = Api(layout)
        if api.request("GET", "/readyz", timeout=3.0) != "ok":
            return False
        return all(
            api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default", timeout=3.0)
            for namespace in ("default", "kube-system")
        )
    except (OSError, ApiError):
        return False


def node_ready(layout: Layout, since: datetime | None = None) -> bool:
    """Whether the node says that it is Ready, lately or since a moment: what it said before a restart is void."""
    since = since or datetime.now(UTC) - LEASE_LASTS
    try:
        api = Api(layout)
        node = api.get(f"/api/v1/nodes/{layout.node}", timeout=3.0)
        conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", ())}
        if conditions.get("Ready") != "True":
            return False
        # A new node renews its lease only after ten seconds.
        if datetime.fromisoformat(node["metadata"]["creationTimestamp"]) >= since:
            return True
        lease = api.get(
            f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{layout.node}", timeout=3.0
        )
        return datetime.fromisoformat(lease["spec"]["renewTime"]) >= since
    except (OSError, ApiError):
        return False


def dns_answers(layout: Layout) -> bool:
    """Whether the cluster's name server answers at its Service's address: CoreDNS, kube-proxy and routes at once."""
    number = secrets.randbits(16)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
    question = struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">B2H", 0, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.5)
        try:
            asking.sendto(question, (layout.dns_address, 53))
            answer = asking.recv(512)
        except OSError:
            return False
    return answer[:2] == question[:2] and socket.inet_aton(layout.api_service_address) in answer


def policies_enforced(layout: Layout) -> bool:
    """Whether packets between pods pass the NetworkPolicies' rules."""
    return policy.comes_first(processes.in_network(layout, "iptables", "-w", "-S", "FORWARD").stdout)


def all_running(layout: Layout) -> bool:
    """Whether every component has a process."""
    return all(component.pid is not None for component in processes.running(layout))


def last_lines(path: Path, count: int = 20) -> str:
    """The end of a log file."""
    if not path.exists():
        return f"{path} does not exist"
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
