from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rollway_cluster import images
from rollway_cluster.errors import ClusterError
from rollway_cluster.images import Image, Say, build_images

DOCKERFILE = """
FROM python:3.11-slim-bookworm AS packages
COPY requirements/operator.txt /tmp/requirements.txt
FROM python:3.11-slim-bookworm
COPY --chmod=0755 operator/src/rollway_operator \\
     /opt/rollway_operator
COPY --from=packages /opt/rollway /opt/rollway
"""


class PretendedBuilder:
    identity = "pretended"

    def __init__(self) -> None:
        self.built: list[str] = []

    def prepare(self, say: Say) -> None:
        pass

    def build(self, image: Image, archive: Path, run: Callable[[Sequence[str]], None]) -> None:
        self.built.append(image.name)
        run(["true"])
        archive.write_text(image.reference)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "operator/src/rollway_operator/__pycache__").mkdir(parents=True)
    (root / "requirements").mkdir()
    (root / "operator/Dockerfile").write_text(DOCKERFILE)
    (root / "operator/pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (root / "operator/src/rollway_operator/__init__.py").write_text("")
    (root / "requirements/operator.txt").write_text("kopf==1.0\n")
    return root


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PretendedBuilder:
    pretended = PretendedBuilder()
    monkeypatch.setattr(images, "_builder", lambda _: pretended)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return pretended


def test_an_image_is_made_of_what_its_dockerfile_copies(tree: Path) -> None:
    assert [str(path.relative_to(tree)) for path in Image("operator", tree).inputs()] == [
        "operator/Dockerfile",
        "operator/src/rollway_operator/__init__.py",
        "requirements/operator.txt",
    ]


def test_an_image_has_the_repositorys_version(tree: Path) -> None:
    assert Image("operator", tree).reference == "docker.io/rollway/operator:1.2.3"


@pytest.mark.parametrize("changed", ["operator/Dockerfile", "requirements/operator.txt"])
def test_a_changed_input_changes_the_key(tree: Path, changed: str) -> None:
    before = Image("operator", tree).key()
    (tree / changed).write_text((tree / changed).read_text() + "# changed\n")
    assert Image("operator", tree).key() != before


def test_a_renamed_input_changes_the_key(tree: Path) -> None:
    before = Image("operator", tree).key()
    module = tree / "operator/src/rollway_operator/__init__.py"
    module.rename(module.with_name("other.py"))
    assert Image("operator", tree).key() != before


def test_bytecode_and_files_outside_do_not_change_the_key(tree: Path) -> None:
    before = Image("operator", tree).key()
    (tree / "operator/src/rollway_operator/__pycache__/__init__.cpython-311.pyc").write_text("x")
    (tree / "README.md").write_text("x")
    assert Image("operator", tree).key() == before


def test_a_copied_path_that_does_not_exist_is_named(tree: Path) -> None:
    (tree / "requirements/operator.txt").unlink()
    with pytest.raises(ClusterError, match=r"copies requirements/operator\.txt, which does not exist"):
        Image("operator", tree).inputs()


def test_an_image_is_built_once_for_each_content(tree: Path, builder: PretendedBuilder) -> None:
    said: list[str] = []
    first = build_images(["operator"], said.append, tree)
    second = build_images(["operator"], said.append, tree)
    assert first == second
    assert first["operator"].read_text() == "docker.io/rollway/operator:1.2.3"
    assert builder.built == ["operator"]
    assert said[-1] == "operator: unchanged"


def test_only_the_newest_archives_of_an_image_are_kept(tree: Path, builder: PretendedBuilder) -> None:
    for number in range(5):
        (tree / "requirements/operator.txt").write_text(f"kopf==1.{number}\n")
        newest = build_images(["operator"], lambda _: None, tree)["operator"]
    assert len(builder.built) == 5
    assert newest.exists()
    assert len(list(newest.parent.glob("operator-*.tar"))) == 2


def test_a_failed_build_shows_its_last_lines_and_leaves_no_archive(
    tree: Path, builder: PretendedBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(image: Image, archive: Path, run: Callable[[Sequence[str]], None]) -> None:
        archive.write_text("half")
        run(["sh", "-c", "echo no matching distribution; exit 3"])

    monkeypatch.setattr(builder, "build", fail)
    with pytest.raises(ClusterError, match=r"ended with 3:\nno matching distribution"):
        build_images(["operator"], lambda _: None, tree)
    assert list(tmp_path.glob("cache/**/*.tar")) == []


def test_an_unknown_image_is_named() -> None:
    with pytest.raises(ClusterError, match="no image is called ghost"):
        build_images(["ghost"])
