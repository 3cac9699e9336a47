"""One call as the proxy saw it, in Kubernetes' words where it is one of the API server's, and the record of them."""

import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

_LONGEST_RECORD: Final = 200_000
_MUTATING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_API: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
_MADE_TO_ASK: Final = re.compile(r"/(?:authentication|authorization)\.k8s\.io/")
"""A review is created, yet it changes nothing."""


@dataclass(frozen=True)
class Call:
    """A request's outline: what a rule can match, and what the record keeps."""

    method: str
    path: str
    """With the query, as it was sent."""
    verb: str
    """create, update, patch, apply, delete, get, list or watch; the method in small letters elsewhere."""
    resource: str = ""
    """The kind's plural, with the subresource: deployments, deployments/scale."""
    namespace: str = ""
    name: str = ""

    @property
    def mutating(self) -> bool:
        """Whether the call may change what is stored."""
        return self.method in _MUTATING and not _MADE_TO_ASK.search(self.path)

    @property
    def watch(self) -> bool:
        """Whether the answer is a stream of events."""
        return self.verb == "watch"

    @classmethod
    def of(cls, method: str, path: str, content_type: str = "") -> "Call":
        """Read a request line."""
        place, _, query = path.partition("?")
        found = _API.fullmatch(place)
        if found is None:
            return cls(method, path, method.lower())
        namespace, plural, name, sub = (found[part] or "" for part in ("namespace", "plural", "name", "sub"))
        verb = _VERBS.get(method) or _reads(query, name)
        if verb == "patch" and "apply-patch" in content_type:
            verb = "apply"
        return cls(method, path, verb, f"{plural}/{sub}" if sub else plural, namespace, name)


def _reads(query: str, name: str) -> str:
    if re.search(r"(^|&)watch=(1|t|true|True|TRUE)(&|$)", query):
        return "watch"
    return "get" if name else "list"


@dataclass
class Entry:
    """A call in the record, and what became of it."""

    number: int
    call: Call
    rule: str | None = None
    """The rule that acted on it."""
    status: int | None = None
    """What the caller was told; None while nothing was, or never will be."""

    def shown(self) -> dict[str, Any]:
        """Give the entry as JSON has it."""
        outline = asdict(self.call) | {"mutating": self.call.mutating}
        return outline | {"number": self.number, "rule": self.rule, "status": self.status}


class Journal:
    """Every call in order (the last of very many), and how many there were of each verb and resource."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=_LONGEST_RECORD)
        self._number = 0
        self._counts: Counter[str] = Counter()

    def add(self, call: Call) -> Entry:
        """Record a call."""
        self._number += 1
        entry = Entry(self._number, call)
        self._entries.append(entry)
        self._counts[f"{call.verb} {call.resource}".strip()] += 1
        return entry

    @property
    def counts(self) -> Mapping[str, int]:
        """How many calls there were, by verb and resource."""
        return self._counts

    def after(self, number: int) -> list[dict[str, Any]]:
        """Give the entries after one."""
        return [entry.shown() for entry in self._entries if entry.number > number]
