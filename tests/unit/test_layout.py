"""What the repository's files must be, whatever is in them."""

import operator
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_PACKAGES = (
    "",
    "operator",
    "operator/src",
    "operator/plugin",
    "operator/plugin/src",
    "tests",
    "model",
    "model/serving",
    "model/training",
)
VAGUE_NAMES = {"utils.py", "common.py", "helpers.py"}
# Folders of one machine, and hosts that only one network can reach.
LOCAL = re.compile(
    r"(?<![\w.$}/])/(?:work|home|Users)/(?!nonroot)\w|/root/\.|[\w-]+\.(?:internal|intranet|corp|lan)(?::\d+)?/|"
    r"artifactory|nexus\.|--(?:extra-)?index-url|--find-links|--trusted-host"
)
REGISTRY_IN_DOCKERFILE = re.compile(r"^FROM\s+(?:--\S+\s+)*[^\s/]+[.:][^\s/]*/", re.MULTILINE)


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_operator_is_still_the_standard_library() -> None:
    assert operator.add(1, 2) == 3


@pytest.mark.parametrize("folder", NOT_PACKAGES)
def test_a_project_folder_is_never_a_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_test_folder_is_a_package() -> None:
    levels = [ROOT / "tests" / level for level in ("unit", "integration", "e2e")]
    assert [path for level in levels for path in level.rglob("__init__.py")] == []


def test_every_module_has_a_telling_name() -> None:
    assert [path for path in committed() if path.name in VAGUE_NAMES] == []


def test_no_file_names_a_machine_or_a_private_registry() -> None:
    found = []
    for path in committed():
        if path == Path(__file__) or path.suffix in {".sum", ".png"}:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if LOCAL.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert found == []


def test_no_dockerfile_names_a_registry() -> None:
    dockerfiles = [path for path in committed() if path.name.startswith("Dockerfile")]
    assert [path for path in dockerfiles if REGISTRY_IN_DOCKERFILE.search(path.read_text())] == []
