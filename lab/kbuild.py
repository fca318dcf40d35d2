# SPDX-License-Identifier: GPL-2.0-or-later
"""kmod/ -> modules and guest tools: built in a guest (default) or cross on the host, cached by content.

Both ways run the same kmod/Makefile with the same warnings as errors. The cache holds
builds/DIGEST/ with the modules as built (for gdb), build.log, build.json (each file's SHA-256) and
strip/: what goes into a guest, the modules without debug information and the tools. A folder
appears whole or not at all; of a build that failed only the log is kept, beside it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab import headers, kerneltree, paths, proc, shelf
from lab.deadline import Deadline
from lab.errors import BuildError, DeadlineError
from lab.image import Image
from lab.kmodtree import TOOLS, define_before_include, pack, source_files, unpack, unpack_sources
from lab.ssh import Done
from lab.untrusted import clean, one_line

log = logging.getLogger(__name__)

LOG, MANIFEST, STRIP = "build.log", "build.json", "strip"
LOG_CAP, LINE_CAP = 8 << 20, 64 << 10  # bytes of a guest's build log, and of a line of it
CORE = "hs_core.ko"
GUEST_FOLDER = "/tmp/kmod"  # noqa: S108  in the guest, which has no other user
FORMAT = "2"  # changes when the files of a build or the way to make them do

# Headers that every file reads, for templates/kbuild-cc.
QUICK = Path(__file__).parent / "templates/kbuild-cc"
QUICK_HEADERS = {
    "quick/all.h": b"#include <linux/module.h>\n",
    "quick/pch.h": b"",  # gcc reads pch.h.gch in its place
    "quick/own.h": b"#undef pr_fmt\n",
}

# kbuild must not see the make that started us, nor use what only the kernel's own build has.
ENVIRONMENT = {"MAKEFLAGS": "", "MFLAGS": "", "MAKELEVEL": "", "LC_ALL": "C"}
VARIABLES = ("CONFIG_DEBUG_INFO_BTF_MODULES=",)


@dataclass(frozen=True, slots=True)
class Build:
    """Modules and tools for one kernel."""

    digest: str
    folder: Path
    where: str  # "guest", "host" or "cache"
    seconds: float  # what making it took now; 0 from the cache


class Guest(Protocol):
    """What a build needs of a guest (see `lab.guest.Guest`)."""

    def run(
        self,
        command: str,
        *,
        deadline: Deadline,
        check: bool = True,
        on_line: Callable[[bytes], None] | None = None,
    ) -> Done:
        """Run a shell command."""

    def put_tar(self, data: bytes, folder: str, *, deadline: Deadline) -> None:
        """Unpack a tar archive into a folder."""

    def get_tar(self, folder: str, names: str, *, deadline: Deadline) -> bytes:
        """A tar archive of files of a folder."""


def cached(image: Image, sources: Path, *, where: str, mutants: bool = False) -> Build | None:
    """The finished build of these sources for this image, or None; a damaged one counts as none."""
    return _load(digest(image, sources, where=where, mutants=mutants))


def build_in_guest(guest: Guest, image: Image, sources: Path, *, deadline: Deadline, mutants: bool = False) -> Build:
    """Build with the guest's own compiler and headers.

    Raises BuildError naming the log when the compiler refuses or time is up; GuestLost passes.
    """

    if image.tree is not None:
        kerneltree.check_programs(image.tree, image.arch.name)

    def make(work: Path, log_file: Path) -> None:
        guest.put_tar(pack(sources, {"quick/cc": QUICK.read_bytes(), **QUICK_HEADERS}), GUEST_FOLDER, deadline=deadline)
        command = _guest_command(sources, mutants=mutants)
        with log_file.open("ab", buffering=0) as stream:
            stream.write(f"+ {command}\n".encode())
            done = guest.run(command, deadline=deadline, check=False, on_line=lambda line: _write(stream, line))
        if done.status != 0:
            raise BuildError(complaint(log_file))
        wanted = f'$(find . -name "hs_*.ko" -type f) {" ".join(TOOLS)}'
        unpack(guest.get_tar(GUEST_FOLDER, wanted, deadline=deadline), work)
        guest.run(f"rm -rf {GUEST_FOLDER}", deadline=deadline)

    return _build(image, sources, "guest", make, deadline=deadline, mutants=mutants)


def build_on_host(
    image: Image, sources: Path, *, deadline: Deadline, progress: Callable[[str], None], mutants: bool = False
) -> Build:
    """Build with the host's (cross) compiler against the image's own headers.

    Raises BuildError naming the log, HostError when a program is missing, DeadlineError never.
    """

    def make(work: Path, log_file: Path) -> None:
        kdir = headers.ensure(image, deadline=deadline, progress=progress)
        tree = work / "tree"
        unpack_sources(pack(sources), tree)
        cross = image.arch.cross
        argv = ["make", "-C", str(tree), f"-j{proc.cores()}", f"KDIR={kdir}", f"ARCH={image.arch.kernel}"]
        # static: the guest's C library may be older than this host's
        argv += [f"CROSS_COMPILE={cross}", f"CC_TOOLS={cross}gcc -static", *VARIABLES]
        argv += [f"KCFLAGS=-fdebug-prefix-map={tree}={paths.kmod_dir()}", *_targets(mutants)]
        try:
            proc.run(argv, deadline=deadline, env=ENVIRONMENT, log_file=log_file)
        except proc.CommandFailed as e:
            raise BuildError(complaint(log_file)) from e
        for product in _products(tree):
            _keep(product, work)
        shutil.rmtree(tree)

    return _build(image, sources, "host", make, deadline=deadline, mutants=mutants)


def digest(image: Image, sources: Path, *, where: str, mutants: bool) -> str:
    """What a build depends on, as 16 hexadecimal digits: sources, kernel, compiler, way."""
    compiler = image.compiler if where == "guest" else headers.compiler(image.arch, deadline=Deadline.after(30.0))
    sha = hashlib.sha256()
    sha.update("\0".join((FORMAT, where, image.arch.name, image.release, compiler, str(mutants))).encode())
    sha.update(image.digest.encode() if image.tree else b"")  # a tree is built anew under the same release
    sha.update(QUICK.read_bytes() + repr(QUICK_HEADERS).encode() if where == "guest" else b"")
    for path in source_files(sources):
        data = path.read_bytes()
        sha.update(f"\0{path.relative_to(sources)}\0{path.stat().st_mode & 0o100}\0{len(data)}\0".encode() + data)
    return sha.hexdigest()[:16]


def gc(busy_s: float) -> list[str]:
    """Remove builds unused for long, logs of failed ones, and what killed ones left; see `shelf.sweep`."""
    shelved = _folder("")
    return shelf.sweep(shelved, dropped=shelf.stale, busy_s=busy_s) + shelf.sweep_files(shelved, f"*.{LOG}")


def _build(
    image: Image,
    sources: Path,
    where: str,
    make: Callable[[Path, Path], None],
    *,
    deadline: Deadline,
    mutants: bool,
) -> Build:
    """Run one way of building under the digest's lock, and put its products into the cache."""
    name = digest(image, sources, where=where, mutants=mutants)
    started = time.monotonic()
    with shelf.locked(_folder(name), deadline=deadline):
        if (found := _load(name)) is not None:  # somebody else built it meanwhile
            return found
        folder, failed = _folder(name), _folder(f"{name}.{LOG}")
        shutil.rmtree(folder, ignore_errors=True)
        failed.unlink(missing_ok=True)
        with paths.folder_whole(folder) as work:
            log_file = work / LOG
            log_file.touch()
            try:
                make(work, log_file)
                _finish(image, work, deadline=deadline)
            except (BuildError, DeadlineError) as e:
                raise BuildError(f"the build for {_who(image)} failed: {e.message}", hint=f"log: {failed}") from e
            finally:
                shutil.copyfile(log_file, failed)
        failed.unlink(missing_ok=True)
    return Build(digest=name, folder=folder, where=where, seconds=time.monotonic() - started)


