"""A real Kubernetes of one node on this machine, without a container engine."""

import fcntl
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rollway_cluster import (
    binaries,
    certificates,
    cgroups,
    configuration,
    containers,
    health,
    host,
    manifests,
    network,
    processes,
)
from rollway_cluster.errors import ClusterError
from rollway_cluster.layout import Layout


class LocalCluster:
    """The cluster of one layout; several may run side by side."""

    def __init__(self, layout: Layout, say: Callable[[str], None] = print) -> None:
        self.layout = layout
        self._say = say

    @property
    def state(self) -> Path:
        """Everything of this cluster."""
        return self.layout.state

    @property
    def kubeconfig_path(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.layout.kubeconfig

    @property
    def context(self) -> str:
        """The context's name."""
        return self.layout.context

    def kubectl(self) -> Path:
        """The kubectl built with the cluster."""
        return self.layout.bin / "kubectl"

    def helm(self) -> Path:
        """The helm built with the cluster."""
        return self.layout.bin / "helm"

    def up(self) -> None:
        """Leave a healthy cluster alone, let a running one heal, and start or restart any other."""
        host.require(self.layout)
        binaries.build(binaries.CLUSTER, say=self._say)
        with self._lock():
            changed = binaries.link(self.layout.bin, binaries.CLUSTER)
            if processes.init(self.layout) and not changed:
                self._say(f"{self.context}: running")
                if self._heals():
                    return
                self._say(f"{self.context}: does not become healthy by itself, starting it again")
            existed = (self.layout.data / "etcd").exists()
            try:
                self._restart()
            except ClusterError as error:
                if not existed:
                    raise
                self._say(f"{error}\n{self.context}: what it had stored is of no use, starting from nothing")
                self._remove()
                self._restart()

    def down(self) -> None:
        """End everything and delete what the cluster stored; the binaries stay in the cache."""
        host.require_root()
        with self._lock():
            started = time.monotonic()
            self._remove()
            for folder in (self.layout.bin, self.layout.log, self.layout.configuration, self.layout.pki):
                shutil.rmtree(folder, ignore_errors=True)
            self.layout.kubeconfig.unlink(missing_ok=True)
            if not processes.any_node():
                # All clusters of a machine share these; the last one out sees to them.
                network.restore_sysctls()
                processes.clean_folders()
        self._say(f"{self.context}: gone after {time.monotonic() - started:.1f} s")

    def status(self) -> bool:
        """Print every component and what works."""
        running = processes.running(self.layout)
        for component in running:
            state = (
                "not running" if component.pid is None else f"{component.pid:>8} {component.mebibytes:>5} MiB"
            )
            self._say(f"{component.name:<24} {state}")
        if not self.layout.kubeconfig.exists():
            return False
        checks = [(what, check()) for what, check in self._checks()]
        for what, works in checks:
            self._say(f"{what:<24} {'yes' if works else 'no'}")
        return all(works for _, works in checks)

    def logs(self, component: str | None) -> None:
        """Print one log, or the last lines of each."""
        paths = sorted(self.layout.log.glob("*.log"))
        if component is not None:
            paths = [path for path in paths if path.stem == component]
            if not paths:
                raise ClusterError(
                    f"no log of {component}: {', '.join(p.stem for p in self.layout.log.glob('*.log'))}"
                )
            self._say(paths[0].read_text(errors="replace"))
            return
        for path in paths:
            self._say(f"==> {path} <==\n{health.last_lines(path, 5)}\n")

    def load_images(self, archives: Sequence[Path]) -> dict[str, str]:
        """Import docker archives into the node's containerd."""
        if not containers.answers(self.layout):
            raise ClusterError(f"{self.context} does not run: bring it up first")
        loaded: dict[str, str] = {}
        for archive in archives:
            loaded |= containers.load(self.layout, archive)
        return loaded

    def _restart(self) -> None:
        self._release()
        since, started = datetime.now(UTC).replace(microsecond=0), time.monotonic()
        certificates.ensure(self.layout)
        configuration.write(self.layout, containers.image("pause"))
        cgroups.create(self.layout)
        network.connect(self.layout, processes.start(self.layout))

        def reached(what: str, check: Callable[[Layout], bool]) -> None:
            self._await(what, lambda: check(self.layout), started + 180.0)
            self._say(f"{time.monotonic() - started:6.1f} s  {what}")

        reached("containerd answers", health.containerd_answers)
        containers.import_pods(self.layout)
        reached("API server ready", health.api_ready)
        self._apply()
        reached("node Ready", lambda layout: health.node_ready(layout, since))
        reached("NetworkPolicies in force", health.policies_enforced)
        reached("DNS answers", health.dns_answers)
        self._say(f"{self.context}: up; KUBECONFIG={self.layout.kubeconfig}")

    def _heals(self, seconds: float = 60.0) -> bool:
        """Wait a while for what init restarts by itself."""
        started = time.monotonic()
        try:
            for what, check in self._checks():
                self._await(what, check, started + seconds)
        except ClusterError as error:
            self._say(str(error))
            return False
        self._say(f"{self.context}: healthy; KUBECONFIG={self.layout.kubeconfig}")
        return True

    def _checks(self) -> tuple[tuple[str, Callable[[], bool]], ...]:
        return (
            ("components running", lambda: health.all_running(self.layout)),
            ("containerd answers", lambda: health.containerd_answers(self.layout)),
            ("API server ready", lambda: health.api_ready(self.layout)),
            ("node Ready", lambda: health.node_ready(self.layout)),
            ("NetworkPolicies in force", lambda: health.policies_enforced(self.layout)),
            ("DNS answers", lambda: health.dns_answers(self.layout)),
        )

    def _await(self, what: str, check: Callable[[], bool], deadline: float) -> None:
        while not check():
            if processes.init(self.layout) is None:
                log = self.layout.log / "node.log"
                raise ClusterError(f"the node ended; {log} says:\n{health.last_lines(log)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"not in time: {what}; see the logs under {self.layout.log}")
            time.sleep(0.1)

    def _apply(self) -> None:
        forward = bool((self.layout.configuration / "resolv.conf").read_text())
        objects = json.dumps(manifests.everything(self.layout, forward=forward))
        kubectl = [str(self.kubectl()), f"--kubeconfig={self.layout.kubeconfig}"]
        result = subprocess.run(
            [
                *kubectl,
                "apply",
                "--server-side",
                "--force-conflicts",
                "--field-manager=rollway-cluster",
                "-f",
                "-",
            ],
            input=objects,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise ClusterError(f"kubectl apply failed: {result.stderr.strip()}")

    def _release(self) -> None:
        """End the node and give back what it holds of the machine, whatever of it is there."""
        processes.stop(self.layout)
        network.disconnect(self.layout)
        cgroups.remove(self.layout)

    def _remove(self) -> None:
        self._release()
        shutil.rmtree(self.layout.data, ignore_errors=True)
        self.layout.socket.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One ``up`` or ``down`` at a time."""
        self.layout.state.mkdir(parents=True, exist_ok=True)
        with (self.layout.state / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
