# SPDX-License-Identifier: GPL-2.0-or-later
"""A cell that goes wrong is one ERROR; the others go on."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import measure, paths, runner
from lab.cell import Cell
from lab.cellresult import CellResult
from lab.errors import LabError
from lab.results import RunFolder
from lab.verdict import Status
from lab.workload import Raw
from lab.workshop import RunOptions

CELL = Cell("x86_64", "trixie", "refcount", "mixed")
FULL = OSError(errno.ENOSPC, "No space left on device", "/x/disk")


def run(tmp_path: Path, error: BaseException, *, abandoned: bool = False, cell: Cell = CELL) -> CellResult:
    """Run a cell in a workshop whose first machine fails."""

    def machine(*_: str) -> None:
        raise error

    workshop: Any = SimpleNamespace(options=RunOptions(seed=7), abandoned=abandoned, machine=machine, kept=None)
    observer: Any = SimpleNamespace(cell_phase=lambda cell, phase: None)
    folder = RunFolder.create(tmp_path, seed=7, cells=[cell])
    return runner.run_cell(cell, workshop, folder, observer)


def test_what_can_never_finish_is_skipped_with_its_reason(tmp_path: Path) -> None:
    cell = Cell("x86_64", "trixie", "reload", "stuck")
    result = run(tmp_path, AssertionError("no guest is needed to know"), cell=cell)
    assert result.status is Status.SKIP
    assert result.reason == "reload unloads a module that nobody is in, and under stuck somebody always is"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LabError("no image", hint="make one"), "no image (make one)"),
        (FULL, "the host's disk is full: /x/disk (free some space, or run: lab gc)"),
        (RecursionError("too deep"), "internal error: RecursionError: too deep"),
        (AssertionError("\x1b[2Jx\ny"), "internal error: AssertionError: x"),
    ],
)
def test_whatever_a_cell_raises_is_its_own_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        result = run(tmp_path, error)
    assert (result.status, result.reason, result.seed) == (Status.ERROR, reason, 7)
    assert "Traceback" in caplog.text and "in machine" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FULL, "the host's disk is full: /x/disk (free some space, or run: lab gc)"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), "internal error: UnicodeEncodeError"),
    ],
)
@pytest.mark.parametrize(("module", "name"), [(paths, "write_whole"), (measure, "samples")])
def test_a_cell_that_cannot_be_judged_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, module: Any, name: str
) -> None:
    real = getattr(module, name)

    def fail(path: Any, *rest: Any) -> None:
        if isinstance(path, Path) and path.name == "run.json":
            real(path, *rest)
        else:
            raise error

    monkeypatch.setattr(module, name, fail)
    result = run(tmp_path, LabError("no image"))
    assert result.status is Status.ERROR and result.reason.startswith(reason)


def test_an_interrupted_run_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(runner.Abandoned):
        run(tmp_path, LabError("lost"), abandoned=True)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, KeyboardInterrupt())


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [
        (Raw(data={"skip": "no livepatch", "errors": ["hs-ctl: status 1 and no word"]}), Status.SKIP, "no livepatch"),
        (Raw(crash="the guest reset", lost="QEMU ended"), Status.CRASH, "the guest reset"),
        (Raw(lost="QEMU ended"), Status.ERROR, "QEMU ended"),
        (Raw(hung="too slow", lost=""), Status.HANG, "too slow"),
    ],
)
def test_what_a_guest_left_becomes_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Raw, status: Status, reason: str
) -> None:
    def left(attempt: Any, _standing: Any) -> None:
        attempt._raw = raw

    monkeypatch.setattr(runner._Attempt, "run", left)
    result = run(tmp_path, LabError("never raised"))
    assert (result.status, result.reason) == (status, reason)
