# SPDX-License-Identifier: GPL-2.0-or-later
"""Run folders: whole files, resumed runs, two runs in one second, folders nobody can write."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from lab import measure, results, verdict
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.errors import Exit, HostError, LabError, UsageError
from lab.events import Events
from lab.results import RunFolder
from lab.verdict import Status, Verdict

A = Cell("x86_64", "trixie", "refcount", "mixed")
B = Cell("aarch64", "trixie", "refcount", "mixed", "no-pac")
RAW = json.loads((Path(__file__).parent.parent / "data" / "raw-refcount-mixed.json").read_text())

# What every result.json must have, after the design.
KEYS = {
    *("id", "arch", "kernel", "release", "hardware", "mechanism", "load", "status", "reason", "accel", "duration_s"),
    *("phases", "warm", "calls", "swaps", "swap_ns", "blackout_ns", "latency_ns", "irqs", "editions", "leaks"),
    *("blackout_exact", "blackout_raw_ns"),
    *("splats", "oracles", "mutant", "next", "isolation"),
}


def result(cell: Cell, status: Status = Status.PASS) -> CellResult:
    return cell_result(cell, Verdict(status, "because"))


def create(folder: Path) -> RunFolder:
    return RunFolder.create(folder, seed=1, cells=[A, B], host={"cpu": "x"}, options={"swaps": 20})


def full() -> CellResult:
    samples = measure.samples(RAW)
    events = Events(marked=True)
    return cell_result(
        A,
        verdict.judge(samples, events, cell=A),
        samples=samples,
        events=events,
        release="6.12",
        accel="tcg",
        duration_s=4.25,
        phases={"start_s": 0.5},
        warm=True,
    )


def test_result_json_has_every_key_and_figure() -> None:
    value = json.loads(json.dumps(full().to_json()))
    assert value.keys() >= KEYS
    assert value["status"] == "PASS"
    assert value["calls"]["issued"] == 110
    assert value["calls"]["retried"] is None
    assert value["swaps"] == {"requested": 2, "done": 2, "refused": 0, "failed": 0}
    assert value["swap_ns"]["drain"] == {"p50": 100, "max": 200, "n": 2}
    assert value["latency_ns"]["during"].keys() >= {"p50", "p99", "p999", "max"}
    assert value["irqs"] == {"raised": 10, "handled": 10, "lost": 0}
    assert value["splats"] == []
    assert [one["oracle"] for one in value["oracles"]] == list(range(1, 9))
    assert CellResult.from_json(value) == full()


def test_what_was_not_measured_is_null() -> None:
    value = result(A).to_json()
    for key in (
        "calls",
        "swaps",
        "swap_ns",
        "blackout_ns",
        "blackout_raw_ns",
        "latency_ns",
        "irqs",
        "editions",
        "leaks",
        "splats",
        "warm",
    ):
        assert value[key] is None


def test_a_newer_labs_result_can_be_read() -> None:
    assert CellResult.from_json({**full().to_json(), "new": 1}) == full()


def test_a_run_on_disk(tmp_path: Path) -> None:
    folder = create(tmp_path / "results")
    folder.write_cell(result(B, Status.FAIL))
    folder.write_cell(full())
    run = json.loads((tmp_path / "results" / "latest" / "run.json").read_text())
    assert (run["schema"], run["run"], run["seed"], run["host"], run["finished"]) == (
        1,
        folder.run,
        1,
        {"cpu": "x", "accel": {"x86_64": "tcg"}},
        False,
    )
    assert [cell["id"] for cell in run["cells"]] == [A.id, B.id]
    assert run["matrix"] == {"cells": [A.id, B.id], "swaps": 20}
    one = json.loads((folder.path / "cells" / B.id / "result.json").read_text())
    assert one == run["cells"][1]
    folder.close()
    run = json.loads((folder.path / "run.json").read_text())
    assert run["finished"] is True and run["duration_s"] >= 0
    assert [path.name for path in folder.path.rglob(".*") if path.name != ".lock"] == []


def test_two_runs_of_one_second_are_two_folders(tmp_path: Path) -> None:
    names = [create(tmp_path).run for _ in range(12)]
    assert len(set(names)) == 12
    assert results.runs(tmp_path) == names[::-1]
    assert os.readlink(tmp_path / "latest") == names[-1]


def test_two_processes_starting_at_once_do_not_collide(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=create, args=(tmp_path,)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert len(results.runs(tmp_path)) == 6
    assert (tmp_path / "latest" / "run.json").is_file()


def test_many_threads_lose_no_cell(tmp_path: Path) -> None:
    cells = [Cell("x86_64", f"k{number}", "reload", "irq") for number in range(24)]
    folder = RunFolder.create(tmp_path, seed=1, cells=cells)
    threads = [threading.Thread(target=folder.write_cell, args=(result(cell),)) for cell in cells]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run = json.loads((folder.path / "run.json").read_text())
    assert [cell["id"] for cell in run["cells"]] == [cell.id for cell in cells]


def test_a_killed_run_is_resumed_without_its_finished_cells(tmp_path: Path) -> None:
    first = create(tmp_path)
    first.write_cell(full())
    os.close(first._lock)  # what a kill leaves: the lock is gone, nothing was closed
    # killed between a cell's own file and run.json
    first.cell_folder(B).joinpath("result.json").write_text(json.dumps(result(B, Status.CRASH).to_json()))
    folder = RunFolder.resume(tmp_path, "latest")
    assert folder.run == first.run
    assert folder.has(A) and folder.has(B)
    assert [one.status for one in folder.results] == [Status.PASS, Status.CRASH]
    assert folder.results[0] == full()
    assert folder.head["seed"] == 1


def test_a_resumed_run_tries_errors_and_torn_files_again(tmp_path: Path) -> None:
    first = create(tmp_path)
    first.write_cell(result(A, Status.ERROR))
    first.cell_folder(B).joinpath("result.json").write_text('{"id": ')
    first.close(finished=False)
    folder = RunFolder.resume(tmp_path, first.run)
    assert not folder.has(A) and not folder.has(B)


def test_a_run_that_is_still_running_is_not_resumed(tmp_path: Path) -> None:
    folder = create(tmp_path)
    with pytest.raises(LabError, match="still running"):
        RunFolder.resume(tmp_path, folder.run)
    folder.close()
    RunFolder.resume(tmp_path, folder.run).close()


@pytest.mark.parametrize("name", ["nothing", "../..", "latest", "", "/etc"])
def test_an_unknown_run_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "2026-01-01_000000").mkdir()
    with pytest.raises(UsageError, match="no run"):
        results.locate(tmp_path, name)


def test_a_broken_run_is_a_usage_error(tmp_path: Path) -> None:
    folder = create(tmp_path)
    folder.close()
    (folder.path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        RunFolder.resume(tmp_path, folder.run)


def damaged(path: Path, where: str, value: object) -> None:
    """Change or (None) remove one key of a run.json, named as a.b."""
    file = path / "run.json"
    run = json.loads(file.read_text())
    at = run
    *way, last = where.split(".")
    for step in way:
        at = at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    file.write_text(json.dumps(run))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *((key, None) for key in ("run", "started", "duration_s", "seed", "host", "matrix", "matrix.cells")),
        *(("run", 5), ("started", []), ("duration_s", "1"), ("duration_s", float("nan")), ("seed", "1"), ("seed", -1)),
        *(("host", []), ("matrix", []), ("matrix.cells", "x"), ("matrix.cells", [A.id, 5]), ("matrix.cells", [[]])),
        *(("matrix.swaps", "20"), ("matrix.swaps", 5000), ("matrix.build", "moon"), ("matrix.cold", 1)),
        *(("matrix.mutant", 5), ("schema", None), ("schema", 2), ("schema", [])),
    ],
)
def test_a_damaged_run_is_one_line_for_every_reader(tmp_path: Path, where: str, value: object) -> None:
    folder = create(tmp_path)
    folder.close()
    damaged(folder.path, where, value)
    for read in (lambda: RunFolder.resume(tmp_path, folder.run), lambda: results.stored(folder.path)):
        with pytest.raises(UsageError, match=where) as caught:
            read()
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["[]", "null", "5", "\xff", "[" * 100_000, '{"schema": 1, "run": '])
def test_what_is_no_run_is_one_line(tmp_path: Path, text: str) -> None:
    folder = create(tmp_path)
    folder.close()
    (folder.path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        results.read_run(folder.path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", ["file", "below a file", "link"])
def test_an_unwritable_folder_is_one_line_and_exit_3(tmp_path: Path, kind: str) -> None:
    (tmp_path / "f").write_text("")
    path = {"file": tmp_path / "f", "below a file": tmp_path / "f" / "x", "link": tmp_path / "l"}[kind]
    (tmp_path / "l").symlink_to("/proc/nothing/here")
    with pytest.raises(HostError, match="cannot write results") as caught:
        create(path)
    assert caught.value.exit_code == Exit.INFRA
    assert "--results" in caught.value.hint
    assert "\n" not in caught.value.message


def test_something_else_named_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(HostError, match="in the way"):
        create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


def test_a_folder_that_vanishes_is_one_line(tmp_path: Path) -> None:
    folder = create(tmp_path)
    cells = folder.path / "cells"
    cells.write_text("")  # no folder can be made below a file
    with pytest.raises(HostError, match="cannot write results"):
        folder.write_cell(result(A))
