"""Where a server is in its life.

There are three phases and no way back::

    loading ──► ready ──► draining

A server that is told to stop while it loads has nobody to wait for: it just ends.
"""

from __future__ import annotations

import enum

from rollway_serving.errors import NotReadyError


class Phase(enum.Enum):
    """What the server may be asked."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """The one place that knows the phase; REST, gRPC and the model ask it."""

    def __init__(self) -> None:
        self._phase = Phase.LOADING

    @property
    def phase(self) -> Phase:
        """The present phase."""
        return self._phase

    @property
    def accepts_traffic(self) -> bool:
        """Whether a probe should say ready."""
        return self._phase is Phase.READY

    @property
    def serves(self) -> bool:
        """Whether a request gets an answer: also while draining, when nobody should come any more."""
        return self._phase is not Phase.LOADING

    def check_serves(self) -> None:
        """Refuse a request that comes too early."""
        if not self.serves:
            raise NotReadyError(f"the server is {self._phase.value}")

    @property
    def is_draining(self) -> bool:
        """Whether clients should be told to go elsewhere."""
        return self._phase is Phase.DRAINING

    def became_ready(self) -> None:
        """The model has passed its gates."""
        if self._phase is Phase.LOADING:
            self._phase = Phase.READY

    def told_to_stop(self) -> None:
        """The process got SIGTERM."""
        if self._phase is Phase.READY:
            self._phase = Phase.DRAINING
