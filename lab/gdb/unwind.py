# SPDX-License-Identifier: GPL-2.0-or-later
"""Callers on arm64, whose return addresses are signed: gdb takes the signature for a part of the address.

Runs inside gdb. In our modules' code the files' own call frame rules say where a caller's registers are; in the
kernel's, of which there are no rules without its debug information, the frame records do (x29 leads from one to the
next). On x86_64 gdb follows our modules' rules by itself, and `orc` leads through the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gdb
from gdb.unwinder import Unwinder, register_unwinder

from lab.gdb import guestmem
from lab.gdb.splat import FrameId
from lab.gdb.symbols import Modules

FP, LR, SP = 29, 30, 31
KEPT = range(19, 30)  # registers that a function keeps for its caller
ALL = 1 << 64


class SignedUnwinder(Unwinder):
    """Finds callers on arm64, in our modules and in the kernel."""

    def __init__(self, modules: Modules, kernel: range) -> None:
        super().__init__("hs-signed")
        self.modules, self.kernel = modules, kernel

    def __call__(self, pending_frame: Any) -> Any:
        """gdb asks: how does this frame's caller look?"""
        frame = pending_frame

        def value(number: int) -> int:
            return int(frame.read_register("sp" if number == SP else f"x{number}")) % ALL

        pc = int(frame.read_register("pc")) % ALL
        try:
            ours = self.modules.at(pc)
            if ours is not None:
                return self._by_rules(frame, pc, ours, value)
            if pc in self.kernel:
                return self._by_record(frame, pc, value)
        except (gdb.MemoryError, gdb.error, ValueError, IndexError):
            # The stack ends, or is damaged. gdb's own way needs a register that nobody knows any more.
            return self._end(frame, pc) if frame.level() else None
        return None

    def _by_rules(self, frame: Any, pc: int, ours: tuple[Any, str, int], value: Callable[[int], int]) -> Any:
        file, section, offset = ours
        rules = file.rules(section, offset)
        if rules is None:
            return self._by_record(frame, pc, value)
        top = value(rules.base) + rules.distance
        made = frame.create_unwind_info(FrameId(top, pc - offset + rules.start))
        registers = {number: value(number) for number in KEPT if number not in rules.saved}
        registers |= {number: guestmem.word(top + at) for number, at in rules.saved.items()}
        home = registers.pop(rules.home, None)
        self._save(frame, made, registers, top, plain(value(LR) if home is None else home))
        return made

    def _by_record(self, frame: Any, pc: int, value: Callable[[int], int]) -> Any:
        record = value(FP)
        above, back = guestmem.word(record), plain(guestmem.word(record + 8))
        if above and above <= record:
            return self._end(frame, pc)
        made = frame.create_unwind_info(FrameId(record, pc))
        # The record lies at the bottom of a frame: where the caller's is, there its stack pointer was.
        self._save(frame, made, {FP: above}, above or record + 16, back)
        return made

    def _end(self, frame: Any, pc: int) -> Any:
        sp = int(frame.read_register("sp")) % ALL
        made = frame.create_unwind_info(FrameId(sp, pc))
        self._save(frame, made, {}, sp, 0)
        return made

    @staticmethod
    def _save(frame: Any, made: Any, registers: dict[int, int], sp: int, pc: int) -> None:
        for name, one in [*((f"x{number}", one) for number, one in registers.items()), ("sp", sp), ("pc", pc)]:
            made.add_saved_register(name, gdb.Value(one).cast(frame.read_register(name).type))


def plain(address: int) -> int:
    """A return address without its signature: a kernel's has all upper bits set."""
    return address | 0xFF << 56 | 0x7F << 48 if address >> 55 & 1 else address & (1 << 48) - 1


def enable(modules: Modules, kernel: range) -> None:
    """From now on, for every frame."""
    register_unwinder(None, SignedUnwinder(modules, kernel), replace=True)
