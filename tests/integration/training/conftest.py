"""The training's command lines as a user runs them: processes of their own, against a real MLflow and S3."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rollway_testing.processes import MLflowServer

_ROOT = Path(__file__).parents[3]
_SECONDS = 120


@dataclass(frozen=True)
class Ended:
    """A command's exit code, its JSON lines and what it told people."""

    code: int
    lines: list[dict[str, Any]]
    told: str

    def line(self, event: str) -> dict[str, Any]:
        """Return the one line of this event."""
        [found] = [line for line in self.lines if line["event"] == event]
        return found


class Program:
    """Runs ``python -m`` with the settings of the real servers."""

    def __init__(self, settings: dict[str, str], folder: Path) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_"))}
        self._folder = folder
        self.environment = kept | settings | {"PYTHONPATH": str(_ROOT / "model/training/src")}

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", module, *arguments]

    def run(self, module: str, *arguments: str) -> Ended:
        """Run to the end; every line on standard output must be JSON."""
        done = subprocess.run(
            self.command(module, *arguments),
            env=self.environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return Ended(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)

    def train(self, *arguments: str) -> Ended:
        """Run a training command that must succeed."""
        ended = self.run("rollway_training", *arguments)
        assert ended.code == 0, ended.told
        return ended


@pytest.fixture(scope="session")
def program(mlflow_server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(mlflow_server.client_environment, tmp_path_factory.mktemp("training"))
