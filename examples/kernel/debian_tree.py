# SPDX-License-Identifier: GPL-2.0-or-later
"""Lay Debian's kernel of one of the lab's images out as a build tree: a stand-in for a kernel that you built yourself.

    .venv/bin/python examples/kernel/debian_tree.py bookworm aarch64 /tmp/tree
    .venv/bin/lab run matrix --kernel /tmp/tree --mechanism refcount --load mixed --build host

What comes out is what `make` and `make modules_install INSTALL_MOD_PATH=.` leave in a tree that was cross-built on this
host: the kernel under arch/, its modules under lib/modules, and headers with programs that run here.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from lab import arch as arches
from lab import image
from lab.deadline import Deadline
from lab.errors import LabError
from lab.headers import Disk, opened
from lab.image import Image
from lab.kerneltree import KERNELS

READ_S = 300.0


def lay_out(own: Image, native: Image, tree: Path) -> None:
    """Fill the folder `tree`, which must not exist, from the image of the kernel and one whose programs run here."""
    deadline = Deadline.after(READ_S)
    with tempfile.TemporaryDirectory(dir=tree.parent) as name:
        work = Path(name)
        with opened(own, work, deadline=deadline) as disk:
            disk.copy(["/usr/src"], work)
            disk.copy([f"/usr/lib/modules/{own.release}"], work / "lib/modules")
        with opened(native, work, deadline=deadline) as disk:
            _take_programs(disk, work)
        ours = work / "src" / f"linux-headers-{own.release}"
        common = work / "src" / _common(ours)
        for folder in (common, ours):  # the second has what the build made, over the sources of the first
            shutil.copytree(folder, work / "tree", ignore=_skipped, dirs_exist_ok=True)
        shutil.copyfile(common / "Makefile", work / "tree/Makefile")
        # Debian tells it on the command line of make
        (work / "tree/include/config/kernel.release").write_text(f"{own.release}\n")
        shutil.copytree(work / "kbuild", work / "tree", symlinks=True, dirs_exist_ok=True)
        boot, names = KERNELS[own.arch.name]
        place = work / "tree/arch" / boot / "boot" / names[0]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(own.kernel, place)
        shutil.copytree(work / "lib", work / "tree/lib", ignore=_links, dirs_exist_ok=True)
        (work / "tree").rename(tree)


def _take_programs(disk: Disk, work: Path) -> None:
    """linux-kbuild of the host's architecture: scripts/ and tools/."""
    (kbuild,) = [name for name in disk.names("/usr/lib") if name.startswith("linux-kbuild-")]
    disk.copy([f"/usr/lib/{kbuild}"], work)
    (work / kbuild).rename(work / "kbuild")


def _common(headers: Path) -> str:
    """The folder that a flavour's one-line Makefile includes."""
    return Path((headers / "Makefile").read_text().split()[-1]).parent.name


def _skipped(folder: str, names: list[str]) -> list[str]:
    """Links to the programs, which come by themselves, and what says where Debian's packages lie."""
    return [name for name in names if (Path(folder) / name).is_symlink() or name in (".kernelvariables", "vmlinux")]


def _links(folder: str, names: list[str]) -> list[str]:
    """Links to where the kernel was built."""
    return [name for name in names if (Path(folder) / name).is_symlink()]


def main(kernel: str, arch: str, tree: str) -> None:
    """The command."""
    native = arches.native()
    if native is None:
        sys.exit(f"{sys.argv[0]}: modules cannot be built on this host's architecture")
    if Path(tree).exists():
        sys.exit(f"{sys.argv[0]}: {tree} is there already")
    try:
        own, lender = (image.ensure(kernel, one, progress=print) for one in (arches.get(arch), native))
        lay_out(own, lender, Path(tree).resolve())
    except LabError as e:
        print(f"{sys.argv[0]}: {e.message}{f' ({e.hint})' if e.hint else ''}", file=sys.stderr)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
