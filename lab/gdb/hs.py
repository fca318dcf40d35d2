# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb commands for the module table: `hs slots`, `hs editions`, `hs refs`, `hs records`.

Runs inside gdb. Everything is read from memory with the modules' own types, so a frozen guest tells as much as a
running one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gdb

from lab.gdb import guestmem

STATES = ("live", "retired", "gone")
COUNTS = ("enter", "exit", "failed", "aborted")
DEPTH_MAX = 64  # of records on top of each other


class Slots(gdb.Command):
    """The module table: each slot, who answers it, and whether a swap is under way."""

    def __init__(self) -> None:
        super().__init__("hs slots", gdb.COMMAND_DATA)

    def invoke(self, _argument: str, _from_tty: bool) -> None:
        """hs slots"""
        rows: list[tuple[str, ...]] = [
            ("slot", "mechanism", "edition", "version", "newest", "swaps", "users", "retiring")
        ]
        for slot in slots():
            ref = named(slot["ref"])
            rows.append(
                (
                    string(slot["name"]),
                    guestmem.text(int(slot["mechanism"]["name"])) if int(slot["mechanism"]) else "-",
                    ref,
                    str(int(slot["ref"]["version"])) if ref != "-" else "-",
                    *(str(int(slot[name])) for name in ("newest", "swaps", "users")),
                    named(slot["retiring"]),
                )
            )
        table(rows)


class Editions(gdb.Command):
    """Every edition that ever registered, by slot: its state, version, and references in flight over all CPUs."""

    def __init__(self) -> None:
        super().__init__("hs editions", gdb.COMMAND_DATA)

    def invoke(self, _argument: str, _from_tty: bool) -> None:
        """hs editions"""
        rows: list[tuple[str, ...]] = [("slot", "edition", "module", "version", "state", "in flight", "code at")]
        for slot, ref in editions():
            state = int(ref["state"])
            rows.append(
                (
                    string(slot["name"]),
                    string(ref["name"]),
                    string(ref["module"]),
                    str(int(ref["version"])),
                    STATES[state] if state < len(STATES) else f"state {state}",
                    str(sum(row[0] - row[1] - row[2] - row[3] for row in shares(ref))),
                    f"{int(ref['text']):#x}",
                )
            )
        table(rows)


class Refs(gdb.Command):
    """References of the editions that have counters, CPU by CPU: taken, dropped, failed, cut off, in flight.

    A reference may be taken on one CPU and dropped on another: only the sum says how many are in flight.
    """

    def __init__(self) -> None:
        super().__init__("hs refs", gdb.COMMAND_DATA)

    def invoke(self, _argument: str, _from_tty: bool) -> None:
        """hs refs"""
        rows: list[tuple[str, ...]] = [
            ("edition", "version", "cpu", "taken", "dropped", "failed", "cut off", "in flight")
        ]
        for _, ref in editions():
            found = shares(ref)
            if not int(ref["count"]) or not found:
                continue
            head = (string(ref["name"]), str(int(ref["version"])))
            total = [sum(column) for column in zip(*found, strict=True)]
            for cpu, row in [*enumerate(found), ("all", total)]:
                left = row[0] - row[1] - row[2] - row[3]
                rows.append((*head, str(cpu), *(str(one) for one in row), str(left)))
        table(rows)


class Records(gdb.Command):
    """The recovery records of mechanism invalidate: who is inside which edition, innermost call first."""

    def __init__(self) -> None:
        super().__init__("hs records", gdb.COMMAND_DATA)

    def invoke(self, _argument: str, _from_tty: bool) -> None:
        """hs records"""
        rows: list[tuple[str, ...]] = [("task", "pid", "depth", "edition", "version", "stack", "preempt", "rcu", "")]
        for task, top in guarded():
            guard = top
            for depth in range(DEPTH_MAX):
                if not int(guard):
                    break
                about = guard.dereference()
                rows.append(
                    (
                        string(task["comm"]),
                        str(int(task["pid"])),
                        str(depth),
                        named(about["ref"]),
                        str(int(about["ref"]["version"])),
                        f"{int(about['sp']):#x}",
                        f"{int(about['preempt']):#x}",
                        str(int(about["rcu"])),
                        "probe" if int(about["probe"]) else "",
                    )
                )
                guard = about["below"]
        table(rows)


def core(name: str) -> Any:
    """A variable of one of our modules; gdb.GdbError when none that is loaded has it."""
    for objfile in gdb.objfiles():
        if objfile.filename and objfile.filename.endswith(".ko"):
            symbol = objfile.lookup_static_symbol(name) or objfile.lookup_global_symbol(name)
            if symbol is not None:
                return symbol.value()
    raise gdb.GdbError(
        "none of the lab's modules is in this guest: lab up --mechanism M, or lab up CELL, puts them there"
    )


def slots() -> Iterator[Any]:
    """Every entry of the module table."""
    head = int(core("slots").address)
    kind = gdb.lookup_type("struct hs_slot")
    return guestmem.listed(head, guestmem.offset(kind, "node"), kind)


def editions() -> Iterator[tuple[Any, Any]]:
    """Every record of the reference manager with its slot, oldest first."""
    for slot in slots():
        kind = gdb.lookup_type("struct hs_ref")
        for ref in guestmem.listed(int(slot["refs"].address), guestmem.offset(kind, "node"), kind):
            yield slot, ref


def shares(ref: Any) -> list[tuple[int, int, int, int]]:
    """Each CPU's counters of an edition; none once it is gone."""
    pointer = int(ref["count"])
    if not pointer:
        return []
    kind = gdb.lookup_type("struct hs_count")
    places = [guestmem.offset(kind, name) for name in COUNTS]
    rows = []
    for at in guestmem.per_cpu(pointer):
        enter, exit_, failed, aborted = (guestmem.word(at + place) for place in places)
        rows.append((enter, exit_, failed, aborted))
    return rows


def guarded() -> Iterator[tuple[Any, Any]]:
    """Tasks that are inside an edition, and the innermost record of each."""
    array = core("guarded")
    kind = gdb.lookup_type("struct hs_guarded")
    task, top = guestmem.offset(kind, "task"), guestmem.offset(kind, "top")
    memory = bytes(gdb.selected_inferior().read_memory(int(array.address), array.type.sizeof))
    for at in range(0, len(memory), kind.sizeof):
        who = int.from_bytes(memory[at + task : at + task + 8], "little")
        record = int.from_bytes(memory[at + top : at + top + 8], "little")
        if who and record:
            yield (
                gdb.Value(who).cast(gdb.lookup_type("struct task_struct").pointer()).dereference(),
                gdb.Value(record).cast(gdb.lookup_type("struct hs_guard").pointer()),
            )


def named(ref: Any) -> str:
    """The edition's name of a pointer to its record, which may be null."""
    return string(ref["name"]) if int(ref) else "-"


def string(array: Any) -> str:
    """An array of characters."""
    return guestmem.text(int(array.address), array.type.sizeof)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Rows as columns; the first one is their heads."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(one.ljust(width) for one, width in zip(row, widths, strict=True)).rstrip())
