# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison of mechanisms: what a row adds up, what it may not, and what it says where nothing was measured."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab import measure
from lab.catalogue import Oracle
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.finding import Finding
from lab.report import compare, markdown, terminal
from lab.verdict import Status, Verdict

DATA = Path(__file__).parent.parent / "data"
RAW: dict[str, Any] = json.loads((DATA / "raw-refcount-mixed.json").read_text())
HEAD = {
    "run": "2026-01-02_030405",
    "started": "2026-01-02T03:04:05+00:00",
    "duration_s": 133.0,
    "seed": 7,
    "host": {},
    "matrix": {"cells": []},
}


def made(
    mechanism: str,
    *,
    load: str = "mixed",
    arch: str = "x86_64",
    kernel: str = "trixie",
    accel: str | None = "tcg",
    drained: bool | None = True,
    **figures: Any,
) -> CellResult:
    """A finished cell: the figures of a real log, but for those given."""
    samples = measure.samples(RAW)
    oracles = (Finding(Oracle.DRAIN, drained, "as told"),)
    cell = Cell(arch, kernel, mechanism, load)
    result = cell_result(cell, Verdict(Status.PASS, "", oracles=oracles), samples=samples, accel=accel)
    return replace(result, **figures)


def skipped(mechanism: str, **where: str) -> CellResult:
    cell = Cell(where.get("arch", "aarch64"), "trixie", mechanism, "mixed")
    return cell_result(cell, Verdict(Status.SKIP, "the kernel has none"))


def row(name: str, *results: CellResult) -> compare.Row:
    """The row of a mechanism in the one table; another one keeps it company."""
    (table,) = compare.tables([*results, made("refcount" if name == "reload" else "reload")])
    return next(one for one in table.rows if one.mechanism == name)


def drain(p50: int) -> dict[str, Any]:
    return {"drain": {"p50": p50, "max": 9 * p50, "n": 2}}


def latency(during: int, before: int | None) -> dict[str, Any]:
    told = {"p50": 1, "p99": 1, "max": during, "n": 9}
    return {"before": {**told, "p999": before} if before else None, "during": {**told, "p999": during}, "after": None}


def test_the_heads_are_the_rows_fields() -> None:
    assert len(compare.HEADS) == len(row("refcount", made("refcount")).texts())


def test_a_real_log_makes_a_row() -> None:
    assert row("refcount", made("refcount")).texts() == (
        *("refcount", "1", "0 of 110", "-", "5 us"),
        *("130 ns", "2.1 us", "100 ns", "0 / -", "(2)", "count zero"),
    )


def test_counts_are_sums_and_times_are_the_worst_cells() -> None:
    calls = {"issued": 1000, "failed": 3, "aborted": 40, "retried": 40}
    found = row(
        "refcount",
        made("refcount", calls=calls, rounds={"made": 10, "torn": 1}, swap_ns=drain(7_000), blackout_ns=4_000),
        made(
            "refcount",
            kernel="sid",
            calls=calls,
            rounds={"made": 5, "torn": 0},
            swap_ns=drain(2_000),
            blackout_ns=9_000,
        ),
    )
    assert (found.cells, found.lost, found.torn, found.again) == ("2", "6 of 2,000", "1 of 15", "80 / 80")
    assert (found.drained, found.gap) == ("7 us", "9 us")


def test_the_slowest_calls_during_stand_beside_what_they_took_before_in_the_same_cell() -> None:
    slow, quick = latency(9_000, 3_000), latency(2_000, 8_000)
    found = row("refcount", made("refcount", latency_ns=quick), made("refcount", kernel="sid", latency_ns=slow))
    assert (found.before, found.during) == ("3 us", "9 us")
    unknown = row("refcount", made("refcount", latency_ns=latency(5_000, None)))
    assert (unknown.before, unknown.during) == ("-", "5 us")


def test_what_no_cell_measured_is_a_dash() -> None:
    nothing = dict.fromkeys(("calls", "rounds", "swap_ns", "blackout_ns", "blackout_raw_ns", "latency_ns"))
    found = row("refcount", made("refcount", drained=None, **nothing))
    assert found.texts() == ("refcount", "1", *("-",) * 7, "(2)", "-")


def test_no_round_can_be_torn_where_none_was_made() -> None:
    assert row("refcount", made("refcount", rounds={"made": 0, "torn": 0})).torn == "-"
    assert row("refcount", made("refcount", rounds={"made": 9, "torn": 0})).torn == "0 of 9"


def test_what_one_cell_did_not_measure_makes_a_lower_bound() -> None:
    nothing = dict.fromkeys(("calls", "swap_ns", "blackout_ns", "blackout_raw_ns", "latency_ns"))
    found = row("refcount", made("refcount"), made("refcount", kernel="sid", rounds={"made": 4, "torn": 0}, **nothing))
    assert found.lost == ">=0 of >=110" and found.torn == ">=0 of >=4"
    assert (found.gap, found.drained, found.before, found.during) == (">=5 us", ">=100 ns", "130 ns", ">=2.1 us")


@pytest.mark.parametrize(
    ("gaps", "told"),
    [
        ([(9_000, True, 9_000), (5_000, False, 4_000)], "9 us"),  # an upper bound below the longest
        ([(9_000, True, 9_000), (20_000, False, 4_000)], "<20 us"),
        ([(9_000, True, 9_000), (5_000, False, 30_000)], ">=9 us"),  # a lower bound may be anything
        ([(20_000, False, 4_000), (5_000, False, 30_000)], ">=5 us"),
        ([(20_000, False, 4_000), (None, None, None)], "-"),
        ([(0, True, 0)], "0 ns"),
    ],
)
def test_the_longest_of_bounds_is_told_as_one(gaps: list[tuple[Any, Any, Any]], told: str) -> None:
    cells = [
        made("refcount", kernel=f"k{at}", blackout_ns=ns, blackout_exact=exact, blackout_raw_ns=raw)
        for at, (ns, exact, raw) in enumerate(gaps)
    ]
    assert row("refcount", *cells).gap == told


