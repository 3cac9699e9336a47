"""The model's packages against the image's: what counts as different, and what hostile files do."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_serving import termination
from rollway_serving.errors import EnvironmentMismatch, FetchFailed
from rollway_serving.fetch import environment
from rollway_serving.fetch.environment import Comparison

INSTALLED = {
    "numpy": "2.4.6",
    "scikit-learn": "1.9.1",
    "torch": "2.1.0+cpu",
    "ruamel-yaml": "0.18",
    "odd": "x!",
    "candidate": "2.0rc1",
}


def compare(folder: Path, requirements: str | bytes | None, python: str = "3.11.7") -> Comparison:
    if requirements is not None:
        raw = requirements if isinstance(requirements, bytes) else requirements.encode()
        (folder / "requirements.txt").write_bytes(raw)
    return environment.compare(folder, INSTALLED.get, python)


@pytest.mark.parametrize(
    ("line", "difference"),
    [
        ("numpy==2.4.6", None),
        ("numpy>=2,<3  # any two", None),
        ("NumPy", None),
        ("scikit_learn==1.9.*", None),
        ("scikit-learn==1.4.0", "scikit-learn 1.9.1 installed, model wants ==1.4.0"),
        ("scikit-learn[alldeps]==1.4.0", "scikit-learn 1.9.1 installed, model wants ==1.4.0"),
        ("pandas==3.1.1", "pandas not installed, model wants ==3.1.1"),
        ("pandas", "pandas not installed, model wants any version"),
        ("torch==2.1.0", None),
        ("torch==2.1.0+cpu", None),
        ("torch==2.1.0+cu118", "torch 2.1.0+cpu installed, model wants ==2.1.0+cu118"),
        ("ruamel.yaml>=0.17", None),
        ("numpy==2.4.6 \\\n    --hash=sha256:00", None),
        ("numpy==1 --hash=sha256:00", "numpy 2.4.6 installed, model wants ==1"),
        ("numpy==1; python_version < '3'", None),
        ("numpy==1; python_version > '3'", "numpy 2.4.6 installed, model wants ==1"),
        ("numpy==1; extra == 'gpu'", None),
        ("candidate>=1", None),
        ("odd>=1", "odd x! installed, model wants >=1"),
        ("mlflow==1.0", None),
        ("mlflow_skinny==1.0", None),
        ("psutil==1.0", None),
        ("", None),
        ("# numpy==1", None),
    ],
)
def test_a_line_is_compared_as_pip_reads_it(tmp_path: Path, line: str, difference: str | None) -> None:
    assert compare(tmp_path, f"{line}\n") == Comparison((difference,) if difference else (), 0)


@pytest.mark.parametrize(
    "line",
    [
        "-r more.txt",
        "--no-binary :all:",
        "-e .",
        "./wheels/numpy-1.0-py3-none-any.whl",
        "git+https://token@example.com/numpy.git",
        "numpy @ https://example.com/numpy.whl",
        "numpy==1==2",
        "numpy; nonsense == 1",
        "numpy; " + "(" * 900,
        "numpy==1; python_version ~= 'x'",
        "\x00",
        "../../etc/passwd",
    ],
)
def test_an_option_or_a_url_is_not_compared(tmp_path: Path, line: str) -> None:
    assert compare(tmp_path, f"{line}\nnumpy\n") == Comparison((), 1)


@pytest.mark.parametrize(
    ("name", "text", "difference"),
    [
        ("python_env.yaml", "python: 3.11.2", None),
        ("python_env.yaml", "python: 3.12.1", "Python 3.11 installed, model wants 3.12"),
        ("python_env.yaml", "python: '3.9'", "Python 3.11 installed, model wants 3.9"),
        ("python_env.yaml", "python: 3.1", None),
        ("python_env.yaml", "[]", None),
        ("conda.yaml", "dependencies: [python=3.11.7, pip<=23]", None),
        ("conda.yaml", "dependencies: [python=3.8.1, pip<=23]", "Python 3.11 installed, model wants 3.8"),
        ("conda.yaml", "dependencies: [conda-forge::python==3.8]", "Python 3.11 installed, model wants 3.8"),
        ("conda.yaml", "dependencies: [{pip: [python=3.8]}, 'python>=3.8']", None),
        ("conda.yaml", "dependencies: python=3.8", None),
    ],
)
def test_the_minor_version_of_python_is_compared(
    tmp_path: Path, name: str, text: str, difference: str | None
) -> None:
    (tmp_path / name).write_text(text)
    assert compare(tmp_path, "numpy").differences == ((difference,) if difference else ())


@pytest.mark.parametrize(
    ("requirements", "difference"),
    [
        (None, "the model's requirements.txt is missing"),
        (b"\xff\xfe", "the model's requirements.txt is not UTF-8"),
        (
            b"numpy\n" + b"#" * environment.MAX_BYTES,
            "the model's requirements.txt is larger than 262144 bytes",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_a_difference(
    tmp_path: Path, requirements: bytes | None, difference: str
) -> None:
    assert compare(tmp_path, requirements).differences == (difference,)


def test_a_folder_in_its_place_is_a_difference(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").mkdir()
    assert compare(tmp_path, None).differences == ("the model's requirements.txt cannot be read",)


@given(text=st.text(), yaml=st.text() | st.sampled_from(["!!bool maybe", "!!timestamp now", "&a [*a]"]))
def test_whatever_stands_in_the_files_they_are_compared(
    text: str, yaml: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "python_env.yaml").write_bytes(yaml.encode(errors="surrogatepass"))
    compare(folder, text.encode(errors="surrogatepass"))


@given(
    words=st.lists(
        st.sampled_from(
            [
                "numpy",
                "==",
                ">=",
                "2",
                "1.*",
                ";",
                "(",
                ")",
                "[a]",
                ",",
                "and",
                "or",
                "extra",
                "python_version",
                "'3'",
                "@",
                "://",
                "-",
                "#",
                "~=",
                "===",
                "!",
            ]
        )
    )
)
def test_whatever_words_a_line_is_made_of_it_is_compared_or_not(
    words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = compare(tmp_path_factory.mktemp("model"), " ".join(words))
    assert len(found.differences) + found.not_compared <= 1


def test_many_differences_are_one_short_sentence(tmp_path: Path) -> None:
    lines = "\n".join(f"package-{i}==1.{'0' * 500}" for i in range(300))
    sentence = compare(tmp_path, lines).sentence()
    assert len(sentence) < 250
    assert sentence.startswith("package-0 not installed, model wants ==1.000")
    assert sentence.endswith("more")
    log = tmp_path / "termination-log"
    termination.write(log, {"digest": "sha256:" + "0" * 64, "environment": termination.sentence(sentence)})
    assert len(log.read_bytes()) < 4096


def test_the_policy_decides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "requirements.txt").write_text("a-package-nobody-has==1\n")
    assert environment.check(tmp_path, "Ignore") is None
    with caplog.at_level(logging.WARNING):
        assert environment.check(tmp_path, "Warn") == "a-package-nobody-has not installed, model wants ==1"
    assert "a-package-nobody-has" in caplog.text
    with pytest.raises(EnvironmentMismatch, match="environmentPolicy to Warn") as failure:
        environment.check(tmp_path, "Enforce")
    assert failure.value.reason == "EnvironmentMismatch"
    (tmp_path / "requirements.txt").write_text("packaging\n")
    assert environment.check(tmp_path, "Enforce") is None


def test_a_url_with_a_password_is_not_repeated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "requirements.txt").write_text("git+https://user:canary@example.com/x.git\n")
    with caplog.at_level(logging.DEBUG):
        assert environment.check(tmp_path, "Enforce") is None
    assert "1 line of requirements.txt" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("text", ["warn", "Off", "\n", "Enforce "])
def test_an_unknown_policy_is_said(text: str) -> None:
    with pytest.raises(FetchFailed, match="ROLLWAY_ENVIRONMENT_POLICY: expected Ignore, Warn or Enforce"):
        environment.policy(text)


def test_no_policy_ignores() -> None:
    assert [environment.policy(text) for text in ("", "Ignore", "Warn", "Enforce")] == [
        "Ignore",
        "Ignore",
        "Warn",
        "Enforce",
    ]


def test_installed_versions_are_asked_of_the_image() -> None:
    assert environment.installed_version("packaging")
    assert environment.installed_version("a-package-nobody-has") is None
    assert json.dumps(environment.installed_version("NumPy"))
