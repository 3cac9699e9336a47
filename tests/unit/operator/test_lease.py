import asyncio
import copy
import itertools
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from prometheus_client import REGISTRY

from rollway_operator import lease as module
from rollway_operator.errors import ClusterError, ConflictError
from rollway_operator.lease import DEADLINE, DURATION, MARGIN, RETRY, Claim, Lease, lead
from rollway_testing.clock import without_waiting

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Store:
    """Keeps one Lease as the API server does: each write has a version, a write that changes nothing has none."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.versions = itertools.count(1)
        self.writes = 0
        self.away = False
        self.answer_lost = 0
        self.delay = 0.0

    @property
    def holder(self) -> str:
        return str((self.found or {"spec": {}})["spec"].get("holderIdentity", ""))

    async def get(self, *_: str) -> dict[str, Any] | None:
        await self._call()
        return copy.deepcopy(self.found)

    async def create(self, record: dict[str, Any]) -> dict[str, Any] | None:
        await self._call()
        return self.commit(record)

    async def replace(self, record: dict[str, Any]) -> dict[str, Any]:
        await self._call()
        made = self.commit(record)
        if made is None:
            raise ConflictError("another version")
        if self.answer_lost:
            self.answer_lost -= 1
            raise ClusterError("connection reset")
        return made

    def commit(self, record: dict[str, Any]) -> dict[str, Any] | None:
        expected = record["metadata"].get("resourceVersion")
        present = self.found["metadata"]["resourceVersion"] if self.found else None
        if expected != present:
            return None
        if self.found is None or self.found["spec"] != record["spec"]:
            self.writes += 1
            metadata = record["metadata"] | {"resourceVersion": str(next(self.versions)), "uid": "u"}
            self.found = copy.deepcopy(record | {"metadata": metadata})
        return copy.deepcopy(self.found)

    async def _call(self) -> None:
        await asyncio.sleep(self.delay)
        if self.away:
            raise ClusterError("away")


def replica(store: Store, identity: str) -> Lease:
    cluster: Any = store
    return Lease(cluster, Claim("lease", "rollway", identity), clock=asyncio.get_running_loop().time)


async def acquired(lease: Lease, within: float) -> float:
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(within):
        await lease.acquire()
    return asyncio.get_running_loop().time() - began


@without_waiting
async def test_a_lease_that_nobody_has_is_taken_at_once() -> None:
    store = Store()
    one = replica(store, "one")
    assert not one.writable_for()
    assert await acquired(one, 1) < 0.5
    assert store.holder == "one"
    assert one.writable_for() == pytest.approx(DURATION - MARGIN, abs=0.5)


@without_waiting
async def test_while_it_is_renewed_nobody_else_gets_it() -> None:
    store = Store()
    one, two = replica(store, "one"), replica(store, "two")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    with pytest.raises(TimeoutError):
        await acquired(two, 3600)
    assert one.writable_for() > DURATION - MARGIN - 2 * RETRY
    assert not two.writable_for()
    assert store.writes == pytest.approx(3600 / RETRY, rel=0.3)
    keeping.cancel()


@without_waiting
async def test_a_leader_that_dies_is_followed_in_time_and_never_before_its_lease_ended() -> None:
    store = Store()
    one, two = replica(store, "one"), replica(store, "two")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    waiting = asyncio.create_task(acquired(two, 3600))
    await asyncio.sleep(60)
    keeping.cancel()
    # The last renewal may be as old as RETRY when the leader dies.
    died = asyncio.get_running_loop().time()
    await waiting
    took = asyncio.get_running_loop().time() - died
    assert DURATION - RETRY <= took <= DURATION + RETRY + 1
    assert not one.writable_for()


@without_waiting
async def test_a_lease_that_was_given_back_is_taken_at_the_next_look() -> None:
    store = Store()
    one, two = replica(store, "one"), replica(store, "two")
    await one.acquire()
    waiting = asyncio.create_task(acquired(two, 60))
    await asyncio.sleep(5)
    await one.release()
    assert not one.writable_for()
    released = asyncio.get_running_loop().time()
    await waiting
    assert asyncio.get_running_loop().time() - released <= RETRY + 1
    assert store.found is not None
    assert store.found["spec"]["leaseTransitions"] == 1


@without_waiting
async def test_a_container_that_was_started_again_does_not_wait_for_itself() -> None:
    store = Store()
    await replica(store, "one").acquire()
    assert await acquired(replica(store, "one"), 1) < 0.5


@without_waiting
async def test_of_two_processes_of_one_name_the_first_sees_that_it_lost() -> None:
    store = Store()
    first, second = replica(store, "one"), replica(store, "one")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    await second.acquire()
    async with asyncio.timeout(2 * RETRY):
        await keeping
    assert not first.writable_for()


@without_waiting
async def test_without_the_server_a_leader_stops_writing_before_the_lease_ends() -> None:
    store = Store()
    one = replica(store, "one")
    await one.acquire()
    store.away = True
    began = asyncio.get_running_loop().time()
    await one.keep()
    assert asyncio.get_running_loop().time() - began <= DEADLINE + RETRY + 1
    assert not one.writable_for()


@without_waiting
async def test_lease_calls_that_hang_cost_the_lease_and_are_given_up() -> None:
    store = Store()
    one = replica(store, "one")
    await one.acquire()
    store.delay = 3600
    async with asyncio.timeout(DEADLINE + module.CALL + RETRY):
        await one.keep()
    store.delay = 0
    assert await acquired(one, 1) < 0.5


@without_waiting
async def test_a_renewal_whose_answer_is_lost_is_recognised() -> None:
    store = Store()
    one = replica(store, "one")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    for _ in range(20):
        store.answer_lost = 2
        await asyncio.sleep(10)
    assert one.writable_for()
    assert not keeping.done()
    assert store.found is not None
    assert store.found["spec"]["leaseTransitions"] == 0
    keeping.cancel()


@pytest.mark.parametrize("skew", [timedelta(0), timedelta(days=-3650), timedelta(days=3650)])
@pytest.mark.parametrize("stands_still", [False, True])
def test_wall_clocks_mean_nothing(
    skew: timedelta, stands_still: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    @without_waiting
    async def story() -> None:
        started = asyncio.get_running_loop().time()

        def wrong() -> datetime:
            passed = 0 if stands_still else asyncio.get_running_loop().time() - started
            return EPOCH + skew + timedelta(seconds=passed)

        monkeypatch.setattr(module, "now", wrong)
        store = Store()
        one, two = replica(store, "one"), replica(store, "two")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        with pytest.raises(TimeoutError):
            await acquired(two, 600)
        assert one.writable_for()
        keeping.cancel()

    story()


@without_waiting
async def test_a_leader_that_froze_has_lost_and_does_not_renew() -> None:
    store = Store()
    asleep = 0.0

    def clock() -> float:
        return asyncio.get_running_loop().time() + asleep

    cluster: Any = store
    one = Lease(cluster, Claim("lease", "rollway", "one"), clock=clock)
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    await asyncio.sleep(60)
    asleep, writes = 60.0, store.writes
    assert not one.writable_for()
    await keeping
    assert store.writes == writes


@without_waiting
async def test_a_lease_deleted_by_hand_is_made_again_by_its_holder_and_left_to_it_by_others() -> None:
    store = Store()
    one, two = replica(store, "one"), replica(store, "two")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    waiting = asyncio.create_task(two.acquire())
    for _ in range(50):
        await asyncio.sleep(7)
        store.found = None
    await asyncio.sleep(2 * RETRY)
    assert store.holder == "one"
    assert not waiting.done()
    keeping.cancel()
    waiting.cancel()


@without_waiting
async def test_the_holder_s_own_duration_is_respected() -> None:
    store = Store()
    store.found = {
        "metadata": {"resourceVersion": "0", "uid": "u"},
        "spec": {"holderIdentity": "older", "leaseDurationSeconds": 60},
    }
    assert 60 <= await acquired(replica(store, "one"), 90) <= 60 + RETRY + 1


@without_waiting
async def test_a_release_after_a_renewal_that_was_cut_short_still_frees_the_lease() -> None:
    store = Store()
    one = replica(store, "one")
    await one.acquire()
    assert store.found is not None
    store.found["metadata"]["resourceVersion"] = "99"
    await one.release()
    assert store.holder == ""


@without_waiting
async def test_what_is_said_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = Store()
    await replica(store, "one").acquire()
    store.away = True
    two = replica(store, "two")
    waiting = asyncio.create_task(two.acquire())
    await asyncio.sleep(60)
    waiting.cancel()
    assert [record.message for record in caplog.records].count(
        "the lease cannot be read or written: away"
    ) <= 2


# ------------------------------------------------------------------------------------------------------------- to lead


class Work:
    """Counts how often it was begun and ended, and may fail."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.fails = False
        self.seconds_to_end = 0.0

    async def __call__(self) -> None:
        self.begun += 1
        try:
            if self.fails:
                raise RuntimeError("as the test wants it")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self.seconds_to_end)
            self.ended += 1


