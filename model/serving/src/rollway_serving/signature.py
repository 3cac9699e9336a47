"""The model's signature: what a request must look like, and the exact sentence when it does not.

MLflow writes two kinds. *Columns* (``{"name": "age", "type": "long"}``) belong to a model that takes a data
frame; *tensors* (``{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 30]}}``) to one that
takes an array. Every value is checked against the declared type before the model sees it::

    wire value              -> parse (types, ranges) -> cast (declared type -> signature's) -> frame or array
    [1, "a"] as FP32           'x: expected FP32 numbers, got a string'
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rollway_serving.errors import InputError, ModelLoadFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    "UINT8": np.dtype("uint8"),
    "UINT16": np.dtype("uint16"),
    "UINT32": np.dtype("uint32"),
    "UINT64": np.dtype("uint64"),
    "INT8": np.dtype("int8"),
    "INT16": np.dtype("int16"),
    "INT32": np.dtype("int32"),
    "INT64": np.dtype("int64"),
    "FP16": np.dtype("float16"),
    "FP32": np.dtype("float32"),
    "FP64": np.dtype("float64"),
    "BYTES": np.dtype("object"),
}
_COLUMN_TYPES = {
    "boolean": np.dtype("bool"),
    "integer": np.dtype("int32"),
    "long": np.dtype("int64"),
    "float": np.dtype("float32"),
    "double": np.dtype("float64"),
    "string": np.dtype("object"),
    "datetime": np.dtype("datetime64[ns]"),
}
_DATATYPE_OF = {dtype: name for name, dtype in DATATYPES.items()}
MAX_RANK = 8
_NAMES_SHOWN = 5
_DEFAULT_INPUT = "input-0"
_DEFAULT_OUTPUT = "predict"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input as it came over the wire: nothing in it has been checked."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Any


@dataclass(frozen=True, slots=True)
class Spec:
    """One column (its shape is ``(-1,)``) or one tensor."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = (-1,)
    required: bool = True

    @property
    def datatype(self) -> str:
        """The V2 name of the type; what has none travels as text."""
        return datatype_of(self.dtype)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives; ``inputs`` is empty for a model that says nothing."""

    inputs: tuple[Spec, ...] = ()
    tabular: bool = False
    outputs: tuple[Spec, ...] = ()

    @classmethod
    def parse(cls, raw: Mapping[str, Any] | None) -> Signature:
        """Read the two JSON lists of MLflow's signature."""
        if raw is None:
            return cls()
        inputs, tabular = _specs(raw["inputs"], _DEFAULT_INPUT)
        if not tabular and len(inputs) > 1:
            raise ModelLoadFailed(
                "the signature has several input tensors, which this runtime does not support"
            )
        outputs, _ = _specs(raw.get("outputs", []), _DEFAULT_OUTPUT)
        return cls(inputs=inputs, tabular=tabular, outputs=outputs)

    def described(self) -> dict[str, list[dict[str, Any]]]:
        """What the metrics port says of it; a type that V2 has no name for is ``BYTES``."""
        return {
            "inputs": [_described(spec) | {"required": spec.required} for spec in self.inputs],
            "outputs": [_described(spec) for spec in self.outputs],
        }

    def from_tensors(self, tensors: Sequence[Tensor]) -> Any:
        """Turn V2 tensors into what the model takes."""
        if not tensors:
            raise InputError("inputs", "at least one tensor", "none")
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names):
            raise InputError("inputs", "each name once", f"{_show(_first_repeated(names))} twice")
        arrays = {tensor.name: _array(tensor) for tensor in tensors}
        if self.tabular:
            known = {spec.name for spec in self.inputs}
            if len(arrays) == 1 and names[0] not in known and arrays[names[0]].ndim == 2:
                return self._frame(self._split(names[0], arrays[names[0]]))
            return self._frame({name: _column(name, array) for name, array in arrays.items()})
        if len(arrays) != 1:
            raise InputError("inputs", "one tensor", f"{len(arrays)}: {_listed(names)}")
        return self._tensor(names[0], arrays[names[0]])

    def from_columns(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Turn named columns of plain values into what the model takes."""
        specs = {spec.name: spec for spec in self.inputs}
        if not self.tabular:
            return self._from_unnamed(columns)
        parsed: dict[str, NDArray[Any]] = {}
        for name, values in columns.items():
            spec = specs.get(name)
            if spec is None:
                raise InputError(_show(name), self._column_names(), "this unknown column")
            parsed[name] = parse(values, spec.dtype, _show(name), nullable=not spec.required)
        return self._frame(parsed)

    def from_rows(self, rows: Any, field: str) -> Any:
        """Turn nested lists (rows first) into what the model takes."""
        shape, flat = flatten(rows, field)
        if self.tabular:
            if len(shape) != 2 or shape[1] != len(self.inputs):
                raise InputError(
                    field, f"rows of {counted(len(self.inputs), 'value')}", f"shape {_brackets(shape)}"
                )
            width = shape[1]
            return self.from_columns({spec.name: flat[i::width] for i, spec in enumerate(self.inputs)})
        dtype = self.inputs[0].dtype if self.inputs else _guess(flat)
        return self._tensor(field, parse(flat, dtype, field).reshape(shape))

    def _from_unnamed(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """A frame for a model that takes an array: its columns in the order they came."""
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1:
            raise InputError("columns", "columns of one length", f"lengths {sorted(lengths)[:_NAMES_SHOWN]}")
        return self.from_rows([list(row) for row in zip(*columns.values(), strict=True)], "columns")

    def _tensor(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        field = _show(name)
        if array.ndim == 0 or array.shape[0] == 0:
            raise InputError(field, "at least one row", f"shape {_brackets(array.shape)}")
        if not self.inputs:
            return array
        spec = self.inputs[0]
        if spec.name not in (_DEFAULT_INPUT, name) and name not in ("inputs", "instances", "columns"):
            raise InputError(field, f"an input named {_show(spec.name)}", "this unknown input")
        fits = len(spec.shape) == array.ndim and all(
            want in (-1, have) for want, have in zip(spec.shape, array.shape, strict=False)
        )
        if not fits:
            raise InputError(field, f"shape {_brackets(spec.shape)}", _brackets(array.shape))
        return cast(array, spec.dtype, field)

    def _split(self, name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """One matrix instead of a tensor a column: its columns in the signature's order."""
        if array.shape[1] != len(self.inputs):
            raise InputError(
                _show(name),
                f"shape [-1, {len(self.inputs)}], or {self._column_names()}",
                _brackets(array.shape),
            )
        return {spec.name: array[:, i] for i, spec in enumerate(self.inputs)}

    def _frame(self, columns: Mapping[str, NDArray[Any]]) -> Any:
        import pandas as pd  # noqa: PLC0415 - a model that takes arrays never pays for it

        specs = {spec.name: spec for spec in self.inputs}
        unknown = [name for name in columns if name not in specs]
        if unknown:
            raise InputError(_show(unknown[0]), self._column_names(), "this unknown column")
        missing = [spec.name for spec in self.inputs if spec.required and spec.name not in columns]
        if missing:
            raise InputError(_show(missing[0]), "this column", f"only {_listed(columns)}")
        lengths = {name: len(values) for name, values in columns.items()}
        rows = next(iter(lengths.values()), 0)
        for name, length in lengths.items():
            if length != rows:
                raise InputError(_show(name), f"{counted(rows, 'row')}, as in the first column", str(length))
        if rows == 0:
            raise InputError("inputs", "at least one row", "none")
        data = {
            spec.name: cast(columns[spec.name], spec.dtype, _show(spec.name))
            if spec.name in columns
            else np.full(rows, np.nan if spec.dtype.kind == "f" else None)
            for spec in self.inputs
        }
        return pd.DataFrame(data)

    def _column_names(self) -> str:
        return f"one of the columns {_listed(spec.name for spec in self.inputs)}"

    def named_outputs(self, result: Any) -> list[tuple[str, NDArray[Any]]]:
        """Give the model's answer the names that the signature (else ``predict``) promises."""
        if hasattr(result, "columns") and hasattr(result, "to_numpy"):
            arrays = [(str(name), np.asarray(result[name])) for name in result.columns]
        else:
            array = np.asarray(result.toarray() if hasattr(result, "toarray") else result)
            if array.ndim == 2 and 1 < len(self.outputs) == array.shape[1]:
                arrays = [(spec.name, array[:, i]) for i, spec in enumerate(self.outputs)]
            elif len(self.outputs) == 1:
                arrays = [(self.outputs[0].name, array)]
            else:
                arrays = [(_DEFAULT_OUTPUT, array)]
        promised = {spec.name: spec.dtype for spec in self.outputs}
        return [(name, _as_promised(array, promised.get(name))) for name, array in arrays]


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "value"), counted(2, "value")
    ('1 value', '2 values')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The V2 name of a numpy type; what has none travels as text."""
    return _DATATYPE_OF.get(dtype, "BYTES")


def rows_of(values: Any) -> int:
    """How many rows a model's input or output has."""
    return int(values.shape[0]) if hasattr(values, "shape") and values.shape else len(values)


