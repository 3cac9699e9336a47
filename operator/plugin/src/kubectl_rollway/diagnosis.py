"""What an installation of Rollway needs, and what of it is there: each check gives a finding, with its fix."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from kubectl_rollway.objects import Fields

State = Literal["ok", "warning", "missing"]

DEFINITIONS: Final = {
    "modeldeployments.rollway.dev": "ModelDeployment",
    "modelregistries.rollway.dev": "ModelRegistry",
}
_VERSION: Final = "v1alpha1"
_RENEWED_WITHIN: Final = timedelta(seconds=60)
"""A lease is renewed every 2 s; the clocks of a cluster and of whoever asks may differ by some seconds."""

_INSTALL: Final = (
    "helm upgrade --install rollway charts/rollway --namespace rollway-system --create-namespace"
)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    subject: str
    state: State
    says: str
    fix: str = ""
    """What to do; empty where all is well."""


@dataclass(frozen=True)
class Answer:
    """What the API server gave of one kind."""

    items: tuple[Fields, ...] = ()
    known: bool = True
    """Whether the API server knows the kind."""
    trouble: str = ""
    """Why it could not be read."""

    @classmethod
    def of(cls, *items: Mapping[str, Any]) -> "Answer":
        """Hold some objects."""
        return cls(tuple(map(Fields, items)))


@dataclass(frozen=True)
class Installation:
    """All that was read of Rollway itself."""

    definitions: Answer
    operators: Answer
    """Deployments of the operator."""
    leases: Answer
    registries: Answer
    gateways: Answer


def name_of(item: Fields) -> str:
    """Name an object, with its namespace if it has one."""
    metadata = item.at("metadata")
    return "/".join(filter(None, (metadata.text("namespace"), metadata.text("name"))))


def setting(operator: Fields, name: str) -> str:
    """Read a variable of the operator's environment from its Deployment."""
    for container in operator.at("spec", "template", "spec").each("containers"):
        for variable in container.each("env"):
            if variable.text("name") == name:
                return variable.text("value")
    return ""


def examine(seen: Installation, schemas: Mapping[str, Any], now: datetime) -> Iterator[Finding]:
    """Check Rollway itself; `schemas` are the definitions that this plugin came with, by kind."""
    yield from _definitions(seen.definitions, schemas)
    yield from _operators(seen.operators)
    yield from _leases(seen, now)
    yield from _registries(seen.registries)
    yield from _gateways(seen)


def unread(check: str, answer: Answer) -> Iterator[Finding]:
    """Say of what could not be read that nobody knows."""
    if answer.trouble:
        yield Finding(
            check, "", "warning", f"not checked: {answer.trouble}", "ask who may read it, or be allowed to"
        )


def _definitions(answer: Answer, schemas: Mapping[str, Any]) -> Iterator[Finding]:
    check = "definition"
    yield from unread(check, answer)
    if answer.trouble:
        return
    found = {name_of(item): item for item in answer.items}
    for name, kind in DEFINITIONS.items():
        if name not in found:
            yield Finding(check, name, "missing", "is not installed", _INSTALL)
        elif not _holds(found[name], "Established"):
            fix = f"kubectl describe crd {name}"
            yield Finding(check, name, "missing", "the API server does not serve it", fix)
        elif _stored(_schema(found[name])) != _stored(schemas[kind]):
            says = "is of another version of Rollway than this plugin"
            fix = "helm upgrade, or install the plugin of the operator's version"
            yield Finding(check, name, "warning", says, fix)
        else:
            yield Finding(check, name, "ok", f"{_VERSION}, as this plugin knows it")


def _schema(definition: Fields) -> Mapping[str, Any]:
    for version in definition.at("spec").each("versions"):
        if version.text("name") == _VERSION:
            return version.at("schema", "openAPIV3Schema").raw
    return {}


def _stored(schema: Any) -> Any:
    """Leave out what an API server does not store: `properties` without any."""
    if isinstance(schema, Mapping):
        return {key: _stored(value) for key, value in schema.items() if (key, value) != ("properties", {})}
    return [_stored(item) for item in schema] if isinstance(schema, list) else schema


