"""The command that waits for a rollout's end."""

from datetime import timedelta
from typing import Any, Final

import click

from kubectl_rollway import objects, output
from kubectl_rollway.commandline import name_argument, session
from kubectl_rollway.errors import ForbiddenError, RefusedError, TimedOutError, UnreachableError
from kubectl_rollway.session import Session
from kubectl_rollway.times import seconds, span
from kubectl_rollway.verdicts import VERDICTS, Verdict

_SECONDS_BETWEEN_LOOKS: Final = 1.0


class _Duration(click.ParamType[float]):
    """A duration such as 90s, 10m or 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it as seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        read = seconds(str(value))
        if read is None:
            self.fail(f"{value!r} is no duration such as 90s, 10m or 1h30m", param, ctx)
        return read


@click.command("wait")
@name_argument
@click.option(
    "--for",
    "what",
    type=click.Choice(list(VERDICTS)),
    default="promoted",
    show_default=True,
    help="promoted: the version serves. settled: nothing goes on by itself any more.",
)
@click.option("--timeout", type=_Duration(), default="10m", show_default=True, help="How long at most.")
@click.option(
    "--version",
    metavar="V",
    help="The model version that is meant; what the registry names where it is absent.",
)
@session
def wait_command(session: Session, name: str, what: str, timeout: float, version: str | None) -> None:
    """Wait for the end of a rollout.

    Until a version serves, or until nothing is under way any more.
    """
    verdict = Verdict(None, "nothing is known yet")
    trouble: UnreachableError | None = None
    looked = False
    for _ in session.looks(timeout, _SECONDS_BETWEEN_LOOKS):
        try:
            seen = objects.deployment(session.cluster.deployment(session.namespace, name))
        except UnreachableError as error:
            if not looked or isinstance(error, ForbiddenError):
                raise
            trouble = error
            continue
        said, trouble = verdict.why if looked else "", None
        looked, verdict = True, VERDICTS[what](seen, version)
        if verdict.holds:
            click.echo(verdict.why)
            return
        if verdict.holds is False:
            raise RefusedError(verdict.why)
        if verdict.why != said:
            output.remark(verdict.why)
    if trouble:
        raise trouble
    raise TimedOutError(f"not {what} within {_span(timeout)}: {verdict.why}")


def _span(duration: float) -> str:
    return span(timedelta(seconds=duration))
