"""YAML with line numbers: documents as Kubernetes reads them, and the line on which each field stands."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]

_NOT_KUBERNETES = frozenset({"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"})


class _Loader(yaml.SafeLoader):
    """Leaves dates as the texts that they are to Kubernetes."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_KUBERNETES]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Document:
    """One document of a file."""

    value: Any
    lines: Mapping[Path, int]
    twice: tuple[Path, ...]
    """Fields that are written twice, of which one is lost."""

    def line(self, path: Path) -> int:
        """Give the line of a field, or of the nearest one around it that is written."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class SyntaxFaultError(Exception):
    """The text is no YAML."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def read(text: str) -> Iterator[Document]:
    """Give the documents of a text; empty ones are passed over."""
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                if node is None:
                    break
                lines: dict[Path, int] = {}
                twice: list[Path] = []
                _walk(node, (), lines, twice, set())
                value = loader.construct_document(node)
                if value is not None:
                    yield Document(value, lines, tuple(twice))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SyntaxFaultError(mark.line + 1 if mark else 1, error.problem or str(error)) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise SyntaxFaultError(1, str(error)) from error


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], twice: list[Path], seen: set[int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    # What an alias repeats stands where it was written first, and may hold itself.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _walk(item, (*path, number), lines, twice, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            at = (*path, str(key.value))
            if at in lines:
                twice.append(at)
            lines[at] = key.start_mark.line + 1
            _walk(item, at, lines, twice, seen)
