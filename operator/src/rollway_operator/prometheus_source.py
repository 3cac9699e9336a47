"""Read what model pods counted from Prometheus: the raw counters of its last scrape, and when that was.

    pods ──► one instant query ──► series by pod ──► Counters, or why there are none
             namespace, pod, instance: labels that Prometheus puts there, not the application

A pod is told by the address that the cluster gave it and by its name; what other pods say of themselves is never looked
at. From the counters on, the arithmetic is that of direct reading: increments and resets are computed here.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from rollway_operator.analysis import Counters, Reading
from rollway_operator.counts import (
    LABELS,
    MOST_SERIES,
    NAMES,
    Labels,
    Series,
    UnreadableError,
    count,
    counted,
    series,
)
from rollway_operator.metrics_source import Source, Target
from rollway_operator.prometheus import Prometheus, ProviderError, Sample
from rollway_operator.promql import SCRAPED_AT, counters_of

PODS_A_QUERY: Final = 50
_OWN: Final = {*LABELS, "__name__"}
"""The labels that model servers give."""
_AHEAD: Final = timedelta(seconds=5)
"""So much Prometheus' clock may be ahead of ours."""


class AbsentError(Exception):
    """Prometheus has nothing of a pod, or nothing recent; the message says so, with the pod's name."""


class PrometheusMetrics:
    """Asks Prometheus for what model pods counted."""

    def __init__(self, prometheus: Prometheus, stale: timedelta) -> None:
        """Ask `prometheus`; what it scraped longer ago than `stale` is nothing."""
        self._prometheus = prometheus
        self._stale = stale

    async def read(self, pods: Iterable[Target], at: datetime) -> Reading:
        """Read what each pod had counted when it was scraped last; both a failure and an absence have their reasons."""
        asked = list(pods)
        parts = [asked[start : start + PODS_A_QUERY] for start in range(0, len(asked), PODS_A_QUERY)]
        readings = await asyncio.gather(*(self._read(part, at) for part in parts))
        return Reading(
            at,
            pods={uid: counters for reading in readings for uid, counters in reading.pods.items()},
            missing={uid: why for reading in readings for uid, why in reading.missing.items()},
            absent={uid: why for reading in readings for uid, why in reading.absent.items()},
        )

    async def _read(self, pods: Sequence[Target], at: datetime) -> Reading:
        instances = {pod.uid: _instance(pod) for pod in pods}
        question = counters_of(pods[0].namespace, (pod.name for pod in pods), instances.values())
        try:
            found = _by_pod(await self._prometheus.query(question))
        except ProviderError as error:
            return Reading(at, {}, missing={pod.uid: f"{pod.name}: {error}" for pod in pods})
        pods_counters: dict[str, Counters] = {}
        missing: dict[str, str] = {}
        absent: dict[str, str] = {}
        for pod in pods:
            try:
                scraped = found.get((pod.namespace, pod.name, instances[pod.uid]), _Scraped())
                pods_counters[pod.uid] = self._counters(scraped, at)
            except AbsentError as error:
                absent[pod.uid] = f"{pod.name} {error}"
            except UnreadableError as error:
                missing[pod.uid] = f"{pod.name} {error}"
        return Reading(at, pods_counters, missing, absent)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._prometheus.aclose()

    def _counters(self, scraped: "_Scraped", now: datetime) -> Counters:
        if not scraped.series:
            raise AbsentError("has nothing in Prometheus: is it scraped?")
        at = scraped_at(scraped.times, now, self._stale)
        return replace(scraped.counters(), scraped_at=at)


def scraped_at(times: Iterable[str], now: datetime, stale: timedelta) -> datetime:
    """Say when something was scraped, by the times of its series.

    They are one unless a pod has put times of its own beside its counts. Raises AbsentError where that is longer ago
    than `stale`, and UnreadableError where it is no time, or one to come.
    """
    try:
        at = min(datetime.fromtimestamp(float(time), UTC) for time in times)
    except (ValueError, OverflowError, OSError) as error:
        raise UnreadableError("is in Prometheus without the time of its scrape") from error
    if at > now + _AHEAD:
        ahead = (at - now).total_seconds()
        raise UnreadableError(f"was scraped {ahead:.0f} s from now: Prometheus' clock or ours is wrong")
    if now - at > stale:
        ago = (now - at).total_seconds()
        raise AbsentError(f"was scraped last {ago:.0f} s ago, which is too long")
    return at


class Fallback:
    """Asks one source, and another about what that one has not."""

    def __init__(self, first: Source, other: Source) -> None:
        """Ask `first`, and `other`, which remains the caller's, only where that has nothing."""
        self._first = first
        self._other = other

    async def read(self, pods: Iterable[Target], at: datetime) -> Reading:
        """Read each pod by the one or by the other; the reasons why not are the other's."""
        asked = list(pods)
        reading = await self._first.read(asked, at)
        left = [pod for pod in asked if pod.uid in reading.unread]
        if not left:
            return reading
        rest = await self._other.read(left, at)
        return replace(rest, pods={**reading.pods, **rest.pods})

    async def aclose(self) -> None:
        """Close the connections of the first; those of the other are closed by who made it."""
        await self._first.aclose()


# ------------------------------------------------------------------------------------------------------- the answer


@dataclass
class _Scraped:
    """What an answer has of one pod."""

    series: list[Sample] = field(default_factory=list)
    times: list[str] = field(default_factory=list)

    def counters(self) -> Counters:
        """Read its counters; the labels that Prometheus put there must be the same on all of them."""
        if len(self.series) > MOST_SERIES:
            raise UnreadableError("has more series than model servers have")
        found: dict[Series, int] = {}
        first = self.series[0].put_there(_OWN)
        for sample in self.series:
            if (others := sample.put_there(_OWN)) != first:
                names = sorted({name for name, _ in others ^ first})
                raise UnreadableError(f"is in Prometheus twice, with another {', '.join(names)[:100]}")
            name = sample.labels["__name__"]
            own: Labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k in LABELS))
            each = series(name, own)
            if each in found:
                raise UnreadableError(f"has {name} twice")
            found[each] = count(name, sample.value)
        return counted(found)


def _by_pod(samples: Iterable[Sample]) -> dict[tuple[str, str, str], _Scraped]:
    found: dict[tuple[str, str, str], _Scraped] = defaultdict(_Scraped)
    for sample in samples:
        labels = sample.labels
        pod = found[labels.get("namespace", ""), labels.get("pod", ""), labels.get("instance", "")]
        if labels.get("__name__") in NAMES:
            pod.series.append(sample)
        elif SCRAPED_AT in labels:
            pod.times.append(sample.value)
    return found


def _instance(pod: Target) -> str:
    """Write a pod's address as Prometheus has it in `instance`.

    >>> _instance(Target("u", "fraud-1", "fd00::7", 8082, "team-a"))
    '[fd00::7]:8082'
    """
    return f"[{pod.address}]:{pod.port}" if ":" in pod.address else f"{pod.address}:{pod.port}"
