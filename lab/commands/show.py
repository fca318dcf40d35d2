# SPDX-License-Identifier: GPL-2.0-or-later
"""lab list and lab report: what there is, and what came out."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands import complete, select
from lab.commands import options as opt
from lab.kerneltree import USERLAND

if TYPE_CHECKING:
    from pathlib import Path

    from lab.catalogue import Load, Mechanism
    from lab.cellresult import CellResult

lists = typer.Typer(
    no_args_is_help=True, help="List what there is.\n\nExample: lab list cells --profile nightly", rich_markup_mode=None
)


class Format(StrEnum):
    """How a report is printed."""

    table = "table"
    md = "md"
    html = "html"
    junit = "junit"
    ktap = "ktap"
    kcidb = "kcidb"


@lists.command("arches")
def list_arches(as_json: opt.Json = False) -> None:
    """Architectures.

    Example: lab list arches
    """
    from lab.arch import ARCHES

    _rows([{"name": one.name, "debian": one.debian, "machine": one.machine} for one in ARCHES.values()], as_json)


@lists.command("kernels")
def list_kernels(as_json: opt.Json = False) -> None:
    """Kernels, and the architectures each is for.

    Example: lab list kernels --json
    """
    from lab.recipe import recipes

    _rows([{"name": one.name, "arches": one.arches, "summary": one.summary} for one in recipes().values()], as_json)


@lists.command("mechanisms")
def list_mechanisms(as_json: opt.Json = False) -> None:
    """Ways to swap code.

    Example: lab list mechanisms
    """
    from lab.catalogue import MECHANISMS

    _summaries(MECHANISMS.values(), as_json)


@lists.command("loads")
def list_loads(as_json: opt.Json = False) -> None:
    """What calls while the swaps happen.

    Example: lab list loads
    """
    from lab.catalogue import LOADS

    _summaries(LOADS.values(), as_json)


@lists.command("hardware")
def list_hardware(as_json: opt.Json = False) -> None:
    """Machines.

    Example: lab list hardware
    """
    from lab.hardware import HARDWARE

    _rows([{"name": one.name, "arches": one.arches, "summary": one.summary} for one in HARDWARE.values()], as_json)


@lists.command("mutants")
def list_mutants(as_json: opt.Json = False) -> None:
    """Deliberately broken variants, and the oracle that catches each.

    Example: lab list mutants
    """
    from lab.catalogue import mutants

    keys = ("name", "oracle", "mechanism", "load", "status", "summary")
    rows: list[dict[str, Any]] = [{key: getattr(one, key) for key in keys} for one in mutants().values()]
    _rows([{**row, "oracle": int(row["oracle"])} for row in rows], as_json)


@lists.command("profiles")
def list_profiles(as_json: opt.Json = False) -> None:
    """Matrices of the lab's own.

    Example: lab list profiles
    """
    from lab import profile

    _rows([{"name": name, "summary": summary} for name, summary in profile.profiles().items()], as_json)


@lists.command("cells")
@opt.grouped
def list_cells(choice: opt.Choice, as_json: opt.Json = False) -> None:
    """The cells of a matrix.

    Example: lab list cells --profile nightly --arch aarch64
    """
    cells, _ = select.cells(choice, select.trees(choice.kernel, USERLAND))
    if as_json:
        print(json.dumps([cell.id for cell in cells], indent=2))
    else:
        print("\n".join(cell.id for cell in cells))


def report(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A folder name under the results, or latest.", autocompletion=complete.runs),
    ] = "latest",
    results: opt.ResultsDir = opt.RESULTS,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    as_json: opt.Json = False,
) -> None:
    """Print the report of a run.

    Those of its report files that are missing, or older than its results, are written. The exit code says nothing of
    the run: 0 when it could be read.

    Example: lab report latest --format md
    """
    from lab import known
    from lab import report as reports
    from lab.report import html, junit, kcidb, ktap, markdown, terminal
    from lab.results import locate, read_run, stored

    path = locate(results, run)
    head = {key: value for key, value in read_run(path).items() if key != "cells"}
    found = stored(path)
    if names := reports.missing(path):
        _write(path, head, found, names)
    if as_json:
        print(json.dumps({**head, "cells": [result.to_json() for result in found]}, indent=2))
    elif form is Format.md:
        sys.stdout.write(markdown.render(head, found))
    elif form is Format.junit:
        sys.stdout.write(junit.render(head, found))
    elif form is Format.ktap:
        sys.stdout.write(ktap.render(found))
    elif form is Format.kcidb:
        sys.stdout.write(kcidb.render(head, found))
    elif form is Format.html:
        sys.stdout.write(html.render(head, found, path))
    else:
        wanted, notes = len(head["matrix"]["cells"]), known.review(head, found)
        seconds = float(head["duration_s"])
        terminal.summary(terminal.console(), found, folder=path, seconds=seconds, wanted=wanted, notes=notes)
        if len(found) < wanted:
            print(f"go on with: {resume_command(path.name, results)}")


def resume_command(run: str, results: Path) -> str:
    """What goes on with a run, as it is typed here."""
    where = [] if results == opt.RESULTS else ["--results", str(results)]
    return shlex.join(["lab", "run", "matrix", "--resume", run, *where])


def _write(path: Path, head: Mapping[str, Any], found: Sequence[CellResult], names: Sequence[str]) -> None:
    """Write report files; a folder that nobody may write to can still be printed."""
    from lab import report as reports

    try:
        reports.write(path, head, found, names=names)
        print(f"lab: written into {path}: {', '.join(names)}", file=sys.stderr)
    except OSError as e:
        print(f"lab: the files of the report are not written: {e.strerror or e}: {path}", file=sys.stderr)


def _summaries(table: Iterable[Mechanism | Load], as_json: bool) -> None:
    _rows([{"name": one.name, "summary": one.summary} for one in table], as_json)


def _rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Rows as JSON, or as columns as wide as they must be."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    texts = [[" ".join(value) if isinstance(value, tuple) else str(value) for value in row.values()] for row in rows]
    widths = [max(len(text[column]) for text in texts) for column in range(len(texts[0]))] if texts else []
    for text in texts:
        print("  ".join(word.ljust(width) for word, width in zip(text, widths, strict=True)).rstrip())
