# SPDX-License-Identifier: GPL-2.0-or-later
"""From options to cells: quick checks of names first, then the matrix file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab import kerneltree, matrix
from lab.cell import Cell
from lab.commands.options import Choice
from lab.errors import UsageError
from lab.matrix import Filters, Known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kerneltree import Tree
    from lab.known import Entry
    from lab.profile import Profile

DEFAULT_SWAPS = 20
_URIS = {"embed": "qemu:///embed", "session": "qemu:///session", "system": "qemu:///system"}


def check(choice: Choice, trees: Sequence[Tree] = ()) -> Filters:
    """What the options ask for; a name given twice counts once. UsageError for an unknown one."""
    kernels = [name for name in choice.kernel or () if not (trees and kerneltree.is_path(name))]
    kernels += [tree.name for tree in trees]
    # A tree is for one architecture: a matrix of it has no others, unless somebody asks for them.
    arches = choice.arch or ([tree.arch.name for tree in trees] if trees and len(kernels) == len(trees) else ())
    asked = (arches, kernels, choice.mechanism, choice.load, choice.hardware)
    wanted = Filters(*(tuple(dict.fromkeys(names or ())) for names in asked))
    matrix.check_names(wanted, known(trees))
    return wanted


def known(trees: Sequence[Tree] = ()) -> Known:
    """Every name there is, and those of kernels of the user's own."""
    from lab import recipe

    kernels = {name: one.arches for name, one in recipe.recipes().items()}
    for tree in trees:
        kernels[tree.name] = (*kernels.get(tree.name, ()), tree.arch.name)
    return Known(kernel=kernels)


def trees(kernels: Sequence[str] | None, userland: str) -> tuple[Tree, ...]:
    """The build trees among what --kernel names. UsageError for one that no guest can be made of."""
    read = (kerneltree.read(Path(name), userland=userland) for name in kernels or () if kerneltree.is_path(name))
    found = tuple(dict.fromkeys(read))
    for at, tree in enumerate(found):
        if (same := kerneltree.pick(found[:at], tree.name, tree.arch)) is not None:
            told = f"{same.path} and {tree.path} are both {tree.name} for {tree.arch.name}"
            raise UsageError(told, hint="set CONFIG_LOCALVERSION, or run one after the other")
    return found


def check_cell(cell: Cell, trees: Sequence[Tree] = ()) -> None:
    """UsageError for an unknown name or a cell that cannot be."""
    matrix.check_cell(cell, known(trees))


def check_machine(arch: str, kernel: str, hardware: str) -> None:
    """UsageError for an unknown name or a machine that cannot be."""
    matrix.check_machine(arch, kernel, hardware, known())


def cells(choice: Choice, trees: Sequence[Tree] = ()) -> tuple[list[Cell], Profile]:
    """The cells of a matrix file or a profile, and the profile itself."""
    wanted, file, name = check(choice, trees), choice.matrix, choice.profile
    from lab import profile, tomlfile

    if file and name:
        raise UsageError("-m and --profile exclude each other", hint="give one of them")
    chosen = profile.load(file) if file else profile.profile(name or profile.DEFAULT)
    source = str(file) if file else f"profile {name or profile.DEFAULT}"

    def place(number: int, axis: str) -> str:
        return tomlfile.place(file, "matrix", number, axis) if file else source

    return matrix.cells(chosen, wanted, known(trees), source=source, place=place), chosen


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
