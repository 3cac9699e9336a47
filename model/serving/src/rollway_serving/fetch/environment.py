"""Compare what a model was trained with to what the image has: MLflow wrote the one down, the other is installed.

``fetch`` and the server are the same image, so what is installed here is what the model will run with. Nothing
of the model is executed; its files are data, and whatever stands in them ends in a sentence.
"""

from __future__ import annotations

import logging
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, get_args

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from rollway_serving import mlmodel
from rollway_serving.errors import EnvironmentMismatch, FetchFailed, NotAModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Policy = Literal["Ignore", "Warn", "Enforce"]

MAX_BYTES = 256 << 10
_MAX_LINE = 1000
_MAX_SENTENCE = 200
"""The operator shows 300 characters of a reason, and the fix comes last."""
_THE_IMAGES_OWN = frozenset(
    {
        # What packs and installs plays no part in a prediction.
        "pip", "setuptools", "wheel",
        # The image reads MLflow's files without MLflow.
        "mlflow", "mlflow-skinny", "mlflow-tracing",
        # The server is the runtime's, not the model's.
        "mlserver", "mlserver-mlflow", "mlserver-sklearn", "seldon-core",
        # joblib imports it where it is there, so MLflow lists it for every scikit-learn model; predictions do not.
        "psutil",
    }
)  # fmt: skip
_PYTHON = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.\w{1,20})?")
_CONDA_PYTHON = re.compile(r"(?:[\w.-]+::)?python ?={1,2} ?(.+)")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs, one phrase each, and how many lines could not be compared."""

    differences: tuple[str, ...]
    not_compared: int

    def sentence(self) -> str:
        """Name as many differences as a short sentence holds and count the rest."""
        text, *rest = self.differences
        while rest and len(text) + len(rest[0]) < _MAX_SENTENCE:
            text = f"{text}; {rest.pop(0)}"
        return f"{text}; and {len(rest)} more" if rest else text


def check(folder: Path, policy: Policy) -> str | None:
    """Say what differs, for the policy ``Warn``; ``Enforce`` makes it a failure."""
    if policy == "Ignore":
        return None
    found = compare(folder, installed_version, platform.python_version())
    if found.not_compared:
        lines = "1 line" if found.not_compared == 1 else f"{found.not_compared} lines"
        _log.info("%s of requirements.txt cannot be compared (options, URLs)", lines)
    if not found.differences:
        return None
    if policy == "Enforce":
        raise EnvironmentMismatch(
            f"{found.sentence()}: log the model with what is installed, or set environmentPolicy to Warn"
        )
    _log.warning("the model was trained with other packages: %s", found.sentence())
    return found.sentence()


def policy(text: str) -> Policy:
    """Read the policy; a revision made before there was one ignores."""
    for known in get_args(Policy):
        if (text or "Ignore") == known:
            chosen: Policy = known
            return chosen
    raise FetchFailed(f"ROLLWAY_ENVIRONMENT_POLICY: expected Ignore, Warn or Enforce, got {text[:40]!a}")


def compare(folder: Path, installed: Callable[[str], str | None], python: str) -> Comparison:
    """Compare the model's files to what is installed."""
    differences: list[str] = []
    trained = _python_of(folder)
    if trained and trained != _minor(python):
        differences.append(f"Python {_minor(python)} installed, model wants {trained}")
    try:
        text = _read(folder / "requirements.txt")
    except ValueError as error:
        return Comparison((*differences, f"the model's requirements.txt {error}"), 0)
    not_compared = 0
    for line in _lines(text):
        try:
            difference = _difference(Requirement(line), installed)
        except _NOT_COMPARABLE:
            not_compared += 1
        else:
            differences += [difference] if difference else []
    return Comparison(tuple(differences), not_compared)


def installed_version(name: str) -> str | None:
    """The version of a package in this image."""
    try:
        return metadata.version(name) or None
    except (metadata.PackageNotFoundError, KeyError):
        return None


class _UrlError(Exception):
    """The line asks for a place, which no version can answer."""


_NOT_COMPARABLE = (
    _UrlError,
    InvalidRequirement,
    InvalidVersion,
    UndefinedComparison,
    UndefinedEnvironmentName,
    RecursionError,
)


def _difference(requirement: Requirement, installed: Callable[[str], str | None]) -> str | None:
    name = canonicalize_name(requirement.name)
    if name in _THE_IMAGES_OWN:
        return None
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return None
    if requirement.url:
        raise _UrlError
    have = installed(name)
    wanted = _short(str(requirement.specifier) or "any version")
    if have is None:
        return f"{_short(name)} not installed, model wants {wanted}"
    if requirement.specifier.contains(have, prereleases=True):
        return None
    return f"{_short(name)} {_short(have)} installed, model wants {wanted}"


def _lines(text: str) -> Iterator[str]:
    """Yield each requirement, without comments and hashes; pip's own options are left as they are."""
    for line in text.replace("\\\n", " ").splitlines():
        bare = re.sub(r"(^|\s)#.*", "", line).strip()
        bare = bare.partition(" --hash=")[0].strip()
        if bare:
            yield bare[:_MAX_LINE]


def _python_of(folder: Path) -> str | None:
    """The Python that the model was trained with, as ``3.11``; ``None`` where no file says it plainly."""
    for name, find in (("python_env.yaml", _virtualenv), ("conda.yaml", _conda)):
        try:
            raw = mlmodel.read_yaml(_read(folder / name).encode(), name)
        except (ValueError, NotAModel):
            continue
        if found := _minor(find(raw)):
            return found
    return None


def _virtualenv(raw: Any) -> Any:
    return raw.get("python") if isinstance(raw, dict) else None


def _conda(raw: Any) -> Any:
    dependencies = raw.get("dependencies") if isinstance(raw, dict) else None
    for item in dependencies if isinstance(dependencies, list) else ():
        if isinstance(item, str) and (match := _CONDA_PYTHON.fullmatch(item)):
            return match[1]
    return None


def _minor(version: Any) -> str | None:
    match = _PYTHON.fullmatch(version) if isinstance(version, str) else None
    return f"{int(match[1])}.{int(match[2])}" if match else None


def _read(path: Path) -> str:
    """Read a small text file; the error is the end of a sentence that begins with the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError("is missing" if isinstance(error, FileNotFoundError) else "cannot be read") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
