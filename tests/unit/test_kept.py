# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guests of failed cells a run leaves standing."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import kept as kepts
from lab import stayed
from lab.cell import Cell
from lab.cellresult import CellResult, cell_result
from lab.keeper import Keeper
from lab.kept import Kept
from lab.verdict import Status, Verdict
from tests.staying import Fake

CELL = Cell.parse("aarch64/trixie/refcount/mixed")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(kepts, "available_mib", lambda: 1 << 20)


def crashed() -> CellResult:
    return cell_result(CELL, Verdict(Status.CRASH, "BUG: x", next_command=""))


def offer(kept: Kept, stack: ExitStack, folder: Path, name: str) -> Fake:
    with stack.pop_all() as own:
        fake = Fake(folder, own, name)
        kept.offer(crashed(), fake.guest, own, folder=folder / "cell", build=folder / "build")
    return fake


def test_a_failed_cells_guest_stands_still(tmp_path: Path) -> None:
    with Keeper() as keeper, ExitStack() as stack:
        kept = Kept(keeper, stack)
        fake = offer(kept, stack, tmp_path, "g1")
        assert fake.hypervisor.ended == [] and fake.hypervisor.frozen == {"g1"}
        one = stayed.find()
        assert (one.cell, one.frozen, one.build) == (CELL.id, "CRASH: BUG: x", str(tmp_path / "build"))
        assert one.console_log == str(tmp_path / "cell" / "console.log")
        assert kept.told == [
            f"{one.name} stands still: {CELL.id} CRASH: BUG: x",
            f"    lab gdb {one.name}, lab console {one.name}; lab down {one.name} ends it",
        ]
    assert fake.hypervisor.ended == ["g1"]


def test_a_full_disk_keeps_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stayed, "write", full)
    with Keeper() as keeper, ExitStack() as stack:
        kept = Kept(keeper, stack)
        fake = offer(kept, stack, tmp_path, "g1")
        assert kept.told == [f"{CELL.id} is not kept: [Errno 28] No space left on device"]
        assert fake.hypervisor.ended == ["g1"]


def test_there_is_an_end_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kepts, "MOST", 2)
    with Keeper() as keeper, ExitStack() as stack:
        kept = Kept(keeper, stack)
        fakes = [offer(kept, stack, tmp_path, f"g{number}") for number in range(3)]
        assert [fake.hypervisor.ended for fake in fakes] == [[], [], ["g2"]]
        assert kept.told[-1] == f"{CELL.id} is not kept: 2 guests are kept already"
        monkeypatch.setattr(kepts, "MOST", 8)
        monkeypatch.setattr(kepts, "available_mib", lambda: 2000)
        offer(kept, stack, tmp_path, "g4")
        assert kept.told[-1] == f"{CELL.id} is not kept: the cells to come need the memory that is left"
        assert len(stayed.every()) == 2
