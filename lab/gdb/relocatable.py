# SPDX-License-Identifier: GPL-2.0-or-later
"""A module's file, as far as an unwinder and a splat's symbols need it: sections, symbols, call frame rules.

Runs inside gdb, whose Python has the standard library only; needs nothing of gdb. Little-endian ELF64, as the kernel
loads it: symbols and rules are relative to their section.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

_HEAD, _SECTION = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ")
_SYMBOL, _RELA = struct.Struct("<IBBHQQ"), struct.Struct("<QQq")
_SYMTAB, _RELA_TABLE = 2, 4
_ALLOC, _EXEC = 2, 4
_ADDRESS = 16  # where a section's row has its address


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the file."""

    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int

    @property
    def code(self) -> bool:
        """Whether it stays in memory and is executed; what runs at loading only is gone by then."""
        return self.flags & (_ALLOC | _EXEC) == _ALLOC | _EXEC and not self.name.startswith(".init")


@dataclass(frozen=True, slots=True)
class Symbol:
    """One name, at an offset of a section."""

    name: str
    section: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How to find the caller of a function at one instruction: DWARF's numbers of registers, offsets in bytes."""

    start: int  # of the function, in its section
    base: int  # register from which the caller's stack pointer follows
    distance: int  # bytes between the two
    saved: dict[int, int]  # register -> where its value is, from the caller's stack pointer
    home: int  # register that holds the return address, where it is not saved


@dataclass(slots=True)
class _State:
    base: int = 0
    distance: int = 0
    saved: dict[int, int] = field(default_factory=dict)

    def copy(self) -> _State:
        return _State(self.base, self.distance, dict(self.saved))


@dataclass(frozen=True, slots=True)
class _Common:
    code_factor: int
    data_factor: int
    home: int
    program: bytes


