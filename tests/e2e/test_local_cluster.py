"""A local cluster survives what is done to it, and leaves nothing: tried on one of its own, beside the shared one."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rollway_cluster import archives, binaries, cgroups, health, network, processes
from rollway_cluster.api import Api, ApiError
from rollway_cluster.cluster import docker_answers
from rollway_cluster.layout import Layout
from rollway_cluster.local import LocalCluster

PODS = "/api/v1/namespaces/default/pods"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/kube-system/networkpolicies"

pytestmark = [
    pytest.mark.alone,
    pytest.mark.local_cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="a local cluster needs root"),
    pytest.mark.skipif(
        (os.environ.get("CLUSTER") or "local") != "local" or docker_answers(),
        reason="another kind of cluster is used here",
    ),
]


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def machine() -> dict[str, Any]:
    return lent_by_the_host()


@pytest.fixture(scope="module")
def started(machine: dict[str, Any], said: list[str]) -> Iterator[LocalCluster]:
    # Network 15 is the last: as far as can be from those that people number by hand.
    cluster = LocalCluster(Layout(binaries.cache_folder() / "test-cluster", "test", 15), said.append)
    cluster.down()
    yield cluster
    cluster.down()


@pytest.fixture
def cluster(started: LocalCluster) -> LocalCluster:
    """The cluster, repaired of what an earlier test did to it."""
    started.up()
    return started


@pytest.fixture
def api(cluster: LocalCluster) -> Api:
    return Api(cluster.layout)


def lent_by_the_host() -> dict[str, Any]:
    """Everything of this machine that a cluster uses, as it is now."""

    def listed(*argv: str) -> list[str]:
        lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in lines if not line.startswith((":", "#"))]

    hierarchies = [cgroups.ROOT] if cgroups.unified() else list(cgroups.ROOT.iterdir())
    sysctls = (network.FORWARDING, *network.KUBELET_SYSCTLS)
    return {
        "devices": sorted(
            path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith("rollway")
        ),
        "routes": sorted(listed("ip", "route")),
        "rules": {table: rules(table) for table in ("filter", "nat", "mangle")},
        "rules of IPv6": listed("ip6tables-save"),
        "control groups": sorted(str(path) for root in hierarchies for path in root.glob("rollway-*")),
        "mounts": sorted(
            line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if "rollway-" in line
        ),
        "folders": [str(path) for path in map(Path, ("/var/lib/kubelet", "/var/lib/cni")) if path.exists()],
        "sysctls": {name: Path("/proc/sys", *name.split(".")).read_text() for name in sysctls},
    }


def rules(table: str) -> list[str]:
    return subprocess.run(
        ["iptables", "-w", "-t", table, "-S"], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def eventually(what: str, holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def exists(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def processes_of(cluster: LocalCluster) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(cluster.layout.state) in words:
            found.append(words)
    return found


def test_a_second_up_says_at_once_that_all_is_well(cluster: LocalCluster, said: list[str]) -> None:
    pid = processes.init(cluster.layout)
    said.clear()
    cluster.up()
    assert said == [
        "rollway-test: running",
        f"rollway-test: healthy; KUBECONFIG={cluster.kubeconfig_path}",
    ]
    assert processes.init(cluster.layout) == pid


def test_up_repairs_a_cluster_whose_kubelet_and_api_server_were_killed(cluster: LocalCluster) -> None:
    init = processes.init(cluster.layout)
    before = {each.name: each.pid for each in processes.running(cluster.layout)}
    for name in ("kubelet", "kube-apiserver"):
        pid = before[name]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    cluster.up()
    after = {each.name: each.pid for each in processes.running(cluster.layout)}
    assert cluster.status()
    assert after["kubelet"] not in (None, before["kubelet"])
    assert after["etcd"] == before["etcd"]
    assert processes.init(cluster.layout) == init


def test_up_starts_a_killed_node_again_with_what_it_had_stored(cluster: LocalCluster, api: Api) -> None:
    api.request(
        "POST",
        "/api/v1/namespaces/default/configmaps",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}},
    )
    pid = processes.init(cluster.layout)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    cluster.up()
    assert cluster.status()
    assert exists(api, "/api/v1/namespaces/default/configmaps/kept")


def test_a_loaded_image_runs_by_its_digest(cluster: LocalCluster, api: Api, tmp_path: Path) -> None:
    archives.write(cluster.layout.bin / "pause", "rollway/idle:1", tmp_path / "idle.tar")
    loaded = cluster.load_images([tmp_path / "idle.tar"])
    reference = loaded["docker.io/rollway/idle:1"]
    assert reference.startswith("docker.io/rollway/idle@sha256:")
    containers = [{"name": "idle", "image": reference, "imagePullPolicy": "IfNotPresent"}]
    api.request(
        "POST",
        PODS,
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "idle"}, "spec": {"containers": containers}},
    )
    eventually("the pod runs", lambda: api.get(f"{PODS}/idle")["status"]["phase"] == "Running")


def test_a_network_policy_is_enforced_and_lifted(cluster: LocalCluster, api: Api) -> None:
    name_servers = {"matchLabels": {"k8s-app": "kube-dns"}}
    api.request(
        "POST",
        POLICIES,
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "nobody"},
            "spec": {"podSelector": name_servers, "policyTypes": ["Ingress"]},
        },
    )
    eventually("names are refused", lambda: not health.dns_answers(cluster.layout), seconds=5)
    api.request("DELETE", f"{POLICIES}/nobody")
    eventually("names are answered", lambda: health.dns_answers(cluster.layout), seconds=5)


def test_a_claim_gets_a_folder_that_goes_with_it(cluster: LocalCluster, api: Api) -> None:
    folders = cluster.layout.data / "volumes"
    api.request(
        "POST",
        CLAIMS,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        },
    )
    eventually("the claim is bound", lambda: api.get(f"{CLAIMS}/data")["status"].get("phase") == "Bound")
    volume = api.get(f"{CLAIMS}/data")["spec"]["volumeName"]
    assert (folders / volume).is_dir()
    api.request("DELETE", f"{CLAIMS}/data")
    eventually("the folder is gone", lambda: not (folders / volume).exists())
    eventually("the volume is gone", lambda: not exists(api, f"/api/v1/persistentvolumes/{volume}"))


def test_the_metrics_api_tells_the_nodes_memory(cluster: LocalCluster, api: Api) -> None:
    def told() -> bool:
        try:
            return bool(api.get("/apis/metrics.k8s.io/v1beta1/nodes")["items"])
        except ApiError:
            return False

    eventually("there are metrics", told, seconds=90)


def test_pod_security_is_enforced(cluster: LocalCluster, api: Api) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": "restricted", "labels": labels}
    api.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "root", "image": "root"}], "automountServiceAccountToken": False},
    }
    with pytest.raises(ApiError, match="violates PodSecurity"):
        api.request("POST", "/api/v1/namespaces/restricted/pods", pod)


def test_down_leaves_nothing(cluster: LocalCluster, machine: dict[str, Any]) -> None:
    cluster.down()
    assert lent_by_the_host() == machine
    assert processes_of(cluster) == []
    assert [path.name for path in cluster.state.iterdir()] == ["lock"]


def test_down_cleans_up_after_a_node_that_was_killed(cluster: LocalCluster, machine: dict[str, Any]) -> None:
    pid = processes.init(cluster.layout)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    cluster.down()
    assert lent_by_the_host() == machine
    assert processes_of(cluster) == []
