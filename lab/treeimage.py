# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel build tree -> an image: a recipe's disk with that tree's modules and headers, its kernel, an initramfs.

The user land is a cached image of a recipe; the tree's files are written into a copy of its disk with debugfs (no
mount, no root). The cache entry is named by what the tree holds, so a kernel that was built again is another image, and
the one before goes when nobody used it for two weeks.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lab import image as images
from lab import imagebuild, initrd, kerneltree, paths, proc, recipe, shelf
from lab.deadline import Deadline
from lab.errors import BuildError, ImageError, UsageError
from lab.headers import opened
from lab.image import Image
from lab.kerneltree import Tree

DISK_S = 600.0  # a deadline for what takes seconds
SPARE_MIB = 256  # of the disk's free space: what a guest needs to build in
STRIPPED_AT_ONCE = 200
SIGNING = ("scripts/sign-file", "certs/signing_key.pem", "certs/signing_key.x509")

# Of a tree what modules are built with: folders whole, and by name what is wanted of the others.
WHOLE = ("include", "scripts")
NAMES = re.compile(r"(Makefile|Kbuild|Kconfig)(\..*|_.*)?|.*\.lds|.*\.tbl|.*\.pl|.*\.sh")
UNWANTED = re.compile(r".*\.(o|a|cmd|d|mod|order)|\..*\.cmd|\.tmp.*")
TOP = (".config", "Module.symvers", ".kernelvariables")
TOOLS = ("tools/objtool/objtool", "tools/bpf/resolve_btfids/resolve_btfids")


def ensure(tree: Tree, *, progress: Callable[[str], None]) -> Image:
    """The image of a tree, from the cache or made now. Raises ImageError, HostError, UsageError."""
    base = images.ensure(tree.userland, tree.arch, progress=progress)
    folder = images.images_dir() / f"{tree.name}-{tree.arch.name}-{digest(tree, base)}"
    found = images.load(folder, tree.arch)
    if found is None:
        with images.locked(folder, progress=progress):
            found = images.load(folder, tree.arch)
            if found is None:
                images.remove_folder(folder)
                images.check_space()
                found = _make(tree, base, folder, progress)
    shelf.touch(folder)
    return replace(found, tree=tree.path)  # what it was made of may have been moved since


def digest(tree: Tree, base: Image) -> str:
    """What the image depends on, as 16 hexadecimal digits: user land, kernel, configuration, symbols, modules."""
    sha = hashlib.sha256(f"{base.digest}\0{tree.release}\0".encode() + Path(__file__).read_bytes())
    for file in (tree.kernel, tree.path / ".config", tree.path / "Module.symvers"):
        sha.update(f"{file.name}\0".encode() + (file.read_bytes() if file.is_file() else b""))
    for file, place in tree.modules():
        status = file.stat()
        sha.update(f"{place}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return sha.hexdigest()[:16]


def _make(tree: Tree, base: Image, folder: Path, progress: Callable[[str], None]) -> Image:
    """Make the image's folder; on failure nothing is left there."""
    started, who = time.monotonic(), f"{tree.name} {tree.arch.name}"
    with paths.folder_whole(folder) as work, imagebuild.told(progress, f"{who}: putting the kernel on a disk"):
        root = work / "root"
        modules = root / "usr/lib/modules" / tree.release
        _take_modules(tree, modules)
        if _builds_in_guest(tree):
            headers = root / "usr/src" / f"linux-headers-{tree.release}"
            _take_headers(tree, headers)
            (modules / "build").symlink_to(f"/usr/src/{headers.name}")
        shutil.copyfile(tree.kernel, work / imagebuild.KERNEL)
        _write(tree, base, root, work)
        shutil.rmtree(root)
        for file in images.FILES:
            (work / file).chmod(0o444)
        files = {file: images.stamp(work / file) | {"sha256": images.sha256(work / file)} for file in images.FILES}
        manifest = {
            "recipe": tree.name,
            "arch": tree.arch.name,
            "tree": str(tree.path),
            "suite": recipe.get(tree.userland, tree.arch).suite,
            "seconds": round(time.monotonic() - started, 1),
            "files": files,
            "release": tree.release,
            "compiler": base.compiler,
            "packages": json.loads(base.manifest.read_text())["packages"],
        }
        paths.write_whole(work / images.MANIFEST, json.dumps(manifest, indent=1) + "\n")
    progress(f"{who}: made in {time.monotonic() - started:.1f} s")
    if (made := images.load(folder, tree.arch)) is None:
        raise ImageError(f"the image of {who} vanished while it was made", hint="try again")
    return made


def _builds_in_guest(tree: Tree) -> bool:
    try:
        kerneltree.check_programs(tree.path, tree.arch.name)
    except BuildError:
        return False  # who asks for such a build is told why
    return True


def _take_modules(tree: Tree, target: Path) -> None:
    """Install the tree's modules: those that `make modules_install` put there as they are, else as it does.

    That is without debug information, and signed where the kernel looks for that: an unsigned one taints it.
    """
    target.mkdir(parents=True)
    for file, place in tree.modules():
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / place)
    if tree.installed is not None:
        return
    files = sorted(target.rglob("*.ko"))
    for at in range(0, len(files), STRIPPED_AT_ONCE):
        proc.run([f"{tree.arch.cross}strip", "--strip-debug", *files[at : at + STRIPPED_AT_ONCE]])
    chosen = kerneltree.settings(tree.path / ".config")
    if chosen.get("MODULE_SIG") == "y":
        _sign(tree, files, chosen.get("MODULE_SIG_HASH", "").strip('"'))


