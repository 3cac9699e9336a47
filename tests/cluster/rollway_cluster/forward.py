"""A forwarded port that lasts: kubectl ends its own when a pod resets a single connection."""

import re
import subprocess
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from rollway_cluster.errors import ClusterError

_LISTENS: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_SECONDS_UNTIL_AGAIN: Final = 0.2


class PortForward:
    """``kubectl port-forward``, started again on the same local port whenever it ends, until the context does."""

    local: int
    """The port of this machine's loopback."""

    def __init__(self, command: list[str], port: int, environment: Mapping[str, str]) -> None:
        """Take the command without its ports; start nothing yet."""
        self._command, self._port, self._environment = command, port, environment
        self._ended = threading.Event()
        self._change = threading.Lock()

    def __enter__(self) -> Self:
        """Start it; a ClusterError carries what kubectl says where it cannot."""
        self._process = self._start("")
        self.local = self._listening()
        self._keeper = threading.Thread(target=self._keep, name=f"forward {self.local}", daemon=True)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, and wait until it has ended."""
        with self._change:
            self._ended.set()
            self._process.kill()
        self._keeper.join()

    def _start(self, local: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, f"{local}:{self._port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        )

    def _listening(self) -> int:
        said = []
        # kubectl either says where it listens or ends: it has a time-out of its own for the connection.
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said.append(line.strip())
            if match := _LISTENS.search(line):
                return int(match.group(1))
        self._process.communicate()
        raise ClusterError(f"no port forwarded by {' '.join(self._command[1:])}: {' '.join(said)}")

    def _keep(self) -> None:
        while True:
            # It says a line for each connection: unread, they would fill the pipe and hold it up.
            with self._process:
                assert self._process.stdout is not None
                for _ in self._process.stdout:
                    pass
            self._ended.wait(_SECONDS_UNTIL_AGAIN)
            with self._change:
                if self._ended.is_set():
                    return
                self._process = self._start(str(self.local))
