"""Requests that share a call: who goes with whom, what each gets back, and that nobody pays for another."""

import asyncio
import doctest
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from rollway_serving import batching, gates
from rollway_serving.batching import Joining, joined, kind_of, parted
from rollway_serving.errors import DeadlineError, InputError, OverloadError, PredictionError
from rollway_serving.limits import Admission
from rollway_serving.mlmodel import MLmodel
from rollway_serving.model import Model
from rollway_serving.settings import Places, Settings
from rollway_serving.signature import Signature

from .test_pod_contract import SETTINGS

WITHOUT_EXAMPLE = MLmodel.parse(b"flavors: {sklearn: {}}")
WITH_EXAMPLE = MLmodel.parse(
    b"flavors: {sklearn: {}}\n"
    b"saved_input_example_info: {artifact_path: e.json, serving_input_path: serving_input_example.json}"
)


@dataclass(frozen=True)
class Waiting:
    """A request in line."""

    name: str
    rows: int = 1
    kind: str = "numbers"
    since: float = 0.0


def never(_: Any) -> Any:
    raise AssertionError("nobody is asked")


def chosen(line: Sequence[Waiting], *, rows: int = 8, seconds: float = 0.0, now: float = 0.0) -> Any:
    """Who goes along with the first of the line, and for how long more are waited for."""
    more, wait = Joining(rows, seconds, never, never).next(line[:1], line[1:], now)
    return "".join(request.name for request in more), wait


def test_the_line_goes_along_in_its_order_up_to_the_rows_of_a_call() -> None:
    assert chosen([Waiting("a")]) == ("", 0)
    assert chosen([Waiting(name) for name in "abcd"]) == ("bcd", 0)
    assert chosen([Waiting(name) for name in "abcdefghij"]) == ("bcdefgh", 0)
    assert chosen([Waiting("a", 4), Waiting("b", 3), Waiting("c", 2), Waiting("d")]) == ("b", 0)
    assert chosen([Waiting("a", 9), Waiting("b")]) == ("", 0)


def test_another_kind_stays_in_line() -> None:
    assert chosen([Waiting("a"), Waiting("b", kind="texts"), Waiting("c")]) == ("c", 0)


def test_the_first_waits_for_others_from_when_it_came_until_the_call_is_full() -> None:
    first = Waiting("a", since=10.0)
    assert chosen([first], seconds=0.5, now=10.1) == ("", pytest.approx(0.4))
    assert chosen([first, Waiting("b", since=10.2)], seconds=0.5, now=10.2) == ("b", pytest.approx(0.3))
    assert chosen([first], seconds=0.5, now=10.7) == ("", 0)
    assert chosen([first, Waiting("b", 7)], seconds=0.5, now=10.1) == ("b", 0)
    assert chosen([first, Waiting("b", 8)], seconds=0.5, now=10.1) == ("", 0)


def test_only_what_joining_does_not_change_is_of_one_kind() -> None:
    numbers = np.ones((2, 3))
    assert kind_of(numbers) == kind_of(np.zeros((5, 3)))
    for other in (np.ones((2, 4)), np.ones((2, 3), dtype="float32"), np.ones(2), numbers * np.nan):
        assert kind_of(numbers) != kind_of(other)
    frame = pd.DataFrame({"age": [1], "job": ["baker"], "score": [0.5]})
    assert kind_of(frame) == kind_of(pd.DataFrame({"age": [2, 3], "job": ["a", "b"], "score": [1.0, 2.0]}))
    assert kind_of(frame) != kind_of(frame.assign(score=np.nan))
    assert kind_of(frame) != kind_of(frame.assign(score=pd.Series([None], dtype="object")))


@pytest.mark.parametrize("form", [np.asarray, pd.DataFrame, sparse.coo_array, np.ndarray.tolist])
def test_an_answer_of_any_form_is_parted_by_the_rows_of_each(form: Callable[[Any], Any]) -> None:
    answers = np.arange(12.0).reshape(6, 2)
    parts = parted(form(answers), [1, 3, 2])
    dense = [part.toarray() if hasattr(part, "toarray") else np.asarray(part) for part in parts]
    assert [part.tolist() for part in dense] == [part.tolist() for part in np.split(answers, [1, 4])]


@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=12), data=st.data())
def test_rows_come_back_to_whom_they_belong(counts: list[int], data: st.DataObject) -> None:
    as_frames = data.draw(st.booleans())
    numbers = iter(range(1000))
    requests: list[Any] = [np.array([[next(numbers), 0.5] for _ in range(count)]) for count in counts]
    if as_frames:
        requests = [pd.DataFrame(rows, columns=["a", "b"]) for rows in requests]
    back = parted(joined(requests), counts)
    assert [np.asarray(part).tolist() for part in back] == [np.asarray(rows).tolist() for rows in requests]


