# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cells of a run share: images, machines, warm states, modules; each made once."""

from __future__ import annotations

import io
import logging
import tarfile
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lab import arch as arches
from lab import halt, hardware, host, image, kbuild, kerneltree, kmodtree, paths, proc, treeimage, warm
from lab.arch import Arch
from lab.cell import Cell
from lab.deadline import Deadline
from lab.errors import BuildError
from lab.guest import Machine
from lab.hypervisor import EMBED
from lab.image import Image
from lab.kbuild import Build
from lab.kerneltree import Tree
from lab.rack import Rack

if TYPE_CHECKING:
    from lab.cellresult import CellResult
    from lab.kept import Kept

log = logging.getLogger(__name__)

BUILD_S = 900.0  # an in-guest build, on the reference host
# A build keeps all its guest's vCPUs busy; beside another one on the same cores both take longer.
_building = threading.Semaphore(max(1, proc.cores() // 2))


class Observer(Protocol):
    """Who wants to know how a run goes; called from several threads."""

    def cell_phase(self, cell: Cell, phase: str) -> None:
        """A cell entered a phase: start, load, swap, drain, judge."""

    def cell_done(self, cell: Cell, result: CellResult) -> None:
        """A cell has its verdict."""

    def note(self, text: str) -> None:
        """Something that belongs to no cell: an image is built, a guest booted."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run was asked to do, beside its cells."""

    swaps: int = 20
    seed: int = 1
    jobs: int = 0  # 0: from cores and memory
    accel: str = "auto"
    build: str = "guest"
    connect: str = EMBED
    cold: bool = False
    mutant: str = ""
    kmod: str = ""  # folder of the user's own editions
    trees: tuple[Tree, ...] = ()  # the user's own kernels, which cells name by their release

    def again(self, cell: Cell) -> list[str]:
        """The command that runs a cell once more as this run does."""
        words = ["lab", "run", "cell", cell.id, "--seed", str(self.seed), "--swaps", str(self.swaps)]
        words += ["--accel", self.accel] if self.accel != "auto" else []
        words += ["--build", self.build] if self.build != "guest" else []
        words += ["--cold"] if self.cold else []
        words += ["--mutant", self.mutant] if self.mutant else []
        words += ["--kmod", self.kmod] if self.kmod else []
        if tree := next((one for one in self.trees if one.name == cell.kernel), None):
            words += ["--kernel", str(tree.path), "--userland", tree.userland]
        return words


class Workshop:
    """Machines and modules of a run, each made once; every method may be called from any thread."""

    def __init__(self, rack: Rack, options: RunOptions, observer: Observer, kept: Kept | None = None) -> None:
        self.rack = rack
        self.options = options
        self.kept = kept  # where failing guests go that are to stay
        self._observer = observer
        self._lock = threading.Lock()
        self._locks: dict[object, threading.Lock] = {}
        self._machines: dict[tuple[str, str, str], Machine] = {}
        self._builds: dict[str, Build] = {}
        self._payloads: dict[str, bytes] = {}
        self._staged: Path | None = None  # sources with the user's editions
        self.abandoned = False

    def prepare(self, arch: str, kernel: str, hardware_name: str) -> None:
        """Make everything that cells of this architecture, kernel and hardware need."""
        machine = self.machine(arch, kernel, hardware_name)
        halt.check()
        if not self.options.cold:
            warm.ensure(self.rack, machine, progress=self._noter(machine))
        halt.check()
        self.build(machine)

    def machine(self, arch: str, kernel: str, hardware_name: str) -> Machine:
        """The machine of a cell, its image built if need be."""
        key = (arch, kernel, hardware_name)
        with self._once(key):
            if key not in self._machines:
                row = arches.get(arch)
                profile = hardware.get(hardware_name)
                choice = host.accel(row, self.options.accel, profile=profile, progress=self._observer.note)
                base = self._image(kernel, row)
                self._machines[key] = Machine(image=base, hardware=profile, accel=choice.accel)
            return self._machines[key]

    def _image(self, kernel: str, arch: Arch) -> Image:
        if (tree := kerneltree.pick(self.options.trees, kernel, arch)) is not None:
            return treeimage.ensure(tree, progress=self._observer.note)
        return image.ensure(kernel, arch, progress=self._observer.note)

    def build(self, machine: Machine) -> Build:
        """The modules and tools for a machine's kernel, from the cache or built now."""
        with self._once(machine.image.digest):
            if machine.image.digest not in self._builds:
                self._builds[machine.image.digest] = self._make(machine)
            return self._builds[machine.image.digest]

    def payload(self, build: Build) -> bytes:
        """What goes into a guest: a tar archive of stripped modules and tools."""
        with self._once(build.digest):
            if build.digest not in self._payloads:
                self._payloads[build.digest] = _tar(build.folder / "strip")
            return self._payloads[build.digest]

    def abandon(self) -> None:
        """End every guest and every wait, of cells and of what is made for them, now."""
        self.abandoned = True
        halt.call()
        self.rack.abandon("the run was interrupted")

    def _make(self, machine: Machine) -> Build:
        try:
            return self._made(machine)
        except BuildError as e:
            if not self.options.kmod:
                raise
            raise BuildError(kmodtree.in_own(e.message, Path(self.options.kmod)), hint=e.hint) from e

    def _made(self, machine: Machine) -> Build:
        sources, options = self._sources(), self.options
        mutants = bool(options.mutant)
        if (found := kbuild.cached(machine.image, sources, where=options.build, mutants=mutants)) is not None:
            return found
        note = self._noter(machine)
        if options.build == "host":
            note("building modules on the host")
            return kbuild.build_on_host(
                machine.image, sources, deadline=Deadline.after(BUILD_S), progress=self._observer.note, mutants=mutants
            )
        log_file = self.rack.work / f"build-{machine.image.digest}.console"
        with _building, warm.start(self.rack, machine, console_log=log_file, cold=options.cold) as guest:
            note("building modules in a guest")
            return kbuild.build_in_guest(
                guest, machine.image, sources, deadline=Deadline.after(BUILD_S * self.rack.scale), mutants=mutants
            )

    def _sources(self) -> Path:
        """kmod/, or a copy of it with the user's editions."""
        if not self.options.kmod:
            return paths.kmod_dir()
        with self._once("kmod"):
            if self._staged is None:
                work = Path(tempfile.mkdtemp(prefix="kmod-", dir=self.rack.work))
                kmodtree.with_own(paths.kmod_dir(), Path(self.options.kmod), work)
                self._staged = work
            return self._staged

    def _noter(self, machine: Machine) -> Callable[[str], None]:
        where = f"{machine.image.arch.name}/{machine.image.recipe}"
        return lambda text: self._observer.note(f"{where}: {text}")

    def _once(self, key: object) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())


def _tar(folder: Path) -> bytes:
    """A folder's files as an uncompressed tar archive, executable, owned by root."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.iterdir()):
            info = tarfile.TarInfo(path.name)
            data = path.read_bytes()
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
