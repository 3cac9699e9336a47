"""A cluster by kind, in a Docker engine's containers; written to kind's documentation and not tried yet."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rollway_cluster import archives, binaries
from rollway_cluster.errors import ClusterError

NAME = "rollway"
NODE = f"{NAME}-control-plane"


class KindCluster:
    """The kind cluster named ``rollway``, with a kubeconfig file of its own."""

    def __init__(self, state: Path) -> None:
        self._state = state

    @property
    def state(self) -> Path:
        """Where the kubeconfig file is."""
        return self._state

    @property
    def kubeconfig_path(self) -> Path:
        """The kubeconfig file, apart from the user's own."""
        return self._state / "kubeconfig"

    @property
    def context(self) -> str:
        """kind's name for it."""
        return f"kind-{NAME}"

    def kubectl(self) -> Path:
        """From PATH, or else built."""
        return binaries.on_path_or_built("kubectl")

    def helm(self) -> Path:
        """From PATH, or else built."""
        return binaries.on_path_or_built("helm")

    def up(self) -> None:
        """Create it unless it exists."""
        self._state.mkdir(parents=True, exist_ok=True)
        if NAME in self._kind("get", "clusters").split():
            self._kind("export", "kubeconfig", "--name", NAME, "--kubeconfig", str(self.kubeconfig_path))
            print(f"{self.context}: exists; KUBECONFIG={self.kubeconfig_path}")
            return
        self._kind(
            "create", "cluster", "--name", NAME, "--kubeconfig", str(self.kubeconfig_path), "--wait", "180s"
        )
        print(f"{self.context}: up; KUBECONFIG={self.kubeconfig_path}")

    def down(self) -> None:
        """Delete it."""
        self._kind("delete", "cluster", "--name", NAME, "--kubeconfig", str(self.kubeconfig_path))
        shutil.rmtree(self._state, ignore_errors=True)
        print(f"{self.context}: gone")

    def status(self) -> bool:
        """Show its node."""
        kubectl = [str(self.kubectl()), f"--kubeconfig={self.kubeconfig_path}", f"--context={self.context}"]
        return subprocess.run([*kubectl, "get", "nodes"], check=False).returncode == 0

    def logs(self, component: str | None) -> None:
        """Print the node's journal, whole or of one unit (`kubelet`, `containerd`)."""
        unit = [] if component is None else ["--unit", component]
        subprocess.run(["docker", "exec", NODE, "journalctl", "--no-pager", *unit], check=False)

    def load_images(self, files: Sequence[Path]) -> dict[str, str]:
        """Load archives into the node, and tag each image by its digest, since no registry knows it."""
        loaded = {}
        for archive in files:
            self._kind("load", "image-archive", str(archive), "--name", NAME)
            for name in archives.names(archive):
                rows = self._ctr("images", "ls", f"name=={name}").splitlines()[1:]
                reference = f"{name.rpartition(':')[0]}@{rows[0].split()[2]}"
                self._ctr("images", "tag", "--force", name, reference)
                loaded[name] = reference
        return loaded

    def _ctr(self, *arguments: str) -> str:
        return _output("docker", "exec", NODE, "ctr", "--namespace", "k8s.io", *arguments)

    def _kind(self, *arguments: str) -> str:
        kind = shutil.which("kind")
        if kind is None:
            raise ClusterError(
                "a Docker engine answers, but kind is not on PATH: install it, or use CLUSTER=local"
            )
        return _output(kind, *arguments)


def _output(*argv: str) -> str:
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ClusterError(f"{' '.join(argv)} failed:\n{result.stderr.strip()}")
    return result.stdout
