# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree kmod/ as data: what of it is source, how it travels into a guest, and what may come back."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from pathlib import Path

from lab.errors import BuildError, UsageError
from lab.headers import is_elf

TOOLS = ("hs-ctl", "hs-load")
PRODUCT = re.compile(r"hs[-_][a-z0-9_-]+(\.ko)?")
PRODUCT_MAX = 32 << 20  # bytes; a guest is not trusted to send sane sizes
OWN = "own"  # a user's editions, in the tree that is built
OWN_EDITIONS, OWN_FILES, OWN_MAX = 16, 200, 4 << 20  # modules, files, bytes
OWN_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")
LEFTOVERS = (".o", ".ko", ".mod", ".mod.c", ".cmd", ".a", ".d", ".symvers", ".order", ".pyc")


def source_files(sources: Path) -> list[Path]:
    """The files of the source tree, in order, without what a build in place left behind."""
    files = (path for path in sources.rglob("*") if path.is_file() and not path.is_symlink())
    kept = (path for path in files if not path.name.startswith(".") and not path.name.endswith(LEFTOVERS))
    return sorted(path for path in kept if not is_elf(path))


def check_own(folder: Path) -> list[str]:
    """The editions in a folder of the user's, by name: its C files. UsageError when it cannot be used."""
    if not folder.is_dir():
        raise UsageError(f"--kmod {folder}: no such folder", hint="name a folder of editions, such as examples/edition")
    files = source_files(folder)
    if len(files) > OWN_FILES or sum(path.stat().st_size for path in files) > OWN_MAX:
        raise UsageError(
            f"--kmod {folder}: too much for a folder of editions", hint="name the folder that holds them alone"
        )
    names = [path.stem for path in files if path.suffix == ".c" and path.parent == folder]
    if not 1 <= len(names) <= OWN_EDITIONS:
        raise UsageError(
            f"--kmod {folder}: it holds {len(names)} C files, not 1 to {OWN_EDITIONS}", hint="each is one edition"
        )
    if bad := next((name for name in names if not OWN_NAME.fullmatch(name)), None):
        raise UsageError(
            f"--kmod {folder}: {bad}.c is no name for a module", hint="a letter, then up to 23 of a-z 0-9 _"
        )
    for name in names:
        text = (folder / f"{name}.c").read_bytes()
        if b"hs_edition.h" not in text and b"hotswap.h" not in text:
            raise UsageError(
                f"--kmod {folder}: {name}.c includes neither hs_edition.h nor hotswap.h, so it is no edition",
                hint="see examples/edition; a module with tests of its own is for pytest, as examples/pytest",
            )
    return names


def with_own(sources: Path, own: Path, target: Path) -> None:
    """A copy of the source tree with a user's editions in own/, one module each, as `target`."""
    names = check_own(own)
    for folder, place in ((sources, target), (own, target / OWN)):
        for path in source_files(folder):
            copy = place / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    lines = [f"obj-m += hs_own_{name}.o\nhs_own_{name}-y := {OWN}/{name}.o\n" for name in names]
    (target / OWN / "Kbuild").write_text("".join(lines))


def in_own(message: str, own: Path) -> str:
    """What a compiler said of a user's file, by the name that the user knows it under."""
    return re.sub(rf"(?:\S*/)?\b{OWN}/(?=[\w./-]+:\d+)", lambda _: f"{own}/", message)


def pack(sources: Path, more: dict[str, bytes] | None = None) -> bytes:
    """The source tree as a tar archive, the same bytes for the same content; `more` are programs to add."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in source_files(sources):
            info = tarfile.TarInfo(str(path.relative_to(sources)))
            info.size = path.stat().st_size
            info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            # A guest's clock may be behind; make complains of files from the future.
            info.mtime = 0
            archive.addfile(info, io.BytesIO(path.read_bytes()))
        for name, data in (more or {}).items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpack_sources(data: bytes, folder: Path) -> None:
    """Unpack what `pack` packed."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder)  # noqa: S202 - our own archive; Debian 12's Python has no filter yet


def unpack(data: bytes, work: Path) -> None:
    """Take modules and tools out of a guest's archive: known names, regular files, sane sizes, nothing else."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                name = Path(member.name).name
                if not member.isreg() or not PRODUCT.fullmatch(name) or member.size > PRODUCT_MAX:
                    raise BuildError(f"the guest sent something that is no module or tool: {member.name!r:.100}")
                stream = archive.extractfile(member)
                if stream is None or (work / name).exists():
                    raise BuildError(f"the guest sent {name} twice")
                (work / name).write_bytes(stream.read())
                (work / name).chmod(0o755 if name in TOOLS else 0o644)
    except tarfile.TarError as e:
        raise BuildError(f"the guest sent no readable archive of what it built: {e}") from e


def define_before_include(sources: Path) -> tuple[list[str], list[str]]:
    """Names of C files that define a macro before their first include: those with pr_fmt only, and the others.

    Headers use pr_fmt only where their macros are used; any other macro may change what headers mean.
    """
    harmless, others = [], []
    for path in source_files(sources):
        if path.suffix == ".c":
            before = re.split(r"(?m)^\s*#\s*include\b", path.read_text(errors="replace"), maxsplit=1)[0]
            defined = set(re.findall(r"(?m)^\s*#\s*(?:define|undef)\s+(\w+)", before))
            if defined - {"pr_fmt"}:
                others.append(path.name)
            elif defined:
                harmless.append(path.name)
    return harmless, others
