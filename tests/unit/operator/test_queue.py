import asyncio
import itertools
from datetime import timedelta

from rollway_operator.queue import WorkQueue
from rollway_testing.clock import without_waiting

SECOND = timedelta(seconds=1)


class Bench:
    """A queue whose passes the test watches, holds up and lets fail."""

    def __init__(self, workers: int = 4) -> None:
        self.queue = WorkQueue(self._work, workers)
        self.passes: list[tuple[str, float]] = []
        self.running: set[str] = set()
        self.most_at_once = 0
        self.overlapped = False
        self.failures = 0
        self.come_back: timedelta | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.begun = asyncio.Event()
        self.queue.start()
        self.started = asyncio.get_running_loop().time()

    async def _work(self, key: str) -> timedelta | None:
        # The queue takes what work raises for a failed pass: an assertion here would go unheard.
        self.overlapped = self.overlapped or key in self.running
        self.running.add(key)
        self.most_at_once = max(self.most_at_once, len(self.running))
        self.passes.append((key, asyncio.get_running_loop().time() - self.started))
        self.begun.set()
        await self.open.wait()
        self.running.discard(key)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("as the test wants it")
        return self.come_back

    async def after(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return len(self.passes)


@without_waiting
async def test_a_key_added_many_times_while_it_waits_is_one_pass() -> None:
    bench = Bench()
    for _ in range(10):
        bench.queue.add("a")
    assert await bench.after(1) == 1
    await bench.queue.stop()


@without_waiting
async def test_a_key_added_during_its_pass_is_passed_once_more_and_never_twice_at_once() -> None:
    bench = Bench()
    bench.open.clear()
    bench.queue.add("a")
    await bench.begun.wait()
    for _ in range(5):
        bench.queue.add("a")
    assert await bench.after(1) == 1
    bench.open.set()
    assert await bench.after(1) == 2
    assert not bench.overlapped
    await bench.queue.stop()


@without_waiting
async def test_keys_are_worked_on_beside_each_other() -> None:
    bench = Bench(workers=3)
    bench.open.clear()
    for key in "abcd":
        bench.queue.add(key)
    await asyncio.sleep(1)
    assert bench.most_at_once == 3
    assert len(bench.queue) == 1
    bench.open.set()
    assert await bench.after(1) == 4
    await bench.queue.stop()


@without_waiting
async def test_a_pass_comes_back_when_it_said() -> None:
    bench = Bench()
    bench.come_back = 10 * SECOND
    bench.queue.add("a")
    assert await bench.after(9) == 1
    assert await bench.after(2) == 2
    await bench.queue.stop()


@without_waiting
async def test_the_earliest_wish_wins() -> None:
    bench = Bench()
    bench.queue.add_after("a", 30 * SECOND)
    bench.queue.add_after("a", 10 * SECOND)
    bench.queue.add_after("a", 20 * SECOND)
    await asyncio.sleep(60)
    assert [round(when) for _, when in bench.passes] == [10]
    await bench.queue.stop()


@without_waiting
async def test_an_event_does_not_wait_for_the_timer_and_takes_its_place() -> None:
    bench = Bench()
    bench.queue.add_after("a", 30 * SECOND)
    bench.queue.add("a")
    assert await bench.after(60) == 1
    assert bench.passes[0][1] < 1
    await bench.queue.stop()


@without_waiting
async def test_a_key_that_fails_is_tried_again_later_each_time_and_for_ever() -> None:
    bench = Bench()
    bench.failures = 12
    bench.queue.add("a")
    await asyncio.sleep(3600)
    times = [when for _, when in bench.passes]
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert len(waits) == 12
    for number, wait in enumerate(waits):
        nominal = min(0.5 * 2**number, 60)
        assert 0.6 * nominal < wait < 1.4 * nominal
    await bench.queue.stop()


@without_waiting
async def test_one_success_forgets_the_failures() -> None:
    bench = Bench()
    bench.failures = 6
    bench.queue.add("a")
    await asyncio.sleep(600)
    bench.failures, before = 1, len(bench.passes)
    bench.queue.add("a")
    assert await bench.after(1) == before + 2
    await bench.queue.stop()


@without_waiting
async def test_a_forgotten_key_does_not_come_back() -> None:
    bench = Bench()
    bench.come_back = SECOND
    bench.queue.add("a")
    await asyncio.sleep(0.5)
    bench.queue.forget("a")
    assert await bench.after(60) == 1
    await bench.queue.stop()


@without_waiting
async def test_stopping_cuts_the_running_pass_short_and_starts_no_other() -> None:
    bench = Bench(workers=1)
    bench.open.clear()
    bench.queue.add("a")
    bench.queue.add("b")
    await bench.begun.wait()
    async with asyncio.timeout(1):
        await bench.queue.stop()
    bench.open.set()
    bench.queue.add("c")
    bench.queue.add_after("c", SECOND)
    await asyncio.sleep(60)
    assert [key for key, _ in bench.passes] == ["a"]


@without_waiting
async def test_the_queue_tells_how_long_the_first_key_that_is_due_has_waited() -> None:
    bench = Bench(workers=1)
    assert bench.queue.oldest_seconds == 0
    bench.open.clear()
    for key in "abc":
        bench.queue.add(key)
    eldest = bench.queue.oldest_seconds
    assert eldest > 0
    await bench.begun.wait()
    # The one that is worked on does not wait any more: the next has waited less long.
    assert bench.queue.oldest_seconds > 0
    bench.open.set()
    await bench.after(1)
    assert bench.queue.oldest_seconds == 0
    bench.open.clear()
    bench.queue.add("d")
    bench.queue.add("e")
    await bench.queue.stop()
    assert bench.queue.oldest_seconds == 0
