"""Whether clients of one model can go on with another, and which column is said to be to blame."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_operator import signature as module
from rollway_operator.signature import Column, Signature, compatibility

AGE = Column("age", "INT64")
INCOME = Column("income", "FP64")
CITY = Column("city", "BYTES", required=False)
SCORE = Column("score", "FP64")
PIXELS = Column("pixels", "FP32", (-1, 28, 28))


def takes(*inputs: Column) -> Signature:
    return Signature(inputs, (SCORE,))


def gives(*outputs: Column) -> Signature:
    return Signature((AGE,), outputs)


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(module)
    assert (result.attempted > 5, result.failed) == (True, 0)


@pytest.mark.parametrize(
    ("stable", "candidate"),
    [
        (takes(AGE, INCOME), takes(AGE, INCOME)),
        (takes(AGE), takes(AGE, CITY)),
        (takes(AGE), takes(CITY, AGE)),
        (takes(INCOME), takes(Column("income", "FP64", required=False))),
        (takes(PIXELS), takes(Column("pixels", "FP32", (-1, -1, -1)))),
        (gives(SCORE), gives(SCORE, Column("reason", "BYTES"))),
        (gives(Column("score", "FP64", (-1, -1))), gives(Column("score", "FP64", (-1, 3)))),
        (gives(), gives(SCORE)),
        (Signature(), takes(AGE)),
        (Signature(), Signature()),
    ],
)
def test_clients_can_go_on(stable: Signature, candidate: Signature) -> None:
    assert compatibility(stable, candidate) is None


@pytest.mark.parametrize(
    ("stable", "candidate", "why"),
    [
        (takes(AGE), takes(AGE, INCOME), "input 'income' (FP64) is required and was not there before"),
        (
            takes(CITY),
            takes(Column("city", "BYTES")),
            "input 'city' (BYTES) is required and was optional before",
        ),
        (takes(AGE, CITY), takes(AGE), "input 'city' is gone, and requests that have it would be refused"),
        (takes(AGE), takes(Column("age", "BYTES")), "input 'age' changed from INT64 to BYTES"),
        (
            takes(PIXELS),
            takes(Column("pixels", "FP32", (-1, 32, 32))),
            "input 'pixels' changed from shape [-1, 28, 28] to [-1, 32, 32]",
        ),
        (
            takes(PIXELS),
            takes(Column("pixels", "FP32", (-1, 784))),
            "input 'pixels' changed from shape [-1, 28, 28] to [-1, 784]",
        ),
        (
            takes(Column("x", "FP64", (-1, -1))),
            takes(Column("x", "FP64", (-1, 30))),
            "input 'x' changed from shape [-1, -1] to [-1, 30]",
        ),
        (
            takes(AGE, INCOME),
            takes(INCOME, AGE),
            "input 'income' came after 'age' and now comes before it, so rows without names would be misread",
        ),
        (takes(AGE), Signature((), (SCORE,)), "it has no signature, and input 'age' was in the one before"),
        (gives(SCORE), gives(), "output 'score' is gone"),
        (gives(SCORE), gives(Column("score", "INT64")), "output 'score' changed from FP64 to INT64"),
        (
            gives(Column("score", "FP64", (-1, 3))),
            gives(Column("score", "FP64", (-1, -1))),
            "output 'score' changed from shape [-1, 3] to [-1, -1]",
        ),
    ],
)
def test_clients_cannot_go_on_and_the_column_is_named(
    stable: Signature, candidate: Signature, why: str
) -> None:
    assert compatibility(stable, candidate) == why


def test_a_name_that_somebody_chose_is_shown_short_and_printable() -> None:
    why = compatibility(gives(Column("\n\x1b[31m" + "x" * 1000, "FP64")), gives())
    assert why is not None
    assert why.isprintable()
    assert len(why) < 100


COLUMN = st.builds(
    Column,
    st.sampled_from("abc"),
    st.sampled_from(["FP64", "INT64"]),
    st.sampled_from([(-1,), (-1, 2)]),
    st.booleans(),
)
COLUMNS = st.lists(COLUMN, max_size=3, unique_by=lambda column: column.name).map(tuple)
SIGNATURE = st.builds(Signature, COLUMNS, COLUMNS)


@given(SIGNATURE, SIGNATURE)
def test_who_can_go_back_and_forth_has_the_same_inputs(one: Signature, other: Signature) -> None:
    assert compatibility(one, one) is None
    if one.inputs and other.inputs and not compatibility(one, other) and not compatibility(other, one):
        assert one.inputs == other.inputs


@given(SIGNATURE, SIGNATURE, SIGNATURE)
def test_who_can_go_on_twice_can_go_on_at_once(first: Signature, second: Signature, third: Signature) -> None:
    if second.inputs and not compatibility(first, second) and not compatibility(second, third):
        assert compatibility(first, third) is None