@without_waiting
async def test_a_replica_works_when_the_leader_is_gone_and_not_before() -> None:
    store, first, second = Store(), Work(), Work()
    stop_first, stop_second = asyncio.Event(), asyncio.Event()
    leading = asyncio.create_task(lead(replica(store, "one"), first, stop_first))
    await asyncio.sleep(1)
    standing_by = asyncio.create_task(lead(replica(store, "two"), second, stop_second))
    await asyncio.sleep(600)
    assert (first.begun, second.begun) == (1, 0)
    stop_first.set()
    await leading
    assert first.ended == 1
    await asyncio.sleep(RETRY + 1)
    assert second.begun == 1
    stop_second.set()
    await standing_by
    assert store.holder == ""


@without_waiting
async def test_a_replica_that_loses_the_lease_stands_by_and_begins_afresh_when_it_has_it_again() -> None:
    store, work, stopping = Store(), Work(), asyncio.Event()
    leading = asyncio.create_task(lead(replica(store, "one"), work, stopping))
    await asyncio.sleep(1)
    store.away = True
    await asyncio.sleep(60)
    assert (work.begun, work.ended) == (1, 1)
    assert REGISTRY.get_sample_value("rollway_leader") == 0
    store.away = False
    await asyncio.sleep(RETRY + 1)
    assert work.begun == 2
    assert REGISTRY.get_sample_value("rollway_leader") == 1
    stopping.set()
    await leading


