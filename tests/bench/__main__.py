# SPDX-License-Identifier: GPL-2.0-or-later
"""make bench: print the lab's speed on this host, side by side with virtme-ng.

Usage: .venv/bin/python -m tests.bench [--rounds N] [--only NAME].. [--json FILE|-]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lab import arch, guest, hardware, host, image, kbuild, paths, proc, warm
from lab.cell import Cell
from lab.deadline import Deadline
from lab.errors import LabError
from lab.guest import Guest, Machine
from lab.host import Accel
from lab.rack import Rack, open_rack
from lab.results import CellResult, RunFolder
from lab.runner import run_cell
from lab.workshop import RunOptions, Workshop
from tests.bench import peer, typed

ARCHES = ("x86_64", "aarch64")
KERNEL = "bookworm"
PROMPTS = (("x86_64", "bookworm"), ("aarch64", "trixie"))
LAB: tuple[str, ...] = (sys.executable, "-m", "lab")
BUILD_S = 1800.0
Samples = dict[str, list[float]]


def say(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


class Bench:
    """The measurements of one run; each appends seconds to `samples` under a name."""

    def __init__(self, rack: Rack, work: Path, rounds: int) -> None:
        self.rack, self.work, self.rounds = rack, work, rounds
        self.samples: Samples = {}

    def keep(self, name: str, seconds: float) -> None:
        """Note one sample."""
        self.samples.setdefault(name, []).append(seconds)
        say(f"{name}: {seconds:.2f} s")

    def machine(self, arch_name: str) -> Machine:
        """The standard machine, emulated."""
        return self.emulated(image.ensure(KERNEL, arch.get(arch_name), progress=say))

    def emulated(self, base: image.Image) -> Machine:
        """A machine for an image, emulated whatever the host can do: the figures compare with virtme-ng's."""
        return Machine(image=base, hardware=hardware.get("standard"), accel=Accel.TCG)

    def first_answer_s(self, machine: Machine, *, cold: bool) -> float:
        """Seconds from nothing to the answer of `uname -r` over SSH."""
        console = self.work / "console.log"
        started = time.monotonic()
        with ExitStack() as stack:
            running: Guest = stack.enter_context(
                guest.boot(self.rack, machine, console_log=console)
                if cold
                else warm.start(self.rack, machine, console_log=console)
            )
            running.run("uname -r", deadline=Deadline.after(60.0))
            return time.monotonic() - started

    def start(self) -> None:
        """Restore against cold boot, in turn."""
        for name in ARCHES:
            machine = self.machine(name)
            warm.ensure(self.rack, machine, progress=say)
            for _ in range(self.rounds):
                self.keep(f"restore {name}", self.first_answer_s(machine, cold=False))
                self.keep(f"cold boot {name}", self.first_answer_s(machine, cold=True))

    def prompt(self) -> None:
        """`lab up`, then `lab ssh` until its shell asks for a command: the pair a person types."""
        with isolated(self.work / "prompt"):
            for name, kernel in PROMPTS:
                target = f"{name}/{kernel}"
                proc.run([*LAB, "up", target])  # makes what is missing; not counted
                proc.run([*LAB, "down", "--all"])
                for _ in range(self.rounds):
                    started = time.monotonic()
                    try:
                        proc.run([*LAB, "up", target])
                        typed.until_prompt([*LAB, "ssh"])
                        self.keep(f"up and a prompt {target}", time.monotonic() - started)
                    finally:
                        proc.run([*LAB, "down", "--all"])

    def virtme(self) -> None:
        """Restore against virtme-ng, in turn, on the same kernel."""
        base = peer.kernel_image(progress=say)
        programs, kernel = peer.install(progress=say), peer.lay_out(base)
        machine = self.emulated(base)
        warm.ensure(self.rack, machine, progress=say)
        for _ in range(self.rounds):
            self.keep("restore beside virtme-ng", self.first_answer_s(machine, cold=False))
            self.keep("virtme-ng", peer.first_answer_s(programs, kernel, base.release))

    def build(self) -> None:
        """The whole of kmod/ built in a guest, of sources nobody has built yet; then found again."""
        for name in ARCHES:
            machine = self.machine(name)
            sources = self.work / f"kmod-{name}"
            shutil.copytree(paths.kmod_dir(), sources)
            with (sources / "Kbuild").open("a") as stream:
                stream.write(f"# {time.time_ns()}\n")  # other content, same work
            with warm.start(self.rack, machine, console_log=self.work / "console.log") as running:
                made = kbuild.build_in_guest(running, machine.image, sources, deadline=Deadline.after(BUILD_S))
            self.keep(f"build in a guest {name}", made.seconds)
            started = time.monotonic()
            found = kbuild.cached(machine.image, sources, where="guest")
            self.keep(f"build found again {name}", time.monotonic() - started)
            assert found is not None
            shutil.rmtree(found.folder)

    def cell(self) -> None:
        """One cell whose guest and modules are there."""
        workshop = Workshop(self.rack, RunOptions(accel="tcg"), self)
        for name in ARCHES:
            workshop.prepare(name, KERNEL, "standard")
            for number in range(self.rounds):
                cell = Cell(name, KERNEL, "refcount", "mixed")
                folder = RunFolder.create(self.work / f"cells-{name}-{number}", seed=1, cells=[cell])
                result = run_cell(cell, workshop, folder, self)
                if result.status != "PASS" or result.duration_s is None:
                    raise LabError(f"the cell to be measured ended in {result.status}: {result.reason}")
                self.keep(f"cell without build {name}", result.duration_s)

    def matrix(self) -> None:
        """The default matrix, warm, and the part of it that compares reload and refcount alone.

        The first run makes what is missing and is not counted.
        """
        results = self.work / "matrix"
        argv: list[str | Path] = [paths.REPOSITORY / ".venv/bin/lab", "run", "matrix", "-q", "--accel", "tcg"]
        argv += ["--results", results]
        say("the default matrix, to make what is missing")
        proc.run(argv)
        for more in ([], ["--mechanism", "reload", "--mechanism", "refcount"]):
            started = time.monotonic()
            proc.run([*argv, *more])
            seconds = time.monotonic() - started
            cells = len(json.loads((results / "latest/run.json").read_text())["matrix"]["cells"])
            self.keep(f"warm matrix, {cells} cells", seconds)

    # an Observer, for the cells
    def cell_phase(self, cell: Cell, phase: str) -> None:
        """Nothing is shown."""

    def cell_done(self, cell: Cell, result: CellResult) -> None:
        """Nothing is shown."""

    def note(self, text: str) -> None:
        """What is being made."""
        say(text)


