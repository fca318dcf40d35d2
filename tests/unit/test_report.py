# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports: figures, files other tools read, and the terminal."""

from __future__ import annotations

import io
import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from markdown_it import MarkdownIt
from rich.console import Console

from lab import dmesg, measure, report, verdict, workload
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.report import figures, junit, ktap, markdown, terminal
from lab.verdict import Status, Verdict
from lab.workshop import RunOptions

DATA = Path(__file__).parent.parent / "data"
RAW: dict[str, Any] = json.loads((DATA / "raw-refcount-mixed.json").read_text())
HEAD = {
    "run": "2026-01-02_030405",
    "started": "2026-01-02T03:04:05+00:00",
    "duration_s": 133.0,
    "seed": 7,
    "host": {"cpu": "a <b> & c", "accel": {"x86_64": "tcg"}},
    "matrix": {"cells": ["a", "b", "c", "d", "e", "f", "g"]},
}


def cell(kernel: str) -> Cell:
    return Cell("x86_64", kernel, "refcount", "mixed")


AGAIN = RunOptions(seed=7)


def full(kernel: str = "k0", mark: str = "", **seen: Any) -> CellResult:
    samples = measure.samples(RAW)
    events = dmesg.read((DATA / "dmesg" / "x86_64-null.log").read_bytes(), mark=mark) if mark else dmesg.read("")
    judged = verdict.judge(samples, events, cell=cell(kernel), again=AGAIN.again(cell(kernel)), **seen)
    return cell_result(cell(kernel), judged, samples=samples, events=events, duration_s=4.25)


def bare(kernel: str, status: Status, reason: str) -> CellResult:
    again = verdict.next_command(status, AGAIN.again(cell(kernel)))
    return cell_result(cell(kernel), Verdict(status, reason, next_command=again))


RESULTS = [
    full(),
    full("k1", mark="lab: marker 4f2a"),
    bare("k2", Status.FAIL, "oracle 4: edu: 12 raised, # 10 handled: 2 lost"),
    bare("k3", Status.HANG, "no progress for 40 s"),
    bare("k4", Status.ERROR, "no space\x00 left | on\ndevice"),
    bare("k5", Status.SKIP, "the kernel has no livepatch"),
]


@pytest.mark.parametrize(
    ("ns", "told"),
    [
        (None, "-"),
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 us"),
        (1_234_567, "1.23 ms"),
        (123_456_789, "123 ms"),
        (1_500_000_000, "1.5 s"),
        (999_999_999, "1000 ms"),
    ],
)
def test_durations(ns: int | None, told: str) -> None:
    assert figures.duration(ns) == told


def test_figures_of_a_full_and_an_empty_result() -> None:
    row = figures.figures(full())
    assert row == figures.Figures("4.2", "110", "0", "2", "5 us", "5 us", "100 ns", "10")
    empty = figures.figures(RESULTS[3])
    assert set(vars(empty).values() if hasattr(empty, "__dict__") else [empty.calls, empty.swaps, empty.drain]) == {"-"}


@pytest.mark.parametrize(("raw_ns", "told"), [(4000, "<5 us"), (None, "<5 us"), (7000, ">=5 us")])
def test_a_bound_is_told_as_one(raw_ns: int | None, told: str) -> None:
    result = replace(full(), blackout_exact=False, blackout_raw_ns=raw_ns)
    assert figures.figures(result).blackout == told


def test_tally() -> None:
    assert figures.tally(RESULTS) == "6 cells: 1 PASS, 1 FAIL, 1 CRASH, 1 HANG, 1 ERROR, 1 SKIP"
    assert figures.tally([]) == "0 cells"


def test_what_a_guest_says_is_no_markup() -> None:
    said = ["<b>bold</b>", "```", "[a](javascript:b)", "    ````", "# head", "- <img src=x>"]
    splat = {"kind": "oops", "headline": "x", "panic": False, "excerpt": said}
    result = replace(
        bare("k1", Status.CRASH, "<i>"), splats=[splat], oracles=[{"oracle": 5, "ok": False, "detail": "<u>"}]
    )
    parsed = MarkdownIt().parse(markdown.render(HEAD, [result]))
    assert [one.content for one in parsed if one.type == "fence"] == ["\n".join(said) + "\n"]
    flat = [one for token in parsed for one in (token, *(token.children or ()))]
    assert not [one for one in flat if one.type in ("html_inline", "html_block", "link_open", "image")]


def test_markdown() -> None:
    text = markdown.render(HEAD, RESULTS)
    assert "| `x86_64/k0/refcount/mixed` | PASS | 4.2 | 110 | 0 | 2 | 5 us | 5 us | 100 ns | 10 |" in text
    assert "## CRASH x86_64/k1/refcount/mixed" in text
    assert "    lab run cell x86_64/k1/refcount/mixed --seed 7" in text
    assert "hs\\_calc+0x14/0x40" in text  # quoted, not emphasised
    (code,) = [one.content for one in MarkdownIt().parse(text) if one.type == "fence"]
    assert "RIP: 0010:hs_calc" in code  # the excerpt, as code
    assert "lab run matrix --resume 2026-01-02\\_030405" in text or "resume" in text
    assert "## Skipped" in text
    table = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(table) == 6 and {line.count("|") for line in table} == {11}


