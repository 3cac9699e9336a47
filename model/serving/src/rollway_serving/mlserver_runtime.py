"""The ``mlserver`` runtime: Seldon MLServer in one process, for one model, with Rollway's contract around it.

python -m rollway_serving.mlserver_runtime
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mlserver import MLServer
from mlserver import Settings as ServerSettings
from mlserver.registry import MultiModelRegistry
from mlserver.settings import ModelParameters, ModelSettings

from rollway_serving import process
from rollway_serving.limits import Admission
from rollway_serving.metrics import Metrics
from rollway_serving.mlserver_grpc import INFER as GRPC_INFER
from rollway_serving.mlserver_grpc import GrpcServer
from rollway_serving.mlserver_model import RollwayModel
from rollway_serving.mlserver_rest import INFER, INVOCATIONS, RestServer
from rollway_serving.rest import HttpServer, MetricsApp

if TYPE_CHECKING:
    from rollway_serving.lifecycle import Lifecycle
    from rollway_serving.settings import Places, Settings

METHODS = (INFER, INVOCATIONS, GRPC_INFER)


class Server(MLServer):  # type: ignore[misc]
    """MLServer with our REST, gRPC and model; signals and metrics are the process's business, not the library's."""

    def __init__(self, settings: Settings, places: Places, life: Lifecycle) -> None:
        self._rollway = settings
        self._places = places
        self._life = life
        self._admission = Admission.of(settings)
        self._metrics = Metrics(settings, METHODS, self._admission)
        super().__init__(_server_settings(settings))
        self._metrics_app = MetricsApp(self._metrics)
        self._metrics_listener = HttpServer(self._metrics_app, port=settings.metrics_port, settings=settings)

    async def load(self) -> None:
        """Load the one model; what goes wrong is a `PodFailure`."""
        model: RollwayModel = await self._model_registry.load(_model_settings(self._rollway))
        self._metrics_app.loaded(model.declared())

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
        """None: they are the process's."""

    def _configure_logger(self) -> None:
        """None: the process has one log format."""


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
        extensions=["binary_tensor_data"],
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
    process.run(Server)
