"""Whether a Prometheus scrapes what it should: monitors, the selectors that take them, and the targets that follow.

A Prometheus of Prometheus Operator takes a monitor if both of its selectors do: where the one for labels is absent it
takes none, where the one for namespaces is absent its own namespace's. A monitor's targets are in pools that are named
after it, `podMonitor/<namespace>/<name>/<number>`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from kubectl_rollway.diagnosis import Answer, Finding, name_of, setting, unread
from kubectl_rollway.objects import Fields
from kubectl_rollway.selecting import lacking

Kind = Literal["PodMonitor", "ServiceMonitor"]

_CHECK: Final = "scraped"
_CHART: Final = "monitoring.enabled: true in the values of the chart, then helm upgrade"


@dataclass(frozen=True)
class Target:
    """One address that a Prometheus scrapes."""

    pool: str
    up: bool
    error: str


@dataclass(frozen=True)
class Targets:
    """What the Prometheuses scrape, as far as they could be asked."""

    found: tuple[Target, ...] = ()
    troubles: tuple[str, ...] = ()
    """Why some could not be asked."""
    asked: bool = False
    """Whether one answered."""


@dataclass(frozen=True)
class Monitoring:
    """All that was read of Prometheus and what it shall scrape."""

    prometheuses: Answer
    service_monitors: Answer
    pod_monitors: Answer
    namespaces: Answer
    servers: Answer
    """Deployments of the operator and of MLflow, which a ServiceMonitor each leads to."""
    deployments: Answer
    """ModelDeployments, which a PodMonitor each leads to."""
    targets: Targets = Targets()


@dataclass(frozen=True)
class _Wanted:
    """One monitor that should be there."""

    kind: Kind
    of: str
    monitor: Fields | None
    has_pods: bool
    make: str
    """How to have it made."""
    label: str
    """Where its labels are set."""


def targets_of(answer: Any) -> tuple[Target, ...]:
    """Read what Prometheus answers on `/api/v1/targets` (its HTTP API); anything else has no targets."""
    return tuple(
        Target(each.text("scrapePool"), each.text("health") == "up", each.text("lastError"))
        for each in Fields(answer).at("data").each("activeTargets")
    )


def examine(seen: Monitoring) -> Iterator[Finding]:
    """Check that everything of Rollway's is scraped, and name the label that is missing where it is not."""
    kinds = (seen.prometheuses, seen.service_monitors, seen.pod_monitors)
    if not all(answer.known for answer in kinds):
        says = (
            "the API server does not know monitoring.coreos.com/v1: nothing leads Prometheus to the metrics"
        )
        fix = "install Prometheus Operator, then helm upgrade; or scrape the ports named metrics yourself"
        yield Finding("monitoring", "", "warning", says, fix)
        return
    if any(setting(server, "ROLLWAY_POD_MONITORS") == "false" for server in seen.servers.items):
        says = "monitoring.enabled is false: models have no PodMonitors"
        yield Finding("monitoring", "", "warning", says, _CHART)
        return
    troubles = [finding for answer in kinds for finding in unread("monitoring", answer)]
    if troubles:
        yield troubles[0]
        return
    yield from _prometheuses(seen)
    for wanted in (*_servers(seen), *_models(seen)):
        yield _examined(seen, wanted)


def _prometheuses(seen: Monitoring) -> Iterator[Finding]:
    check = "prometheus"
    if not seen.prometheuses.items and not seen.targets.asked:
        fix = "make one (a Prometheus object), or name yours: --prometheus URL"
        yield Finding(check, "", "missing", "there is no Prometheus", fix)
    for trouble in seen.targets.troubles:
        fix = "be allowed to get services/proxy, or name its address: --prometheus URL"
        yield Finding(check, "", "warning", f"cannot be asked: {trouble}", fix)
    if seen.targets.asked:
        # One of them may have answered for all: which one it was is not kept.
        yield Finding(check, "", "ok", "answers")


def _servers(seen: Monitoring) -> Iterator[_Wanted]:
    for server in seen.servers.items:
        labels = server.at("metadata").mapping("labels")
        part, namespace = (
            labels.get("app.kubernetes.io/instance", ""),
            server.at("metadata").text("namespace"),
        )
        own = [
            monitor
            for monitor in seen.service_monitors.items
            if monitor.at("metadata").text("namespace") == namespace
            and not lacking(monitor.at("spec", "selector"), labels)
        ]
        chart = f"charts/{labels.get('app.kubernetes.io/name', '')} (release {part})"
        yield _Wanted(
            "ServiceMonitor",
            name_of(server),
            own[0] if own else None,
            (server.at("status").number("readyReplicas") or 0) > 0,
            f"{chart}: {_CHART}",
            f"monitoring.labels in the values of {chart}",
        )


