# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel headers of an image, on the host, ready for a cross build.

They are read out of the image's own disk with debugfs (no mount, no network, no root), so a module
built on the host sees exactly what one built in the guest sees. Their programs (fixdep, modpost,
objtool) are the guest's and may not run here; they are taken from the image of the same suite for
this host's architecture and started with that image's own C library, whatever Debian the host is.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import arch as arches
from lab import image as images
from lab import imagebuild, kerneltree, paths, proc, shelf
from lab.arch import Arch
from lab.deadline import Deadline
from lab.errors import BuildError, HostError
from lab.image import Image

ELF = b"\x7fELF"
LIBRARIES = ("ld-linux", "libc.so.", "libelf", "libz.so.", "libzstd.so.", "liblzma.so.", "libbz2.so.")
FORMAT = "3"  # changes when what is written below does

# What the kernel's configuration found in its own, newer compiler and the one here may lack: a C probe
# and flags for each (the kernel's own of init/Kconfig). What the compiler refuses is taken out of the
# configuration; the kernel has a fallback for each, none of which changes a structure's layout.
COMPILER_OPTIONS = {
    "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT": ("", "-fmin-function-alignment=16"),
    "CONFIG_CC_HAS_SANE_FUNCTION_ALIGNMENT": ("", "-fmin-function-alignment=16"),
    "CONFIG_CC_HAS_ASSUME": ("int f(int a) { __attribute__((__assume__(a > 0))); return a; }",),
    "CONFIG_CC_HAS_COUNTED_BY": ("struct s { int n; int a[] __attribute__((__counted_by__(n))); } *p;",),
    "CONFIG_CC_HAS_COUNTED_BY_PTR": ("struct s { int n; int *a __attribute__((__counted_by__(n))); } *p;",),
    "CONFIG_CC_HAS_MULTIDIMENSIONAL_NONSTRING": ("char s[][4] __attribute__((__nonstring__)) = {};",),
    "CONFIG_CC_OPT_INLINE_MEMSET": ("", "-finline-stringops=memset"),
}
# Needs the kernel's vmlinux and pahole, and nothing here reads a module's BTF.
NEVER = ("CONFIG_DEBUG_INFO_BTF_MODULES",)

WRAPPER = """#!/bin/sh
# {name} of another Debian, started with its own loader and libraries
run="${{0%/*}}/{up}run"
exec "$run/{loader}" --library-path "$run" --argv0 "$0" "$0.elf" "$@"
"""


def ensure(image: Image, *, deadline: Deadline, progress: Callable[[str], None]) -> Path:
    """The folder to pass to kbuild as KDIR for this image, made once and cached.

    Raises HostError (a program is missing), BuildError (the image has no headers, or no image for
    this host's architecture can lend its programs; a tree of the user's is not prepared for it).
    """
    if image.tree is not None:
        kerneltree.check_programs(image.tree, platform.machine())
        return image.tree
    folder = _headers_dir() / f"{image.recipe}-{image.arch.name}-{image.digest}-{FORMAT}"
    kdir = folder / "usr/src" / f"linux-headers-{image.release}"
    if kdir.is_dir():
        shelf.touch(folder)
        return kdir
    lender = _lender(image, progress=progress)
    with shelf.locked(folder, deadline=deadline, waiting=lambda: imagebuild.waiting(progress, folder.name)):
        if kdir.is_dir():  # somebody else read them meanwhile
            return kdir
        progress(f"{image.recipe} {image.arch.name}: reading the kernel headers out of the image")
        with paths.folder_whole(folder) as work:
            _take_headers(image, work, deadline=deadline)
            _lend_programs(image, lender, work, deadline=deadline)
            _adapt(image, work / "usr/src" / kdir.name, deadline=deadline)
    return kdir


