# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's tools print becomes raw data, bounded and clean, whatever it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import measure, workload
from lab.errors import DeadlineError, GuestLost
from lab.guest import ENDED
from lab.ssh import Done
from lab.workload import Raw


def take(*lines: bytes) -> dict[str, Any]:
    raw = Raw()
    for line in lines:
        workload._take(raw.data, line)
    return raw.data


def test_lines_without_end_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "SWAPS_KEPT", 500)
    data = take(*[json.dumps({key: 1}).encode() for key in ("swap", "error") for _ in range(600)])
    assert len(data["swaps"]) == workload.SWAPS_KEPT
    assert len(data["errors"]) == workload.ERRORS_KEPT


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[",
        b"7",
        b"[" * 100_000,
        b'{"load":' * 100_000,
        b'{"load":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"load":NaN}',
        b'{"load":' + b"9" * 5000 + b"}",
        b'{"load":"\xff'
    ],
)  # fmt: skip
def test_what_is_no_json_of_a_tool_is_dropped(line: bytes) -> None:
    assert take(line) == Raw().data


def test_a_lone_surrogate_ends_in_no_report() -> None:
    data = take(b'{"error":"\\ud800 no"}', b'{"down":{"leaks":["\\udfff"],"modules_left":[],"drained":true}}')
    assert data["errors"] == [" no"] and data["down"]["leaks"] == [""]
    assert take(b'{"error":"\\ud83d\\ude00"}')["errors"] == ["\N{GRINNING FACE}"]  # a pair is a character
    measure.samples(data)


def test_an_escape_that_json_spells_is_cleaned_too() -> None:
    line = json.dumps({"stats": {"\x1b[2Jkey": [{"name": "\x1b]0;owned\x07x\u202e"}, 1, None]}})
    assert "\\u001b" in line
    assert take(line.encode())["stats"] == {"key": [{"name": "x"}, 1, None]}


class FakeGuest:
    """A guest that is lost at the step of these words; why comes to light only later, as from the console."""

    def __init__(self, at: str, why: str) -> None:
        self.name = "g"
        self.console = SimpleNamespace(settle=lambda *_: None)
        self._at, self._why, self._asked = at, why, 0

    @property
    def lost(self) -> str:
        self._asked += 1
        return self._why if self._asked > 2 else ""

    def put_tar(self, *_: Any, **__: Any) -> None:
        pass

    def run(self, command: str, **_: Any) -> Done:
        if self._at in command:
            raise GuestLost("the SSH connection ended: closed by the guest")
        return Done(0, b"", b"")


def execute(at: str, why: str, monkeypatch: pytest.MonkeyPatch) -> Raw:
    monkeypatch.setattr(workload, "ENDED_S", 0.1)
    guest: Any = FakeGuest(at, why)
    plan = workload.Plan(mechanism="refcount", load="irq", swaps=2, seed=1, threads=2, marker="m")
    return workload.execute(guest, plan, b"", scale=1.0, phase=lambda name: None)


def test_a_guest_that_ends_before_the_swaps_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = execute("hs-ctl up", ENDED, monkeypatch)
    assert (raw.lost, raw.crash) == (ENDED, "")


@pytest.mark.parametrize("at", ["hs-ctl swap", "hs-ctl down"])
def test_a_guest_that_ends_once_swaps_have_begun_crashed(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = execute(at, ENDED, monkeypatch)
    assert raw.crash == "QEMU ended by itself once swaps had begun: the guest reset or shut down"


@pytest.mark.parametrize(("why", "lost"), [("the run was interrupted",) * 2, ("", "the SSH connection ended")])
def test_a_guest_lost_otherwise_is_no_crash(why: str, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = execute("hs-ctl swap", why, monkeypatch)
    assert raw.lost.startswith(lost) and raw.crash == ""


class Silent:
    """A guest of which one tool, named on the line before, says no more."""

    name, lost = "g", ""

    def __init__(self, tool: str) -> None:
        self._tool = tool

    def put_tar(self, *_: Any, **__: Any) -> None:
        pass

    def run(self, command: str, *, on_line: Any = None, **_: Any) -> Done:
        if f"./{self._tool}" in command:
            on_line(json.dumps({"tool": self._tool}).encode())
            raise DeadlineError(f"'{command[:80]}' said nothing for 45 s")
        return Done(0, b"", b"")


@pytest.mark.parametrize("tool", ["hs-ctl swap", "hs-ctl refuse", "hs-ctl down"])
def test_a_hang_names_the_tool(tool: str) -> None:
    guest: Any = Silent(tool)
    plan = workload.Plan(mechanism="refcount", load="irq", swaps=2, seed=1, threads=2, marker="m")
    raw = workload.execute(guest, plan, b"", scale=1.0, phase=lambda name: None)
    assert raw.hung == f"{tool} said nothing for 45 s"


def test_tools_run_on_after_one_that_failed_and_a_killed_one_is_told(tmp_path: Path) -> None:
    for name, script in (
        ("one", 'echo \'{"error":"no"}\'; exit 1'),
        ("two", "printf 'half a li'; kill -9 $$"),
        ("three", ""),
    ):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    chain = workload._chain(("one --seed 7", "two", "three up --all"))
    done = subprocess.run(["sh", "-c", f"{chain} exit $status"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 137
    data = take(*done.stdout.splitlines())
    assert data["errors"] == ["no", "two: status 137"]
    assert b'{"tool":"three up"}' in done.stdout.splitlines()


def test_a_skip_is_kept_with_its_reason() -> None:
    assert take(b'{"skip":"the kernel has no livepatch"}')["skip"] == "the kernel has no livepatch"
