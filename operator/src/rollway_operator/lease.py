"""Leadership by a coordination.k8s.io Lease: one replica acts, the others stand by.

    acquire ──► held ──► lost, or released on a clean stop
       ▲                   │
       └───────────────────┘

Nobody's wall clock is trusted: the times in the record are for people. A holder counts from just before it sent the
write that was confirmed last; everybody else from when they saw the record change. Since the server cannot confirm a
write before it was sent, nor show it before it was made, the holder always gives up first. Who writes is settled by
the record's resourceVersion: of two writes on the same version the server takes one.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from rollway_operator.cluster import Cluster, Json
from rollway_operator.errors import ClusterError, ConflictError
from rollway_operator.observe import now
from rollway_operator.telemetry import LEADER

_logger = logging.getLogger(__name__)

DURATION: Final = 15.0
"""So long a record that does not change is left to its holder. Together with one RETRY it is the longest time for which
a dead leader is missed; shorter, and a slow API server or a busy node would cost the leader its lease."""

DEADLINE: Final = 10.0
"""So long after its last confirmed renewal a leader begins writes; the rest is time for those under way."""

RETRY: Final = 2.0
"""Time between two attempts: five renewals may fail before the lease is lost."""

MARGIN: Final = 2.0
"""So long before the lease ends a write must be over: clocks run at other rates, and aiohttp rounds time-outs up to
whole seconds."""

CALL: Final = DEADLINE / 2
"""The longest that one call for the lease may take, so that one that is lost leaves time for another."""

_AGAIN: Final = 5.0
"""How long to wait before work that failed is begun again."""


def unfenced() -> float:
    """Let the lease's own writes, which open and close the fence of all others, take as long as one call may."""
    return CALL


