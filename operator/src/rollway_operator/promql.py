"""PromQL, built out of names that are quoted: nothing that anybody wrote is ever more than a string in it."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from rollway_operator.counts import NAMES, REQUESTS

NAMES_FILLED_IN: Final = ("namespace", "name", "stable", "canary")
"""What a template may have in double braces: the ModelDeployment's, and the names of its two revisions."""
SCRAPED_AT: Final = "rollway_scraped_at"
"""The label of the samples in an answer to `counters_of` that are times."""

_PLACE: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_QUOTED: Final = re.compile(r"#[^\n]*|" + r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'|`[^`]*`", re.DOTALL)
"""Comments, in which a quotation mark begins nothing, and strings."""
_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")


def quoted(text: str) -> str:
    r"""Write a string of PromQL, by the rules of Go's.

    >>> print(quoted('a "quoted" \\ name\n'))
    "a \"quoted\" \\ name\n"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_escaped(character) for character in escaped) + '"'


def _escaped(character: str) -> str:
    if character == "\n":
        return "\\n"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def any_of(names: Iterable[str]) -> str:
    r"""Write a string of PromQL that matches one of these names as a regular expression, and nothing else.

    >>> print(any_of(["fraud-1", "10.0.0.1:8082"]))
    "10\\.0\\.0\\.1:8082|fraud-1"
    """
    return quoted("|".join(_SPECIAL.sub(r"\\\g<0>", name) for name in sorted(set(names))))


def counters_of(namespace: str, pods: Iterable[str], instances: Iterable[str]) -> str:
    """Ask for the raw counters of pods, and in the same instant for when each was scraped.

    Pods are told by labels that Prometheus itself puts on what it scrapes. `timestamp` gives the time of a sample only
    where it is asked of the selector itself; its results have no name, and are told apart by a label.
    """
    which = f"namespace={quoted(namespace)},pod=~{any_of(pods)},instance=~{any_of(instances)}"
    scraped = f'label_replace(timestamp({REQUESTS}{{{which}}}),"{SCRAPED_AT}","1","","")'
    return f"{{__name__=~{any_of(NAMES)},{which}}} or {scraped}"


def requests_of(metric: str, namespaces: Iterable[str], backends: str) -> str:
    """Ask a gateway in these namespaces for its counts of HTTP requests to backends whose names match, and for when.

    A ServiceMonitor puts the Service that it scrapes into `service`, and what the gateway says there beside it.
    """
    found = []
    for label in ("service", "exported_service"):
        which = f'{metric}{{namespace=~{any_of(namespaces)},protocol="http",{label}=~{quoted(backends)}}}'
        found += [which, f'label_replace(timestamp({which}),"{SCRAPED_AT}","1","","")']
    return " or ".join(found)


def template_problem(query: str) -> str | None:
    """Say what is wrong with an administrator's template, and what mends it; None where it can be filled in.

    >>> template_problem("sum(up{namespace={{namespace}},revision={{canary}}})") is None
    True
    >>> print(template_problem('up{job="{{name}}"}'))
    {{name}} stands in quotes; take them away: it is filled in with its own
    >>> print(template_problem("up{job={{job}}}"))
    {{job}} is nothing that is filled in; use {{namespace}}, {{name}}, {{stable}} or {{canary}}
    """
    strings = (part for part in _QUOTED.findall(query) if not part.startswith("#"))
    if inside := _PLACE.search(" ".join(strings)):
        return f"{inside[0]} stands in quotes; take them away: it is filled in with its own"
    *most, last = (f"{{{{{name}}}}}" for name in NAMES_FILLED_IN)
    for place in _PLACE.finditer(query):
        if place[1] not in NAMES_FILLED_IN:
            return f"{place[0]} is nothing that is filled in; use {', '.join(most)} or {last}"
    if "{{" in _PLACE.sub("", query):
        return "it has braces that do not close; write {{name}}"
    return None


def filled(query: str, names: Mapping[str, str]) -> str:
    r"""Fill an administrator's template in; every name becomes a string of its own.

    >>> print(filled("up{namespace={{namespace}}}", {"namespace": 'a"} or vector(1)'}))
    up{namespace="a\"} or vector(1)"}
    """
    return _PLACE.sub(lambda place: quoted(names[place[1]]), query)
