# SPDX-License-Identifier: GPL-2.0-or-later
"""Failures that are known: listed in a file with a reason and a day on which somebody has to look again.

A red cell that an entry describes (pattern, verdict and words) is shown as what it is and does not count. An entry
past its day describes nothing any more: its cells count again. ERROR cannot be listed: it says nothing of the product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lab import profile, tomlfile
from lab.cellresult import CellResult
from lab.verdict import Status

EXAMPLE = profile.PROFILES / "known" / "nightly.toml"

_Words = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f\x7f]*$")]


def _day(value: object) -> object:
    """A day as TOML has it, or as run.json does."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as e:
        raise ValueError("should be a date, like 2027-01-31") from e


class Entry(BaseModel):
    """One [[known]] table."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cell: _Words  # of cells' names, with * ? [] as in a shell; * spans slashes
    status: Literal["FAIL", "CRASH", "HANG"]
    text: _Words  # what the cell's reason must hold
    reason: _Words  # why it is known: words, or a link
    expires: Annotated[date, BeforeValidator(_day)]  # the last day on which it holds

    def describes(self, result: CellResult) -> bool:
        """Whether this is the failure, whatever the day."""
        return self.covers(result) and result.status == self.status and self.text in result.reason

    def covers(self, result: CellResult) -> bool:
        """Whether this is one of the cells."""
        return fnmatchcase(result.id, self.cell)


class _File(BaseModel):
    """A file of known failures."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    known: list[Entry] = []


def load(path: Path) -> tuple[Entry, ...]:
    """The entries of a file; UsageError with file, line and key, and what is wrong there."""
    return tuple(tomlfile.load(path, _File, example=EXAMPLE).known)


def of_run(head: Mapping[str, Any]) -> tuple[tuple[Entry, ...], date]:
    """The entries that a run keeps in its run.json, and the day that counts for them: the one on which it began."""
    entries = tuple(Entry.model_validate(one) for one in head["matrix"].get("known") or ())
    return entries, date.fromisoformat(str(head["started"])[:10]) if entries else date.min


def marked(result: CellResult, head: Mapping[str, Any]) -> CellResult:
    """The result, with the reason in `known` when its failure is a known one in this run."""
    entries, today = of_run(head)
    for one in entries:
        if one.describes(result) and today <= one.expires:
            return dataclasses.replace(result, known=f"{one.reason} (until {one.expires})")
    return result


def review(head: Mapping[str, Any], results: Sequence[CellResult]) -> list[str]:
    """What to do about a run's entries: those past their day, and those that described nothing. One line each."""
    entries, today = of_run(head)
    lines = []
    for one in entries:
        here = [result for result in results if one.covers(result)]
        met = [result for result in here if one.describes(result)]
        name = f"known failure '{one.cell}' {one.status} '{one.text}'"
        if today > one.expires:
            counts = f"{len(met)} of its cells count again" if met else "and none of its cells failed so: remove it"
            lines.append(f"{name} expired on {one.expires}: {counts}")
        elif not here:
            lines.append(f"{name}: none of its cells is in this run")
        elif not met and all(result.status is Status.PASS for result in here):
            lines.append(f"{name}: its cells pass now ({len(here)}): remove it if that lasts")
        elif not met:
            lines.append(f"{name}: no cell failed so")
    return lines