def gc(busy_s: float) -> list[str]:
    """Remove headers of images that no recipe makes any more, and those unused for long; see `shelf.sweep`."""
    wanted = {f"{name}-{FORMAT}" for name in images.wanted()}
    return shelf.sweep(
        _headers_dir(), dropped=lambda folder: folder.name not in wanted or shelf.stale(folder), busy_s=busy_s
    )


def _headers_dir() -> Path:
    return paths.cache_dir() / "headers"


def compiler(arch: Arch, *, deadline: Deadline) -> str:
    """The first line the host's (cross) compiler says of itself."""
    try:
        return proc.run([f"{arch.cross}gcc", "--version"], deadline=deadline).stdout.splitlines()[0]
    except HostError as e:
        raise HostError(f"no compiler for {arch.name} on this host: {e.message}", hint="run: make setup") from e


def _lender(image: Image, *, progress: Callable[[str], None]) -> Image:
    """The image whose programs run on this host: itself, or its suite's for the host's architecture."""
    native = arches.native()
    if native is None:
        raise HostError("modules cannot be built on this host's architecture", hint="use --build guest")
    if native == image.arch:
        return image
    recipes = images.recipes()
    suite = recipes[image.recipe].suite
    candidates = [image.recipe, *(name for name, recipe in recipes.items() if recipe.suite == suite)]
    for name in candidates:
        if native.name in recipes[name].arches:
            return images.ensure(name, native, progress=progress)
    raise BuildError(
        f"no {native.name} image of {suite} can lend its kbuild programs to {image.recipe}", hint="use --build guest"
    )


def _take_headers(image: Image, work: Path, *, deadline: Deadline) -> None:
    """Copy usr/src and usr/lib/linux-kbuild-* out of the image."""
    with opened(image, work, deadline=deadline) as disk:
        kbuilds = [name for name in disk.names("/usr/lib") if name.startswith("linux-kbuild-")]
        disk.copy(["/usr/src"], work / "usr")
        disk.copy([f"/usr/lib/{name}" for name in kbuilds], work / "usr/lib")
    if not kbuilds or not (work / "usr/src" / f"linux-headers-{image.release}/Makefile").is_file():
        raise BuildError(
            f"the image of {image.recipe} for {image.arch.name} has no headers of its kernel {image.release}",
            hint="build it again: lab image rm, lab image build",
        )


def _lend_programs(image: Image, lender: Image, work: Path, *, deadline: Deadline) -> None:
    """Put the lender's programs in the place of the image's, each behind a script that starts it."""
    triplet = lender.arch.cross.rstrip("-")
    loan = work / "loan"
    with opened(lender, work, deadline=deadline) as disk:
        kbuilds = [name for name in disk.names("/usr/lib") if name.startswith("linux-kbuild-")]
        libraries = [name for name in disk.names(f"/usr/lib/{triplet}") if name.startswith(LIBRARIES)]
        disk.copy([f"/usr/lib/{name}" for name in kbuilds], loan)
        disk.copy([f"/usr/lib/{triplet}/{name}" for name in libraries], work / "run")
    loader = next((name for name in libraries if name.startswith("ld-linux")), None)
    if loader is None:
        raise BuildError(f"the image of {lender.recipe} for {lender.arch.name} has no program loader")
    for program in sorted((work / "usr/lib").rglob("*")):
        if not is_elf(program):
            continue
        relative = program.relative_to(work / "usr/lib")
        own = next((kbuild for kbuild in kbuilds if series(kbuild) == series(relative.parts[0])), None)
        lent = loan / str(own) / Path(*relative.parts[1:])
        if own is None or not is_elf(lent):
            raise BuildError(
                f"the {lender.arch.name} image of {lender.recipe} has no {relative} to lend",
                hint=f"the two images are of different kernels; lab image rm {lender.recipe}, or use --build guest",
            )
        shutil.copy2(lent, program.with_name(f"{program.name}.elf"))
        up = "../" * (len(relative.parts) + 1)  # from the program's folder to the top: usr, lib and the rest
        program.unlink()
        program.write_text(WRAPPER.format(name=program.name, up=up, loader=loader))
        program.chmod(0o755)
    shutil.rmtree(loan)


