"""Run the operator: `python -m rollway_operator`."""

import asyncio
import logging
import os
import sys

import kopf

from rollway_operator import handlers, telemetry
from rollway_operator.cluster import Cluster
from rollway_operator.controller import Controller
from rollway_operator.errors import SettingsError
from rollway_operator.settings import Settings

_logger = logging.getLogger("rollway_operator")


async def run(settings: Settings) -> None:
    """Work until a signal ends the process."""
    async with Cluster.connect() as cluster:
        await kopf.operator(
            registry=handlers.registry(Controller(cluster, settings)),
            settings=handlers.settings(),
            standalone=True,
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
            liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
            # Peering, which is off, would use it; where it is absent kopf asks the system for the user's name, and an
            # image's numeric user has none. Its type is not public.
            identity="rollway-operator",  # type: ignore[arg-type]
        )


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
