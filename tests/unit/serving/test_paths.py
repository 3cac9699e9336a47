"""A path is judged before it is used; what could mean two places is refused."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollway_serving.errors import ArtifactRefused
from rollway_serving.fetch import manifest, paths
from rollway_serving.fetch.paths import Location

HOSTILE_URIS = [
    "",
    "models/1",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://169.254.169.254/latest",
    "https://models/1",
    "S3://models/1",
    "gs://models/1",
    "runs:/abc/model",
    "s3://",
    "s3:///key",
    "s3://models//1",
    "s3://models/1//2",
    "s3://models/1/../2",
    "s3://models/..",
    "s3://models/./1",
    "s3://models/%2e%2e/2",
    "s3://models/%252e%252e/2",
    "s3://models/1\\..\\2",
    "s3://models/1\x00",
    "s3://models/1\n2",
    "s3://models/1?versionId=2",
    "s3://models/1#2",
    "s3://models/\u2024\u2024/2",
    "s3://user:secret@models/1",
    "s3://models:9000/1",
    "s3://../models/1",
    "s3://mod..els/1",
    "mlflow-artifacts://other-server/1",
    "mlflow-artifacts:///etc",
    "mlflow-artifacts:/../1",
    "mlflow-artifacts:/1/%2e%2e",
    "mlflow-artifacts:/1//2",
    "mlflow-artifacts:1/2",
]


@pytest.mark.parametrize("uri", HOSTILE_URIS)
def test_a_uri_that_could_mean_something_else_is_refused(uri: str) -> None:
    with pytest.raises(ArtifactRefused):
        Location.parse(uri)


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("s3://models", ""),
        ("s3://models/", ""),
        ("s3://models/1/m-0a/artifacts/", "1/m-0a/artifacts"),
        ("mlflow-artifacts:/", ""),
        ("mlflow-artifacts:/1/models/m-0a/artifacts", "1/models/m-0a/artifacts"),
    ],
)
def test_the_uris_that_mlflow_gives_are_understood(uri: str, key: str) -> None:
    assert Location.parse(uri).key == key


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://models-evil/1", "s3://models"),
        ("s3://models/team-b/1", "s3://models/team-a"),
        ("s3://models/team-a-evil/1", "s3://models/team-a"),
        ("s3://models", "s3://models/team-a"),
        ("mlflow-artifacts:/1", "s3://models"),
        ("mlflow-artifacts:/2/x", "mlflow-artifacts:/1"),
    ],
)
def test_a_place_outside_the_prefix_is_outside(uri: str, prefix: str) -> None:
    assert not Location.parse(uri).is_under(Location.parse(prefix))


@pytest.mark.parametrize("prefix", ["s3://models", "s3://models/", "s3://models/a", "s3://models/a/b"])
def test_a_place_inside_the_prefix_is_inside(prefix: str) -> None:
    assert Location.parse("s3://models/a/b").is_under(Location.parse(prefix))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../MLmodel",
        "a/../../MLmodel",
        "/MLmodel",
        "a//b",
        "a/",
        ".env",
        ".git/loader.py",
        "a/.env",
        "a%2fb",
        "a\\b",
        "a b",
        "a\x00b",
        "a\nb",
        "\u00e9",
        "a:b",
        "model-settings.json",
        "Model-Settings.JSON",
        "code/settings.json",
        "x" * 256,
        "1/2/3/4/5/6/7",
    ],
)
def test_a_file_name_that_is_not_plain_is_refused(name: str) -> None:
    with pytest.raises(ArtifactRefused):
        paths.check_name(name)


@pytest.mark.parametrize("name", ["MLmodel", "model.skops", "code/my_model.py", "1/2/3/4/5/6", "-x", "_x"])
def test_the_names_that_mlflow_writes_are_allowed(name: str) -> None:
    assert paths.check_name(name) == name


@given(st.text(max_size=40))
def test_an_allowed_name_never_leaves_its_folder(name: str) -> None:
    try:
        paths.check_name(name)
    except ArtifactRefused:
        return
    assert not name.startswith("/")
    assert not {"", ".", ".."} & set(name.split("/"))
    assert not set(name) & set("\\%\x00\n :")


@pytest.mark.parametrize(("files", "size"), [(201, 0), (1, (2 << 30) + 1)])
def test_too_much_is_refused(files: int, size: int) -> None:
    paths.check_caps(200, 2 << 30)
    with pytest.raises(ArtifactRefused):
        paths.check_caps(files, size)


@pytest.mark.parametrize("module", [paths, manifest])
def test_the_examples_in_the_docstrings_are_true(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def test_the_digest_does_not_depend_on_the_order_of_files() -> None:
    a, b = manifest.FetchedFile("a", 1, "aa"), manifest.FetchedFile("b/c", 2, "bb")
    assert manifest.digest([a, b]) == manifest.digest([b, a])


@pytest.mark.parametrize(
    "other",
    [
        manifest.FetchedFile("b", 1, "aa"),
        manifest.FetchedFile("a", 2, "aa"),
        manifest.FetchedFile("a", 1, "ab"),
    ],
)
def test_the_digest_depends_on_path_size_and_content(other: manifest.FetchedFile) -> None:
    assert manifest.digest([manifest.FetchedFile("a", 1, "aa")]) != manifest.digest([other])
