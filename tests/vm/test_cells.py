# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole cells: the honest ones pass, each mutant is caught by the oracle it was made for."""

import json
from pathlib import Path

import kcidb_io
import pytest

from lab import catalogue, report
from lab.cell import Cell
from lab.cellresult import CellResult
from lab.report import html
from lab.results import read_run
from lab.verdict import Status
from tests.vm.conftest import KERNELS, Benches, Run


def test_refcount_loses_no_call_and_no_interrupt(run: Run, arch: str, tmp_path: Path) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/refcount/mixed", swaps=12, build="guest")
    assert result.status is Status.PASS, result.reason
    assert result.calls and result.calls["failed"] == 0 and result.calls["wrong"] == 0
    assert result.calls["completed"] and result.calls["completed"] > 1000
    assert result.swaps and result.swaps["done"] == 12
    assert result.irqs and result.irqs["lost"] == 0 and result.irqs["raised"] > 100
    assert result.leaks == []
    folder = tmp_path / "results" / "latest" / "cells" / result.id
    for name in ("result.json", "console.log", "dmesg.log", "build.log", "domain.xml", "samples.json", "repro"):
        assert (folder / name).is_file(), name
    assert json.loads((folder / "result.json").read_text())["status"] == "PASS"
    assert "lab: marker 7" in (folder / "dmesg.log").read_text()
    _check_reports(tmp_path / "results" / "latest", result)


def _check_reports(folder: Path, result: CellResult) -> None:
    """What a real guest said can be drawn, and KernelCI's database takes it."""
    report.write(folder, read_run(folder), [result])
    page = (folder / "report.html").read_text()
    assert page.count('class="swap"') == html.STRIPS_OF_A_CELL and "Latency of calls" in page
    assert all(f"<span>{lane}</span>" in page for lane in ("swaps", "system calls", "page faults", "interrupts"))
    assert kcidb_io.schema.LATEST.is_valid(json.loads((folder / "kcidb.json").read_text()))


def test_reload_has_a_gap_and_counts_it(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/reload/syscall", build="guest")
    assert result.status is Status.PASS, result.reason
    assert result.calls and result.calls["failed"], "calls in the gap must fail"
    assert result.blackout_ns


def test_a_slot_and_its_mate_need_not_change_together(benches: Benches) -> None:
    with benches("refcount") as bench:
        bench.begin(load="mixed", core="race_us=20000 race_point=table.half")
        bench.swap(8)
        callers = bench.end().callers
    assert sum(one["torn"] for one in callers) > 0, "no round fell into the time between the two"
    assert all(one["stale"] == 0 for one in callers), "each of the two is in order all the same"


@pytest.mark.parametrize("name", catalogue.mutants())
def test_mutant_is_caught_by_its_oracle(run: Run, arch: str, name: str) -> None:
    mutant = catalogue.mutant(name)
    cell = Cell(arch, KERNELS[arch], mutant.mechanism, mutant.load)
    # Some need a caller in the wrong place when an edition goes: they get more chances.
    swaps = 48 if mutant.core else 24 if mutant.status == Status.CRASH else 6
    result = run(cell.id, mutant=name, swaps=swaps)
    if mutant.mechanism == "livepatch" and arch == "aarch64":
        assert result.status is Status.SKIP and "CONFIG_LIVEPATCH" in result.reason
        return
    assert result.status.red, f"{name} was not caught: {result.reason}"
    if mutant.status == Status.CRASH:
        assert result.status is Status.CRASH, result.reason
    violated = [one["oracle"] for one in result.oracles if one["ok"] is False]
    if mutant.oracle is catalogue.Oracle.DMESG:
        assert result.splats, result.reason
    else:
        assert mutant.oracle in violated, f"{result.status}: {result.reason}; violated: {violated}"
        assert result.status is Status.FAIL
