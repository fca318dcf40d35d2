# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML files that a user writes, as types: whatever is wrong is told by file, line and key."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lab.errors import UsageError

_Model = TypeVar("_Model", bound=BaseModel)


def load(path: Path, model: type[_Model], *, example: Path) -> _Model:
    """Read a file; UsageError with file, line and key, and what is wrong there; `example` is one to look at."""
    hint = f"for an example see {example}"
    try:
        text = path.read_text()
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        at = re.search(r"\(at (?:line (\d+), column \d+|end of document)\)", str(e))
        line = at.group(1) if at and at.group(1) else str(len(text.splitlines()) or 1)
        what = str(e).partition(" (at ")[0]
        raise UsageError(f"{path}:{line}: not valid TOML: {what}", hint=hint) from e
    except UnicodeDecodeError as e:
        raise UsageError(f"{path}: not UTF-8 text", hint=hint) from e
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}", hint=hint) from e
    try:
        return model.model_validate(raw)
    except ValidationError as e:
        errors = e.errors(include_url=False)
        # A misspelt key is missing, too, under its right name.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        if first["type"] == "extra_forbidden":
            hint = f"known: {', '.join(_table(model, first['loc']).model_fields)}"
        raise UsageError(f"{path}:{_where(text, first['loc'])}: {_what(first)}", hint=hint) from e


def place(path: Path, *loc: int | str) -> str:
    """FILE:LINE: KEY of a place in a file that was read before: of a key, or of one in a [[table]] by its number."""
    try:
        return f"{path}:{_where(path.read_text(), loc)}"
    except (OSError, UnicodeDecodeError):
        return str(path)


def _where(text: str, loc: tuple[int | str, ...]) -> str:
    """LINE: KEY of a place in the file: the line of the key, inside the [[table]] it belongs to."""
    lines = text.splitlines()
    start, key, first = 0, ".".join(str(step) for step in loc), str(loc[0]) if loc else ""
    if len(loc) > 1 and isinstance(loc[1], int):
        heads = [at for at, line in enumerate(lines) if re.match(rf"\s*\[\[\s*{re.escape(first)}\s*\]\]", line)]
        start = heads[loc[1]] if loc[1] < len(heads) else 0
        key = ".".join(str(step) for step in loc[2:])
    name = next((str(step) for step in reversed(loc) if isinstance(step, str)), "")
    pattern = re.compile(rf"\s*\[*\s*[\"']?{re.escape(name)}[\"']?\s*(?:=|\])")
    line = next((at for at in range(start, len(lines)) if pattern.match(lines[at])), start)
    return f"{line + 1}: {key or name or first}"


def _what(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "list_type" and isinstance(error["input"], dict):
        return "there may be several of it, so it has two brackets: [[...]]"
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "should be")


def _table(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The type of the table that a key stands in: the file's own, or that of one of its [[tables]]."""
    if len(loc) < 3 or loc[0] not in model.model_fields:
        return model
    words = [model.model_fields[str(loc[0])].annotation]
    while words:
        word = words.pop()
        if isinstance(word, type) and issubclass(word, BaseModel):
            return word
        words += typing.get_args(word)
    return model
