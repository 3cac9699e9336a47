"""Seldon's V1 messages: which rows one asks for, and how its answer looks. A message is what its JSON form decodes to.

::

    {"data": {"names": ["age", "income"], "ndarray": [[41, 52000]]}}
    {"data": {"tensor": {"shape": [1, 2], "values": [41, 52000]}}}

Numbers have no types in it, and in gRPC they are all doubles: a whole number is taken where the signature asks for
integers, however it is written. Names may stand in any order; without names, columns stand in the signature's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson

from rollway_serving import invocations
from rollway_serving.errors import InputError
from rollway_serving.signature import Tensor, flatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rollway_serving.signature import Signature

Form = Literal["ndarray", "tensor"]

_OTHER_PAYLOADS = ("binData", "strData", "jsonData", "customData")
_MAX_SIZES = 8
_MAX_PUID = 256


@dataclass(frozen=True, slots=True)
class Request:
    """What the model is asked, and what of the message comes back with the answer."""

    rows: Any
    form: Form
    puid: str
    tags: dict[str, Any]

    @classmethod
    def read(cls, message: Any, signature: Signature) -> Request:
        """Check a decoded message against the signature."""
        if not isinstance(message, dict):
            raise InputError("body", "an object with data", _kind(message))
        for payload in _OTHER_PAYLOADS:
            if payload in message:
                raise InputError(
                    payload, "data in its place: a model takes numbers and texts", "this payload"
                )
        data = message.get("data")
        if not isinstance(data, dict):
            raise InputError("data", "an object with ndarray or tensor", _kind(data))
        forms = [form for form in ("ndarray", "tensor", "tftensor") if form in data]
        if forms == ["ndarray"]:
            shape, values = flatten(data["ndarray"], "data.ndarray")
            form: Form = "ndarray"
        elif forms == ["tensor"]:
            shape, values = _tensor(data["tensor"])
            form = "tensor"
        else:
            raise InputError("data", "either ndarray or tensor", " and ".join(forms) or "neither")
        puid, tags = _meta(message.get("meta"))
        return cls(_rows(shape, values, data.get("names"), form, signature), form, puid, tags)


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer with what Seldon's clients call its columns."""

    names: list[str]
    array: NDArray[Any]
    form: Form

    @classmethod
    def of(cls, result: Any, form: Form, signature: Signature) -> Answer:
        """Answer in the form that was asked in; what is not a number is always an ndarray."""
        outputs = signature.named_outputs(result)
        if len(outputs) == 1:
            array = outputs[0][1]
            # Seldon's own names for columns that have none.
            names = [f"t:{i}" for i in range(array.shape[1])] if array.ndim > 1 else []
        else:
            names = [name for name, _ in outputs]
            arrays = [array for _, array in outputs]
            same = len({array.dtype for array in arrays}) == 1
            array = np.stack([part if same else part.astype(object) for part in arrays], axis=1)
        return cls(names, array, form if np.issubdtype(array.dtype, np.number) else "ndarray")

    def as_json(self) -> dict[str, Any]:
        """What ``data`` holds in JSON."""
        if self.form == "ndarray":
            return {"names": self.names, "ndarray": invocations.plain(self.array)}
        values = invocations.plain(self.array.ravel())
        return {"names": self.names, "tensor": {"shape": list(self.array.shape), "values": values}}


def status(info: str, reason: str) -> dict[str, Any]:
    """Seldon's body of an answer that is an error."""
    return {"status": {"status": 1, "info": info, "code": -1, "reason": reason}}


def _tensor(raw: Any) -> tuple[tuple[int, ...], list[Any]]:
    field = "data.tensor"
    if not isinstance(raw, dict):
        raise InputError(field, "an object with shape and values", _kind(raw))
    shape, values = raw.get("shape", []), raw.get("values", [])
    if not isinstance(shape, list) or any(type(size) is not int for size in shape):
        raise InputError(f"{field}.shape", "a list of whole numbers", "something else")
    if not 1 <= len(shape) <= _MAX_SIZES:
        raise InputError(f"{field}.shape", f"1 to {_MAX_SIZES} sizes", str(len(shape)))
    if min(shape) < 0:
        raise InputError(f"{field}.shape", "no negative sizes", str(min(shape)))
    flat, plain = flatten(values, f"{field}.values")
    if len(flat) != 1 or math.prod(shape) != len(plain):
        came = str(len(plain)) if len(flat) == 1 else "lists in the list"
        raise InputError(f"{field}.values", f"{math.prod(shape)} values, as the shape says", came)
    return tuple(shape), plain


def _rows(shape: tuple[int, ...], values: list[Any], names: Any, form: Form, signature: Signature) -> Any:
    field = f"data.{form}"
    if not shape[0] or not values:
        raise InputError(field, "at least one row", "none")
    given = _names(names, shape)
    if signature.tabular:
        width = len(given or signature.inputs)
        if len(shape) != 2 or shape[1] != width:
            raise InputError(field, f"rows of {width} values", f"shape {list(shape)}")
        columns = given or [spec.name for spec in signature.inputs]
        whole = {spec.name for spec in signature.inputs if spec.dtype.kind in "iu"}
        return signature.from_columns(
            {
                name: _whole(values[i::width]) if name in whole else values[i::width]
                for i, name in enumerate(columns)
            }
        )
    if not signature.inputs:
        nested: list[Any] = np.array([*values, None], dtype=object)[:-1].reshape(shape).tolist()
        return signature.from_rows(nested, field)
    spec = signature.inputs[0]
    if spec.dtype.kind in "iu":
        values = _whole(values)
    return signature.from_tensors([Tensor(spec.name, spec.datatype, shape, values)])


def _names(raw: Any, shape: tuple[int, ...]) -> list[str]:
    if not raw and isinstance(raw, list | None):
        return []
    if not isinstance(raw, list) or any(not isinstance(name, str) for name in raw):
        raise InputError("data.names", "a list of texts", "something else")
    if len(shape) > 1 and len(raw) != shape[1]:
        raise InputError("data.names", f"{shape[1]} names, one a column", str(len(raw)))
    if len(set(raw)) != len(raw):
        raise InputError("data.names", "each name once", "a repeated one")
    return raw


def _whole(values: Sequence[Any]) -> list[Any]:
    """Write each double that is a whole number as one."""
    return [int(value) if type(value) is float and value.is_integer() else value for value in values]


def _meta(raw: Any) -> tuple[str, dict[str, Any]]:
    """The parts of ``meta`` that come back; its metrics would be a client's own series here."""
    if raw is None:
        return "", {}
    if not isinstance(raw, dict):
        raise InputError("meta", "an object", _kind(raw))
    puid, tags = raw.get("puid", ""), raw.get("tags", {})
    if not isinstance(puid, str) or len(puid) > _MAX_PUID:
        raise InputError("meta.puid", f"a text of at most {_MAX_PUID} characters", "something else")
    if not isinstance(tags, dict):
        raise InputError("meta.tags", "an object", _kind(tags))
    try:
        orjson.dumps(tags)
    except orjson.JSONEncodeError:
        raise InputError("meta.tags", "values that can be sent back", "values nested too deeply") from None
    return puid, tags


def _kind(value: Any) -> str:
    if value is None:
        return "null or nothing"
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return names.get(type(value), "a number")