def has_non_finite(values: Any) -> bool:
    """Whether an array or frame holds a NaN or an infinity."""
    if hasattr(values, "select_dtypes"):
        # To pick columns takes far longer than to look at them, and few frames need it.
        if not {dtype.kind for dtype in values.dtypes} <= {"f", "i", "u"}:
            values = values.select_dtypes("number")
        values = values.to_numpy()
    array = np.asarray(values)
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())


def flatten(data: Any, field: str) -> tuple[tuple[int, ...], list[Any]]:
    """Flatten nested lists; all lists of one level must have one length."""
    if not isinstance(data, list):
        raise InputError(field, "a list", _type_name(data))
    shape = [len(data)]
    while data and any(isinstance(value, list) for value in data):
        width = len(data[0]) if isinstance(data[0], list) else -1
        if any(not isinstance(value, list) or len(value) != width for value in data):
            raise InputError(field, "lists of one length", "lists of several lengths")
        shape.append(width)
        if len(shape) > MAX_RANK:
            raise InputError(field, f"at most {MAX_RANK} dimensions", "more")
        data = list(itertools.chain.from_iterable(data))
    return tuple(shape), data


def parse(values: Sequence[Any], dtype: np.dtype[Any], field: str, *, nullable: bool = False) -> NDArray[Any]:
    """Make a flat array of plain values, each of which must be of the type and in its range."""
    types = set(map(type, values))
    if nullable and type(None) in types and dtype.kind in "fO":
        types.discard(type(None))
        values = [(math.nan if dtype.kind == "f" else None) if value is None else value for value in values]
    allowed = _ALLOWED_TYPES[dtype.kind]
    for wrong in types - allowed:
        example = next(value for value in values if type(value) is wrong)
        raise InputError(field, f"{datatype_of(dtype)} {_PLURAL[dtype.kind]}", _type_name(example))
    if dtype.kind in "iu" and values:
        _check_range(min(values), max(values), dtype, field)
    if dtype.kind == "O":
        return _texts(values, types, field)
    if dtype.kind == "M":
        return _times(values, field)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=dtype)
    except OverflowError:
        raise InputError(field, f"numbers in {datatype_of(dtype)}'s range", "a larger one") from None
    if dtype.kind == "f" and dtype.itemsize < 8:
        _check_overflow(np.array(values, dtype=np.float64), array, field)
    return array


