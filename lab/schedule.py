# SPDX-License-Identifier: GPL-2.0-or-later
"""Many cells on this machine: what can run beside what, and what is kept when somebody stops it.

Cells of one architecture and kernel share an image, a warm state and a build. Those are made by
one worker while the others run cells that are ready, so nothing waits that need not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

from lab import halt, hardware, host, proc
from lab.cell import Cell
from lab.errors import LabError, refused
from lab.kept import QEMU_MIB, SPARE_MIB, Kept, available_mib
from lab.rack import Rack, open_rack
from lab.results import CellResult, RunFolder
from lab.runner import failed_before_start, run_cell
from lab.workshop import Observer, RunOptions, Workshop

log = logging.getLogger(__name__)

Base = tuple[str, str, str]  # architecture, kernel, hardware: what a preparation is for


def automatic_jobs(cells: Sequence[Cell], *, cores: int | None = None, memory_mib: int | None = None) -> int:
    """How many guests at once: as many as there are cores and memory for, at least one."""
    cores = cores or proc.cores()
    memory_mib = memory_mib or available_mib()
    largest = max((hardware.get(cell.hardware).memory_mib for cell in cells), default=768) + QEMU_MIB
    return max(1, min(cores, (memory_mib - SPARE_MIB) // largest, len(cells) or 1))


def run_matrix(
    cells: Sequence[Cell],
    options: RunOptions,
    folder: RunFolder,
    observer: Observer,
    *,
    kept: Kept | None = None,
    watched: bool = True,
) -> list[CellResult]:
    """Run every cell and return its results in the order of `cells`.

    A cell's result is in the run folder as soon as it is known. On KeyboardInterrupt no new cell
    starts, guests are ended, and the exception goes on after finished cells were kept. With `kept`
    failing guests, and the rack that they are on, outlive this call. Raises LabError when nothing at
    all could be begun and somebody is there to read it (`watched`); else every cell has its result then, too.
    """
    with ExitStack() as own:
        stack = kept.stack if kept else own
        rack = stack.enter_context(open_rack(uri=options.connect, scale=host.speed()))
        workshop = Workshop(rack, options, observer, kept)
        pool = Pool(rack, workshop, folder, observer, options)
        return pool.run(cells, watched=watched)


class Pool:
    """The workers of one run."""

    def __init__(
        self, rack: Rack, workshop: Workshop, folder: RunFolder, observer: Observer, options: RunOptions
    ) -> None:
        self._rack = rack
        self._workshop = workshop
        self._folder = folder
        self._observer = observer
        self._options = options
        self._stop = threading.Event()

    def run(self, cells: Sequence[Cell], *, watched: bool = True) -> list[CellResult]:
        """See `run_matrix`."""
        jobs = self._options.jobs or automatic_jobs(cells)
        waiting: dict[Base, list[Cell]] = {}
        for cell in cells:
            waiting.setdefault(_base(cell), []).append(cell)
        unprepared = list(waiting)
        ready: list[Cell] = []
        unmade: dict[Cell, LabError] = {}  # cells whose preparation failed
        results: dict[Cell, CellResult] = {}
        running: dict[Future[Callable[[], None]], None] = {}

        def prepared(base: Base) -> Callable[[], None]:
            """Prepare in a worker; what follows happens in this thread."""
            try:
                self._workshop.prepare(*base)
            except (LabError, OSError) as e:
                told = self._told(e)
                if not self._workshop.abandoned:
                    self._observer.note(f"{'/'.join(base[:2])}: {told.told}")
                return lambda: unmade.update(dict.fromkeys(waiting[base], told))
            return lambda: ready.extend(waiting[base])

        def finished(cell: Cell) -> Callable[[], None]:
            try:
                result = run_cell(cell, self._workshop, self._folder, self._observer)
            except OSError as e:
                result = failed_before_start(cell, self._told(e), self._options)
            return lambda: self._keep([result], results)

        executor = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="worker")
        try:
            while ready or unprepared or running:
                while len(running) < jobs and (ready or unprepared):
                    if ready:
                        running[executor.submit(finished, ready.pop(0))] = None
                    else:
                        running[executor.submit(prepared, unprepared.pop(0))] = None
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    future.result()()
                if ready or results:  # something runs: the others are told with it
                    self._give_up(unmade, results)
            if unmade and not results and watched:
                raise next(iter(unmade.values()))
            self._give_up(unmade, results)
        except BaseException:
            # Guests and waits go first: the workers then end at once.
            self._workshop.abandon()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            halt.over()
        return [results[cell] for cell in cells if cell in results]

    def _told(self, error: LabError | OSError) -> LabError:
        return refused(error, where=self._rack.work) if isinstance(error, OSError) else error

    def _give_up(self, unmade: dict[Cell, LabError], results: dict[Cell, CellResult]) -> None:
        """Cells that the lab or its host could not begin are results too: others go on."""
        self._keep([failed_before_start(cell, error, self._options) for cell, error in unmade.items()], results)
        unmade.clear()

    def _keep(self, new: Sequence[CellResult], results: dict[Cell, CellResult]) -> None:
        for one in new:
            result = self._folder.write_cell(one)
            results[result.cell] = result
            self._observer.cell_done(result.cell, result)


def _base(cell: Cell) -> Base:
    return (cell.arch, cell.kernel, cell.hardware)
