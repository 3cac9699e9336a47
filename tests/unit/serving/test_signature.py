"""Signatures convert what is right and name what is wrong."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from rollway_serving import invocations
from rollway_serving.errors import InputError, ModelLoadFailed
from rollway_serving.model import Model
from rollway_serving.signature import DATATYPES, Signature, Tensor

COLUMNS = Signature.parse(
    {
        "inputs": [
            {"name": "age", "type": "long", "required": True},
            {"name": "income", "type": "double", "required": True},
            {"name": "city", "type": "string", "required": True},
            {"name": "member", "type": "boolean", "required": True},
            {"name": "since", "type": "datetime", "required": True},
            {"name": "score", "type": "float", "required": False},
        ],
        "outputs": [{"name": "price", "type": "double"}, {"name": "risk", "type": "long"}],
    }
)
MATRIX = Signature.parse(
    {
        "inputs": [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}],
        "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}],
    }
)
NUMBERS = Signature.parse({"inputs": [{"name": n, "type": "double"} for n in "abc"]})
ROW: dict[str, Any] = {
    "age": 41,
    "income": 2.5,
    "city": "Oslo",
    "member": True,
    "since": "2024-05-01",
    "score": 0.5,
}


def tensor(name: str, datatype: str, shape: list[int], data: Any) -> Tensor:
    return Tensor(name, datatype, shape, data)


def row_tensors(**changes: Tensor | None) -> list[Tensor]:
    tensors: dict[str, Tensor | None] = {
        "age": tensor("age", "INT64", [1], [41]),
        "income": tensor("income", "FP32", [1, 1], [2.5]),
        "city": tensor("city", "BYTES", [1], [b"Oslo"]),
        "member": tensor("member", "BOOL", [1], [True]),
        "since": tensor("since", "BYTES", [1], ["2024-05-01"]),
        "score": tensor("score", "FP32", [1], [0.5]),
    }
    tensors.update(changes)
    return [each for each in tensors.values() if each]


def test_columns_become_a_frame_of_the_signatures_types_in_its_order() -> None:
    frame = COLUMNS.from_tensors(row_tensors()[::-1])
    assert list(frame.columns) == list(ROW)
    assert [str(dtype) for dtype in frame.dtypes.drop("city")] == [
        "int64",
        "float64",
        "bool",
        "datetime64[ns]",
        "float32",
    ]
    assert frame.iloc[0].to_dict() == ROW | {"since": pd.Timestamp("2024-05-01")}


def test_v2_and_invocations_give_the_model_the_same_frame() -> None:
    by_v2 = COLUMNS.from_tensors(row_tensors())
    records = invocations.parse({"dataframe_records": [ROW]}, COLUMNS)
    split = invocations.parse(
        {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())]}}, COLUMNS
    )
    csv = invocations.parse_csv(
        b"age,income,city,member,since,score\n41,2.5,Oslo,true,2024-05-01,0.5\n", COLUMNS
    )
    for frame in (records, split, csv):
        pd.testing.assert_frame_equal(frame, by_v2)


def test_an_optional_column_may_be_missing_or_null() -> None:
    missing = COLUMNS.from_tensors(row_tensors(score=None))
    null = invocations.parse({"dataframe_records": [ROW | {"score": None}]}, COLUMNS)
    assert np.isnan(missing["score"][0])
    assert np.isnan(null["score"][0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"age": None}, "'age': expected this column, got only "),
        ({"x": tensor("x", "FP64", [1], [1.0])}, "'x': expected one of the columns 'age', "),
        ({"age": tensor("age", "FP64", [1], [1.0])}, "'age': expected INT64, got FP64"),
        ({"age": tensor("age", "INT64", [1], [2**63])}, "'age': expected numbers in INT64's range"),
        (
            {"age": tensor("age", "INT64", [2], [1, 2])},
            "'income': expected 2 rows, as in the first column, got 1",
        ),
        (
            {"age": tensor("age", "INT64", [1, 1, 1], [1])},
            "'age': expected shape [-1] or [-1, 1], got [1, 1, 1]",
        ),
        ({"city": tensor("city", "BYTES", [1], [b"\xff"])}, "'city': expected UTF-8 text"),
        ({"city": tensor("city", "BYTES", [1], [1])}, "'city': expected BYTES strings, got a whole number"),
        (
            {"member": tensor("member", "BOOL", [1], [1])},
            "'member': expected BOOL values, got a whole number",
        ),
        ({"since": tensor("since", "BYTES", [1], ["May"])}, "'since': expected ISO 8601 times"),
        ({"income": tensor("income", "FP64", [1], [None])}, "'income': expected FP64 numbers, got null"),
        ({"age": tensor("age", "int", [1], [1])}, "'age': expected a datatype of BOOL, "),
        ({"age": tensor("age", "INT64", [1], [1, 2])}, "'age': expected 1 value for shape [1], got 2"),
        ({"age": tensor("age", "INT64", [2], [1])}, "'age': expected 2 values for shape [2], got 1"),
        ({"age": tensor("age", "INT64", [], [1])}, "'age': expected a shape of 1 to 8 dimensions, got 0"),
        ({"age": tensor("age", "INT64", [1], 7)}, "'age': expected a list, got a whole number"),
    ],
)
def test_a_wrong_column_is_named_with_what_was_expected(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        COLUMNS.from_tensors(row_tensors(**change))
    assert str(refused.value).startswith(sentence)


def test_one_matrix_stands_for_all_columns_of_numbers() -> None:
    frame = NUMBERS.from_tensors([tensor("anything", "INT32", [2, 3], [1, 2, 3, 4, 5, 6])])
    assert frame.to_dict("list") == {"a": [1.0, 4.0], "b": [2.0, 5.0], "c": [3.0, 6.0]}
    with pytest.raises(InputError, match=r"'x': expected shape \[-1, 3\].+got \[1, 2\]"):
        NUMBERS.from_tensors([tensor("x", "FP64", [1, 2], [1.0, 2.0])])


def test_a_tensor_keeps_its_values_and_takes_the_signatures_type() -> None:
    array = MATRIX.from_tensors([tensor("x", "FP32", [2, 3], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])])
    assert array.dtype == np.float64
    assert array.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_a_named_tensor_must_be_called_by_its_name() -> None:
    signature = Signature.parse(
        {
            "inputs": [
                {"name": "image", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}
            ]
        }
    )
    signature.from_tensors([tensor("image", "FP32", [1, 2], [1.0, 2.0])])
    with pytest.raises(InputError, match="expected an input named 'image'"):
        signature.from_tensors([tensor("x", "FP32", [1, 2], [1.0, 2.0])])


def test_a_name_that_a_client_chose_is_shortened_and_escaped() -> None:
    with pytest.raises(InputError) as refused:
        COLUMNS.from_tensors(row_tensors(x=tensor("\r\n" + "x" * 1000, "FP64", [1], [1.0])))
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_a_model_without_a_signature_takes_an_array_as_it_comes() -> None:
    array = Signature().from_tensors([tensor("x", "INT8", [1, 2], [1, 2])])
    assert array.dtype == np.int8
    assert array.tolist() == [[1, 2]]
    assert invocations.parse({"instances": [[1, 2.5]]}, Signature()).tolist() == [[1.0, 2.5]]
    records = invocations.parse({"dataframe_records": [{"a": 1, "b": 2}]}, Signature())
    assert records.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (np.array([[1.0, 2.0]]), ["price", "risk"]),
        (pd.DataFrame({"p": [1.0], "q": [2]}), ["p", "q"]),
        (np.array([1.0]), ["predict"]),
    ],
)
def test_outputs_have_the_signatures_names(result: Any, names: list[str]) -> None:
    assert [name for name, _ in COLUMNS.named_outputs(result)] == names


def test_an_output_has_the_promised_type() -> None:
    ((name, array),) = MATRIX.named_outputs(np.array([1], dtype="int32"))
    assert name == "predict"
    assert array.dtype == np.int64


def test_several_outputs_are_answered_as_records() -> None:
    answer = invocations.encode(COLUMNS, np.array([[1.5, 2.0], [3.5, 4.0]]))
    assert answer == b'{"predictions":[{"price":1.5,"risk":2.0},{"price":3.5,"risk":4.0}]}'


@pytest.mark.parametrize(
    "inputs",
    [
        "text",
        [1],
        [{"name": "a", "type": "array"}],
        [{"name": "a", "type": "binary"}],
        [{"name": "a", "type": "long"}, {"name": "a", "type": "long"}],
        [{"name": "a", "type": "long"}, {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [1]}}],
        [{"type": "tensor", "tensor-spec": {"dtype": "nonsense", "shape": [1]}}],
        [{"type": "tensor", "tensor-spec": {"dtype": "complex128", "shape": [1]}}],
        [{"type": "tensor", "tensor-spec": {}}],
        [{"name": n, "type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [1]}} for n in "ab"],
    ],
)
def test_a_signature_that_cannot_be_served_fails_the_load(inputs: Any) -> None:
    with pytest.raises(ModelLoadFailed):
        Signature.parse({"inputs": inputs})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)
any_tensor = st.builds(
    Tensor,
    name=st.sampled_from(["a", "b", "c", "x"]),
    datatype=st.sampled_from([*DATATYPES, "FP128"]),
    shape=st.lists(st.integers(-2, 4) | st.integers(), max_size=4),
    data=st.lists(values, max_size=6) | values,
)


@given(
    tensors=st.lists(any_tensor, max_size=3),
    signature=st.sampled_from([COLUMNS, MATRIX, NUMBERS, Signature()]),
)
def test_whatever_comes_is_converted_or_refused_never_a_crash(
    tensors: list[Tensor], signature: Signature
) -> None:
    try:
        rows = signature.from_tensors(tensors)
    except InputError:
        return
    assert len(rows) > 0


requests = st.fixed_dictionaries(
    {},
    optional={
        "instances": values,
        "inputs": values,
        "dataframe_records": values,
        "dataframe_split": st.fixed_dictionaries({}, optional={"columns": values, "data": values}) | values,
    },
)


@given(request=requests | values, signature=st.sampled_from([COLUMNS, MATRIX, NUMBERS, Signature()]))
def test_whatever_is_invoked_is_converted_or_refused_never_a_crash(
    request: Any, signature: Signature
) -> None:
    try:
        invocations.parse(request, signature)
    except InputError:
        return


@given(body=st.binary(max_size=60), signature=st.sampled_from([COLUMNS, MATRIX, NUMBERS, Signature()]))
def test_whatever_bytes_come_are_converted_or_refused_never_a_crash(
    body: bytes, signature: Signature
) -> None:
    for read in (invocations.parse_json, invocations.parse_csv):
        try:
            read(body, signature)
        except InputError:
            continue


def test_a_signature_is_described_in_the_words_of_v2() -> None:
    assert COLUMNS.described() == {
        "inputs": [
            {"name": "age", "type": "INT64", "shape": [-1], "required": True},
            {"name": "income", "type": "FP64", "shape": [-1], "required": True},
            {"name": "city", "type": "BYTES", "shape": [-1], "required": True},
            {"name": "member", "type": "BOOL", "shape": [-1], "required": True},
            {"name": "since", "type": "BYTES", "shape": [-1], "required": True},
            {"name": "score", "type": "FP32", "shape": [-1], "required": False},
        ],
        "outputs": [
            {"name": "price", "type": "FP64", "shape": [-1]},
            {"name": "risk", "type": "INT64", "shape": [-1]},
        ],
    }
    assert MATRIX.described() == {
        "inputs": [{"name": "input-0", "type": "FP64", "shape": [-1, 3], "required": True}],
        "outputs": [{"name": "predict", "type": "INT64", "shape": [-1]}],
    }
    assert Signature.parse(None).described() == {"inputs": [], "outputs": []}


def test_what_an_estimator_itself_remembers_checks_requests_and_is_no_signature(tmp_path: Path) -> None:
    estimator = LinearRegression().fit(np.eye(3), np.arange(3))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(estimator))
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl}}")
    model = Model.load(tmp_path)
    assert [spec.shape for spec in model.signature.inputs] == [(-1, 3)]
    assert model.declared.described() == {"inputs": [], "outputs": []}
