"""A module is built again exactly when something that decides its result changes."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from rollway_cluster import binaries
from rollway_cluster.binaries import MODULES, Module
from rollway_cluster.errors import ClusterError


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = tmp_path / "modules"
    shutil.copytree(binaries.SOURCES, copied)
    monkeypatch.setattr(binaries, "SOURCES", copied)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return copied


def module(name: str) -> Module:
    return next(each for each in MODULES if each.name == name)


@pytest.mark.parametrize(
    "file",
    [
        *("kubernetes/go.mod", "kubernetes/go.sum", "kubernetes/main.go"),
        *("traefik/lego/go.mod", "traefik/lego/go.sum", "traefik/lego/providers/dns/dns.go"),
    ],
)
def test_a_changed_file_changes_the_key(sources: Path, file: str) -> None:
    name = file.split("/", maxsplit=1)[0]
    before = binaries.key(module(name))
    with (sources / file).open("a") as changed:
        changed.write("\n")
    assert binaries.key(module(name)) != before


def test_changed_flags_change_the_key() -> None:
    containerd = module("containerd")
    assert binaries.key(dataclasses.replace(containerd, flags=())) != binaries.key(containerd)


def test_the_same_sources_elsewhere_have_the_same_key(sources: Path) -> None:
    here = binaries.key(module("coredns"))
    sources.rename(sources.with_name("moved"))
    shutil.copytree(sources.with_name("moved"), sources)
    assert binaries.key(module("coredns")) == here


def test_no_two_modules_have_a_command_in_common() -> None:
    names = [name for each in MODULES for name in each.commands]
    assert len(names) == len(set(names))


def test_every_folder_of_a_module_is_in_the_table() -> None:
    assert {path.name for path in binaries.SOURCES.iterdir()} == {each.name for each in MODULES}


def test_the_stamped_version_is_the_one_that_is_built() -> None:
    required = re.search(
        r"k8s\.io/kubernetes (v[\d.]+)", (binaries.SOURCES / "kubernetes" / "go.mod").read_text()
    )
    assert required is not None
    assert required.group(1) == binaries.KUBERNETES_VERSION


def test_without_go_the_message_names_the_version_that_is_needed(
    sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ClusterError, match=r"^Go \d+\.\d+\.\d+ or newer is needed to build coredns, helm: https"
    ):
        binaries.build([module("coredns"), module("helm")])


def test_what_is_in_the_cache_is_not_built(
    sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    binaries.folder(module("helm")).mkdir(parents=True)
    said: list[str] = []
    binaries.build([module("helm")], said.append)
    assert said == []


# Builds a program that is the list of the files it was built from.
GO = """#!/bin/sh
case "$1 $2" in
"env GOVERSION") echo go1.99.0 local ;;
"mod download") echo "{\\"Dir\\": \\"MODULES/${4:-lego}\\"}" ;;
"build -v") find . -type f | sort >"$4/traefik" ;;
esac
"""


def test_a_patched_module_has_our_folders_in_place_of_its_own(
    sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "module-cache"
    for file in ("lego/go.mod", "lego/acme/api.go", "lego/providers/dns/route53/route53.go"):
        (cache / file).parent.mkdir(parents=True, exist_ok=True)
        (cache / file).touch(0o444)
    definitions = cache / "sigs.k8s.io/gateway-api/config/crd/standard"
    definitions.mkdir(parents=True)
    (definitions / "gateways.yaml").touch()
    (tmp_path / "go").write_text(GO.replace("MODULES", str(cache)))
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    binaries.build([module("traefik")], lambda _: None)
    built = binaries.folder(module("traefik"))
    assert [line for line in (built / "traefik").read_text().split() if "lego" in line] == [
        "./lego/acme/api.go",
        "./lego/go.mod",
        "./lego/providers/dns/dns.go",
    ]
    assert (built / "gateway-api" / "gateways.yaml").exists()


def test_links_are_renewed_when_a_program_is(sources: Path, tmp_path: Path) -> None:
    helm = [module("helm")]
    assert binaries.link(tmp_path / "bin", helm)
    assert not binaries.link(tmp_path / "bin", helm)
    with (sources / "helm" / "go.sum").open("a") as changed:
        changed.write("\n")
    assert binaries.link(tmp_path / "bin", helm)
    assert (tmp_path / "bin" / "helm").readlink() == binaries.folder(helm[0]) / "helm"