def test_junit_is_read_by_junitparser() -> None:
    xml = JUnitXml.fromstring(junit.render(HEAD, RESULTS).encode())
    (suite,) = list(xml)
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (6, 1, 3, 1)
    assert {one.name: one.value for one in suite.properties()}["host.cpu"] == "a <b> & c"
    cases = {case.name.split("/")[1]: case for case in suite}
    assert cases["k0"].result == [] and cases["k0"].time == 4.25
    assert isinstance(cases["k1"].result[0], Error) and cases["k1"].result[0].type == "CRASH"
    assert "hs_calc+0x14/0x40 [hs_ed_add]" in cases["k1"].result[0].message
    assert isinstance(cases["k2"].result[0], Failure)
    assert isinstance(cases["k5"].result[0], Skipped) and "livepatch" in cases["k5"].result[0].message
    assert "\x00" not in junit.render(HEAD, RESULTS)


def parse_ktap(lines: list[str], depth: int = 0) -> dict[str, tuple[bool, str]]:
    """A reader after ktap.rst; checks version, plan, numbers and nesting as it goes."""
    pad = "  " * depth
    mine = [line for line in lines if line.startswith(pad) and not line.startswith(pad + "  ")]
    assert mine[0] == pad + "KTAP version 1"
    plan = re.fullmatch(rf"{pad}1\.\.(\d+)", mine[1])
    assert plan
    found: dict[str, tuple[bool, str]] = {}
    for line in mine[2:]:
        if line.startswith(pad + "# "):
            continue
        match = re.fullmatch(rf"{pad}(not )?ok (\d+) - ([^#]+?)(?: # (SKIP|TODO|XFAIL|TIMEOUT|ERROR)( [^#]*)?)?", line)
        assert match, line
        assert int(match.group(2)) == len(found) + 1
        found[match.group(3)] = (not match.group(1), match.group(4) or "")
    assert len(found) == int(plan.group(1))
    return found


def test_ktap_is_valid_and_says_the_same() -> None:
    lines = ktap.render(RESULTS).splitlines()
    found = {name.split("/")[1]: outcome for name, outcome in parse_ktap(lines).items()}
    assert found == {
        "k0": (True, ""),
        "k1": (False, "ERROR"),
        "k2": (False, ""),
        "k3": (False, "TIMEOUT"),
        "k4": (False, "ERROR"),
        "k5": (True, "SKIP"),
    }


def test_ktap_has_a_subtest_per_oracle_and_a_failure_bubbles_up() -> None:
    lines = ktap.render([RESULTS[1]]).splitlines()
    inner = parse_ktap(["  " + line.strip() for line in lines if line.startswith("  ")], depth=1)
    assert inner["oracle 5 dmesg"] == (False, "")
    assert inner["oracle 1 conservation"] == (True, "")
    assert len(inner) == 8
    assert [line for line in lines if line.startswith("not ok 1 - ")]


def test_every_file_is_written(tmp_path: Path) -> None:
    report.write(tmp_path, HEAD, RESULTS)
    assert {path.name for path in tmp_path.iterdir()} == set(report.FILES)


def out(text: io.StringIO, *, live: bool = False, height: int = 25) -> Console:
    if not live:
        return terminal.console(text)
    return Console(file=text, force_terminal=True, width=120, height=height, color_system=None)


def test_the_summary_names_each_red_row_its_reason_and_the_next_command(tmp_path: Path) -> None:
    text = io.StringIO()
    terminal.summary(out(text), RESULTS, folder=tmp_path, seconds=133, wanted=7)
    said = text.getvalue()
    assert "CRASH x86_64/k1/refcount/mixed: BUG: kernel NULL pointer dereference" in said
    assert "      lab run cell x86_64/k1/refcount/mixed --seed 7" in said
    assert f"      {tmp_path}/cells/x86_64/k1/refcount/mixed/\n" in said
    assert f"{tmp_path}/lab.log\n" in said  # of the ERROR
    assert "SKIP  x86_64/k5/refcount/mixed: the kernel has no livepatch" in said
    assert "6 cells: 1 PASS, 1 FAIL, 1 CRASH, 1 HANG, 1 ERROR, 1 SKIP, 1 did not run, in 2 min 13 s" in said
    assert f"results: {tmp_path}/report.md" in said
    assert "\x1b" not in said


def test_brackets_of_a_reason_are_text_not_markup() -> None:
    text = io.StringIO()
    one = bare("k9", Status.CRASH, "BUG at hs_x+0x1/0x2 [hs_core] [/bold]")
    terminal.summary(out(text), [one], folder=Path("/x"), seconds=1, wanted=1)
    assert "BUG at hs_x+0x1/0x2 [hs_core] [/bold]" in text.getvalue()


ESCAPE = "\x1b]0;owned\x07\x1b[2J\nok 1 - forged"


