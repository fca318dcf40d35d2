# SPDX-License-Identifier: GPL-2.0-or-later
"""A run that is stopped, or loses its host, while what its cells share is made; no guest, no libvirt."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import guest, halt, proc, schedule, shelf, warm, workload
from lab.cell import Cell
from lab.deadline import Deadline, wait_until
from lab.errors import DeadlineError, GuestLost, HostError, Interrupted
from lab.rack import Rack
from lab.results import RunFolder
from lab.ssh import KeyPair
from lab.verdict import Status
from lab.workshop import RunOptions, Workshop

CELLS = [Cell.parse(f"x86_64/{kernel}/refcount/irq") for kernel in ("bookworm", "trixie")]


class Quiet:
    def cell_phase(self, cell: Cell, phase: str) -> None: ...

    def cell_done(self, cell: Cell, result: object) -> None: ...

    def note(self, text: str) -> None: ...


class Hypervisor:
    """Remembers which guests were ended; a socket stands for the QEMU of each."""

    def __init__(self) -> None:
        self.destroyed: list[str] = []
        self.trouble = ""
        self.qemus: dict[str, socket.socket] = {}

    def boot(self, name: str, console: Path) -> None:
        self.qemus[name] = socket.socket(socket.AF_UNIX)
        self.qemus[name].connect(str(console))

    def disk_error(self, _name: str) -> str:
        return self.trouble

    def destroy(self, name: str) -> None:
        self.destroyed.append(name)
        if name in self.qemus:
            self.qemus[name].close()


class Run:
    """A pool whose preparation is the test's; `step` is told when it has begun."""

    def __init__(self, folder: Path) -> None:
        self.rack = Rack(
            root=folder,
            work=folder,
            hypervisor=Hypervisor(),  # type: ignore[arg-type]
            key=KeyPair.new(),
            scale=1.0,
        )
        options = RunOptions(jobs=2)
        self.workshop = Workshop(self.rack, options, Quiet())
        self.folder = RunFolder.create(folder / "results", seed=1, cells=CELLS)
        self.pool = schedule.Pool(self.rack, self.workshop, self.folder, Quiet(), options)
        self.begun = threading.Event()

    def interrupted(self, monkeypatch: pytest.MonkeyPatch) -> float:
        """Run until preparation has begun, then interrupt as Ctrl-C does; the seconds it took to end."""
        at: list[float] = []

        def wait(*_args: object, **_keywords: object) -> None:
            assert self.begun.wait(5)
            at.append(time.monotonic())
            raise KeyboardInterrupt

        monkeypatch.setattr(schedule, "wait", wait)
        with pytest.raises(KeyboardInterrupt):
            self.pool.run(CELLS)
        return time.monotonic() - at[0]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    yield Run(tmp_path)
    halt.check()  # whoever ends a run takes the word to stop back


def test_ctrl_c_ends_a_command_of_the_preparation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(*_base: str) -> None:
        run.begun.set()
        proc.run(["sleep", "600"])

    monkeypatch.setattr(run.workshop, "machine", machine)
    assert run.interrupted(monkeypatch) < 3


