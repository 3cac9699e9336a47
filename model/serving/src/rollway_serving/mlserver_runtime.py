"""The ``mlserver`` runtime: Seldon MLServer in one process, for one model, with Rollway's contract around it.

python -m rollway_serving.mlserver_runtime
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Any

import uvloop
from mlserver import MLServer
from mlserver import Settings as ServerSettings
from mlserver.registry import MultiModelRegistry
from mlserver.settings import ModelParameters, ModelSettings

from rollway_serving import termination
from rollway_serving.errors import ModelLoadFailed, PodFailure, SettingsError
from rollway_serving.lifecycle import Lifecycle
from rollway_serving.limits import Admission
from rollway_serving.metrics import Metrics
from rollway_serving.mlserver_grpc import INFER as GRPC_INFER
from rollway_serving.mlserver_grpc import GrpcServer
from rollway_serving.mlserver_model import RollwayModel
from rollway_serving.mlserver_rest import INFER, INVOCATIONS, RestServer
from rollway_serving.rest import HttpServer, metrics_app
from rollway_serving.settings import Places, Settings

METHODS = (INFER, INVOCATIONS, GRPC_INFER)
_log = logging.getLogger(__name__)


class Server(MLServer):  # type: ignore[misc]
    """MLServer with our REST, gRPC and model; signals and metrics are the process's business, not the library's."""

    def __init__(self, settings: Settings, places: Places, life: Lifecycle) -> None:
        self._rollway = settings
        self._places = places
        self._life = life
        limits = settings.limits
        self._admission = Admission(
            concurrency=limits.max_concurrency, queue=limits.max_queue, seconds=settings.timeout_seconds
        )
        self._metrics = Metrics(settings, METHODS, self._admission)
        super().__init__(_server_settings(settings))
        self._metrics_listener = HttpServer(
            metrics_app(self._metrics), port=settings.metrics_port, settings=settings
        )

    async def load(self) -> None:
        """Load the one model; what goes wrong is a `PodFailure`."""
        await self._model_registry.load(_model_settings(self._rollway))

    async def serve(self) -> None:
        """Run the three listeners until they are stopped."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rest_server.start())
            group.create_task(self._grpc_server.start())
            group.create_task(self._metrics_listener.serve())

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002 - MLServer's signature
        """Stop the listeners, metrics last."""
        await asyncio.gather(self._grpc_server.stop(), self._rest_server.stop())
        await self._metrics_listener.stop()

    async def add_custom_handlers(self, model: RollwayModel) -> RollwayModel:
        """Add MLflow's routes to the REST side."""
        await self._rest_server.add_custom_handlers(model)
        return model

    def _create_model_registry(self) -> MultiModelRegistry:
        return MultiModelRegistry(
            on_model_load=[self.add_custom_handlers],
            model_initialiser=lambda settings: RollwayModel(
                settings, self._rollway, self._places, self._admission, self._metrics
            ),
        )

    def _create_servers(self) -> None:
        parts = (self._settings, self._data_plane, self._model_repository_handlers)
        ours: dict[str, Any] = {
            "rollway": self._rollway,
            "life": self._life,
            "admission": self._admission,
            "metrics": self._metrics,
        }
        self._rest_server = RestServer(*parts, **ours)
        self._grpc_server = GrpcServer(*parts, **ours)

    def _add_signal_handlers(self) -> None:
        """None: `run` owns the signals."""

    def _configure_logger(self) -> None:
        """None: the process has one log format."""


async def run(settings: Settings, places: Places) -> None:
    """Serve the model until told to stop; a failure before it is ready is a `PodFailure`."""
    life = Lifecycle()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(settings, places, life)
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


def main() -> int:
    """Read the settings, run, and leave a reason where that failed."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    places = Places.from_environment(os.environ)
    try:
        settings = Settings.load(places.config / "settings.json")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings, places))
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


def _innermost(error: BaseException) -> BaseException:
    """What is inside the groups that `asyncio.TaskGroup` makes."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _first(*tasks: asyncio.Task[Any]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


def _server_settings(settings: Settings) -> ServerSettings:
    """MLServer's own settings; nothing is read from the environment's ``.env`` file or a model folder."""
    return ServerSettings(
        _env_file=None,
        debug=False,
        parallel_workers=0,
        host="0.0.0.0",  # noqa: S104 - a pod's server is for other pods
        http_port=settings.http_port,
        grpc_port=settings.grpc_port,
        metrics_endpoint=None,
        server_name=settings.name,
        load_models_at_startup=False,
        gzip_enabled=False,
        cache_enabled=False,
    )


def _model_settings(settings: Settings) -> ModelSettings:
    return ModelSettings(
        _env_file=None,
        name=settings.name,
        implementation=RollwayModel,
        versions=[settings.version],
        parameters=ModelParameters(_env_file=None, version=settings.version),
    )


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # A thread that the model left running must not keep the pod.
    os._exit(code)