@contextmanager
def isolated(folder: Path) -> Iterator[None]:
    """Guests that stay elsewhere are not this benchmark's to end."""
    before = os.environ.get("LAB_STATE_DIR")
    os.environ["LAB_STATE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LAB_STATE_DIR"]
        else:
            os.environ["LAB_STATE_DIR"] = before


RATIOS = (
    ("cold boot / restore, x86_64", "cold boot x86_64", "restore x86_64"),
    ("cold boot / restore, aarch64", "cold boot aarch64", "restore aarch64"),
    ("virtme-ng / restore, x86_64", "virtme-ng", "restore beside virtme-ng"),
)


def ratios(samples: Samples) -> dict[str, float]:
    """Quotients of medians, of what was measured."""
    return {
        title: statistics.median(samples[over]) / statistics.median(samples[under])
        for title, over, under in RATIOS
        if over in samples and under in samples
    }


def table(samples: Samples) -> str:
    """The figures for a reader."""
    lines = [f"{'seconds':34}{'median':>9}{'min':>9}{'max':>9}{'n':>5}"]
    for name, values in samples.items():
        middle = statistics.median(values)
        lines.append(f"{name:34}{middle:9.2f}{min(values):9.2f}{max(values):9.2f}{len(values):5}")
    lines += ["", *(f"{title:34}{value:9.1f} times" for title, value in ratios(samples).items())]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and write what was asked for."""
    names = ("start", "prompt", "virtme", "build", "cell", "matrix")
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Speed of the lab on this host.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="samples of what is quick (default: 5)")
    parser.add_argument("--only", action="append", choices=names, help="only this measurement; repeatable")
    parser.add_argument("--json", metavar="FILE", help="write samples, medians and ratios; - for stdout")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error("--rounds must be at least 1")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as work, open_rack(scale=host.speed()) as rack:
        bench = Bench(rack, Path(work), asked.rounds)
        for name in asked.only or names:
            measure: Callable[[], None] = getattr(bench, name)
            try:
                measure()
            except LabError as e:
                failed = int(e.exit_code)
                say(f"{name}: {e.message}" + (f" ({e.hint})" if e.hint else ""))
    samples = bench.samples
    if asked.json:
        medians = {name: statistics.median(values) for name, values in samples.items()}
        text = json.dumps({"host": host.facts(), "seconds": samples, "median_s": medians, "ratios": ratios(samples)})
        if asked.json == "-":
            print(text)
            return failed
        paths.write_whole(Path(asked.json), text + "\n")
    print(table(samples))
    return failed


if __name__ == "__main__":
    sys.exit(main())
