"""The life of a server's process, the same for every runtime: load, pass the gates, serve, drain, end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import uvloop

from rollway_serving import termination
from rollway_serving.errors import ModelLoadFailed, PodFailure, SettingsError
from rollway_serving.lifecycle import Lifecycle
from rollway_serving.settings import Places, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    NewServer = Callable[[Settings, Places, Lifecycle], "Server"]

_log = logging.getLogger(__name__)


class Server(Protocol):
    """The listeners of a runtime and its one model."""

    async def load(self) -> None:
        """Load the model and run its gates; what goes wrong is a `PodFailure`."""

    async def serve(self) -> None:
        """Listen until stopped, from before the model is loaded."""

    async def stop(self) -> None:
        """Stop the listeners when all that runs is answered."""


def run(new_server: NewServer) -> NoReturn:
    """Be the process of a runtime: the exit code is 0 where it was told to stop, else there is a reason."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    code = _code(new_server)
    logging.shutdown()
    sys.stdout.flush()
    # A thread that the model left running must not keep the pod.
    os._exit(code)


def _code(new_server: NewServer) -> int:
    places = Places.from_environment(os.environ)
    try:
        settings = Settings.load(places.config / "settings.json")
        # The loop is never closed: it would wait for a model that is still being loaded, and the process ends anyway.
        uvloop.new_event_loop().run_until_complete(_live(new_server, settings, places))
    except SettingsError as error:
        failure: PodFailure = ModelLoadFailed(f"the revision's settings cannot be used: {error}")
    except PodFailure as error:
        failure = error
    except (Exception, SystemExit) as error:  # noqa: BLE001 - uvicorn exits where its port is taken
        _log.exception("the server cannot run")
        failure = ModelLoadFailed(f"the server cannot run: {_innermost(error)}")
    else:
        return 0
    _log.error("%s: %s", failure.reason, failure)
    termination.write_failure(places.termination, failure)
    return 1


async def _live(new_server: NewServer, settings: Settings, places: Places) -> None:
    life = Lifecycle()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = new_server(settings, places, life)
    serving = asyncio.create_task(server.serve())
    loading = asyncio.create_task(server.load())
    stopping = asyncio.create_task(stop.wait())

    # A crash that Python cannot see (a segmentation fault, os._exit) still leaves a reason.
    termination.write_failure(
        places.termination, ModelLoadFailed("the process died while the model was loaded")
    )
    await _first(loading, serving, stopping)
    if not stopping.done():
        await (serving if serving.done() else loading)
    termination.clear(places.termination)
    if not loading.done():
        _log.info("told to stop before the model was ready")
        return
    life.became_ready()
    _log.info("ready: %s serves %s version %s", settings.revision, settings.model_name, settings.version)

    await _first(serving, stopping)
    life.told_to_stop()
    _log.info("draining for %g s", settings.drain_seconds)
    await asyncio.wait([serving], timeout=settings.drain_seconds)
    await server.stop()
    await serving
    _log.info("every request is answered")


def _innermost(error: BaseException) -> BaseException:
    """What is inside the groups that `asyncio.TaskGroup` makes."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _first(*tasks: asyncio.Task[Any]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
