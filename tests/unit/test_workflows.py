"""GitHub's machines run what `.ci/run` runs."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
# `make test` builds first, so that a build that fails is seen at once; each verb builds what it needs.
BUILDS = {"binaries"}


def verbs_of_make_test() -> set[str]:
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    return set(re.findall(r"\$\(MAKE\) (\S+)", recipe[1])) - BUILDS


def test_the_workflow_runs_each_verb_that_make_test_runs() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text()
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["verb"]
    assert set(job["strategy"]["matrix"]["verb"]) == verbs_of_make_test()
    assert job["steps"][-1]["run"] == 'make "$VERB"'
