# SPDX-License-Identifier: GPL-2.0-or-later
"""Editions side by side, judged: decisions against references, and each policy by its own count."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import measure, verdict
from lab.cell import Cell
from lab.dmesg import Events
from lab.verdict import Status, Verdict

RAW: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "raw-refcount-mixed.json").read_text())
CELL = Cell("x86_64", "trixie", "adaptive", "mixed")
Change = Callable[[dict[str, Any]], object]


def side_by_side() -> dict[str, Any]:
    """The good run, as mechanism adaptive would have told it: two swaps, three editions at once."""
    raw = copy.deepcopy(RAW)
    editions = [
        {"slot": one["slot"], "version": one["version"], "decided": {"task": one["issued"] - 2, "percent": 1}}
        | {"rounds": 1, "open": 0, "joined": 2}
        for one in raw["stats"]["editions"]
    ]
    raw["stats"]["adaptive"] = {"policy": "cycle", "keep": 3, "at_once": 3, "share": 25, "dwell_calls": 256} | {
        "percent": [150, 0],
        "newest": [37, 0],
        "latency": [600, 0],
        "switches": [2, 0],
        "astray": [0, 0],
        "stack_checks": len(editions),
        "stack_found": 0,
        "editions": editions,
    }
    for thread in raw["load"]["threads"]:
        thread.update(rounds=4, torn=0)
    raw["stats"]["sources"][1].update(rounds=2, torn=0)
    return raw


def judge(change: Change = lambda raw: None) -> Verdict:
    raw = side_by_side()
    change(raw)
    return verdict.judge(measure.samples(raw), Events(marked=True, lines=12), cell=CELL)


def adaptive(raw: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = raw["stats"]["adaptive"]
    return found


def keep_two_live(raw: dict[str, Any]) -> None:
    for edition in raw["stats"]["editions"]:
        edition["state"] = "live"


def many_swaps(raw: dict[str, Any]) -> None:
    raw["swap_total"].update(requested=6, done=6)
    adaptive(raw).update(at_once=4)


@pytest.mark.parametrize("change", [lambda raw: None, keep_two_live, lambda r: r["load"]["threads"][0].update(stale=5)])
def test_several_live_editions_and_older_answers_are_its_policy(change: Change) -> None:
    found = judge(change)
    assert found.status is Status.PASS, found.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["stats"].pop("adaptive"), "no word of the adaptation handler"),
        (lambda r: adaptive(r)["editions"].pop(), "no word of how often it was chosen"),
        (lambda r: adaptive(r)["editions"][0].update(open=1), "1 rounds were not ended"),
        (lambda r: adaptive(r)["editions"][1]["decided"].update(task=0), "the handler chose it for"),
        (lambda r: adaptive(r)["editions"][0].update(joined=3), "the handler chose it for"),
        (lambda r: adaptive(r).update(astray=[0, 3]), "3 calls were answered by an edition that the policy did not"),
        (
            lambda r: adaptive(r).update(newest=[38, 0]),
            "CPU 0: the newest edition got 38 of 150 calls, 25 percent are 37",
        ),
        (lambda r: adaptive(r).update(switches=[3, 0]), "changed its mind 3 times in 600 calls"),
        (lambda r: adaptive(r).update(at_once=2), "at most 2 editions answered at once, after 2 swaps 3 should have"),
        (lambda r: adaptive(r).update(stack_found=1), "in 1 a task was in the old text although nobody held it"),
        (lambda r: adaptive(r).update(stack_checks=0), "stacks were searched 0 times"),
        (many_swaps, "policy all-new chose no edition"),
        (lambda r: r["load"]["threads"][0].update(torn=1), "rounds of calls were answered by more than one edition"),
    ],
)
def test_each_broken_promise_is_oracle_7(change: Change, words: str) -> None:
    found = judge(change)
    assert found.status is Status.FAIL
    assert [one.oracle.value for one in found.oracles if one.ok is False and one.oracle == 7] == [7], found.reason
    assert words in next(one.detail for one in found.oracles if one.oracle == 7)
