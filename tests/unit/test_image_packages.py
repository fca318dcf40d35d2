# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages: unpacked while they arrive, any failure told in one line; the host's mirror found in apt's words."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import packages, proc
from lab.errors import HostError, ImageError

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


def deb(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A package file that holds these files."""
    tree = folder / f"tree-{name}"
    for path, text in ({"DEBIAN/control": control(name)} | files).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    out = folder / f"{name}_1%3a2.0-1_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, out], check=True, capture_output=True)
    return out


def control(name: str) -> str:
    return f"Package: {name}\nVersion: 1:2.0-1\nArchitecture: amd64\nMaintainer: x <x@x>\nDescription: x\n"


@needs_dpkg
def test_what_appears_is_unpacked_into_a_merged_usr(tmp_path: Path) -> None:
    archives, root = tmp_path / "archives", tmp_path / "root"
    archives.mkdir()
    one = deb(tmp_path, "one", {"bin/tool": "tool", "usr/share/doc/one/copyright": "long"})
    two = deb(tmp_path, "two", {"lib/modules/1/kernel/sound/x.ko": "x", "lib/modules/1/kernel/y.ko": "y"})
    with packages.unpacked(archives, root, exclude=("usr/share/doc", "modules/*/kernel/sound")):
        for path in (one, two):
            path.rename(archives / path.name)
    assert (root / "usr/bin/tool").read_text() == "tool"
    assert (root / "bin").is_symlink()
    assert (root / "usr/lib/modules/1/kernel/y.ko").exists()
    assert not (root / "usr/share/doc").exists()
    assert not (root / "usr/lib/modules/1/kernel/sound").exists()
    assert packages.take_versions(archives) == {"one": "1:2.0-1", "two": "1:2.0-1"}
    assert not archives.exists()


@needs_dpkg
def test_a_broken_package_fails_the_build(tmp_path: Path) -> None:
    archives = tmp_path / "archives"
    archives.mkdir()
    (archives / "bad_1_amd64.deb").write_bytes(b"not a package")
    with pytest.raises(HostError), packages.unpacked(archives, tmp_path / "root", exclude=()):
        pass


def test_a_failed_download_is_not_hidden_by_the_unpacking(tmp_path: Path) -> None:
    (tmp_path / "archives").mkdir()
    with (
        pytest.raises(ImageError, match="no mirror"),
        packages.unpacked(tmp_path / "archives", tmp_path / "r", exclude=()),
    ):
        raise ImageError("no mirror")


def test_apt_is_told_what_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(packages, "KEYRING", keyring)
    monkeypatch.setattr(packages, "host_proxies", lambda: 'Acquire::http::Proxy "http://proxy:1";\n')
    for check in (True, False):
        apt = packages.Apt(
            folder=tmp_path / str(check),
            suite="sid",
            debian_arch="arm64",
            mirror="http://m/debian",
            check_valid_until=check,
            log_file=tmp_path / "log",
        )
        apt.prepare()
        config = (apt.folder / "apt.conf").read_text()
        assert f'Acquire::Check-Valid-Until "{str(check).lower()}";' in config
        assert 'APT::Architecture "arm64";' in config
        assert 'Acquire::http::Proxy "http://proxy:1";' in config
        assert (apt.folder / "sources.list").read_text() == "deb http://m/debian sid main\n"


def test_without_the_keyring_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "KEYRING", tmp_path / "none.gpg")
    apt = packages.Apt(tmp_path / "apt", "sid", "arm64", "http://m", True, tmp_path / "log")
    with pytest.raises(HostError, match="none.gpg is missing"):
        apt.prepare()


def test_an_unreachable_mirror_is_one_line_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_: object) -> None:
        raise proc.CommandFailed(
            argv, 100, "Err:1 http://m sid InRelease\nE: Failed to fetch http://m/x  Could not resolve 'm'\n"
        )

    monkeypatch.setattr(proc, "run", run)
    apt = packages.Apt(tmp_path / "apt", "sid", "arm64", "http://m", True, tmp_path / "log")
    with pytest.raises(ImageError) as caught:
        apt.update()
    assert "Could not resolve 'm'" in caught.value.message
    assert "\n" not in caught.value.message
    assert "LAB_MIRROR" in caught.value.hint


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("Reading...\nE: Unable to locate package linux-image-x\n", "Unable to locate package linux-image-x"),
        ("E: You don't have enough free space in /x/.\nE: other\n", "You don't have enough free space in /x/."),
        (
            "E: Failed to fetch http://m/x  404  Not Found\nE: Some index files failed.\n",
            "Failed to fetch http://m/x  404  Not Found",
        ),
        ("W: GPG error: NO_PUBKEY 1\nE: The repository 'x' is not signed.\n", "The repository 'x' is not signed."),
        ("\n", "no output"),
    ],
)
def test_the_decisive_line_of_apt(output: str, line: str) -> None:
    assert packages.decisive(output) == line


@pytest.mark.parametrize(
    ("targets", "host", "mirror"),
    [
        ("Debian|bookworm-security|http://s/\nDebian|bookworm|http://m/debian/\n", "debian", "http://m/debian/"),
        ("|bookworm|http://m/debian/\n", "debian", "http://m/debian/"),
        ("$(ORIGIN)|bookworm|http://m/debian/\n", "debian", "http://m/debian/"),
        ("|bookworm|http://m/debian/\n", "ubuntu", None),
        ("Ubuntu|noble|http://u/ubuntu/\n", "ubuntu", None),
        ("Node|nodistro|https://n/\n|trixie|cdrom:/x/debian/\n", "debian", None),
        ("", "debian", None),
    ],
)
def test_the_mirror_is_the_hosts_own_debian_archive(targets: str, host: str, mirror: str | None) -> None:
    assert packages.choose_mirror(targets, host) == mirror


def test_a_mirror_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_MIRROR", "http://mine/debian")
    assert packages.host_mirror() == "http://mine/debian"


def test_a_host_without_a_mirror_is_told_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_MIRROR", raising=False)
    monkeypatch.setattr(packages.proc, "run", lambda *_words, **_how: SimpleNamespace(stdout=""))
    with pytest.raises(ImageError, match="no Debian mirror") as caught:
        packages.host_mirror()
    assert "LAB_MIRROR" in caught.value.hint
