# SPDX-License-Identifier: GPL-2.0-or-later
"""What `lab up` is to start: a bare machine, a cell, or what a cell of a finished run had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lab.cell import STANDARD, Cell
from lab.errors import UsageError
from lab.kerneltree import USERLAND

LOAD = "syscall"  # of a mechanism that was asked for without a load
SWAPS = 20
HINT = "it is ARCH/KERNEL, a cell (lab list cells), or RUN/CELL; each may end in @HARDWARE"


@dataclass(frozen=True, slots=True)
class Target:
    """A guest to start, and what is loaded into it."""

    arch: str
    kernel: str
    hardware: str = STANDARD
    cell: Cell | None = None  # none: nothing is loaded
    folder: Path | None = None  # of the cell's results
    swaps: int = SWAPS
    seed: int = 1
    mutant: str = ""
    build: str = ""  # where modules are built; empty: as asked on the command line
    kmod: str = ""  # folder of the user's own editions
    kernels: tuple[str, ...] = ()  # build trees of the user's own kernels, one of which may be this one's
    userland: str = USERLAND  # whose user land goes with those


def parse(text: str, *, results: Path, mechanism: str | None = None, hardware: str | None = None) -> Target:
    """The target of a word; UsageError when it is none, names no cell of a run, or contradicts the options."""
    name, _, machine = text.partition("@")
    parts = name.split("/")
    if hardware and machine and hardware != machine:
        raise UsageError(f"'{text}' and --hardware {hardware} exclude each other", hint="leave one of them out")
    machine = machine or hardware or STANDARD
    if not all(parts[-4:]) or len(parts) not in (2, 4) and len(parts) < 5:
        raise UsageError(f"'{text}' is nothing that can be started", hint=HINT)
    if len(parts) == 2:
        bare = Target(arch=parts[0], kernel=parts[1], hardware=machine)
        return replace(bare, cell=Cell(parts[0], parts[1], mechanism, LOAD, machine)) if mechanism else bare
    cell = replace(Cell.parse("/".join(parts[-4:])), hardware=machine)
    if mechanism:
        raise UsageError(f"{cell.id} has a mechanism already", hint="leave --mechanism out")
    target = Target(arch=cell.arch, kernel=cell.kernel, hardware=cell.hardware, cell=cell)
    return target if len(parts) == 4 else _as_it_was(target, cell, results, "/".join(parts[:-4]))


def _as_it_was(target: Target, cell: Cell, results: Path, run: str) -> Target:
    """The same with everything that the cell of a run had."""
    from lab.results import locate, read_run

    path = locate(results, run)
    head = read_run(path)
    folder = path / "cells" / cell.id
    if cell.id not in head["matrix"]["cells"] or not folder.is_dir():
        raise UsageError(f"run {path.name} has no cell {cell.id}", hint=f"lab report {run} lists what it has")
    kept = head["matrix"]
    return replace(
        target,
        folder=folder,
        swaps=kept.get("swaps") or SWAPS,
        seed=head["seed"],
        mutant=kept.get("mutant") or "",
        build=kept.get("build") or "",
        kmod=kept.get("kmod") or "",
        kernels=tuple(kept.get("kernels") or ()),
        userland=kept.get("userland") or USERLAND,
    )
