"""The only module that knows kopf: it watches our two kinds and tells the controller; nothing else is left to kopf.

No change handlers, timers or daemons: so kopf writes no annotation and no finalizer, and keeps no state. And no signals
and no probe: kopf ends at answers that it does not expect (an error in a watch, a kind that is gone), and cancels every
task of its loop then. So it has a thread and a loop of its own, and is begun again.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import kopf

from rollway_operator.api.v1alpha1 import GROUP, VERSION
from rollway_operator.cluster import Cluster, configuration
from rollway_operator.controller import Controller
from rollway_operator.domain import Object
from rollway_operator.errors import ClusterError
from rollway_operator.observe import now
from rollway_operator.telemetry import WATCH_BREAKS

_logger = logging.getLogger(__name__)

_KINDS: Final = frozenset({"modeldeployments", "modelregistries"})
_CREDENTIALS_LAST: Final = timedelta(minutes=10)
_SAME_CREDENTIALS_AGAIN: Final = timedelta(seconds=5)


class Backoffs:
    """Delays without an end, for an API server that is away for long: kopf's own list ends, and with it the watch."""

    def __iter__(self) -> Iterator[float]:
        """Give delays that double to half a minute and are spread."""
        delay = 1.0
        while True:
            yield delay * random.uniform(0.7, 1.3)
            delay = min(delay * 2, 30.0)


class Login:
    """Gives kopf credentials that are read anew each time; refused ones are given again only after a while."""

    def __init__(self) -> None:
        self._last: kopf.ConnectionInfo | None = None

    async def credentials(self, **_: Any) -> kopf.ConnectionInfo:
        """Read the service account's token, or what KUBECONFIG names."""
        found = await configuration()
        token = str(found.api_key.get("BearerToken", "")).partition(" ")[2]
        moment = now()
        if self._last and self._last.expiration and self._last.token == (token or None):
            given = self._last.expiration - _CREDENTIALS_LAST
            if moment < given + _SAME_CREDENTIALS_AGAIN:
                raise kopf.TemporaryError("the API server refused credentials that have not changed", delay=5)
        self._last = kopf.ConnectionInfo(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            certificate_path=found.cert_file,
            private_key_path=found.key_file,
            scheme="Bearer" if token else None,
            token=token or None,
            expiration=moment + _CREDENTIALS_LAST,
        )
        return self._last


async def watch(controller: Controller, cluster: Cluster, namespaces: tuple[str, ...]) -> None:
    """Tell the controller of every event in some namespaces (none named: in all), until cancelled."""
    delays = iter(Backoffs())
    while True:
        await _served(cluster)
        watching = Watching(controller, namespaces)
        began = asyncio.get_running_loop().time()
        try:
            await watching.ended
        except Exception as error:  # noqa: BLE001 - whatever ended kopf, the resync goes on, and so must the watch
            _logger.warning("the watch broke and is begun again: %s", error)
        finally:
            watching.stop()
        WATCH_BREAKS.inc()
        if asyncio.get_running_loop().time() - began > _LONG:
            delays = iter(Backoffs())
        await asyncio.sleep(next(delays))


_LONG: Final = 60.0
"""A watch that went on for so long broke by accident, and is begun again without much delay."""


async def _served(cluster: Cluster) -> None:
    """Wait until the API server serves our kinds: kopf looks for them once, when it starts."""
    for delay in Backoffs():
        try:
            missing = _KINDS - await cluster.served(GROUP, VERSION)
        except ClusterError as error:
            _logger.warning("%s", error)
        else:
            if not missing:
                return
            _logger.warning("the API server does not serve %s", ", ".join(sorted(missing)))
        await asyncio.sleep(delay)


class Watching:
    """One run of kopf, in a thread of its own; `ended` is done when it is over, with what ended it."""

    def __init__(self, controller: Controller, namespaces: tuple[str, ...]) -> None:
        self._controller = controller
        self._namespaces = namespaces
        self._ours = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._enough = asyncio.Event()
        self._stopped = False
        self.ended: asyncio.Future[None] = self._ours.create_future()
        # Nothing waits for a daemon: how long kopf takes to end delays neither the next leader nor the process.
        threading.Thread(target=self._thread, name="kopf", daemon=True).start()

    def stop(self) -> None:
        """Have it end soon; nothing is told from here on."""
        self._stopped = True
        if self._loop:
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._enough.set)

    def _thread(self) -> None:
        error: Exception | None = None
        try:
            asyncio.run(self._watch())
        except Exception as ended:  # noqa: BLE001 - told to whoever waits
            error = ended
        self._tell(self._end, error or RuntimeError("kopf ended"))

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    async def _watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stopped:
            return
        await kopf.operator(
            registry=self._registry(),
            settings=settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._enough,
            # Peering, which is off, would use it; where it is absent kopf asks the system for the user's name, and an
            # image's numeric user has none. Its type is not public.
            identity="rollway-operator",  # type: ignore[arg-type]
        )

    def _registry(self) -> kopf.OperatorRegistry:
        controller, handlers = self._controller, kopf.OperatorRegistry()
        kopf.on.login(registry=handlers)(Login().credentials)

        @kopf.on.event(GROUP, VERSION, "modeldeployments", registry=handlers)
        async def deployment(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
            gone = type == "DELETED"
            self._tell(controller.deployment_gone if gone else controller.deployment_changed, dict(body))

        @kopf.on.event(GROUP, VERSION, "modelregistries", registry=handlers)
        async def model_registry(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
            gone = type == "DELETED"
            self._tell(controller.registry_gone if gone else controller.registry_changed, dict(body))

        return handlers

    def _tell(self, what: Callable[[Any], None], about: Object | Exception) -> None:
        if not self._stopped:
            with suppress(RuntimeError):  # our loop has ended
                self._ours.call_soon_threadsafe(what, about)


def settings() -> kopf.OperatorSettings:
    """Set kopf up to wait for the API server rather than to end, and to leave writing to us."""
    # It warns that no signal reaches it in a thread: signals are __main__'s.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    chosen = kopf.OperatorSettings()
    chosen.networking.error_backoffs = Backoffs()
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.networking.enforce_retry_after = True
    chosen.watching.server_timeout = 240
    chosen.watching.client_timeout = 270
    chosen.watching.reconnect_backoff = 1.0
    chosen.watching.chunk_size = 500
    chosen.queueing.worker_limit = (
        None  # a limit counts idle workers, and would slow a start with many objects
    )
    chosen.queueing.error_delays = [1, 2, 5, 10, 30, 60]
    chosen.execution.default_backoff = 15
    chosen.posting.enabled = False
    chosen.posting.level = logging.WARNING
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.process.ultimate_exiting_timeout = 20
    return chosen
