# SPDX-License-Identifier: GPL-2.0-or-later
"""Real guests. What may be shared is read-only: images, warm states, modules; each test has guests of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import host, warm
from lab.cell import Cell
from lab.guest import Guest, Machine
from lab.kerneltree import Tree
from lab.rack import Rack, open_rack
from lab.results import CellResult, RunFolder
from lab.runner import run_cell
from lab.workshop import RunOptions, Workshop
from tests.vm.bench import Bench

# One kernel of each architecture, the older and the newer: what differs between them is covered twice.
KERNELS = {"x86_64": "bookworm", "aarch64": "trixie"}

Start = Callable[..., AbstractContextManager[Guest]]
Run = Callable[..., CellResult]
Workshops = Callable[[RunOptions], Workshop]
Benches = Callable[..., AbstractContextManager[Any]]  # of a Bench


class Quiet:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []

    def cell_phase(self, cell: Cell, phase: str) -> None:
        self.phases.append(phase)

    def cell_done(self, cell: Cell, result: CellResult) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def rack() -> Iterator[Rack]:
    with open_rack(scale=host.speed()) as opened:
        yield opened


@pytest.fixture(scope="session")
def workshops(rack: Rack) -> Workshops:
    """Workshops by what they build; a mutant needs its own options, not its own modules."""
    made: dict[RunOptions, Workshop] = {}
    lock = threading.Lock()

    def workshop(options: RunOptions) -> Workshop:
        with lock:
            return made.setdefault(options, Workshop(rack, options, Quiet()))

    return workshop


@pytest.fixture(params=KERNELS)
def arch(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn."""
    return str(request.param)


@pytest.fixture
def machine(arch: str, workshops: Workshops) -> Machine:
    """The standard machine of an architecture, its image built if need be."""
    return workshops(RunOptions()).machine(arch, KERNELS[arch], "standard")


@pytest.fixture
def start(rack: Rack, machine: Machine, tmp_path: Path) -> Start:
    """Start a guest of `machine`; its console goes to console.log in the test's folder."""

    def started(
        *, watch: Callable[[bytes], str | None] = lambda _data: None, cold: bool = False, log: str = "console.log"
    ) -> AbstractContextManager[Guest]:
        return warm.start(rack, machine, console_log=tmp_path / log, watch=watch, cold=cold)

    return started


@pytest.fixture
def benches(start: Start, machine: Machine, workshops: Workshops) -> Benches:
    """A guest of `machine` with modules, cross-built on the host, and tools, to try a mechanism by hand."""

    @contextmanager
    def placed(mechanism: str, *, kind: type[Bench] = Bench, mutant: str = "") -> Iterator[Bench]:
        workshop = workshops(replace(RunOptions(), build="host", mutant=mutant))
        with start() as guest:
            bench = kind(guest, mechanism)
            bench.place(workshop.payload(workshop.build(machine)))
            yield bench

    return placed


@pytest.fixture
def run(workshops: Workshops, tmp_path: Path) -> Run:
    """Run one cell, with modules cross-built on the host unless asked otherwise; its files are in `tmp_path`."""

    def ran(
        name: str,
        *,
        mutant: str = "",
        swaps: int = 6,
        build: str = "host",
        kmod: str = "",
        trees: tuple[Tree, ...] = (),
    ) -> CellResult:
        cell = Cell.parse(name)
        options = replace(RunOptions(), mutant=mutant, swaps=swaps, build=build, seed=7, kmod=kmod, trees=trees)
        folder = RunFolder.create(tmp_path / "results", seed=options.seed, cells=[cell])
        try:
            result = run_cell(cell, workshops(options), folder, Quiet())
            folder.write_cell(result)
            return result
        finally:
            folder.close()

    return ran
