"""Where tables and trees are drawn: whole lines for programs, in place on a terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.text import Text

from kubectl_rollway.tables import Rows, table

_WIDEST: Final = 10_000
_WIDTH_OF_A_FILE: Final = 120


def console(width: int | None = None) -> Console:
    """Give what writes on standard output."""
    if width is None and not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        width = _WIDTH_OF_A_FILE
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def show_rows(rows: Rows) -> None:
    """Print a table, as wide as it must be: a terminal may wrap it, a program gets whole lines."""
    laid, widest = table(rows), console(_WIDEST)
    width = Measurement.get(widest, widest.options, laid).maximum
    console(max(1, width)).print(laid, crop=False)


def show(renderable: RenderableType) -> None:
    """Print what is drawn."""
    console().print(renderable)


def trouble(text: str) -> Text:
    """Give a line that says what is wrong just now."""
    return Text(text, "red")


class Screen:
    """What is drawn again and again: in place on a terminal; elsewhere one below the other, whenever it is another."""

    def __init__(self, output: Console, live: Live | None) -> None:
        self._output = output
        self._live = live
        self._last: object = None

    def draw(self, renderable: RenderableType, about: object) -> None:
        """Draw something about a value."""
        if self._live:
            self._live.update(renderable, refresh=True)
        elif about != self._last:
            self._last = about
            self._output.print(renderable)


@contextmanager
def screen() -> Iterator[Screen]:
    """Give a screen until the context ends."""
    output = console()
    if not output.is_terminal:
        yield Screen(output, None)
        return
    with Live(console=output, auto_refresh=False, vertical_overflow="ellipsis") as live:
        yield Screen(output, live)
