# SPDX-License-Identifier: GPL-2.0-or-later
"""One cell, from its guest to its result."""

from __future__ import annotations

import json
import logging
import shlex
import time
from contextlib import ExitStack
from pathlib import Path

from lab import catalogue, dmesg, kbuild, measure, paths, verdict, warm, workload
from lab.cell import Cell
from lab.errors import LabError, refused
from lab.guest import Guest, Machine
from lab.kbuild import Build
from lab.results import CellResult, RunFolder, cell_result
from lab.untrusted import one_line
from lab.verdict import Status
from lab.workshop import Observer, RunOptions, Workshop

log = logging.getLogger(__name__)

FAILED = (Status.FAIL, Status.CRASH, Status.HANG)  # the product's, not the lab's


class Abandoned(LabError):
    """The run was interrupted while this cell ran: there is nothing to say of it."""


def run_cell(cell: Cell, workshop: Workshop, folder: RunFolder, observer: Observer) -> CellResult:
    """Run one cell in a guest of its own and judge it.

    Everything that can go wrong becomes the result, a bug of ours included: other cells go on. Only
    an interrupted run has none (Abandoned). The cell's folder then holds console.log, dmesg.log,
    build.log, domain.xml, samples.json and repro.
    """
    attempt = _Attempt(cell, workshop, folder.cell_folder(cell), observer)
    infra = ""
    with ExitStack() as standing:
        try:
            try:
                attempt.run(standing)
            finally:
                attempt.halt(standing)
        except Exception as e:
            infra = _told(cell, e, folder.path)
        if workshop.abandoned:
            raise Abandoned("the run was interrupted")
        try:
            result = attempt.judge(infra)
        except Exception as e:
            return failed_before_start(cell, LabError(_told(cell, e, folder.path)), workshop.options)
        attempt.leave(result, standing)
        return result


def _told(cell: Cell, error: Exception, folder: Path) -> str:
    """What went wrong, in one line; how it came about is in lab.log."""
    log.debug("%s", cell.id, exc_info=error)
    if isinstance(error, OSError):
        error = refused(error, where=folder)
    if isinstance(error, LabError):
        return error.told
    return one_line(f"internal error: {type(error).__name__}: {error}")


def failed_before_start(cell: Cell, error: LabError, options: RunOptions) -> CellResult:
    """The result of a cell whose image, warm state or modules could not be made, or that nobody could judge."""
    judged = verdict.judge(None, None, cell=cell, infra=error.told, again=options.again(cell))
    return cell_result(cell, judged, mutant=options.mutant, seed=options.seed)


class _Attempt:
    """One cell on its way from guest to verdict."""

    def __init__(self, cell: Cell, workshop: Workshop, folder: Path, observer: Observer) -> None:
        self.cell, self.workshop, self.folder = cell, workshop, folder
        self._observer = observer
        self._started_s = self._phase_s = time.monotonic()
        self._phase = ""
        self._phases: dict[str, float] = {}
        self._console = dmesg.Scanner()
        self._machine: Machine | None = None
        self._guest: Guest | None = None
        self._build: Build | None = None
        self._raw = workload.Raw()

    def run(self, standing: ExitStack) -> None:
        """Guest, load, swaps; what comes back stays in this object. The guest is ended by `standing`."""
        cell, workshop, options = self.cell, self.workshop, self.workshop.options
        if reason := catalogue.impossible(cell.mechanism, cell.load):
            self._raw.data["skip"] = reason
            return
        paths.write_whole(self.folder / "repro", shlex.join(options.again(cell)) + "\n")
        self.enter("build")
        machine = self._machine = workshop.machine(cell.arch, cell.kernel, cell.hardware)
        build = self._build = workshop.build(machine)
        payload = workshop.payload(build)
        paths.write_whole(self.folder / "build.log", (build.folder / kbuild.LOG).read_bytes())
        self.enter("start")
        guest = self._guest = standing.enter_context(
            warm.start(
                workshop.rack, machine, console_log=self.folder / "console.log", watch=self._watch, cold=options.cold
            )
        )
        paths.write_whole(self.folder / "domain.xml", guest.xml())
        if workshop.kept is not None:
            guest.stop_at_splats()
        plan = workload.cell_plan(cell, machine, swaps=options.swaps, seed=options.seed, mutant=options.mutant)
        self._raw = workload.execute(guest, plan, payload, scale=workshop.rack.scale, phase=self.enter)

    def halt(self, standing: ExitStack) -> None:
        """The guest has done its work: it ends, or stands still until it is known whether it stays."""
        if self.workshop.kept is None:
            standing.close()
        else:
            self._freeze()

    def leave(self, result: CellResult, standing: ExitStack) -> None:
        """Let the guest of a failed cell stay, where failing guests do."""
        guest, kept = self._guest, self.workshop.kept
        if guest is not None and kept is not None and result.status in FAILED:
            kept.offer(result, guest, standing, folder=self.folder, build=self._build.folder if self._build else None)

    def judge(self, infra: str) -> CellResult:
        """The verdict, and the files it rests on."""
        self.enter("judge")
        raw, options = self._raw, self.workshop.options
        self._console.finish()
        log = dmesg.read(raw.dmesg, mark=dmesg.marker(str(options.seed))) if raw.dmesg else None
        events = log if log is not None and not self._console.splats else self._console.events()
        samples = measure.samples(raw.data)
        judged = verdict.judge(
            samples,
            events,
            cell=self.cell,
            crash=raw.crash or None,
            hang=raw.hung or None,
            skip=one_line(str(raw.data.get("skip", ""))) or None,
            infra=infra or raw.lost or None,
            swaps=options.swaps,
            again=options.again(self.cell),
        )
        paths.write_whole(self.folder / "dmesg.log", raw.dmesg)
        paths.write_whole(self.folder / "samples.json", json.dumps(raw.data) + "\n")
        machine = self._machine
        return cell_result(
            self.cell,
            judged,
            samples=samples,
            events=events,
            release=machine.image.release if machine else None,
            accel=machine.accel.value if machine else None,
            duration_s=time.monotonic() - self._started_s,
            phases=self._phases,
            warm=self._guest.warm if self._guest else None,
            mutant=options.mutant or None,
            seed=options.seed,
        )

    def enter(self, phase: str) -> None:
        """Close the phase that runs and begin another."""
        now = time.monotonic()
        if self._phase:
            self._phases[f"{self._phase}_s"] = self._phases.get(f"{self._phase}_s", 0.0) + now - self._phase_s
        self._phase, self._phase_s = phase, now
        self._observer.cell_phase(self.cell, phase)

    def _watch(self, data: bytes) -> str | None:
        """Live: the first splat on the console ends the cell."""
        found = self._console.feed(data)
        return found[0].decisive if found else None

    def _freeze(self) -> None:
        if self._guest is not None:
            try:
                self._guest.freeze()
            except LabError as e:  # its QEMU has ended
                log.info("%s: %s", self.cell.id, e.message)
