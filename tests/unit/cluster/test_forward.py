"""A forwarded port outlives the kubectl that forwards it."""

import os
import signal
import stat
from pathlib import Path

import pytest

from rollway_cluster.errors import ClusterError
from rollway_cluster.forward import PortForward
from rollway_testing.waiting import eventually

LISTENS = """#!/bin/sh
echo "$$ $*" >> "$0.starts"
echo "Forwarding from 127.0.0.1:4711 -> 80"
exec sleep 60
"""
REFUSES = """#!/bin/sh
echo "error: services \\"mlflow\\" not found"
exit 1
"""


def kubectl(folder: Path, text: str) -> Path:
    program = folder / "kubectl"
    program.write_text(text)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def starts(program: Path) -> list[tuple[int, str]]:
    lines = Path(f"{program}.starts").read_text().splitlines()
    return [(int(line.split()[0]), line.split()[-1]) for line in lines]


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_ends_is_started_again_on_the_same_port(tmp_path: Path) -> None:
    program = kubectl(tmp_path, LISTENS)
    with PortForward([str(program), "service/mlflow"], 80, os.environ) as forward:
        assert forward.local == 4711
        ((first, ports),) = starts(program)
        assert ports == ":80"
        os.kill(first, signal.SIGKILL)
        found = eventually(
            lambda: starts(program), lambda seen: len(seen) == 2, within=10, what="a second start"
        )
        second, ports = found[-1]
        assert ports == "4711:80"
        assert runs(second)
    assert not runs(second)
    assert len(starts(program)) == 2


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    program = kubectl(tmp_path, REFUSES)
    with pytest.raises(ClusterError, match='service/mlflow: error: services "mlflow" not found'):
        PortForward([str(program), "service/mlflow"], 80, os.environ).__enter__()
