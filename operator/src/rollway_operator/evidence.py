"""What pods say of themselves, added to what was observed.

While a canary has traffic these are their numbers, from Prometheus where there is one, and beside them what only a
Gateway could count; before that, what stable's model and the candidate's take and give, which only the pods can say.
What was counted before is kept in memory alone: a new process begins anew, which makes verdicts later, never wrong.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rollway_operator.analysis import Window
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import Comparison, Key, Observed, Pod, StoredRevision
from rollway_operator.gateway_source import GatewayRequests
from rollway_operator.measurements import Asked, Measurement
from rollway_operator.metrics_source import Kept, PodMetrics, Rollout, Source, Target, Unknown, Windows
from rollway_operator.prometheus import Prometheus, ProviderError
from rollway_operator.promql import filled
from rollway_operator.roles import Measured, compared_pods, due_metrics, measured
from rollway_operator.signature import compatibility


class Queries:
    """The administrator's queries, and the Prometheus that answers them."""

    def __init__(
        self, prometheus: Prometheus | None = None, templates: Mapping[str, str] | None = None
    ) -> None:
        """Ask `prometheus` by these templates."""
        self._prometheus = prometheus
        self._templates = templates or {}

    async def measure(self, deployment: ModelDeployment, asked: Asked) -> Measurement:
        """Take one measurement of a canary."""
        query, status = self._templates.get(asked.template), deployment.status
        if self._prometheus is None or query is None or status.stable is None or status.canary is None:
            return Measurement(why=f"there is no template {asked.template!r} any more", answered=False)
        names = {
            "namespace": deployment.metadata.namespace,
            "name": deployment.metadata.name,
            "stable": status.stable.revision,
            "canary": status.canary.revision,
        }
        try:
            samples = await self._prometheus.query(filled(query, names))
        except ProviderError as error:
            return Measurement(why=str(error), answered=False)
        return Measurement.of([sample.value for sample in samples])


Pair = tuple[str, str]
"""The uids of a pod of stable and one of the candidate."""


class Evidence:
    """Asks the pods of rollouts, and remembers what has to be remembered of each."""

    def __init__(
        self,
        pods: PodMetrics,
        source: Source | None = None,
        queries: Queries | None = None,
        gateway: GatewayRequests | None = None,
    ) -> None:
        """Ask `pods` for signatures, `source` for what they counted, and the administrator's `queries`.

        Without a source the pods say that, too; without `gateway` nobody says what they could not count.
        """
        self._gateway = gateway
        self._queries = queries or Queries()
        self._pods = pods
        self._source = source or pods
        self._windows = Windows(self._source)
        self._at_gateway = Kept()
        self._compared: dict[Key, tuple[Pair, Comparison]] = {}

    async def add(self, deployment: ModelDeployment, observed: Observed) -> Observed:
        """Ask what a pass needs to know; nothing is asked where no candidate is on its way."""
        key = Key(deployment.metadata.namespace, deployment.metadata.name)
        compared = await self._comparison(key, deployment, observed)
        found = await self._measurements(deployment, observed)
        observed = replace(observed, measurements=found)
        wanted, status = measured(deployment), deployment.status
        if wanted is None or status.canary is None:
            self._windows.forget(key)
            self._at_gateway.forget(key)
            return replace(observed, compared=compared)
        rollout = Rollout(wanted.stable, wanted.canary, status.canary.started_at)
        window = await self._windows.update(
            key,
            rollout,
            wanted.step,
            stable=_targets(key, observed, observed.of(wanted.stable)),
            canary=_targets(key, observed, observed.of(wanted.canary)),
            now=observed.now,
            since=wanted.since,
        )
        at_gateway = await self._counted_at_gateway(key, deployment, observed, wanted, rollout)
        return replace(observed, compared=compared, evidence=window, at_gateway=at_gateway)

    def forget(self, key: Key) -> None:
        """Drop what is remembered of a ModelDeployment."""
        self._windows.forget(key)
        self._at_gateway.forget(key)
        self._compared.pop(key, None)

    async def aclose(self) -> None:
        """Close the connections, to the pods and to the source."""
        ends: set[Source] = {self._pods, self._source}
        await asyncio.gather(*(end.aclose() for end in ends))

    async def _counted_at_gateway(
        self, key: Key, deployment: ModelDeployment, observed: Observed, wanted: Measured, rollout: Rollout
    ) -> Window | None:
        live = observed.objects.get(("HTTPRoute", key.name))
        if self._gateway is None or live is None:
            return None
        route = self._gateway.route(deployment, live["spec"].get("hostnames") or ())
        sample = await self._gateway.read(route, wanted.stable, wanted.canary, observed.now)
        if sample is None:
            return self._at_gateway.get(key, rollout)
        return self._at_gateway.add(key, rollout, sample, wanted.step, wanted.since)

    async def _measurements(
        self, deployment: ModelDeployment, observed: Observed
    ) -> Mapping[str, Measurement]:
        due = due_metrics(deployment, observed.now)
        answers = await asyncio.gather(*(self._queries.measure(deployment, asked) for asked in due))
        return {asked.name: answer for asked, answer in zip(due, answers, strict=True)}

    async def _comparison(
        self, key: Key, deployment: ModelDeployment, observed: Observed
    ) -> Comparison | None:
        pods = compared_pods(deployment, observed)
        if pods is None:
            self._compared.pop(key, None)
            return None
        pair = pods[0].uid, pods[1].uid
        before, known = self._compared.get(key, (pair, None))
        if known is None or before != pair:
            known = await self._compare(key, observed, pods)
        if known.unknown is None:
            self._compared[key] = pair, known
        return known

    async def _compare(self, key: Key, observed: Observed, pods: tuple[Pod, Pod]) -> Comparison:
        targets = _targets(key, observed, pods)
        if len(targets) < len(pods):
            return Comparison(unknown="a pod has no address yet")
        stable, candidate = [await self._pods.signature(target) for target in targets]
        if isinstance(stable, Unknown) or isinstance(candidate, Unknown):
            why = next(said.why for said in (stable, candidate) if isinstance(said, Unknown))
            return Comparison(unknown=why)
        if stable is None or candidate is None:
            return Comparison()  # a server of a time before one could ask it
        return Comparison(problem=compatibility(stable, candidate))


def _targets(key: Key, observed: Observed, pods: Iterable[Pod]) -> list[Target]:
    """Give those pods that callers can have asked: ready, or ready before."""
    revisions = {revision.name: revision for revision in observed.revisions}
    return [
        Target(pod.uid, pod.name, pod.address, _port(revisions[pod.revision]), key.namespace)
        for pod in pods
        if pod.address
        and not pod.terminating
        and (pod.ready or pod.unready_since)
        and pod.revision in revisions
    ]


def _port(revision: StoredRevision) -> int:
    return int(revision.settings["metricsPort"])
