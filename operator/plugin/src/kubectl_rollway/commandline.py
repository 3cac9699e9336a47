"""The command `kubectl rollway` and what its subcommands share; each is imported only when it is called."""

import functools
import importlib
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import click

from kubectl_rollway import __version__, completers
from kubectl_rollway.cluster import Place
from kubectl_rollway.session import Session, Surroundings

P = ParamSpec("P")
T = TypeVar("T")

INTERRUPTED: Final = 130

_COMMANDS: Final = {
    "get": "reading",
    "status": "reading",
    "history": "reading",
    "resolve": "reading",
    "promote": "steering",
    "abort": "steering",
    "retry": "steering",
    "undo": "steering",
    "pause": "steering",
    "resume": "steering",
    "restart": "steering",
    "ack": "steering",
    "wait": "waiting",
    "lint": "linting",
    "doctor": "doctoring",
}
"""Every command, and the module that has it under its name."""


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Name the commands, in the order in which people need them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import one."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"kubectl_rollway.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run one; who interrupts it wants no more words."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def placed(command: Callable[P, T]) -> Callable[P, T]:
    """Add the options that say which cluster and namespace."""
    for option in (
        click.option(
            "-n",
            "--namespace",
            metavar="NAME",
            help="Namespace; the context's where it is absent.",
            shell_complete=completers.namespaces,
        ),
        click.option(
            "--context",
            metavar="NAME",
            help="Context of the kubeconfig; its current one where it is absent.",
            shell_complete=completers.contexts,
        ),
        click.option(
            "--kubeconfig",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Kubeconfig instead of KUBECONFIG and ~/.kube/config.",
        ),
    ):
        command = option(command)
    return command


def session(
    command: Callable[Concatenate[Session, P], T],
) -> Callable[..., T]:
    """Hand a command its session, made of its own options and those before its name."""

    @placed
    @click.pass_context
    @functools.wraps(command)
    def run(
        ctx: click.Context,
        /,
        *args: Any,
        namespace: str | None,
        context: str | None,
        kubeconfig: str | None,
        **kwargs: Any,
    ) -> T:
        outer: Session = ctx.obj
        place = Place(kubeconfig, context, namespace).under(outer.place)
        return command(Session(outer.surroundings, place), *args, **kwargs)

    return run


name_argument = click.argument("name", shell_complete=completers.names)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, or it holds; 1 refused, or the rollout failed; 2 wrong usage; 3 not found; "
    "4 not in time; 5 the cluster cannot be reached, or forbids it.",
)
@placed
@click.version_option(__version__, prog_name="kubectl-rollway")
@click.pass_context
def plugin(ctx: click.Context, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
    """See and steer Rollway's ModelDeployments."""
    surroundings = ctx.obj if isinstance(ctx.obj, Surroundings) else Surroundings()
    ctx.obj = Session(surroundings, Place(kubeconfig, context, namespace))
