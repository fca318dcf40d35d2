# SPDX-License-Identifier: GPL-2.0-or-later
"""report.html: one file that loads nothing: the matrix, the mechanisms compared, and each cell with its pictures.

What is shown comes from the run's own files, and in them from guests: it is cleaned and capped here, and the template
escapes all of it. The page has no script, and its policy lets a browser take nothing but its own style sheet.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from lab import dmesg, known, runlog
from lab.catalogue import Oracle
from lab.cell import STANDARD, Cell
from lab.cellresult import CellResult
from lab.errors import UsageError
from lab.report import compare
from lab.report.figures import NONE, clock, count, duration, figures, plain, tally
from lab.report.latency import HEIGHT, Histogram, histogram
from lab.report.timeline import WIDTH, Timeline, timeline
from lab.untrusted import clean
from lab.verdict import Status

TEMPLATE = "report.html.j2"
STYLE = "report.css"
STRIPS = 480  # swaps drawn in all cells together
STRIPS_OF_A_CELL = 8
FEW = 12  # cells whose swaps are shown at once
LINE_CHARS = 400
LONG = 36  # characters of a fact that gets a line of its own
EXCERPT_LINES = 40
SPLATS = 3
SAMPLES_BYTES = 64 << 20  # of a samples.json that is read
LOG_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Box:
    """A cell in the grid; no anchor where it did not run."""

    status: str  # empty where nobody asked for that cell
    verdict: str
    anchor: str
    told: str
    title: str
    first: bool  # of its mechanism


@dataclass(frozen=True, slots=True)
class Row:
    """Boxes of one architecture, kernel and hardware."""

    name: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Columns are mechanisms, each with its loads."""

    heads: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Splat:
    """A complaint of the kernel."""

    kind: str
    headline: str
    panic: bool
    excerpt: str


@dataclass(frozen=True, slots=True)
class Section:
    """All about one cell."""

    anchor: str
    id: str
    status: str
    verdict: str  # the status, and whether it is known
    bad: bool  # somebody has to look at it
    reason: str
    facts: tuple[tuple[str, str], ...]
    oracles: tuple[tuple[str, str, str], ...]  # name, holds | violated | not judged, detail
    splats: tuple[Splat, ...]
    more_splats: int
    repro: str
    next: str
    histogram: Histogram | None
    timeline: Timeline | None
    open: bool  # show the swaps at once

    @property
    def oracles_told(self) -> str:
        """How many held."""
        states = Counter(state for _, state, _ in self.oracles)
        return ", ".join(f"{states[state]} {state}" for state in ("holds", "violated", "not judged") if states[state])


def render(head: Mapping[str, Any], results: Sequence[CellResult], folder: Path) -> str:
    """The whole page; `folder` is the run's, for samples and logs."""
    style = (Path(__file__).parent.parent / "templates" / STYLE).read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    ran = sum(result.swaps is not None for result in results)
    strips = max(2, min(STRIPS_OF_A_CELL, STRIPS // max(1, ran)))
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            run=_line(head["run"]),
            tally=tally(results),
            counts=list(Counter((one.status.value, one.verdict) for one in sorted(results, key=_rank)).items()),
            known=[_line(line) for line in known.review(head, results)],
            facts=_facts(head, len(results)),
            grid=_grid(head, results),
            heads=compare.HEADS,
            note=compare.NOTE,
            tables=compare.tables(results),
            sections=[
                _section(one, f"cell-{at}", folder, strips=strips, few=len(results) <= FEW)
                for at, one in enumerate(results, 1)
            ],
            style=style,
            digest=digest,
            width=WIDTH,
            height=HEIGHT,
            long=LONG,
        )
    )


def _facts(head: Mapping[str, Any], done: int) -> list[tuple[str, str]]:
    wanted = len(head["matrix"].get("cells", ()))
    facts = [("started", head["started"]), ("took", clock(float(head["duration_s"]))), ("seed", head["seed"])]
    facts += [(name, head["matrix"][name]) for name in ("swaps", "mutant") if head["matrix"].get(name)]
    facts += [(name, head["host"][name]) for name in sorted(head["host"])]
    if done < wanted:
        facts.append(("interrupted", f"{wanted - done} of {wanted} cells did not run"))
    return [(_line(name), _line(plain(value))) for name, value in facts]


def _grid(head: Mapping[str, Any], results: Sequence[CellResult]) -> Grid:
    """The cells that were wanted, and those that ran, each where its names put it."""
    places: dict[Cell, int | None] = {}
    for name in head["matrix"].get("cells", ()):
        with suppress(UsageError):  # not of this lab
            places[Cell.parse(name)] = None
    places |= {result.cell: at for at, result in enumerate(results)}
    loads: dict[str, dict[str, None]] = {}
    for cell in places:
        loads.setdefault(cell.mechanism, {})[cell.load] = None
    rows = []
    for arch, kernel, hardware in dict.fromkeys((cell.arch, cell.kernel, cell.hardware) for cell in places):
        name = f"{arch}/{kernel}" if hardware == STANDARD else f"{arch}/{kernel}@{hardware}"
        boxes = []
        for mechanism, names in loads.items():
            cells = [Cell(arch, kernel, mechanism, load, hardware) for load in names]
            boxes += [_box(cell, places, results, first=cell is cells[0]) for cell in cells]
        rows.append(Row(_line(name), tuple(boxes)))
    return Grid(tuple((_line(one), tuple(_line(load) for load in names)) for one, names in loads.items()), tuple(rows))


