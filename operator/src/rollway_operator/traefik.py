"""How Traefik names a backend of a model's HTTPRoute in its metrics, and how many requests it got no answer to; pure.

    httproute-<namespace>-<name>-gw-<Gateway>-ep-<entry point>-<rule>-<hash>-svc-<namespace>-<Service>-<backend>
                     which others could spell, too  ◄──────┘     └──────► which they could not

Dashes join what may have dashes, so `a` with `b-c` reads like `a-b` with `c`. The hash is one of the route's namespace
and name, the Gateway's, the entry point and the rule's index, each with its length, and of what the rule matches. We
know all of that of our own route, so the hash is computed again, and a name with another one is nobody's.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from rollway_operator.analysis import Counters
from rollway_operator.counts import count
from rollway_operator.domain import GatewayRef

REQUESTS: Final = "traefik_service_requests_total"
NO_ANSWER: Final = "502"
"""The pod refused the connection, or ended it without an answer.

Our servers never send it. Their 504 and Traefik's cannot be told apart, nor can 500; Traefik's 503 is not counted for a
backend; and for gRPC all of these are one.
"""
CLIENT_LEFT: Final = "499"
_DIGITS: Final = 20


@dataclass(frozen=True)
class Route:
    """A model's HTTPRoute, as far as names follow from it."""

    namespace: str
    name: str
    gateway: GatewayRef
    path: str
    """The prefix that its rules match."""
    hosts: Sequence[str] = ()
    """Its host names."""
    url: str | None = None
    """What addresses begin with at the Gateway: the listener's host name, perhaps."""

    def pattern(self, *revisions: str) -> str:
        """Write a regular expression for names that look like those of the revisions' Services.

        >>> print(Route("team-a", "fraud", GatewayRef("traefik", "models"), "/x").pattern("fraud-1"))
        httproute-team-a-fraud-gw-traefik-models-ep-([^@]+)-([0-9]+)-([0-9a-f]{20})-svc-team-a-(fraud-1)-[0-9]+@kubernetesgateway
        """
        label = "-".join(
            _normalized(part)
            for part in (
                "httproute",
                self.namespace,
                self.name,
                "gw",
                self.gateway.namespace,
                self.gateway.name,
            )
        )
        services = "|".join(_literal(revision) for revision in revisions)
        hashed = f"([^@]+)-([0-9]+)-([0-9a-f]{{{_DIGITS}}})"
        return f"{label}-ep-{hashed}-svc-{_literal(self.namespace)}-({services})-[0-9]+@kubernetesgateway"

    def revision(self, backend: str, *revisions: str) -> str | None:
        """Say whose Service a name is for; None where it is not surely that of a rule for every caller."""
        named = re.fullmatch(self.pattern(*revisions), backend)
        if named is None:
            return None
        entry_point, index, told, revision = named.groups()
        ours = (self.hash(entry_point, index, rule) for rule in self.rules())
        return revision if told in ours else None

    def hash(self, entry_point: str, index: str, rule: str) -> str:
        """Compute what Traefik adds to a name (makeRouterName in pkg/provider/kubernetes/gateway, since 3.7.13)."""
        parts = (self.namespace, self.name, self.gateway.namespace, self.gateway.name, entry_point, index)
        told = "".join(f"{len(part.encode())}:{part}" for part in parts)
        return sha256(f"{told}{rule}".encode()).hexdigest()[:_DIGITS]

    def rules(self) -> Iterator[str]:
        r"""Write what Traefik may match requests by that have no track header; see its buildMatchRule.

        The listener's host name is not known to us: it is in the rule where the route has none, and where the route has
        several it may leave only one of them.

        >>> route = Route("a", "fraud", GatewayRef("b", "c"), "/x", url="https://models.example.com")
        >>> for rule in route.rules(): print(rule)
        (Path("/x") || PathPrefix("/x/"))
        Host("models.example.com") && (Path("/x") || PathPrefix("/x/"))
        HostRegexp("^[a-z0-9-\\.]+\\.example\\.com$") && (Path("/x") || PathPrefix("/x/"))
        """
        path = f"(Path({_quoted(self.path)}) || PathPrefix({_quoted(f'{self.path}/')}))"
        for hosts in self._hosts():
            each = [_host(host) for host in hosts]
            joined = each[0] if len(each) == 1 else f"({' || '.join(each)})"
            yield f"{joined} && {path}" if each else path

    def _hosts(self) -> Iterator[Sequence[str]]:
        if self.hosts:
            yield self.hosts
            yield from ([host] for host in self.hosts)
            return
        yield ()
        host = urlsplit(self.url or "").hostname
        if host:
            yield (host,)
            yield (f"*.{host.partition('.')[2]}",)


def counters(counts: Iterable[tuple[str, str]]) -> Counters:
    """Add up what Traefik counted of one backend, by code; whoever left before there was an answer says nothing.

    >>> counters([("200", "90"), ("500", "3"), ("502", "7"), ("499", "2")])
    Counters(ok=93, server_error=7, client_error=2, shed=0, buckets={}, in_progress=0, scraped_at=None)
    """
    numbers: dict[str, int] = defaultdict(int)
    for code, value in counts:
        numbers[code] += count(REQUESTS, value)
    failed, left = numbers.pop(NO_ANSWER, 0), numbers.pop(CLIENT_LEFT, 0)
    return Counters(ok=sum(numbers.values()), server_error=failed, client_error=left)


def _host(host: str) -> str:
    if not host.startswith("*."):
        return f"Host({_quoted(host)})"
    pattern = r"^[a-z0-9-\.]+\." + _literal(host.removeprefix("*.")) + "$"
    return f"HostRegexp({_quoted(pattern)})"


def _quoted(text: str) -> str:
    """Write a string as Go's %q does, of characters that host names and paths have."""
    return json.dumps(text)


def _normalized(text: str) -> str:
    return "-".join(re.findall(r"[0-9A-Za-z]+", text))


def _literal(name: str) -> str:
    return name.replace(".", "\\.")
