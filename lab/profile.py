# SPDX-License-Identifier: GPL-2.0-or-later
"""Matrix files: TOML with every bad key told by file, line and name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lab import tomlfile
from lab.cell import MAX_SWAPS, STANDARD
from lab.errors import UsageError

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
    swaps: Annotated[int, Field(ge=1, le=MAX_SWAPS)] = 20
    seed: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None
    known: str | None = None  # a file of known failures, beside this one; see lab.known
    matrix: Annotated[list[Block], Field(min_length=1)]


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
    return tomlfile.load(path, Profile, example=PROFILES / "default.toml")