def _box(cell: Cell, places: Mapping[Cell, int | None], results: Sequence[CellResult], *, first: bool) -> Box:
    if cell not in places:
        return Box("", "", "", "", "", first)
    at = places[cell]
    if at is None:
        return Box("", "did not run", "", "", _line(cell.id), first)
    result, told = results[at], figures(results[at]).blackout
    title = _line(f"{result.id}: {result.reason}")
    return Box(result.status.value, result.verdict, f"cell-{at + 1}", "" if told == NONE else told, title, first)


def _rank(result: CellResult) -> tuple[int, bool]:
    return list(Status).index(result.status), bool(result.known)


def _section(result: CellResult, anchor: str, folder: Path, *, strips: int, few: bool) -> Section:
    cell = folder / "cells" / result.id
    log = _samples(cell / "samples.json")
    # A guest that crashed gave no dmesg; the console has what it said.
    said = _read(cell / "dmesg.log", LOG_BYTES) or _read(cell / "console.log", LOG_BYTES)
    kernel = dmesg.stamped(said, mark=dmesg.marker(str(result.seed)))
    splats = result.splats or []
    return Section(
        anchor=anchor,
        id=_line(result.id),
        status=result.status.value,
        verdict=result.verdict,
        bad=result.red,
        reason=_line(result.reason, 1000),
        facts=tuple((name, _line(value)) for name, value in _figures(result) if value not in (NONE, "", "None")),
        oracles=tuple(_oracle(one) for one in result.oracles),
        splats=tuple(
            Splat(_line(one["kind"]), _line(one["headline"]), bool(one["panic"]), _lines(one["excerpt"]))
            for one in splats[:SPLATS]
        ),
        more_splats=max(0, len(splats) - SPLATS),
        repro=_line(_read(cell / "repro", LINE_CHARS).decode(errors="replace")),
        next=_line(result.next),
        histogram=histogram(log) if log else None,
        timeline=timeline(log, result.mechanism, kernel, max_swaps=strips) if log else None,
        open=few or result.status.red,
    )


def _figures(result: CellResult) -> list[tuple[str, str]]:
    """Names and figures of a cell; what it has not is left out later."""
    row, calls = figures(result), result.calls or {}
    found = [("calls", row.calls), ("failed", row.failed), ("swaps", row.swaps), ("blackout", row.blackout)]
    found += [("gap as seen", row.gap), ("drain p50", row.drain), ("interrupts", row.irqs)]
    if result.rounds:
        found.append(("rounds torn", f"{count(result.rounds.get('torn'))} of {count(result.rounds.get('made'))}"))
    if proof := result.isolation:
        again = f"{count(calls.get('aborted'))}, made again {count(calls.get('retried'))}"
        found.append((f"cut off by {_line(proof.get('by'))}", again))
        found.append(("probes contained", f"{proof.get('contained')} of {proof.get('probes')}"))
    if moved := result.transitions:
        longest = duration(moved.get("longest_ns"))
        found.append(("transitions", f"{count(moved.get('transitions'))}, the longest {longest}"))
        found.append(("stalled", f"{count(moved.get('stalled'))} {plain(moved.get('stalled_names') or ())}"))
    if opened := result.policy:
        found.append(("opens", f"{count(opened.get('opens'))}, refused {count(opened.get('refused'))}"))
        found.append(("forbidden files opened", count(opened.get("forbidden_opened"))))
    found.append(("calls by edition", ", ".join(f"{name} {n:,}" for name, n in (result.editions or {}).items())))
    found.append(("left behind", plain(result.leaks or ())))
    found.append(("known", result.known or ""))
    found += [("kernel", str(result.release)), ("accelerator", str(result.accel)), ("took", f"{row.seconds} s")]
    return [*found, ("mutant", str(result.mutant))]


def _oracle(one: Mapping[str, Any]) -> tuple[str, str, str]:
    state = {True: "holds", False: "violated"}.get(one["ok"], "not judged")
    return _line(f"{one['oracle']} {Oracle.told(one['oracle'])}"), state, _line(one["detail"])


def _samples(path: Path) -> runlog.RunLog | None:
    """The raw results of a cell; None where there are none, or nobody can read them."""
    try:
        raw = json.loads(_read(path, SAMPLES_BYTES))
    except (ValueError, RecursionError):
        return None
    return runlog.read(raw) if isinstance(raw, dict) else None


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(limit)
    except OSError:
        return b""


def _line(value: Any, limit: int = LINE_CHARS) -> str:
    """One clean line of at most so many characters."""
    text = " ".join(clean(str(value)[: 2 * limit]).split())
    return text if len(text) <= limit else f"{text[:limit]}…"


def _lines(lines: Sequence[Any]) -> str:
    texts = (clean(str(line)[: 2 * LINE_CHARS]).replace("\n", " ") for line in lines[:EXCERPT_LINES])
    return "\n".join(text[:LINE_CHARS] for text in texts)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lab", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
