"""Two clusters of one machine share nothing, and components are started with what their layout says."""

import json
from pathlib import Path

import pytest

from rollway_cluster import certificates, components, configuration, manifests
from rollway_cluster.errors import ClusterError
from rollway_cluster.layout import Layout, Ports

FIRST = Layout(Path("/state/first"), "first", 0)
SECOND = Layout(Path("/state/second"), "second", 1)


def test_the_networks_of_all_layouts_are_apart() -> None:
    networks = [
        network
        for number in range(16)
        for layout in [Layout(Path("/state"), "x", number)]
        for network in (layout.node_network, layout.pod_network, layout.service_network)
    ]
    for index, network in enumerate(networks):
        assert not any(network.overlaps(other) for other in networks[index + 1 :])


def test_what_lies_on_the_host_is_named_after_the_cluster() -> None:
    assert FIRST.node != SECOND.node
    assert FIRST.cgroup != SECOND.cgroup
    assert FIRST.chain != SECOND.chain


def test_the_state_folder_can_be_chosen() -> None:
    assert Layout.from_environment({"ROLLWAY_CLUSTER_STATE": "/somewhere"}).state == Path("/somewhere")


def test_ten_clusters_can_be_chosen() -> None:
    chosen = [Layout.from_environment({"ROLLWAY_CLUSTER_NUMBER": str(number)}) for number in range(10)]
    assert len({(layout.state, layout.name, layout.number) for layout in chosen}) == len(chosen)
    assert max(len(layout.node) for layout in chosen) <= 15, "longer than a network device's name may be"
    assert Layout.from_environment({}) == chosen[0]


@pytest.mark.parametrize("number", ["10", "-1", "one"])
def test_another_number_is_refused(number: str) -> None:
    with pytest.raises(ClusterError, match=f"ROLLWAY_CLUSTER_NUMBER={number} is not a digit"):
        Layout.from_environment({"ROLLWAY_CLUSTER_NUMBER": number})


def test_a_control_plane_runs_on_loopback_without_a_node(tmp_path: Path) -> None:
    layout = Layout(
        tmp_path, "tests", address="127.0.0.1", ports=Ports(api=1, etcd=2, etcd_peers=3, controllers=4)
    )
    etcd, apiserver, controllers = components.control_plane(layout)
    assert "--listen-client-urls=http://127.0.0.1:2" in etcd.argv
    assert "--bind-address=127.0.0.1" in apiserver.argv
    assert "--secure-port=1" in apiserver.argv
    assert "--etcd-servers=http://127.0.0.1:2" in apiserver.argv
    assert "--endpoint-reconciler-type=none" in apiserver.argv
    assert "--secure-port=4" in controllers.argv


def test_every_file_that_a_component_is_given_is_made(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    certificates.ensure(layout)
    configuration.write(layout, "pause:1")
    for component in (
        *components.control_plane(layout),
        components.containerd(layout),
        *components.node(layout),
    ):
        for argument in component.argv:
            _, _, value = argument.partition("=")
            if value.startswith((str(layout.pki), str(layout.configuration))):
                assert Path(value).exists(), f"{component.name}: {argument}"


def test_the_kubeconfig_names_the_cluster_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    certificates.ensure(layout)
    document = json.loads(layout.kubeconfig.read_text())
    assert document["current-context"] == "rollway-local"
    assert document["clusters"][0]["cluster"]["server"] == "https://10.99.8.2:6443"
    assert layout.kubeconfig.stat().st_mode & 0o077 == 0


def test_certificates_are_made_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    certificates.ensure(layout)
    before = layout.kubeconfig.read_bytes()
    certificates.ensure(layout)
    assert layout.kubeconfig.read_bytes() == before


def test_name_servers_on_the_hosts_loopback_are_left_out() -> None:
    text = "# made by\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch lan\n"
    assert configuration.resolvers(text) == "nameserver 10.0.0.2\n"


def test_names_outside_are_forwarded_only_where_there_is_a_name_server() -> None:
    for forward in (True, False):
        objects = manifests.everything(FIRST, forward=forward)["items"]
        corefile = next(each["data"]["Corefile"] for each in objects if each["kind"] == "ConfigMap")
        assert ("forward . /etc/resolv.conf" in corefile) is forward


def test_the_name_server_has_the_address_that_pods_are_told() -> None:
    objects = manifests.everything(SECOND, forward=True)["items"]
    service = next(
        each for each in objects if each["metadata"]["name"] == "kube-dns" and each["kind"] == "Service"
    )
    assert configuration.kubelet(SECOND)["clusterDNS"] == [service["spec"]["clusterIP"]]
