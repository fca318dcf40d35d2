# SPDX-License-Identifier: GPL-2.0-or-later
"""Results to readers: a terminal, and the files that people and dashboards read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import paths
from lab.cellresult import CellResult
from lab.report import html, junit, kcidb, ktap, markdown

FILES = ("report.md", "report.html", "junit.xml", "ktap.txt", "kcidb.json")


def write(folder: Path, head: Mapping[str, Any], results: Sequence[CellResult]) -> None:
    """Write every report of a run into its folder; `head` is its run.json without the cells."""
    paths.write_whole(folder / "report.md", markdown.render(head, results))
    paths.write_whole(folder / "junit.xml", junit.render(head, results))
    paths.write_whole(folder / "ktap.txt", ktap.render(results))
    paths.write_whole(folder / "kcidb.json", kcidb.render(head, results))
    paths.write_whole(folder / "report.html", html.render(head, results, folder))


def written(folder: Path) -> bool:
    """Whether every report is there and none is older than the run's last word."""
    files = [folder / name for name in FILES]
    if not all(file.is_file() for file in files):
        return False
    return min(file.stat().st_mtime_ns for file in files) >= (folder / "run.json").stat().st_mtime_ns
