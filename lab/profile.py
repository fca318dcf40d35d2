# SPDX-License-Identifier: GPL-2.0-or-later
"""Matrix files: TOML with every bad key told by file, line and name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.cell import MAX_SWAPS, STANDARD
from lab.errors import UsageError

PROFILES = Path(__file__).parent / "matrices"
DEFAULT = "default"
_EXAMPLE = f"for an example see {PROFILES / 'default.toml'}"

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
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
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


def _what(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "is missing"
    return str(error["msg"]).replace("Input should be", "should be")


def _hint(error: Any) -> str:
    if error["type"] != "extra_forbidden":
        return _EXAMPLE
    table = Block if error["loc"][0] == "matrix" else Profile
    return f"known: {', '.join(table.model_fields)}"
