# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cells to run: a profile in TOML, narrowed or widened on the command line, checked before anything starts.

A profile holds one or more [[matrix]] blocks; each is the product of its axes. A filter on an axis that names only
what the profile has narrows every block to it; one that names more replaces the axis in every block, so that a kernel
outside the profile can be asked for.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab import arch, catalogue, hardware
from lab.cell import STANDARD, Cell
from lab.errors import UsageError

AXES = ("arch", "kernel", "mechanism", "load", "hardware")
PROFILES = Path(__file__).parent / "matrices"
DEFAULT = "default"

_Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Block(BaseModel):
    """One [[matrix]] table: the product of its axes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    arch: _Names
    kernel: _Names
    mechanism: _Names
    load: _Names
    hardware: _Names = [STANDARD]


class Profile(BaseModel):
    """A matrix file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    summary: str = ""
    swaps: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    matrix: Annotated[list[Block], Field(min_length=1)]


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


def profiles() -> dict[str, str]:
    """The profiles shipped with the lab and their summaries."""
    return {path.stem: load(path).summary for path in sorted(PROFILES.glob("*.toml"))}


def profile(name: str) -> Profile:
    """A profile shipped with the lab; UsageError naming the known ones otherwise."""
    known = sorted(path.stem for path in PROFILES.glob("*.toml"))
    if name not in known:
        raise UsageError(f"unknown profile '{name}'", hint=f"known: {', '.join(known)}")
    return load(PROFILES / f"{name}.toml")


def load(path: Path) -> Profile:
    """Read a matrix file; UsageError with file, line and key, and what is wrong there."""
    try:
        text = path.read_text()
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        at = re.search(r"\(at (?:line (\d+), column \d+|end of document)\)", str(e))
        line = at.group(1) if at and at.group(1) else str(len(text.splitlines()) or 1)
        what = str(e).partition(" (at ")[0]
        raise UsageError(f"{path}:{line}: not valid TOML: {what}", hint=_EXAMPLE) from e
    except UnicodeDecodeError as e:
        raise UsageError(f"{path}: not UTF-8 text", hint=_EXAMPLE) from e
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}", hint=_EXAMPLE) from e
    try:
        return Profile.model_validate(raw)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise UsageError(f"{path}:{_where(text, first['loc'])}: {_what(first)}", hint=_hint(first)) from e


def check_names(filters: Filters, known: Known) -> None:
    """UsageError for the first name on the command line that no table has."""
    for axis in AXES:
        _check(axis, getattr(filters, axis), known)


def cells(wanted: Profile, filters: Filters, known: Known, *, source: str) -> list[Cell]:
    """The cells of a profile under filters, in order, each once; `source` names the profile in errors.

    UsageError for an unknown name, for a cell that cannot exist, and when nothing is left.
    """
    check_names(filters, known)
    for block in wanted.matrix:
        for axis in AXES:
            _check(axis, getattr(block, axis), known, source=source)
    found: dict[Cell, None] = {}
    for block in wanted.matrix:
        axes = [_axis(wanted, block, axis, getattr(filters, axis)) for axis in AXES]
        for names in product(*axes):
            found[Cell(*names)] = None
    if not found:
        raise UsageError(
            f"no cell of {source} has {_told(filters)}", hint="ask for fewer at once, or try: lab list cells"
        )
    for cell in found:
        check_cell(cell, known)
    return list(found)


def check_cell(cell: Cell, known: Known) -> None:
    """UsageError when a name of the cell is unknown, or the cell cannot exist."""
    for axis in AXES:
        _check(axis, (getattr(cell, axis),), known)
    for axis, arches in (("kernel", known.kernel[cell.kernel]), ("hardware", hardware.get(cell.hardware).arches)):
        if cell.arch not in arches:
            raise UsageError(
                f"{cell.id} cannot be: {axis} '{getattr(cell, axis)}' is not for {cell.arch}",
                hint=f"it is for: {', '.join(arches)}; add --arch {arches[0]}",
            )


def _axis(wanted: Profile, block: Block, axis: str, asked: Sequence[str]) -> list[str]:
    mine: list[str] = getattr(block, axis)
    if not asked:
        return mine
    everywhere = {name for one in wanted.matrix for name in getattr(one, axis)}
    if set(asked) <= everywhere:
        return [name for name in asked if name in mine]
    return list(asked)


def _check(axis: str, names: Iterable[str], known: Known, *, source: str = "") -> None:
    for name in names:
        if name not in known.names(axis):
            label = "architecture" if axis == "arch" else axis
            where = f"{source}: " if source else ""
            raise UsageError(f"{where}unknown {label} '{name}'", hint=f"known: {', '.join(known.names(axis))}")


def _told(filters: Filters) -> str:
    return " ".join(f"--{axis} {name}" for axis in AXES for name in getattr(filters, axis))


_EXAMPLE = f"for an example see {PROFILES / 'default.toml'}"


def _where(text: str, loc: tuple[int | str, ...]) -> str:
    """LINE: KEY of a place in the file: the line of the key, inside the block it belongs to."""
    lines = text.splitlines()
    start, key = 0, ".".join(str(step) for step in loc)
    if loc and loc[0] == "matrix" and len(loc) > 1 and isinstance(loc[1], int):
        heads = [at for at, line in enumerate(lines) if re.match(r"\s*\[\[\s*matrix\s*\]\]", line)]
        start = heads[loc[1]] if loc[1] < len(heads) else 0
        key = ".".join(str(step) for step in loc[2:])
    name = next((str(step) for step in reversed(loc) if isinstance(step, str)), "")
    pattern = re.compile(rf"\s*\[*\s*[\"']?{re.escape(name)}[\"']?\s*(?:=|\])")
    line = next((at for at in range(start, len(lines)) if pattern.match(lines[at])), start)
    return f"{line + 1}: {key or name or 'matrix'}"


def _what(error: object) -> str:
    assert isinstance(error, dict)
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "is missing"
    return str(error["msg"]).replace("Input should be", "should be")


def _hint(error: object) -> str:
    assert isinstance(error, dict)
    if error["type"] != "extra_forbidden":
        return _EXAMPLE
    table = Block if error["loc"][0] == "matrix" else Profile
    return f"known: {', '.join(table.model_fields)}"
