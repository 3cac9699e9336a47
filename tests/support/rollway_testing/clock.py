"""Run a test on an event loop whose clock jumps to the next timer instead of waiting for it.

For tests that do all their input and output in the process: an hour of polls takes milliseconds, and every time-out
and back-off is the real one.
"""

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable
from typing import ParamSpec

P = ParamSpec("P")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits; counts the time that it should have waited."""

    jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now."""
        if timeout is None:
            ready = super().select(5)
            if not ready:
                raise RuntimeError("the test waits for something that never happens")
            return ready
        self.jumped += max(0.0, timeout)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that skips every wait."""

    def __init__(self) -> None:
        """Start at the real time."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the real time and all that was skipped."""
        return super().time() + self._jumping.jumped


def without_waiting(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Make a plain test of an asynchronous one, run on a JumpingLoop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def story() -> None:
            await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(story())

    return run