def _finish(image: Image, work: Path, *, deadline: Deadline) -> None:
    """Check that all is there, strip what goes into guests, write the manifest."""
    missing = [name for name in (CORE, *TOOLS) if not (work / name).is_file()]
    if missing:
        raise BuildError(f"make ended well without making {', '.join(missing)}")
    stripped = work / STRIP
    stripped.mkdir()
    for path in sorted(work.glob("hs*")):
        flag = "--strip-all" if path.name in TOOLS else "--strip-debug"
        proc.run([f"{image.arch.cross}strip", flag, "-o", stripped / path.name, path], deadline=deadline)
    files = [path for path in sorted(work.rglob("hs*")) if path.is_file()]
    sums = {str(path.relative_to(work)): _sha256(path) for path in files}
    paths.write_whole(work / MANIFEST, json.dumps({"for": _who(image), "sha256": sums}, indent=1) + "\n")


def _load(name: str) -> Build | None:
    """A build in the cache whose every file is as it was written."""
    folder = _folder(name)
    try:
        sums = json.loads((folder / MANIFEST).read_text())["sha256"]
        if not sums or any(_sha256(folder / file) != known for file, known in sums.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    shelf.touch(folder)
    return Build(digest=name, folder=folder, where="cache", seconds=0.0)


def _guest_command(sources: Path, *, mutants: bool) -> str:
    """What builds everything in a guest.

    An emulator translates a program again whenever it lies at another address, so for as long as the
    build lasts the guest's programs all lie at the same one: that alone halves the time.
    """
    quick = f"{GUEST_FOLDER}/quick"
    own_pr_fmt, plain = (shlex.quote(" ".join(names)) for names in define_before_include(sources))
    words = [
        *("LAB_CC=gcc", f"LAB_PCH={quick}", f"LAB_OWN_PR_FMT={own_pr_fmt}", f"LAB_PLAIN={plain}"),
        *("make", "-C", GUEST_FOLDER, '-j"$(nproc)"', "KDIR=/lib/modules/$(uname -r)/build", f"CC={quick}/cc"),
        *(*VARIABLES, f"KCFLAGS=-fdebug-prefix-map={GUEST_FOLDER}={paths.kmod_dir()}", *_targets(mutants)),
    ]
    space = "/proc/sys/kernel/randomize_va_space"
    return f"old=$(cat {space}); echo 0 >{space}; {' '.join(words)} 2>&1; made=$?; echo $old >{space}; exit $made"


def _targets(mutants: bool) -> tuple[str, ...]:
    return ("all", "mutants") if mutants else ("all",)


def _products(tree: Path) -> list[Path]:
    """Modules and tools in a tree that was built."""
    modules = [path for path in tree.rglob("hs_*.ko") if path.is_file()]
    return sorted(modules) + [tree / tool for tool in TOOLS if (tree / tool).is_file()]


def _keep(product: Path, work: Path) -> None:
    if (work / product.name).exists():
        raise BuildError(f"two files of the build are called {product.name}")
    shutil.copy2(product, work / product.name)


def complaint(log_file: Path) -> str:
    """The first complaint in a build's log."""
    lines = log_file.read_text(errors="replace").splitlines()
    told = next((line for line in lines if re.search(r"\berror:|\bERROR:|\*\*\*|undefined reference", line)), "")
    return one_line(told) or "make said no"


def _who(image: Image) -> str:
    return f"{image.arch.name} {image.recipe} {image.release}"


def _folder(name: str) -> Path:
    return paths.cache_dir() / "builds" / name


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(stream: io.RawIOBase, line: bytes) -> None:
    """A line of what a guest's build says; one that says more than LOG_CAP loses the rest, not our disk."""
    text = clean(line[:LINE_CAP]).encode() + b"\n"
    if stream.tell() + len(text) <= LOG_CAP:
        stream.write(text)
