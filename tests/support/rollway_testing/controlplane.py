"""A real API server with etcd and the controller manager, on loopback and without a node: pods are made, none runs."""

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from rollway_cluster import binaries, certificates, components, prometheus, traefik
from rollway_cluster.client import Client
from rollway_cluster.images import REPOSITORY
from rollway_cluster.layout import Layout, Ports
from rollway_testing.gateways import ROUTES
from rollway_testing.kubernetes import ApiError, Kubernetes
from rollway_testing.processes import Server, ServerFailedError, free_port
from rollway_testing.waiting import eventually

_SECONDS_TO_START = 60.0
_KUBERNETES = tuple(module for module in binaries.MODULES if module.name == "kubernetes")


class ControlPlane:
    """Three child processes and a kubeconfig; what they stored stays between ``stop()`` and ``start()``."""

    def __init__(self, path: Path) -> None:
        """Keep everything under ``path``."""
        ports = (free_port() for _ in range(5))
        self._layout = Layout(state=path, name="test", address="127.0.0.1", ports=Ports(*ports))
        self._components: list[_Component] = []
        self._connection = ExitStack()
        self._api: Kubernetes | None = None

    @property
    def api(self) -> Kubernetes:
        """The API server, as the administrator reads and writes it."""
        assert self._api is not None, "the control plane does not run"
        return self._api

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig file."""
        return self._layout.kubeconfig

    @property
    def programs(self) -> Path:
        """The folder that holds kubectl."""
        return self._layout.bin

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._layout.server

    @property
    def authority(self) -> Path:
        """The certificate that the API server's is signed by."""
        return self._layout.pki / "ca.crt"

    def start(self) -> Self:
        """Start all three and return when objects can be made."""
        binaries.build(_KUBERNETES)
        binaries.link(self._layout.bin, _KUBERNETES)
        certificates.ensure(self._layout)
        try:
            for component in components.control_plane(self._layout):
                process = _Component(self, component)
                self._components.append(process)
                process.start()
            self._await_service_account()
            kubectl = Client(
                self._layout.bin / "kubectl", Path("helm"), self.kubeconfig, self._layout.context
            )
            self._api = self._connection.enter_context(Kubernetes.connect(kubectl))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop all three, the store last."""
        self._connection.close()
        while self._components:
            self._components.pop().stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl as the administrator and return what it printed; its complaint is the error's text."""
        argv = [str(self._layout.bin / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    def apply_crds(self) -> None:
        """Have the API server know our kinds."""
        self.kubectl("apply", "--server-side", f"--filename={REPOSITORY / 'crds'}")
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        # The server says so a moment before it has made itself ready to store them.
        ours = ("ModelDeployment", "ModelRegistry")
        eventually(lambda: self._serves(*ours), within=30, what="our kinds are served")

    def apply_gateway_api(self) -> None:
        """Have the API server know routes, too."""
        self.kubectl("apply", "--server-side", f"--filename={traefik.definitions()}")
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        eventually(lambda: self._serves(*ROUTES), within=30, what="routes are served")

    def apply_monitoring_api(self) -> None:
        """Have the API server know monitors, too."""
        files = [f"--filename={file}" for file in prometheus.definitions()]
        self.kubectl("apply", "--server-side", *files)
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        eventually(lambda: self._serves("PodMonitor"), within=30, what="monitors are served")

    def is_ready(self) -> bool:
        """Tell whether the API server answers."""
        try:
            self.kubectl("get", "--raw=/readyz")
        except KubectlError:
            return False
        return True

    def _serves(self, *kinds: str) -> bool:
        try:
            for kind in kinds:
                self.api.list(kind)
        except ApiError:
            return False
        return True

    def _await_service_account(self) -> None:
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self.kubectl("get", "serviceaccounts", "--namespace=default", "--output=name"):
            if time.monotonic() > deadline:
                raise ServerFailedError("the controller manager made no service account")
            time.sleep(0.1)


class KubectlError(RuntimeError):
    """kubectl refused; the message is its own."""


class _Component(Server):
    def __init__(self, plane: ControlPlane, component: components.Component) -> None:
        super().__init__(plane.kubeconfig.parent / "log" / component.name)
        self._plane = plane
        self._component = component

    def command(self) -> list[str]:
        argv = list(self._component.argv)
        if self._component.name == "kube-controller-manager":
            # Pods that pretend to run have addresses of this machine, which no endpoint may have.
            argv.append("--controllers=*,-endpoints-controller,-endpointslice-controller")
        return argv

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        if self._component.name != "kube-apiserver":
            return
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self._plane.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailedError(f"{self._component.name} is not ready: see {self.log}")
            time.sleep(0.1)
