"""Ports are given to one process of tests each, though nothing listens on them yet."""

import json
import os
import subprocess
import sys

from rollway_testing.processes import free_port

PROGRAM = (
    "import json, rollway_testing.processes as p; print(json.dumps([p.free_port() for _ in range(500)]))"
)


def test_two_processes_are_never_given_the_same_port() -> None:
    ours = [free_port() for _ in range(500)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, check=True
    )
    theirs = json.loads(said.stdout)
    assert len({*ours, *theirs}) == 1000
