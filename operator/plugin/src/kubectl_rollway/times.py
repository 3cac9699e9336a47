"""Times and durations as kubectl writes them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_YEAR: Final = 365 * _DAY


def moment(text: object) -> datetime | None:
    """Read a time of the Kubernetes API; None where it is none."""
    try:
        read = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def span(duration: timedelta) -> str:
    """Write a duration short, coarser the longer it is: 45s, 3m20s, 25m, 5h10m, 3d."""
    seconds = max(0, int(duration.total_seconds()))
    for below, unit, finer in _SCALE:
        if seconds < below:
            whole, rest = divmod(seconds, _SECONDS[unit])
            part = rest // _SECONDS[finer] if finer else 0
            return f"{whole}{unit}" + (f"{part}{finer}" if part else "")
    return f"{seconds // _YEAR}y"


_SECONDS: Final = {"s": 1, "m": _MINUTE, "h": _HOUR, "d": _DAY}
_SCALE: Final = (
    (2 * _MINUTE, "s", ""),
    (10 * _MINUTE, "m", "s"),
    (3 * _HOUR, "m", ""),
    (8 * _HOUR, "h", "m"),
    (2 * _DAY, "h", ""),
    (8 * _DAY, "d", "h"),
    (2 * _YEAR, "d", ""),
)


def since(then: datetime | None, now: datetime) -> str:
    """Write how long ago something was; empty where that is not known."""
    return span(now - then) if then else ""


def seconds(text: str) -> float | None:
    """Read a duration such as 90s, 10m or 1h30m; a bare number is seconds; None where it is none."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
