# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: exit codes, one line per error, results kept whatever ends a run. No guest is started."""

from __future__ import annotations

import errno
import json
import multiprocessing
import multiprocessing.process
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lab
from lab import cli, paths
from lab import log as logs
from lab.cell import Cell
from lab.cellresult import cell_result
from lab.errors import HostError, HypervisorError
from lab.report import FILES
from lab.results import RunFolder
from lab.verdict import Status, Verdict, next_command
from lab.workshop import RunOptions

CELL = "x86_64/trixie/refcount/mixed"
Verdicts = Callable[[Cell], Status]


class FakeHost:
    """Stands for the modules that would start guests; keeps what they were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.missing: list[str] = []
        self.foreign = ""  # the architecture that KVM cannot run here, as can be seen at once
        self.verdict: Verdicts = lambda cell: Status.PASS
        self.stop: BaseException | None = None  # raised after the first cell
        self.fail: Exception | None = None  # raised before it
        self.ran: list[str] = []
        self.asked: Any = None
        self.watched: bool | None = None
        host = SimpleNamespace(
            missing_packages=lambda: self.missing,
            check_packages=self.check_packages,
            facts=lambda: {"cpu": "x"},
            accel=self.accel,
            check_kvm=self.check_kvm,
        )
        schedule = SimpleNamespace(run_matrix=self.run_matrix)
        workshop = SimpleNamespace(RunOptions=lambda **words: SimpleNamespace(**words))
        for name, module in (("host", host), ("schedule", schedule), ("workshop", workshop)):
            monkeypatch.setitem(sys.modules, f"lab.{name}", module)  # type: ignore[arg-type]
            monkeypatch.setattr(lab, name, module, raising=False)

    def check_packages(self) -> None:
        if self.missing:
            raise HostError(f"this host lacks: {' '.join(self.missing)}")

    def check_kvm(self, arch: Any, _profile: Any) -> None:
        if arch.name == self.foreign:
            raise HostError(f"KVM cannot run {arch.name} guests here")

    def accel(self, arch: Any, wanted: str, *, progress: Any) -> Any:
        raise HostError("KVM does not work here: failed to set MSR 0x10a", hint="use --accel auto")

    def run_matrix(
        self, cells: Sequence[Cell], asked: Any, folder: RunFolder, observer: Any, *, kept: Any, watched: bool
    ) -> None:
        self.asked, self.watched = asked, watched
        if self.fail:
            raise self.fail
        for cell in cells:
            observer.cell_phase(cell, "start")
            status = self.verdict(cell)
            result = cell_result(
                cell, Verdict(status, "because", next_command=next_command(status, RunOptions().again(cell)))
            )
            self.ran.append(cell.id)
            folder.write_cell(result)
            observer.cell_done(cell, result)
            if self.stop:
                raise self.stop


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHost:
    monkeypatch.chdir(tmp_path)
    return FakeHost(monkeypatch)


def latest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results" / "latest" / "run.json").read_text())


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("lab: ")
    return said.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run matrix --arch riscv64", "unknown architecture 'riscv64' (known: x86_64, aarch64)"),
        ("run matrix --kernel buster", "unknown kernel 'buster' (known: bookworm"),
        ("run matrix --mechanism magic", "unknown mechanism 'magic' (known: reload, refcount, invalidate"),
        ("run matrix --load heavy", "unknown load 'heavy' (known: syscall, irq, exception, policy, mixed, stuck)"),
        ("run matrix --hardware pdp11", "unknown hardware 'pdp11' (known: standard"),
        ("run matrix --kernel trixie-16k", "kernel 'trixie-16k' is not for x86_64"),
        ("run matrix --profile weekly", "unknown profile 'weekly'"),
        ("run matrix --profile smoke -m x.toml", "exclude each other"),
        ("run matrix -m x.toml", "x.toml: No such file"),
        ("run matrix --swaps 0", "--swaps"),
        ("run matrix --swaps 4001", "'--swaps': 4001 is not in the range 1<=x<=4000"),
        (f"run cell {CELL} --swaps 4001", "4001 is not in the range 1<=x<=4000"),
        ("run matrix --accel magic", "--accel"),
        ("run matrix --frob", "--frob"),
        ("run matrix --resume latest", "no run 'latest'"),
        ("run matrix --resume latest --arch x86_64", "--resume takes cells"),
        ("run cell x86_64/trixie", "is not a cell"),
        ("run cell x86_64/trixie/refcount/mixed@no-pac", "hardware 'no-pac' is not for x86_64"),
        (f"run cell {CELL} --mutant none-such", "unknown mutant 'none-such'"),
        (
            "run cell x86_64/bookworm/reload/syscall --mutant early_unload",
            "mutant 'early_unload' does not fit x86_64/bookworm/reload/syscall (it is for mechanism refcount",
        ),
        (
            "run cell x86_64/bookworm/refcount/syscall --mutant swallow --dry-run",
            "mutant 'swallow' does not fit x86_64/bookworm/refcount/syscall (it is for loads with the sources of irq",
        ),
        (
            "run cell x86_64/trixie/refcount/mixed --mutant other_policy",
            "mutant 'other_policy' does not fit x86_64/trixie/refcount/mixed (it is for loads with",
        ),
        ("run matrix --mutant blind", "mutant 'blind' does not fit x86_64/bookworm/reload/syscall"),
        (f"run cell {CELL} --connect moon", "unknown connection 'moon'"),
        (f"run cell {CELL} --connect moon --dry-run", "unknown connection 'moon'"),
        (f"report latest --results {'a' * 300}", "cannot be read: File name too long"),
        ("run matrix --kmod nowhere", "/nowhere: no such folder"),
        ("run matrix --userland bookworm", "--userland goes with a kernel build tree"),
        ("run matrix --kmod . --dry-run", "it holds 0 C files"),
        (f"run cell {CELL} --kmod . --mutant blind", "--kmod and --mutant exclude each other"),
        ("run matrix --kernel ./nowhere", "/nowhere: no such folder"),
        ("run matrix --kernel .", "it has no include/config/kernel.release"),
        ("list cells --kernel ./", "it has no include/config/kernel.release"),
        ("image build ./", "unknown kernel './'"),
        ("report nothing", "no run 'nothing'"),
        ("run matrix --resume= --dry-run", "no run ''"),
        ("run matrix --mutant= --dry-run", "unknown mutant ''"),
        ("list cells --hardware no-nx", "is not for aarch64"),
        ("image build buster", "unknown kernel 'buster'"),
        ("image build trixie-16k --arch x86_64", "not for x86_64"),
        ("image rm", "name the images"),
        ("frob", "frob"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, words: str
) -> None:
    assert cli.call(line.split()) == 2
    assert words in one_line(capsys)
    assert host.ran == []
    assert not (tmp_path / "results").exists()


def test_a_matrix_file_with_a_typo_is_one_line(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "my.toml").write_text("[[matrix]]\narch = ['x86_64']\nkernels = ['trixie']\n")
    assert cli.call(["run", "matrix", "-m", "my.toml"]) == 2
    said = one_line(capsys)
    assert "my.toml:" in said and "kern" in said


def test_a_finished_matrix(host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.call(["run", "matrix"]) == 0
    run = latest(tmp_path)
    assert len(run["cells"]) == 72 and run["finished"] is True and run["seed"] > 0
    assert run["host"]["cpu"] == "x"
    assert host.asked.swaps == 20 and host.asked.connect == "qemu:///embed" and host.asked.seed == run["seed"]
    folder = tmp_path / "results" / "latest"
    assert {path.name for path in folder.iterdir()} >= {*FILES, "lab.log", "cells"}
    said = capsys.readouterr().out
    assert "72 cells: 72 PASS" in said and "results: results/" in said


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["PASS", "PASS"], 0),
        (["PASS", "SKIP"], 0),
        (["PASS", "FAIL"], 1),
        (["CRASH", "ERROR"], 1),
        (["HANG", "PASS"], 1),
        (["PASS", "ERROR"], 3),
        (["SKIP", "ERROR"], 3),
        (["SKIP", "SKIP"], 4),
    ],
)
def test_exit_codes(host: FakeHost, statuses: list[str], code: int) -> None:
    left = [Status(status) for status in statuses]
    host.verdict = lambda cell: left.pop(0)
    which = "--arch x86_64 --kernel trixie --mechanism reload --mechanism refcount --load irq"
    argv = ["run", "matrix", *which.split(), "--results", "r"]
    assert cli.call(argv) == code
    assert left == []


def test_known_failures_come_from_the_matrix_or_a_file(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    entry = 'cell = "x86_64/*"\nstatus = "FAIL"\ntext = "because"\nreason = "a link"\nexpires = 9999-12-31\n'
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/mine.toml").write_text(f"[[known]]\n{entry}")
    (tmp_path / "none.toml").write_text("")
    axes = {"arch": "x86_64", "kernel": "trixie", "mechanism": "refcount", "load": "mixed"}
    block = "\n".join(f'{axis} = ["{name}"]' for axis, name in axes.items())
    (tmp_path / "m.toml").write_text(f'known = "sub/mine.toml"\n[[matrix]]\n{block}\n')
    host.verdict = lambda cell: Status.FAIL
    argv = ["run", "matrix", "-m", "m.toml"]
    assert cli.call(argv) == 0
    assert "1 cell: 1 known FAIL" in capsys.readouterr().out
    assert latest(tmp_path)["cells"][0]["known"] == "a link (until 9999-12-31)"
    assert cli.call([*argv, "--known", "none.toml"]) == 1
    assert (
        cli.call(["run", "matrix", "--kernel", "trixie", "--load", "irq", "--known", "sub/mine.toml"]) == 1
    )  # aarch64
    (tmp_path / "sub/mine.toml").write_text(f"[[known]]\n{entry}until = 1\n")
    capsys.readouterr()
    assert cli.call([*argv, "--dry-run"]) == 2
    assert "sub/mine.toml:7: until: unknown key (known: cell, status" in one_line(capsys)


def test_on_change_is_called_when_a_run_is_finished(host: FakeHost, tmp_path: Path) -> None:
    only = ["--arch", "x86_64", "--kernel", "trixie", "--load", "irq"]
    argv = ["run", "matrix", *only, "--on-change", "tee told"]
    assert cli.call(argv) == 0 and not (tmp_path / "told").exists()
    assert not host.watched, "a night in which nothing can begin has results too"
    assert cli.call(argv[:-2]) == 0 and host.watched
    host.verdict = lambda cell: Status.CRASH if cell.id == "x86_64/trixie/refcount/irq" else Status.PASS
    assert cli.call(argv) == 1
    assert "\nred    x86_64/trixie/refcount/irq  PASS -> CRASH  because" in (tmp_path / "told").read_text()
    (tmp_path / "told").unlink()
    assert cli.call(argv) == 1 and not (tmp_path / "told").exists()
    host.verdict, host.stop = lambda cell: Status.PASS, KeyboardInterrupt()
    assert cli.call(argv) == 130 and not (tmp_path / "told").exists()
    host.stop = None
    assert cli.call(["run", "matrix", "--resume", "latest", "--on-change", argv[-1]]) == 0
    assert "green  x86_64/trixie/refcount/irq" in (tmp_path / "told").read_text()


def test_a_cell_that_failed_counts_more_than_a_command_that_did(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.verdict = lambda cell: Status.FAIL
    argv = ["run", "matrix", "--load", "irq", "--kernel", "trixie", "--on-change", "false"]
    assert cli.call(argv) == 1
    assert "lab: the command of --on-change failed" in capsys.readouterr().err
    host.verdict = lambda cell: Status.PASS
    assert cli.call(argv) == 3


def test_a_resumed_run_that_cannot_begin_is_kept(host: FakeHost, tmp_path: Path) -> None:
    host.verdict = lambda cell: Status.ERROR
    argv = ["run", "matrix", "--kernel", "trixie", "--load", "irq"]
    assert cli.call(argv) == 3
    (before,) = (path for path in (tmp_path / "results").iterdir() if not path.is_symlink())
    host.fail = HypervisorError("libvirt is away")
    assert cli.call(["run", "matrix", "--resume", "latest"]) == 3
    assert (before / "run.json").is_file() and (tmp_path / "results" / "latest").resolve() == before
    assert not host.watched, "what cannot begin stays an ERROR of the run"


def test_what_a_resumed_run_would_do(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.verdict = lambda cell: Status.ERROR if cell.mechanism == "reload" else Status.PASS
    assert cli.call(["run", "matrix", "--kernel", "trixie", "--load", "irq"]) == 3
    capsys.readouterr()
    assert cli.call(["run", "matrix", "--resume", "latest", "--dry-run"]) == 0
    assert capsys.readouterr().out.split() == ["x86_64/trixie/reload/irq", "aarch64/trixie/reload/irq"]
    for more in ("--build host", "--cold", "--userland sid"):
        assert cli.call(["run", "matrix", "--resume", "latest", *more.split()]) == 2
        assert "--resume takes cells" in one_line(capsys)


def test_a_run_that_was_interrupted_says_how_it_goes_on(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    host.stop = KeyboardInterrupt()
    argv = ["run", "matrix", "--kernel", "trixie", "--load", "irq", "--results", "my runs"]
    assert cli.call(argv) == 130
    run = os.readlink(tmp_path / "my runs" / "latest")
    capsys.readouterr()
    assert cli.call(["report", f"{run}/", "--results", "my runs"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"go on with: lab run matrix --resume {run} --results 'my runs'"
    host.stop = None
    assert cli.call(argv) == 0
    capsys.readouterr()
    assert cli.call(["compare", "latest", run, "--results", "my runs"]) == 0
    assert f"{run} (11 cells did not run): 11 gone" in capsys.readouterr().out


def test_filters_and_options_reach_the_run(host: FakeHost, tmp_path: Path) -> None:
    line = (
        "run matrix --arch aarch64 --kernel sid --mechanism refcount --load mixed --hardware smp4 "
        "--swaps 200 --seed 9 -j 3 --accel tcg --build host --cold --connect session --results out"
    )
    assert cli.call(line.split()) == 0
    assert host.ran == ["aarch64/sid/refcount/mixed@smp4"]
    assert vars(host.asked) == {
        **{"swaps": 200, "seed": 9, "jobs": 3, "accel": "tcg", "build": "host", "cold": True, "mutant": ""},
        **{"connect": "qemu:///session", "kmod": "", "trees": ()},
    }
    run = json.loads((tmp_path / "out" / "latest" / "run.json").read_text())
    assert run["seed"] == 9 and run["matrix"]["swaps"] == 200 and run["matrix"]["cells"] == host.ran


def test_one_cell(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.verdict = lambda cell: Status.FAIL
    assert cli.call(["run", "cell", CELL, "--swaps", "3"]) == 1
    assert host.ran == [CELL]
    said = capsys.readouterr().out
    assert f"FAIL  {CELL}: because" in said and f"lab run cell {CELL}" in said


@pytest.mark.parametrize(
    "line",
    [
        "cell x86_64/trixie/refcount/mixed --mutant early_unload",
        "cell x86_64/trixie/reload/mixed --mutant swallow",
        "cell x86_64/trixie/reload/mixed --mutant stale_page",
        "cell x86_64/trixie/reload/syscall --mutant leak",
        "matrix --mechanism refcount --mutant blind",
    ],
)
def test_a_mutant_runs_where_it_fits(host: FakeHost, line: str) -> None:
    assert cli.call(["run", *line.split()]) == 0
    assert host.asked.mutant == line.split()[-1]


def test_dry_run_runs_nothing(host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.call(["run", "matrix", "--dry-run", "--load", "irq"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 24 and "24 cells would run: 20 swaps each" in said.err
    assert cli.call(["run", "cell", CELL, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == [CELL]
    assert host.ran == [] and not (tmp_path / "results").exists()


def test_json_on_stdout_is_run_json(host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.call(["run", "cell", CELL, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == latest(tmp_path)
    assert "PASS" in said.err


def test_quiet_shows_only_the_results(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["run", "cell", CELL, "-q"]) == 0
    said = capsys.readouterr()
    assert "1/1" not in said.out and "1 cell: 1 PASS" in said.out and said.err == ""


def test_ctrl_c_keeps_what_is_finished_and_resume_does_the_rest(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    host.stop = KeyboardInterrupt()
    assert cli.call(["run", "matrix", "--results", "my runs"]) == 130
    assert " --results 'my runs'\n" in capsys.readouterr().err
    assert cli.call(["run", "matrix", "--seed", "5", "--swaps", "6"]) == 130
    run = latest(tmp_path)
    assert len(run["cells"]) == 1 and run["finished"] is False
    said = capsys.readouterr()
    assert "71 did not run" in said.out
    assert said.err == f"lab: interrupted; go on with: lab run matrix --resume {run['run']}\n"
    assert (tmp_path / "results" / "latest" / "report.md").exists()
    assert cli.call(["run", "matrix", "--resume", "latest", "--dry-run"]) == 0
    assert "71 cells would run" in capsys.readouterr().err
    host.stop, host.ran = None, []
    assert cli.call(["run", "matrix", "--resume", "latest"]) == 0
    assert len(host.ran) == 71 and host.asked.swaps == 6 and host.asked.seed == 5
    again = latest(tmp_path)
    assert again["run"] == run["run"] and len(again["cells"]) == 72 and again["finished"] is True
    assert cli.call(["run", "matrix", "--resume", "latest"]) == 0  # nothing is left to do
    assert len(host.ran) == 71


def test_a_run_that_cannot_begin_leaves_nothing(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    host.fail = HypervisorError("libvirt does not open qemu:///embed", hint="run: lab doctor")
    assert cli.call(["run", "matrix", "-q"]) == 3
    assert "libvirt does not open" in one_line(capsys)
    assert list((tmp_path / "results").iterdir()) == []


def test_latest_stays_at_the_run_before_one_that_could_not_begin(host: FakeHost, tmp_path: Path) -> None:
    assert cli.call(["run", "cell", CELL]) == 0
    before = latest(tmp_path)["run"]
    host.fail = HypervisorError("no")
    assert cli.call(["run", "cell", CELL]) == 3
    assert latest(tmp_path)["run"] == before


def test_missing_packages_are_exit_3(host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    host.missing = ["qemu-system-arm"]
    assert cli.call(["run", "matrix"]) == 3
    assert one_line(capsys) == "lab: this host lacks: qemu-system-arm\n"
    assert not (tmp_path / "results").exists()


def test_kvm_that_does_not_work_is_exit_3_at_once(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.call(["run", "matrix", "--accel", "kvm"]) == 3
    assert "KVM does not work here: failed to set MSR 0x10a" in one_line(capsys)
    host.foreign = "aarch64"  # the second of the matrix: nothing is probed for the first
    assert cli.call(["run", "matrix", "--accel", "kvm"]) == 3
    assert "KVM cannot run aarch64" in one_line(capsys)
    assert not (tmp_path / "results").exists()


def test_an_unwritable_results_folder_is_exit_3(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.call(["run", "matrix", "--results", "file"]) == 3
    assert "cannot write results in file" in one_line(capsys)


def test_a_disk_that_fills_up_is_exit_3_and_one_line(
    host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = paths.write_whole

    def write(path: Path, data: str | bytes) -> None:
        if path.name == "report.md":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(paths, "write_whole", write)
    assert cli.call(["run", "cell", CELL, "-q"]) == 3
    said = capsys.readouterr().err
    assert "lab: cannot write the reports in" in said and "No space left on device" in said
    assert said.count("\n") == 1
    host.stop = HostError("cannot write results")  # what ended a run is told, not what came of it
    assert cli.call(["run", "matrix", "-q"]) == 3
    assert capsys.readouterr().err == "lab: cannot write results\n"


def test_a_wrong_origin_is_told_before_anything_runs(
    host: FakeHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KCIDB_ORIGIN", "My CI")
    assert cli.call(["run", "cell", CELL]) == 2
    assert "LAB_KCIDB_ORIGIN='My CI' is no origin" in capsys.readouterr().err
    assert not Path("results").exists()


def test_a_bug_is_not_taken_for_a_failed_cell(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.fail = ValueError("oops")
    assert cli.call(["run", "cell", CELL]) == 3
    assert "lab: internal error: ValueError: oops" in capsys.readouterr().err
    assert list(Path("results").iterdir()) == []


FORMATS = (
    *(("md", "# Run "), ("junit", "<?xml"), ("ktap", "KTAP version 1")),
    *(("html", "<!doctype html>"), ("kcidb", '{\n  "version"')),
)


def test_report(host: FakeHost, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli.call(["run", "cell", CELL])
    capsys.readouterr()
    for name in FILES:
        (tmp_path / "results" / "latest" / name).unlink()
    assert cli.call(["report", "latest"]) == 0
    assert "1 cell: 1 PASS" in capsys.readouterr().out
    assert all((tmp_path / "results" / "latest" / name).exists() for name in FILES)
    assert cli.call(["report", latest(tmp_path)["run"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["id"] == CELL
    for form, words in FORMATS:
        assert cli.call(["report", "--format", form]) == 0
        assert capsys.readouterr().out.startswith(words)


@pytest.mark.parametrize("line", ["report latest", "report latest --json", "run matrix --resume latest"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": []}, "host: Input should be a valid dictionary"),
        ({"matrix": {"cells": [CELL, 5]}}, "matrix.cells.1: Input should be a valid string"),
        ({"run": None}, "run: Input should be a valid string"),
    ],
)
def test_a_damaged_run_is_one_line_and_exit_2(
    host: FakeHost, capsys: pytest.CaptureFixture[str], line: str, change: dict[str, Any], words: str
) -> None:
    cli.call(["run", "cell", CELL])
    file = Path("results/latest/run.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    capsys.readouterr()
    assert cli.call(line.split()) == 2
    assert words in one_line(capsys)


def test_a_run_without_its_order_can_be_reported_but_not_resumed(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.call(["run", "cell", CELL])
    file = Path("results/latest/run.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "matrix": {"cells": [CELL]}}))
    assert cli.call(["report", "latest"]) == 0
    capsys.readouterr()
    assert cli.call(["run", "matrix", "--resume", "latest"]) == 2
    assert "cannot be resumed: its run.json lacks 'swaps'" in one_line(capsys)


@pytest.mark.parametrize("what", ["arches", "kernels", "mechanisms", "loads", "hardware", "mutants", "cells"])
def test_lists(host: FakeHost, capsys: pytest.CaptureFixture[str], what: str) -> None:
    assert cli.call(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert cli.call(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len([line for line in lines if line])
    if what == "cells":
        assert len(rows) == 72 and lines == rows


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["--version"]) == 0
    assert re.fullmatch(r"lab \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    every = commands(typer.main.get_command(cli.app))
    assert ("run", "matrix") in every and ("image", "rm") in every and ("doctor",) in every
    for path in every:
        assert cli.call([*path, "--help"]) == 0
        said = capsys.readouterr().out
        assert "Usage: lab" in said
        assert "Example: lab " in said, path


def in_child(work: Callable[[], int], folder: Path, *, out: int) -> multiprocessing.process.BaseProcess:
    """Fork: nothing is imported again. stdout goes to `out`, stderr to folder/err; the result is the exit code."""

    def child() -> None:
        sys.stdout = os.fdopen(out, "w", closefd=False)
        sys.stderr = (folder / "err").open("w", buffering=1)
        status = work()
        sys.stderr.flush()
        os._exit(status)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_are_like_ctrl_c(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    reader, writer = os.pipe()

    def wait(*_: Any) -> None:
        os.write(writer, b"x")
        time.sleep(30)

    monkeypatch.setattr(host, "verdict", wait)
    process = in_child(lambda: cli.call(["run", "cell", CELL, "-q"]), tmp_path, out=writer)
    assert os.read(reader, 1) == b"x"
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(timeout=10)
    assert process.exitcode == 130
    assert "lab: interrupted; go on with" in (tmp_path / "err").read_text()
    assert latest(tmp_path)["finished"] is False
    os.close(reader)
    os.close(writer)


def test_a_reader_that_went_away_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = in_child(lambda: cli.call(["list", "cells"]), tmp_path, out=writer)
    process.join(timeout=10)
    os.close(writer)
    assert process.exitcode == 0
    assert (tmp_path / "err").read_text() == ""


def test_a_run_outlives_its_reader(host: FakeHost, tmp_path: Path) -> None:
    host.verdict = lambda cell: Status.FAIL
    for more in ([], ["--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        process = in_child(lambda more=more: cli.call(["run", "cell", CELL, *more]), tmp_path, out=writer)
        process.join(timeout=10)
        os.close(writer)
        assert process.exitcode == 1
        assert latest(tmp_path)["finished"] is True
        assert "Traceback" not in (tmp_path / "err").read_text()


def test_a_disk_that_is_full_before_the_first_cell_is_exit_3_and_one_line(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.fail = OSError(errno.ENOSPC, "No space left on device", "/run/lab/r1/etc/qemu.conf")
    assert cli.call(["run", "cell", CELL, "-q"]) == 3
    assert one_line(capsys).startswith("lab: the host's disk is full: /run/lab/r1/etc/qemu.conf (free some space")


def test_a_log_that_cannot_be_written_says_nothing_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    with logs.to_file(Path("/dev/full")):
        logging.getLogger("lab.x").debug("a line that finds no room")
    assert capsys.readouterr().err == ""


def test_the_log_of_a_run_has_what_the_terminal_leaves_out(host: FakeHost, tmp_path: Path) -> None:
    import logging

    def verdict(cell: Cell) -> Status:
        logging.getLogger("lab.x").debug("only for the file %s", cell.id)
        return Status.PASS

    host.verdict = verdict
    assert cli.call(["run", "cell", CELL]) == 0
    assert f"only for the file {CELL}" in (tmp_path / "results" / "latest" / "lab.log").read_text()


@pytest.fixture
def cache(host: FakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache with three images: their folders, the lock of one, and what a lab makes just now."""
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("sid-x86_64-00aa", "sid-aarch64-00bb", "trixie-16k-aarch64-00cc"):
        (tmp_path / "cache" / "images" / name).mkdir(parents=True)
    images = tmp_path / "cache" / "images"
    (images / ".sid-x86_64-00aa.lock").touch()
    (images / ".sid-x86_64-00dd.work").mkdir()
    return images


