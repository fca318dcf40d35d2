# SPDX-License-Identifier: GPL-2.0-or-later
"""A run on the terminal: a live table, or plain lines; and the closing summary.

Plain lines are for whoever reads no live display: stdout is no terminal, CI or NO_COLOR is set.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.cell import Cell
from lab.cellresult import CellResult
from lab.log import to_nobody
from lab.report import compare
from lab.report.figures import clock, figures, tally
from lab.verdict import Status

STYLES = {
    Status.PASS: "green",
    Status.FAIL: "bold red",
    Status.CRASH: "bold red",
    Status.HANG: "bold red",
    Status.ERROR: "bold yellow",
    Status.SKIP: "dim",
}
_PLAIN_WIDTH = 160
_OTHER_LINES = 6  # head, note and tally beside the rows


def plain(stream: IO[str]) -> bool:
    """Whether `stream` wants plain lines."""
    return not stream.isatty() or bool(os.environ.get("CI")) or bool(os.environ.get("NO_COLOR"))


def console(stream: IO[str] | None = None) -> Console:
    """Where reports go: stdout, without colour or wrapping where lines are plain."""
    stream = stream or sys.stdout
    if plain(stream):
        return _Console(file=stream, width=_PLAIN_WIDTH, color_system=None, force_terminal=False, highlight=False)
    return _Console(file=stream, highlight=False)


class _Console(Console):
    """One that a run outlives: whoever read it may leave."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        to_nobody(self.file)


@contextmanager
def watch(
    cells: Sequence[Cell], out: Console, *, done: Sequence[CellResult] = (), quiet: bool = False
) -> Iterator[Watch]:
    """An observer for a run of `cells`, shown while the block runs; `done` are results of an earlier part of it."""
    if quiet:
        yield Watch(cells, done)
    elif plain(out.file):
        yield PlainWatch(cells, done, out)
    else:
        shown = LiveWatch(cells, done, out)
        with Live(
            get_renderable=shown.table,
            console=out,
            refresh_per_second=4,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        ):
            yield shown


class Watch:
    """Keeps what is known of each cell; shows nothing. Called from several threads."""

    def __init__(self, cells: Sequence[Cell], done: Sequence[CellResult]) -> None:
        self._mutex = threading.Lock()
        self._cells = list(cells)
        self._phases: dict[Cell, tuple[str, float]] = {}  # running: phase, when its cell began
        self._results = {result.cell: result for result in done}
        self._begun_s = time.monotonic()

    def cell_phase(self, cell: Cell, phase: str) -> None:
        """A cell entered a phase."""
        with self._mutex:
            began_s = self._phases[cell][1] if cell in self._phases else time.monotonic()
            self._phases[cell] = (phase, began_s)

    def cell_done(self, cell: Cell, result: CellResult) -> None:
        """A cell has its verdict."""
        with self._mutex:
            self._phases.pop(cell, None)
            self._results[cell] = result

    def note(self, text: str) -> None:
        """Something that belongs to no cell."""


class PlainWatch(Watch):
    """A line per note and per finished cell."""

    def __init__(self, cells: Sequence[Cell], done: Sequence[CellResult], out: Console) -> None:
        super().__init__(cells, done)
        self._out = out
        self._width = max((len(cell.id) for cell in cells), default=0)

    def note(self, text: str) -> None:
        """See Watch."""
        self._print(text)

    def cell_done(self, cell: Cell, result: CellResult) -> None:
        """See Watch."""
        super().cell_done(cell, result)
        row, at = figures(result), f"{len(self._results)}/{len(self._cells)}"
        told = (
            result.reason
            if result.status is not Status.PASS
            else (
                f"{row.calls} calls, {row.failed} failed, {row.swaps} swaps, blackout {row.blackout}, drain {row.drain}"
            )
        )
        self._print(f"{at:>7} {result.verdict:<5} {cell.id:<{self._width}} {row.seconds:>6} s  {told}")

    def _print(self, text: str) -> None:
        elapsed = time.monotonic() - self._begun_s
        with self._mutex:
            self._out.print(Text(f"[{elapsed:7.1f} s] {text}"), soft_wrap=True)