def _models(seen: Monitoring) -> Iterator[_Wanted]:
    monitors = {name_of(monitor): monitor for monitor in seen.pod_monitors.items}
    for model in seen.deployments.items:
        chosen = model.at("spec", "monitoring", "podMonitor").raw.get("enabled")
        if chosen is False:
            continue
        status = model.at("status")
        yield _Wanted(
            "PodMonitor",
            name_of(model),
            monitors.get(name_of(model)),
            bool(status.at("stable") or status.at("canary")),
            f"charts/rollway: {_CHART}; the operator makes it within its resync",
            "monitoring.labels in the values of charts/rollway, or spec.monitoring.podMonitor.labels",
        )


def _examined(seen: Monitoring, wanted: _Wanted) -> Finding:
    subject = f"{wanted.kind} of {wanted.of}"
    if wanted.monitor is None:
        return Finding(_CHECK, subject, "missing", "there is none", wanted.make)
    pool = f"{wanted.kind[0].lower()}{wanted.kind[1:]}/{name_of(wanted.monitor)}/"
    targets = [target for target in seen.targets.found if target.pool.startswith(pool)]
    if targets:
        return _of_targets(subject, targets)
    if seen.prometheuses.items and (left_out := _left_out(seen, wanted)):
        return Finding(_CHECK, subject, "missing", *left_out)
    if not seen.targets.asked:
        return Finding(
            _CHECK, subject, "warning", "selected; whether it is scraped was not asked", "--prometheus URL"
        )
    if not wanted.has_pods:
        return Finding(_CHECK, subject, "warning", "no pods to scrape yet", "wait for its first version")
    fix = "wait a minute for Prometheus to read it; then see whether it may list the pods of this namespace"
    return Finding(_CHECK, subject, "missing", "Prometheus has no target of it", fix)


def _of_targets(subject: str, targets: list[Target]) -> Finding:
    down = [target for target in targets if not target.up]
    if not down:
        return Finding(_CHECK, subject, "ok", f"{len(targets)} of {len(targets)} targets up")
    says = f"{len(down)} of {len(targets)} targets down: {down[0].error or 'not scraped yet'}"
    fix = "name Prometheus' namespace in networkPolicy.prometheusNamespaces of charts/rollway, if it cannot connect"
    return Finding(_CHECK, subject, "missing", says, fix)


def _left_out(seen: Monitoring, wanted: _Wanted) -> tuple[str, str] | None:
    """Say what the Prometheus that lacks least would have to find; None where one takes the monitor."""
    found = [_left_out_by(prometheus, seen, wanted) for prometheus in seen.prometheuses.items]
    if None in found:
        return None
    return min((each for each in found if each), key=lambda each: len(each[1]), default=None)


def _left_out_by(prometheus: Fields, seen: Monitoring, wanted: _Wanted) -> tuple[str, str] | None:
    field, name = f"{wanted.kind[0].lower()}{wanted.kind[1:]}", name_of(prometheus)
    spec, metadata = prometheus.at("spec"), (wanted.monitor or Fields({})).at("metadata")
    namespace = metadata.text("namespace")
    if f"{field}Selector" not in spec:
        return f"{name} selects no {wanted.kind}", f"set spec.{field}Selector of Prometheus {name}"
    if missing := lacking(spec.at(f"{field}Selector"), metadata.mapping("labels")):
        words = ", ".join(missing)
        return f"{name} does not select it: the label {words} is missing", f"add {words} to {wanted.label}"
    if f"{field}NamespaceSelector" not in spec:
        if namespace == prometheus.at("metadata").text("namespace"):
            return None
        fix = f"set spec.{field}NamespaceSelector of Prometheus {name}, {{}} for all"
        return f"{name} selects in its own namespace alone", fix
    labels = _labels_of(seen.namespaces, namespace)
    if missing := lacking(spec.at(f"{field}NamespaceSelector"), labels):
        words = " ".join(missing)
        fix = f"kubectl label namespace {namespace} {words}"
        return f"{name} does not select namespace {namespace}: the label {words} is missing", fix
    return None


def _labels_of(namespaces: Answer, name: str) -> Mapping[str, str]:
    found = (item.at("metadata") for item in namespaces.items if name_of(item) == name)
    return next((metadata.mapping("labels") for metadata in found), {})
