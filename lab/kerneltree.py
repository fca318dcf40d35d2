# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel build tree of the user's own: what is in it, and whether a guest can be made of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import arch as arches
from lab import paths, recipe
from lab.arch import Arch
from lab.errors import BuildError, UsageError

USERLAND = "trixie"
# Where a build leaves the kernel, and its architecture's folder in the sources.
KERNELS = {
    "x86_64": ("x86", ("bzImage",)),
    "aarch64": ("arm64", ("Image", "Image.gz", "vmlinuz.efi")),
}
NAME = re.compile(r"[0-9][A-Za-z0-9._+~-]{0,62}")

# What a guest cannot do without, built in or as a module; and what has to be built in.
WANTED = ("EXT4_FS", "VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_NET")
BUILT_IN = ("MODULES", "MODULE_UNLOAD", "BLK_DEV_INITRD", "DEVTMPFS", "TMPFS", "PCI", "INET", "UNIX98_PTYS")
REFUSED = {
    "CC_IS_CLANG": "it was built with clang, and modules are built with gcc",
    "MODULE_SIG_FORCE": "it loads signed modules only",
}
CONSOLE = {"x86_64": "SERIAL_8250_CONSOLE", "aarch64": "SERIAL_AMBA_PL011_CONSOLE"}
PROGRAMS = ("scripts/basic/fixdep", "scripts/mod/modpost")


@dataclass(frozen=True, slots=True)
class Tree:
    """A build tree that can be booted."""

    path: Path  # of the build: with O= that folder, not the sources
    arch: Arch
    release: str  # include/config/kernel.release: the kernel's name in cells and results
    kernel: Path  # what QEMU boots
    userland: str  # the recipe that everything else is taken from

    @property
    def name(self) -> str:
        """As in a cell's name."""
        return self.release

    @property
    def sources(self) -> Path:
        """The sources that it was built from, the tree itself without O=."""
        link = self.path / "source"
        return link.resolve() if link.is_dir() else self.path

    @property
    def source_arch(self) -> str:
        """The architecture's folder under arch/."""
        return KERNELS[self.arch.name][0]

    @property
    def installed(self) -> Path | None:
        """Modules as `make modules_install INSTALL_MOD_PATH=TREE` puts them; None where there are none."""
        folder = self.path / "lib/modules" / self.release
        return folder if folder.is_dir() else None

    def modules(self) -> list[tuple[Path, Path]]:
        """Each module's file, and its place under lib/modules/RELEASE; what modules.order names is what was built."""
        if (folder := self.installed) is not None:
            files = sorted((folder / "kernel").rglob("*.ko*")) + sorted((folder / "updates").rglob("*.ko*"))
            return [(file, file.relative_to(folder)) for file in files if file.is_file()]
        order = self.path / "modules.order"
        words = order.read_text().split() if order.is_file() else []
        # Until 6.3 a line is kernel/fs/x.ko, from then on fs/x.o
        names = [re.sub(r"\.k?o$", ".ko", word.removeprefix("kernel/")) for word in words]
        return [(self.path / name, Path("kernel") / name) for name in names]


def is_path(text: str) -> bool:
    """Whether a kernel is named by a folder: by anything with a slash, since no recipe has one."""
    return "/" in text or text in (".", "..")


def read(path: Path, *, userland: str = USERLAND) -> Tree:
    """What is in a build tree; UsageError when something is missing, with what makes it."""
    path = paths.users(path)
    if not path.is_dir():
        raise UsageError(
            f"--kernel {path}: no such folder", hint="name a kernel of `lab list kernels`, or a build tree"
        )
    release = _line(path / "include/config/kernel.release")
    if not NAME.fullmatch(release):
        raise UsageError(
            f"--kernel {path}: it has no include/config/kernel.release", hint="is it built? make there first"
        )
    chosen = settings(path / ".config")
    names = [name for name, option in (("x86_64", "X86_64"), ("aarch64", "ARM64")) if chosen.get(option) == "y"]
    if not names:
        raise UsageError(f"--kernel {path}: its .config is for no architecture of {', '.join(arches.ARCHES)}")
    arch = arches.get(names[0])
    folder, images = KERNELS[arch.name]
    found = [path / "arch" / folder / "boot" / name for name in images]
    kernel = next((file for file in found if file.is_file()), None)
    if kernel is None:
        raise UsageError(
            f"--kernel {path}: arch/{folder}/boot/{images[0]} is missing", hint="is it built? make there first"
        )
    _check(path, arch, chosen)
    recipe.get(userland, arch)
    tree = Tree(path, arch, release, kernel, userland)
    if lost := next((file for file, _ in tree.modules() if not file.is_file()), None):
        raise UsageError(
            f"--kernel {path}: modules.order names {lost}, which is missing", hint="run there: make modules"
        )
    if not tree.modules() and any(chosen[option] == "m" for option in WANTED):
        raise UsageError(
            f"--kernel {path}: it has no modules of {release}, and its disk driver or file system is one",
            hint="run there: make modules",
        )
    return tree


def check_programs(tree: Path, runs_on: str) -> None:
    """BuildError unless modules can be built with this tree on that architecture: kbuild's own programs run there."""
    for name in PROGRAMS:
        if not (tree / name).is_file():
            raise BuildError(f"{tree}: {name} is missing", hint="run there: make modules_prepare")
    if not (tree / "Module.symvers").is_file():
        raise BuildError(f"{tree}: Module.symvers is missing", hint="run there: make modules")
    for name in PROGRAMS:
        with (tree / name).open("rb") as stream:
            head = stream.read(20)
        machines = {arch.elf: arch.name for arch in arches.ARCHES.values()}
        made_for = machines.get(int.from_bytes(head[18:20], "little")) if head[:4] == b"\x7fELF" else runs_on
        if made_for != runs_on:
            where = "host" if made_for == _native() else "guest"
            raise BuildError(
                f"{tree}: {name} runs on {made_for or 'another machine'}, not on {runs_on}", hint=f"use --build {where}"
            )


def pick(trees: Sequence[Tree], name: str, arch: Arch) -> Tree | None:
    """The tree that a cell names, if it names one."""
    return next((tree for tree in trees if tree.name == name and tree.arch == arch), None)


def _native() -> str:
    native = arches.native()
    return native.name if native else ""


def _check(path: Path, arch: Arch, chosen: dict[str, str]) -> None:
    """UsageError for the first option without which no guest boots."""
    for option in (*BUILT_IN, CONSOLE[arch.name]):
        if chosen.get(option) != "y":
            raise UsageError(f"--kernel {path}: a guest needs CONFIG_{option}=y", hint="set it and build again")
    for option, why in REFUSED.items():
        if chosen.get(option) == "y":
            raise UsageError(f"--kernel {path}: CONFIG_{option}=y: {why}", hint="build it otherwise")
    for option in WANTED:
        if chosen.get(option) not in ("y", "m"):
            raise UsageError(f"--kernel {path}: a guest needs CONFIG_{option}, y or m", hint="set it and build again")


def settings(path: Path) -> dict[str, str]:
    """The options that a .config sets, without CONFIG_; UsageError when it cannot be read."""
    try:
        return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", path.read_text(errors="replace"), re.MULTILINE))
    except OSError as e:
        raise UsageError(f"--kernel {path}: {e.strerror}", hint="is it built? make there first") from e


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
