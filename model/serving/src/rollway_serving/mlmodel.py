"""Read an MLflow model's ``MLmodel`` file as data; nothing in it is ever executed or imported."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from rollway_serving.errors import NotAModel

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 1 << 20
_MAX_ALIASES = 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")


class _Loader(yaml.SafeLoader):
    """A safe loader that also refuses a file made of references to itself."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > _MAX_ALIASES:
                raise yaml.YAMLError(f"more than {_MAX_ALIASES} aliases")
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True)
class InputExample:
    """Where the model's own example is: a whole scoring request, or the bare data of one."""

    path: str
    is_request: bool
    kind: str


@dataclass(frozen=True, slots=True)
class MLmodel:
    """The parts of an ``MLmodel`` file that Rollway goes by."""

    flavor: str
    options: dict[str, Any]
    predict_method: str
    signature: dict[str, Any] | None
    input_example: InputExample | None
    mlflow_version: str

    @classmethod
    def load(cls, folder: Path) -> MLmodel:
        """Read ``MLmodel`` in the folder."""
        path = folder / "MLmodel"
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            raise NotAModel("the artifact has no MLmodel file") from None
        if len(text) > _MAX_BYTES:
            raise NotAModel(f"MLmodel is larger than {_MAX_BYTES} bytes")
        return cls.parse(text)

    @classmethod
    def parse(cls, text: bytes) -> MLmodel:
        """Read the text of an ``MLmodel`` file."""
        raw = read_yaml(text, "MLmodel")
        flavors = raw.get("flavors") if isinstance(raw, dict) else None
        if not isinstance(flavors, dict) or not flavors:
            raise NotAModel("MLmodel names no flavor")
        pyfunc = flavors.get("python_function")
        own = [name for name in flavors if name != "python_function"]
        flavor = own[0] if own else "python_function"
        options = flavors[flavor]
        if not isinstance(flavor, str) or not isinstance(options, dict):
            raise NotAModel("MLmodel's flavor is not a mapping")
        return cls(
            flavor=flavor,
            options=options,
            predict_method=_predict_method(pyfunc),
            signature=_signature(raw.get("signature")),
            input_example=_input_example(raw.get("saved_input_example_info")),
            mlflow_version=str(raw.get("mlflow_version", "unknown")),
        )


def read_yaml(text: bytes, name: str) -> Any:
    """Read YAML as data."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, only stricter
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # All but the first two are PyYAML's own slips: `!!bool maybe` is a KeyError, `!!timestamp now` worse.
        raise NotAModel(f"{name} is not valid YAML: {str(error) or type(error).__name__}") from error


def plain_name(value: Any, field: str) -> str:
    """Accept only the name of a file in the model's own folder."""
    if not isinstance(value, str) or not _PLAIN_NAME.fullmatch(value):
        raise NotAModel(f"MLmodel's {field} is not a plain file name: {str(value)[:100]!r}")
    return value


def _predict_method(pyfunc: Any) -> str:
    method = pyfunc.get("predict_fn", "predict") if isinstance(pyfunc, dict) else "predict"
    return method if isinstance(method, str) else "predict"


def _signature(raw: Any) -> dict[str, Any] | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise NotAModel("MLmodel's signature is not a mapping")
    signature: dict[str, Any] = {}
    for side in ("inputs", "outputs"):
        text = raw.get(side)
        if text is None:
            continue
        try:
            signature[side] = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise NotAModel(f"MLmodel's signature.{side} is not JSON: {error}") from error
    return signature if "inputs" in signature else None


def _input_example(raw: Any) -> InputExample | None:
    if not isinstance(raw, dict):
        return None
    kind = str(raw.get("type", ""))
    if raw.get("serving_input_path"):
        path = plain_name(raw["serving_input_path"], "saved_input_example_info.serving_input_path")
        return InputExample(path=path, is_request=True, kind=kind)
    if raw.get("artifact_path"):
        path = plain_name(raw["artifact_path"], "saved_input_example_info.artifact_path")
        return InputExample(path=path, is_request=False, kind=kind)
    return None
