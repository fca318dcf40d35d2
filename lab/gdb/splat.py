# SPDX-License-Identifier: GPL-2.0-or-later
"""Back to where the kernel was when it complained: `hs splat`, and a backtrace that begins at the faulting instruction.

Runs inside gdb. A guest that is frozen at its splat stands in the code that prints it. The registers of the fault
itself are what the console said of them, or, where it was stopped before they were printed, the exception's frame on
the stack. An unwinder makes that frame the caller of frame 0 on the CPU that complained, with exactly these registers,
and from there the modules' own call frame rules lead on. Nothing is written to the guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import gdb
from gdb.FrameDecorator import FrameDecorator
from gdb.unwinder import Unwinder, register_unwinder

from lab.gdb import guestmem
from lab.gdb.symbols import Modules

STACK = 16 << 10  # bytes of a kernel stack that are searched
NAMES = {"x86_64": ("rip", "rsp"), "aarch64": ("pc", "sp")}
STALE = "the CPU has gone on since then: the registers are the fault's, callers and memory may not be"
ALL = 1 << 64
FRAMES = 16  # functions inlined where a CPU stands, at most
DEPTH = 48  # frames that are looked at for stacks
FLAGS = ("eflags", "cpsr")


class FrameId:
    """gdb's name of a frame."""

    def __init__(self, sp: int, pc: int) -> None:
        self.sp = gdb.Value(sp)
        self.pc = gdb.Value(pc)


class Fault:
    """Where a CPU was when its kernel complained."""

    def __init__(self, told: dict[str, Any], registers: dict[str, int], pc: str, whence: str) -> None:
        self.headline, self.cpu = str(told["headline"]), int(told["cpu"])
        self.who = f"{told['comm'] or '?'}, pid {told['pid']}"
        self.registers = registers
        self.pc, self.whence = registers[pc], whence
        self.stale = False  # the CPU has left the fault: what lies on the stack now may be of later calls


class FaultUnwinder(Unwinder):
    """The innermost frame of the CPU that complained was called, so to speak, by the faulting frame.

    Known by where the CPU stands now: functions that are inlined there have frames of their own, below it.
    """

    def __init__(self, fault: Fault, pc: str, sp: str) -> None:
        super().__init__("hs-splat")
        self.fault, self.pc, self.sp = fault, pc, sp
        self.here = (register(pc), register(sp))

    def __call__(self, pending_frame: Any) -> Any:
        """gdb asks: how does this frame's caller look?"""
        frame = pending_frame
        at = int(frame.read_register(self.pc)) % ALL
        if cpu_of(gdb.selected_thread()) != self.fault.cpu or at != self.here[0]:
            return None
        if int(frame.read_register(self.sp)) % ALL != self.here[1]:
            return None
        sp = self.fault.registers[self.sp]
        made = frame.create_unwind_info(FrameId(sp - 16, at))
        for name, value in self.fault.registers.items():
            if name in FLAGS:
                continue  # gdb makes no such value out of a number
            kind = frame.read_register(name).type
            made.add_saved_register(name, gdb.Value(value).cast(kind))
        return made


class FaultFilter:
    """Lets a backtrace say the faulting instruction's own line: gdb, taking it for a call, looks a byte before it."""

    def __init__(self, fault: Fault) -> None:
        self.name, self.priority, self.enabled = "hs-splat", 100, True
        self.fault = fault
        gdb.frame_filters[self.name] = self

    def filter(self, frames: Iterator[Any]) -> Iterator[Any]:
        """gdb's frames, one of them in other words."""
        return (FaultDecorator(one) if self._is(one.inferior_frame()) else one for one in frames)

    def _is(self, frame: gdb.Frame) -> bool:
        return frame.pc() == self.fault.pc and cpu_of(gdb.selected_thread()) == self.fault.cpu


class KernelFilter:
    """Ends a backtrace where the kernel does: what called it has memory of its own, and no symbols here."""

    def __init__(self) -> None:
        self.name, self.priority, self.enabled = "hs-kernel", 200, True
        gdb.frame_filters[self.name] = self

    def filter(self, frames: Iterator[Any]) -> Iterator[Any]:
        """gdb's frames up to the first that is no kernel's."""
        return takewhile(lambda one: one.inferior_frame().level() == 0 or one.inferior_frame().pc() >> 63, frames)


class FaultDecorator(FrameDecorator):
    """The faulting frame."""

    def line(self) -> int | None:
        """The line of the faulting instruction itself."""
        where = gdb.find_pc_line(self.inferior_frame().pc())
        return where.line if where.symtab else super().line()


class Splat(gdb.Command):
    """What the kernel complained of, the registers it had then, and the line of the faulting instruction."""

    def __init__(self, fault: Fault | None) -> None:
        super().__init__("hs splat", gdb.COMMAND_STACK)
        self.fault = fault

    def invoke(self, _argument: str, _from_tty: bool) -> None:
        """hs splat"""
        if self.fault is None:
            raise gdb.GdbError("the console tells of no splat with registers")
        select(self.fault)
        print(self.fault.headline)
        print(f"on CPU {self.fault.cpu}, {self.fault.who}; registers from {self.fault.whence}")
        print(f"at {place(self.fault.pc)}")
        if self.fault.stale:
            print(STALE)
        items = [f"{name:<6} {value:016x}" for name, value in self.fault.registers.items()]
        for start in range(0, len(items), 4):
            print("  ".join(items[start : start + 4]))