class LiveWatch(Watch):
    """A table with a row per cell; what does not fit the window gives way to what runs or failed."""

    def __init__(self, cells: Sequence[Cell], done: Sequence[CellResult], out: Console) -> None:
        super().__init__(cells, done)
        self._out = out
        self._note = ""

    def note(self, text: str) -> None:
        """See Watch."""
        with self._mutex:
            self._note = text

    def table(self) -> Table:
        """The table as of now."""
        with self._mutex:
            table = new_table(expand=False)
            now = time.monotonic()
            shown = self._shown(max(3, self._out.size.height - _OTHER_LINES))
            for cell in shown:
                if cell in self._results:
                    add_result(table, self._results[cell])
                elif cell in self._phases:
                    phase, began_s = self._phases[cell]
                    table.add_row(cell.id, Text(phase, "cyan"), f"{now - began_s:.1f}")
                else:
                    table.add_row(Text(cell.id, "dim"), Text("waiting", "dim"))
            hidden = len(self._cells) - len(shown)
            more = f", {hidden} not shown" if hidden else ""
            head = f"{len(self._results)}/{len(self._cells)} done{more}, {clock(now - self._begun_s)}"
            table.caption = Text(f"{head}   {self._note}"[: max(20, self._out.size.width - 2)], justify="left")
            table.caption_justify = "left"
            return table

    def _shown(self, rows: int) -> list[Cell]:
        if len(self._cells) <= rows:
            return self._cells
        newest = list(reversed(self._results))
        red = [cell for cell in newest if self._results[cell].red]
        waiting = [cell for cell in self._cells if cell not in self._results and cell not in self._phases]
        order = dict.fromkeys([*self._phases, *red, *newest[: rows // 2], *waiting, *newest])
        chosen = set(list(order)[:rows])
        return [cell for cell in self._cells if cell in chosen]


def new_table(*, expand: bool = False) -> Table:
    """An empty table of cells."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=expand)
    table.add_column("cell", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in ("s", "calls", "failed", "swaps", "blackout", "drain p50"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def add_result(table: Table, result: CellResult) -> None:
    """A finished cell's row."""
    row = figures(result)
    verdict = Text(result.verdict, _style(result))
    table.add_row(result.id, verdict, row.seconds, row.calls, row.failed, row.swaps, row.blackout, row.drain)


def _style(result: CellResult) -> str:
    return "yellow" if result.known else STYLES[result.status]


def summary(
    out: Console,
    results: Sequence[CellResult],
    *,
    folder: Path,
    seconds: float,
    wanted: int,
    notes: Sequence[str] = (),
) -> None:
    """The closing words: every row, then the red ones with what to type next, notes, and where the files are."""
    table = new_table()
    for result in results:
        add_result(table, result)
    if results:
        _whole(out, table)
    compared(out, results)
    for result in results:
        if result.status is Status.PASS:
            continue
        out.print(
            Text.assemble((f"{result.verdict:<5} ", _style(result)), f"{result.id}: {result.reason}"), soft_wrap=True
        )
        if result.known:
            out.print(Text(f"      known: {result.known}"), soft_wrap=True)
        elif result.next:
            out.print(Text(f"      {result.next}"), soft_wrap=True)
            out.print(Text(f"      {_evidence(folder, result)}"), soft_wrap=True)
    for note in notes:
        out.print(Text(note), soft_wrap=True)
    missing = wanted - len(results)
    left = f", {missing} did not run" if missing > 0 else ""
    out.print(Text(f"{tally(results)}{left}, in {clock(seconds)}", style="bold"))
    out.print(Text(f"results: {shortest(folder)}/report.md, report.html"), soft_wrap=True)


def _evidence(folder: Path, result: CellResult) -> str:
    """Where all that is known of a red cell lies."""
    where = f"{shortest(folder)}/cells/{result.id}/"
    return f"{where}, {shortest(folder)}/lab.log" if result.status is Status.ERROR else where


def _whole(out: Console, table: Table) -> None:
    """A table with nothing cut off: where the window is narrower its lines wrap."""
    out.print(table, width=max(out.width, _PLAIN_WIDTH), crop=False, no_wrap=True, soft_wrap=True)


def compared(out: Console, results: Sequence[CellResult]) -> None:
    """Mechanisms side by side, where there are several."""
    tables = compare.tables(results)
    for one in tables:
        title = Text(one.title, "bold")
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", padding=(0, 1, 0, 0))
        for head in compare.HEADS:
            table.add_column(head, justify="left" if head in (compare.HEADS[0], compare.HEADS[-1]) else "right")
        table.columns[0].no_wrap = True
        for row in one.rows:
            table.add_row(*(Text(text) for text in row.texts()))
        _whole(out, table)
    if tables:
        out.print(Text(compare.NOTE, "dim"))
        out.print()


def shortest(path: Path) -> str:
    """A path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
