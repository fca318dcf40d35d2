# SPDX-License-Identifier: GPL-2.0-or-later
"""Start a guest that stays, and put into it what its cell had."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab import dmesg, host, warm, workload
from lab.cell import Cell
from lab.errors import DeadlineError, GuestLost, LabError
from lab.kbuild import Build
from lab.keeper import Keeper, Stay
from lab.kerneltree import Tree
from lab.rack import open_rack
from lab.target import Target
from lab.workshop import RunOptions, Workshop

if TYPE_CHECKING:
    from lab.cellresult import CellResult

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """How a guest is to be started."""

    accel: str = "auto"
    build: str = "guest"
    connect: str = ""
    cold: bool = False
    freeze_on_splat: bool = False
    name: str | None = None
    trees: tuple[Tree, ...] = ()  # the user's own kernels


@dataclass(frozen=True, slots=True)
class Risen:
    """A guest that is up."""

    stay: Stay
    seconds: float  # until it answered, without what its modules' build took
    plan: workload.Plan | None  # what is loaded, or was to be
    trouble: str = ""  # why the modules are not loaded


@dataclass(slots=True)
class _Watch:
    """Looks at the console for splats; with `freeze` the first one stops the guest where it is."""

    freeze: bool
    stay: Stay | None = None
    first: str = ""
    _scanner: dmesg.Scanner = field(default_factory=dmesg.Scanner)

    def see(self, data: bytes) -> None:
        """Take what was printed, in the console's thread."""
        if self.freeze and not self.first and (found := self._scanner.feed(data)):
            self.first = found[0].decisive
            threading.Thread(target=self.act, name="freeze", daemon=True).start()  # see Guest.freeze

    def act(self) -> None:
        """Freeze the guest if there is reason to, and end what waits for it."""
        if self.first and self.stay is not None:
            try:
                self.stay.freeze(self.first)
            except LabError as e:
                log.warning("%s", e.message)
            self.stay.guest.give_up(self.first)


class _Notes:
    """An observer of a workshop that only tells."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note

    def cell_phase(self, cell: Cell, phase: str) -> None:
        """Nothing is shown."""

    def cell_done(self, cell: Cell, result: CellResult) -> None:
        """Nothing is shown."""


def rise(target: Target, wish: Wish, keeper: Keeper, stack: ExitStack, note: Callable[[str], None]) -> Risen:
    """Start the target's guest on a rack of its own, kept by `keeper`; `stack` holds the rack.

    Whether its modules could be loaded is told, not raised: then somebody wants to see why.
    """
    started_s = time.monotonic()
    rack = stack.enter_context(open_rack(uri=wish.connect, scale=host.speed()))
    options = RunOptions(
        swaps=target.swaps,
        seed=target.seed,
        accel=wish.accel,
        build=target.build or wish.build,
        connect=wish.connect,
        cold=wish.cold,
        mutant=target.mutant,
        kmod=target.kmod,
        trees=wish.trees,
    )
    workshop = Workshop(rack, options, _Notes(note))
    machine = workshop.machine(target.arch, target.kernel, target.hardware)
    building_s = time.monotonic()
    build = workshop.build(machine) if target.cell else None
    started_s += time.monotonic() - building_s
    watch = _Watch(wish.freeze_on_splat)
    console_log = rack.work / "console.log"
    with ExitStack() as own:
        guest = own.enter_context(
            warm.start(rack, machine, console_log=console_log, watch=watch.see, cold=wish.cold, progress=note)
        )
        seconds = time.monotonic() - started_s
        if wish.freeze_on_splat:
            guest.stop_at_splats()
        stay = keeper.keep(guest, own, name=wish.name, console_log=console_log, **_facts(target, build))
    watch.stay = stay
    watch.act()
    stay.begin_connection()
    stay.begin_shell()
    plan, trouble = None, ""
    try:
        if target.cell and build:
            plan = workload.cell_plan(target.cell, machine, swaps=target.swaps, seed=target.seed, mutant=target.mutant)
            workload.place(guest, plan, workshop.payload(build), scale=rack.scale)
            trouble = workload.load(guest, plan, scale=rack.scale)
    except (GuestLost, DeadlineError) as e:
        trouble = guest.lost or e.message
    return Risen(stay, seconds, plan, trouble or guest.lost)


def _facts(target: Target, build: Build | None) -> dict[str, Any]:
    """What a record has of a target."""
    return {
        "build": str(build.folder) if build else None,
        "cell": target.cell.id if target.cell else None,
        "folder": str(target.folder.resolve()) if target.folder else None,
    }
