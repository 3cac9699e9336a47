"""Whether clients of one model can go on unchanged with another, by what the two say that they take and give.

A server refuses inputs that the model does not know, so an input that is gone breaks its clients as much as a new one
that they do not send. Clients that send rows without names rely on the order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_NAME_SHOWN: Final = 64
_ANY: Final = -1


@dataclass(frozen=True)
class Column:
    """One named input or output."""

    name: str
    type: str
    """A datatype of the Open Inference Protocol: FP64, INT64, BYTES, BOOL, …."""
    shape: tuple[int, ...] = (_ANY,)
    """-1 stands for any size."""
    required: bool = True


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives; a model that does not say has neither."""

    inputs: tuple[Column, ...] = ()
    outputs: tuple[Column, ...] = ()


def compatibility(stable: Signature, candidate: Signature) -> str | None:
    """Say why stable's clients cannot go on with the candidate, naming the first column that is to blame.

    >>> age, income = Column("age", "INT64"), Column("income", "FP64")
    >>> compatibility(Signature((age,)), Signature((age, income)))
    "input 'income' (FP64) is required and was not there before"
    >>> compatibility(Signature((age, income)), Signature((age,)))
    "input 'income' is gone, and requests that have it would be refused"
    >>> compatibility(Signature((age,)), Signature((Column("age", "BYTES"),)))
    "input 'age' changed from INT64 to BYTES"
    >>> compatibility(Signature((), (Column("score", "FP64"),)), Signature())
    "output 'score' is gone"
    """
    return _inputs(stable.inputs, candidate.inputs) or _outputs(stable.outputs, candidate.outputs)


def _inputs(before: tuple[Column, ...], now: tuple[Column, ...]) -> str | None:
    if not before:
        return None  # nothing was promised, and nobody can tell what clients send
    if not now:
        return f"it has no signature, and input {_quoted(before[0].name)} was in the one before"
    old, new = {column.name: column for column in before}, {column.name: column for column in now}
    for column in before:
        if column.name not in new:
            return f"input {_quoted(column.name)} is gone, and requests that have it would be refused"
    for column in now:
        reason = _input(old.get(column.name), column)
        if reason:
            return reason
    return _reordered(
        tuple(column.name for column in before), {column.name: i for i, column in enumerate(now)}
    )


def _reordered(before: tuple[str, ...], places: Mapping[str, int]) -> str | None:
    for earlier, later in pairwise(before):
        if places[earlier] > places[later]:
            return (
                f"input {_quoted(later)} came after {_quoted(earlier)} and now comes before it, so rows without names "
                "would be misread"
            )
    return None


def _input(before: Column | None, now: Column) -> str | None:
    if before is None:
        return (
            f"input {_quoted(now.name)} ({now.type}) is required and was not there before"
            if now.required
            else None
        )
    if now.type != before.type:
        return f"input {_quoted(now.name)} changed from {before.type} to {now.type}"
    if not _takes(now.shape, before.shape):
        return f"input {_quoted(now.name)} changed from shape {_shape(before)} to {_shape(now)}"
    if now.required and not before.required:
        return f"input {_quoted(now.name)} ({now.type}) is required and was optional before"
    return None


def _outputs(before: tuple[Column, ...], now: tuple[Column, ...]) -> str | None:
    new = {column.name: column for column in now}
    for column in before:
        found = new.get(column.name)
        if found is None:
            return f"output {_quoted(column.name)} is gone"
        if found.type != column.type:
            return f"output {_quoted(column.name)} changed from {column.type} to {found.type}"
        if not _takes(column.shape, found.shape):
            return f"output {_quoted(column.name)} changed from shape {_shape(column)} to {_shape(found)}"
    return None


def _takes(expected: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Say whether everything of one shape fits another.

    >>> _takes((-1, -1), (-1, 30)), _takes((-1, 30), (-1, -1)), _takes((-1, 30), (-1, 31))
    (True, False, False)
    """
    return len(expected) == len(given) and all(
        want in (_ANY, have) for want, have in zip(expected, given, strict=True)
    )


def _quoted(name: str) -> str:
    """Quote a name that whoever made the model chose: printable and short."""
    return repr(name if len(name) <= _NAME_SHOWN else f"{name[: _NAME_SHOWN - 3]}...")


def _shape(column: Column) -> str:
    return f"[{', '.join(str(size) for size in column.shape)}]"
