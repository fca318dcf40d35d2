# SPDX-License-Identifier: GPL-2.0-or-later
"""Mechanisms with transactions: whole rounds, and each object brought to each layout once."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lab import measure, verdict
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.dmesg import Events
from lab.verdict import Status

RAW: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "raw-refcount-mixed.json").read_text())
CELL = Cell("x86_64", "trixie", "transaction", "mixed")
# Of three swaps none had to change the layout; here the second did, and one object was not touched since.
TOLD = {
    **{"changes": 1, "retries": 0, "waited": 2, "open": 0},
    **{"objects": 64, "behind": 1, "steps": 63, "transformed": 63, "touched": 60},
}


def judged(*, rounds: tuple[int, int] = (9, 0), cell: Cell = CELL, **changed: int) -> CellResult:
    raw = copy.deepcopy(RAW)
    raw["load"]["threads"][0].update(rounds=rounds[0] - 2, torn=rounds[1])
    raw["stats"]["sources"][1].update(rounds=2, torn=0)
    raw["stats"]["transaction"] = TOLD | changed
    samples = measure.samples(raw)
    found = verdict.judge(samples, Events(marked=True, lines=1), cell=cell)
    return cell_result(cell, found, samples=samples)


def test_whole_rounds_and_single_steps_pass() -> None:
    result = judged()
    assert result.status is Status.PASS, result.reason
    assert result.rounds == {"made": 9, "torn": 0}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rounds": (9, 1)}, "1 of 9 rounds of calls were answered by more than one edition"),
        ({"rounds": (2, 0)}, "no round of calls was made by any syscall"),
        ({"open": 1}, "1 transactions never ended"),
        ({"transformed": 64}, "transformers ran 64 times for 63 steps"),
        ({"behind": 0}, "64 objects took 63 of 64 steps"),
    ],
)
def test_what_it_promises_is_judged(changed: dict[str, Any], words: str) -> None:
    result = judged(**changed)
    assert result.status is Status.FAIL
    assert words in result.reason


def test_torn_rounds_are_a_figure_where_nobody_promised_whole_ones() -> None:
    result = judged(rounds=(9, 4), cell=Cell("x86_64", "trixie", "refcount", "mixed"))
    assert result.status is Status.PASS, result.reason
    assert result.rounds == {"made": 9, "torn": 4}


def test_a_run_that_changed_no_layout_says_so() -> None:
    raw = copy.deepcopy(RAW)
    raw["load"]["threads"][0].update(rounds=1, torn=0)
    raw["stats"]["sources"][1].update(rounds=1, torn=0)
    raw["stats"]["transaction"] = TOLD | {"changes": 0, "behind": 0, "steps": 0, "transformed": 0}
    raw["swap_total"].update(requested=8, done=8)
    samples = measure.samples(raw)
    assert (
        "only 0 of 8 swaps changed the layout" in verdict.judge(samples, Events(marked=True, lines=1), cell=CELL).reason
    )
