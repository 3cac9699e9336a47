"""Golden cases: what is read, what counts as equal, and the one sentence where it is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_serving import gates, golden, invocations
from rollway_serving.errors import SmokeTestFailed
from rollway_serving.mlmodel import MLmodel
from rollway_serving.model import Model
from rollway_serving.settings import Places, Settings
from rollway_serving.signature import Signature

MATRIX = Signature.parse(
    {"inputs": [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]}
)
COLUMNS = Signature.parse({"inputs": [{"name": "age", "type": "long"}, {"name": "job", "type": "string"}]})
TWO_OUTPUTS = Signature.parse(
    {
        "inputs": [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}],
        "outputs": [{"name": "label", "type": "string"}, {"name": "score", "type": "double"}],
    }
)
ROWS = {"inputs": [[1.0, 2.0], [3.0, 4.0]]}


def case(request: Any = ROWS, predictions: Any = (3.0, 7.0)) -> dict[str, Any]:
    return {"request": request, "predictions": list(predictions)}


def judge(
    tmp_path: Path,
    cases: Any,
    call: Callable[[Any], Any] = lambda rows: np.asarray(rows).sum(axis=1),
    signature: Signature = MATRIX,
    *,
    first_pod: bool = True,
    tolerance: float = 1e-6,
    max_latency: float | None = None,
    warmup: int = 0,
    mlmodel: str = "flavors: {sklearn: {}}",
) -> None:
    """Run the gates on a model that is one function."""
    places = Places(config=tmp_path, model=tmp_path, termination=tmp_path / "termination-log")
    (tmp_path / "golden.json").write_text(cases if isinstance(cases, str) else json.dumps(cases))
    settings = Settings(
        name="fraud",
        namespace="team-a",
        revision="fraud-7c9f12ab",
        model_name="fraud",
        version="3",
        timeout_seconds=30,
        smoke_test="ConfigMap",
        tolerance=tolerance,
        max_latency_seconds=max_latency,
        warmup_requests=warmup,
        drain_seconds=5,
        http_port=1,
        grpc_port=2,
        metrics_port=3,
    )
    model = Model(MLmodel.parse(mlmodel.encode()), signature, call)
    gates.run(model, settings, places, first_pod=first_pod)


def always(answer: Any) -> Callable[[Any], Any]:
    return lambda rows: answer  # noqa: ARG005 - what it is asked does not matter


def fails(tmp_path: Path, cases: Any, **options: Any) -> str:
    with pytest.raises(SmokeTestFailed) as failure:
        judge(tmp_path, cases, **options)
    return str(failure.value)


def test_right_answers_pass_and_are_held_to_the_tolerance(tmp_path: Path) -> None:
    judge(tmp_path, [case(), case({"instances": [[0.0, 0.5]]}, [0.5000009])])
    judge(tmp_path, [case(predictions=[3.0, 7.4])], tolerance=0.5)


def test_a_wrong_number_is_one_sentence_with_all_one_needs(tmp_path: Path) -> None:
    assert fails(tmp_path, [case(), case(predictions=[3.0, 7.25])]) == (
        "golden case 2 of 2: predictions[1]: expected 7.25, got 7.0, a difference of 0.25 (tolerance 1e-06)"
    )


def test_probabilities_are_compared_value_by_value(tmp_path: Path) -> None:
    cases = [{"request": ROWS, "predictions": [[0.25, 0.75], [0.5, 0.25]]}]
    judge(tmp_path, cases, call=always(np.array([[0.25, 0.75], [0.5, 0.25]], dtype=np.float32)))
    message = fails(tmp_path, cases, call=always(np.array([[0.25, 0.75], [0.5, 0.5]])))
    assert message.endswith(
        "predictions[1][1]: expected 0.25, got 0.5, a difference of 0.25 (tolerance 1e-06)"
    )


def test_labels_must_be_equal_texts(tmp_path: Path) -> None:
    request = {"dataframe_split": {"columns": ["age", "job"], "data": [[30, "baker"], [60, "smith"]]}}
    cases = [case(request, ["good", "bad"])]

    def label(rows: pd.DataFrame) -> Any:
        return np.where(rows["age"] > 50, "bad", "good")

    judge(tmp_path, cases, call=label, signature=COLUMNS)
    cases[0]["predictions"][1] = "good"
    assert fails(tmp_path, cases, call=label, signature=COLUMNS) == (
        'golden case 1 of 1: predictions[1]: expected "good", got "bad"'
    )


def test_several_outputs_are_records(tmp_path: Path) -> None:
    answer = always(pd.DataFrame({"label": ["a", "b"], "score": [0.5, 1.0]}))
    records = [{"label": "a", "score": 0.5}, {"label": "b", "score": 1.0}]
    judge(tmp_path, [case(predictions=records)], call=answer, signature=TWO_OUTPUTS)
    records[1]["score"] = 0.5
    message = fails(tmp_path, [case(predictions=records)], call=answer, signature=TWO_OUTPUTS)
    assert 'predictions[1]["score"]: expected 0.5, got 1.0, a difference of 0.5' in message
    del records[1]["score"]
    message = fails(tmp_path, [case(predictions=records)], call=answer, signature=TWO_OUTPUTS)
    assert 'predictions[1]: expected the names ["label"], got ["label", "score"]' in message


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (None, float("nan")),
        (float("nan"), float("nan")),
        (0.0, float("nan")),
        (1e308, float("inf")),
        (1.5, 10**400),
        ("a", "\ud800"),
        (1, True),
        (0, False),
        (1.0, "1.0"),
        ("a", None),
        ([1.0], 1.0),
        (1.0, [1.0]),
        ([1.0], [1.0, 2.0]),
        ({"a": 1}, [1]),
        ({"a": 1}, {"b": 1}),
    ],
)
def test_these_are_never_equal(expected: Any, got: Any) -> None:
    message = golden.difference([expected], [got], tolerance=1e9)
    assert message is not None
    assert message.isprintable()


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "é", [1, [2]], {"a": [None]}])
def test_these_are_equal(value: Any) -> None:
    assert golden.difference([value], [value], tolerance=0) is None


NOT_GOLDEN: list[Any] = [
    "",
    "[",
    "{}",
    "[]",
    "null",
    "[NaN]",
    "[1e400]",
    "\x00",
    "[" * 100_000,
    "[" * 100_000 + "]" * 100_000,
    json.dumps([case()]) + " " * golden.MAX_BYTES,
    [1],
    [{}],
    [{"request": ROWS}],
    [case() | {"tolerance": 1}],
    [{"request": ROWS, "predictions": 3.0}],
    [case(request=None)],
    [case(request={"inputs": [[1.0]]})],
    [case(request={"inputs": [[1.0, "a"]]})],
    [case(request={"inputs": []})],
    [case(request={"dataframe_split": {"columns": "x", "data": 1}})],
    [case(request={"\ud800": 1})],
    [case(predictions=[])],
    [case(predictions=["a" * 10_000, {"a" * 10_000: 1}])],
]


@pytest.mark.parametrize("cases", NOT_GOLDEN, ids=range(len(NOT_GOLDEN)))
def test_a_hostile_file_fails_the_smoke_test_in_one_short_sentence(tmp_path: Path, cases: Any) -> None:
    message = fails(tmp_path, cases)
    assert message.startswith("golden")
    assert len(message) < 500


def test_a_missing_file_fails_the_smoke_test(tmp_path: Path) -> None:
    with pytest.raises(SmokeTestFailed, match=r"golden\.json cannot be read: No such file"):
        golden.load(tmp_path / "golden.json", MATRIX)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
REQUESTS = st.dictionaries(
    st.sampled_from(["inputs", "instances", "dataframe_split", "dataframe_records"]), JSON, max_size=2
)


@given(cases=st.lists(st.fixed_dictionaries({"request": REQUESTS | JSON, "predictions": JSON}) | JSON))
def test_whatever_stands_in_the_file_it_is_read_or_refused(cases: Any) -> None:
    for signature in (MATRIX, COLUMNS, Signature()):
        try:
            read = golden.parse(json.dumps(cases).encode(), signature)
        except SmokeTestFailed:
            continue
        assert len(read) == len(cases)


@given(expected=JSON, got=JSON)
def test_any_two_values_can_be_compared(expected: Any, got: Any) -> None:
    found = golden.difference(expected, got, 0.0)
    assert found is None or found.startswith("predictions")


def test_a_model_that_fails_on_a_case_is_told_with_its_error(tmp_path: Path) -> None:
    def broken(rows: Any) -> Any:
        raise KeyError("a column")

    message = fails(tmp_path, [case()], call=broken)
    assert message == "golden case 1 of 1: the model failed on this request: 'a column'"


def test_the_answer_is_the_one_that_invocations_gives() -> None:
    result = np.array([[1.0], [2.0]])
    sent = json.loads(invocations.encode(MATRIX, result))["predictions"]
    assert sent == invocations.predictions(MATRIX, result)


# ------------------------------------------------------------------------------------------------------------ latency


class SlowModel:
    """A model that takes a time of its own, by a clock of its own."""

    def __init__(self, seconds: list[float]) -> None:
        self.now = 0.0
        self.calls = 0
        self._seconds = seconds

    def clock(self) -> float:
        return self.now

    def __call__(self, rows: Any) -> Any:
        self.now += self._seconds[min(self.calls, len(self._seconds) - 1)]
        self.calls += 1
        return np.asarray(rows).sum(axis=1)


def test_a_slow_model_fails_in_the_first_pod_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowModel([0.5])
    monkeypatch.setattr("rollway_serving.gates.time.monotonic", slow.clock)
    message = fails(tmp_path, [case()], call=slow, max_latency=0.1)
    assert message == "golden case 1 of 1: it took 500 ms at best, longer than maxLatency 100 ms"
    judge(tmp_path, [case()], call=slow, max_latency=0.1, first_pod=False)
    judge(tmp_path, [case()], call=slow, max_latency=0.5)
    judge(tmp_path, [case()], call=slow)


def test_a_slow_first_call_is_forgiven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowModel([9.0, 0.3, 0.01, 0.3])
    monkeypatch.setattr("rollway_serving.gates.time.monotonic", slow.clock)
    judge(tmp_path, [case()], call=slow, max_latency=0.1)
    assert slow.calls == 4


@pytest.mark.parametrize(("text", "first"), [("", True), ("\n", True), ("sha256:00", False), (None, False)])
def test_the_first_pod_is_the_one_without_a_pin(tmp_path: Path, text: str | None, first: bool) -> None:
    if text is not None:
        (tmp_path / "digest").write_text(text)
    assert gates.is_first_pod(Places(tmp_path, tmp_path, tmp_path)) is first


# ------------------------------------------------------------------------------------------------------------ warm-up


def test_without_an_input_example_the_cases_warm_the_model_up(tmp_path: Path) -> None:
    seen: list[int] = []

    def call(rows: Any) -> Any:
        seen.append(len(rows))
        return np.asarray(rows).sum(axis=1)

    judge(tmp_path, [case(), case({"inputs": [[0.0, 1.0]]}, [1.0])], call=call, warmup=5)
    assert seen == [2, 1, 2, 1, 2, 1, 2]
