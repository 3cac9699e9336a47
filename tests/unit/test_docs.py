"""The documents name only what exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(
            p
            for top in ("docs", "operator", "model", "charts", "examples")
            for p in (ROOT / top).rglob("*.md")
        ),
    ]
)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
# What is written as code and looks like a path from the root of the repository.
PATH = re.compile(r"`((?:\.ci|charts|crds|docs|examples|model|operator|requirements|tests)/[\w./-]*)`")
MAKE = re.compile(r"\bmake ((?:[A-Z]+=\S+ )*)([a-z][a-z0-9-]*)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    targets = LINK.findall(document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_path_exists(document: Path) -> None:
    assert [path for path in PATH.findall(document.read_text()) if not (ROOT / path).exists()] == []


def test_the_map_leads_from_components_to_files() -> None:
    rows = (ROOT / "docs/architecture.md").read_text().split("## From component to file")[1]
    assert len(set(PATH.findall(rows))) > 40


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_make_verb_exists(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    verbs = set(re.findall(r"^([a-z0-9-]+):.*?## ", makefile, re.MULTILINE))
    code = "\n".join(
        re.findall(r"`[^`\n]+`|^    [^\n]*$|^```.*?^```", document.read_text(), re.MULTILINE | re.DOTALL)
    )
    assert {verb for _, verb in MAKE.findall(code)} - verbs == set()