@pytest.mark.parametrize(
    "estimator",
    [LogisticRegression(max_iter=500), RandomForestClassifier(20, random_state=1), StandardScaler()],
    ids=lambda estimator: type(estimator).__name__,
)
def test_joined_rows_get_the_answers_that_each_gets_alone(estimator: Any) -> None:
    rows, target = load_iris(return_X_y=True, as_frame=True)
    estimator.fit(rows, target)
    for method in {"predict", "predict_proba", "transform"} & set(dir(estimator)):
        model = Model(WITHOUT_EXAMPLE, Signature(), getattr(estimator, method))
        requests = [rows.iloc[i : i + 1 + i % 3] for i in range(0, 120, 4)]
        for one, answer in zip(requests, model.predict_together(requests), strict=True):
            alone = model.predict(one)
            if method == "predict":
                assert answer.tolist() == alone.tolist()
            assert np.allclose(answer, alone, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------ the line and the calls


@dataclass
class Estimator:
    """Doubles numbers when it is let, fails on negative ones, and knows what it was asked."""

    opened: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    calls: list[list[float]] = field(default_factory=list)

    def alone(self, rows: Any) -> Any:
        self.calls.append(rows.ravel().tolist())
        self.begun.release()
        assert self.opened.wait(10)
        if (rows < 0).any():
            raise PredictionError(f"no answer to {rows.ravel().tolist()}")
        return rows * 2

    def together(self, requests: Sequence[Any]) -> list[Any]:
        return parted(self.alone(joined(requests)), [len(rows) for rows in requests])

    async def await_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=5)

    def joining(self, rows: int = 8, seconds: float = 0.0) -> Joining:
        return Joining(rows, seconds, self.alone, self.together)


@pytest.fixture
def estimator() -> Iterator[Estimator]:
    estimator = Estimator()
    yield estimator
    estimator.opened.set()


def admission_of(estimator: Estimator, **options: Any) -> Admission:
    admission = Admission(**{"concurrency": 2, "queue": 20, "seconds": 10.0} | options)
    admission.join(estimator.joining())
    return admission


def rows(*numbers: float) -> Any:
    return np.array(numbers, dtype="float64").reshape(-1, 1)


def ask(admission: Admission, *numbers: float) -> asyncio.Task[list[float]]:
    async def answer() -> list[float]:
        answered: list[float] = (await admission.join_async(rows(*numbers))).ravel().tolist()
        return answered

    return asyncio.create_task(answer())


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def answers_of(*tasks: asyncio.Task[list[float]]) -> list[Any]:
    return list(await asyncio.gather(*tasks, return_exceptions=True))


async def test_what_waits_when_the_model_becomes_free_goes_together(estimator: Estimator) -> None:
    admission = admission_of(estimator)
    assert admission.joins
    first = ask(admission, 1)
    await estimator.await_begun()
    others = [ask(admission, 2), ask(admission, 3, 4), ask(admission, 5)]
    await until(lambda: admission.waiting == 3)
    assert (admission.running, len(estimator.calls)) == (1, 1)
    estimator.opened.set()
    assert await answers_of(first, *others) == [[2], [4], [6, 8], [10]]
    assert estimator.calls == [[1], [2, 3, 4, 5]]
    await until(lambda: (admission.running, admission.waiting) == (0, 0))


async def test_a_call_has_no_more_rows_than_it_may(estimator: Estimator) -> None:
    admission = admission_of(estimator)
    first = ask(admission, 0)
    await estimator.await_begun()
    others = [ask(admission, *range(10)), *(ask(admission, number, number) for number in range(5))]
    await until(lambda: admission.waiting == 6)
    estimator.opened.set()
    await answers_of(first, *others)
    assert list(map(len, estimator.calls)) == [1, 10, 8, 2]


async def test_where_a_joined_call_fails_each_request_has_its_own_answer_or_error(
    estimator: Estimator,
) -> None:
    admission = admission_of(estimator)
    first = ask(admission, 1)
    await estimator.await_begun()
    others = [ask(admission, 2), ask(admission, -3), ask(admission, 4)]
    await until(lambda: admission.waiting == 3)
    estimator.opened.set()
    _, good, bad, well = await answers_of(first, *others)
    assert (good, well) == ([4], [8])
    assert isinstance(bad, PredictionError)
    assert "[-3.0]" in str(bad)
    assert estimator.calls == [[1], [2, -3, 4], [2], [-3], [4]]


