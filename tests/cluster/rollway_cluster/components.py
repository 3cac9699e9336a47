"""The components of a cluster and the command lines that start them."""

import sys
from dataclasses import dataclass
from ipaddress import ip_address

from rollway_cluster.layout import Layout


@dataclass(frozen=True)
class Component:
    """One long-running process."""

    name: str
    argv: tuple[str, ...]


def control_plane(layout: Layout) -> tuple[Component, ...]:
    """What stores and reconciles objects; on a loopback address it runs without any node."""
    return etcd(layout), apiserver(layout), controller_manager(layout)


def node(layout: Layout) -> tuple[Component, ...]:
    """What places and runs pods, and lets them be reached; needs the control plane."""
    return (
        scheduler(layout),
        kubelet(layout),
        kube_proxy(layout),
        _agent(layout, "policy-agent", "rollway_cluster.policy_agent"),
        _agent(layout, "storage-agent", "rollway_cluster.storage_agent"),
    )


def etcd(layout: Layout) -> Component:
    """The store."""
    clients = f"http://127.0.0.1:{layout.ports.etcd}"
    peers = f"http://127.0.0.1:{layout.ports.etcd_peers}"
    return Component(
        "etcd",
        (
            f"{layout.bin}/etcd",
            f"--data-dir={layout.data}/etcd",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            # A test cluster may lose its last seconds when the machine loses power.
            "--unsafe-no-fsync",
            "--quota-backend-bytes=2147483648",
            "--log-level=warn",
        ),
    )


def apiserver(layout: Layout) -> Component:
    """The API, with Kubernetes' default admission: Pod Security, CEL and quotas."""
    pki = layout.pki
    # Loopback addresses may not be endpoints of the Service `kubernetes`.
    endpoints = "none" if ip_address(layout.node_address).is_loopback else "lease"
    return Component(
        "kube-apiserver",
        (
            f"{layout.bin}/kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{layout.ports.etcd}",
            f"--bind-address={layout.node_address}",
            f"--advertise-address={layout.node_address}",
            f"--secure-port={layout.ports.api}",
            f"--endpoint-reconciler-type={endpoints}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={pki}/service-accounts.pub",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-cluster-ip-range={layout.service_network}",
            "--allow-privileged=true",
            "--profiling=false",
            # The aggregation layer, for metrics-server.
            f"--requestheader-client-ca-file={pki}/ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
            f"--proxy-client-key-file={pki}/front-proxy-client.key",
        ),
    )


def controller_manager(layout: Layout) -> Component:
    """Deployments, garbage collection, service accounts, certificates and the rest."""
    kubeconfig = f"{layout.pki}/controller-manager.kubeconfig"
    return Component(
        "kube-controller-manager",
        (
            f"{layout.bin}/kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--cert-dir={layout.data}/controller-manager",
            f"--service-account-private-key-file={layout.pki}/service-accounts.key",
            f"--root-ca-file={layout.pki}/ca.crt",
            f"--cluster-signing-cert-file={layout.pki}/ca.crt",
            f"--cluster-signing-key-file={layout.pki}/ca.key",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={layout.ports.controllers}",
            "--allocate-node-cidrs=false",
            # The default rate makes a start five seconds longer.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            # So that nobody waits 15 seconds for what an autoscaler does.
            "--horizontal-pod-autoscaler-sync-period=2s",
            "--profiling=false",
        ),
    )


def scheduler(layout: Layout) -> Component:
    """Places pods."""
    kubeconfig = f"{layout.pki}/scheduler.kubeconfig"
    return Component(
        "kube-scheduler",
        (
            f"{layout.bin}/kube-scheduler",
            f"--config={layout.configuration}/scheduler.json",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--cert-dir={layout.data}/scheduler",
            "--bind-address=127.0.0.1",
            f"--secure-port={layout.ports.scheduler}",
        ),
    )


def containerd(layout: Layout) -> Component:
    """Runs containers and keeps images."""
    return Component(
        "containerd",
        (f"{layout.bin}/containerd", f"--config={layout.configuration}/containerd.toml", "--log-level=info"),
    )


def kubelet(layout: Layout) -> Component:
    """Runs the node's pods."""
    return Component(
        "kubelet",
        (
            f"{layout.bin}/kubelet",
            f"--config={layout.configuration}/kubelet.json",
            f"--kubeconfig={layout.pki}/kubelet.kubeconfig",
            f"--root-dir={layout.data}/kubelet",
            f"--cert-dir={layout.data}/kubelet-pki",
            f"--hostname-override={layout.node}",
            f"--node-ip={layout.node_address}",
        ),
    )


def kube_proxy(layout: Layout) -> Component:
    """Makes Services reachable."""
    return Component(
        "kube-proxy", (f"{layout.bin}/kube-proxy", f"--config={layout.configuration}/kube-proxy.json")
    )


def _agent(layout: Layout, name: str, module: str) -> Component:
    return Component(name, (sys.executable, "-m", module, str(layout.state), layout.name, str(layout.number)))
