"""The program `kubectl_complete-rollway`: kubectl calls it with the words that were typed, the last unfinished.

It prints what may stand there, one a line with a tab before its description, and last a number that tells the shell
what else to do (`ShellCompDirective` of kubectl's command line library).
"""

import sys
from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete

from kubectl_rollway.commandline import plugin
from kubectl_rollway.completers import Typed, connect
from kubectl_rollway.session import Surroundings

_NO_FILES: Final = 4
_FILES_ENDING_IN: Final = 8
_FILES: Final = 0


def completions(words: Sequence[str], surroundings: Surroundings | None = None) -> list[str]:
    """Give the lines to print."""
    *before, unfinished = words or [""]
    given = {"obj": Typed(before, surroundings or Surroundings(connect))}
    try:
        items = ShellComplete(plugin, given, "kubectl rollway", "").get_completions(list(before), unfinished)
    except click.ClickException:
        items = []
    if any(item.type in ("file", "dir") for item in items):
        if "lint" in before:
            return ["yaml", "yml", f":{_FILES_ENDING_IN}"]
        return [f":{_FILES}"]
    return [*map(_line, items), f":{_NO_FILES}"]


def _line(item: CompletionItem) -> str:
    return f"{item.value}\t{item.help}" if item.help else str(item.value)


def main() -> None:
    """Complete the process's own arguments."""
    for line in completions(sys.argv[1:]):
        click.echo(line)


if __name__ == "__main__":
    main()
