# SPDX-License-Identifier: GPL-2.0-or-later
"""Mechanisms that cut calls off: what they must prove, and how it is reported."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import measure, verdict
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.events import Events
from lab.report import markdown
from lab.verdict import Status

RAW: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "raw-refcount-mixed.json").read_text())
CELL = Cell("x86_64", "trixie", "invalidate", "mixed")


def raw_of_invalidate() -> dict[str, Any]:
    """The example run, had five calls been cut off in the first edition: three retried, two left to their callers."""
    raw = copy.deepcopy(RAW)
    raw["load"]["threads"][0].update(retried=3, recovered=1)
    raw["load"]["threads"][1].update(retried=0, recovered=0)
    raw["stats"]["sources"][1].update(retried=0, recovered=1)
    raw["stats"]["editions"][0].update(issued=40, aborted=5)
    raw["stats"]["editions"][1].update(committed=44, settled=44)
    raw["stats"]["nested"] = {"issued": 0, "again": 0}
    raw["stats"]["invalidate"] = {
        **{"by": "nx", "faults": 4, "probes": 12, "contained": 12},
        **{"escaped": 0, "misrestored": 0, "sleepers": 0},
    }
    return raw


def result_of(raw: dict[str, Any], cell: Cell = CELL) -> CellResult:
    samples = measure.samples(raw)
    judged = verdict.judge(samples, Events(marked=True, lines=1), cell=cell)
    return cell_result(cell, judged, samples=samples)


def test_a_good_run_passes_with_its_figures() -> None:
    result = result_of(raw_of_invalidate())
    assert result.status is Status.PASS, result.reason
    calls = result.calls or {}
    assert (calls["aborted"], calls["retried"], calls["recovered"]) == (5, 5, 2)
    assert result.isolation and result.isolation["contained"] == 12


def lost_retry(raw: dict[str, Any]) -> None:
    """One call was cut off, and its caller got an error: every count agrees but the promise."""
    raw["load"]["threads"][0].update(issued=60, retried=2)
    raw["stats"]["editions"][0].update(issued=39)
    raw["stats"]["editions"][0].update(completed=34, aborted=5)
    raw["load"]["threads"][0].update(completed=59, failed=1, editions=[[1, 19], [2, 30], [3, 10]])
    raw["stats"]["sources"][0].update(completed=99, failed=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw["stats"]["invalidate"].update(contained=11, escaped=1), "11 faulted, 1 ran there"),
        (lambda raw: raw["stats"]["invalidate"].update(contained=11), "11 faulted, 0 ran there"),
        (lambda raw: raw["stats"]["invalidate"].update(misrestored=1), "1 callers did not get their context back"),
        (
            lambda raw: raw["stats"]["invalidate"].update(probes=0, contained=0),
            "only 0 calls through old addresses in 2 swaps",
        ),
        (lambda raw: raw["stats"].pop("invalidate"), "no word of the isolation proof"),
        (lambda raw: raw["stats"]["editions"][1].update(committed=45), "45 calls did their work, but 44 returned"),
        (lost_retry, "5 calls cut off, but 4 made again"),
    ],
)
def test_what_is_not_proved_fails(change: Callable[[dict[str, Any]], object], words: str) -> None:
    raw = raw_of_invalidate()
    change(raw)
    result = result_of(raw)
    assert result.status is Status.FAIL
    assert words in " ".join(one["detail"] for one in result.oracles if one["ok"] is False)


def test_nothing_cut_off_is_a_failure_where_callers_stay() -> None:
    raw = raw_of_invalidate()
    for caller in (*raw["load"]["threads"], raw["stats"]["sources"][1]):
        caller.update(retried=0, recovered=0)
    raw["stats"]["editions"][0].update(issued=35, aborted=0)
    raw["stats"]["invalidate"].update(faults=0)
    assert result_of(raw).status is Status.PASS
    stuck = result_of(raw, Cell("x86_64", "trixie", "invalidate", "stuck"))
    assert stuck.status is Status.FAIL and "no call was cut off" in stuck.reason


def test_a_call_cut_off_and_forgotten_breaks_conservation() -> None:
    raw = raw_of_invalidate()
    raw["stats"]["editions"][0].update(aborted=4)
    assert "1 lost" in result_of(raw).reason


def test_the_report_has_a_row_for_it() -> None:
    head = {"run": "r", "started": "s", "duration_s": 1.0, "seed": 1, "host": {}, "matrix": {"cells": ["a"]}}
    text = markdown.render(head, [result_of(raw_of_invalidate())])
    assert "| `x86_64/trixie/invalidate/mixed` | nx | 5 | 5 | 2 | 12 of 12 | - | - | - |" in text
