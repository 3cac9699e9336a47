"""Requests that share one call of the model: what may go together, and how the answer is parted.

Requests are joined after each was checked against the signature, so one that is wrong never gets this far. MLServer's
own adaptive batching stacks requests before any model sees them, gives all of them the error of one, and knows
nothing of ``/invocations``; so it stays off.

::

    head of the line   INT64 [1, 30]  ┐
    next               INT64 [4, 30]  ├─► one call of 6 rows ──► an answer each
    another kind       FP64  [1, 30]  │      │ fails
    next               INT64 [1, 30]  ┘      └─► a call for each: its own answer or error
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from rollway_serving.signature import has_non_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence


class Waiting(Protocol):
    """A request that waits for the model."""

    @property
    def kind(self) -> Hashable:
        """Only requests of one kind go together."""

    @property
    def rows(self) -> int:
        """How many rows it has."""

    @property
    def since(self) -> float:
        """When it came."""


_Request = TypeVar("_Request", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Joining:
    """How requests share a call, and the calls that answer one and several."""

    rows: int
    """A call has at most so many, unless a single request has more."""
    seconds: float
    """So long the first request of a call waits for others; without it, only those go along that wait already."""
    alone: Callable[[Any], Any]
    together: Callable[[Sequence[Any]], Sequence[Any]]

    def next(
        self, batch: Sequence[_Request], line: Iterable[_Request], now: float
    ) -> tuple[list[_Request], float]:
        """Say who of the line goes along, and for how long it is worth to wait for more."""
        room = self.rows - sum(request.rows for request in batch)
        more: list[_Request] = []
        for request in line:
            if request.kind != batch[0].kind:
                continue
            if request.rows > room:
                return more, 0.0
            more.append(request)
            room -= request.rows
        return more, max(0.0, batch[0].since + self.seconds - now) if room > 0 else 0.0


def kind_of(rows: Any) -> Hashable:
    """What is equal of rows that go into one call: their types, so that joining changes none, and finiteness.

    A model that takes no NaN fails on all that it is called with; requests with one fail among themselves.
    """
    if hasattr(rows, "dtypes"):
        return tuple(rows.dtypes), has_non_finite(rows)
    return rows.dtype, rows.shape[1:], has_non_finite(rows)


def joined(requests: Sequence[Any]) -> Any:
    """Put the rows of requests of one kind below each other."""
    if isinstance(requests[0], np.ndarray):
        return np.concatenate(requests)
    import pandas as pd  # noqa: PLC0415 - a model that takes arrays never pays for it

    return pd.concat(requests, ignore_index=True)


def parted(result: Any, counts: Iterable[int]) -> list[Any]:
    """Give each request as many of the answers as it has rows.

    >>> parted(["a", "b", "c"], [2, 1])
    [['a', 'b'], ['c']]
    """
    if hasattr(result, "tocsr"):
        result = result.tocsr()
    rows = result.iloc if hasattr(result, "iloc") else result
    return [rows[begin:end] for begin, end in pairwise(accumulate(counts, initial=0))]
