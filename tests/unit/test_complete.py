# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Tab offers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cell import Cell
from lab.commands import complete
from lab.results import RunFolder
from tests.staying import kept

CELL = Cell.parse("aarch64/trixie/refcount/mixed")


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run in the folder that we are in."""
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(tmp_path / "results", seed=1, cells=[CELL])
    (folder.cell_folder(CELL) / "result.json").write_text("{}")
    folder.close()
    return folder.run


def test_guests(tmp_path: Path) -> None:
    assert complete.guests("") == complete.places("") == []
    with kept(tmp_path, name="mine"):
        assert complete.guests("") == complete.guests("mi") == ["mine"]
        assert complete.guests("x") == []
        assert complete.places("m") == ["mine:"]


def test_runs_and_cells(run: str) -> None:
    assert complete.runs("") == ["latest", run]
    assert complete.runs("lat") == ["latest"]
    assert CELL.id in complete.cells("aarch64/trixie/ref")
    assert complete.cells("riscv64") == []


def test_targets_go_deeper_as_they_are_typed(run: str) -> None:
    first = complete.targets("")
    assert "aarch64/trixie" in first and "latest/" in first and CELL.id not in first
    assert CELL.id in complete.targets("aarch64/trixie/")
    assert complete.targets("latest/") == [f"latest/{CELL.id}"]
    assert complete.targets(f"{run}/aarch64") == [f"{run}/{CELL.id}"]
    assert complete.targets("nothing/") == []


def test_what_cannot_be_known_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", "/proc/none")
    assert complete.guests("") == []