def images(cache: Path) -> set[str]:
    assert (cache / ".sid-x86_64-00dd.work").is_dir()
    return {path.name for path in cache.iterdir() if path.is_dir() and not path.name.startswith(".")}


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("image rm sid", {"trixie-16k-aarch64-00cc"}),
        ("image rm sid --arch x86_64", {"sid-aarch64-00bb", "trixie-16k-aarch64-00cc"}),
        ("image rm trixie-16k", {"sid-x86_64-00aa", "sid-aarch64-00bb"}),
        ("image rm trixie", {"sid-x86_64-00aa", "sid-aarch64-00bb", "trixie-16k-aarch64-00cc"}),
        ("image rm --all", set()),
    ],
)
def test_images_are_removed_by_name(cache: Path, line: str, left: set[str]) -> None:
    assert cli.call(line.split()) == 0
    assert images(cache) == left


def test_a_damaged_image_is_not_listed_as_cached(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["image", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["kernel"], row["cached"]) for row in rows} >= {("sid", False), ("trixie-16k", False)}
    assert [row["arch"] for row in rows if row["kernel"] == "trixie-16k"] == ["aarch64"]


@pytest.mark.parametrize(("missing", "code"), [([], 0), (["mmdebstrap"], 3)])
def test_doctor(
    host: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    missing: list[str],
    code: int,
) -> None:
    from lab import imagebuild
    from lab.commands import house

    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(imagebuild, "NEEDED_MIB", 0)
    monkeypatch.setattr(house, "_hypervisor", lambda: house._check("libvirt", "9.0.0"))
    chosen = SimpleNamespace(accel=SimpleNamespace(value="tcg"), reason="KVM hangs")
    monkeypatch.setattr(lab.host, "accel", lambda arch, wanted, *, progress: chosen)
    host.missing = missing
    assert cli.call(["doctor"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("BAD  packages: missing: mmdebstrap" if missing else "ok   packages: all installed")
    assert "ok   accel for aarch64: tcg (KVM hangs)" in lines
    assert cli.call(["doctor", "--json"]) == code
    assert all(row["ok"] for row in json.loads(capsys.readouterr().out)) is not bool(missing)
