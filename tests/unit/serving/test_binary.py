"""Tensors as bytes: what is packed is unpacked, and what does not fit its shape is refused by name."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_serving import mlserver_binary, raw_tensor
from rollway_serving.errors import InputError
from rollway_serving.signature import DATATYPES

VALUES: dict[str, list[Any]] = {
    name: [0, 1, 1] if dtype.kind in "iuf" else [True, False, True] if dtype.kind == "b" else ["a", "", "ü\0"]
    for name, dtype in DATATYPES.items()
}


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_is_packed_is_unpacked(datatype: str) -> None:
    raw = raw_tensor.pack(datatype, VALUES[datatype])
    assert raw_tensor.unpack("x", datatype, [3, 1], raw) == VALUES[datatype]


def test_bytes_are_little_endian_on_every_machine() -> None:
    assert raw_tensor.pack("INT16", [258]) == b"\x02\x01"
    assert raw_tensor.unpack("x", "INT16", [1], b"\x02\x01") == [258]
    assert raw_tensor.pack("BYTES", ["ab"]) == b"\x02\0\0\0ab"


@pytest.mark.parametrize(
    ("datatype", "raw"), [("FP32", b"\0" * 12), ("FP32", b"\0" * 4), ("BYTES", b"\0" * 12)]
)
def test_bytes_that_are_not_as_many_as_the_shape_says_are_refused(datatype: str, raw: bytes) -> None:
    with pytest.raises(
        InputError, match=r"^'x': expected 2 (FP32 values, got \d+ bytes|strings with their lengths)"
    ):
        raw_tensor.unpack("x", datatype, [2], raw)


@given(
    datatype=st.sampled_from([*DATATYPES, "FP128", ""]),
    shape=st.lists(st.integers(-3, 2**70), max_size=10),
    raw=st.binary(max_size=64),
)
def test_any_bytes_are_values_or_an_input_error(datatype: str, shape: list[int], raw: bytes) -> None:
    try:
        values = raw_tensor.unpack("x", datatype, shape, raw)
    except InputError:
        return
    assert len(values) == np.prod(shape)


@given(body=st.binary(max_size=200), length=st.text("0123456789 -+_x", max_size=6))
def test_any_body_is_parted_or_an_input_error(body: bytes, length: str) -> None:
    try:
        head, rest = mlserver_binary.split(body, length.encode())
    except InputError:
        return
    assert isinstance(head["inputs"], list)
    assert body.endswith(rest)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
tensors = json_values | st.fixed_dictionaries(
    {"name": json_values, "shape": json_values, "datatype": json_values | st.sampled_from([*DATATYPES])},
    optional={"data": json_values, "parameters": st.fixed_dictionaries({"binary_data_size": json_values})},
)


@given(inputs=st.lists(tensors, max_size=3), outputs=json_values, data=st.binary(max_size=64))
def test_any_request_is_filled_or_an_input_error(inputs: list[Any], outputs: Any, data: bytes) -> None:
    request = {"inputs": inputs, "outputs": outputs, "parameters": outputs}
    wants = mlserver_binary.wants_binary(request)
    assert wants("x") in (True, False)
    try:
        filled = mlserver_binary.fill(request, data)
    except InputError:
        return
    assert len(filled["inputs"]) == len(inputs)


def test_an_output_is_bytes_only_where_it_is_wanted() -> None:
    request = {
        "inputs": [],
        "outputs": [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}],
        "parameters": {"binary_data_output": True},
    }
    response = {
        "outputs": [
            {"name": "a", "datatype": "INT32", "shape": [1], "data": [1]},
            {"name": "b", "datatype": "INT32", "shape": [1], "data": [2], "parameters": {"c": 3}},
        ]
    }
    head, data = mlserver_binary.drain(response, mlserver_binary.wants_binary(request))
    first, second = json.loads(head)["outputs"]
    assert first["data"] == [1]
    assert "data" not in second
    assert second["parameters"] == {"c": 3, "binary_data_size": 4}
    assert data == b"\x02\0\0\0"