def cast(array: NDArray[Any], dtype: np.dtype[Any], field: str) -> NDArray[Any]:
    """Convert between numeric types where no value changes its meaning."""
    if array.dtype == dtype:
        return array
    have, want = array.dtype.kind, dtype.kind
    if want == "f" and have in "fiu":
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        _check_overflow(array, converted, field)
        return converted
    if want in "iu" and have in "iu":
        _check_range(int(array.min()), int(array.max()), dtype, field)
        return array.astype(dtype)
    if want == "M" and have == "O":
        return _times(list(array), field)
    raise InputError(field, datatype_of(dtype), datatype_of(array.dtype))


_ALLOWED_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "O": {str, bytes},
    "M": {str, bytes},
}
_PLURAL = {"b": "values", "i": "numbers", "u": "numbers", "f": "numbers", "O": "strings", "M": "date strings"}


def _array(tensor: Tensor) -> NDArray[Any]:
    field = _show(tensor.name)
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        raise InputError(field, f"a datatype of {', '.join(DATATYPES)}", _show(tensor.datatype))
    if not 1 <= len(tensor.shape) <= MAX_RANK:
        raise InputError(field, f"a shape of 1 to {MAX_RANK} dimensions", str(len(tensor.shape)))
    if min(tensor.shape) < 0:
        raise InputError(field, "a shape without negative sizes", _brackets(tensor.shape))
    nested, flat = flatten(tensor.data, field)
    if len(nested) > 1 and nested != tuple(tensor.shape):
        raise InputError(field, f"data nested as its shape {_brackets(tensor.shape)}", _brackets(nested))
    if math.prod(tensor.shape) != len(flat):
        raise InputError(
            field,
            f"{counted(math.prod(tensor.shape), 'value')} for shape {_brackets(tensor.shape)}",
            str(len(flat)),
        )
    if not flat:
        raise InputError(field, "at least one row", f"shape {_brackets(tensor.shape)}")
    return parse(flat, dtype, field).reshape(tuple(tensor.shape))