@without_waiting
async def test_the_lease_is_given_back_only_when_nothing_is_written_any_more() -> None:
    store, work, stopping = Store(), Work(), asyncio.Event()
    leading = asyncio.create_task(lead(replica(store, "one"), work, stopping))
    await asyncio.sleep(1)
    work.seconds_to_end = 60
    stopping.set()
    await asyncio.sleep(30)
    assert store.holder == "one"
    lease_two = replica(store, "two")
    with pytest.raises(TimeoutError):
        await acquired(lease_two, 25)
    await leading
    assert store.holder == ""


@without_waiting
async def test_work_that_fails_is_begun_again_and_lets_another_replica_try_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, bad, good = Store(), Work(), Work()
    stopping = asyncio.Event()
    failing = asyncio.create_task(lead(replica(store, "one"), bad, stopping))
    bad.fails = True
    await asyncio.sleep(60)
    assert bad.begun > 5
    other = asyncio.create_task(lead(replica(store, "two"), good, stopping))
    await asyncio.sleep(60)
    assert good.begun == 1
    assert "as the test wants it" in caplog.text
    stopping.set()
    await asyncio.gather(failing, other)


# -------------------------------------------------------------------------------------- never two holders, by any luck


@dataclass
class Candidate:
    """A process of a replica: what it knows, what it has sent; it may be paused between any two of its steps."""

    name: str
    claim: Claim
    skew: timedelta
    outbox: list[tuple[dict[str, Any], float, bool]] = field(default_factory=list)
    """What is on the way, when it was sent, and whether anybody waits for the answer."""
    inbox: list[tuple[dict[str, Any], float]] = field(default_factory=list)


