# SPDX-License-Identifier: GPL-2.0-or-later
"""Results to readers: a terminal, and the files that people and dashboards read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import paths
from lab.cellresult import CellResult
from lab.report import html, junit, kcidb, ktap, markdown

FILES = ("report.md", "report.html", "junit.xml", "ktap.txt", "kcidb.json")


def write(
    folder: Path, head: Mapping[str, Any], results: Sequence[CellResult], *, names: Sequence[str] = FILES
) -> None:
    """Write reports of a run, by default all of them, into its folder; `head` is its run.json without the cells."""
    renders: dict[str, Callable[[], str]] = {
        "report.md": lambda: markdown.render(head, results),
        "junit.xml": lambda: junit.render(head, results),
        "ktap.txt": lambda: ktap.render(results),
        "kcidb.json": lambda: kcidb.render(head, results),
        "report.html": lambda: html.render(head, results, folder),
    }
    for name in names:
        paths.write_whole(folder / name, renders[name]())


def missing(folder: Path) -> list[str]:
    """The reports that are not there, or older than the run's last word."""
    last = (folder / "run.json").stat().st_mtime_ns
    return [name for name in FILES if not (folder / name).is_file() or (folder / name).stat().st_mtime_ns < last]
