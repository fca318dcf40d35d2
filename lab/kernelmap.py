# SPDX-License-Identifier: GPL-2.0-or-later
"""The names and addresses of a kernel's own functions and data, for who looks into its memory from outside.

Debian ships no System.map (the file of that name is a stub), so the first guest that boots an image is asked, and its
answer is kept beside the image. Every boot moves the kernel elsewhere, but all of it by the same distance: the
difference of the two addresses of `_stext`. A frozen guest cannot be asked: what `learn` returns is kept with it.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab import paths
from lab.deadline import Deadline
from lab.errors import HypervisorError, LabError
from lab.image import Image
from lab.ssh import Done

log = logging.getLogger(__name__)

MAP, ELF = "System.map", "kernel.elf"
VMLINUX = "vmlinux"  # with all debug information; only where `imagedebug` fetched it
TEXT = "_stext"  # begins .text; arm64 has _text, a header's place before it, among kallsyms since 6.12 only
SIZE_MAX = 64 << 20  # bytes of what a guest says
# A module's symbol has the module's name after it.
_LINE = re.compile(r"^([0-9a-f]{16}) ([A-Za-z]) ([A-Za-z_.$][\w.$]{0,250})$", re.MULTILINE)
_CLUTTER = ("__pfx_", "__UNIQUE_ID", "__ksymtab_", "__kstrtab", "__crc_", "__initcall_", "$")

_HEAD, _SECTION, _SYMBOL = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")
_SYMTAB, _STRTAB, _NOBITS = 2, 3, 8  # kinds of sections
_WRITE, _ALLOC, _EXEC = 1, 2, 4  # flags of sections
_NOTYPE, _OBJECT, _FUNC, _GLOBAL, _SHN_ABS = 0, 1, 2, 1 << 4, 0xFFF1

# With the module that tells QEMU where the kernel keeps its vmcoreinfo: a dump has that note then, and who reads dumps
# needs it. Nothing in a guest loads modules by itself.
_ASK = (
    "insmod /lib/modules/$(uname -r)/kernel/drivers/firmware/qemu_fw_cfg.ko* 2>/dev/null; "
    f"grep -m 1 ' {TEXT}$' /proc/kallsyms"
)


class Guest(Protocol):
    """What is needed of a guest (see `lab.guest.Guest`)."""

    def run(self, command: str, *, deadline: Deadline, check: bool = True) -> Done:
        """Run a shell command."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """One name of the kernel's, as /proc/kallsyms has it."""

    address: int
    kind: str  # nm's letter; A: absolute, not moved with the kernel
    name: str


def learn(guest: Guest, image: Image, *, deadline: Deadline) -> int | None:
    """Where the kernel of a guest that has just booted lies: the address of `_stext`; None when it does not say.

    Keeps the image's symbols, too, when nobody has yet, and has the kernel tell QEMU what a dump should know.
    """
    keep(guest, image, deadline=deadline)
    found = parse(guest.run(_ASK, deadline=deadline, check=False).stdout.decode(errors="replace"))
    return found[0].address if found else None


def keep(guest: Guest, image: Image, *, deadline: Deadline) -> None:
    """Ask for all symbols, unless they are kept already. What the guest says is checked line by line."""
    if (image.folder / MAP).exists():
        return
    try:
        said = guest.run("cat /proc/kallsyms", deadline=deadline).stdout[:SIZE_MAX]
    except HypervisorError as e:
        log.warning("%s: no kernel symbols: %s", image.folder.name, e)
        return
    symbols = parse(said.decode(errors="replace"))
    if any(one.name == TEXT and one.address for one in symbols):
        lines = (f"{one.address:016x} {one.kind} {one.name}\n" for one in symbols)
        paths.write_whole(image.folder / MAP, "".join(lines))


def parse(text: str) -> list[Symbol]:
    """The symbols of a System.map or of /proc/kallsyms, modules' left out."""
    found = (Symbol(int(one[1], 16), one[2], one[3]) for one in _LINE.finditer(text))
    return [one for one in found if not one.name.startswith(_CLUTTER)]


