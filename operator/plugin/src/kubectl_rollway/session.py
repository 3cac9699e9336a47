"""What a command works with: the cluster that is meant, and the time."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from kubectl_rollway.cluster import Cluster, Connect, Place


def _connect(place: Place) -> Cluster:
    from kubectl_rollway.apiserver import connect  # noqa: PLC0415 - a command that asks no cluster starts without it

    return connect(place)


@dataclass(frozen=True)
class Surroundings:
    """What is outside of the process; tests have their own."""

    connect: Connect = _connect
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Session:
    """One command's run."""

    surroundings: Surroundings
    place: Place

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster that is meant."""
        return self.surroundings.connect(self.place)

    @property
    def namespace(self) -> str:
        """The namespace that is meant."""
        return self.place.namespace or self.cluster.namespace

    @property
    def now(self) -> datetime:
        """The time."""
        return self.surroundings.now()

    def looks(self, seconds: float, interval: float) -> Iterator[None]:
        """Give occasions to look, at least one, for so many seconds."""
        end = self.surroundings.clock() + seconds
        while True:
            yield
            left = end - self.surroundings.clock()
            if left <= 0:
                return
            self.surroundings.sleep(min(interval, left))
