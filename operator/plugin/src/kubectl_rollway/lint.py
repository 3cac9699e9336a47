"""What is wrong with a manifest, by the definitions that come with this package: no cluster is asked.

The structural schema is checked whole. Of its rules in CEL those that compare one field with a pattern or a word, and
those that ask for exactly one of some fields, are checked here; the others need an API server.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from kubectl_rollway import times
from kubectl_rollway.documents import Document, Path, SyntaxFaultError, read
from kubectl_rollway.errors import one_line

GROUP: Final = "rollway.dev"

_SHOWN_LENGTH: Final = 60


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong."""

    line: int
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.line}: {self.where}: {self.message}" if self.where else f"{self.line}: {self.message}"


@dataclass(frozen=True)
class Checked:
    """What became of one document."""

    title: str
    problems: tuple[Problem, ...]
    document: Document | None
    """The document, where an API server may be asked about it."""
    ours: bool = True
    """Whether its kind is one of Rollway's."""
    left: int = 0
    """How many rules need an API server."""


def check(text: str) -> Iterator[Checked]:
    """Check every document of a file."""
    try:
        for document in read(text):
            yield from _check(document)
    except SyntaxFaultError as fault:
        yield Checked("", (Problem(fault.line, "", f"no YAML: {one_line(fault)}"),), None)


def where(path: Iterable[str | int]) -> str:
    """Write the path of a field as Kubernetes does."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_]\w*", part):
            text += f".{part}"
        else:
            text += f"[{part!r}]"
    return text.removeprefix(".")


def path(written: str) -> Path:
    """Read the path of a field that an API server wrote."""
    parts = re.findall(r"\[(\d+)\]|\[['\"]?([^\]'\"]+)['\"]?\]|([^.\[\]]+)", written)
    return tuple(int(number) if number else key or name for number, key, name in parts)


@cache
def schemas() -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Read the definitions: for each kind its version and schema."""
    found = {}
    for file in (files(__package__) / "crds").iterdir():
        if file.name.endswith(".yaml"):
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            spec = yaml.load(file.read_text(encoding="utf-8"), loader)["spec"]  # noqa: S506 - safe both
            (version,) = (one for one in spec["versions"] if one["storage"])
            found[spec["names"]["kind"]] = (version["name"], version["schema"]["openAPIV3Schema"])
    return found


# -------------------------------------------------------------------------------------------------- one document


def _check(document: Document) -> Iterator[Checked]:
    value = document.value
    if not isinstance(value, dict):
        yield Checked("", (Problem(document.line(()), "", "this is no object of Kubernetes"),), None)
        return
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        for number, item in enumerate(value["items"]):
            yield from _check(_item(document, number, item))
        return
    group, _, version = str(value.get("apiVersion", "")).rpartition("/")
    title = f"{value.get('kind')}/{(value.get('metadata') or {}).get('name')}"
    if group != GROUP:
        yield Checked(title, (), None, ours=False)
        return
    known = schemas().get(str(value.get("kind")))
    if known is None:
        kinds = " and ".join(sorted(schemas()))
        problem = Problem(document.line(("kind",)), "kind", f"{GROUP} has the kinds {kinds}")
        yield Checked(title, (problem,), None)
    elif version != known[0]:
        message = f"this package knows {GROUP}/{known[0]}"
        yield Checked(title, (Problem(document.line(("apiVersion",)), "apiVersion", message),), None)
    else:
        yield _validate(title, document, known[1])


def _item(document: Document, number: int, item: object) -> Document:
    start = ("items", number)
    lines = {path[2:]: line for path, line in document.lines.items() if path[:2] == start}
    twice = tuple(path[2:] for path in document.twice if path[:2] == start)
    return Document(item, lines, twice)


def _validate(title: str, document: Document, schema: Mapping[str, Any]) -> Checked:
    left: list[str] = []
    problems = {Problem(document.line(at), where(at), "is written twice") for at in document.twice}
    validator = _validator(left)(schema)
    for error in validator.iter_errors(document.value):
        at = tuple(error.absolute_path)
        problems.add(Problem(document.line(at), where(at), _words(error)))
    problems |= set(_metadata(document))
    return Checked(title, tuple(sorted(problems)), document, left=len(left))


def _metadata(document: Document) -> Iterator[Problem]:
    """Check what the definitions leave to the API server."""
    metadata = document.value.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        yield Problem(document.line(("metadata", "name")), "metadata.name", "is missing, or no text")


# ---------------------------------------------------------------------------------------- Kubernetes' own dialect

Errors = Iterator[ValidationError]


def _validator(left: list[str]) -> Any:
    """Make a validator that knows Kubernetes' words; rules that it cannot judge are added to a list."""

    def rules(_: object, declared: list[dict[str, str]], instance: object, __: object) -> Errors:
        for declaration in declared:
            holds = _judge(declaration["rule"], instance)
            if holds is None:
                left.append(declaration["rule"])
            elif not holds:
                yield ValidationError(declaration["message"], validator="rule", path=_below(declaration))

    return extend(  # type: ignore[no-untyped-call]
        Draft202012Validator,
        {
            "properties": _properties,
            "pattern": _pattern,
            "x-kubernetes-validations": rules,
            "x-kubernetes-list-map-keys": _unique,
        },
    )


def _below(declaration: Mapping[str, str]) -> Path:
    return path(declaration.get("fieldPath", ""))