def test_loads_and_accelerators_are_never_mixed() -> None:
    results = [
        made(mechanism, load=load, arch=arch, accel=accel)
        for mechanism in ("reload", "refcount")
        for load in ("irq", "mixed")
        for arch, accel in (("x86_64", "kvm"), ("aarch64", "tcg"))
    ]
    found = compare.tables(results)
    assert [table.title for table in found] == [
        *("irq, x86_64, kvm", "irq, aarch64, tcg", "mixed, x86_64, kvm", "mixed, aarch64, tcg"),
    ]
    assert all([one.mechanism for one in table.rows] == ["reload", "refcount"] for table in found)
    assert all(one.cells == "1" for table in found for one in table.rows)


def test_a_mechanism_alone_is_no_comparison() -> None:
    assert compare.tables([]) == []
    assert compare.tables([made("refcount"), made("refcount", kernel="sid")]) == []
    assert compare.tables([made("refcount"), made("reload", load="irq")]) == []
    assert compare.tables([made("refcount"), skipped("reload", arch="x86_64")]) == []


def test_a_mutant_says_nothing_of_its_mechanism() -> None:
    assert compare.tables([made("refcount", mutant="blind"), made("reload")]) == []


def test_cells_that_did_not_finish_are_told_and_not_counted() -> None:
    arm = made("invalidate", arch="aarch64")
    crashed = made("refcount", kernel="sid", status=Status.CRASH)
    wrong = made("refcount", kernel="bookworm", status=Status.FAIL)
    results = [made("refcount"), crashed, wrong, made("invalidate"), arm, made("reload"), skipped("reload")]
    (table,) = compare.tables(results)  # of aarch64 there is one mechanism only
    assert [one.cells for one in table.rows] == ["2 of 3, 1 FAIL", "1", "1"]
    assert table.rows[0].lost == "0 of 220"


def proof(probes: int, contained: int) -> dict[str, Any]:
    return {"by": "nx", "probes": probes, "contained": contained, "escaped": probes - contained}


def test_only_probes_that_faulted_prove_that_old_code_is_gone() -> None:
    both = [made("invalidate", kernel=kernel, isolation=proof(700, 700)) for kernel in ("trixie", "sid")]
    assert row("invalidate", *both).gone == "1,400 probe faults"
    ran = made("invalidate", kernel="sid", isolation=proof(700, 698))
    assert row("invalidate", both[0], ran).gone == "no: 2 probes ran"
    assert row("invalidate", made("invalidate", isolation=proof(0, 0))).gone == "-"
    assert row("invalidate", both[0], made("invalidate", kernel="sid")).gone == "-"


def test_what_a_mechanism_goes_by_counts_only_where_its_drains_held() -> None:
    assert row("refcount", made("refcount")).gone == "count zero"
    assert row("refcount", made("refcount"), made("refcount", kernel="sid", drained=False)).gone == "no"
    assert row("refcount", made("refcount"), made("refcount", kernel="sid", drained=None)).gone == "-"
    assert row("refcount", made("refcount"), made("refcount", kernel="sid", oracles=[])).gone == "-"
    assert row("reload", made("reload")).gone == "unloaded"
    assert row("hearsay", made("hearsay")).texts()[-2:] == ("-", "-")  # of a lab that knew more mechanisms


def test_editions_at_once_are_counted_or_in_brackets() -> None:
    raw = json.loads(json.dumps(RAW))
    raw["stats"]["adaptive"] = {
        **{"policy": "cpu", "keep": 4, "at_once": 4, "share": 25, "dwell_calls": 256, "percent": [], "newest": []},
        **{"latency": [], "switches": [], "astray": [], "stack_checks": 1, "stack_found": 0, "editions": []},
    }
    assert measure.samples(raw).editions_at_once == 4
    assert measure.samples(RAW).editions_at_once is None
    told = cell_result(
        Cell("x86_64", "trixie", "refcount", "mixed"), Verdict(Status.PASS, ""), samples=measure.samples(raw)
    )
    assert told.editions_at_once == 4
    assert row("refcount", replace(told, accel="tcg")).at_once == "4"
    assert (row("reload", made("reload")).at_once, row("refcount", made("refcount")).at_once) == ("(1)", "(2)")


def test_the_report_and_the_terminal_show_it() -> None:
    results = [made("reload"), made("refcount"), made("invalidate", isolation=None)]
    text = markdown.render(HEAD, results)
    assert "## Mechanisms side by side" in text and "### mixed, x86\\_64, tcg" in text
    assert "| refcount | 1 | 0 of 110 | - | 5 us | 130 ns | 2.1 us | 100 ns | 0 / - | (2) | count zero |" in text
    shown = io.StringIO()
    out = Console(file=shown, width=160, color_system=None, force_terminal=False)
    terminal.summary(out, results, folder=Path("results/r"), seconds=1.0, wanted=3)
    line = next(line for line in shown.getvalue().splitlines() if line.strip().startswith("refcount "))
    assert line.split() == "refcount 1 0 of 110 - 5 us 130 ns 2.1 us 100 ns 0 / - (2) count zero".split()
    assert "side by side" not in markdown.render(HEAD, results[:1])
