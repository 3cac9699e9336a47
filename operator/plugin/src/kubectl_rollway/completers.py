"""What may stand in place of a word that is being typed; whatever fails, nothing is offered and nothing said."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import click
from click.shell_completion import CompletionItem

from kubectl_rollway import objects
from kubectl_rollway.cluster import Cluster, Place
from kubectl_rollway.errors import PluginError
from kubectl_rollway.session import Surroundings

Items = list[CompletionItem]

_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Typed:
    """What has been typed before the unfinished word, and where to look for what may follow."""

    words: Sequence[str]
    surroundings: Surroundings


def names(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Offer the ModelDeployments of the namespace."""

    def look(cluster: Cluster, namespace: str) -> Iterable[CompletionItem]:
        for seen in map(objects.deployment, cluster.deployments(namespace)):
            version = f" v{seen.stable.version}" if seen.stable else ""
            yield CompletionItem(seen.name, help=f"{seen.model}{version} {seen.phase}".strip())

    return _asked(ctx, incomplete, look)


def revisions(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Offer the revisions that are kept of the ModelDeployment that is named before."""
    name = _name(ctx)

    def look(cluster: Cluster, namespace: str) -> Iterable[CompletionItem]:
        for one in reversed(objects.stored(cluster.revisions(namespace, name))):
            yield CompletionItem(one.name, help=f"v{one.version} {one.outcome}".strip())

    return _asked(ctx, incomplete, look) if name else []


def namespaces(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Offer the namespaces of the cluster."""

    def look(cluster: Cluster, _: str) -> Iterable[CompletionItem]:
        return map(CompletionItem, cluster.namespaces())

    return _asked(ctx, incomplete, look)


def contexts(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Offer the contexts of the kubeconfig."""
    from kubectl_rollway.kubeconfig import Kubeconfig  # noqa: PLC0415 - few words need it

    try:
        found = Kubeconfig.load(_place(ctx).kubeconfig, os.environ)
    except PluginError:
        return []
    return [CompletionItem(name) for name in sorted(found.contexts) if name.startswith(incomplete)]


def _asked(
    ctx: click.Context, incomplete: str, look: Callable[[Cluster, str], Iterable[CompletionItem]]
) -> Items:
    try:
        place = _place(ctx)
        cluster = _surroundings(ctx).connect(place)
        items = list(look(cluster, place.namespace or cluster.namespace))
    except PluginError:
        return []
    return [item for item in items if str(item.value).startswith(incomplete)]


def _surroundings(ctx: click.Context) -> Surroundings:
    given = ctx.find_root().obj
    return given.surroundings if isinstance(given, Typed) else Surroundings(connect)


def _name(ctx: click.Context) -> str:
    """Read the argument NAME: click reads no arguments where an option's value is still to come."""
    given = ctx.find_root().obj
    words = list(given.words) if isinstance(given, Typed) else []
    if ctx.info_name in words:
        before = words[words.index(ctx.info_name) + 1 : -1]
        ctx = ctx.command.make_context(ctx.info_name, before, ctx.parent, resilient_parsing=True)
    return str(ctx.params.get("name") or "")


def connect(place: Place) -> Cluster:
    """Find the cluster, which must answer before a person has lost patience."""
    from kubectl_rollway import apiserver  # noqa: PLC0415 - few words need it

    return apiserver.connect(place, timeout=_SECONDS)


def _place(ctx: click.Context) -> Place:
    """Read where from what has been typed: the command's options, then those before its name."""
    place = Place()
    at: click.Context | None = ctx
    while at:
        given = at.params
        place = place.under(Place(given.get("kubeconfig"), given.get("context"), given.get("namespace")))
        at = at.parent
    return place
