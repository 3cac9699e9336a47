"""The kubectl plugin as a process."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 90.0


@dataclass(frozen=True)
class Plugin:
    """`kubectl rollway` for one kubeconfig, whose context names the namespace."""

    kubeconfig: Path

    def run(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [*_COMMAND, *words],
            env=self.environment(),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start one command; whoever asked for it reads what it says."""
        return subprocess.Popen(
            [*_COMMAND, *words],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def environment(self) -> dict[str, str]:
        """Give what a shell of its user would have."""
        return os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "160",
        }


_COMMAND = (sys.executable, "-m", "kubectl_rollway")
