# SPDX-License-Identifier: GPL-2.0-or-later
"""Callers on x86_64 inside the kernel, without its debug information: by its own unwind tables (ORC), read from memory.

Runs inside gdb. The kernel has them for its own backtraces (arch/x86/include/asm/orc_types.h): a sorted table of
addresses, and for each how the caller's stack pointer follows. Where an exception or interrupt came in, the caller's
registers are all known again, so a backtrace goes on into our modules with exactly those; there gdb has the modules'
own rules.
Of registers that a function keeps for its caller the tables know only rbp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import gdb
from gdb.unwinder import Unwinder, register_unwinder

from lab.gdb import guestmem
from lab.gdb.splat import FrameId, exception_registers

ALL = 1 << 64
SIZE = 6  # of an entry: two offsets, then registers and kind, 16 bits each
BY_BP, SP_MEMORY = 4, 9


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the tables' register numbers mean; they were given anew between 6.12 and 7.2."""

    base: dict[int, str]  # that a stack pointer follows from; from SP_MEMORY and bp_memory it is read
    by_stack: int  # the caller's stack pointer, from which the place of its rbp follows
    bp_memory: int


# By the number of rsp, which every function begins with.
NUMBERS = {
    5: Numbers({2: "rdx", 3: "rdi", 4: "rbp", 5: "rsp", 6: "r10", 7: "r13", 8: "rbp", 9: "rsp"}, 1, 8),
    3: Numbers({1: "rax", 2: "rdx", 3: "rsp", 4: "rbp", 5: "rdi", 6: "r10", 7: "r13", 9: "rsp", 10: "rbp"}, 8, 10),
}


class OrcUnwinder(Unwinder):
    """Finds callers in the kernel's own code."""

    def __init__(self, kernel: range, release: str) -> None:
        super().__init__("hs-orc")
        self.kernel = kernel
        self.addresses = guestmem.address_of("__start_orc_unwind_ip")
        self.count = (guestmem.address_of("__stop_orc_unwind_ip") - self.addresses) // 4
        self.entries = guestmem.address_of("__start_orc_unwind")
        # From 6.4 on the end of a stack is one of the kinds, which got a bit more for it.
        kinds = version(release) >= (6, 4)
        self.call, self.whole, self.part = (2, 3, 4) if kinds else (0, 1, 2)
        self.bits = 7 if kinds else 3
        first = guestmem.word(self.entries + SIZE * self._number(guestmem.address_of("panic")) + 4, 2)
        if first & 15 not in NUMBERS:
            raise ValueError(f"unknown unwind tables: a function begins with register {first & 15}")
        self.numbers = NUMBERS[first & 15]
        self.exact: set[int] = set()  # addresses at which something happened, not return addresses

    def __call__(self, pending_frame: Any) -> Any:
        """gdb asks: how does this frame's caller look?"""
        frame = pending_frame
        pc = int(frame.read_register("rip")) % ALL
        if pc not in self.kernel:
            return None
        try:
            return self._caller(frame, pc)
        except (gdb.MemoryError, gdb.error, ValueError):
            return None  # a damaged stack: gdb says where it ends

    def _caller(self, frame: Any, pc: int) -> Any:
        place = pc if frame.level() == 0 or pc in self.exact else pc - 1
        numbers, at = self.numbers, self.entries + SIZE * self._number(place)
        distance, below, rest = (guestmem.word(at + step, 2) for step in (0, 2, 4))
        base, kept, kind = rest & 15, rest >> 4 & 15, rest >> 8 & self.bits
        if base not in numbers.base:
            return None
        top = int(frame.read_register(numbers.base[base])) % ALL
        if base == SP_MEMORY:
            top = guestmem.word(top) + _signed(distance)
        elif base == numbers.bp_memory:
            top = guestmem.word(top + _signed(distance))
        else:
            top += _signed(distance)
        if kind == self.whole:
            registers = exception_registers(top, "rip")
        elif kind == self.part:
            registers = {"rip": guestmem.word(top), "rsp": guestmem.word(top + 24)}
        elif kind == self.call:
            registers = {"rip": guestmem.word(top - 8), "rsp": top}
            if kept in (numbers.by_stack, BY_BP):
                start = top if kept == numbers.by_stack else int(frame.read_register("rbp")) % ALL
                registers["rbp"] = guestmem.word(start + _signed(below))
            else:
                registers["rbp"] = int(frame.read_register("rbp")) % ALL
        else:
            return None
        if kind != self.call:
            self.exact.add(registers["rip"])
        made = frame.create_unwind_info(FrameId(top, pc))
        for name, value in registers.items():
            made.add_saved_register(name, gdb.Value(value).cast(frame.read_register(name).type))
        return made

    def _number(self, place: int) -> int:
        """Which entry an address falls under; each is relative to where it stands."""
        low, high = 0, self.count - 1
        while low < high:
            middle = (low + high + 1) // 2
            at = self.addresses + 4 * middle
            if (at + _signed(guestmem.word(at, 4), 32)) % ALL <= place:
                low = middle
            else:
                high = middle - 1
        return low


def _signed(value: int, bits: int = 16) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def version(release: str) -> tuple[int, ...]:
    """The first two numbers of a kernel's release."""
    return tuple(int(one) for one in re.findall(r"\d+", release)[:2])


def enable(kernel: range, release: str) -> None:
    """From now on, for every frame; `release` is the kernel's."""
    try:
        register_unwinder(None, OrcUnwinder(kernel, release), replace=True)
    except (ValueError, gdb.error) as e:
        print(f"backtraces end where the kernel begins: {e}")
