"""The commands that only look: get, status, history, resolve."""

from collections.abc import Callable
from typing import Any, Final

import click

from kubectl_rollway import completers, drawing, objects, output, resolution, tables
from kubectl_rollway.cluster import Object
from kubectl_rollway.commandline import name_argument, session
from kubectl_rollway.errors import ForbiddenError, NotFoundError, UnreachableError
from kubectl_rollway.session import Session
from kubectl_rollway.tree import Scene, tree

_EVER: Final = float("inf")
_SECONDS_BETWEEN_LOOKS: Final = 1.0

Command = Callable[..., Any]


def _form(*more: str) -> Callable[[Command], Command]:
    return click.option(
        "-o", "--output", "form", type=click.Choice(["json", "yaml", *more]), help="Form of the output."
    )


@click.command("get")
@click.argument("names", nargs=-1, shell_complete=completers.names)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In every namespace.")
@_form("wide")
@session
def get_command(session: Session, names: tuple[str, ...], *, everywhere: bool, form: str | None) -> None:
    """List ModelDeployments.

    All of the namespace, or those that are named.
    """
    if everywhere and names:
        raise click.UsageError("names are of one namespace: leave out --all-namespaces")
    if names:
        found = [session.cluster.deployment(session.namespace, name) for name in names]
    else:
        found = session.cluster.deployments(None if everywhere else session.namespace)
    if form in ("json", "yaml"):
        listed = {"apiVersion": "v1", "kind": "List", "items": found}
        output.show_data(found[0] if len(names) == 1 else listed, form)
    elif found:
        seen = map(objects.deployment, found)
        drawing.show_rows(tables.deployments(seen, session.now, wide=form == "wide", everywhere=everywhere))
    else:
        where = "" if everywhere else f" in namespace {session.namespace}"
        output.remark(f"there are no ModelDeployments{where}")


@click.command("status")
@name_argument
@click.option("-w", "--watch", is_flag=True, help="Go on showing it until Ctrl-C.")
@_form()
@session
def status_command(session: Session, name: str, *, watch: bool, form: str | None) -> None:
    """Show one as a tree.

    Who serves, who is on its way, how far, and why.
    """
    if watch and form:
        raise click.UsageError("--watch draws a tree: leave out --output")
    if watch:
        _watch(session, name)
    elif form:
        body = session.cluster.deployment(session.namespace, name)
        output.show_data(_recorded(session, body), form)
    else:
        drawing.show(tree(_scene(session, name), session.now))


@click.command("history")
@name_argument
@_form()
@session
def history_command(session: Session, name: str, form: str | None) -> None:
    """Show how the last rollouts ended.

    The newest first.
    """
    seen = objects.deployment(session.cluster.deployment(session.namespace, name))
    kept = objects.stored(session.cluster.revisions(session.namespace, name))
    if form:
        output.show_data(tables.recorded(seen, kept), form)
    elif seen.history:
        drawing.show_rows(tables.history(seen, kept, session.now))
    else:
        output.remark(f"no rollout of {name} has ended yet")


@click.command("resolve")
@name_argument
@_form()
@session
def resolve_command(session: Session, name: str, form: str | None) -> None:
    """Show what would be deployed now.

    And where that is known from; the registry is not asked again.
    """
    seen = objects.deployment(session.cluster.deployment(session.namespace, name))
    if form:
        output.show_data(resolution.recorded(seen), form)
    else:
        click.echo("\n".join(resolution.lines(seen)))


# ---------------------------------------------------------------------------------------------------------- status


def _scene(session: Session, name: str) -> Scene:
    cluster, namespace = session.cluster, session.namespace
    seen = objects.deployment(cluster.deployment(namespace, name))
    kept = _if_permitted(lambda: cluster.revisions(namespace, name)) or []
    pods = _if_permitted(lambda: cluster.pods(namespace, name))
    return Scene(seen, objects.stored(kept), None if pods is None else objects.pods(pods))


def _recorded(session: Session, body: Object) -> dict[str, Any]:
    """Give the status in the API's words, with the pods beside it."""
    metadata = body["metadata"]
    pods = _if_permitted(lambda: session.cluster.pods(session.namespace, str(metadata["name"])))
    told = [
        {
            "name": pod.name,
            "revision": pod.revision,
            "state": pod.state,
            "ready": pod.ready,
            "restarts": pod.restarts,
        }
        for pod in objects.pods(pods or ())
    ]
    return {
        "metadata": {key: metadata.get(key) for key in ("namespace", "name", "generation")},
        "status": body.get("status") or {},
        "pods": None if pods is None else told,
    }


def _if_permitted(look: Callable[[], list[Object]]) -> list[Object] | None:
    try:
        return look()
    except ForbiddenError:
        return None


def _watch(session: Session, name: str) -> None:
    """Draw it every second; an API server that is away for a while is said so, and waited for."""
    scene = _scene(session, name)
    try:
        with drawing.screen() as screen:
            for _ in session.looks(_EVER, _SECONDS_BETWEEN_LOOKS):
                trouble = ""
                try:
                    scene = _scene(session, name)
                except NotFoundError:
                    raise
                except UnreachableError as error:
                    trouble = error.format_message()
                drawn = tree(scene, session.now)
                if trouble:
                    drawn.add(drawing.trouble(trouble))
                screen.draw(drawn, (scene, trouble))
    except KeyboardInterrupt:
        return
