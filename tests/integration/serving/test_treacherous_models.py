"""The models that tests serve to be rolled back need nothing that an inference server does not have."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rollway_testing import models
from rollway_testing.models import Artifact

from .conftest import SOURCES
from .runtimes import Runtime

MAKERS: dict[str, Callable[[Path], Artifact]] = {
    "slow": lambda folder: models.slow(folder, 1, 0.01),
    "erroring": lambda folder: models.erroring(folder, 1, 0.5),
    "crashing": lambda folder: models.crashing(folder, 1, 1),
    "answering-nan": lambda folder: models.answering_nan_under_traffic(folder, 1),
    "eating-memory": lambda folder: models.eating_memory(folder, 1, 1),
    "hanging": lambda folder: models.hanging(folder, 1),
    "needing-another-column": lambda folder: models.needing_another_column(folder, 1),
    "losing-an-output": lambda folder: models.losing_an_output(folder, 1),
}
PROGRAM = """
import json, sys
from pathlib import Path
from rollway_serving.gates import read_example
from rollway_serving.model import Model

for folder in map(Path, sys.argv[1:]):
    model = Model.load(folder)
    rows = read_example(model, folder, model.mlmodel.input_example)
    print(json.dumps([folder.name, list(model.predict(rows))]))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [make(root / name).folder for name, make in MAKERS.items()]


def test_each_loads_in_the_servers_environment_and_answers_its_example(
    folders: list[Path], runtime: Runtime
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [runtime.python, "-c", PROGRAM, *folders],
        env=environment | {"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answered = dict(map(json.loads, done.stdout.splitlines()))
    assert list(answered) == list(MAKERS)
    assert all(models.STEP < answer < 2 * models.STEP for each in answered.values() for answer in each)
