"""Container images without a container engine: one program on nothing, as an archive that containerd imports."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NOBODY = 65534


def write(program: Path, name: str, archive: Path) -> None:
    """Write a docker archive whose image runs the program, which is in /bin, as nobody."""
    path = f"bin/{program.name}"
    layer = archive.with_suffix(".layer")
    unfinished = archive.with_suffix(".unfinished")
    with tarfile.open(layer, "w") as tar:
        entry = tarfile.TarInfo(path)
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as content:
            tar.addfile(entry, content)
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"User": f"{NOBODY}:{NOBODY}", "Entrypoint": [f"/{path}"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    with tarfile.open(unfinished, "w") as tar:
        tar.add(layer, f"{digest}.tar")
        for member, text in ((config_name, config), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(member)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    layer.unlink()
    unfinished.rename(archive)


def names(archive: Path) -> list[str]:
    """The names of the images in a docker archive."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        if manifest is None:
            raise ValueError(f"{archive} has no manifest.json: not a docker archive")
        return [full_name(name) for image in json.load(manifest) for name in image["RepoTags"] or ()]


def full_name(name: str) -> str:
    """An image's name with the registry that is meant when none is written."""
    first, _, rest = name.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if rest else f"docker.io/library/{name}"