async def test_a_request_that_cannot_be_read_never_meets_the_others(estimator: Estimator) -> None:
    def refuse() -> Any:
        raise InputError("x", "a number", "a string")

    admission = admission_of(estimator)
    first = ask(admission, 1)
    await estimator.await_begun()
    others = [ask(admission, 2), ask(admission, 3)]
    with pytest.raises(InputError, match="x: expected a number"):
        await admission.read_and_join_async(refuse)  # while the model works
    read = asyncio.create_task(admission.read_and_join_async(lambda: rows(4, 5)))
    await until(lambda: admission.waiting == 3)
    estimator.opened.set()
    assert await answers_of(first, *others) == [[2], [4], [6]]
    assert (await read).ravel().tolist() == [8, 10]
    assert len(estimator.calls) == 2
    await until(lambda: (admission.running, admission.waiting) == (0, 0))


async def test_more_than_are_taken_on_are_refused_and_all_others_answered(estimator: Estimator) -> None:
    read = threading.Event()

    def slowly() -> Any:
        assert read.wait(10)
        return rows(9)

    admission = admission_of(estimator, queue=2)
    first = ask(admission, 0)
    await estimator.await_begun()
    asked = [first, ask(admission, 1), ask(admission, 2)]
    reading = asyncio.create_task(admission.read_and_join_async(slowly))
    await until(lambda: admission.is_full)
    with pytest.raises(OverloadError, match="1 predictions run and 3 wait"):
        await admission.join_async(rows(1))
    with pytest.raises(OverloadError, match="1 predictions run and 3 wait"):
        await admission.read_and_join_async(slowly)
    estimator.opened.set()
    read.set()
    assert await answers_of(*asked) == [[0], [2], [4]]
    assert (await reading).tolist() == [[18]]
    await until(lambda: admission.waiting == 0)
    assert not admission.is_full


async def test_a_call_past_everybodys_deadline_keeps_its_place_and_holds_up_nobody(
    estimator: Estimator,
) -> None:
    admission = admission_of(estimator, seconds=0.1)
    hanging = ask(admission, 1)
    await estimator.await_begun()
    (error,) = await answers_of(hanging)
    assert isinstance(error, DeadlineError)
    assert (admission.running, admission.waiting) == (1, 0)
    second = ask(admission, 2)
    await estimator.await_begun()  # beside the one that nobody waits for
    third = ask(admission, 3)  # there are two places
    assert [type(error) for error in await answers_of(second, third)] == [DeadlineError] * 2
    assert (admission.running, admission.waiting) == (2, 0)
    estimator.opened.set()
    await until(lambda: admission.running == 0)
    assert estimator.calls == [[1], [2]]
    assert await ask(admission, 4) == [8]


async def test_a_client_that_goes_away_leaves_the_line_and_frees_the_model(estimator: Estimator) -> None:
    admission = admission_of(estimator)
    first = ask(admission, 1)
    await estimator.await_begun()
    second, third = ask(admission, 2), ask(admission, 3)
    await until(lambda: admission.waiting == 2)
    second.cancel()
    await answers_of(second)
    assert admission.waiting == 1
    first.cancel()
    await answers_of(first)
    await estimator.await_begun()  # the third one, though the first has not ended
    estimator.opened.set()
    assert await third == [6]
    assert estimator.calls == [[1], [3]]


async def test_one_by_one_nobody_is_asked_for_who_has_gone(estimator: Estimator) -> None:
    admission = admission_of(estimator)
    first = ask(admission, 1)
    await estimator.await_begun()
    others = [ask(admission, 2), ask(admission, -3), ask(admission, 4)]
    await until(lambda: admission.waiting == 3)
    goes = threading.Event()
    alone = estimator.alone

    def fail_when_one_has_gone(requests: Sequence[Any]) -> list[Any]:
        estimator.begun.release()
        assert goes.wait(10)
        raise PredictionError(str(len(requests)))

    admission.join(Joining(8, 0.0, alone, fail_when_one_has_gone))
    estimator.opened.set()
    await estimator.await_begun()
    others[0].cancel()
    await answers_of(others[0])
    goes.set()
    _, bad, good = await answers_of(first, *others[1:])
    assert isinstance(bad, PredictionError)
    assert good == [8]
    assert estimator.calls == [[1], [-3], [4]]


