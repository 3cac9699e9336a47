"""The locks say what the requirements ask for, with hashes, and agree with each other."""

from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parents[2] / "requirements"
PURPOSES = sorted(path.stem for path in FOLDER.glob("*.in"))
MAY_DIFFER = {
    "python-dateutil",  # botocore and kubernetes ask for different ones; dev.overrides says why that is harmless
    "fastapi",  # mlserver holds it back, and the development environment with it; the MLflow image is free of that
    "starlette",  # fastapi's
}
OWN_ENVIRONMENT = {"clients", "seldon"}
"""What is tested in an environment of its own lock, and so with what ships."""


def asked(purpose: str) -> list[Requirement]:
    found: list[Requirement] = []
    for written in (FOLDER / f"{purpose}.in").read_text().splitlines():
        line = written.split("#")[0].strip()
        if line.startswith("-r "):
            found += asked(Path(line.removeprefix("-r ")).stem)
        elif line and not line.startswith("-c "):
            found.append(Requirement(line))
    return found


def locked(purpose: str) -> dict[str, str]:
    pins: dict[str, str] = {}
    for line in (FOLDER / f"{purpose}.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            name, version = line.removesuffix(" \\").split(";")[0].strip().split("==")
            pins[canonicalize_name(name.split("[")[0])] = version
    return pins


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_lock_has_what_its_requirements_ask_for(purpose: str) -> None:
    pins = locked(purpose)
    assert [
        str(requirement)
        for requirement in asked(purpose)
        if pins.get(canonicalize_name(requirement.name), "") not in requirement.specifier
    ] == []


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_locked_package_has_a_hash(purpose: str) -> None:
    lines = (FOLDER / f"{purpose}.txt").read_text().splitlines()
    pinned = [number for number, line in enumerate(lines) if line and not line.startswith((" ", "#"))]
    assert [lines[number] for number in pinned if "--hash=sha256:" not in lines[number + 1]] == []


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_lock_names_no_index_and_no_path(purpose: str) -> None:
    lines = (FOLDER / f"{purpose}.txt").read_text().splitlines()
    assert [line for line in lines if "://" in line or line.startswith("-") or " @ " in line] == []


def test_what_is_tested_is_what_ships() -> None:
    versions: dict[str, set[str]] = defaultdict(set)
    for purpose in set(PURPOSES) - OWN_ENVIRONMENT:
        for name, version in locked(purpose).items():
            versions[name].add(version)
    assert {n: v for n, v in versions.items() if len(v) > 1 and n not in MAY_DIFFER} == {}


@pytest.mark.parametrize("purpose", ["mlserver", "seldon"])
def test_a_model_is_loaded_by_what_saved_it(purpose: str) -> None:
    saves, loads = locked("training"), locked(purpose)
    for package in ("scikit-learn", "skops", "cloudpickle"):
        assert loads[package] == saves[package]