def read(folder: Path) -> dict[str, Symbol]:
    """The symbols kept in an image's folder, by name. LabError when there are none."""
    try:
        symbols = parse((folder / MAP).read_text())
    except OSError as e:
        raise LabError(f"{folder / MAP}: {e.strerror}", hint="it is written when a guest of that image starts") from e
    named = {one.name: one for one in reversed(symbols)}
    if TEXT not in named:
        raise LabError(
            f"{folder / MAP} is damaged: it has no {TEXT}", hint="remove it, and start a guest of that image"
        )
    return named


def symbol_file(folder: Path, machine: int) -> Path:
    """The same as an ELF file without contents, for debuggers; made once. `machine` is ELF's e_machine."""
    file = folder / ELF
    if not file.exists():
        paths.write_whole(file, elf(list(read(folder).values()), machine))
    return file


def elf(symbols: list[Symbol], machine: int) -> bytes:
    """An ELF file that has these symbols, in two sections without contents: code, and all that follows it.

    What ran at boot only is left out: its memory belongs to somebody else now.
    """
    at = {one.name: one.address for one in symbols}
    start, middle, end = at[TEXT], at.get("_etext", at[TEXT]), at.get("_end", max(at.values()) + 1)
    init = range(at.get("__init_begin", 0), at.get("__init_end", 0))
    names, rows = bytearray(b"\0"), bytearray(_SYMBOL.size)
    for one in symbols:
        if one.kind in "Aa":
            section, kind = _SHN_ABS, _NOTYPE
        elif start <= one.address < middle:
            section, kind = 1, _FUNC
        elif middle <= one.address < end and one.address not in init:
            section, kind = 2, _OBJECT
        else:
            continue
        rows += _SYMBOL.pack(len(names), _GLOBAL | kind, 0, section, one.address, 0)
        names += one.name.encode() + b"\0"
    sections = (
        (b"", 0, 0, 0, b"", 0, 0),
        (b".text", _NOBITS, _ALLOC | _EXEC, start, middle - start, 0, 0),
        (b".data", _NOBITS, _ALLOC | _WRITE, middle, end - middle, 0, 0),
        (b".symtab", _SYMTAB, 0, 0, bytes(rows), 4, _SYMBOL.size),
        (b".strtab", _STRTAB, 0, 0, bytes(names), 0, 0),
    )
    return _written(sections, machine)


def _written(sections: Sequence[tuple[bytes, int, int, int, bytes | int, int, int]], machine: int) -> bytes:
    """Sections (name, type, flags, address, contents or size, link, size of an entry) as an ELF file."""
    titles = b"\0".join(one[0] for one in sections) + b"\0.shstrtab\0"
    body, heads, offset, title = bytearray(), bytearray(), _HEAD.size, 0
    for name, kind, flags, address, data, link, entry in (*sections, (b".shstrtab", _STRTAB, 0, 0, titles, 0, 0)):
        size = data if isinstance(data, int) else len(data)
        heads += _SECTION.pack(title, kind, flags, address, offset, size, link, int(bool(entry)), 8, entry)
        if isinstance(data, bytes):
            body += data + b"\0" * (-size % 8)
            offset = _HEAD.size + len(body)
        title += len(name) + 1
    count = len(sections) + 1
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = _HEAD.pack(ident, 2, machine, 1, 0, 0, offset, 0, _HEAD.size, 0, 0, _SECTION.size, count, count - 1)
    return head + bytes(body) + bytes(heads)


def linked_at(file: Path) -> int:
    """Where `_stext` is in a kernel's own ELF file: the address of the section .text, which begins with it."""
    try:
        with file.open("rb") as stream:
            head = _HEAD.unpack(stream.read(_HEAD.size))
            offset, count, titles = head[6], head[12], head[13]
            stream.seek(offset)
            rows = [_SECTION.unpack(stream.read(_SECTION.size)) for _ in range(count)]
            stream.seek(rows[titles][4])
            names = stream.read(rows[titles][5])
    except (struct.error, IndexError) as e:
        raise LabError(f"{file} is no kernel") from e
    for title, _, _, address, *_ in rows:
        if names[title:].startswith(b".text\0"):
            return int(address)
    raise LabError(f"{file} has no code")
