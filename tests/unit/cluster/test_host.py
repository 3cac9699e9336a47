"""A machine that cannot run a local cluster is told why, and gets its settings back from one that could."""

import os
from pathlib import Path

import pytest

from rollway_cluster import cgroups, host, network
from rollway_cluster.errors import ClusterError
from rollway_cluster.layout import Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))  # no modprobe
    return Layout(Path("/var/tmp/rollway"))


def refusal(layout: Layout) -> str:
    with pytest.raises(ClusterError) as raised:
        host.require(layout)
    return str(raised.value)


def test_without_root_nothing_else_is_looked_at(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert (
        refusal(layout)
        == "a local cluster needs root: be root, or start a Docker engine and use CLUSTER=kind"
    )


def test_missing_packages_are_named_in_one_command(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "PACKAGES", {"runc": tmp_path / "runc", "conntrack": tmp_path / "conntrack"})
    assert "- missing Debian packages: apt-get install runc conntrack" in refusal(layout).splitlines()


def test_missing_control_groups_are_named(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cpu", "memory"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    assert f"- no control groups for cpuset, pids under {tmp_path}" in refusal(layout).splitlines()


def test_a_state_folder_too_long_for_sockets_is_refused(layout: Layout) -> None:
    assert "too long for a socket: set ROLLWAY_CLUSTER_STATE" in refusal(
        Layout(Path("/var/tmp") / ("x" * 100))
    )


def test_a_state_folder_that_the_node_cannot_see_is_refused(layout: Layout) -> None:
    assert "/run/rollway is hidden from the node" in refusal(Layout(Path("/run/rollway")))


def test_kernel_settings_are_set_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, setting = tmp_path / "saved", tmp_path / "setting"
    monkeypatch.setattr(network, "SAVED_SYSCTLS", saved)
    monkeypatch.setattr(network, "SYSCTLS", tmp_path)
    saved.write_text("setting 0\n")
    setting.write_text("1")
    network.restore_sysctls()
    assert setting.read_text() == "0"
    assert not saved.exists()