def monotonic() -> float:
    """Give seconds that only go forward, also while the machine sleeps where the system can count that."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Claim:
    """What one replica knows of the record, and what follows; it asks neither a clock nor the server."""

    def __init__(self, name: str, namespace: str, identity: str) -> None:
        self.name = name
        self.namespace = namespace
        self.identity = identity
        self._live: Json | None = None
        self._unchanged_since = 0.0
        self._mine: Mapping[str, Any] | None = None
        self._confirmed: float | None = None

    @property
    def holder(self) -> str:
        """Who the record names; empty when nobody."""
        return str(_spec(self._live).get("holderIdentity") or "")

    def writable_for(self, moment: float) -> float:
        """Say how long a write that is sent now may take; 0 where none may be sent."""
        if self._confirmed is None:
            return 0.0
        age = moment - self._confirmed
        return DURATION - MARGIN - age if age < DEADLINE else 0.0

    def see(self, found: Json | None, moment: float) -> None:
        """Take note of what the server has; a record that vanished counts as one that did not change."""
        if found is None:
            self._live = {"spec": _spec(self._live)} if self._live else None
            return
        if self._live is None or _spec(found) != _spec(self._live):
            self._unchanged_since = moment
        self._live = found
        if self._mine is not None and not self._is_mine(found):
            self.drop()

    def may_take(self, moment: float) -> bool:
        """Say whether the record is ours or free, or its holder has been silent for as long as it promised to speak."""
        if self._live is None or self.holder in ("", self.identity):
            # Our own name in a record that is not this process's own: the container was started again, and the kubelet
            # does not start one beside another. Waiting for ourselves would only be downtime.
            return True
        return moment - self._unchanged_since >= _promised(_spec(self._live))

    def record(self, stamp: datetime) -> Json:
        """Make the record that takes or renews the lease, on the very version that was seen."""
        before = _spec(self._live)
        renewing = self._mine is not None
        wanted = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(DURATION),
            "acquireTime": before["acquireTime"] if renewing else _written(stamp),
            "renewTime": _after(before.get("renewTime"), stamp),
            "leaseTransitions": before.get("leaseTransitions", 0) + (not renewing and self._live is not None),
        }
        return self._manifest(wanted)

    def free_record(self, stamp: datetime) -> Json:
        """Make the record by which we give the lease up, so that nobody has to wait for it."""
        before = _spec(self._live)
        wanted = {
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": _after(before.get("renewTime"), stamp),
        }
        return self._manifest({**before, **wanted})

    def confirm(self, made: Json, sent: float) -> None:
        """Count the lease as ours from just before the write that the server confirmed was sent."""
        self._live, self._mine = made, _spec(made)
        self._confirmed = self._unchanged_since = sent

    def close(self) -> None:
        """Let nothing be written any more by us, although the record still names us."""
        self._confirmed = None

    def drop(self) -> None:
        """Count the lease as lost."""
        self._mine = self._confirmed = None

    @property
    def is_ours(self) -> bool:
        """Whether the record is, for all we know, the one that this process wrote last."""
        return self._mine is not None

    def _is_mine(self, found: Json) -> bool:
        fields = ("holderIdentity", "acquireTime", "leaseTransitions")
        return all(_spec(found).get(field) == (self._mine or {}).get(field) for field in fields)

    def _manifest(self, spec: Mapping[str, Any]) -> Json:
        metadata = {"name": self.name, "namespace": self.namespace}
        seen = (self._live or {}).get("metadata", {})
        if "resourceVersion" in seen:
            metadata |= {"resourceVersion": seen["resourceVersion"], "uid": seen["uid"]}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": dict(spec),
        }


class Lease:
    """Takes the lease, keeps it and gives it back, and tells at any moment whether it is held."""

    def __init__(
        self,
        cluster: Cluster,
        claim: Claim,
        *,
        clock: Callable[[], float] = monotonic,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """Read and write by `cluster`, which is `unfenced`; call `told` at each of its answers."""
        self._cluster = cluster
        self._claim = claim
        self._clock = clock
        self._told = told
        self._said = ""

    def writable_for(self) -> float:
        """Say how long a write that is sent now may take; 0 where none may be sent."""
        return self._claim.writable_for(self._clock())

    async def acquire(self) -> None:
        """Return once the lease is held."""
        while not await self._attempt():  # noqa: ASYNC110 - nothing but the server tells
            await asyncio.sleep(RETRY * random.uniform(0.8, 1.0))
        self._say(f"leading as {self._claim.identity}")
        LEADER.set(1)

    async def keep(self) -> None:
        """Renew the lease; return once it is lost."""
        try:
            while self.writable_for():
                await asyncio.sleep(RETRY * random.uniform(0.8, 1.0))
                # Asked anew: a process that was frozen meanwhile has lost what it held, and starts afresh.
                if self.writable_for():
                    await self._attempt()
        finally:
            LEADER.set(0)
        self._claim.drop()
        self._say("the lease is lost")

    async def release(self) -> None:
        """Give the lease back if it is held; nothing may be written from here on."""
        if not self.writable_for():
            return
        self._claim.close()
        LEADER.set(0)
        try:
            async with asyncio.timeout(CALL):
                await self._free()
        except (ClusterError, ConflictError, TimeoutError) as error:
            self._say(
                f"the lease was not given back, the next leader waits for its end: {error}", logging.WARNING
            )
        else:
            self._say("the lease is given back")
        self._claim.drop()

    async def _free(self) -> None:
        try:
            await self._cluster.replace(self._claim.free_record(now()))
        except ConflictError:
            # A renewal that was cut short may have arrived all the same.
            self._claim.see(
                await self._cluster.get("Lease", self._claim.name, self._claim.namespace), self._clock()
            )
            if self._claim.is_ours:
                await self._cluster.replace(self._claim.free_record(now()))

    async def _attempt(self) -> bool:
        """Take or renew the lease if that can be done now; tell whether it is held."""
        try:
            async with asyncio.timeout(CALL):
                await self._take_or_renew()
        except ConflictError:
            _logger.debug("another replica was faster")
        except (ClusterError, TimeoutError) as error:
            self._say(
                f"the lease cannot be read or written: {str(error) or 'no answer in time'}", logging.WARNING
            )
        return self.writable_for() > 0

    async def _take_or_renew(self) -> None:
        held = self.writable_for() > 0
        if held:
            try:
                await self._write()
            except ConflictError:
                _logger.debug("the lease changed since it was written last")
            else:
                return
        found = await self._cluster.get("Lease", self._claim.name, self._claim.namespace)
        self._told()
        self._claim.see(found, self._clock())
        if held and not self._claim.is_ours:
            return  # who lost it for a moment begins anew, also where it is free again
        if self._claim.may_take(self._clock()):
            await self._write()
        else:
            self._say(f"standing by: {self._claim.holder} leads")

    async def _write(self) -> None:
        record, sent = self._claim.record(now()), self._clock()
        if "resourceVersion" in record["metadata"]:
            made = await self._cluster.replace(record)
        elif (created := await self._cluster.create(record)) is not None:
            made = created
        else:
            raise ConflictError("the lease appeared since it was looked for")
        self._told()
        self._claim.confirm(made, sent)

    def _say(self, what: str, level: int = logging.INFO) -> None:
        """Log what is new, not the same at every attempt."""
        if what != self._said:
            self._said = what
            _logger.log(level, "%s", what)


async def lead(lease: Lease, work: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Have `work` done, begun afresh each time, while the lease is held; give it back when `stopping` is set.

    Work is cancelled when the lease is lost. Whatever it still writes until it has ended is refused by the fence.
    """
    asked_to_stop = asyncio.create_task(stopping.wait(), name="stopping")
    try:
        while not stopping.is_set():
            acquiring = asyncio.create_task(lease.acquire(), name="acquire the lease")
            await asyncio.wait({acquiring, asked_to_stop}, return_when=asyncio.FIRST_COMPLETED)
            if acquiring.done():
                acquiring.result()
                await _work_while_held(lease, work, asked_to_stop)
            await _end(acquiring)
    finally:
        await _end(asked_to_stop)


async def _work_while_held(
    lease: Lease, work: Callable[[], Awaitable[None]], asked_to_stop: "asyncio.Task[Any]"
) -> None:
    keeping = asyncio.create_task(lease.keep(), name="keep the lease")
    working = asyncio.ensure_future(work())
    await asyncio.wait({keeping, working, asked_to_stop}, return_when=asyncio.FIRST_COMPLETED)
    failed = working.done() and not asked_to_stop.done()
    # Renewed until nothing is written any more: only then somebody else may begin.
    await _end(working)
    await _end(keeping)
    await lease.release()
    if failed:
        # Another replica, if there is one, is quicker to try than we are.
        await asyncio.wait({asked_to_stop}, timeout=_AGAIN)


async def _end(task: "asyncio.Future[Any]") -> None:
    """Cancel a task and see it end; what it raised is logged."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()):
        _logger.error("what was done under the lease failed", exc_info=error)


def _spec(lease: Mapping[str, Any] | None) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = (lease or {}).get("spec") or {}
    return spec


def _promised(spec: Mapping[str, Any]) -> float:
    """Read how often the holder, which may be of another version, said it would renew."""
    said = spec.get("leaseDurationSeconds")
    return float(said) if isinstance(said, int) and said > 0 else DURATION


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _after(before: object, moment: datetime) -> str:
    """Write a time that differs from the one before: a write that changes nothing is none, and would not be seen."""
    stamp = _written(moment)
    return stamp if stamp != before else _written(moment + timedelta(microseconds=1))
