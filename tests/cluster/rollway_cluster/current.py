"""A cluster that somebody else made, used only if its context is named."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rollway_cluster import binaries
from rollway_cluster.errors import ClusterError


class CurrentCluster:
    """The cluster behind one context of the user's kubeconfig."""

    def __init__(self, context: str) -> None:
        if not context:
            raise ClusterError(
                "CLUSTER=current needs ROLLWAY_CONTEXT=<name>: no cluster is touched that is not named"
            )
        self._context = context

    @property
    def state(self) -> Path:
        """A folder of ours; the cluster has none."""
        return binaries.cache_folder() / "current-cluster"

    @property
    def kubeconfig_path(self) -> Path:
        """The user's own kubeconfig file."""
        named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        return Path(named) if named else Path.home() / ".kube" / "config"

    @property
    def context(self) -> str:
        """The context that was named."""
        return self._context

    def kubectl(self) -> Path:
        """From PATH, or else built."""
        return binaries.on_path_or_built("kubectl")

    def helm(self) -> Path:
        """From PATH, or else built."""
        return binaries.on_path_or_built("helm")

    def up(self) -> None:
        """Check that it answers; it is not ours to start."""
        if not self.status():
            raise ClusterError(f"the cluster of context {self._context} does not answer")

    def down(self) -> None:
        """Refuse."""
        raise ClusterError(f"the cluster of context {self._context} was not made here and is not taken down")

    def status(self) -> bool:
        """Show its nodes."""
        kubectl = [str(self.kubectl()), f"--kubeconfig={self.kubeconfig_path}", f"--context={self._context}"]
        return subprocess.run([*kubectl, "get", "nodes"], check=False).returncode == 0

    def logs(self, component: str | None) -> None:
        """Refuse."""
        raise ClusterError(f"the logs of {component or 'components'} are with whoever runs {self._context}")

    def load_images(self, archives: Sequence[Path]) -> dict[str, str]:
        """Refuse: its nodes pull from a registry."""
        names = ", ".join(path.name for path in archives)
        raise ClusterError(
            f"{self._context} pulls images from a registry: push {names}, and set the charts' values"
        )
