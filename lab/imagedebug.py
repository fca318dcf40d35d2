# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel with its debug information, for an image: Debian's -dbg package, about 300 MB to fetch; only on demand.

`vmlinux` then lies beside the image's kernel, where `lab gdb`, and drgn and crash with a dump, use it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab import image as images
from lab import recipe
from lab.errors import ImageError
from lab.image import Image
from lab.imagebuild import told
from lab.kernelmap import VMLINUX
from lab.packages import Apt, host_mirror, unpack

NEEDED_MIB = 4096  # the package, and what is unpacked of it
# The modules' part of the package is the larger one, and no guest has those modules in use.
UNWANTED = ("usr/lib/debug/lib/modules", "usr/lib/debug/usr/lib/modules", "usr/share", "usr/lib/debug/.dwz")


def ensure(image: Image, *, progress: Callable[[str], None]) -> Path:
    """The file, fetched now unless it is there.

    Raises ImageError when the mirror has that kernel no more, or there is no room.
    """
    target = image.folder / VMLINUX
    with images.locked(image.folder, progress=progress):
        if not target.exists():
            free_mib = shutil.disk_usage(image.folder).free >> 20
            if free_mib < NEEDED_MIB:
                raise ImageError(
                    f"debug information takes {NEEDED_MIB} MiB in {image.folder}, {free_mib} MiB are free",
                    hint="free some, or run: lab gc",
                )
            with tempfile.TemporaryDirectory(prefix=f".{image.folder.name}.", dir=images.images_dir()) as folder:
                _fetch(image, Path(folder), progress=progress).replace(target)
    return target


def _fetch(image: Image, folder: Path, *, progress: Callable[[str], None]) -> Path:
    """The kernel out of its package, below `folder`."""
    who, package = f"{image.recipe} {image.arch.name}", f"linux-image-{image.release}-dbg"
    wanted = recipe.get(image.recipe, image.arch)
    apt = Apt(
        folder=folder / "apt",
        suite=wanted.suite,
        debian_arch=image.arch.debian,
        mirror=host_mirror(),
        check_valid_until=wanted.check_valid_until,
        log_file=folder / "log",
    )
    with told(progress, f"{who}: fetching {package}"):
        apt.prepare()
        apt.update()
        try:
            apt.download([package])
        except ImageError as e:
            raise ImageError(e.message, hint=f"a newer kernel there? lab image rm {image.recipe}, and try again") from e
    with told(progress, f"{who}: unpacking {package}"):
        (archive,) = apt.archives.glob(f"{package}_*.deb")
        unpack(archive, folder, exclude=UNWANTED)
    found = [path for path in folder.rglob(f"vmlinux-{image.release}") if not path.is_symlink()]
    if len(found) != 1:
        raise ImageError(f"{package} holds {len(found)} kernels with debug information")
    return found[0]
