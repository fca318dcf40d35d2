# SPDX-License-Identifier: GPL-2.0-or-later
"""The peer livepatch: what it must have shown, and what it is allowed."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import dmesg, measure, runlog, verdict
from lab.cell import Cell
from lab.dmesg import Events
from lab.verdict import Status, Verdict

RAW: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "raw-refcount-mixed.json").read_text())
CELL = Cell("x86_64", "trixie", "livepatch", "mixed")
TAINTED = "lab: marker 7\nlivepatch: tainting kernel with TAINT_LIVEPATCH\n"


def raw_of_livepatch() -> dict[str, Any]:
    """The example run, had livepatch moved the tasks from edition to edition."""
    raw = copy.deepcopy(RAW)
    raw["stats"]["livepatch"] = {
        **{"transitions": len(raw["stats"]["editions"]), "longest_ns": 4_100_000_000, "asked": 21},
        **{"forced": 0, "left_inside": 0, "kept_for_late": 3, "late": 1},
        **{"stalled": 2, "stalled_names": ["hs-load[212]", "odd\x1b[2Jname[7]"]},
    }
    return raw


def judge(raw: dict[str, Any], *, cell: Cell = CELL, events: Events | None = None) -> Verdict:
    return verdict.judge(measure.samples(raw), events or Events(marked=True, lines=1), cell=cell)


def test_a_good_run_passes() -> None:
    good = judge(raw_of_livepatch())
    assert good.status is Status.PASS, good.reason


def test_who_held_a_transition_up_is_told_and_safe_to_show() -> None:
    stats = runlog.read(raw_of_livepatch()).stats
    assert stats and stats.livepatch
    assert stats.livepatch.stalled_names[0] == "hs-load[212]"
    assert "\x1b" not in stats.livepatch.stalled_names[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda figures: figures.update(forced=1), "1 of 3 transitions were forced"),
        (lambda figures: figures.update(left_inside=2), "2 of 3 transitions left calls in the old edition"),
        (lambda figures: figures.update(transitions=2), "3 editions, but 2 transitions came to their end"),
        (lambda figures: figures.update(transitions=4), "3 editions, but 4 transitions came to their end"),
    ],
)
def test_a_broken_promise_fails(change: Callable[[dict[str, Any]], object], words: str) -> None:
    raw = raw_of_livepatch()
    change(raw["stats"]["livepatch"])
    judged = judge(raw)
    assert judged.status is Status.FAIL and judged.reason == f"oracle 7: {words}"


def test_a_task_never_goes_back() -> None:
    raw = raw_of_livepatch()
    raw["load"]["threads"][0].update(stale=2)
    assert judge(raw).reason.endswith("2 of 60 calls ran an older edition after a newer")


def test_silence_about_transitions_fails() -> None:
    raw = raw_of_livepatch()
    del raw["stats"]["livepatch"]
    assert judge(raw).reason == "oracle 7: no word of livepatch's transitions"


def test_an_interrupt_may_find_what_the_task_finds_that_it_came_upon() -> None:
    raw = raw_of_livepatch()
    raw["stats"]["sources"][1].update(stale=3)
    assert judge(raw).status is Status.PASS
    assert judge(raw, cell=Cell("x86_64", "trixie", "refcount", "mixed")).status is Status.FAIL


def test_its_taint_is_asked_for_only_here() -> None:
    events = dmesg.read(TAINTED, mark="lab: marker 7")
    assert [taint.flags for taint in events.taints] == ["K"]
    assert judge(raw_of_livepatch(), events=events).status is Status.PASS
    other = judge(raw_of_livepatch(), cell=Cell("x86_64", "trixie", "refcount", "mixed"), events=events)
    assert other.status is Status.FAIL and "tainted K" in other.reason
