# SPDX-License-Identifier: GPL-2.0-or-later
"""What `lab up` is to start, from its word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.cell import Cell
from lab.errors import UsageError
from lab.results import RunFolder
from lab.target import parse

CELL = Cell.parse("aarch64/trixie/refcount/mixed@no-pac")


def test_a_bare_machine() -> None:
    one = parse("aarch64/trixie", results=Path("results"))
    assert (one.arch, one.kernel, one.hardware, one.cell) == ("aarch64", "trixie", "standard", None)
    assert parse("aarch64/trixie@no-pac", results=Path()).hardware == "no-pac"
    assert parse("aarch64/trixie", results=Path(), hardware="no-pac").hardware == "no-pac"


def test_a_mechanism_is_loaded_under_system_calls() -> None:
    one = parse("aarch64/trixie", results=Path(), mechanism="refcount", hardware="smp4")
    assert one.cell == Cell("aarch64", "trixie", "refcount", "syscall", "smp4")


def test_a_cell_has_the_defaults() -> None:
    one = parse(CELL.id, results=Path())
    assert (one.cell, one.hardware, one.folder, one.mutant, one.build) == (CELL, "no-pac", None, "", "")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    order = {"swaps": 7, "build": "host", "cold": False, "mutant": "splat"}
    folder = RunFolder.create(tmp_path / "results", seed=11, cells=[CELL], options=order)
    folder.cell_folder(CELL)
    folder.close()
    return folder.path


@pytest.mark.parametrize("name", ["latest", "by name", "by path"])
def test_a_cell_of_a_run_has_what_it_had(run: Path, name: str) -> None:
    told = {"latest": "latest", "by name": run.name, "by path": str(run)}[name]
    one = parse(f"{told}/{CELL.id}", results=run.parent)
    assert (one.cell, one.seed, one.swaps, one.build, one.mutant) == (CELL, 11, 7, "host", "splat")
    assert one.folder == run / "cells" / CELL.id
    assert json.loads((run / "run.json").read_text())["seed"] == one.seed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing that can be started"),
        ("aarch64", "nothing that can be started"),
        ("aarch64/trixie/refcount", "nothing that can be started"),
        ("aarch64//refcount/mixed", "nothing that can be started"),
        ("/", "nothing that can be started"),
        ("never/aarch64/trixie/refcount/mixed", "no run 'never'"),
        ("latest/aarch64/trixie/refcount/irq", "has no cell aarch64/trixie/refcount/irq"),
        ("latest/../../../x", "has no cell"),
    ],
)
def test_what_is_none(run: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(text, results=run.parent)


def test_options_that_contradict_it() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        parse("aarch64/trixie@smp4", results=Path(), hardware="no-pac")
    with pytest.raises(UsageError, match="has a mechanism already"):
        parse(CELL.id, results=Path(), mechanism="reload")
