# SPDX-License-Identifier: GPL-2.0-or-later
"""Which runs go, and which never do."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lab import cli, stayed
from lab.cell import Cell
from lab.results import RunFolder, runs
from tests.staying import record

CELL = Cell.parse("x86_64/trixie/refcount/mixed")


def run(results: Path, *, days: float, open_: bool = False) -> RunFolder:
    """A run of some days ago."""
    folder = RunFolder.create(results, seed=1, cells=[CELL])
    if not open_:
        folder.close()
    at = time.time() - days * 86400
    os.utime(folder.path / "run.json", (at, at))
    return folder


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LAB_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "results"


def gc(results: Path, *words: str) -> int:
    return cli.call(["gc", "--results", str(results), *words])


def test_the_newest_stay_and_what_goes_is_told(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [run(results, days=5).run for _ in range(4)]
    (results / ".1999.gone").mkdir()  # of a lab that was killed here
    assert gc(results) == 0 and len(runs(results)) == 4  # not asked for
    assert gc(results, "--keep", "2") == 0
    assert runs(results) == [names[3], names[2]]
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in told] == [f"removed {results / name}" for name in (names[1], names[0])]
    assert {path.name for path in results.iterdir()} == {names[2], names[3], "latest"}


def test_a_run_that_is_young_or_running_or_the_latest_stays(results: Path) -> None:
    gone, running = run(results, days=9), run(results, days=8, open_=True)
    young, *_ = [run(results, days=1) for _ in range(2)]
    assert gc(results, "--keep", "1", "--days", "7") == 0
    assert gone.run not in runs(results) and {running.run, young.run} <= set(runs(results))
    running.close()
    (results / "latest").unlink()
    (results / "latest").symlink_to(young.run)
    assert gc(results, "--keep", "1") == 0
    assert len(runs(results)) == 2 and young.run in runs(results)


def test_a_run_of_which_a_guest_stays_stays(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))
    looked_at, gone, *_ = [run(results, days=9) for _ in range(4)]
    one = replace(record("x", tmp_path), folder=str(looked_at.path / "cells" / CELL.id))
    with socket.socket(socket.AF_UNIX) as keeper:
        keeper.bind(one.control)
        keeper.listen()
        stayed.write(one)
        assert gc(results, "--keep", "1") == 0
    assert looked_at.run in runs(results) and gone.run not in runs(results)


def test_wrong_words(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gc(results, "--days", "3") == gc(results, "--keep", "0") == 2
    assert "say how many stay" in capsys.readouterr().err
    assert gc(results, "--keep", "1") == 0  # no results yet is no error
