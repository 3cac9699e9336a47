"""The configuration files of containerd, its network plugins, the kubelet, kube-proxy and the scheduler."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from rollway_cluster.layout import Layout

RUNTIME_STATE = Path("/run/rollway")
PLUGINS = Path("/usr/lib/cni")
RUNC = Path("/usr/sbin/runc")


def write(layout: Layout, pause_image: str) -> None:
    """Write every file that a component's command line names."""
    # A folder of its own: containerd takes whatever it finds there for networks.
    (layout.configuration / "network").mkdir(parents=True, exist_ok=True)
    documents = {
        "network/pods.conflist": network(layout),
        "kubelet.json": kubelet(layout),
        "kube-proxy.json": kube_proxy(layout),
        "scheduler.json": scheduler(layout),
    }
    for name, document in documents.items():
        (layout.configuration / name).write_text(json.dumps(document, indent=2) + "\n")
    (layout.configuration / "containerd.toml").write_text(containerd(layout, pause_image))
    (layout.configuration / "resolv.conf").write_text(resolvers(Path("/etc/resolv.conf").read_text()))


def resolvers(text: str) -> str:
    """The host's name servers but for those on its loopback, which the node cannot reach."""
    kept = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and not ip_address(words[1].split("%")[0]).is_loopback:
            kept.append(line)
    return "".join(f"{line}\n" for line in kept)


def network(layout: Layout) -> dict[str, Any]:
    """Pods on one bridge; addresses are given out anew with every start of the node."""
    return {
        "cniVersion": "1.0.0",
        "name": "rollway",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(RUNTIME_STATE / "addresses"),
                    "ranges": [[{"subnet": str(layout.pod_network)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet(layout: Layout) -> dict[str, Any]:
    """One node of a small machine: no eviction, swap and cgroup v1 allowed, control groups under our own."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupRoot": f"/{layout.cgroup}",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "failCgroupV1": False,
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{layout.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{layout.pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{layout.pki}/kubelet-server.key",
        "clusterDNS": [layout.dns_address],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{layout.configuration}/resolv.conf",
        "podLogsDir": f"{layout.data}/pod-logs",
        "volumePluginDir": f"{layout.data}/volume-plugins",
        "oomScoreAdj": 0,
        "nodeStatusUpdateFrequency": "10s",
        "syncFrequency": "10s",
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "maxPods": 110,
    }


def kube_proxy(layout: Layout) -> dict[str, Any]:
    """Services by iptables; the default of one second between changes leaves a Ready pod refused for as long."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": f"{layout.pki}/kube-proxy.kubeconfig"},
        "clusterCIDR": str(layout.pod_network),
        "hostnameOverride": layout.node,
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "oomScoreAdj": 0,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def scheduler(layout: Layout) -> dict[str, Any]:
    """The default profile, without an election among one."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": f"{layout.pki}/scheduler.kubeconfig"},
        "leaderElection": {"leaderElect": False},
    }


def containerd(layout: Layout, pause_image: str) -> str:
    """Overlayfs snapshots, Debian's runc and network plugins; what a restart must forget lies under /run."""
    return f"""version = 3
root = "{layout.data}/containerd"
state = "{RUNTIME_STATE}/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.differ.v1.erofs",
]

[grpc]
  address = "{layout.socket}"

[ttrpc]
  address = "{RUNTIME_STATE}/containerd.ttrpc.sock"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause_image}"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "runc"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = "{RUNC}"
    SystemdCgroup = false

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{PLUGINS}"]
  conf_dir = "{layout.configuration}/network"
"""