def _operators(answer: Answer) -> Iterator[Finding]:
    check = "operator"
    yield from unread(check, answer)
    if not answer.items and not answer.trouble:
        yield Finding(check, "", "missing", "there is no Deployment of the operator", _INSTALL)
    for item in answer.items:
        name, namespace = item.at("metadata").text("name"), item.at("metadata").text("namespace")
        wanted, ready = item.at("spec").number("replicas"), item.at("status").number("readyReplicas") or 0
        says = f"{ready} of {wanted} replicas ready"
        if wanted == 0:
            fix = f"kubectl scale deployment {name} --namespace {namespace} --replicas=1"
            yield Finding(check, name_of(item), "missing", "is scaled to 0", fix)
        elif not ready:
            fix = f"kubectl logs deployment/{name} --namespace {namespace}"
            yield Finding(check, name_of(item), "missing", says, fix)
        else:
            few = wanted is not None and ready < wanted
            fix = f"kubectl describe deployment {name} --namespace {namespace}" if few else ""
            yield Finding(check, name_of(item), "warning" if few else "ok", says, fix)


def _leases(seen: Installation, now: datetime) -> Iterator[Finding]:
    check = "lease"
    yield from unread(check, seen.leases)
    if seen.leases.trouble:
        return
    found = {name_of(item): item.at("spec") for item in seen.leases.items}
    for operator in seen.operators.items:
        namespace = operator.at("metadata").text("namespace")
        name = f"{namespace}/{setting(operator, 'ROLLWAY_LEASE_NAME') or 'rollway-operator'}"
        lease = found.get(name, Fields({}))
        holder, renewed = lease.text("holderIdentity"), lease.time("renewTime")
        fix = f"kubectl logs deployment/{operator.at('metadata').text('name')} --namespace {namespace}"
        if not holder:
            yield Finding(check, name, "missing", "nobody holds it", fix)
        elif renewed is None or now - renewed > _RENEWED_WITHIN:
            yield Finding(check, name, "missing", f"{holder} has not renewed it for a minute", fix)
        else:
            yield Finding(check, name, "ok", f"held by {holder}")


def _registries(answer: Answer) -> Iterator[Finding]:
    check = "registry"
    yield from unread(check, answer)
    if answer.known and not answer.trouble and not answer.items:
        fix = "kubectl apply a ModelRegistry, such as examples/registry.yaml"
        yield Finding(check, "", "missing", "there is no ModelRegistry", fix)
    for item in answer.items:
        ready = condition(item, "Ready")
        says = (
            f"{ready.text('reason')}: {ready.text('message')}" if ready else "the operator has not looked yet"
        )
        if ready.text("status") == "True":
            yield Finding(check, name_of(item), "ok", says)
        else:
            fix = f"correct the ModelRegistry or what it names: kubectl describe mreg {name_of(item)}"
            yield Finding(check, name_of(item), "missing", says, fix)


def _gateways(seen: Installation) -> Iterator[Finding]:
    check = "gateway"
    named = {
        value
        for operator in seen.operators.items
        for variable in ("ROLLWAY_GATEWAY_HTTP", "ROLLWAY_GATEWAY_GRPC")
        if (value := setting(operator, variable))
    }
    if seen.operators.items and not named:
        yield Finding(check, "", "ok", "none is named: the counts of pods are the shares of the traffic")
    if not named:
        return
    yield from unread(check, seen.gateways)
    if seen.gateways.trouble:
        return
    found = {name_of(item): item for item in seen.gateways.items}
    for ref in sorted(named):
        namespace, name, section = (*ref.split("/"), "", "")[:3]
        item = found.get(f"{namespace}/{name}")
        if not seen.gateways.known:
            fix = "install the Gateway API, or take the Gateway out of the chart's values"
            yield Finding(check, ref, "missing", "the API server does not know Gateways", fix)
        elif item is None:
            fix = "make the Gateway, or correct gateway.http and gateway.grpc in the chart's values"
            yield Finding(check, ref, "missing", "there is no such Gateway", fix)
        else:
            yield _gateway(ref, item, section)


def _gateway(ref: str, item: Fields, section: str) -> Finding:
    check = "gateway"
    listeners = [listener.text("name") for listener in item.at("spec").each("listeners")]
    if section and section not in listeners:
        fix = f"its listeners are {', '.join(listeners)}: correct the chart's values"
        return Finding(check, ref, "missing", f"it has no listener {section}", fix)
    programmed = condition(item, "Programmed")
    if programmed.text("status") == "True":
        return Finding(check, ref, "ok", "is Programmed")
    says = programmed.text("message") or "no controller has taken it"
    metadata = item.at("metadata")
    fix = f"kubectl describe gateway {metadata.text('name')} --namespace {metadata.text('namespace')}"
    return Finding(check, ref, "missing", f"is not Programmed: {says}", fix)


def condition(item: Fields, type_: str) -> Fields:
    """Give a condition of an object; an empty one where it has none of that type."""
    found = (one for one in item.at("status").each("conditions") if one.text("type") == type_)
    return next(found, Fields({}))


def _holds(item: Fields, type_: str) -> bool:
    return condition(item, type_).text("status") == "True"
