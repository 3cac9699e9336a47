"""Run the operator: `python -m rollway_operator`."""

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys

from prometheus_client import REGISTRY

from rollway_operator import handlers, lease, telemetry
from rollway_operator.cluster import Cluster, connect
from rollway_operator.controller import Controller
from rollway_operator.errors import SettingsError
from rollway_operator.health import Health
from rollway_operator.lease import Claim, Lease
from rollway_operator.series import Series
from rollway_operator.settings import Settings
from rollway_operator.webhooks import Webhooks

_logger = logging.getLogger("rollway_operator")


async def run(settings: Settings) -> None:
    """Stand by, and work while the lease is held, until a signal ends the process."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    health, series = Health(), Series()
    REGISTRY.register(series)
    # Outside of a pod nothing says that no other process of this name runs.
    identity = settings.identity or f"{socket.gethostname()}_{secrets.token_hex(4)}"
    # Notices are delivered to the end after the lease was given back: they keep no next leader waiting.
    async with (
        health.served(settings.health_port),
        Webhooks(settings.receivers) as webhooks,
        connect() as client,
    ):
        claim = Claim(settings.lease, settings.namespace, identity)
        held = Lease(Cluster(client, lease.unfenced), claim, told=health.lease_answered)
        cluster = Cluster(client, held.writable_for)

        async def work() -> None:
            controller = Controller(cluster, settings, health, series, webhooks.post)
            try:
                await controller.start()
                await handlers.watch(controller, cluster, settings.watch_namespaces)
            finally:
                await controller.stop()

        await lease.lead(held, work, stopping)


def main() -> int:
    """Read the environment and run; the exit code says whether we were asked to end."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    telemetry.configure_logging(settings.log_level)
    telemetry.serve_metrics(settings.metrics_port)
    try:
        asyncio.run(run(settings))
    except Exception:
        _logger.exception("the operator ends")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
