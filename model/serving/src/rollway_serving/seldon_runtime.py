"""The ``seldon`` runtime: seldon-core's microservice in one process, for one model, with Rollway's contract around it.

python -m rollway_serving.seldon_runtime
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rollway_serving import gates, process
from rollway_serving.errors import SettingsError
from rollway_serving.limits import Admission
from rollway_serving.metrics import Metrics
from rollway_serving.model import Model
from rollway_serving.rest import Guard, HttpServer, MetricsApp
from rollway_serving.seldon_component import METHODS, Component, Rewards
from rollway_serving.seldon_grpc import GrpcServer
from rollway_serving.seldon_rest import FlaskBridge, application, error_body, route

if TYPE_CHECKING:
    from rollway_serving.lifecycle import Lifecycle
    from rollway_serving.settings import Places, Settings


class Server:
    """The three listeners, and the model once it is loaded."""

    def __init__(self, settings: Settings, places: Places, life: Lifecycle) -> None:
        if settings.batching is not None:
            raise SettingsError(
                "batching: the runtime seldon answers each request by a prediction of its own"
            )
        self._settings = settings
        self._places = places
        self._admission = Admission.of(settings)
        self._metrics = Metrics(settings, METHODS, self._admission)
        self._bridge = FlaskBridge(self._admission)
        guard = Guard(
            self._bridge,
            route=route,
            error=error_body,
            settings=settings,
            life=life,
            admission=self._admission,
            metrics=self._metrics,
        )
        self._rest = HttpServer(guard, port=settings.http_port, settings=settings, error=error_body)
        self._metrics_app = MetricsApp(self._metrics)
        self._metrics_endpoint = HttpServer(self._metrics_app, port=settings.metrics_port, settings=settings)
        self._grpc = GrpcServer(settings, life, self._admission, self._metrics)

    async def load(self) -> None:
        """Load the model and run its gates; only then does anything reach seldon-core."""
        # A thread of its own, for which a server that is told to stop need not wait.
        with_thread = asyncio.get_running_loop().run_in_executor
        model = await with_thread(ThreadPoolExecutor(1, "loader"), self._load)
        component = Component(model, self._settings, self._metrics)
        rewards = Rewards(self._metrics)
        self._bridge.loaded(application(component, rewards))
        self._grpc.loaded(component, rewards)
        self._metrics.loaded(flavor=model.mlmodel.flavor)
        self._metrics_app.loaded(model.declared)

    async def serve(self) -> None:
        """Run the three listeners until they are stopped."""
        async with asyncio.TaskGroup() as group:
            for listener in (self._rest, self._grpc, self._metrics_endpoint):
                group.create_task(listener.serve())

    async def stop(self) -> None:
        """Stop the listeners, metrics last."""
        await asyncio.gather(self._grpc.stop(), self._rest.stop())
        await self._metrics_endpoint.stop()

    def _load(self) -> Model:
        first_pod = gates.is_first_pod(self._places)
        model = Model.load(self._places.model)
        gates.run(model, self._settings, self._places, first_pod=first_pod)
        return model


if __name__ == "__main__":
    process.run(Server)
