"""The command that checks an installation: it reads, and leaves to `diagnosis` and `scraping` what that means."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from kubectl_rollway import diagnosis, drawing, output, scraping
from kubectl_rollway.commandline import session
from kubectl_rollway.diagnosis import Answer, Finding, Installation
from kubectl_rollway.errors import ForbiddenError, PluginError, RefusedError, UnreachableError, one_line
from kubectl_rollway.objects import Fields
from kubectl_rollway.scraping import Monitoring, Targets
from kubectl_rollway.session import Session
from kubectl_rollway.tables import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

_MONITORING: Final = "/apis/monitoring.coreos.com/v1"
_OPERATOR: Final = "app.kubernetes.io/name=rollway,app.kubernetes.io/component=operator"
_MLFLOW: Final = "app.kubernetes.io/name=mlflow,app.kubernetes.io/component=server"
_GOVERNED: Final = "prometheus-operated:web"
"""The Service that Prometheus Operator makes beside every Prometheus, and its port."""
_SECONDS: Final = 10.0


@click.command("doctor")
@click.option(
    "--prometheus",
    metavar="URL",
    help="Ask the Prometheus at this address; without it, those that the API server knows, through it.",
)
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="Form of the output.")
@session
def doctor_command(session: Session, prometheus: str | None, form: str | None) -> None:
    """Check the installation.

    Definitions, operator, registries, Gateways, and whether Prometheus scrapes it all; each with its fix.
    """
    from kubectl_rollway.lint import schemas  # noqa: PLC0415 - other commands start without a validator

    installation, monitoring = _read(session, prometheus)
    known = {kind: schema for kind, (_, schema) in schemas().items()}
    findings = [
        *diagnosis.examine(installation, known, session.now),
        *scraping.examine(monitoring),
    ]
    if form:
        output.show_data([asdict(finding) for finding in findings], form)
    else:
        _show(findings)
    if missing := sum(finding.state == "missing" for finding in findings):
        raise RefusedError(f"{missing} of {len(findings)} checks found something missing")


def _read(session: Session, url: str | None) -> tuple[Installation, Monitoring]:
    namespaces = _listed(session, "/api/v1", "namespaces")
    if not namespaces.known:
        raise UnreachableError("this is no API server: it knows no namespaces")
    operators = _listed(session, "/apis/apps/v1", "deployments", labelSelector=_OPERATOR)
    mlflow = _listed(session, "/apis/apps/v1", "deployments", labelSelector=_MLFLOW)
    prometheuses = _listed(session, _MONITORING, "prometheuses")
    installation = Installation(
        definitions=_definitions(session),
        operators=operators,
        leases=_leases(session, operators),
        registries=_listed(session, "/apis/rollway.dev/v1alpha1", "modelregistries"),
        gateways=_listed(session, "/apis/gateway.networking.k8s.io/v1", "gateways"),
    )
    monitoring = Monitoring(
        prometheuses=prometheuses,
        service_monitors=_listed(session, _MONITORING, "servicemonitors"),
        pod_monitors=_listed(session, _MONITORING, "podmonitors"),
        namespaces=namespaces,
        servers=Answer((*operators.items, *mlflow.items)),
        deployments=_listed(session, "/apis/rollway.dev/v1alpha1", "modeldeployments"),
        targets=_asked_directly(url) if url else _asked_through(session, prometheuses),
    )
    return installation, monitoring


def _listed(
    session: Session, root: str, plural: str, namespace: str | None = None, **selectors: str
) -> Answer:
    try:
        found = session.cluster.listed(root, plural, namespace, **selectors)
    except ForbiddenError as error:
        return Answer(trouble=error.format_message())
    return Answer(known=False) if found is None else Answer(tuple(map(Fields, found)))


def _definitions(session: Session) -> Answer:
    answers = [
        _listed(
            session,
            "/apis/apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            fieldSelector=f"metadata.name={name}",
        )
        for name in diagnosis.DEFINITIONS
    ]
    troubles = [answer.trouble for answer in answers if answer.trouble]
    return Answer(
        tuple(item for answer in answers for item in answer.items), trouble=troubles[0] if troubles else ""
    )


def _leases(session: Session, operators: Answer) -> Answer:
    namespaces = sorted({item.at("metadata").text("namespace") for item in operators.items})
    answers = [_listed(session, "/apis/coordination.k8s.io/v1", "leases", name) for name in namespaces]
    troubles = [answer.trouble for answer in answers if answer.trouble]
    return Answer(
        tuple(item for answer in answers for item in answer.items), trouble=troubles[0] if troubles else ""
    )


def _asked_through(session: Session, prometheuses: Answer) -> Targets:
    """Ask each Prometheus through the API server; those of one namespace share a Service."""
    found, troubles, asked = list[scraping.Target](), list[str](), False
    for namespace, prefix in sorted(set(_places(prometheuses))):
        try:
            answer = session.cluster.through(
                namespace, _GOVERNED, f"{prefix}/api/v1/targets", {"state": "active"}
            )
        except PluginError as error:
            troubles.append(f"{namespace}: {error.format_message()}")
        else:
            found += scraping.targets_of(answer)
            asked = True
    return Targets(tuple(found), tuple(troubles), asked)


def _places(prometheuses: Answer) -> Iterator[tuple[str, str]]:
    for item in prometheuses.items:
        prefix = item.at("spec").text("routePrefix").strip("/")
        yield item.at("metadata").text("namespace"), f"/{prefix}" if prefix else ""


def _asked_directly(url: str) -> Targets:
    import httpx  # noqa: PLC0415 - only where an address is named

    try:
        answer = httpx.get(f"{url.rstrip('/')}/api/v1/targets", params={"state": "active"}, timeout=_SECONDS)
        answer.raise_for_status()
        told: Mapping[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UnreachableError(f"cannot ask {url}: {one_line(error) or type(error).__name__}") from error
    return Targets(scraping.targets_of(told), asked=True)


def _show(findings: list[Finding]) -> None:
    lines = tuple((one.state, one.check, one.subject, one.says) for one in findings)
    drawing.show_rows(Rows(("STATE", "CHECK", "OBJECT", "FOUND"), lines))
    for one in findings:
        if one.fix:
            click.echo(f"{one.check} {one.subject}: {one.fix}".replace(" :", ":"))
