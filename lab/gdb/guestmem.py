# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's memory, read through gdb: its list of modules, and what per-CPU counters add up to.

Runs inside gdb. Types come from the DWARF of our own modules, which were compiled against this very kernel's headers;
addresses of the kernel's own data from its symbols. A guest is hostile, a crashed one is damaged: every walk is
bounded, and what is text is cleaned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gdb

STEPS_MAX = 4096  # of a list
SECTIONS_MAX = 512  # of a module
NAME_MAX = 64


def address_of(name: str) -> int:
    """Where a symbol of the kernel lies; gdb.error when it has none of that name."""
    return int(gdb.parse_and_eval(f"(unsigned long long)&'{name}'"))


def word(address: int, size: int = 8) -> int:
    """An unsigned number in memory."""
    return int.from_bytes(bytes(gdb.selected_inferior().read_memory(address, size)), "little")


def text(address: int, limit: int = NAME_MAX) -> str:
    """A string in memory, cut and cleaned."""
    data = bytearray()
    while len(data) < limit:
        try:
            data += bytes(gdb.selected_inferior().read_memory(address + len(data), 1))
        except gdb.MemoryError:
            break
        if data.endswith(b"\0"):
            break
    return printable(bytes(data))


def printable(data: bytes) -> str:
    """What comes before the first zero, with everything replaced that a terminal might take for a command."""
    said = data.split(b"\0")[0].decode("ascii", errors="replace")
    return "".join(one if " " <= one <= "~" else "?" for one in said)


def listed(head: int, offset: int, kind: gdb.Type) -> Iterator[Any]:
    """The members of a list_head's list, the list_head at `offset` in each."""
    at = word(head)
    for _ in range(STEPS_MAX):
        if at == head or at == 0:
            return
        yield gdb.Value(at - offset).cast(kind.pointer()).dereference()
        at = word(at)


def offset(kind: Any, *path: str) -> int:
    """Bytes from the beginning of a structure to a member, or to a member of a member. KeyError when it has none."""
    total = 0
    for name in path:
        inside, kind = _member(kind, name)
        total += inside
    return total


def _member(kind: Any, name: str) -> tuple[int, Any]:
    """Where a member is, and its type; those of structures without a name are the structure's own."""
    for one in kind.fields():
        if one.name == name:
            return int(one.bitpos) // 8, one.type
        if not one.name:
            try:
                inside, found = _member(one.type, name)
            except KeyError:
                continue
            return int(one.bitpos) // 8 + inside, found
    raise KeyError(f"{kind} has no {name}")


def quoted(word: object) -> str:
    """One word of a gdb command, whatever it holds."""
    text = str(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


class Layout:
    """What must be known of the kernel's structures to find its modules: numbers, the file is closed again."""

    def __init__(self, file: Path) -> None:
        gdb.execute(f"add-symbol-file {quoted(file)} 0", to_string=True)
        try:
            module = gdb.lookup_type("struct module")
            binary = gdb.lookup_type("struct bin_attribute")
            group = gdb.lookup_type("struct attribute_group")
            self.link, self.name = offset(module, "list"), offset(module, "name")
            self.sections = offset(module, "sect_attrs")
            self.list, self.title = offset(group, "bin_attrs"), offset(binary, "attr", "name")
            self.private, self.size = offset(binary, "private"), binary.sizeof
        finally:
            gdb.execute(f"remove-symbol-file {quoted(file)}", to_string=True)


def modules(layout: Layout) -> dict[str, dict[str, int]]:
    """Every loaded module, and where each of its sections lies."""
    found = {}
    head = address_of("modules")
    at = word(head)
    for _ in range(STEPS_MAX):
        if at == head or at == 0:
            break
        start = at - layout.link
        try:
            found[text(start + layout.name)] = sections(layout, word(start + layout.sections))
        except gdb.MemoryError:
            pass  # damaged; the others may be whole
        at = word(at)
    return found


def sections(layout: Layout, attributes: int) -> dict[str, int]:
    """What /sys/module/NAME/sections shows.

    The files' list ends with a null pointer. A file's section address is its `private` from 6.14 on, and before that,
    where `private` is not used, the word behind it.
    """
    found: dict[str, int] = {}
    if not attributes:
        return found
    files = word(attributes + layout.list)
    for number in range(SECTIONS_MAX):
        file = word(files + 8 * number)
        if not file:
            break
        found[text(word(file + layout.title))] = word(file + layout.private) or word(file + layout.size)
    return found


def cpus() -> int:
    """How many CPUs the guest has: each is a thread of gdb's."""
    return len(gdb.selected_inferior().threads())


def per_cpu(pointer: int) -> list[int]:
    """Where each CPU's share of something per-CPU lies."""
    offsets = address_of("__per_cpu_offset")
    return [(pointer + word(offsets + 8 * cpu)) & (1 << 64) - 1 for cpu in range(cpus())]
