"""What a client is told to ask, and the record of what came of each call: one line of JSON on standard output."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Server:
    """Where the server is, and what its model is called."""

    http: str
    grpc: str
    model: str
    rows: list[list[float]]

    @classmethod
    def told(cls) -> "Server":
        """Read it from standard input."""
        return cls(**json.load(sys.stdin))

    @property
    def port(self) -> int:
        return int(self.http.rpartition(":")[2])


def attempt(client: str, call: str, function: Callable[[], Any]) -> None:
    """Make a call, and say what it gave or how it was refused."""
    try:
        answer = function()
    except Exception as error:  # noqa: BLE001 - each client has its own kinds
        status = getattr(error, "code", None) or getattr(error, "status", None)
        status = status() if callable(status) else status
        seen: dict[str, Any] = {"refused": f"{type(error).__name__} {status or ''}: {error}"[:300]}
    else:
        seen = {"answer": answer}
    print(json.dumps({"client": client, "call": call} | seen), flush=True)


def end() -> None:
    """End at once: some clients leave threads behind."""
    sys.stdout.flush()
    os._exit(0)
