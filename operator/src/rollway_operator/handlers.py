"""The only module that knows kopf: it watches our two kinds and tells the controller; nothing else is left to kopf.

No change handlers, timers or daemons: so kopf writes no annotation and no finalizer, and keeps no state.
"""

import logging
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import kopf

from rollway_operator.api.v1alpha1 import GROUP, VERSION
from rollway_operator.cluster import configuration
from rollway_operator.controller import Controller
from rollway_operator.observe import now

_CREDENTIALS_LAST: Final = timedelta(minutes=10)
_SAME_CREDENTIALS_AGAIN: Final = timedelta(seconds=5)


class Backoffs:
    """Delays without an end, for an API server that is away for long: kopf's own list ends, and with it the process."""

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


def registry(controller: Controller) -> kopf.OperatorRegistry:
    """Wire the controller to kopf."""
    handlers = kopf.OperatorRegistry()
    kopf.on.login(registry=handlers)(Login().credentials)

    @kopf.on.startup(registry=handlers)
    async def start(**_: Any) -> None:
        await controller.start()

    @kopf.on.cleanup(registry=handlers)
    async def stop(**_: Any) -> None:
        await controller.stop()

    @kopf.on.probe(registry=handlers, id="resync", retries=1)
    async def probe(**_: Any) -> str:
        if controller.stuck:
            raise kopf.PermanentError("no resync succeeded for a while")
        return "ok"

    @kopf.on.event(GROUP, VERSION, "modeldeployments", registry=handlers)
    async def deployment(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        (controller.deployment_gone if type == "DELETED" else controller.deployment_changed)(dict(body))

    @kopf.on.event(GROUP, VERSION, "modelregistries", registry=handlers)
    async def model_registry(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        (controller.registry_gone if type == "DELETED" else controller.registry_changed)(dict(body))

    return handlers


def settings() -> kopf.OperatorSettings:
    """Set kopf up to wait for the API server rather than to end, and to leave writing to us."""
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
