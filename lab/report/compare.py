# SPDX-License-Identifier: GPL-2.0-or-later
"""Mechanisms side by side: one row each, over its finished cells, in a table per load, architecture and accelerator.

A row compares with a row of its table only: other loads ask for other work, and emulation is never compared with
hardware. Counts are sums; a time is that of the worst cell, since a mechanism is as slow as where it is slowest. What
some of the cells did not tell makes a figure a lower bound, and what none told is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from lab import catalogue
from lab.catalogue import Oracle
from lab.cellresult import CellResult
from lab.report.figures import NONE, Bound, bound, count, duration
from lab.verdict import Status

HEADS = (
    "mechanism",
    "cells",
    "calls lost",
    "rounds torn",
    "gap",
    "p99.9 before",
    "during",
    "drained",
    "cut off / again",
    "at once",
    "old code gone",
)
NOTE = (
    "Counts are sums over a row's cells, times are its worst cell's; drained is a median over its swaps. At once: "
    "editions that answered calls at the same time; in brackets by the order of a swap, not counted. Old code gone: "
    "what the mechanism goes by; where calls through old addresses were tried, how many, and all faulted."
)
_FINISHED = (Status.PASS, Status.FAIL)


@dataclass(frozen=True, slots=True)
class Row:
    """One mechanism; the texts of HEADS."""

    mechanism: str
    cells: str
    lost: str
    torn: str
    gap: str
    before: str
    during: str
    drained: str
    again: str
    at_once: str
    gone: str

    def texts(self) -> tuple[str, ...]:
        """In the order of HEADS."""
        return astuple(self)


@dataclass(frozen=True, slots=True)
class Table:
    """Mechanisms under one load, on one architecture and accelerator."""

    load: str
    arch: str
    accel: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """What its rows have in common."""
        return ", ".join(word for word in (self.load, self.arch, self.accel) if word)


def tables(results: Sequence[CellResult]) -> list[Table]:
    """A table for each load, architecture and accelerator under which two or more mechanisms finished a cell."""
    usual = {result.arch: result.accel for result in results if result.accel}  # a skipped cell has none
    groups: dict[tuple[str, str, str], dict[str, list[CellResult]]] = {}
    for result in results:
        if not result.mutant:  # what is broken on purpose says nothing of its mechanism
            group = groups.setdefault((result.load, result.arch, result.accel or usual.get(result.arch) or ""), {})
            group.setdefault(result.mechanism, []).append(result)
    found = []
    for (load, arch, accel), mechanisms in groups.items():
        if sum(any(result.status in _FINISHED for result in cells) for cells in mechanisms.values()) > 1:
            found.append(Table(load, arch, accel, tuple(_row(name, cells) for name, cells in mechanisms.items())))
    return found


def _row(mechanism: str, results: Sequence[CellResult]) -> Row:
    cells = [result for result in results if result.status in _FINISHED]
    failed = sum(result.status is Status.FAIL for result in cells)
    told = count(len(cells)) if len(cells) == len(results) else f"{len(cells)} of {len(results)}"
    calls = [cell.calls or {} for cell in cells]
    rounds = [cell.rounds or {} for cell in cells]
    before, during = _p999(cells)
    return Row(
        mechanism=mechanism,
        cells=f"{told}, {failed} FAIL" if failed else told,
        lost=_pair("of", _sum([one.get("failed") for one in calls]), _sum([one.get("issued") for one in calls])),
        torn=_torn(rounds),
        gap=_gap(cells),
        before=before,
        during=during,
        drained=_worst([((cell.swap_ns or {}).get("drain") or {}).get("p50") for cell in cells]),
        again=_pair("/", _sum([one.get("aborted") for one in calls]), _sum([one.get("retried") for one in calls])),
        at_once=_at_once(mechanism, cells),
        gone=_gone(mechanism, cells),
    )


def _sum(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    return _at_least(count(sum(known)), known, values) if known else NONE


def _worst(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    return _at_least(duration(max(known)), known, values) if known else NONE


def _at_least(told: str, known: Sequence[int], values: Sequence[int | None]) -> str:
    return told if len(known) == len(values) else f">={told}"


def _pair(word: str, left: str, right: str) -> str:
    return NONE if left == right == NONE else f"{left} {word} {right}"


def _torn(rounds: Sequence[Mapping[str, int]]) -> str:
    """Where no round was made, none could be torn."""
    if not any(one.get("made") for one in rounds):
        return NONE
    return _pair("of", _sum([one.get("torn") for one in rounds]), _sum([one.get("made") for one in rounds]))


def _gap(cells: Sequence[CellResult]) -> str:
    """The longest blackout. It may be longer still where a cell's is a lower bound, or was not measured."""
    kinds = [bound(cell) for cell in cells]
    known = [(ns, kind) for cell, kind in zip(cells, kinds, strict=True) if (ns := cell.blackout_ns) is not None]
    if Bound.LOWER in kinds or Bound.UNKNOWN in kinds:
        seen = [ns for ns, kind in known if kind is not Bound.UPPER]
        return f">={duration(max(seen))}" if seen else NONE
    longest, kind = max(known, key=lambda one: one[0], default=(None, Bound.UNKNOWN))
    return f"<{duration(longest)}" if kind is Bound.UPPER else duration(longest)


def _p999(cells: Sequence[CellResult]) -> tuple[str, str]:
    """Of the cell whose calls took longest during the swaps; what its calls took before them beside it."""
    found = [
        (phases["during"]["p999"], (phases.get("before") or {}).get("p999"))
        for cell in cells
        if (phases := {name: one for name, one in (cell.latency_ns or {}).items() if one}) and "during" in phases
    ]
    if not found:
        return NONE, NONE
    during, before = max(found, key=lambda one: one[0])
    more = ">=" if len(found) < len(cells) else ""
    return duration(before), f"{more}{duration(during)}"


def _at_once(mechanism: str, cells: Sequence[CellResult]) -> str:
    """The most editions that answered at once, by the guests' word; else what the order of a swap makes of it."""
    counted = [cell.editions_at_once for cell in cells if cell.editions_at_once is not None]
    if counted:
        return _at_least(count(max(counted)), counted, [cell.editions_at_once for cell in cells])
    known = catalogue.MECHANISMS.get(mechanism)
    return f"({2 if known.new_first else 1})" if known and cells else NONE


def _gone(mechanism: str, cells: Sequence[CellResult]) -> str:
    """How the mechanism knows that nobody is in old code any more; `no` where a cell shows that somebody was."""
    drained = [one["ok"] for cell in cells for one in cell.oracles if one["oracle"] == Oracle.DRAIN.value]
    proofs = [cell.isolation for cell in cells if cell.isolation]
    ran = sum(proof["probes"] - proof["contained"] for proof in proofs)
    if ran or False in drained:
        return f"no: {ran:,} probes ran" if ran else "no"
    known = catalogue.MECHANISMS.get(mechanism)
    if not known or not cells or len(drained) < len(cells) or None in drained:
        return NONE
    if not known.cuts_off:
        return known.gone or NONE
    probes = sum(proof["probes"] for proof in proofs)
    return f"{probes:,} {known.gone}" if probes and len(proofs) == len(cells) else NONE