def place(pc: int) -> str:
    """An instruction in words: address, function, file and line."""
    block, where = gdb.block_for_pc(pc), gdb.find_pc_line(pc)
    while block is not None and block.function is None:
        block = block.superblock
    name = f" {block.function.name}" if block is not None and block.function is not None else ""
    line = f" ({where.symtab.fullname()}:{where.line})" if where.symtab else ""
    return f"{pc:#x}{name}{line}"


def cpu_of(thread: gdb.InferiorThread | None) -> int:
    """QEMU numbers the threads of its stub from 1, one per CPU."""
    return thread.ptid[1] - 1 if thread is not None else -1


def select(fault: Fault) -> None:
    """Make the CPU that complained the current one."""
    for thread in gdb.selected_inferior().threads():
        if cpu_of(thread) == fault.cpu:
            thread.switch()


def find(told: list[dict[str, Any]], modules: Modules, arch: str, *, frozen: bool) -> Fault | None:
    """The newest splat of which the registers are known; of a guest that runs, only what its console said."""
    pc, sp = NAMES[arch]
    for one in reversed(told):
        registers = {name: int(value) for name, value in one["registers"].items()}
        named = {name: modules.resolve(str(value)) for name, value in one["symbols"].items()}
        address = named.pop("pc", None)
        if address is not None and sp in registers:
            registers |= {name: value for name, value in named.items() if value is not None}
            fault = Fault(one, {**registers, pc: address}, pc, "the console")
            select(fault)
            fault.stale = not any(0 <= registers[sp] - start < STACK for start in stacks(sp))
            return fault
    if not frozen:
        return None
    unknown = {"headline": "the console does not say what happened", "cpu": -1, "comm": "?", "pid": "?", "symbols": {}}
    for one in [*reversed(told), unknown]:
        address = modules.resolve(str(one["symbols"].get("pc", "")))
        for thread in gdb.selected_inferior().threads():
            if cpu_of(thread) == int(one["cpu"]) or one is unknown:
                thread.switch()
                if found := from_stack(modules, address, pc, sp):
                    return Fault({**one, "cpu": cpu_of(thread)}, found, pc, "the exception's frame on the stack")
    return None


def from_stack(modules: Modules, at: int | None, pc: str, sp: str) -> dict[str, int] | None:
    """The registers an exception left on a stack of the current CPU, above all that runs since.

    An exception's frame lies right below where the stack pointer was: it is known by a stack pointer in it that
    points to its own end, and by an instruction that is the one named, or in our code.
    """
    try:
        kind = gdb.lookup_type("struct pt_regs")
    except gdb.error:
        return None  # no module of ours and no debug information: nobody knows what a frame looks like
    names = _names(kind, pc)
    for here in stacks(sp):
        if found := _on_stack(modules, at, here, kind.sizeof, names, pc, sp):
            return found
    return None


def stacks(sp: str) -> list[int]:
    """Where each stack that the current CPU is on is in use: an interrupt that came since has one of its own."""
    found: list[int] = []
    frame: gdb.Frame | None = gdb.newest_frame()
    try:
        for _ in range(DEPTH):
            if frame is None:
                break
            at = int(frame.read_register(sp)) % ALL & ~7
            if not any(0 <= at - start < STACK for start in found):
                found.append(at)
            frame = frame.older()
    except gdb.error:
        pass  # the backtrace ends here
    return found


def _on_stack(
    modules: Modules, at: int | None, here: int, size: int, names: dict[str, int], pc: str, sp: str
) -> dict[str, int] | None:
    memory = b""
    for page in range(here & ~0xFFF, here + STACK, 0x1000):
        try:
            memory += bytes(gdb.selected_inferior().read_memory(max(page, here), page + 0x1000 - max(page, here)))
        except gdb.MemoryError:
            break  # the stack ends
    for start in range(0, len(memory) - size, 8):
        found = {
            name: int.from_bytes(memory[start + place : start + place + 8], "little") for name, place in names.items()
        }
        end = here + start + size
        inside = found[pc] == at if at is not None else modules.holds(found[pc])
        if inside and 0 <= found[sp] - end < 16:
            return found
    return None


def register(name: str) -> int:
    """A register of the current CPU, as it is now."""
    return int(gdb.parse_and_eval(f"(unsigned long long)${name}")) % ALL


def _names(kind: gdb.Type, pc: str) -> dict[str, int]:
    """gdb's names of registers, and where each is in struct pt_regs."""
    if pc == "pc":
        regs = guestmem.offset(kind, "regs")
        found = {f"x{number}": regs + 8 * number for number in range(31)}
        return {**found, "sp": guestmem.offset(kind, "sp"), "pc": guestmem.offset(kind, "pc")}
    short = ("bx", "cx", "dx", "si", "di", "bp", "ax", "ip", "sp")
    found = {f"r{name}": guestmem.offset(kind, name) for name in short}
    return found | {f"r{number}": guestmem.offset(kind, f"r{number}") for number in range(8, 16)}


def exception_registers(at: int, pc: str) -> dict[str, int]:
    """The registers of a struct pt_regs in memory, by gdb's names."""
    return {name: guestmem.word(at + place) for name, place in _names(gdb.lookup_type("struct pt_regs"), pc).items()}


def enable(fault: Fault, arch: str) -> None:
    """From now on backtraces of that CPU begin with the faulting frame."""
    select(fault)
    register_unwinder(None, FaultUnwinder(fault, *NAMES[arch]), replace=True)
    FaultFilter(fault)


def level(fault: Fault) -> int:
    """Which frame the fault is now."""
    frame: gdb.Frame | None = gdb.newest_frame()
    for number in range(FRAMES):
        if frame is None or frame.pc() == fault.pc:
            return number
        frame = frame.older()
    return 1
