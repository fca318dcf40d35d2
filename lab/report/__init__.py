# SPDX-License-Identifier: GPL-2.0-or-later
"""Results to readers: a terminal, and the files that people and dashboards read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import paths
from lab.cellresult import CellResult
from lab.report import html, junit, kcidb, ktap, markdown


def write(folder: Path, head: Mapping[str, Any], results: Sequence[CellResult]) -> None:
    """Write every report of a run into its folder; `head` is its run.json without the cells."""
    paths.write_whole(folder / "report.md", markdown.render(head, results))
    paths.write_whole(folder / "junit.xml", junit.render(head, results))
    paths.write_whole(folder / "ktap.txt", ktap.render(results))
    paths.write_whole(folder / "kcidb.json", kcidb.render(head, results))
    paths.write_whole(folder / "report.html", html.render(head, results, folder))