class TwoHolders(RuleBasedStateMachine):
    """Three replicas; time passes between any two steps of any of them, calls are late, lost, or lose their answer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.store = Store()
        self.candidates: list[Candidate] = []
        self.until: dict[str, float] = {}
        """Until when a write of each may be under way."""

    @initialize(skews=strategies.lists(strategies.integers(-(10**6), 10**6), min_size=3, max_size=3))
    def begin(self, skews: list[int]) -> None:
        self.candidates = [
            Candidate(name, Claim("lease", "rollway", name), timedelta(seconds=skew))
            for name, skew in zip("abc", skews, strict=True)
        ]

    who = strategies.integers(0, 2)

    def stamp(self, candidate: Candidate) -> datetime:
        return EPOCH + candidate.skew + timedelta(seconds=self.now)

    @rule(seconds=strategies.sampled_from([0.1, 1.9, 4.0, 5.5, 8.0, 9.9, 12.9, 13.1, 14.9, 15.1, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(who=who)
    def attempt(self, who: int) -> None:
        """One attempt that nothing holds up."""
        if self._sends(who):
            self.a_write_arrives(who, first=False, answered=True)
            self.an_answer_arrives(who)

    @rule(who=who)
    def an_attempt_begins(self, who: int) -> None:
        """One attempt up to where its write is on the way."""
        self._sends(who)

    def _sends(self, who: int) -> bool:
        one = self.candidates[who]
        self._give_up(one)
        if not one.claim.writable_for(self.now):
            one.claim.drop()
        if not one.claim.is_ours:
            one.claim.see(copy.deepcopy(self.store.found), self.now)
        if not one.claim.may_take(self.now):
            return False
        one.outbox.append((one.claim.record(self.stamp(one)), self.now, True))
        return True

    @rule(who=who)
    def look(self, who: int) -> None:
        self.candidates[who].claim.see(copy.deepcopy(self.store.found), self.now)

    @rule(who=who, first=strategies.booleans(), answered=strategies.booleans())
    def a_write_arrives(self, who: int, first: bool, answered: bool) -> None:
        one = self.candidates[who]
        if not one.outbox:
            return
        record, sent, awaited = one.outbox.pop(0 if first else -1)
        made = self.store.commit(record)
        if answered and awaited and made is not None:
            one.inbox.append((made, sent))

    @rule(who=who)
    def an_answer_arrives(self, who: int) -> None:
        one = self.candidates[who]
        if one.inbox:
            made, sent = one.inbox.pop()
            one.claim.confirm(made, sent)

    @rule(who=who)
    def killed_and_started_again(self, who: int) -> None:
        one = self.candidates[who]
        one.claim = Claim("lease", "rollway", one.name)
        self._give_up(one)

    @rule(who=who)
    def stopped_cleanly(self, who: int) -> None:
        one = self.candidates[who]
        if one.claim.writable_for(self.now):
            one.claim.close()
            del self.until[one.name]
            self._give_up(one)
            one.outbox.append((one.claim.free_record(self.stamp(one)), self.now, False))
            one.claim.drop()

    @staticmethod
    def _give_up(one: Candidate) -> None:
        """What is on the way may still arrive, but nobody waits for an answer any more."""
        one.inbox.clear()
        one.outbox = [(record, sent, False) for record, sent, _ in one.outbox]

    @invariant()
    def nobody_writes_while_another_s_write_may_be_under_way(self) -> None:
        for one in self.candidates:
            if left := one.claim.writable_for(self.now):
                self.until[one.name] = self.now + left
        holders = [one.name for one in self.candidates if one.claim.writable_for(self.now)]
        under_way = [name for name, until in self.until.items() if until > self.now]
        assert not holders or under_way == holders


TwoHolders.TestCase.settings = settings(max_examples=300, stateful_step_count=60)
TestTwoHolders = TwoHolders.TestCase
