# SPDX-License-Identifier: GPL-2.0-or-later
"""What a shell completes: names of guests, cells and runs. Asked at every Tab, so nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from lab.commands import options as opt
from lab.errors import LabError


def guests(incomplete: str) -> list[str]:
    """Guests that stay."""
    from lab import stayed

    with suppress(LabError):
        return [one.name for one in stayed.every() if one.name.startswith(incomplete)]
    return []


GuestName = Annotated[
    str | None,
    typer.Argument(
        metavar="[GUEST]", help="Its name, see: lab ps; not needed for the only one.", autocompletion=guests
    ),
]


def places(incomplete: str) -> list[str]:
    """A file of a guest, as far as its guest's name; the shell itself completes files of the host."""
    return [f"{name}:" for name in guests(incomplete)]


def cells(incomplete: str) -> list[str]:
    """Cells on standard hardware."""
    with suppress(LabError):
        return [name for name in _cells() if name.startswith(incomplete)]
    return []


def runs(incomplete: str) -> list[str]:
    """Runs where they are kept by default, the newest first."""
    found = _runs(opt.RESULTS)
    return [name for name in (["latest", *found] if found else []) if name.startswith(incomplete)]


def targets(incomplete: str) -> list[str]:
    """What can be started: kernels, cells once a kernel is there, and cells of runs once a run is."""
    with suppress(LabError):
        first, slash, _ = incomplete.partition("/")
        named = runs(first)
        if slash and first in named:
            return [name for name in _cells_of(opt.RESULTS / first, first) if name.startswith(incomplete)]
        pairs = [f"{arch}/{kernel}" for arch, kernel in _pairs()]
        deeper = incomplete.count("/") > 1
        found = [*(_cells() if deeper else pairs), *(f"{name}/" for name in named if not slash)]
        return [name for name in found if name.startswith(incomplete)]
    return []


def _pairs() -> list[tuple[str, str]]:
    from lab import recipe

    return sorted((arch, name) for name, one in recipe.recipes().items() for arch in one.arches)


def _cells() -> Iterator[str]:
    from lab import catalogue

    for (arch, kernel), mechanism, load in product(_pairs(), catalogue.MECHANISMS, catalogue.LOADS):
        yield f"{arch}/{kernel}/{mechanism}/{load}"


def _runs(results: Path) -> list[str]:
    names = {path.parent.name for path in results.glob("[!.]*/run.json") if not path.parent.is_symlink()}
    return sorted(names, reverse=True)


def _cells_of(run: Path, name: str) -> list[str]:
    folder = run / "cells"
    found = {path.parent.relative_to(folder) for path in folder.glob("*/*/*/*/*") if path.is_file()}
    return [f"{name}/{cell}" for cell in sorted(map(str, found))]