def _column(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 1:
        return array
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    raise InputError(_show(name), "shape [-1] or [-1, 1]", _brackets(array.shape))


def _specs(raw: Any, default: str) -> tuple[tuple[Spec, ...], bool]:
    if not isinstance(raw, list) or any(not isinstance(item, dict) for item in raw):
        raise ModelLoadFailed("the signature is not a list of columns or tensors")
    tensors = [item for item in raw if item.get("type") == "tensor"]
    if tensors and len(tensors) != len(raw):
        raise ModelLoadFailed("the signature mixes columns and tensors")
    names = [
        item.get("name") or (default if len(raw) == 1 else f"{default}-{i}") for i, item in enumerate(raw)
    ]
    if any(not isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ModelLoadFailed("the signature's names are not unique texts")
    read = _tensor_spec if tensors else _column_spec
    return tuple(read(item, name) for item, name in zip(raw, names, strict=True)), bool(raw) and not tensors


def _column_spec(item: Mapping[str, Any], name: str) -> Spec:
    dtype = _COLUMN_TYPES.get(str(item.get("type")))
    if dtype is None:
        raise ModelLoadFailed(
            f"the signature's column {_show(name)} has the unsupported type {item.get('type')!r}"
        )
    return Spec(name=name, dtype=dtype, required=bool(item.get("required", True)))


def _tensor_spec(item: Mapping[str, Any], name: str) -> Spec:
    try:
        dtype = np.dtype(item["tensor-spec"]["dtype"])
        shape = tuple(int(size) for size in item["tensor-spec"]["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelLoadFailed(f"the signature's tensor {_show(name)} cannot be read: {error}") from error
    if dtype.kind in "SU":
        dtype = np.dtype("object")
    if dtype not in _DATATYPE_OF:
        raise ModelLoadFailed(f"the signature's tensor {_show(name)} has the unsupported type {dtype}")
    return Spec(name=name, dtype=dtype, shape=shape)


def _described(spec: Spec) -> dict[str, Any]:
    return {"name": spec.name, "type": spec.datatype, "shape": list(spec.shape)}


def _as_promised(array: NDArray[Any], dtype: np.dtype[Any] | None) -> NDArray[Any]:
    if dtype is not None and array.dtype != dtype and np.can_cast(array.dtype, dtype, "same_kind"):
        return array.astype(dtype)
    return array


def _check_range(low: int, high: int, dtype: np.dtype[Any], field: str) -> None:
    info = np.iinfo(dtype)
    for value in (low, high):
        if not info.min <= value <= info.max:
            shown = str(value) if abs(value) < 1 << 70 else "a far larger one"
            raise InputError(
                field, f"numbers in {datatype_of(dtype)}'s range {info.min} to {info.max}", shown
            )


def _check_overflow(before: NDArray[Any], after: NDArray[Any], field: str) -> None:
    if bool((np.isinf(after) & np.isfinite(before)).any()):
        raise InputError(field, f"numbers in {datatype_of(after.dtype)}'s range", "a larger one")


def _texts(values: Sequence[Any], types: set[type], field: str) -> NDArray[Any]:
    if bytes in types:
        try:
            values = [value.decode() if isinstance(value, bytes) else value for value in values]
        except UnicodeDecodeError:
            raise InputError(field, "UTF-8 text", "other bytes") from None
    return np.array(values, dtype=object)


def _times(values: Sequence[Any], field: str) -> NDArray[Any]:
    try:
        return _texts(values, set(map(type, values)), field).astype("datetime64[ns]")
    except ValueError:
        raise InputError(field, "ISO 8601 times without a zone", "other text") from None


def _guess(flat: Sequence[Any]) -> np.dtype[Any]:
    """The type for a model without a signature: whole numbers, else numbers, else text."""
    types = set(map(type, flat))
    if types == {bool}:
        return DATATYPES["BOOL"]
    if types and types <= {str}:
        return DATATYPES["BYTES"]
    return DATATYPES["INT64"] if types == {int} else DATATYPES["FP64"]


def _type_name(value: Any) -> str:
    names = {bool: "a boolean", type(None): "null", str: "a string", bytes: "bytes", dict: "an object"}
    names |= {list: "a list", int: "a whole number", float: "a number with a fraction"}
    return names.get(type(value), type(value).__name__)


def _first_repeated(names: Sequence[str]) -> str:
    return next(name for i, name in enumerate(names) if name in names[:i])


def _show(name: str) -> str:
    """Quote a name that a client chose: printable, short."""
    text = name if len(name) <= 64 else name[:61] + "..."
    return repr(text)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(_show(name) for name in names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _brackets(shape: Iterable[int]) -> str:
    return "[" + ", ".join(str(size) if abs(size) < 1 << 70 else "..." for size in shape) + "]"
