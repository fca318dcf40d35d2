# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests for tests: one rack per test process, machines made once, guests fresh or shared."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab import arch as arches
from lab import dmesg, hardware, headers, host, image, kbuild, kmodtree, proc, treeimage, warm
from lab.deadline import Deadline
from lab.errors import BuildError
from lab.guest import Guest, Machine
from lab.rack import Rack, open_rack
from lab.testguest import Wish

log = logging.getLogger(__name__)

BUILD_S = 300.0  # one module


@dataclass(slots=True)
class Running:
    """A guest that is up, with the scanner that reads its console."""

    guest: Guest
    machine: Machine
    console: dmesg.Scanner
    console_log: Path
    scale: float
    forgiving: bool = False  # a splat is no reason to give it up
    builds: int = 0


@dataclass(slots=True)
class TestLab:
    """What the tests of one process share. Made by `opened`."""

    rack: Rack
    folder: Path  # consoles and builds
    progress: Callable[[str], None]
    _machines: dict[Wish, Machine] = field(default_factory=dict)

    @contextmanager
    def start(self, wish: Wish) -> Iterator[Running]:
        """A guest of its own, restored, and ended on the way out. Raises LabError."""
        machine = self._machine(wish)
        console_log = Path(tempfile.mkdtemp(prefix=f"{wish.name}-", dir=self.folder)) / "console.log"
        scanner = dmesg.Scanner()
        here: list[Running] = []

        def watch(data: bytes) -> str | None:
            found = scanner.feed(data)
            return found[0].decisive if found and not (here and here[0].forgiving) else None

        with warm.start(self.rack, machine, console_log=console_log, watch=watch, progress=self._boot(wish)) as guest:
            here.append(Running(guest, machine, scanner, console_log, self.rack.scale))
            yield here[0]

    def _machine(self, wish: Wish) -> Machine:
        if wish not in self._machines:
            arch = arches.get(wish.arch)
            profile = hardware.get(wish.hardware)
            if wish.vcpus:
                profile = dataclasses.replace(profile, name=f"{profile.name}-{wish.vcpus}cpu", vcpus=wish.vcpus)
            choice = host.accel(arch, profile=profile, progress=self.progress)
            if wish.tree is not None:
                base = treeimage.ensure(wish.tree, progress=self.progress)
            else:
                base = image.ensure(wish.kernel, arch, progress=self.progress)
            self._machines[wish] = Machine(image=base, hardware=profile, accel=choice.accel)
        return self._machines[wish]

    def _boot(self, wish: Wish) -> Callable[[str], None]:
        return lambda text: self.progress(f"{wish.name}: {text}")


class Shared:
    """At most one guest for several tests: it lives until another machine is asked for, or it is lost, or `close`."""

    def __init__(self, lab: TestLab) -> None:
        self._lab = lab
        self._stack = ExitStack()
        self._wish: Wish | None = None
        self._running: Running | None = None

    def start(self, wish: Wish) -> Running:
        """The guest that is there, or a new one."""
        if self._running is None or self._wish != wish or self._running.guest.lost:
            self.close()
            self._running = self._stack.enter_context(self._lab.start(wish))
            self._wish = wish
        return self._running

    def close(self) -> None:
        """End it."""
        self._running = None
        self._stack.close()


@contextmanager
def opened(folder: Path, *, progress: Callable[[str], None]) -> Iterator[TestLab]:
    """Open a rack for this process. HostError when the host lacks something."""
    host.check_packages()
    with open_rack(scale=host.speed()) as rack:
        yield TestLab(rack, folder, progress)


def build(running: Running, folder: Path) -> list[Path]:
    """See `lab.testguest.Guest.build`."""
    if not folder.is_dir():
        raise BuildError(f"{folder} is no folder")
    running.builds += 1
    work = running.console_log.parent / f"build-{running.builds}"
    log_file = work.with_suffix(".log")
    for path in kmodtree.source_files(folder):
        place = work / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)
    deadline = Deadline.after(BUILD_S)
    image = running.machine.image
    kdir = headers.ensure(image, deadline=deadline, progress=log.info)
    argv = ["make", "-C", str(kdir), f"M={work}", f"-j{proc.cores()}", f"ARCH={image.arch.kernel}"]
    try:
        proc.run(
            [*argv, f"CROSS_COMPILE={image.arch.cross}", *kbuild.VARIABLES, "modules"],
            deadline=deadline,
            env=kbuild.ENVIRONMENT,
            log_file=log_file,
        )
    except proc.CommandFailed as e:
        told = kbuild.complaint(log_file).replace(f"{work}/", f"{folder}/")
        raise BuildError(f"{folder} does not build for {image.arch.name} {image.release}: {told}") from e
    return sorted(work.rglob("*.ko"))
