"""Admission: a bounded number runs, a bounded number waits, nobody waits longer than the deadline."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollway_serving.errors import DeadlineError, OverloadError, PredictionError
from rollway_serving.limits import Admission


class Gate:
    """A model that answers when it is let."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, answer: object = None) -> object:
        self.begun.release()
        assert self.opened.wait(10)
        return answer

    def await_begun(self, count: int) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=5)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_an_answer_and_an_error_come_through() -> None:
    admission = Admission(concurrency=1, queue=0, seconds=5)

    def fail() -> None:
        raise PredictionError("no")

    assert admission.run(lambda value: value + 1, 1) == 2
    with pytest.raises(PredictionError):
        admission.run(fail)
    with pytest.raises(TimeoutError):  # the function's own, which is no deadline
        admission.run(lambda: (_ for _ in ()).throw(TimeoutError()))
    assert asyncio.run(admission.run_async(lambda value: value + 1, 1)) == 2
    with pytest.raises(PredictionError):
        asyncio.run(admission.run_async(fail))
    eventually(lambda: admission.running == 0)


def test_more_than_run_and_wait_are_refused_and_all_others_answered(gate: Gate) -> None:
    admission = Admission(concurrency=2, queue=3, seconds=10)
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(admission.run, gate, number) for number in range(5)]
        eventually(lambda: (admission.running, admission.waiting) == (2, 3))
        assert admission.is_full
        with pytest.raises(OverloadError, match="2 predictions run and 3 wait"):
            admission.run(gate)
        with pytest.raises(OverloadError):
            asyncio.run(admission.run_async(gate))
        gate.opened.set()
        assert [answer.result() for answer in answers] == [0, 1, 2, 3, 4]
    eventually(lambda: (admission.running, admission.waiting) == (0, 0))


def test_without_a_line_the_second_is_refused(gate: Gate) -> None:
    admission = Admission(concurrency=1, queue=0, seconds=10)
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(admission.run, gate, "first")
        gate.await_begun(1)
        with pytest.raises(OverloadError):
            admission.run(gate)
        gate.opened.set()
        assert first.result() == "first"


@pytest.mark.parametrize("ask", ["run", "run_async"])
def test_a_prediction_past_its_deadline_keeps_its_place_until_it_ends(gate: Gate, ask: str) -> None:
    admission = Admission(concurrency=1, queue=1, seconds=0.05)

    def answer(function: Callable[[], object]) -> object:
        if ask == "run":
            return admission.run(function)
        return asyncio.run(admission.run_async(function))

    with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
        answer(gate)
    assert (admission.running, admission.waiting) == (1, 0)
    ran = []
    with pytest.raises(DeadlineError):  # it waits behind the other one, and leaves the line
        answer(lambda: ran.append(1))
    assert (admission.running, admission.waiting) == (1, 0)
    gate.opened.set()
    eventually(lambda: admission.running == 0)
    assert ran == []
    assert answer(lambda: "well") == "well"


def test_who_leaves_the_line_takes_its_rows_along(gate: Gate) -> None:
    class Rows:
        """Something that can be seen to be freed."""

    admission = Admission(concurrency=1, queue=1, seconds=0.05)
    with pytest.raises(DeadlineError):
        admission.run(gate)
    rows = Rows()
    seen = weakref.ref(rows)
    with pytest.raises(DeadlineError):
        admission.run(lambda _: None, rows)
    del rows
    gc.collect()
    assert seen() is None


async def test_a_client_that_goes_away_leaves_the_line(gate: Gate) -> None:
    admission = Admission(concurrency=1, queue=1, seconds=10)
    first = asyncio.create_task(admission.run_async(gate, "first"))
    await asyncio.to_thread(gate.await_begun, 1)
    second = asyncio.create_task(admission.run_async(gate, "second"))
    await asyncio.to_thread(eventually, lambda: admission.waiting == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert admission.waiting == 0
    gate.opened.set()
    assert await first == "first"


async def test_the_event_loop_goes_on_while_the_model_works(gate: Gate) -> None:
    admission = Admission(concurrency=4, queue=0, seconds=10)
    asked = [asyncio.create_task(admission.run_async(gate, number)) for number in range(4)]
    await asyncio.to_thread(gate.await_begun, 4)
    gate.opened.set()
    assert await asyncio.gather(*asked) == [0, 1, 2, 3]
