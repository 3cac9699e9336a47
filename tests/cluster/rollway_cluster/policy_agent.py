"""Enforces NetworkPolicies on the local cluster's node: a stand-in for a network plugin, for tests only.

It runs in the node's network namespace and takes effect a moment after a pod has its address, so a pod's first packets
may pass before its policies are in force. kind and k3s bring enforcement that is meant for production.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

from rollway_cluster import policy
from rollway_cluster.api import Api, Mirror
from rollway_cluster.layout import Layout

PATHS = ("/api/v1/pods", "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies")
SECONDS_TO_GATHER_CHANGES = 0.05
# How long kube-proxy, which accepts Service traffic from outside, may stand before us after it started.
SECONDS_BETWEEN_LOOKS = 1.0


def main() -> None:
    """Follow pods, namespaces and policies, and rewrite the chains whenever they come out differently."""
    state, name, number = sys.argv[1:]
    client, changed = Api(Layout(Path(state), name, int(number))), threading.Event()
    mirrors = [Mirror(client, path, changed) for path in PATHS]
    for mirror in mirrors:
        mirror.synced.wait()
    in_force: policy.Chains = {}
    while True:
        pods, namespaces, policies = (mirror.objects() for mirror in mirrors)
        wanted = policy.chains(pods, namespaces, policies)
        if wanted != in_force:
            _put_in_force(wanted)
            in_force = wanted
        _come_first()
        changed.wait(SECONDS_BETWEEN_LOOKS)
        time.sleep(SECONDS_TO_GATHER_CHANGES)
        changed.clear()


def _put_in_force(wanted: policy.Chains) -> None:
    rules = _iptables("-S").stdout.splitlines()
    present = [line.split()[1] for line in rules if line.startswith(f"-N {policy.PARENT}")]
    subprocess.run(
        ["iptables-restore", "-w", "--noflush"],
        input=policy.restore_input(wanted, present),
        text=True,
        check=True,
    )
    print(f"{len(wanted) - 1} chains, {sum(map(len, wanted.values()))} rules", flush=True)


def _come_first() -> None:
    forward = _iptables("-S", "FORWARD").stdout
    if policy.comes_first(forward):
        return
    if f"-j {policy.PARENT}" in forward:
        _iptables("-D", "FORWARD", "-j", policy.PARENT)
    _iptables("-I", "FORWARD", "-j", policy.PARENT)


def _iptables(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["iptables", "-w", *arguments], capture_output=True, text=True, check=True)


if __name__ == "__main__":
    main()
