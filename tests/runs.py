# SPDX-License-Identifier: GPL-2.0-or-later
"""Run folders as the lab leaves them, made without a guest: for the tests of what is shown of a run."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab import dmesg, measure
from lab.catalogue import Oracle
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.finding import Finding
from lab.verdict import Status, Verdict

DATA = Path(__file__).parent / "data"
SEED = 7
MS = 1_000_000
BEGIN_NS = 17_000 * MS  # of the load


def head(results: Sequence[CellResult], *, more: Sequence[str] = ()) -> dict[str, Any]:
    """run.json without its cells; `more` cells did not run."""
    return {
        "schema": 1,
        "run": "2026-01-02_030405",
        "started": "2026-01-02T03:04:05+00:00",
        "duration_s": 133.0,
        "finished": not more,
        "seed": SEED,
        "host": {"cpu": "a <b> & c", "os": "Debian GNU/Linux 12 (bookworm)", "accel": {"x86_64": "tcg"}},
        "matrix": {"cells": [*(result.id for result in results), *more], "swaps": 20, "build": "host", "cold": False},
    }


def raw(*, swaps: int = 20, gaps: int = 100, seed: int = 1) -> dict[str, Any]:
    """What the tools of a guest would say of so many swaps; every caller has so many gaps."""
    found: dict[str, Any] = json.loads((DATA / "raw-refcount-mixed.json").read_text())
    dice = random.Random(seed)
    end_ns = BEGIN_NS + (swaps + 10) * 100 * MS
    found["load"] |= {"started_ns": BEGIN_NS, "ended_ns": end_ns}
    for thread in found["load"]["threads"]:
        thread["hist"] = {phase: _hist(dice) for phase in measure.PHASES}
        thread["max_ns"] = {phase: 90 * MS for phase in measure.PHASES}
    for caller in (*found["load"]["threads"], *found["stats"]["sources"]):
        if caller.get("gaps") is not None:
            caller |= {"gaps": _gaps(dice, gaps, end_ns), "gap_floor_ns": 100_000, "last_ns": end_ns - 1}
    found["stats"]["stalls"] = [{"cpu": 0, "floor_ns": MS, "stalls": _gaps(dice, gaps // 2, end_ns)}]
    found["swaps"] = [_swap(dice, number) for number in range(1, swaps + 1)]
    found["swap_total"] = {"requested": swaps, "done": swaps, "refused": 0, "failed": 0}
    return found


def _hist(dice: random.Random) -> list[list[int]]:
    return [
        [bucket, max(1, int(40_000 / (1 + (bucket - 130) ** 2 / 30) * dice.random()))] for bucket in range(110, 340)
    ]


def _gaps(dice: random.Random, count: int, end_ns: int) -> list[list[int]]:
    """Gaps in order, some of them long, all within the load."""
    each = (end_ns - BEGIN_NS) // max(1, count)
    found = []
    for at in range(count):
        start = BEGIN_NS + at * each
        length = dice.choice((120_000, 300_000, 300_000, 400_000, each // 2))
        found.append([start, start + min(length, each - 1)])
    return found


def _swap(dice: random.Random, number: int) -> dict[str, Any]:
    start = BEGIN_NS + (number + 4) * 100 * MS
    load, drain, unload = (dice.randint(5 * MS, 25 * MS) for _ in range(3))
    steps = {"load_ns": load, "publish_ns": 4_000, "drain_ns": drain, "retire_ns": None, "unload_ns": unload}
    end = start + load + drain + unload + MS
    return {"swap": number, "edition": "mix", "version": number + 1, "start_ns": start, "end_ns": end, **steps}


KERNEL_LOG = (
    f"[   16.110278] {dmesg.marker(str(SEED))}\n"
    "[   17.293000] hs_core: loading out-of-tree module taints kernel.\n"
    "[   17.541000] hs_edu 0000:00:1d.0: enabling device (0000 -> 0002)\n"
)


def put(folder: Path, name: str, status: Status, *, said: dict[str, Any] | None, log: str = KERNEL_LOG) -> CellResult:
    """A cell's files in the folder of a run, and its result; `said` is what its tools said, if they did."""
    cell = Cell.parse(name)
    verdict = Verdict(
        status,
        {Status.PASS: "20 swaps under 110 calls, 0 failed", Status.SKIP: "the kernel has no livepatch"}.get(
            status, "oracle 4: edu: 12 raised, # 10 handled: 2 lost"
        ),
        [Finding(Oracle.CONSERVATION, True, "110 issued = 110 completed"), Finding(Oracle.INTERRUPTS, None, "none")]
        if said
        else [],
        next_command=f"lab run cell {name} --seed 7" if status.red else "",
    )
    if status is Status.CRASH:
        log += (DATA / "dmesg" / "x86_64-null.log").read_text()
    events = dmesg.read(log)
    samples = measure.samples(said) if said else None
    accel = None if status is Status.SKIP else "tcg"
    result = cell_result(cell, verdict, samples=samples, events=events, duration_s=4.25, accel=accel, seed=SEED)
    if status is Status.SKIP:
        result = replace(result, swaps=None)
    keep(folder, result, said=said, log=log)
    return result


def hostile(folder: Path, said: dict[str, Any], text: str) -> CellResult:
    """The result of a cell whose guest says `text` wherever it may say something."""
    result = put(folder, "x86_64/bookworm/invalidate/policy", Status.CRASH, said=said)
    log = f"{KERNEL_LOG}[   17.600000] BUG: {text}\n[   17.600001] RIP: 0010:{text}\n"
    result = replace(
        result,
        reason=text,
        release=text,
        editions={text: 3},
        leaks=[text],
        splats=[{"kind": text, "headline": text, "panic": True, "excerpt": [text] * 60}] * 9,
        oracles=[{"oracle": 1, "ok": False, "detail": text}],
        isolation={"by": text, "contained": 1, "probes": text},
        transitions={"transitions": 1, "longest_ns": 5, "stalled": 2, "stalled_names": [text]},
        policy={"opens": 3, "refused": 1, "forbidden_opened": 0, "allowed_refused": 0},
        next=text,
    )
    keep(folder, result, said=said, log=log)
    (folder / "cells" / result.id / "repro").write_text(text)
    return result


def keep(folder: Path, result: CellResult, *, said: dict[str, Any] | None, log: str) -> None:
    """Write a cell's files."""
    cell = folder / "cells" / result.id
    cell.mkdir(parents=True, exist_ok=True)
    (cell / "result.json").write_text(json.dumps(result.to_json()))
    (cell / "samples.json").write_text(json.dumps(said or {}))
    (cell / "dmesg.log").write_text(log)
    (cell / "repro").write_text(f"lab run cell {result.id} --seed 7 --swaps 20\n")
