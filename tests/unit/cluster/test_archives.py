"""A program becomes an image of nothing but itself."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from rollway_cluster import archives


def test_an_archive_holds_the_program_for_nobody(tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_bytes(b"content")
    archives.write(program, "localhost/rollway/hello:1", tmp_path / "hello.tar")
    with tarfile.open(tmp_path / "hello.tar") as tar:
        (image,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(tar.extractfile(image["Config"]))  # type: ignore[arg-type]
        layer = tar.extractfile(image["Layers"][0])
        assert layer is not None
        content = layer.read()
    assert image["RepoTags"] == ["localhost/rollway/hello:1"]
    assert config["config"] == {"User": "65534:65534", "Entrypoint": ["/bin/hello"], "WorkingDir": "/"}
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
    assert archives.names(tmp_path / "hello.tar") == ["localhost/rollway/hello:1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hello", "hello.tar"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("busybox:1", "docker.io/library/busybox:1"),
        ("rollway/operator:0.1.0", "docker.io/rollway/operator:0.1.0"),
        ("localhost/rollway/pause:1", "localhost/rollway/pause:1"),
        ("registry.example:5000/a/b:1", "registry.example:5000/a/b:1"),
    ],
)
def test_a_name_without_a_registry_means_the_default_one(written: str, meant: str) -> None:
    assert archives.full_name(written) == meant
