"""What the person at the terminal reads: progress as it happens, and a table of steps at the end."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

_COLOURS = {"bold": "1", "dim": "2", "green": "32", "red": "31"}


@dataclass
class Step:
    """One step: how long it took and what came of it."""

    title: str
    result: str = ""
    seconds: float = 0.0
    failed: bool = False


@dataclass
class Report:
    """Collects steps, and prints every line with the time since the start."""

    colour: bool = field(default=False)
    out: TextIO = field(default_factory=lambda: sys.stdout)
    steps: list[Step] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    @classmethod
    def for_terminal(cls, environment: Mapping[str, str]) -> "Report":
        """A report on standard output, coloured only if that is a terminal."""
        return cls(colour=sys.stdout.isatty() and "NO_COLOR" not in environment)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print one line of progress, or several."""
        for line in text.splitlines():
            self._print(f"{self.paint(f'{self.elapsed:6.1f} s', 'dim')}    {line}")

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Announce a step, time it and keep it for the table, whether it succeeds or not."""
        step = Step(title)
        self.steps.append(step)
        self._print(f"{self.paint(f'{self.elapsed:6.1f} s', 'dim')}  {self.paint(title, 'bold')}")
        started = time.monotonic()
        try:
            yield step
        except BaseException:
            step.failed, step.result = True, step.result or "FAILED"
            raise
        finally:
            step.seconds = time.monotonic() - started
        if step.result:
            self.say(step.result)

    def finish(self) -> None:
        """Print the table."""
        rows = [(step.title, f"{step.seconds:.1f}", step.result) for step in self.steps]
        total = ("total", f"{self.elapsed:.1f}", "")
        lines = table(("step", "seconds", "result"), [*rows, total], right=(1,))
        self._print("")
        self._print(self.paint(lines[0], "bold"))
        for line, step in zip(lines[1:], [None, *self.steps, None], strict=True):
            self._print(self.paint(line, "red") if step and step.failed else line)
        self._print("")

    def show(self, lines: Sequence[str]) -> None:
        """Print lines as they are, indented."""
        for line in lines:
            self._print(f"            {line}")

    def paint(self, text: str, colour: str) -> str:
        """Colour a text where colours are wanted."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.colour else text

    def _print(self, line: str) -> None:
        print(line, file=self.out, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """A table: its head, a rule and the rows, columns as wide as they need; ``right`` lists numbers' columns."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return [line(head), "  ".join("-" * width for width in widths), *map(line, rows)]
