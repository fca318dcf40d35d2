# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that a run leaves standing because their cells failed: how many, and what is told of each."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from pathlib import Path

from lab.cellresult import CellResult
from lab.errors import LabError
from lab.guest import Guest
from lab.keeper import Keeper

log = logging.getLogger(__name__)

MOST = 8  # more than anybody looks at
# QEMU's own memory beside the guest's, and what must stay free for everybody else.
QEMU_MIB, SPARE_MIB = 256, 1024


class Kept:
    """Guests of failed cells. Methods may be called from several threads."""

    def __init__(self, keeper: Keeper, stack: ExitStack) -> None:
        self.stack = stack  # holds the rack they are on
        self.told: list[str] = []  # a line for each guest that stays or might have
        self._keeper = keeper
        self._lock = threading.Lock()

    def offer(self, result: CellResult, guest: Guest, stack: ExitStack, *, folder: Path, build: Path | None) -> None:
        """Take over a failed cell's guest, which `stack` ends, unless there are too many already or it has ended."""
        with self._lock:
            why = f"{result.status.value}: {result.reason}"
            if refusal := self._full(guest):
                self.told.append(f"{result.id} is not kept: {refusal}")
                return
            try:
                guest.freeze()
                stay = self._keeper.keep(
                    guest,
                    stack,
                    name=None,
                    console_log=folder / "console.log",
                    build=str(build.resolve()) if build else None,
                    cell=result.id,
                    folder=str(folder.resolve()),
                    frozen=why,
                )
            except (LabError, OSError) as e:
                self.told.append(f"{result.id} is not kept: {e.message if isinstance(e, LabError) else e}")
                return
            name = stay.record.name
            self.told.append(f"{name} stands still: {result.id} {why}")
            self.told.append(f"    lab gdb {name}, lab console {name}; lab down {name} ends it")

    def _full(self, guest: Guest) -> str:
        """Why no more guests are kept; nothing when there is room."""
        if not guest.rack.hypervisor.running(guest.name):
            return "its QEMU has ended"
        if len(self._keeper.records) >= MOST:
            return f"{MOST} guests are kept already"
        if available_mib() - SPARE_MIB < guest.machine.hardware.memory_mib + QEMU_MIB:
            return "the cells to come need the memory that is left"
        return ""


def available_mib() -> int:
    """The host's memory that is free to use."""
    with open("/proc/meminfo") as stream:
        for line in stream:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    return 1024
