"""``CLUSTER`` selects a cluster, and none is touched that was not named."""

from pathlib import Path

import pytest

from rollway_cluster import cluster
from rollway_cluster.current import CurrentCluster
from rollway_cluster.errors import ClusterError
from rollway_cluster.kind import KindCluster
from rollway_cluster.local import LocalCluster


def program(folder: Path, name: str, code: int) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("code", "selected"), [(0, KindCluster), (1, LocalCluster)])
def test_kind_is_taken_where_a_docker_engine_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, selected: type
) -> None:
    program(tmp_path, "docker", code)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isinstance(cluster.select({}), selected)


def test_a_local_cluster_is_taken_where_there_is_no_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isinstance(cluster.select({}), LocalCluster)


def test_the_current_cluster_must_be_named() -> None:
    with pytest.raises(ClusterError, match="ROLLWAY_CONTEXT"):
        cluster.select({"CLUSTER": "current"})


def test_a_named_cluster_is_never_taken_down() -> None:
    named = cluster.select({"CLUSTER": "current", "ROLLWAY_CONTEXT": "production"})
    assert isinstance(named, CurrentCluster)
    with pytest.raises(ClusterError, match="production was not made here"):
        named.down()


def test_an_unknown_cluster_is_refused() -> None:
    with pytest.raises(ClusterError, match="CLUSTER=minikube is not one of"):
        cluster.select({"CLUSTER": "minikube"})
