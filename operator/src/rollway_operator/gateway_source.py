"""Read from Prometheus how many requests a Gateway got no answer to, of both revisions' Services.

    HTTPRoute ──► one instant query ──► series by gateway pod and backend ──► Counters of both sides
                  namespace, pod: labels that Prometheus puts there       increments and resets are computed as of pods

Only a gateway that runs in the administrator's namespaces is believed, and only of names that are surely ours
(traefik.py). What is missing, old, or there twice says nothing: a rule can be silent, and nothing is guessed.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from rollway_operator import promql, traefik, traffic
from rollway_operator.analysis import Counters, Reading
from rollway_operator.analysis import Sample as Both
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.counts import UnreadableError
from rollway_operator.domain import GatewayRef
from rollway_operator.prometheus import Prometheus, ProviderError, Sample
from rollway_operator.prometheus_source import AbsentError, scraped_at
from rollway_operator.traefik import Route

_PER_REQUEST: Final = frozenset({"__name__", "code", "method", "protocol", promql.SCRAPED_AT})
"""What differs between the series of one backend."""


class GatewayRequests:
    """Asks Prometheus for what Traefik counted."""

    def __init__(
        self,
        prometheus: Prometheus,
        gateway: GatewayRef,
        namespaces: Collection[str],
        stale: timedelta,
        url: str | None = None,
    ) -> None:
        """Believe pods of `namespaces` about `gateway`, if they were scraped no longer ago than `stale`.

        `url` is what addresses there begin with.
        """
        self._prometheus = prometheus
        self._gateway = gateway
        self._namespaces = namespaces
        self._stale = stale
        self._url = url

    def route(self, deployment: ModelDeployment, hosts: Sequence[str]) -> Route:
        """Describe a model's route, which has these host names."""
        name, path = deployment.metadata, traffic.path_of(deployment)
        return Route(name.namespace, name.name, self._gateway, path, hosts, self._url)

    async def read(self, route: Route, stable: str, canary: str, at: datetime) -> Both | None:
        """Read what each gateway pod had counted of both revisions when it was scraped; None without an answer."""
        question = promql.requests_of(traefik.REQUESTS, self._namespaces, route.pattern(stable, canary))
        try:
            samples = await self._prometheus.query(question)
        except ProviderError:
            return None
        found = _by_backend(samples, route, (stable, canary))
        return Both(self._reading(found[stable], at), self._reading(found[canary], at))

    def _reading(self, backends: Mapping[str, "_Backend"], at: datetime) -> Reading:
        counted: dict[str, Counters] = {}
        missing: dict[str, str] = {}
        for name, backend in backends.items():
            try:
                scraped = scraped_at(backend.times, at, self._stale)
                counted[name] = replace(backend.counters(), scraped_at=scraped)
            except (AbsentError, UnreadableError) as error:
                missing[name] = f"{name} {error}"
        return Reading(at, counted, missing)


@dataclass
class _Backend:
    """What an answer has of one backend of one gateway pod."""

    scrapes: set[frozenset[tuple[str, str]]] = field(default_factory=set)
    """The labels that Prometheus put there: of one scrape they are the same."""
    counts: list[tuple[str, str]] = field(default_factory=list)
    """By code."""
    times: list[str] = field(default_factory=list)

    def counters(self) -> Counters:
        """Read its counters."""
        if len(self.scrapes) != 1:
            raise UnreadableError("is in Prometheus twice")
        return traefik.counters(self.counts)


def _by_backend(
    samples: Iterable[Sample], route: Route, revisions: tuple[str, str]
) -> Mapping[str, Mapping[str, _Backend]]:
    """Sort an answer by revision, and by gateway pod and backend."""
    found: dict[str, dict[str, _Backend]] = {revision: defaultdict(_Backend) for revision in revisions}
    for sample in samples:
        labels = sample.labels
        said = "exported_service" if "exported_service" in labels else "service"
        name = labels.get(said, "")
        revision = route.revision(name, *revisions)
        if revision is None:
            continue
        backend = found[revision][f"{labels.get('namespace')}/{labels.get('pod')}: {name}"]
        backend.scrapes.add(sample.put_there({*_PER_REQUEST, said}))
        if promql.SCRAPED_AT in labels:
            backend.times.append(sample.value)
        else:
            backend.counts.append((labels.get("code", ""), sample.value))
    return found