async def test_a_call_waits_for_others_until_it_is_full_or_its_time_is_over(estimator: Estimator) -> None:
    now = 100.0
    admission = Admission(concurrency=2, queue=20, seconds=10, clock=lambda: now)
    admission.join(estimator.joining(rows=3, seconds=60.0))
    estimator.opened.set()
    full = [ask(admission, number) for number in (1, 2, 3)]
    assert await answers_of(*full) == [[2], [4], [6]]
    early = ask(admission, 4)
    await until(lambda: admission.running == 1)
    assert len(estimator.calls) == 1
    now += 61.0
    late = ask(admission, 5)  # its coming makes the first one look at the clock
    assert await answers_of(early, late) == [[8], [10]]
    assert estimator.calls == [[1, 2, 3], [4, 5]]


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_comes_goes_or_asks_wrong_in_whatever_order_each_is_answered_and_no_place_is_lost(
    estimator: Estimator, seed: int
) -> None:
    chance = random.Random(seed)
    admission = admission_of(estimator, queue=30)
    admission.join(estimator.joining(rows=chance.choice((2, 8, 32)), seconds=chance.choice((0.0, 0.002))))
    estimator.opened.set()

    async def one(number: int) -> None:
        asked = rows(*[float(number)] * chance.randint(1, 4))
        kind = chance.choice(("good", "good", "good", "fails", "unreadable", "goes"))
        if kind == "fails":
            asked = -asked
        for _ in range(chance.randint(0, 50)):
            await asyncio.sleep(0)

        def read() -> Any:
            if kind == "unreadable":
                raise InputError("x", "a number", "a string")
            return asked

        through = chance.random() < 0.5 and kind != "unreadable"
        answering = admission.join_async(asked) if through else admission.read_and_join_async(read)
        task = asyncio.create_task(answering)
        if kind == "goes":
            await asyncio.sleep(0)
            task.cancel()
        outcome: Any = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, np.ndarray):
            assert kind in ("good", "goes")
            assert outcome.tolist() == (2 * asked).tolist()
        else:
            said = {"goes": asyncio.CancelledError, "unreadable": InputError, "fails": PredictionError}
            assert isinstance(outcome, said.get(kind, OverloadError) | OverloadError), (kind, outcome)

    await asyncio.gather(*(one(number) for number in range(1, 200)))
    await until(lambda: (admission.running, admission.waiting) == (0, 0))
    assert await ask(admission, 4) == [8]


# ------------------------------------------------------------------------------------ which models may be joined


def problem(tmp_path: Path, call: Callable[[Any], Any], example: Any = ((1.0, 2.0), (3.0, 4.0))) -> Any:
    """What speaks against joining requests to a model that is one function."""
    (tmp_path / "serving_input_example.json").write_text(f'{{"inputs": {[list(row) for row in example]}}}')
    model = Model(WITH_EXAMPLE if example else WITHOUT_EXAMPLE, Signature(), call)
    places = Places(config=tmp_path, model=tmp_path, termination=tmp_path / "termination-log")
    return gates.joining_problem(model, Settings.parse(SETTINGS), places)


def test_a_model_whose_rows_are_answered_by_themselves_may_be_joined(tmp_path: Path) -> None:
    assert problem(tmp_path, lambda rows: rows.sum(axis=1)) is None
    assert problem(tmp_path, lambda rows: np.where(rows[:, 0] > 2, "yes", "no")) is None
    assert problem(tmp_path, lambda rows: rows.sum(axis=1) + len(rows) * 1e-12) is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda rows: rows[:, 0] - rows[:, 0].mean(), "row 1 of its example otherwise"),
        (lambda rows: rows.sum(axis=1) + len(rows) * 1e-6, "row 1 of its example otherwise"),
        (lambda rows: np.where(rows[:, 0] >= rows[:, 0].max(), "top", "other"), "row 1 of its example"),
        (lambda rows: rows[:1], "fails on rows of its example, alone or together: PredictionError"),
        (lambda rows: rows / (2 - len(rows) or {}), "TypeError"),
        (lambda rows: len(rows) / 0, "PredictionError: the model failed on this request"),
    ],
)
def test_a_model_whose_answers_depend_on_other_rows_is_not_joined(
    tmp_path: Path, call: Callable[[Any], Any], said: str
) -> None:
    assert said in problem(tmp_path, call)


@pytest.mark.parametrize("example", [(), ((1.0, 2.0),), ((1.0, 2.0), (1.0, 2.0))])
def test_without_two_different_rows_nothing_is_proved_and_nothing_joined(
    tmp_path: Path, example: Any
) -> None:
    assert "two different rows" in problem(tmp_path, lambda rows: rows.sum(axis=1), example)


def test_an_example_that_cannot_be_read_is_no_reason_to_fail(tmp_path: Path) -> None:
    assert "the model fails on rows" in problem(tmp_path, lambda rows: rows, (("a", 1.0),))


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(batching)
    assert (result.attempted > 0, result.failed) == (True, 0)
