"""What a cluster is to the demo and the tests, and which one ``CLUSTER`` selects."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rollway_cluster.current import CurrentCluster
from rollway_cluster.errors import ClusterError
from rollway_cluster.kind import KindCluster
from rollway_cluster.layout import Layout
from rollway_cluster.local import LocalCluster


class Cluster(Protocol):
    """A Kubernetes that can be brought up, used and taken down."""

    @property
    def state(self) -> Path:
        """A folder for what belongs to this cluster."""
        ...

    @property
    def kubeconfig_path(self) -> Path:
        """The kubeconfig file that leads to it."""
        ...

    @property
    def context(self) -> str:
        """The context in that file."""
        ...

    def up(self) -> None:
        """Bring it up, or repair it; at once where it is well."""
        ...

    def down(self) -> None:
        """Take it down and leave nothing."""
        ...

    def status(self) -> bool:
        """Print how it is, and say whether it is well."""
        ...

    def logs(self, component: str | None) -> None:
        """Print a component's log, or what logs there are."""
        ...

    def load_images(self, archives: Sequence[Path]) -> dict[str, str]:
        """Load image archives; each image's name with its digest, by its name."""
        ...

    def kubectl(self) -> Path:
        """A kubectl for it."""
        ...

    def helm(self) -> Path:
        """A helm for it."""
        ...


def select(environment: Mapping[str, str] = os.environ) -> Cluster:
    """The cluster that ``CLUSTER`` names; where it does not, kind if a Docker engine answers, else a local one."""
    name = environment.get("CLUSTER") or ("kind" if docker_answers() else "local")
    match name:
        case "local":
            return LocalCluster(Layout.from_environment(environment))
        case "kind":
            return KindCluster(Layout.from_environment(environment).state.with_name("kind-cluster"))
        case "current":
            return CurrentCluster(environment.get("ROLLWAY_CONTEXT", ""))
        case _:
            raise ClusterError(f"CLUSTER={name} is not one of kind, local and current")


def docker_answers() -> bool:
    """Whether there is a Docker engine, and not merely its client."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        return (
            subprocess.run([docker, "info"], capture_output=True, timeout=10.0, check=False).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False
