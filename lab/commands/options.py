# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands share, alone and in groups."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from lab.cell import MAX_SWAPS
from lab.kerneltree import USERLAND

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


class Keep(StrEnum):
    """Which guests stay after a run."""

    none = "none"
    failed = "failed"


Arches = Annotated[list[str] | None, typer.Option("--arch", metavar="A", help="Only this architecture; repeatable.")]
Kernels = Annotated[
    list[str] | None,
    typer.Option("--kernel", metavar="K", help="Only this kernel, or the build tree of one; repeatable."),
]
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
KeepWhich = Annotated[Keep, typer.Option("--keep", help="Guests that stay, frozen, when their cells fail.")]
KmodDir = Annotated[
    Path | None,
    typer.Option("--kmod", metavar="DIR", help="Editions of your own, one C file each; see examples/edition."),
]
KernelTree = Annotated[
    Path | None, typer.Option("--kernel", metavar="PATH", help="The build tree of the kernel that the cell names.")
]
Userland = Annotated[
    str, typer.Option("--userland", metavar="K", help="Whose user land goes with a kernel build tree.")
]
Connect = Annotated[str, typer.Option("--connect", metavar="URI", help="libvirt: embed, session, system or a URI.")]
ResultsDir = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where runs are kept.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the results.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more; twice: everything.")]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which cells."""

    matrix: MatrixFile = None
    profile: ProfileName = None
    arch: Arches = None
    kernel: Kernels = None
    mechanism: Mechanisms = None
    load: Loads = None
    hardware: Machines = None


@dataclass(frozen=True, slots=True)
class How:
    """How to run them."""

    swaps: SwapCount = None
    seed: Seed = None
    accel: Accel = AccelWish.auto
    build: BuildWhere = BuildPlace.guest
    dry_run: DryRun = False
    results: ResultsDir = RESULTS
    cold: Cold = False
    mutant: MutantName = None
    keep: KeepWhich = Keep.none
    kmod: KmodDir = None
    userland: Userland = USERLAND
    connect: Connect = "embed"
    as_json: Json = False
    quiet: Quiet = False
    verbose: Verbose = 0


_T = TypeVar("_T")


def grouped(command: Callable[..., _T]) -> Callable[..., _T]:
    """A command for typer: each parameter that is a group stands for its fields, an option each."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}

    @functools.wraps(command)
    def wrapper(**words: Any) -> _T:
        made = {
            name: group(**{field.name: words.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        return command(**made, **words)

    parameters = list(_parameters(command, hints))
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapper


def _parameters(command: Callable[..., Any], hints: dict[str, Any]) -> Iterator[inspect.Parameter]:
    """A command's parameters, with its groups' fields in their place."""
    for name, one in inspect.signature(command).parameters.items():
        if not dataclasses.is_dataclass(hints[name]):
            yield one.replace(kind=one.KEYWORD_ONLY, annotation=hints[name])
            continue
        kinds = get_type_hints(hints[name], include_extras=True)
        for field in dataclasses.fields(hints[name]):
            yield inspect.Parameter(field.name, one.KEYWORD_ONLY, default=field.default, annotation=kinds[field.name])
