# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed between two runs, who is told, and which runs are compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import changes, cli
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.changes import Turn
from lab.commands import notify
from lab.errors import HostError, UsageError
from lab.results import RunFolder
from lab.verdict import Status, Verdict

Make = Callable[..., Path]
NAMES = [f"x86_64/trixie/refcount/{load}" for load in ("syscall", "irq", "mixed", "policy")]


def results(*words: str) -> list[CellResult]:
    """Results of the cells by their verdicts; a dash is no result, `known X` a known one."""
    found = []
    for name, word in zip(NAMES, words, strict=False):
        if word != "-":
            one = cell_result(Cell.parse(name), Verdict(Status(word.split()[-1]), f"reason of {word}"))
            found.append(replace(one, known="a link") if word.startswith("known") else one)
    return found


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a finished run, newer than the one made before."""

    def made(*words: str, source: str = "profile nightly", finished: bool = True, **more: Any) -> Path:
        options = {"source": source, **more}
        folder = RunFolder.create(tmp_path, seed=1, cells=[Cell.parse(name) for name in NAMES], options=options)
        for one in results(*words):
            folder.write_cell(one)
        folder.close(finished=finished)
        return folder.path

    return made


@pytest.mark.parametrize(
    ("before", "after", "turn"),
    [
        ("PASS", "FAIL", Turn.RED),
        ("SKIP", "ERROR", Turn.RED),
        ("known FAIL", "CRASH", Turn.RED),
        ("-", "HANG", Turn.RED),
        ("FAIL", "PASS", Turn.GREEN),
        ("FAIL", "CRASH", Turn.OTHER),
        ("FAIL", "known FAIL", Turn.OTHER),
        ("PASS", "known FAIL", Turn.OTHER),
        ("PASS", "SKIP", Turn.OTHER),
        ("FAIL", "SKIP", Turn.OTHER),
        ("-", "PASS", Turn.NEW),
        ("FAIL", "-", Turn.GONE),
        ("PASS", "PASS", None),
        ("FAIL", "FAIL", None),
    ],
)
def test_turns(before: str, after: str, turn: Turn | None) -> None:
    found = changes.between(results(before), results(after))
    assert [one.turn for one in found] == ([turn] if turn else [])


def test_red_comes_first_and_the_summary_counts() -> None:
    found = changes.between(results("FAIL", "PASS", "PASS"), results("PASS", "SKIP", "HANG"))
    text = changes.told(found, before="a", after="b").splitlines()
    assert text[0] == "a -> b: 1 red, 1 green, 1 other"
    assert text[1] == f"red    {NAMES[2]}    PASS -> HANG  reason of HANG"
    assert [line.split()[0] for line in text[1:]] == ["red", "green", "other"]
    assert changes.told([], before="a", after="b") == "a -> b: no verdict changed\n"


def test_a_run_is_compared_with_the_last_finished_one_of_its_kind(make: Make) -> None:
    first = make("PASS")
    make("PASS", source="profile default")
    make("PASS", mutant="leak")
    make("PASS", cells=NAMES[1:])
    make("PASS", finished=False)
    (make("PASS") / "run.json").write_text("{}")
    last = make("PASS")
    head = json.loads((last / "run.json").read_text())
    assert changes.previous(last, head) == first
    assert changes.previous(first, head) is None


CATCH = "import os, sys, json; json.dump([sys.stdin.read(), dict(os.environ)], open(sys.argv[1], 'w'))"


@pytest.fixture
def call(tmp_path: Path) -> Callable[[Path], tuple[str, Mapping[str, str]] | None]:
    """Call a command that writes down what it was told; None when it was not called."""
    file = tmp_path / "called.json"

    def called(run: Path) -> tuple[str, Mapping[str, str]] | None:
        notify.on_change(f'{sys.executable} -c "{CATCH}" {file}', run)
        if not file.exists():
            return None
        text, environment = json.loads(file.read_text())
        file.unlink()
        return text, environment

    return called


def test_the_command_is_told_what_changed(
    make: Make, call: Callable[[Path], tuple[str, dict[str, str]] | None]
) -> None:
    first = make("FAIL", "PASS")
    told = call(first)  # there is none before it: what is red is new
    assert told and told[0].startswith(f"nothing -> {first.name}: 1 red\nred ") and told[1]["LAB_PREVIOUS"] == ""
    assert call(make("FAIL", "PASS")) is None
    second = make("PASS", "PASS", "PASS")  # a cell that came and passes is no news
    told = call(second)
    assert told and told[0].splitlines()[0].endswith(f"-> {second.name}: 1 green")
    assert told[1]["LAB_RUN"] == str(second) and Path(told[1]["LAB_PREVIOUS"]).is_dir()
    assert call(make("PASS", "PASS")) is None


def test_a_command_that_fails_is_told(make: Make) -> None:
    with pytest.raises(HostError, match=r"--on-change failed.*status 3"):
        notify.on_change("sh -c 'exit 3'", make("FAIL"))


@pytest.mark.parametrize("command", ["/no/such/program x", "/dev/null", "'unclosed", "  ", "tee x | tee y", "tee > y"])
def test_a_command_that_cannot_be_is_told_before_anything_runs(command: str) -> None:
    with pytest.raises(UsageError, match="--on-change"):
        notify.checked(command)
    assert cli.call(["run", "matrix", "--dry-run", "--on-change", command]) == 2


def test_lab_compare(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make("PASS", "FAIL"), make("PASS", "PASS")
    words = ["--results", str(tmp_path)]
    assert cli.call(["compare", first.name, *words]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"green  {NAMES[1]}  FAIL -> PASS")
    assert cli.call(["compare", second.name, first.name, "--json", *words]) == 1
    (change,) = json.loads(capsys.readouterr().out)
    assert change == {
        "cell": NAMES[1],
        "turn": "red",
        "before": "PASS",
        "after": "FAIL",
        "reason": "reason of FAIL",
    }
    assert cli.call(["compare", "1999", *words]) == 2
    assert "no run '1999'" in capsys.readouterr().err
