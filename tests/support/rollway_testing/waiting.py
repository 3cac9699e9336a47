"""The one place where tests wait: for a condition, with a deadline, saying what was seen last."""

import time
from collections.abc import Callable
from typing import TypeVar

_SECONDS_BETWEEN_LOOKS = 0.25

T = TypeVar("T")


class NotInTimeError(AssertionError):
    """A condition did not hold in time."""


def eventually(
    look: Callable[[], T],
    holds: Callable[[T], bool] = bool,
    *,
    within: float,
    what: str,
    told: Callable[[T], object] = repr,
) -> T:
    """Look until a condition holds and return what was seen; `what` names it where it does not in time."""
    started = time.monotonic()
    while True:
        seen = look()
        if holds(seen):
            return seen
        if time.monotonic() - started > within:
            raise NotInTimeError(f"not within {within:g} s: {what}; last seen: {told(seen)}")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def throughout(look: Callable[[], T], holds: Callable[[T], bool], *, seconds: float, what: str) -> None:
    """Look for some seconds, and fail as soon as a condition does not hold."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        seen = look()
        if not holds(seen):
            raise AssertionError(
                f"after {time.monotonic() - started:.1f} s no longer: {what}; seen: {seen!r}"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
