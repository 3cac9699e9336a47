"""The commands that say a verb: promote, abort, retry, undo, pause, resume, restart, ack."""

from collections.abc import Callable
from typing import Any, Final

import click

from kubectl_rollway import completers, objects, output, verbs
from kubectl_rollway.commandline import name_argument, session
from kubectl_rollway.errors import ForbiddenError, RefusedError, TimedOutError, UnreachableError
from kubectl_rollway.session import Session
from kubectl_rollway.verbs import Answer, Wish

_SECONDS_TO_ANSWER: Final = 10.0
_SECONDS_BETWEEN_LOOKS: Final = 0.5

Command = Callable[..., Any]

_no_wait = click.option(
    "--no-wait", is_flag=True, help="Write the annotation and do not wait for the answer."
)


def _verb(name: str, help_: str) -> click.Command:
    """Make the command of a verb that needs no option of its own."""

    @click.command(name, help=help_)
    @name_argument
    @_no_wait
    @session
    def command(session: Session, /, *, name: str, no_wait: bool, verb: str = name) -> None:
        _say(session, name, verb, no_wait=no_wait)

    return command


abort_command = _verb("abort", "Drop what is on its way. It is not tried again by itself.")
pause_command = _verb("pause", "Hold until resume. Nothing starts or takes over in between.")
resume_command = _verb("resume", "Go on after pause.")
restart_command = _verb("restart", "Give what serves new pods. They come through the strategy.")
ack_command = _verb("ack", "Take note of a failure. It is no longer shown as Stalled then.")


@click.command("promote")
@name_argument
@click.option("--full", is_flag=True, help="To the end, without the steps that are left.")
@_no_wait
@session
def promote_command(session: Session, name: str, *, full: bool, no_wait: bool) -> None:
    """Let what is held go on.

    Leave the present step, or start what awaits a person.
    """
    _say(session, name, "promote-full" if full else "promote", no_wait=no_wait)


@click.command("retry")
@name_argument
@click.option("--revision", metavar="REVISION", help="Which closed one.", shell_complete=completers.revisions)
@_no_wait
@session
def retry_command(session: Session, name: str, revision: str | None, *, no_wait: bool) -> None:
    """Try a closed revision again."""
    _say(session, name, "retry", revision, no_wait=no_wait)


@click.command("undo")
@name_argument
@click.option(
    "--to",
    "revision",
    metavar="REVISION",
    help="Where to; the revision that served before where it is absent.",
    shell_complete=completers.revisions,
)
@_no_wait
@session
def undo_command(session: Session, name: str, revision: str | None, *, no_wait: bool) -> None:
    """Go back to what served before."""
    _say(session, name, "undo", revision, no_wait=no_wait)


# ----------------------------------------------------------------------------------------------- say, and be answered


def _say(session: Session, name: str, verb: str, chosen: str | None = None, *, no_wait: bool) -> None:
    cluster, namespace = session.cluster, session.namespace
    seen = objects.deployment(cluster.deployment(namespace, name))
    kept = objects.stored(cluster.revisions(namespace, name)) if verb == "undo" and not chosen else ()
    wish = Wish(verb, verbs.named(verb, seen, kept, chosen), verbs.nonce())
    cluster.annotate(namespace, name, {wish.annotation: wish.value})
    output.remark(f"{name}: {wish.annotation}={wish.value}")
    if no_wait:
        return
    answer = _answer(session, name, wish)
    if not answer.acted:
        raise RefusedError(f"the operator did nothing: {answer.message}")
    click.echo(answer.message)


def _answer(session: Session, name: str, wish: Wish) -> Answer:
    """Wait until the operator has heard it, and then for the Event that says what it did."""
    cluster, namespace = session.cluster, session.namespace
    heard, trouble = False, ""
    for _ in session.looks(_SECONDS_TO_ANSWER, _SECONDS_BETWEEN_LOOKS):
        try:
            if not heard:
                status = objects.deployment(cluster.deployment(namespace, name))
                heard = status.handled.get(wish.verb) == wish.value
            if heard and (answer := verbs.answer(wish, cluster.events(namespace, name))):
                return answer
        except ForbiddenError:
            raise
        except UnreachableError as error:
            trouble = error.format_message()
    limit = f"within {_SECONDS_TO_ANSWER:g} s"
    if heard:
        raise TimedOutError(f"the operator heard it; the Event that says what it did did not come {limit}")
    because = f" ({trouble})" if trouble else ""
    raise TimedOutError(
        f"the operator did not answer {limit}{because}; the annotation stays, and acts once it does"
    )