def _adapt(image: Image, kdir: Path, *, deadline: Deadline) -> None:
    """Make the headers movable, and right for this host's compiler."""
    makefile = kdir / "Makefile"
    here = "LAB_SRC := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))/..)\n"
    makefile.write_text(here + makefile.read_text().replace("/usr/src/", "$(LAB_SRC)/"))
    (kdir / ".kernelvariables").write_text(
        f"override ARCH = {image.arch.kernel}\n"
        f"override KERNELRELEASE = {image.release}\n"
        f"override CROSS_COMPILE = {image.arch.cross}\n"
        f"CC = {image.arch.cross}gcc\n"
        "DEBIAN_KERNEL_NO_CC_VERSION_CHECK = y\n"
    )
    configuration = kdir / "include/config/auto.conf"
    said = set(re.findall(r"^(\w+)=", configuration.read_text(), re.MULTILINE))
    lacking = [
        option
        for option, (code, *flags) in COMPILER_OPTIONS.items()
        if option in said and not _compiles(image.arch, code, flags, deadline=deadline)
    ]
    _leave_out(configuration, (*NEVER, *lacking), pattern=r"(\w+)=")
    # NEVER stays in the C side: the layout of struct module hangs on it.
    _leave_out(kdir / "include/generated/autoconf.h", lacking, pattern=r"#define (\w+) ")


def _compiles(arch: Arch, code: str, flags: list[str], *, deadline: Deadline) -> bool:
    """Whether the host's compiler takes a piece of C without a complaint."""
    argv = [f"{arch.cross}gcc", "-Werror", *flags, "-x", "c", "-S", "-o", "/dev/null", "-"]
    return proc.run(argv, stdin=f"{code}\n".encode(), deadline=deadline, check=False).returncode == 0


def _leave_out(path: Path, options: Sequence[str], *, pattern: str) -> None:
    """Drop the lines of a configuration file that set one of these options."""
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not ((found := re.match(pattern, line)) and found[1] in options)]
    path.write_text("\n".join(kept) + "\n")


def series(kbuild: str) -> str:
    """Major and minor kernel version of a linux-kbuild folder's name, e.g. 6.12."""
    found = re.match(r"linux-kbuild-(\d+\.\d+)", kbuild)
    return found[1] if found else kbuild


def is_elf(path: Path) -> bool:
    """Whether a path is a regular file (not a link) that holds a program or library."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == ELF


@dataclass(frozen=True, slots=True)
class Disk:
    """An ext4 file system in a file, read with debugfs."""

    raw: Path
    deadline: Deadline

    def names(self, folder: str) -> list[str]:
        """What a folder of the disk holds."""
        listed = proc.run(["debugfs", "-R", f"ls -p {folder}", self.raw], deadline=self.deadline).stdout
        rows = (line.split("/") for line in listed.splitlines() if line.startswith("/"))
        return [row[5] for row in rows if len(row) > 5 and row[5] not in (".", "..")]

    def copy(self, sources: list[str], target: Path) -> None:
        """Copy files and folders of the disk into a host folder; what is not there is not copied."""
        target.mkdir(parents=True, exist_ok=True)
        # without root debugfs complains that it cannot change owners, and copies all the same
        proc.run(["debugfs", "-R", f'rdump {" ".join(sources)} "{target}"', self.raw], deadline=self.deadline)


@contextmanager
def opened(image: Image, work: Path, *, deadline: Deadline) -> Iterator[Disk]:
    """An image's disk; one that is not raw is unfolded into `work` for as long as it is needed."""
    if image.disk_format == "raw":
        yield Disk(image.disk, deadline)
        return
    with tempfile.NamedTemporaryFile(prefix="disk-", dir=work) as raw:
        proc.run(["qemu-img", "convert", "-O", "raw", image.disk, raw.name], deadline=deadline)
        yield Disk(Path(raw.name), deadline)
