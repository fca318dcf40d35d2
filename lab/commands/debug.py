# SPDX-License-Identifier: GPL-2.0-or-later
"""lab gdb, lab dump: looking into a guest that stays, from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.commands import complete
from lab.errors import Exit, LabError, UsageError

DUMP_S = 600.0
GDB_FAILED = 1  # what gdb says when a script failed

More = Annotated[list[str] | None, typer.Argument(metavar="[-- ARGS]...", help="More words for gdb.")]
Script = Annotated[Path | None, typer.Option(metavar="FILE", help="Run gdb commands or Python; no terminal needed.")]


def gdb(guest: complete.GuestName = None, more: More = None, script: Script = None) -> int:
    """Open gdb on a guest: symbols of its kernel and of our modules where they are loaded, and commands of ours.

    hs slots, hs editions, hs refs, hs records show the module table; hs splat and bt where the kernel complained. A
    running guest stands still until gdb leaves; a frozen one stays frozen. With --script the exit code is 1 when the
    script failed.

    Example: lab gdb aarch64-trixie --script look.gdb
    """
    from lab import debugger, stayed

    words = list(more or ())
    if guest is not None and guest.startswith("-"):  # lab gdb -- ARGS: the words are gdb's
        words = [guest, *words]
        guest = None
    status = debugger.run(stayed.find(guest), script=script, more=words)
    if status < 0 or status == debugger.REFUSED:
        return Exit.INFRA
    if script is None or status == Exit.OK:  # of a gdb that somebody typed in, the code is the last word of nobody
        return Exit.OK
    return Exit.FAILED if status == GDB_FAILED else Exit.INFRA


def dump(
    guest: Annotated[str, typer.Argument(metavar="GUEST", help="Which guest: lab ps.", autocompletion=complete.guests)],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="By default GUEST.core in this folder.")] = None,
) -> None:
    """Write a guest's memory into an ELF core with the kernel's vmcoreinfo, for crash and drgn.

    It is as large as the guest's memory, and holds everything that was in it, keys too. Both programs need the kernel's
    debug information: lab image debug.

    Example: lab dump aarch64-trixie /tmp/trixie.core
    """
    from lab import stayed

    record = stayed.find(guest)
    target = (file or Path(f"{record.name}.core")).absolute()
    if target.is_dir() or not target.parent.is_dir():
        raise UsageError(f"{target}: {'a folder' if target.is_dir() else 'no such folder'}", hint="name a file")
    stayed.ask(record, {"do": "dump", "to": str(target)}, timeout_s=DUMP_S)
    if not target.is_file():
        raise LabError(f"{target} was not written", hint=f"lab down {record.name}, and lab up once more")
    print(f"{target} ({target.stat().st_size >> 20} MiB)")
