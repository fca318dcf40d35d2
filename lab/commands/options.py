# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lab.cell import MAX_SWAPS

RESULTS = Path("results")


class AccelWish(StrEnum):
    """Which accelerator to use."""

    auto = "auto"
    kvm = "kvm"
    tcg = "tcg"


class BuildPlace(StrEnum):
    """Where modules are built."""

    guest = "guest"
    host = "host"


Arches = Annotated[list[str] | None, typer.Option("--arch", metavar="A", help="Only this architecture; repeatable.")]
Kernels = Annotated[list[str] | None, typer.Option("--kernel", metavar="K", help="Only this kernel; repeatable.")]
Mechanisms = Annotated[
    list[str] | None, typer.Option("--mechanism", metavar="M", help="Only this mechanism; repeatable.")
]
Loads = Annotated[list[str] | None, typer.Option("--load", metavar="L", help="Only this load; repeatable.")]
Machines = Annotated[list[str] | None, typer.Option("--hardware", metavar="H", help="Only this hardware; repeatable.")]
MatrixFile = Annotated[Path | None, typer.Option("--matrix", "-m", metavar="FILE", help="A matrix file of your own.")]
ProfileName = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="A matrix of the lab's: smoke, default or nightly.")
]
SwapCount = Annotated[
    int | None, typer.Option("--swaps", min=1, max=MAX_SWAPS, help="Swaps per cell.", show_default="the matrix's")
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=1, max=(1 << 63) - 1, help="Repeat a run's choices.", show_default="random")
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Guests at once; 0: by cores and memory.")]
Accel = Annotated[AccelWish, typer.Option("--accel", help="Accelerator.")]
BuildWhere = Annotated[BuildPlace, typer.Option("--build", help="Where modules are built.")]
Cold = Annotated[bool, typer.Option("--cold", help="Boot every guest instead of restoring it.")]
MutantName = Annotated[
    str | None, typer.Option("--mutant", metavar="NAME", help="Load a broken variant; see: lab list mutants.")
]
Connect = Annotated[str, typer.Option("--connect", metavar="URI", help="libvirt: embed, session, system or a URI.")]
ResultsDir = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where runs are kept.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the results.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more; twice: everything.")]
