# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel headers read out of small ext4 disks made here, with this host's own programs in the lender's place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import arch, headers
from lab import image as images
from lab.deadline import Deadline
from lab.errors import BuildError
from lab.image import Image

Offer = Callable[[str], None]
PROGRAM = """#include <stdio.h>
int main(int c, char **v) { return printf("%s %s\\n", *v, v[1]) < 0; }
"""
RELEASE = "6.12.1+test-cloud-arm64"


def disk_image(folder: Path, root: Path, name: str, arch_name: str) -> Image:
    """An image whose disk holds the files of `root`."""
    disk = folder / f"{name}-{arch_name}.raw"
    with disk.open("wb") as stream:
        stream.truncate(16 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, disk], check=True)
    return Image(
        recipe=name,
        arch=arch.get(arch_name),
        digest="0123456789abcdef",
        folder=folder,
        disk=disk,
        disk_format="raw",
        kernel=folder / "kernel",
        initrd=folder / "initrd",
        cmdline="",
        release=RELEASE,
        compiler="gcc-14",
        manifest=folder / "manifest.json",
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def target(tmp_path: Path) -> Image:
    """An aarch64 image with headers whose one program is for another machine."""
    root = tmp_path / "target"
    kdir = root / "usr/src" / f"linux-headers-{RELEASE}"
    write(kdir / "Makefile", f"KBUILD_OUTPUT=/usr/src/linux-headers-{RELEASE}\ninclude /usr/src/common/Makefile\n")
    write(kdir / ".kernelvariables", "CC = gcc-99\n")
    write(
        kdir / "include/config/auto.conf",
        "CONFIG_SMP=y\nCONFIG_DEBUG_INFO_BTF_MODULES=y\nCONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=y\n",
    )
    write(
        kdir / "include/generated/autoconf.h",
        "#define CONFIG_SMP 1\n#define CONFIG_DEBUG_INFO_BTF_MODULES 1\n"
        "#define CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT 1\n",
    )
    write(root / "usr/src/common/Makefile", "all:\n\t@$(KBUILD_OUTPUT)/scripts/basic/fixdep said\n")
    program = root / "usr/lib/linux-kbuild-6.12.1+test/scripts/basic/fixdep"
    write(program, "")
    program.write_bytes(b"\x7fELF of another machine")
    (kdir / "scripts").symlink_to("../../lib/linux-kbuild-6.12.1+test/scripts")
    return disk_image(tmp_path, root, "trixie", "aarch64")


@pytest.fixture(scope="module")
def fixdep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints its own name and its argument."""
    folder = tmp_path_factory.mktemp("fixdep")
    (folder / "p.c").write_text(PROGRAM)
    subprocess.run(["gcc", "p.c", "-o", "p"], cwd=folder, check=True)
    return folder / "p"


def lender(tmp_path: Path, kbuild: str, fixdep: Path) -> Image:
    """An image of this host's architecture with that fixdep."""
    native = arch.native()
    assert native is not None
    root = tmp_path / "lender"
    libraries = root / "usr/lib" / native.cross.rstrip("-")
    libraries.mkdir(parents=True)
    program = root / "usr/lib" / kbuild / "scripts/basic/fixdep"
    program.parent.mkdir(parents=True)
    shutil.copy(fixdep, program)
    linked = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for word in linked.split():
        if word.startswith("/"):
            shutil.copy(word, libraries)
    return disk_image(tmp_path, root, "trixie", native.name)


@pytest.fixture
def offer(tmp_path: Path, fixdep: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Makes `image.ensure` hand out a lender with this linux-kbuild folder."""
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    if arch.native() is not arch.get("x86_64"):
        pytest.skip("the image asked for here is foreign only on x86_64")

    def make(kbuild: str) -> None:
        lent = lender(tmp_path, kbuild, fixdep)
        monkeypatch.setattr(images, "ensure", lambda *_args, **_options: lent)

    return make


def ensure(image: Image) -> Path:
    return headers.ensure(image, deadline=Deadline.after(60), progress=lambda _text: None)


def test_a_foreign_images_headers_work_here_wherever_they_lie(target: Image, offer: Offer, tmp_path: Path) -> None:
    offer("linux-kbuild-6.12.7+later")
    kdir = ensure(target)
    prefix = kdir.parents[2]
    assert kdir == prefix / "usr/src" / f"linux-headers-{RELEASE}"
    assert prefix.is_relative_to(tmp_path / "cache")
    moved = tmp_path / "moved"
    prefix.rename(moved)
    kdir = moved / "usr/src" / kdir.name
    said = subprocess.run(["make", "-s", "-C", kdir], check=True, capture_output=True, text=True).stdout
    assert said.strip().endswith("scripts/basic/fixdep said")
    variables = (kdir / ".kernelvariables").read_text()
    assert "override ARCH = arm64\n" in variables
    assert "CC = aarch64-linux-gnu-gcc\n" in variables


def test_the_configuration_loses_only_what_this_compiler_lacks(
    target: Image, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer("linux-kbuild-6.12.1+test")
    monkeypatch.setitem(
        headers.COMPILER_OPTIONS, "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT", ("", "-fno-compiler-has-this-flag")
    )
    kdir = ensure(target)
    assert (kdir / "include/config/auto.conf").read_text() == "CONFIG_SMP=y\n"
    # the C side keeps BTF: it shapes struct module
    assert (kdir / "include/generated/autoconf.h").read_text() == (
        "#define CONFIG_SMP 1\n#define CONFIG_DEBUG_INFO_BTF_MODULES 1\n"
    )


def test_a_flag_the_compiler_has_stays(target: Image, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer("linux-kbuild-6.12.1+test")
    monkeypatch.setitem(headers.COMPILER_OPTIONS, "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT", ("", "-O2"))
    kdir = ensure(target)
    assert "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=y" in (kdir / "include/config/auto.conf").read_text()


def test_programs_of_another_kernel_are_refused_and_nothing_stays(target: Image, offer: Offer, tmp_path: Path) -> None:
    offer("linux-kbuild-6.1.7")
    with pytest.raises(BuildError, match="scripts/basic/fixdep to lend") as caught:
        ensure(target)
    assert "--build guest" in caught.value.hint
    assert [path.name for path in (tmp_path / "cache/headers").iterdir() if not path.name.endswith(".lock")] == []


def test_an_image_without_headers_is_refused(tmp_path: Path, offer: Offer) -> None:
    offer("linux-kbuild-6.12.1+test")
    root = tmp_path / "empty"
    (root / "usr/lib").mkdir(parents=True)
    with pytest.raises(BuildError, match="no headers of its kernel"):
        ensure(disk_image(tmp_path, root, "trixie", "aarch64"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("linux-kbuild-6.1", "6.1"), ("linux-kbuild-6.12.117+deb13", "6.12"), ("linux-kbuild-7.2.13+deb14", "7.2")],
)
def test_the_series_of_a_kbuild_folder(name: str, expected: str) -> None:
    assert headers.series(name) == expected
