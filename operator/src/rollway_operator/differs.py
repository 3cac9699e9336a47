"""Compare a desired object with the live one, as a semantic subset; pure.

The API server adds defaults and other writers add fields, so the live object may hold more than was asked for. It may
not in selectors, data and the rules of policies and routes, where more means something else; nor in lists, where an
added element is an added container, port or variable, nor with a whole list added to a pod template; nor where a field
that we applied before is no longer desired.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from rollway_operator.labels import FIELD_MANAGER

_EXACT: Final = frozenset(
    {
        *("selector", "matchLabels", "nodeSelector", "data", "podSelector", "ingress", "egress"),
        # Of routes: traffic.py writes every field that the API server would add under these.
        *("parentRefs", "rules"),
        # Of monitors: with a relabelling more, the labels of pods say something else.
        "podMetricsEndpoints",
    }
)
"""Maps under these keys are compared for equality."""

_QUANTITIES: Final = frozenset({"requests", "limits", "sizeLimit", "averageValue"})
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?")
_FACTORS: Final = {
    **{letter: Decimal(1000) ** power for power, letter in enumerate(("n", "u", "m", "", *"kMGTPE"), -3)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}

_IDENTITY: Final = ("apiVersion", "kind")
_ABSENT: Final = object()

Path = tuple[str, ...]


def differs(desired: Mapping[str, Any], live: Mapping[str, Any]) -> str | None:
    """Tell the first difference that applying `desired` would remove; None where live is as desired."""
    body = {key: value for key, value in desired.items() if key not in _IDENTITY}
    return next(_map(body, live, ()), None) or next(_dropped(desired, live), None)


def repair(desired: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """Make the merge patch that also removes what others added to maps and lists that are ours alone."""
    body = {key: value for key, value in desired.items() if key not in {*_IDENTITY, "metadata"}}
    return {key: _repaired(value, live.get(key), (key,)) for key, value in body.items()}


def exactly(desired: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """Make the merge patch that leaves nothing but what is desired, whoever wrote the rest."""
    surplus: dict[str, Any] = dict.fromkeys(live.keys() - desired.keys())
    return surplus | {
        key: exactly(value, found)
        if isinstance(value, Mapping) and isinstance(found := live.get(key), Mapping)
        else value
        for key, value in desired.items()
    }


def _repaired(desired: Any, live: Any, path: Path) -> Any:
    if not isinstance(desired, Mapping) or not isinstance(live, Mapping):
        return desired
    surplus = dict.fromkeys(_surplus(desired, live, path))
    return surplus | {key: _repaired(value, live.get(key), (*path, key)) for key, value in desired.items()}


def _compare(desired: Any, live: Any, path: Path) -> Iterator[str]:
    if live is _ABSENT and _is_left_out(desired, path[-1]):
        return
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        yield from _map(desired, live, path)
    elif _is_list(desired) and _is_list(live):
        if len(desired) != len(live):
            yield f"{_shown_path(path)}: {len(desired)} elements desired, {len(live)} found"
        for index, (wanted, found) in enumerate(zip(desired, live, strict=False)):
            yield from _compare(wanted, found, (*path, str(index)))
    elif not _is_equal(desired, live, path):
        yield f"{_shown_path(path)}: {_shown(desired)} desired, {_shown(live)} found"


def _map(desired: Mapping[str, Any], live: Mapping[str, Any], path: Path) -> Iterator[str]:
    for key, value in desired.items():
        yield from _compare(value, live.get(key, _ABSENT), (*path, key))
    for key in _surplus(desired, live, path):
        yield f"{_shown_path((*path, key))}: not desired"


def _surplus(desired: Mapping[str, Any], live: Mapping[str, Any], path: Path) -> list[str]:
    """Name the keys that live may not have beside those desired."""
    more = sorted(live.keys() - desired.keys())
    if _is_exact(path):
        return more
    # Of itself the API server adds no list to a pod template: it is a sidecar, a variable or a toleration.
    return [key for key in more if _is_list(live[key])] if "template" in path else []


def _is_exact(path: Path) -> bool:
    return not _EXACT.isdisjoint(path)


def _is_left_out(desired: Any, key: str) -> bool:
    """The API server leaves out empty lists and strings, and empty maps of labels; `emptyDir: {}` it keeps."""
    if isinstance(desired, Mapping):
        return not desired and key in _EXACT
    return desired is None or (isinstance(desired, Sequence) and not desired)


def _is_equal(desired: Any, live: Any, path: Path) -> bool:
    if isinstance(desired, bool) or isinstance(live, bool):
        return desired is live
    if desired == live:
        return True
    return not _QUANTITIES.isdisjoint(path[-2:]) and _quantity(desired) == _quantity(live)


def _quantity(value: Any) -> Decimal | str:
    text = str(value)
    match = _QUANTITY.fullmatch(text)
    if not match:
        return text
    number, suffix = match[1], match[2] or ""
    return Decimal(number) * _FACTORS[suffix] if suffix in _FACTORS else Decimal(number + suffix)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, default=str)[:100]


def _shown_path(path: Path) -> str:
    return ".".join(path)


# --------------------------------------------------------------------------------------------- fields that we dropped


def _dropped(desired: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[str]:
    for entry in live["metadata"].get("managedFields", ()):
        ours = entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        if ours and not entry.get("subresource"):
            yield from _owned_but_gone(entry.get("fieldsV1", {}), desired, ())


def _owned_but_gone(fields: Mapping[str, Any], desired: Any, path: Path) -> Iterator[str]:
    """Walk a managedFields tree: `f:` names a field, `k:` an element by its keys; other names say nothing more."""
    for name, below in fields.items():
        sort, _, rest = name.partition(":")
        if sort == "f":
            found = desired.get(rest, _ABSENT) if isinstance(desired, Mapping) else _ABSENT
        elif sort == "k":
            found = _element(desired, json.loads(rest))
        else:
            continue
        if found is _ABSENT:
            yield f"{_shown_path((*path, rest))}: applied before, no longer desired"
        else:
            yield from _owned_but_gone(below, found, (*path, rest))


def _element(desired: Any, keys: Mapping[str, Any]) -> Any:
    """Find the element of a list that has these keys; a key that it leaves to a default agrees with any."""
    elements = desired if _is_list(desired) else ()
    agrees = (item for item in elements if all(item.get(key, value) == value for key, value in keys.items()))
    return next(agrees, _ABSENT)