@pytest.mark.parametrize("decoded", [True, False])  # as a tool's JSON, or already in the raw data
def test_no_escape_of_a_guest_reaches_a_reader(tmp_path: Path, decoded: bool) -> None:
    raw: dict[str, Any] = json.loads(json.dumps(RAW))
    said = {
        "down": {"leaks": [ESCAPE], "modules_left": [ESCAPE], "drained": False},
        "refusals": [{"case": ESCAPE, "expected": ESCAPE, "got": ESCAPE, "refused": False, "same": True}],
        "stats": {**raw["stats"], "mechanism": ESCAPE},
    }
    said["stats"]["editions"][0].update(name=ESCAPE, state=ESCAPE, slot=ESCAPE)
    said["stats"]["sources"][1].update(name=ESCAPE, wrong=1, errors={ESCAPE: 1})
    for key, value in said.items():
        if decoded:
            workload._take(raw, json.dumps({key: value}).encode())
        else:
            raw[key] = value
    raw["errors"] = [ESCAPE]
    raw["swaps"][0] = {"swap": 1, "step": ESCAPE, "error": ESCAPE}
    samples = measure.samples(raw)
    judged = verdict.judge(samples, dmesg.read(""), cell=cell("k0"))
    assert [one.ok for one in judged.oracles].count(False) >= 3
    result = cell_result(cell("k0"), judged, samples=samples)
    report.write(tmp_path, HEAD, [result])
    text = io.StringIO()
    terminal.summary(out(text), [result], folder=tmp_path, seconds=1, wanted=1)
    told = [text.getvalue(), json.dumps(result.to_json()), *(path.read_text() for path in tmp_path.iterdir())]
    for one in told:
        assert "\x1b" not in one and "\\u001b" not in one and "]0;" not in one
        assert "\nok 1 - forged" not in one and "\\nok 1" not in one


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    cells = [result.cell for result in RESULTS]
    with terminal.watch(cells, out(text)) as observer:
        observer.note("x86_64/k0: building the image")
        for result in RESULTS[:3]:
            observer.cell_phase(result.cell, "start")
            observer.cell_done(result.cell, result)
    lines = text.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("] x86_64/k0: building the image")
    assert "1/6 PASS  x86_64/k0/refcount/mixed" in lines[1]
    assert "110 calls, 0 failed, 2 swaps, blackout 5 us, drain 100 ns" in lines[1]
    assert "3/6 FAIL  x86_64/k2/refcount/mixed" in lines[3] and "2 lost" in lines[3]


@pytest.mark.parametrize("variable", ["CI", "NO_COLOR"])
def test_ci_and_no_color_want_plain_lines(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert not terminal.plain(Terminal())
    assert terminal.plain(io.StringIO())
    monkeypatch.setenv(variable, "1")
    assert terminal.plain(Terminal())


def render(watch: terminal.LiveWatch, console: Console) -> str:
    with console.capture() as capture:
        console.print(watch.table())
    return capture.get()


def test_the_live_table_shows_phase_verdict_and_figures() -> None:
    console = out(io.StringIO(), live=True)
    watch = terminal.LiveWatch([cell("k0"), cell("k1"), cell("k2")], [], console)
    watch.cell_phase(cell("k0"), "start")
    watch.cell_phase(cell("k1"), "swap")
    watch.cell_done(cell("k0"), RESULTS[0])
    watch.note("trixie: building the image")
    said = render(watch, console)
    rows = [line.split() for line in said.splitlines()]
    assert ["x86_64/k0/refcount/mixed", "PASS", "4.2", "110", "0", "2", "5", "us", "100", "ns"] in rows
    assert any(row[:2] == ["x86_64/k1/refcount/mixed", "swap"] for row in rows)
    assert ["x86_64/k2/refcount/mixed", "waiting"] in rows
    assert "1/3 done" in said and "trixie: building the image" in said


def test_a_long_table_shows_what_runs_and_what_failed() -> None:
    console = out(io.StringIO(), live=True, height=14)
    cells = [cell(f"n{number:02}") for number in range(40)]
    watch = terminal.LiveWatch(cells, [], console)
    for one in cells[:30]:
        status = Status.FAIL if one.kernel == "n03" else Status.PASS
        watch.cell_done(one, cell_result(one, Verdict(status, "r")))
    watch.cell_phase(cells[39], "load")
    said = render(watch, console)
    assert len(said.splitlines()) <= 14
    assert "n03" in said and "n39" in said and "n29" in said
    assert "30/40 done, 32 not shown" in said


def test_a_watch_takes_calls_from_many_threads() -> None:
    console = out(io.StringIO(), live=True)
    cells = [cell(f"n{number:02}") for number in range(20)]
    watch = terminal.LiveWatch(cells, [], console)

    def work(one: Cell) -> None:
        for phase in ("start", "load", "swap"):
            watch.cell_phase(one, phase)
            watch.table()
        watch.cell_done(one, cell_result(one, Verdict(Status.PASS, "r")))

    threads = [threading.Thread(target=work, args=(one,)) for one in cells]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "20/20 done" in render(watch, console)
