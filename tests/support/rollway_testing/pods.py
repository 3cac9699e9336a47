"""Pretended model pods: one server answers on the metrics port of them all, told apart by their loopback addresses.

A pretended kubelet gives a pod `PretendedPods.address_of(its uid)` as its IP address. The operator asks that address;
all of 127.0.0.0/8 leads to this process, and the connection says which one was meant. The text is written by the real
servers' own class, so it is what the operator meets in a cluster.
"""

import atexit
import http.server
import json
import sys
import threading
from contextlib import ExitStack
from functools import cache
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from rollway_serving.metrics import CONTENT_TYPE, Method, Metrics
from rollway_serving.settings import Settings

if TYPE_CHECKING:
    from rollway_serving.limits import Admission

Json = dict[str, Any]

REST: Final = Method("rest", "infer", "predictions")
GRPC: Final = Method("grpc", "infer", "/inference.GRPCInferenceService/ModelInfer")
SIGNATURE: Final[Json] = {
    "inputs": [{"name": "age", "type": "INT64", "shape": [-1], "required": True}],
    "outputs": [{"name": "score", "type": "FP64", "shape": [-1]}],
}
_SETTINGS: Final[Json] = {
    "name": "fraud",
    "namespace": "team-a",
    "revision": "fraud-7c9f12ab",
    "modelName": "fraud",
    "version": "1",
    "timeoutSeconds": 30.0,
    "smokeTest": {"source": "InputExample"},
    "warmup": {"requests": 0},
    "drainSeconds": 5.0,
    "httpPort": 8080,
    "grpcPort": 8081,
    "metricsPort": 8082,
}


class _Running:
    """Stands where a server has its predictions, to say how many run."""

    waiting = 0
    running = 0


class PretendedPod:
    """What one pod has counted, and what its model takes and gives."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.signature: Json | None = SIGNATURE
        """None: the server is of a time before one could ask."""
        self.loaded = True
        """While False, the signature is answered with 503."""
        self.silent = False
        """While True, connections are closed without an answer."""
        self.asked = 0
        """How often it was asked for its metrics."""
        self._running = _Running()
        self._metrics = self._count_anew()

    def answer(
        self, *, ok: int = 0, errors: int = 0, client_errors: int = 0, shed: int = 0, seconds: float = 0.01
    ) -> None:
        """Count requests that ended so, each after `seconds`."""
        for code, number in ((200, ok), (500, errors), (400, client_errors), (429, shed)):
            for _ in range(number):
                self._metrics.answered(REST, code, seconds)

    def hold(self, running: int) -> None:
        """Have so many predictions in progress from now on."""
        self._running.running = running

    def restart(self) -> None:
        """Start the server again: what it counted is gone."""
        self._running = _Running()
        self._metrics = self._count_anew()

    def exposition(self) -> bytes:
        """Give what it answers on /metrics."""
        return self._metrics.exposition()

    def _count_anew(self) -> Metrics:
        return Metrics(Settings.parse(_SETTINGS), (REST, GRPC), cast("Admission", self._running))


class PretendedPods:
    """All pods of a test, by their addresses; a context manager around the server that answers for them."""

    def __init__(self, port: int = 0) -> None:
        """Answer on `port`; 0 leaves the choice to the system."""
        self._pods: dict[str, PretendedPod] = {}
        self._addresses: dict[str, str] = {}
        self._server = _Server(("0.0.0.0", port), _Handler)
        self._server.pods = self
        self._thread = threading.Thread(target=self._server.serve_forever, name="pods", daemon=True)

    @property
    def port(self) -> int:
        """The metrics port of every pod."""
        return int(self._server.server_address[1])

    def address_of(self, uid: str) -> str:
        """Give the address of the pod with this uid: always the same, and no other pod's."""
        if uid not in self._addresses:
            number = len(self._addresses) + 1
            address = f"127.{64 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
            self._addresses[uid] = address
            self._pods[address] = PretendedPod()
        return self._addresses[uid]

    def of(self, uid: str) -> PretendedPod:
        """Give the pod with this uid."""
        return self._pods[self.address_of(uid)]

    def __getitem__(self, address: str) -> PretendedPod:
        """Give the pod at an address."""
        return self._pods[address]

    def get(self, address: str) -> PretendedPod | None:
        """Give the pod at an address, if there is one."""
        return self._pods.get(address)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@cache
def everybodys() -> PretendedPods:
    """Give the pods of all tests of this process: an operator must know their port before it starts."""
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(PretendedPods())


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    pods: PretendedPods

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing where the client is gone: an operator that asked was killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers for the pod whose address the connection came to."""

    server: _Server

    def do_GET(self) -> None:
        """Answer as a model pod's metrics port does."""
        pod = self.server.pods.get(str(self.connection.getsockname()[0]))
        if pod is None or pod.silent:
            return
        if self.path == "/metrics":
            pod.asked += 1
            self._answer(HTTPStatus.OK, CONTENT_TYPE, pod.exposition())
        elif self.path == "/signature" and pod.signature is not None:
            status = HTTPStatus.OK if pod.loaded else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "application/json", json.dumps(pod.signature if pod.loaded else {}).encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "application/json", b'{"error": "not found"}')

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
