# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cells to run: a profile in TOML, narrowed or widened on the command line, checked before anything starts.

A profile holds one or more [[matrix]] blocks; each is the product of its axes. A filter on an axis that names only
what the profile has narrows every block to it; one that names more replaces the axis in every block, so that a kernel
outside the profile can be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from lab import arch, catalogue, hardware
from lab.cell import Cell
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.profile import Block, Profile  # read only when names are known to be good: pydantic takes its time

AXES = ("arch", "kernel", "mechanism", "load", "hardware")


@dataclass(frozen=True, slots=True)
class Filters:
    """What the command line asks for, axis by axis; empty means all of the profile."""

    arch: Sequence[str] = ()
    kernel: Sequence[str] = ()
    mechanism: Sequence[str] = ()
    load: Sequence[str] = ()
    hardware: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """Every name an axis may hold; kernels with the architectures they are for."""

    kernel: Mapping[str, Sequence[str]]
    arch: Sequence[str] = field(default_factory=lambda: tuple(arch.ARCHES))
    mechanism: Sequence[str] = field(default_factory=lambda: tuple(catalogue.MECHANISMS))
    load: Sequence[str] = field(default_factory=lambda: tuple(catalogue.LOADS))
    hardware: Sequence[str] = field(default_factory=lambda: tuple(hardware.HARDWARE))

    def names(self, axis: str) -> tuple[str, ...]:
        """What an axis may hold."""
        return tuple(getattr(self, axis))


def check_names(filters: Filters, known: Known) -> None:
    """UsageError for the first name on the command line that no table has."""
    for axis in AXES:
        _check(axis, getattr(filters, axis), known)


def cells(
    wanted: Profile, filters: Filters, known: Known, *, source: str, place: Callable[[int, str], str]
) -> list[Cell]:
    """The cells of a profile under filters, in order, each once.

    In errors `source` names the profile, and `place` where its block of that number has an axis. UsageError for an
    unknown name, for a cell that cannot exist, and when nothing is left.
    """
    check_names(filters, known)
    for number, block in enumerate(wanted.matrix):
        for axis in AXES:
            _check(axis, getattr(block, axis), known, place=partial(place, number))
    found: dict[Cell, int] = {}
    for number, block in enumerate(wanted.matrix):
        axes = [_axis(wanted, block, axis, getattr(filters, axis)) for axis in AXES]
        for names in product(*axes):
            found.setdefault(Cell(*names), number)
    if not found:
        raise UsageError(
            f"no cell of {source} has {_told(filters)}", hint="ask for fewer at once, or try: lab list cells"
        )
    for cell, number in found.items():
        block = wanted.matrix[number]
        own = all(getattr(cell, axis) in getattr(block, axis) for axis in AXES)
        check_cell(cell, known, place=partial(place, number) if own else _nowhere)
    return list(found)


def _nowhere(_axis: str) -> str:
    """The place of what somebody typed."""
    return ""


def check_cell(cell: Cell, known: Known, *, place: Callable[[str], str] = _nowhere) -> None:
    """UsageError when a name of the cell is unknown, or the cell cannot exist; `place` says where an axis stands."""
    for axis in AXES:
        _check(axis, (getattr(cell, axis),), known, place=place)
    _check_arch(cell.id, cell.arch, cell.kernel, cell.hardware, known, place=place)


def check_machine(arch_name: str, kernel: str, hardware_name: str, known: Known) -> None:
    """UsageError when one of the names is unknown, or there is no such machine."""
    for axis, name in (("arch", arch_name), ("kernel", kernel), ("hardware", hardware_name)):
        _check(axis, (name,), known)
    _check_arch(f"{arch_name}/{kernel}", arch_name, kernel, hardware_name, known)


def _check_arch(
    what: str, arch_name: str, kernel: str, hardware_name: str, known: Known, *, place: Callable[[str], str] = _nowhere
) -> None:
    rows = (("kernel", kernel, known.kernel[kernel]), ("hardware", hardware_name, hardware.get(hardware_name).arches))
    for axis, name, arches in rows:
        if arch_name not in arches:
            raise UsageError(
                f"{_at(place(axis))}{what} cannot be: {axis} '{name}' is not for {arch_name}",
                hint=f"it is for {', '.join(arches)} alone; --arch {arches[0]} takes that part of a matrix",
            )


def _axis(wanted: Profile, block: Block, axis: str, asked: Sequence[str]) -> list[str]:
    mine: list[str] = getattr(block, axis)
    if not asked:
        return mine
    everywhere = {name for one in wanted.matrix for name in getattr(one, axis)}
    if set(asked) <= everywhere:
        return [name for name in asked if name in mine]
    return list(asked)


def _at(place: str) -> str:
    return f"{place}: " if place else ""


def _check(axis: str, names: Iterable[str], known: Known, *, place: Callable[[str], str] = _nowhere) -> None:
    for name in names:
        if name not in known.names(axis):
            label = "architecture" if axis == "arch" else axis
            raise UsageError(
                f"{_at(place(axis))}unknown {label} '{name}'", hint=f"known: {', '.join(known.names(axis))}"
            )


def _told(filters: Filters) -> str:
    return " ".join(f"--{axis} {name}" for axis in AXES for name in getattr(filters, axis))
