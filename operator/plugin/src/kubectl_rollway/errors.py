"""What can go wrong, each with the exit code that scripts see; a wrong command line is click's own, 2.

PluginError
├── RefusedError        1   the operator or the API server refused, or a rollout failed
├── NotFoundError       3   there is no such ModelDeployment
├── TimedOutError       4   what was waited for did not come in time
└── UnreachableError    5   the cluster does not answer
    └── ForbiddenError      or does not permit what was asked
"""

import re
from typing import Final

import click

_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: object) -> str:
    """Put anybody's text on one line, without what a terminal would obey."""
    return _UNPRINTABLE.sub(" ", str(text)).strip()


class PluginError(click.ClickException):
    """Root of what ends a command; its text is all that is shown."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class RefusedError(PluginError):
    """The operator or the API server refused, or what was waited for failed."""

    exit_code = 1


class NotFoundError(PluginError):
    """What was named is not there."""

    exit_code = 3


class TimedOutError(PluginError):
    """What was waited for did not come in time."""

    exit_code = 4


class UnreachableError(PluginError):
    """The cluster cannot be reached."""

    exit_code = 5


class ForbiddenError(UnreachableError):
    """The cluster does not permit what was asked."""