def _properties(validator: Any, declared: Mapping[str, Any], instance: object, _: object) -> Errors:
    """Check known fields, and refuse others, as strict validation does."""
    if not isinstance(instance, dict):
        return
    for name, value in instance.items():
        known = declared.get(name)
        if known is None:
            near = difflib.get_close_matches(str(name), declared, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield ValidationError(f"there is no such field{hint}", validator="unknown", path=(name,))
        elif value is not None or "default" not in known:
            yield from validator.descend(value, known, path=name, schema_path=name)


def _pattern(_: object, pattern: str, instance: object, __: object) -> Errors:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{_shown(instance)} does not match {pattern}", validator="rule")


def _unique(_: object, keys: list[str], instance: object, __: object) -> Errors:
    """Refuse two entries of a list that have the same keys."""
    if not isinstance(instance, list):
        return
    seen: set[str] = set()
    for number, item in enumerate(instance):
        name = str([item.get(key) for key in keys]) if isinstance(item, dict) else ""
        if name and name in seen:
            yield ValidationError(
                f"another entry has the same {', '.join(keys)}", validator="rule", path=(number,)
            )
        seen.add(name)


def _matches(pattern: str, text: str) -> bool:
    """Match as Go does: its $ is the very end, Python's also stands before a last line feed."""
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1] + r"\Z"
    return re.search(pattern, text) is not None


# ------------------------------------------------------------------------------------------------- rules in CEL

_MATCHES: Final = re.compile(r"(?:type\(self\) == int \|\| )?(!?)self((?:\.\w+)*)\.matches\(r?'([^']*)'\)")
_ONE_OF_TWO: Final = re.compile(r"has\(self\.(\w+)\) != has\(self\.(\w+)\)")
_ONE_OF_MANY: Final = re.compile(r"\[(has\(self\.\w+\)(?:, has\(self\.\w+\))*)\]\.exists_one\((\w+), \2\)")
_IS_NOT: Final = re.compile(r"self != '([^']*)'")
_SHORTER: Final = re.compile(r"!self\.matches\(r'[^']*'\) \|\| duration\(self\) <= duration\('(\w+)'\)")
_LACKS: Final = re.compile(r"!self\.contains\('([^']*)'\)")


def _judge(rule: str, instance: object) -> bool | None:
    """Say whether a rule holds; None where only an API server can say."""
    for form, holds in _FORMS:
        if found := form.fullmatch(rule):
            try:
                return holds(found, instance)
            except re.error:  # a pattern that Go knows and Python does not
                return None
    return None


def _judge_match(found: re.Match[str], instance: object) -> bool:
    for key in found[2].split(".")[1:]:
        instance = instance.get(key) if isinstance(instance, dict) else None
    # What is no text is refused for its type.
    return not isinstance(instance, str) or _matches(found[3], instance) != bool(found[1])


def _judge_one(found: re.Match[str], instance: object) -> bool:
    names = re.findall(r"has\(self\.(\w+)\)", found[0])
    return not isinstance(instance, dict) or sum(instance.get(name) is not None for name in names) == 1


def _judge_duration(found: re.Match[str], instance: object) -> bool:
    given, limit = times.seconds(str(instance)), times.seconds(found[1])
    return given is None or limit is None or given <= limit


_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str], object], bool]], ...]] = (
    (_MATCHES, _judge_match),
    (_ONE_OF_TWO, _judge_one),
    (_ONE_OF_MANY, _judge_one),
    (_SHORTER, _judge_duration),
    (_IS_NOT, lambda found, instance: instance != found[1]),
    (_LACKS, lambda found, instance: not isinstance(instance, str) or found[1] not in instance),
)


# ------------------------------------------------------------------------------------------------------- in words


def _words(error: ValidationError) -> str:
    told = _WORDS.get(str(error.validator))
    return one_line(told(error) if told else error.message)


def _shown(value: object) -> str:
    text = one_line(repr(value) if isinstance(value, str) else _json(value))
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


def _json(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else str(value)


def _type(error: ValidationError) -> str:
    names = {
        "string": "a text",
        "integer": "a whole number",
        "boolean": "true or false",
        "object": "a mapping",
    }
    wanted = names.get(str(error.validator_value), f"{error.validator_value}")
    quote = error.validator_value == "string" and isinstance(error.instance, (int, float))
    hint = f'; write "{_json(error.instance)}"' if quote else ""
    return f"must be {wanted.replace('array', 'a list')}, not {_shown(error.instance)}{hint}"


def _required(error: ValidationError) -> str:
    missing = re.match(r"'(.*)' is a required property", error.message)
    return f"{missing[1]} is missing" if missing else error.message


def _listed(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)


_WORDS: Final[Mapping[str, Callable[[ValidationError], str]]] = {
    "type": _type,
    "required": _required,
    "enum": lambda e: f"must be one of {_listed(e.validator_value)}, not {_shown(e.instance)}",
    "anyOf": lambda e: f"must be a text or a whole number, not {_shown(e.instance)}",
    "minimum": lambda e: f"must be at least {e.validator_value}, not {_shown(e.instance)}",
    "maximum": lambda e: f"must be at most {e.validator_value}, not {_shown(e.instance)}",
    "minLength": lambda e: f"must have at least {e.validator_value} characters",
    "maxLength": lambda e: f"must have at most {e.validator_value} characters",
    "minItems": lambda e: f"must have at least {e.validator_value} entries",
    "maxItems": lambda e: f"must have at most {e.validator_value} entries",
    "maxProperties": lambda e: f"must have at most {e.validator_value} entries",
}
