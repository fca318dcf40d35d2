# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed between two runs: which cells turned red, which green."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.cellresult import CellResult
from lab.errors import UsageError
from lab.results import read_run, runs
from lab.verdict import Status

# Of a run's order: runs in which one of these differs say nothing of each other's changes.
_SAME = ("source", "cells", "mutant", "kmod", "kernels")


class Turn(StrEnum):
    """What became of a cell."""

    RED = "red"  # somebody has to look at it, and had not before
    GREEN = "green"  # it was red, and passes
    OTHER = "other"  # another verdict, as PASS and then SKIP, or FAIL and then a known one
    NEW = "new"  # only the later run has it
    GONE = "gone"  # only the earlier one has it


@dataclass(frozen=True, slots=True)
class Change:
    """One cell."""

    cell: str
    turn: Turn
    before: str  # its verdict, or a dash
    after: str
    reason: str  # of the later verdict


def between(before: Sequence[CellResult], after: Sequence[CellResult]) -> list[Change]:
    """The cells whose verdicts differ, red ones first, then in the order of the runs."""
    old, new = {one.id: one for one in before}, {one.id: one for one in after}
    found = []
    for name in dict.fromkeys([*new, *old]):
        was, now = old.get(name), new.get(name)
        if _verdict(was) != _verdict(now):
            found.append(Change(name, _turn(was, now), _verdict(was), _verdict(now), now.reason if now else ""))
    order = list(Turn)
    return sorted(found, key=lambda change: order.index(change.turn))


def told(changes: Sequence[Change], *, before: str, after: str) -> str:
    """A summary: one line, then one per cell."""
    counts = [(turn, sum(change.turn is turn for change in changes)) for turn in Turn]
    words = ", ".join(f"{count} {turn.value}" for turn, count in counts if count) or "no verdict changed"
    width = max((len(change.cell) for change in changes), default=0)
    lines = [f"{before or 'nothing'} -> {after}: {words}"]
    for one in changes:
        lines.append(f"{one.turn.value:<5}  {one.cell:<{width}}  {one.before} -> {one.after}  {one.reason}".rstrip())
    return "\n".join(lines) + "\n"


def previous(path: Path, head: Mapping[str, Any]) -> Path | None:
    """The newest finished run beside the one in `path`, begun before it, of the same cells and modules."""
    names = runs(path.parent)
    for name in names[names.index(path.name) + 1 :] if path.name in names else ():
        try:
            other = read_run(path.parent / name)
        except UsageError:
            continue  # broken: it cannot be compared with
        same = all(other["matrix"].get(key) == head["matrix"].get(key) for key in _SAME)
        if same and other.get("finished"):
            return path.parent / name
    return None


def _verdict(result: CellResult | None) -> str:
    return result.verdict if result else "-"


def _turn(was: CellResult | None, now: CellResult | None) -> Turn:
    if now is None:
        return Turn.GONE
    if now.red and not (was and was.red):
        return Turn.RED
    if was is None:
        return Turn.NEW
    return Turn.GREEN if was.red and now.status is Status.PASS else Turn.OTHER
