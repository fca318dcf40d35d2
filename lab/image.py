# SPDX-License-Identifier: GPL-2.0-or-later
"""Images: the read-only bases of guests, made from recipes and kept in a cache by content hash.

The cache holds images/NAME-ARCH-DIGEST/ with disk, kernel, initramfs, build.log and manifest.json.
A folder appears whole or not at all. Each file's size and time stamp are compared on every use and
its SHA-256 when the stamp is not the one written at the end of the build; whatever is broken is
built again. A lock per image makes two labs build it once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab import imagebuild, paths, recipe, shelf
from lab.arch import ARCHES, Arch
from lab.errors import ImageError, LabError
from lab.packages import host_mirror
from lab.recipe import Recipe

log = logging.getLogger(__name__)

FILES = (imagebuild.DISK, imagebuild.KERNEL, imagebuild.INITRD)
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Image:
    """A read-only base for guests."""

    recipe: str  # the recipe's name
    arch: Arch
    digest: str  # of recipe, files and builder: names the cache folder
    folder: Path
    disk: Path  # ext4 on the whole disk
    disk_format: str
    kernel: Path
    initrd: Path
    cmdline: str  # what this image needs on the kernel command line
    release: str  # uname -r
    compiler: str  # package and version of the gcc in the image
    manifest: Path
    tree: Path | None = None  # the build tree that the kernel is from, where it is no package's


def recipes() -> dict[str, Recipe]:
    """Every recipe by name."""
    return recipe.recipes()


def ensure(name: str, arch: Arch, *, progress: Callable[[str], None]) -> Image:
    """The image of that recipe and architecture, from the cache or built now.

    Raises UsageError for an unknown recipe, ImageError or HostError when it cannot be built.
    """
    wanted = recipe.get(name, arch)
    folder = images_dir() / f"{name}-{arch.name}-{wanted.digest(arch)}"
    if (found := load(folder, arch)) is not None:
        shelf.touch(folder)
        return found
    with locked(folder, progress=progress):
        if (found := load(folder, arch)) is not None:  # somebody else built it meanwhile
            return found
        if folder.exists():
            progress(f"{name} {arch.name}: the cached image is damaged, building it again")
        remove_folder(folder)
        check_space()
        make(wanted, arch, folder, progress=progress)
    if (found := load(folder, arch)) is None:
        raise ImageError(f"the image of {name} for {arch.name} vanished while it was built", hint="try again")
    return found


def make(wanted: Recipe, arch: Arch, folder: Path, *, progress: Callable[[str], None]) -> None:
    """Build into the cache; on failure nothing is left there."""
    started = time.monotonic()
    try:
        with paths.folder_whole(folder) as work:
            facts = imagebuild.build(wanted, arch, work, mirror=host_mirror(), progress=progress)
            with imagebuild.told(progress, f"{wanted.name} {arch.name}: computing checksums"):
                for file in FILES:
                    (work / file).chmod(0o444)
                files = {file: stamp(work / file) | {"sha256": sha256(work / file)} for file in FILES}
            manifest = {
                "recipe": wanted.name,
                "arch": arch.name,
                "suite": wanted.suite,
                "seconds": round(time.monotonic() - started, 1),
                "files": files,
                **facts,
            }
            paths.write_whole(work / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space() from e
        raise ImageError(f"cannot build {wanted.name} for {arch.name}: {e}") from e
    except LabError as e:
        if re.search("no space left|enough free space", e.message, re.IGNORECASE):
            raise no_space() from e
        raise
    progress(f"{wanted.name} {arch.name}: built in {time.monotonic() - started:.1f} s")


def load(folder: Path, arch: Arch) -> Image | None:
    """The image in a cache folder; None when there is none or it is damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if not intact(folder, manifest):
            return None
        return Image(
            recipe=manifest["recipe"],
            arch=arch,
            digest=folder.name.rpartition("-")[2],
            folder=folder,
            disk=folder / imagebuild.DISK,
            disk_format="qcow2",
            kernel=folder / imagebuild.KERNEL,
            initrd=folder / imagebuild.INITRD,
            cmdline="root=/dev/vda rw",
            release=manifest["release"],
            compiler=manifest["compiler"],
            manifest=path,
            tree=Path(manifest["tree"]) if "tree" in manifest else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def intact(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether every file is the one that was built: by its stamp, else by its checksum (then restamped)."""
    changed = False
    for name in FILES:
        known = manifest["files"][name]
        now = stamp(folder / name)
        if now["size"] != known["size"]:
            return False
        if now["mtime_ns"] != known["mtime_ns"]:
            if sha256(folder / name) != known["sha256"]:
                return False
            known.update(now)
            changed = True
    if changed:
        paths.write_whole(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return True


def stamp(path: Path) -> dict[str, int]:
    """What changes when a file is written to, and costs nothing to look at."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def images_dir() -> Path:
    """Where cached images lie."""
    return paths.cache_dir() / "images"


@contextmanager
def locked(folder: Path, *, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of one image."""
    with shelf.locked(folder, waiting=lambda: imagebuild.waiting(progress, folder.name)):
        yield


def remove_folder(folder: Path) -> None:
    """Remove a cached image, if it is there, and what was made from it.

    The next one of that name has another disk, to which saved memory does not belong, and maybe another kernel.
    """
    if folder.exists():
        shutil.rmtree(folder)
    for name, made in (("warm", _warmed), ("headers", _headed)):
        shelf.sweep(paths.cache_dir() / name, dropped=partial(made, folder.name), busy_s=math.inf)


def _warmed(image: str, state: Path) -> bool:
    """Whether a warm state is an image's."""
    try:
        return bool(json.loads((state / "keys.json").read_text())["image"] == image)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _headed(image: str, headers: Path) -> bool:
    """Whether a folder of headers is an image's."""
    return headers.name.startswith(f"{image}-")


def check_space() -> None:
    """Refuse to begin what cannot end."""
    if shutil.disk_usage(images_dir()).free < imagebuild.NEEDED_MIB * 2**20:
        raise no_space()


def no_space() -> ImageError:
    """The error for a full disk."""
    free = shutil.disk_usage(images_dir()).free // 2**20
    return ImageError(
        f"no space in {images_dir()}: building an image takes {imagebuild.NEEDED_MIB} MiB, {free} MiB are free",
        hint="free some, run: lab gc, or set LAB_CACHE_DIR to a larger place",
    )


def cached() -> list[Image]:
    """Every intact image in the cache, the newest last."""
    found = []
    for path in sorted(images_dir().glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns):
        arch = next((row for row in ARCHES.values() if f"-{row.name}-" in path.parent.name), None)
        if arch is not None and (image := load(path.parent, arch)) is not None:
            found.append(image)
    return found


def wanted() -> set[str]:
    """Names of the cache's folders that may be used again: today's recipes', and those of kernel trees used lately."""
    names = {f"{name}-{arch}-{one.digest(ARCHES[arch])}" for name, one in recipes().items() for arch in one.arches}
    return names | {image.folder.name for image in cached() if image.tree and not shelf.stale(image.folder)}


def gc(busy_s: float) -> list[str]:
    """Remove images that no recipe makes any more, damaged ones, and what killed builds left; see `shelf.sweep`."""
    names = wanted()
    kept = {image.folder for image in cached() if image.folder.name in names}
    return shelf.sweep(images_dir(), dropped=lambda folder: folder not in kept, busy_s=busy_s)
