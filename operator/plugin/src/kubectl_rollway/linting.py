"""The command that checks manifests before they are applied."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubectl_rollway import output
from kubectl_rollway.commandline import session
from kubectl_rollway.errors import RefusedError
from kubectl_rollway.session import Session

if TYPE_CHECKING:
    from kubectl_rollway.lint import Checked, Problem


@click.command("lint")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
)
@click.option(
    "--server",
    is_flag=True,
    help="Have an API server check them too, without storing anything: it knows every rule.",
)
@session
def lint_command(session: Session, files: tuple[str, ...], *, server: bool) -> None:
    """Check manifests before they are applied.

    Files of ModelDeployments and ModelRegistries; `-` is standard input.
    """
    from kubectl_rollway.lint import check  # noqa: PLC0415 - other commands start without a validator

    found = checked = left = 0
    for file in files:
        for one in check(_text(file)):
            if not one.ours:
                output.remark(f"{file}: {one.title} is not of a kind of Rollway's: not checked")
                continue
            checked += 1
            left += one.left
            problems = one.problems
            if server and not problems:
                # An API server gives them in any order.
                problems = tuple(sorted(_asked(session, one)))
            found += len(problems)
            for problem in problems:
                click.echo(f"{file}:{problem}")
    if left and not server:
        output.remark("rules that relate fields to each other need an API server: --server")
    objects = f"{checked} object{'' if checked == 1 else 's'}"
    if found:
        raise RefusedError(f"{found} problem{'' if found == 1 else 's'} in {objects}")
    click.echo(f"{objects}: no problem found")


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file} is no text in UTF-8") from error


def _asked(session: Session, one: "Checked") -> Iterator["Problem"]:
    from kubectl_rollway.lint import Problem, path, where  # noqa: PLC0415 - other commands start without a validator

    if one.document is None:
        return
    for complaint in session.cluster.complaints(one.document.value):
        at = path(complaint.field)
        yield Problem(one.document.line(at), where(at), complaint.message)
