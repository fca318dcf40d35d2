# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel build trees: what is taken from one, and one good line for each way in which it is not ready."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from lab import kerneltree, treeimage
from lab.commands import select
from lab.errors import BuildError, UsageError

RELEASE = "6.12.9-mine+"
OPTIONS = (*kerneltree.BUILT_IN, *kerneltree.WANTED, "ARM64", kerneltree.CONSOLE["aarch64"])


def write(path: Path, data: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def program(machine: int) -> bytes:
    return b"\x7fELF" + bytes(14) + struct.pack("<H", machine) + bytes(44)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree as a build leaves it, cross-built on x86_64."""
    tree = tmp_path / "tree"
    write(tree / "include/config/kernel.release", f"{RELEASE}\n")
    write(tree / ".config", "".join(f"CONFIG_{name}=y\n" for name in OPTIONS))
    write(tree / "arch/arm64/boot/Image", "kernel")
    write(tree / "Module.symvers")
    for name in kerneltree.PROGRAMS:
        write(tree / name, program(62))
    return tree


def test_a_tree_names_its_kernel(folder: Path) -> None:
    tree = kerneltree.read(folder)
    assert (tree.name, tree.arch.name, tree.kernel.name, tree.userland) == (RELEASE, "aarch64", "Image", "trixie")
    assert tree.sources == folder and tree.modules() == []


@pytest.mark.parametrize("order", ["kernel/fs/ext4/ext4.ko\n", "fs/ext4/ext4.o\n"])
def test_modules_are_those_that_were_built(folder: Path, order: str) -> None:
    write(folder / "modules.order", order)
    with pytest.raises(UsageError, match=r"ext4.ko, which is missing"):
        kerneltree.read(folder)
    write(folder / "fs/ext4/ext4.ko")
    assert kerneltree.read(folder).modules() == [(folder / "fs/ext4/ext4.ko", Path("kernel/fs/ext4/ext4.ko"))]


def test_installed_modules_are_taken_as_they_are(folder: Path) -> None:
    write(folder / "modules.order", "fs/ext4/ext4.o\n")
    file = write(folder / "lib/modules" / RELEASE / "kernel/fs/ext4/ext4.ko.xz")
    assert kerneltree.read(folder).modules() == [(file, Path("kernel/fs/ext4/ext4.ko.xz"))]


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("include/config/kernel.release", "has no include/config/kernel.release"),
        (".config", "No such file"),
        ("arch/arm64/boot/Image", "arch/arm64/boot/Image is missing"),
    ],
)
def test_what_a_build_leaves_must_be_there(folder: Path, lost: str, words: str) -> None:
    (folder / lost).unlink()
    with pytest.raises(UsageError, match=words) as caught:
        kerneltree.read(folder)
    assert "make there" in caught.value.hint and "\n" not in caught.value.message


@pytest.mark.parametrize("option", OPTIONS)
def test_what_a_guest_needs_must_be_configured(folder: Path, option: str) -> None:
    config = folder / ".config"
    config.write_text(config.read_text().replace(f"CONFIG_{option}=y\n", f"# CONFIG_{option} is not set\n"))
    with pytest.raises(UsageError, match="no architecture" if option == "ARM64" else f"CONFIG_{option}"):
        kerneltree.read(folder)


@pytest.mark.parametrize("option", kerneltree.REFUSED)
def test_what_our_modules_cannot_be_loaded_into_is_told(folder: Path, option: str) -> None:
    with (folder / ".config").open("a") as stream:
        stream.write(f"CONFIG_{option}=y\n")
    with pytest.raises(UsageError, match=f"CONFIG_{option}=y: it"):
        kerneltree.read(folder)


def test_two_trees_of_one_name_are_told_apart_by_nobody(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    assert len(select.trees([f"{folder}/", str(folder)], "trixie")) == 1
    with pytest.raises(UsageError, match=r"are both 6.12.9-mine\+ for aarch64"):
        select.trees([str(folder), f"{tmp_path}/other"], "trixie")


def test_a_disk_driver_that_is_a_module_must_be_built(folder: Path) -> None:
    config = folder / ".config"
    config.write_text(config.read_text().replace("VIRTIO_BLK=y", "VIRTIO_BLK=m"))
    with pytest.raises(UsageError, match="no modules"):
        kerneltree.read(folder)


def test_programs_must_run_where_modules_are_built(folder: Path) -> None:
    kerneltree.check_programs(folder, "x86_64")
    with pytest.raises(BuildError, match="fixdep runs on x86_64, not on aarch64"):
        kerneltree.check_programs(folder, "aarch64")
    (folder / "scripts/mod/modpost").unlink()
    with pytest.raises(BuildError, match="modpost is missing") as caught:
        kerneltree.check_programs(folder, "x86_64")
    assert "modules_prepare" in caught.value.hint


def test_an_unknown_user_land_is_told(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown kernel 'buster'"):
        kerneltree.read(folder, userland="buster")


def test_headers_are_what_modules_are_built_with(folder: Path, tmp_path: Path) -> None:
    sources = tmp_path / "linux"
    for name in ("Makefile", "scripts/Makefile.build", "arch/arm64/Makefile", "arch/arm64/include/asm/x.h"):
        write(sources / name, "of the sources")
    for name in ("kernel/fork.c", "arch/arm64/kernel/head.S", "arch/x86/Makefile", "scripts/mod/modpost.o"):
        write(sources / name)
    write(folder / "Makefile", "include ../linux/Makefile\n")
    write(folder / "include/generated/autoconf.h")
    (folder / "source").symlink_to(sources)
    target = tmp_path / "headers"
    treeimage._take_headers(kerneltree.read(folder), target)
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert {"Makefile", "scripts/Makefile.build", "arch/arm64/Makefile", "arch/arm64/include/asm/x.h"} <= found
    assert {"include/generated/autoconf.h", ".config", "Module.symvers", "scripts/mod/modpost"} <= found
    assert not {"kernel/fork.c", "arch/arm64/kernel/head.S", "arch/x86/Makefile", "scripts/mod/modpost.o"} & found
    assert (target / "Makefile").read_text() == "of the sources"


def test_modules_are_signed_as_when_they_are_installed(folder: Path, tmp_path: Path) -> None:
    (folder / "fs").mkdir()
    code = "int mine;\n"
    argv = ["aarch64-linux-gnu-gcc", "-g", "-x", "c", "-c", "-", "-o", str(folder / "fs/mine.ko")]
    subprocess.run(argv, input=code, text=True, check=True)
    write(folder / "modules.order", "fs/mine.o\n")
    with (folder / ".config").open("a") as stream:
        stream.write('CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_HASH="sha512"\n')
    with pytest.raises(UsageError, match="scripts/sign-file is missing") as caught:
        treeimage._take_modules(kerneltree.read(folder), tmp_path / "one")
    assert "modules_install" in caught.value.hint
    write(folder / "scripts/sign-file", '#!/bin/sh\necho "$1 $2 $3" >>"$4"\n').chmod(0o755)
    for name in ("certs/signing_key.pem", "certs/signing_key.x509"):
        write(folder / name)
    treeimage._take_modules(kerneltree.read(folder), tmp_path / "two")
    made = (tmp_path / "two/kernel/fs/mine.ko").read_bytes()
    assert made.endswith(f"sha512 {folder}/certs/signing_key.pem {folder}/certs/signing_key.x509\n".encode())
    assert b".debug_info" not in made and b".debug_info" in (folder / "fs/mine.ko").read_bytes()
