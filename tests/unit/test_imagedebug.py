# SPDX-License-Identifier: GPL-2.0-or-later
"""Debug information of an image's kernel, out of a package that dpkg-deb really made."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab import image, imagedebug
from lab.arch import ARCHES
from lab.errors import ImageError

RELEASE = "6.1.0-50-cloud-amd64"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> image.Image:
    """An image in a cache of its own; the package of its kernel comes from a folder."""
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "images/bookworm-x86_64-0"
    folder.mkdir(parents=True)
    tree = tmp_path / "tree"
    for file in (f"usr/lib/debug/boot/vmlinux-{RELEASE}", f"usr/lib/debug/lib/modules/{RELEASE}/vmlinux-{RELEASE}"):
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_text(file)
    (tree / "DEBIAN").mkdir()
    about = (
        f"Package: linux-image-{RELEASE}-dbg\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@x>\nDescription: x\n"
    )
    (tree / "DEBIAN/control").write_text(about)
    subprocess.run(["dpkg-deb", "-b", tree, tmp_path], check=True, capture_output=True)

    class Fetched:
        def __init__(self, *, folder: Path, **_: Any) -> None:
            self.archives = folder / "archives"

        def prepare(self) -> None:
            self.archives.mkdir(parents=True)

        def update(self) -> None:
            pass

        def download(self, names: list[str]) -> None:
            found = list(tmp_path.glob(f"{names[0]}_*.deb"))
            if not found:
                raise ImageError("no such package")
            os.link(found[0], self.archives / found[0].name)

    monkeypatch.setattr(imagedebug, "Apt", Fetched)
    monkeypatch.setattr(imagedebug, "host_mirror", lambda: "http://mirror/debian")
    return image.Image(
        recipe="bookworm", arch=ARCHES["x86_64"], digest="0", folder=folder, disk=folder, disk_format="qcow2",
        kernel=folder, initrd=folder, cmdline="", release=RELEASE, compiler="gcc", manifest=folder,
    )  # fmt: skip


def test_the_kernel_is_taken_out_of_the_package_once(base: image.Image, tmp_path: Path) -> None:
    file = imagedebug.ensure(base, progress=print)
    assert file == base.folder / "vmlinux" and file.read_text() == f"usr/lib/debug/boot/vmlinux-{RELEASE}"
    next(tmp_path.glob("*.deb")).unlink()
    assert imagedebug.ensure(base, progress=print) == file
    assert [path.name for path in (tmp_path / "images").iterdir() if path.is_dir()] == [base.folder.name]


def test_what_a_killed_one_left_goes_with_the_next(base: image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def fetch(_base: image.Image, folder: Path, **_: object) -> Path:
        made.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(imagedebug, "_fetch", fetch)
    with pytest.raises(KeyboardInterrupt):
        imagedebug.ensure(base, progress=print)
    made[0].mkdir()  # kill -9 leaves it
    with image.locked(base.folder, progress=print):
        pass
    assert not made[0].exists()


def test_a_kernel_that_the_mirror_has_no_more_leaves_nothing(base: image.Image, tmp_path: Path) -> None:
    next(tmp_path.glob("*.deb")).unlink()
    with pytest.raises(ImageError) as caught:
        imagedebug.ensure(base, progress=print)
    assert "lab image rm" in caught.value.hint
    assert not list(base.folder.iterdir())


def test_a_full_disk_is_told_before_the_download(base: image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagedebug, "NEEDED_MIB", 1 << 40)
    with pytest.raises(ImageError, match="MiB are free"):
        imagedebug.ensure(base, progress=print)