def test_ctrl_c_ends_waiting_for_another_lab(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def machine(*_base: str) -> None:
        with shelf.locked(tmp_path / "entry", waiting=began):
            raise AssertionError("the lock is another lab's")

    @contextmanager
    def began() -> Iterator[None]:
        run.begun.set()
        yield

    monkeypatch.setattr(run.workshop, "machine", machine)
    with shelf.lock_of(tmp_path / "entry").open("w") as theirs:
        assert shelf.taken(theirs)
        assert run.interrupted(monkeypatch) < 3


def test_ctrl_c_keeps_the_next_step_of_the_preparation_from_beginning(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(*_base: str) -> SimpleNamespace:
        run.begun.set()
        wait_until(lambda: run.workshop.abandoned, "the end of the run", Deadline.after(5))
        return SimpleNamespace()

    def ensure(*_args: object, **_keywords: object) -> None:
        raise AssertionError("no warm state is made in a run that ended")

    monkeypatch.setattr(run.workshop, "machine", machine)
    monkeypatch.setattr(warm, "ensure", ensure)
    assert run.interrupted(monkeypatch) < 3


def test_ctrl_c_ends_a_guest_that_is_still_starting(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names: list[str] = []

    def machine(*_base: str) -> None:
        with guest._console(
            run.rack,
            SimpleNamespace(),  # type: ignore[arg-type]
            f"g{threading.get_ident()}",
            tmp_path / f"{threading.get_ident()}.log",
            lambda _data: None,
            warm=False,
        ) as one:
            run.rack.hypervisor.boot(one.name, tmp_path / f"{one.name}.con")  # type: ignore[call-arg,arg-type]
            names.append(one.name)
            if len(names) == 2:
                run.begun.set()
            one.console.wait_for("never said", Deadline.after(600))

    monkeypatch.setattr(run.workshop, "machine", machine)
    assert run.interrupted(monkeypatch) < 3
    assert sorted(run.rack.hypervisor.destroyed) == sorted(names)  # type: ignore[attr-defined]


def test_a_guest_ended_from_outside_does_not_cost_its_warm_state(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()

    @contextmanager
    def lost(*_args: Any) -> Iterator[None]:
        halt.call()
        raise GuestLost("the run was interrupted")
        yield

    monkeypatch.setattr(warm, "ensure", lambda *_args, **_keywords: state)
    monkeypatch.setattr(warm, "_restore", lost)
    start: Callable[..., Any] = warm.start
    try:
        with pytest.raises(Interrupted), start(run.rack, None, console_log=tmp_path / "log"):
            pass
    finally:
        halt.over()
    assert state.is_dir()


FULL = OSError(errno.ENOSPC, "No space left on device", "/cache/racks/r1/g1.seed")
FULL_TOLD = "the host's disk is full: /cache/racks/r1/g1.seed (free some space, or run: lab gc)"


@pytest.mark.parametrize("which", ["bookworm", "trixie"])
def test_what_cannot_be_made_is_an_error_of_the_cells_concerned_and_others_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    def prepare(_arch: str, kernel: str, _hardware: str) -> None:
        if kernel == which:
            raise FULL

    def run_cell(cell: Cell, *_more: object) -> Any:
        return schedule.failed_before_start(cell, GuestLost("it ran"), RunOptions())

    monkeypatch.setattr(run.workshop, "prepare", prepare)
    monkeypatch.setattr(schedule, "run_cell", run_cell)
    results = run.pool.run(CELLS)
    assert {result.kernel: result.reason for result in results} == {
        which: FULL_TOLD, ({"bookworm", "trixie"} - {which}).pop(): "it ran"
    }  # fmt: skip
    assert len(run.folder.results) == 2


def test_where_nothing_can_be_begun_there_are_no_cells_to_tell_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(_arch: str, kernel: str, _hardware: str) -> None:
        if kernel == "trixie":
            raise HostError("something else", hint="do it")
        raise FULL

    noted: list[str] = []
    monkeypatch.setattr(run.workshop, "prepare", prepare)
    monkeypatch.setattr(Quiet, "note", lambda _self, text: noted.append(text))
    with pytest.raises(HostError) as told:
        run.pool.run(CELLS)
    assert told.value.told in (FULL_TOLD, "something else (do it)")
    assert sorted(noted) == [f"x86_64/bookworm: {FULL_TOLD}", "x86_64/trixie: something else (do it)"]
    assert run.folder.results == []
    assert {result.reason for result in run.pool.run(CELLS, watched=False)} == {FULL_TOLD, "something else (do it)"}
    assert len(run.folder.results) == len(CELLS)


def test_a_cell_whose_folder_cannot_be_made_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_cell(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/results/cells")

    monkeypatch.setattr(run.workshop, "prepare", lambda *_base: None)
    monkeypatch.setattr(schedule, "run_cell", run_cell)
    assert [result.reason for result in run.pool.run(CELLS)] == [
        "the host's disk is full: /results/cells (free some space, or run: lab gc)"
    ] * 2


def test_a_guest_that_its_hosts_full_disk_stopped_does_not_hang(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_args: object, **_keywords: object) -> None:
        raise DeadlineError("'./hs-ctl swap' said nothing for 45 s")

    one = guest.Guest("g1", None, run.rack, None, warm=True)  # type: ignore[arg-type]
    one.connection = SimpleNamespace(run=silent)  # type: ignore[assignment]
    hypervisor: Any = run.rack.hypervisor
    with pytest.raises(DeadlineError, match="said nothing"):
        one.run("./hs-ctl swap", deadline=Deadline.after(1))
    hypervisor.trouble = "the host's disk is full: QEMU paused the guest"
    with pytest.raises(HostError, match="the host's disk is full"):
        one.run("./hs-ctl swap", deadline=Deadline.after(1))
    # and so it is no HANG, although a deadline passed
    with pytest.raises(HostError, match="the host's disk is full"):
        workload.execute(
            one,
            workload.Plan(mechanism="refcount", load="irq", swaps=1, seed=1, threads=1, marker="m"),
            b"",
            scale=1.0,
            phase=lambda _name: None,
        )


def test_finished_cells_are_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = schedule.failed_before_start(CELLS[0], GuestLost("was lost"), RunOptions())
    run.folder.write_cell(done)
    monkeypatch.setattr(run.workshop, "machine", lambda *_base: run.begun.set() or proc.run(["sleep", "600"]))
    run.interrupted(monkeypatch)
    assert [(result.cell, result.status) for result in run.folder.results] == [(CELLS[0], Status.ERROR)]