class Relocatable:
    """A file that was read; raises ValueError when it is no such file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = path.read_bytes()
        try:
            head = _HEAD.unpack_from(self._data)
            table, count, names = head[6], head[12], head[13]
            self._table = (table, count)
            rows = [_SECTION.unpack_from(self._data, table + number * _SECTION.size) for number in range(count)]
        except (struct.error, IndexError, OverflowError) as e:
            raise ValueError(f"{path} is no module") from e
        if head[0][:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is no module of a 64-bit little-endian machine")
        titles = rows[names][4]
        self.sections = [
            Section(self._text(titles + row[0]), row[1], row[2], row[4], row[5], row[6], row[7], row[8]) for row in rows
        ]

    def symbols(self) -> list[Symbol]:
        """Every name that lies in a section."""
        found = []
        for table in self.sections:
            if table.kind != _SYMTAB:
                continue
            names = self.sections[table.link].offset
            for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
                name, _, _, section, value, size = _SYMBOL.unpack_from(self._data, at)
                if 0 < section < len(self.sections):
                    found.append(Symbol(self._text(names + name), section, value, size))
        return found

    def code_offsets(self) -> dict[str, int]:
        """Where the sections of code lie in the memory the kernel gives a module for them: in order, aligned."""
        offsets, at = {}, 0
        for section in self.sections:
            if section.code:
                at = -(-at // max(1, section.align)) * max(1, section.align)
                offsets[section.name] = at
                at += section.size
        return offsets

    def for_gdb(self, folder: Path) -> Path:
        """The file itself, or a copy in which every section begins at zero.

        Sections that a linker script gathered on arm64 have addresses that mean nothing; gdb takes them at their word,
        and then looks for all data in the code.
        """
        (table, count), changed = self._table, bytearray(self._data)
        for number in range(count):
            struct.pack_into("<Q", changed, table + number * _SECTION.size + _ADDRESS, 0)
        if changed == self._data:
            return self.path
        copy = folder / self.path.name
        copy.write_bytes(changed)
        return copy

    def rules(self, section: str, offset: int) -> Rules | None:
        """What `.debug_frame` says of the instruction at that offset of a section; None when it says nothing."""
        number = next((i for i, one in enumerate(self.sections) if one.name == section), None)
        frames = next((one for one in self.sections if one.name == ".debug_frame"), None)
        if number is None or frames is None:
            return None
        targets = self._targets(frames)
        at, end = frames.offset, frames.offset + frames.size
        while at + 8 <= end:
            length, common = struct.unpack_from("<II", self._data, at)
            after = at + 4 + length
            inside = at - frames.offset
            if common != 0xFFFFFFFF:
                where, start = targets.get(inside + 8, (0, 0))
                (size,) = struct.unpack_from("<Q", self._data, at + 16)
                if where == number and start <= offset < start + size:
                    about = self._common(frames.offset + targets.get(inside + 4, (0, common))[1])
                    return self._run(about, self._data[at + 24 : after], start, offset)
            at = after
        return None

    def _targets(self, section: Section) -> dict[int, tuple[int, int]]:
        """Of each place of a section that is relocated: the section and offset that it means."""
        number = self.sections.index(section)
        targets = {}
        for table in self.sections:
            if table.kind != _RELA_TABLE or table.info != number:
                continue
            symbols = self.sections[table.link]
            for at in range(table.offset, table.offset + table.size, _RELA.size):
                place, info, addend = _RELA.unpack_from(self._data, at)
                row = _SYMBOL.unpack_from(self._data, symbols.offset + (info >> 32) * _SYMBOL.size)
                targets[place] = (row[3], row[4] + addend)
        return targets

    def _common(self, at: int) -> _Common:
        """What several functions have in common (a CIE)."""
        (length,) = struct.unpack_from("<I", self._data, at)
        end, version, at = at + 4 + length, self._data[at + 8], at + 9
        at = self._data.index(b"\0", at) + 1 + (2 if version >= 4 else 0)
        code, at = _unsigned(self._data, at)
        data, at = _signed(self._data, at)
        home, at = _unsigned(self._data, at) if version > 1 else (self._data[at], at + 1)
        return _Common(code, data, home, self._data[at:end])

    def _run(self, about: _Common, program: bytes, start: int, offset: int) -> Rules | None:
        state = _State()
        if _steps(about, about.program, state, None, 0, 0) is None:
            return None
        first = state.copy()
        if _steps(about, program, state, first, start, offset) is None:
            return None
        return Rules(start, state.base, state.distance, state.saved, about.home)

    def _text(self, at: int) -> str:
        return self._data[at : self._data.index(b"\0", at)].decode(errors="replace")


def _steps(about: _Common, program: bytes, state: _State, first: _State | None, at: int, stop: int) -> _State | None:
    """Follow call frame instructions up to the one in force at `stop`; None for a rule that we do not know."""
    kept: list[_State] = []
    pc = 0
    while pc < len(program):
        code, pc = program[pc], pc + 1
        kind, low = code & 0xC0, code & 0x3F
        if kind == 0x40 or code in (0x02, 0x03, 0x04):  # advance
            size = {0x02: 1, 0x03: 2, 0x04: 4}.get(code, 0)
            step = low if kind == 0x40 else int.from_bytes(program[pc : pc + size], "little")
            at, pc = at + step * about.code_factor, pc + size
            if first is not None and at > stop:
                return state
        elif kind == 0x80:  # offset
            value, pc = _unsigned(program, pc)
            state.saved[low] = value * about.data_factor
        elif kind == 0xC0 or code in (0x06, 0x07, 0x08):  # restore, undefined, same value
            number, pc = (low, pc) if kind == 0xC0 else _unsigned(program, pc)
            state.saved.pop(number, None)
            if kind == 0xC0 or code == 0x06:
                if first is not None and number in first.saved:
                    state.saved[number] = first.saved[number]
        elif code in (0x05, 0x11):  # offset, extended
            number, pc = _unsigned(program, pc)
            value, pc = _unsigned(program, pc) if code == 0x05 else _signed(program, pc)
            state.saved[number] = value * about.data_factor
        elif code in (0x0C, 0x12):  # define the base and the distance
            state.base, pc = _unsigned(program, pc)
            value, pc = _unsigned(program, pc) if code == 0x0C else _signed(program, pc)
            state.distance = value if code == 0x0C else value * about.data_factor
        elif code == 0x0D:
            state.base, pc = _unsigned(program, pc)
        elif code in (0x0E, 0x13):
            value, pc = _unsigned(program, pc) if code == 0x0E else _signed(program, pc)
            state.distance = value if code == 0x0E else value * about.data_factor
        elif code == 0x0A:
            kept.append(state.copy())
        elif code == 0x0B and kept:
            old = kept.pop()
            state.base, state.distance, state.saved = old.base, old.distance, old.saved
        elif code == 0x2E:  # size of arguments
            _, pc = _unsigned(program, pc)
        elif code not in (0x00, 0x2D):  # nothing; the return address is signed from here on (arm64)
            return None
    return state


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _signed(data: bytes, at: int) -> tuple[int, int]:
    start = at
    value, at = _unsigned(data, at)
    bits = 7 * (at - start)
    return (value - (1 << bits) if value >> (bits - 1) else value), at