def _sign(tree: Tree, files: list[Path], algorithm: str) -> None:
    program, key, certificate = (tree.path / name for name in SIGNING)
    if lost := next((file for file in (program, key, certificate) if not file.is_file()), None):
        raise UsageError(
            f"--kernel {tree.path}: its modules cannot be signed, {lost.relative_to(tree.path)} is missing",
            hint=f"install them there: make modules_install INSTALL_MOD_PATH={tree.path}",
        )
    for file in files:
        proc.run([program, algorithm, key, certificate, file])


def _take_headers(tree: Tree, target: Path) -> None:
    """What building modules needs of a tree, in one folder; what a build made covers the sources' files."""
    for source in dict.fromkeys((tree.sources, tree.path)):
        for file in _wanted(tree, source):
            place = target / file.relative_to(source)
            if source != tree.sources and file.name == "Makefile" and file.parent == source:
                continue  # that of O= only points to the sources
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)


def _wanted(tree: Tree, source: Path) -> Iterator[Path]:
    """Files of a source or build folder that modules are built with."""
    arch = source / "arch" / tree.source_arch
    for folder in (*(source / name for name in WHOLE), arch / "include"):
        yield from (path for path in folder.rglob("*") if path.is_file() and not UNWANTED.fullmatch(path.name))
    yield from (path for path in arch.rglob("*") if path.is_file() and NAMES.fullmatch(path.name))
    yield from (path for path in source.iterdir() if path.is_file() and NAMES.fullmatch(path.name))
    yield from (path for name in (*TOP, *TOOLS) if (path := source / name).is_file())


def _write(tree: Tree, base: Image, root: Path, work: Path) -> None:
    """The base's disk with `root` laid over it, and the initramfs."""
    deadline = Deadline.after(DISK_S)
    with opened(base, work, deadline=deadline) as disk:
        disk.copy(["/usr/bin/busybox"], work)
        busybox = work / "busybox"
        initrd.write_initrd(
            work / imagebuild.INITRD,
            modules=root / "usr/lib/modules" / tree.release,
            busybox=busybox,
            init=recipe.files_dir() / "initramfs-init",
        )
        busybox.unlink()
        script = work / "debugfs.script"
        script.write_text("".join(_commands(root)))
        _check_room(root, disk.raw, deadline)
        said = proc.run(["debugfs", "-w", "-f", script, disk.raw], deadline=deadline, log_file=work / "build.log")
        if wrong := next((line for line in said.stdout.splitlines() if _is_error(line)), ""):
            raise ImageError(f"the disk of {tree.name} cannot be written: {wrong.strip()[:200]}")
        script.unlink()
        to = work / imagebuild.DISK
        proc.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk.raw, to], deadline=deadline)


def _commands(root: Path) -> Iterator[str]:
    """debugfs's commands that write a folder's content to the same place of a disk."""
    for path in sorted(root.rglob("*")):
        place = f"/{path.relative_to(root)}"
        if re.search(r'["\s]', f"{path}{place}"):
            raise UsageError(f"{path}: a name with spaces or quotes cannot be put on a guest's disk")
        if path.is_symlink():
            yield f"symlink {place} {path.readlink()}\n"
        elif path.is_dir():
            yield f"mkdir {place}\n"
        else:
            yield f"write {path} {place}\n"


def _is_error(line: str) -> bool:
    """Of debugfs's output: neither an echo nor what it says of every file, nor a folder that is there already."""
    quiet = ("debugfs", "Allocated inode:")
    return bool(line.strip()) and not line.startswith(quiet) and "Ext2 directory already exists" not in line


def _check_room(root: Path, raw: Path, deadline: Deadline) -> None:
    told = proc.run(["debugfs", "-R", "stats -h", raw], deadline=deadline).stdout
    numbers = dict(re.findall(r"^(Free blocks|Block size|Free inodes):\s+(\d+)", told, re.MULTILINE))
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    needed = sum(-(-path.stat().st_size // 4096) * 4096 for path in files) >> 20
    free = int(numbers.get("Free blocks", 0)) * int(numbers.get("Block size", 0)) >> 20
    if needed + SPARE_MIB > free:
        raise ImageError(
            f"the kernel's modules and headers take {needed} MiB, a guest's disk has {max(0, free - SPARE_MIB)}",
            hint="install them with INSTALL_MOD_STRIP=1, or build fewer: make localmodconfig",
        )
