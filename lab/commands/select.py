# SPDX-License-Identifier: GPL-2.0-or-later
"""From options to cells: quick checks of names first, then the matrix file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import matrix
from lab.cell import Cell
from lab.commands.options import Choice
from lab.errors import UsageError
from lab.matrix import Filters, Known

if TYPE_CHECKING:
    from pathlib import Path

    from lab.known import Entry
    from lab.profile import Profile

DEFAULT_SWAPS = 20
_URIS = {"embed": "qemu:///embed", "session": "qemu:///session", "system": "qemu:///system"}


def check(choice: Choice) -> Filters:
    """What the options ask for; a name given twice counts once. UsageError for an unknown one."""
    asked = (choice.arch, choice.kernel, choice.mechanism, choice.load, choice.hardware)
    wanted = Filters(*(tuple(dict.fromkeys(names or ())) for names in asked))
    matrix.check_names(wanted, known())
    return wanted


def known() -> Known:
    """Every name there is."""
    from lab import recipe

    return Known(kernel={name: one.arches for name, one in recipe.recipes().items()})


def check_cell(cell: Cell) -> None:
    """UsageError for an unknown name or a cell that cannot be."""
    matrix.check_cell(cell, known())


def check_machine(arch: str, kernel: str, hardware: str) -> None:
    """UsageError for an unknown name or a machine that cannot be."""
    matrix.check_machine(arch, kernel, hardware, known())


def cells(choice: Choice) -> tuple[list[Cell], Profile]:
    """The cells of a matrix file or a profile, and the profile itself."""
    wanted, file, name = check(choice), choice.matrix, choice.profile
    from lab import profile

    if file and name:
        raise UsageError("-m and --profile exclude each other", hint="give one of them")
    chosen = profile.load(file) if file else profile.profile(name or profile.DEFAULT)
    source = str(file) if file else f"profile {name or profile.DEFAULT}"
    return matrix.cells(chosen, wanted, known(), source=source), chosen


def source(choice: Choice) -> str:
    """The matrix's name in a run: runs of one source are compared with each other."""
    return str(choice.matrix.resolve()) if choice.matrix else f"profile {choice.profile or 'default'}"


def known_failures(choice: Choice, chosen: Profile, asked: Path | None) -> tuple[Entry, ...]:
    """The known failures of a file, or of the one that the matrix names; its path is relative to the matrix's."""
    if asked is None and chosen.known is None:
        return ()
    from lab import known, profile

    folder = choice.matrix.parent if choice.matrix else profile.PROFILES
    return known.load(asked or folder / str(chosen.known))


def uri(connect: str) -> str:
    """libvirt's URI of a short name; a URI stays itself."""
    if connect in _URIS:
        return _URIS[connect]
    if ":" not in connect:
        raise UsageError(f"unknown connection '{connect}'", hint=f"known: {', '.join(_URIS)}, or a libvirt URI")
    return connect
