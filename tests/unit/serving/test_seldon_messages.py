"""Seldon's messages: what the model gets, what comes back, and what is the client's mistake."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_serving.errors import InputError
from rollway_serving.seldon_messages import Answer, Request
from rollway_serving.signature import Signature

COLUMNS = Signature.parse(
    {
        "inputs": [
            {"name": "age", "type": "long"},
            {"name": "income", "type": "double"},
            {"name": "city", "type": "string"},
        ],
        "outputs": [{"name": "price", "type": "double"}, {"name": "risk", "type": "long"}],
    }
)
MATRIX = Signature.parse(
    {"inputs": [{"name": "x", "type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]}
)
COUNTS = Signature.parse(
    {"inputs": [{"type": "tensor", "tensor-spec": {"dtype": "int32", "shape": [-1, 2]}}]}
)


def ndarray(*rows: Any, **more: Any) -> dict[str, Any]:
    return {"data": {"ndarray": list(rows)} | more}


def tensor(shape: Any, values: Any) -> dict[str, Any]:
    return {"data": {"tensor": {"shape": shape, "values": values}}}


def test_columns_stand_in_the_signatures_order_without_names() -> None:
    request = Request.read(ndarray([41, 2.5, "Oslo"], [7, 0, "Rome"]), COLUMNS)
    assert request.rows.to_dict("list") == {"age": [41, 7], "income": [2.5, 0.0], "city": ["Oslo", "Rome"]}
    assert str(request.rows["age"].dtype) == "int64"


def test_named_columns_may_stand_in_any_order() -> None:
    request = Request.read(ndarray(["Oslo", 41, 2.5], names=["city", "age", "income"]), COLUMNS)
    assert request.rows.to_dict("list") == {"age": [41], "income": [2.5], "city": ["Oslo"]}
    assert list(request.rows.columns) == ["age", "income", "city"]


def test_a_whole_double_is_an_integer_where_the_signature_wants_one() -> None:
    assert Request.read(ndarray([41.0, 2, "Oslo"]), COLUMNS).rows["age"].tolist() == [41]
    rows = Request.read(tensor([1, 2], [3.0, 4.0]), COUNTS).rows
    assert (rows.tolist(), rows.dtype) == ([[3, 4]], np.dtype("int32"))


@pytest.mark.parametrize("signature", [MATRIX, Signature()], ids=["matrix", "no signature"])
def test_a_tensor_is_a_matrix(signature: Signature) -> None:
    rows = Request.read(tensor([2, 3], [1.5, 2, 3, 4, 5, 6]), signature).rows
    assert rows.tolist() == [[1.5, 2, 3], [4, 5, 6]]
    assert rows.tolist() == Request.read(ndarray([1.5, 2, 3], [4, 5, 6]), signature).rows.tolist()


def test_what_a_client_adds_comes_back_but_not_its_metrics() -> None:
    meta = {"puid": "p1", "tags": {"a": [1]}, "metrics": [{"key": "k"}], "routing": {"r": 1}}
    request = Request.read(ndarray([1, 2, 3]) | {"meta": meta}, MATRIX)
    assert (request.puid, request.tags) == ("p1", {"a": [1]})


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("message", "signature", "field"),
    [
        ([], MATRIX, "body"),
        (None, MATRIX, "body"),
        ({}, MATRIX, "data"),
        ({"data": []}, MATRIX, "data"),
        ({"data": {}}, MATRIX, "data"),
        ({"data": {"tftensor": {}}}, MATRIX, "data"),
        ({"data": {"ndarray": [[1, 2, 3]], "tensor": {}}}, MATRIX, "data"),
        ({"strData": "1,2,3"}, MATRIX, "strData"),
        ({"jsonData": {}}, MATRIX, "jsonData"),
        ({"binData": ""}, MATRIX, "binData"),
        ({"customData": {}}, MATRIX, "customData"),
        (ndarray(), MATRIX, "data.ndarray"),
        (ndarray([]), MATRIX, "data.ndarray"),
        (ndarray([1, 2], [3]), MATRIX, "data.ndarray"),
        (ndarray([1, 2]), MATRIX, "'x'"),
        (ndarray([1, 2, "a"]), MATRIX, "'x'"),
        (ndarray([1, 2, None]), MATRIX, "'x'"),
        (ndarray([1, 2, True]), MATRIX, "'x'"),
        (ndarray([1, 2, {}]), MATRIX, "'x'"),
        ({"data": {"ndarray": nested(12)}}, MATRIX, "data.ndarray"),
        ({"data": {"ndarray": "abc"}}, MATRIX, "data.ndarray"),
        ({"data": {"tensor": [1]}}, MATRIX, "data.tensor"),
        (tensor([], []), MATRIX, "data.tensor.shape"),
        (tensor([-1, 3], [1, 2, 3]), MATRIX, "data.tensor.shape"),
        (tensor([1.0, 3], [1, 2, 3]), MATRIX, "data.tensor.shape"),
        (tensor("13", [1, 2, 3]), MATRIX, "data.tensor.shape"),
        (tensor([10**18, 3], [1, 2, 3]), MATRIX, "data.tensor.values"),
        (tensor([1, 3], [[1, 2, 3]]), MATRIX, "data.tensor.values"),
        (tensor([1, 3], None), MATRIX, "data.tensor.values"),
        (tensor([0, 3], []), MATRIX, "data.tensor"),
        (tensor([3], [1, 2, 3]), MATRIX, "'x'"),
        (tensor([1, 2], [1.5, 2]), COUNTS, "'input-0'"),
        (tensor([1, 2], [2**31, 2]), COUNTS, "'input-0'"),
        (ndarray([1, 2, 3], names=["a", "b"]), MATRIX, "data.names"),
        (ndarray([1, 2, 3], names=["a", "a", "b"]), MATRIX, "data.names"),
        (ndarray([1, 2, 3], names=[1, 2, 3]), MATRIX, "data.names"),
        (ndarray([1, 2, 3], names="abc"), MATRIX, "data.names"),
        (ndarray([1, 2.5]), COLUMNS, "data.ndarray"),
        (ndarray([1.5, 2.5, "a"]), COLUMNS, "'age'"),
        (ndarray([1, 2.5, 3]), COLUMNS, "'city'"),
        (ndarray([1, 2.5, "a"], names=["age", "income", "town"]), COLUMNS, "'town'"),
        (ndarray([1, 2.5], names=["age", "income"]), COLUMNS, "'city'"),
        (ndarray([1, 2, 3]) | {"meta": []}, MATRIX, "meta"),
        (ndarray([1, 2, 3]) | {"meta": {"puid": 5}}, MATRIX, "meta.puid"),
        (ndarray([1, 2, 3]) | {"meta": {"puid": "p" * 300}}, MATRIX, "meta.puid"),
        (ndarray([1, 2, 3]) | {"meta": {"tags": []}}, MATRIX, "meta.tags"),
        (ndarray([1, 2, 3]) | {"meta": {"tags": {"a": nested(300)}}}, MATRIX, "meta.tags"),
    ],
    ids=str,
)
def test_a_mistake_is_named(message: Any, signature: Signature, field: str) -> None:
    with pytest.raises(InputError) as error:
        Request.read(message, signature)
    assert error.value.field == field
    assert "expected" in str(error.value)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["data", "ndarray", "tensor", "shape", "values", "names", "meta", "tags", "puid"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_values, st.sampled_from([COLUMNS, MATRIX, COUNTS, Signature()]))
def test_anything_else_than_a_request_is_the_clients_mistake(message: Any, signature: Signature) -> None:
    for each in (message, {"data": message}, {"data": {"ndarray": message}}, {"data": {"tensor": message}}):
        with contextlib.suppress(InputError):
            Request.read(each, signature)


def test_an_answer_comes_in_the_form_that_was_asked_in() -> None:
    result = np.array([[0.25, 0.75]])
    assert Answer.of(result, "ndarray", MATRIX).as_json() == {
        "names": ["t:0", "t:1"],
        "ndarray": [[0.25, 0.75]],
    }
    assert Answer.of(result, "tensor", MATRIX).as_json() == {
        "names": ["t:0", "t:1"],
        "tensor": {"shape": [1, 2], "values": [0.25, 0.75]},
    }
    assert Answer.of(np.array([3, 4]), "tensor", MATRIX).as_json() == {
        "names": [],
        "tensor": {"shape": [2], "values": [3, 4]},
    }


def test_labels_are_an_ndarray_even_where_a_tensor_asked() -> None:
    answer = Answer.of(np.array(["spam", "ham"]), "tensor", MATRIX)
    assert answer.as_json() == {"names": [], "ndarray": ["spam", "ham"]}


def test_several_outputs_are_columns_by_their_names() -> None:
    answer = Answer.of(np.array([[1.5, 2.0]]), "tensor", COLUMNS)
    assert answer.as_json()["names"] == ["price", "risk"]
    assert answer.as_json()["tensor"] == {"shape": [1, 2], "values": [1.5, 2.0]}
