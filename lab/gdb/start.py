# SPDX-License-Identifier: GPL-2.0-or-later
"""What `lab gdb` has gdb do first: connect to the guest, load symbols where the guest has them, add our commands.

Runs inside gdb. What is known of the guest is in the JSON file that LAB_GDB names (see lab/debugger.py). A guest that
ran before runs on when gdb leaves; one that was frozen stays so, since QEMU takes "detach" for "go on", and a
connection that ends for nothing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import gdb

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from lab.gdb import guestmem, hs, orc, script, splat, unwind  # noqa: E402
from lab.gdb.guestmem import quoted  # noqa: E402
from lab.gdb.symbols import Modules  # noqa: E402


class Prefix(gdb.Command):
    """What the hot-swap core knows: hs slots, editions, refs, records, splat."""

    def __init__(self) -> None:
        super().__init__("hs", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


class Leave(gdb.Command):
    """End the connection and leave the guest as it was found: frozen."""

    def __init__(self, name: str) -> None:
        super().__init__(name, gdb.COMMAND_RUNNING)

    def invoke(self, _argument: str, _from_tty: bool) -> None:
        """detach: what gdb itself would do lets the guest run"""
        gdb.execute("disconnect")


class Kill(gdb.Command):
    """Not here: QEMU would end, and with it everything that is known of the guest."""

    def __init__(self, name: str) -> None:
        super().__init__("kill", gdb.COMMAND_RUNNING)
        self.guest = name

    def invoke(self, _argument: str, _from_tty: bool) -> None:
        """kill"""
        raise gdb.GdbError(f"to end the guest: lab down {self.guest}")


def settings(facts: dict[str, Any]) -> None:
    """How gdb behaves, and where it finds sources."""
    for words in (
        "backtrace limit 64",
        "pagination off",
        "confirm off",
        "print pretty on",
        "python print-stack message",
    ):
        gdb.execute(f"set {words}")
    if not facts["script"]:
        gdb.execute("set pagination on")
    for old, new in facts["sources"]:
        gdb.execute(f"set substitute-path {quoted(old)} {quoted(new)}")


def connect(facts: dict[str, Any]) -> None:
    """To QEMU's stub, which stops the guest; from here on leaving is taken care of."""
    gdb.execute(f"target remote {facts['socket']}", to_string=True)
    Kill(str(facts["name"]))
    if facts["frozen"]:
        Leave("detach")
        gdb.events.gdb_exiting.connect(lambda _event: _disconnect())


def _disconnect() -> None:
    try:
        gdb.execute("disconnect", to_string=True)
    except gdb.error:
        pass  # there is no connection any more


def kernel_thread(head: int) -> None:
    """Choose a CPU that sees the kernel's memory: one that runs a program may have it hidden (page table isolation)."""
    for thread in gdb.selected_inferior().threads():
        thread.switch()
        try:
            guestmem.word(head)
            return
        except gdb.MemoryError:
            continue
    raise gdb.GdbError("every CPU runs a program and hides the kernel's memory: leave, and try again")


def start(facts: dict[str, Any]) -> None:
    """All of it."""
    settings(facts)
    gdb.execute(f"symbol-file -o {facts['moved']:#x} {quoted(facts['kernel'])}", to_string=True)
    connect(facts)
    kernel_thread(guestmem.address_of("modules"))
    modules = Modules(Path(facts["build"]) if facts["build"] else None, Path(os.environ["LAB_GDB"]).parent)
    kernel = range(guestmem.address_of("_stext"), guestmem.address_of("_etext"))
    if facts["arch"] == "aarch64":
        unwind.enable(modules, kernel)
    elif not facts["full"]:
        orc.enable(kernel, str(facts["release"]))
    splat.KernelFilter()
    fault = splat.find(facts["splats"], modules, facts["arch"], frozen=bool(facts["frozen"]))
    Prefix()
    for command in (hs.Slots, hs.Editions, hs.Refs, hs.Records):
        command()
    splat.Splat(fault)
    print(f"{facts['name']}: {facts['arch']}, Linux {facts['release']}, symbols of {len(modules.names)} modules")
    if modules.gone:
        print(f"unloaded, shown where they were: {', '.join(modules.gone)}")
    if facts["frozen"]:
        print(f"frozen: {guestmem.printable(facts['frozen'].encode())}")
    if fault is not None and facts["frozen"]:
        splat.enable(fault, facts["arch"])
        print(f"the fault is frame {splat.level(fault)} of CPU {fault.cpu}: {splat.place(fault.pc)}")
        if fault.stale:
            print(splat.STALE)
    print("hs slots, hs editions, hs refs, hs records, hs splat; bt")


told = json.loads(Path(os.environ["LAB_GDB"]).read_text())
try:
    start(told)
except Exception as e:  # whatever it is, what was to follow makes no sense
    print(f"lab: gdb cannot show the guest: {e}", file=sys.stderr)
    gdb.execute(f"quit {told['refused']}")
if told["python"]:
    script.run(told["python"])
