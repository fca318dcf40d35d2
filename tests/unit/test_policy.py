# SPDX-License-Identifier: GPL-2.0-or-later
"""Load `policy`: what oracle 7 says of opens, and what becomes of the figures."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import measure, verdict
from lab.cell import Cell
from lab.cellresult import cell_result
from lab.dmesg import Events
from lab.report import markdown
from lab.verdict import Status, Verdict

Change = Callable[[dict[str, Any]], object]


def raw() -> dict[str, Any]:
    """Two threads of opens, 60 and 40, half of them of forbidden files; no interrupts."""
    told: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "raw-refcount-mixed.json").read_text())
    for thread in told["load"]["threads"]:
        half = thread["issued"] // 2
        opened = {"opens": thread["issued"], "refused": half, "forbidden_opened": 0, "slipped": 0, "allowed_refused": 0}
        thread.update(kind="policy", policy=opened)
    told["stats"]["sources"] = [{"name": "policy", "issued": 100, "completed": 100, "failed": 0, "denied": 50}]
    for version in (0, 1):
        edition = told["stats"]["editions"][version]
        edition.update(issued=edition["issued"] - 5, completed=edition["completed"] - 5)
    return told


def opened(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = told["load"]["threads"][0]["policy"]
    return found


def hole(told: dict[str, Any]) -> None:
    """Four opens found nobody behind the slot; two of them were of forbidden files, and succeeded."""
    thread, stats = told["load"]["threads"][0], told["stats"]
    thread.update(completed=56, failed=4, editions=[[1, 20], [2, 30], [3, 6]], errors={"ENODEV": 4})
    stats["sources"][0].update(completed=96, failed=4, denied=48)
    stats["editions"][2].update(issued=26, completed=26)
    stats["empty"]["failed"] = 4
    opened(told).update(refused=28, forbidden_opened=2)


def judge(change: Change = lambda told: None, *, mechanism: str = "refcount") -> Verdict:
    told = copy.deepcopy(raw())
    change(told)
    cell = Cell("x86_64", "trixie", mechanism, "policy")
    return verdict.judge(measure.samples(told), Events(marked=True, lines=12), cell=cell)


def test_a_good_run_passes_and_says_that_no_forbidden_file_was_opened() -> None:
    good = judge()
    assert (good.status, good.reason) == (
        Status.PASS,
        "2 swaps under 100 calls, 0 failed, 0 forbidden files opened",
    )


def test_the_hole_of_reload_is_a_figure_and_nobody_elses() -> None:
    found = judge(hole, mechanism="reload")
    assert found.status is Status.PASS
    assert found.reason.endswith("4 failed, 2 forbidden files opened")
    assert any("2 of 100 opens got a forbidden file" in one.detail for one in found.oracles)
    told = raw()
    hole(told)
    result = cell_result(Cell("x86_64", "trixie", "reload", "policy"), found, samples=measure.samples(told))
    assert result.to_json()["policy"] == {
        "opens": 100, "forbidden_opened": 2, "slipped": 0, "allowed_refused": 0, "refused": 48
    }  # fmt: skip
    report = markdown.render(
        {"run": "r", "started": "s", "duration_s": 1, "seed": 7, "host": {}, "matrix": {}}, [result]
    )
    assert "| `x86_64/trixie/reload/policy` | 100 | 48 | 4 | 2 | 0 |" in report
    assert judge(hole).reason == "oracle 7: 2 of 100 opens were of forbidden files and succeeded"


@pytest.mark.parametrize("mechanism", ["refcount", "reload"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: opened(told).update(allowed_refused=1), "1 of 100 opens were of allowed files and refused"),
        (
            lambda told: opened(told).update(forbidden_opened=1, slipped=1),
            "1 of 100 opens were of forbidden files, asked about and not refused",
        ),
        (
            lambda told: opened(told).update(forbidden_opened=1),
            "1 forbidden files opened, but only 0 opens found nobody to ask",
        ),
        (lambda told: opened(told).update(refused=29), "49 opens refused, but editions denied 50"),
        (lambda told: opened(told).update(opens=0) or told["load"]["threads"].pop(), "no word of any open"),
    ],
)
def test_what_no_mechanism_may_do(mechanism: str, change: Change, words: str) -> None:
    found = judge(change, mechanism=mechanism)
    assert [one.detail for one in found.oracles if one.oracle == 7] == [words]
    assert found.status is Status.FAIL


def test_other_loads_say_nothing_of_opens() -> None:
    told = json.loads((Path(__file__).parent.parent / "data" / "raw-refcount-mixed.json").read_text())
    assert measure.samples(told).policy is None
    assert measure.samples({}).policy is None


def test_an_open_nobody_mediated_breaks_conservation() -> None:
    found = judge(lambda told: told["stats"]["sources"][0].update(issued=99, completed=99))
    assert found.reason == "oracle 1: callers issued 100 opens, the kernel counts 99"
