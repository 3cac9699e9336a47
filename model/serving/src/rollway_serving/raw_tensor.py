"""A tensor as bytes: little-endian numbers one after the other; strings each behind its length in four bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rollway_serving.errors import InputError
from rollway_serving.signature import DATATYPES, MAX_RANK, counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def check(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> None:
    """Check that the bytes are as many as the shape says, before anything unpacks them."""
    field = repr(name[:64])
    if datatype not in DATATYPES:
        raise InputError(field, f"a datatype of {', '.join(DATATYPES)}", repr(datatype[:64]))
    if not 1 <= len(shape) <= MAX_RANK:
        raise InputError(field, f"a shape of 1 to {MAX_RANK} dimensions", str(len(shape)))
    if min(shape) < 0:
        raise InputError(field, "a shape without negative sizes", str(list(shape)))
    count = math.prod(shape)
    if datatype == "BYTES":
        if sum(1 for _ in _strings(raw, field)) != count:
            raise InputError(field, f"{counted(count, 'string')} with their lengths", "others")
    elif len(raw) != count * DATATYPES[datatype].itemsize:
        raise InputError(field, counted(count, f"{datatype} value"), counted(len(raw), "byte"))


def unpack(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> list[Any]:
    """Turn checked bytes into plain values."""
    check(name, datatype, shape, raw)
    if datatype == "BYTES":
        field = repr(name[:64])
        try:
            return [part.decode() for part in _strings(raw, field)]
        except UnicodeDecodeError:
            raise InputError(field, "UTF-8 text", "other bytes") from None
    return list(np.frombuffer(raw, DATATYPES[datatype].newbyteorder("<")).tolist())


def pack(datatype: str, values: Sequence[Any]) -> bytes:
    """Turn plain values into bytes."""
    if datatype == "BYTES":
        parts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        return b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return np.array(values, DATATYPES[datatype].newbyteorder("<")).tobytes()


def _strings(raw: bytes, field: str) -> Iterator[bytes]:
    offset = 0
    while offset < len(raw):
        start = offset + 4
        offset = start + int.from_bytes(raw[offset:start], "little")
        if offset > len(raw) or start > len(raw):
            raise InputError(field, "strings with their lengths", "other raw contents")
        yield raw[start:offset]
