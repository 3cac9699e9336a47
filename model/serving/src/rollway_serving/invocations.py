"""MLflow's scoring protocol: ``POST /invocations`` as JSON or CSV in, ``{"predictions": ...}`` out."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import orjson

from rollway_serving.errors import InputError
from rollway_serving.signature import DATATYPES, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from rollway_serving.signature import Signature

_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def parse_json(body: bytes, signature: Signature) -> Any:
    """Turn a JSON request into what the model takes."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError("body", "JSON", str(error)) from None
    return parse(request, signature)


def parse(request: Any, signature: Signature) -> Any:
    """Turn a decoded request into what the model takes."""
    if not isinstance(request, dict):
        raise InputError("body", f"an object with one of {', '.join(_FORMATS)}", "something else")
    present = [name for name in _FORMATS if name in request]
    unknown = [name for name in request if name not in _FORMATS]
    if len(present) != 1 or unknown:
        came = ", ".join(repr(name[:64]) for name in list(request)[:5]) or "none"
        raise InputError("body", f"exactly one of {', '.join(_FORMATS)}", came)
    read = {
        "dataframe_split": _from_split,
        "dataframe_records": _from_records,
        "instances": _from_instances,
        "inputs": _from_inputs,
    }[present[0]]
    return read(request[present[0]], signature)


def parse_csv(body: bytes, signature: Signature) -> Any:
    """Turn a CSV request with a header line into what the model takes."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("body", "UTF-8 CSV with a header line", str(error)) from None
    if len(lines) < 2:
        raise InputError("body", "a header line and at least one row", counted(len(lines), "line"))
    header, rows = lines[0], [line for line in lines[1:] if line]
    columns = _by_column(header, rows, "body")
    kinds = {spec.name: spec.dtype.kind for spec in signature.inputs} if signature.tabular else {}
    default = signature.inputs[0].dtype.kind if signature.inputs else "f"
    return signature.from_columns(
        {
            name: [_cell(cell, kinds.get(name, default), name) for cell in cells]
            for name, cells in columns.items()
        }
    )


def encode(signature: Signature, result: Any) -> bytes:
    """Write the answer as MLflow does."""
    return orjson.dumps({"predictions": predictions(signature, result)})


def predictions(signature: Signature, result: Any) -> list[Any]:
    """Make plain values of an answer: a list, or a list of records for several outputs."""
    outputs = signature.named_outputs(result)
    if len(outputs) == 1:
        return plain(outputs[0][1])
    names = [name for name, _ in outputs]
    return [
        dict(zip(names, row, strict=True))
        for row in zip(*(plain(array) for _, array in outputs), strict=True)
    ]


def plain(array: np.ndarray[Any, Any]) -> list[Any]:
    """Turn an array into lists of plain values; what JSON cannot say becomes text."""
    if array.dtype not in DATATYPES.values():
        array = array.astype(str)
    return list(array.tolist())


def _from_split(raw: Any, signature: Signature) -> Any:
    field = "dataframe_split"
    if not isinstance(raw, dict) or not isinstance(raw.get("data"), list):
        raise InputError(field, "an object with columns and data", "something else")
    if "columns" not in raw:
        return signature.from_rows(raw["data"], f"{field}.data")
    columns = raw["columns"]
    if not isinstance(columns, list) or any(not isinstance(name, str | int) for name in columns):
        raise InputError(f"{field}.columns", "a list of names", "something else")
    return signature.from_columns(_by_column([str(name) for name in columns], raw["data"], f"{field}.data"))


def _from_records(raw: Any, signature: Signature) -> Any:
    return signature.from_columns(_by_record(raw, "dataframe_records"))


def _from_instances(raw: Any, signature: Signature) -> Any:
    if isinstance(raw, list) and raw and isinstance(raw[0], dict):
        return signature.from_columns(_by_record(raw, "instances"))
    return signature.from_rows(raw, "instances")


def _from_inputs(raw: Any, signature: Signature) -> Any:
    if not isinstance(raw, dict):
        return signature.from_rows(raw, "inputs")
    for name, values in raw.items():
        if not isinstance(values, list):
            raise InputError(repr(name[:64]), "a list of values", "something else")
    if not signature.tabular and len(raw) == 1:
        (name,) = raw
        return signature.from_rows(raw[name], "inputs")
    return signature.from_columns(raw)


def _by_record(raw: Any, field: str) -> dict[str, list[Any]]:
    if not isinstance(raw, list) or not raw or any(not isinstance(record, dict) for record in raw):
        raise InputError(field, "a list of at least one object", "something else")
    names = list(raw[0])
    for index, record in enumerate(raw):
        if record.keys() != raw[0].keys():
            raise InputError(f"{field}[{index}]", "the fields of the first record", "others")
    return {name: [record[name] for record in raw] for name in names}


def _by_column(names: Sequence[str], rows: Sequence[Any], field: str) -> dict[str, list[Any]]:
    if len(set(names)) != len(names) or not names:
        raise InputError(f"{field} columns", "each name once", "repeated or no names")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            came = str(len(row)) if isinstance(row, list) else "something else"
            raise InputError(f"{field}[{index}]", counted(len(names), "value"), came)
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _cell(text: str, kind: str, name: str) -> Any:
    """Read one CSV cell as the column's type; an empty one is null."""
    if kind in "OM":
        return text
    if not text:
        return None
    try:
        if kind == "b":
            return {"true": True, "false": False}[text.lower()]
        return int(text) if kind in "iu" else float(text)
    except (KeyError, ValueError):
        raise InputError(
            repr(name[:64]), "numbers" if kind != "b" else "true or false", repr(text[:64])
        ) from None
