# SPDX-License-Identifier: GPL-2.0-or-later
"""Known failures: what an entry describes, until when, how it is told, and what a wrong file gets for an answer."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml, Skipped

from lab import known, profile
from lab.catalogue import Oracle
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.commands.run import exit_code
from lab.errors import Exit, UsageError
from lab.finding import Finding
from lab.report import figures, html, junit, kcidb, ktap, markdown, terminal
from lab.results import RunFolder, read_run, stored
from lab.verdict import Status, Verdict

ENTRY = {
    "cell": "x86_64/sid/*",
    "status": "CRASH",
    "text": "double fault",
    "reason": "TCG and cmpxchg16b | #12",
    "expires": "2026-11-22",
}


def result(name: str, status: Status, reason: str = "because") -> CellResult:
    return cell_result(Cell.parse(name), Verdict(status, reason))


CRASH = result("x86_64/sid/refcount/mixed", Status.CRASH, "double fault: 0000 in slub")


def head(*entries: dict[str, Any], day: str = "2026-11-22") -> dict[str, Any]:
    return {
        "run": "r",
        "started": f"{day}T23:59:59+00:00",
        "duration_s": 1.0,
        "seed": 1,
        "host": {},
        "matrix": {"cells": [CRASH.id], "known": list(entries)},
    }


def test_an_entry_describes_pattern_verdict_and_words() -> None:
    marked = known.marked(CRASH, head(ENTRY))
    assert marked.known == "TCG and cmpxchg16b | #12 (until 2026-11-22)" and not marked.red
    assert marked.status is Status.CRASH and marked.reason == CRASH.reason
    for other in (
        result("x86_64/trixie/refcount/mixed", Status.CRASH, CRASH.reason),
        result(CRASH.id, Status.HANG, CRASH.reason),
        result(CRASH.id, Status.CRASH, "general protection fault"),
        result("x86_64/SID/refcount/mixed", Status.CRASH, CRASH.reason),
    ):
        assert known.marked(other, head(ENTRY)) == other and other.red


def test_past_its_day_an_entry_excuses_nothing_and_says_so() -> None:
    late = head(ENTRY, day="2026-11-23")
    assert known.marked(CRASH, late) == CRASH
    assert known.review(late, [CRASH]) == [
        "known failure 'x86_64/sid/*' CRASH 'double fault' expired on 2026-11-22: 1 of its cells count again"
    ]
    assert "remove it" in known.review(late, [])[0]


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ([CRASH, result("x86_64/sid/reload/irq", Status.PASS)], []),
        ([], ["none of its cells is in this run"]),
        ([result("x86_64/sid/reload/irq", Status.PASS)], ["its cells pass now (1): remove it"]),
        ([replace(CRASH, status=Status.HANG)], ["no cell failed so"]),
        ([replace(CRASH, status=Status.SKIP)], ["no cell failed so"]),
    ],
)
def test_an_entry_that_described_nothing_is_told(results: list[CellResult], told: list[str]) -> None:
    lines = known.review(head(ENTRY), results)
    assert len(lines) == len(told) and all(word in line for word, line in zip(told, lines, strict=True))


def test_exit_codes() -> None:
    excused = known.marked(CRASH, head(ENTRY))
    passed, skipped = result("a/b/c/d", Status.PASS), result("a/b/c/e", Status.SKIP)
    error = result("a/b/c/f", Status.ERROR)
    assert exit_code([excused]) == exit_code([excused, passed, skipped]) == Exit.OK
    assert exit_code([excused, CRASH]) == Exit.FAILED
    assert exit_code([excused, error]) == Exit.INFRA
    assert exit_code([skipped]) == Exit.NOTHING


def test_every_report_shows_it_as_known() -> None:
    oracles = [Finding(Oracle.DMESG, ok=False, detail="a splat"), Finding(Oracle.CONSERVATION, ok=True, detail="fine")]
    seen = cell_result(CRASH.cell, Verdict(Status.CRASH, CRASH.reason, oracles))
    run = head(ENTRY, {**ENTRY, "cell": "aarch64/*"})
    results = [known.marked(seen, run), result("x86_64/sid/reload/irq", Status.PASS)]
    assert figures.tally(results) == "2 cells: 1 PASS, 1 known CRASH"
    text = markdown.render(run, results)
    assert f"| `{CRASH.id}` | known CRASH |" in text and f"## CRASH {CRASH.id}" not in text
    assert "known: TCG and cmpxchg16b \\| \\#12 (until 2026-11-22)" in text
    assert "none of its cells is in this run" in text
    (suite,) = list(JUnitXml.fromstring(junit.render(run, results).encode()))
    assert (suite.failures, suite.errors, suite.skipped) == (0, 0, 1)
    (case,) = [case for case in suite if case.result]
    assert isinstance(case.result[0], Skipped) and case.result[0].message.startswith("known CRASH: double fault")
    lines = ktap.render(results).splitlines()
    assert "ok 1 - x86_64/sid/refcount/mixed # XFAIL CRASH: TCG and cmpxchg16b | 12 (until 2026-11-22)" in lines
    assert "  ok 1 - oracle 5 dmesg # XFAIL TCG and cmpxchg16b | 12 (until 2026-11-22)" in lines
    assert not [line for line in lines if "not ok" in line]
    page = html.render(run, results, Path("/x"))
    assert "To look at" not in page and ">1 known CRASH</li>" in page and ">known CRASH<small>" not in page
    assert page.count("TCG and cmpxchg16b") >= 1 and "none of its cells is in this run" in page
    (test,) = [one for one in json.loads(kcidb.render(run, results))["tests"] if one["id"].endswith(CRASH.id)]
    assert test["comment"].startswith("known CRASH: double fault") and "TCG and cmpxchg16b" in test["comment"]
    out = io.StringIO()
    notes = known.review(run, results)
    terminal.summary(terminal.console(out), results, folder=Path("/x"), seconds=1, wanted=2, notes=notes)
    assert f"known CRASH {CRASH.id}: double fault" in out.getvalue()
    assert "      known: TCG and cmpxchg16b | #12 (until 2026-11-22)" in out.getvalue()
    assert "none of its cells is in this run" in out.getvalue()


def test_a_run_keeps_its_entries_and_so_does_one_that_is_resumed(tmp_path: Path) -> None:
    entry = known.Entry.model_validate({**ENTRY, "expires": "9999-12-31"})
    options = {"known": [entry.model_dump(mode="json")], "source": "profile x"}
    folder = RunFolder.create(tmp_path, seed=1, cells=[CRASH.cell], options=options)
    folder.close(finished=False)
    folder = RunFolder.resume(tmp_path, folder.run)
    assert folder.write_cell(CRASH).known
    folder.close()
    assert stored(folder.path)[0].known == "TCG and cmpxchg16b | #12 (until 9999-12-31)"
    assert read_run(folder.path)["cells"][0]["known"]


GOOD = "".join(f'{key} = "{value}"\n' for key, value in ENTRY.items())


@pytest.mark.parametrize(
    ("text", "at", "told"),
    [
        (f"[[known]]\n{GOOD}[[known]]\n{GOOD}cel = 1\n", "13: cel", "unknown key"),
        ("[[known]]\n" + GOOD.replace("CRASH", "ERROR"), "3: status", "'FAIL', 'CRASH' or 'HANG'"),
        ("[[known]]\n" + GOOD.replace("2026-11-22", "tomorrow"), "6: expires", "should be a date"),
        ("[[known]]\n" + GOOD.replace('"2026-11-22"', "7"), "6: expires", "should be a valid date"),
        ("[[known]]\n" + GOOD.replace("double fault", ""), "4: text", "at least 1 character"),
        (f"[[known]]\n{GOOD}[[known]]\n" + GOOD.replace('reason = "', 'why = "'), "11: why", "unknown key"),
        (f"[[known]]\n{GOOD}[[known]]\n" + GOOD.replace('reason = "', '# "'), "7: reason", "is missing"),
        (f"[[knowns]]\n{GOOD}", "1: knowns", "unknown key"),
        ("[[known]\n", "1:", "not valid TOML"),
    ],
)
def test_a_wrong_file_gets_file_line_and_key(tmp_path: Path, text: str, at: str, told: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        known.load(path)
    assert caught.value.message.startswith(f"{path}:{at}") and told in caught.value.message
    assert caught.value.hint
    if "unknown key" in told:
        assert caught.value.hint == (
            "known: known" if "knowns" in at else f"known: {', '.join(known.Entry.model_fields)}"
        )


def test_the_files_shipped_are_valid_and_hold_no_entry_for_ever() -> None:
    for name in profile.profiles():
        if file := profile.profile(name).known:
            for one in known.load(profile.PROFILES / file):
                assert one.expires.year < 2100


def test_a_date_needs_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[[known]]\n" + GOOD.replace('"2026-11-22"', "2026-11-22"))
    assert json.loads(known.load(path)[0].model_dump_json()) == ENTRY
