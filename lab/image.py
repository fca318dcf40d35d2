# SPDX-License-Identifier: GPL-2.0-or-later
"""Images: the read-only bases of guests, made from recipes and kept in a cache by content hash.

The cache holds images/NAME-ARCH-DIGEST/ with disk, kernel, initramfs, build.log and manifest.json.
A folder appears whole or not at all. Each file's size and time stamp are compared on every use and
its SHA-256 when the stamp is not the one written at the end of the build; whatever is broken is
built again. A lock per image makes two labs build it once.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import imagebuild, paths, proc, recipe
from lab.arch import Arch
from lab.errors import ImageError, LabError
from lab.packages import DEFAULT_MIRROR
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
    """Hold the lock of one image; the kernel frees it when its holder dies, however it dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with imagebuild.told(progress, f"waiting for another lab that builds {folder.name}"):
                fcntl.flock(stream, fcntl.LOCK_EX)
        for left in folder.parent.glob(f".{folder.name}.*"):  # a killed build's: nobody else holds the lock
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield


def remove_folder(folder: Path) -> None:
    """Remove a cached image, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


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


def host_mirror() -> str:
    """The Debian mirror to use: LAB_MIRROR, else the one this host uses, else Debian's own."""
    if mirror := os.environ.get("LAB_MIRROR"):
        return mirror
    form = "$(ORIGIN)|$(RELEASE)|$(REPO_URI)"
    asked = proc.run(["apt-get", "indextargets", "--format", form, "Identifier: Packages"], check=False)
    return choose_mirror(asked.stdout, host_id()) or DEFAULT_MIRROR


def choose_mirror(targets: str, host: str) -> str | None:
    """From lines ORIGIN|RELEASE|URI, the first Debian archive that has whole releases.

    The origin is unknown where the lists were removed (container images do): then a Debian host's word counts.
    """
    for line in targets.splitlines():
        origin, _, rest = line.partition("|")
        release, _, uri = rest.partition("|")
        known = origin == "Debian" or (origin in ("", "$(ORIGIN)") and host == "debian" and "/debian/" in f"{uri}/")
        if known and "-" not in release and uri.startswith(("http://", "https://", "file:/")):
            return uri
    return None


def host_id() -> str:
    """ID= of this host's os-release, e.g. `debian`; empty when unknown."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    return next((line[3:].strip('"') for line in lines if line.startswith("ID=")), "")
