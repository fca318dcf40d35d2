# SPDX-License-Identifier: GPL-2.0-or-later
"""lab run: many cells, or one."""

from __future__ import annotations

import platform
import secrets
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab import log as logs
from lab import paths
from lab.cell import Cell
from lab.commands import complete, notify, select
from lab.commands import options as opt
from lab.commands.show import resume_command
from lab.errors import Exit, HostError, LabError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.behind import Handover
    from lab.kept import Kept
    from lab.kerneltree import Tree
    from lab.known import Entry
    from lab.results import CellResult, RunFolder

app = typer.Typer(
    no_args_is_help=True,
    help="Run cells and judge them.\n\nExample: lab run matrix --kernel trixie",
    rich_markup_mode=None,
)


# Of opt.How, what a resumed run has from the run that it goes on with.
_KEPT = ("swaps", "seed", "build", "cold", "mutant", "kmod", "userland")


@dataclass(frozen=True, slots=True)
class Order:
    """What was ordered, beside the cells."""

    swaps: int
    seed: int
    jobs: int
    accel: str
    build: str
    connect: str
    cold: bool
    mutant: str
    results: Path
    kmod: str = ""
    trees: tuple[Tree, ...] = ()
    resume: str = ""
    source: str = ""  # the matrix; runs of one are compared with each other
    known: tuple[Entry, ...] = ()
    on_change: str = ""
    keep: bool = False  # guests of failed cells
    dry_run: bool = False
    json: bool = False
    quiet: bool = False

    def kept(self) -> dict[str, Any]:
        """What run.json keeps of it, and a resumed run takes from there."""
        kept = {
            "swaps": self.swaps,
            "build": self.build,
            "cold": self.cold,
            "mutant": self.mutant or None,
            "source": self.source or None,
            "known": [one.model_dump(mode="json") for one in self.known],
        }
        if self.kmod:
            kept["kmod"] = self.kmod
        if self.trees:
            kept |= {"kernels": [str(tree.path) for tree in self.trees], "userland": self.trees[0].userland}
        return kept


@app.command("matrix")
@opt.grouped
def run_matrix(
    choice: opt.Choice,
    how: opt.How,
    jobs: opt.Jobs = 0,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run; its cells, its seed.",
            autocompletion=complete.runs,
        ),
    ] = None,
    known: Annotated[
        Path | None, typer.Option("--known", metavar="FILE", help="Known failures.", show_default="the matrix's")
    ] = None,
    on_change: Annotated[
        str,
        typer.Option("--on-change", metavar="CMD", help="Run a program when verdicts changed since the run before."),
    ] = "",
) -> int:
    """Run every cell of a matrix, each in a guest of its own, and report.

    Example: lab run matrix --arch aarch64 --kernel trixie --mechanism refcount --swaps 200
    """
    _louder(how)
    if resume is not None:
        if choice != opt.Choice() or known or any(getattr(how, name) != getattr(opt.How(), name) for name in _KEPT):
            told = "--resume takes cells, swaps, seed, build, mutant, editions, kernels, known failures from the run"
            raise UsageError(told, hint="only -j, --accel, --connect, --keep, --on-change and --results go with it")
        cells, how, trees = _resumed(resume, how)
        order = _order(how, cells, trees, jobs=jobs, resume=resume)
    else:
        trees = select.trees(choice.kernel, how.userland)
        _check_userland(how, trees)
        cells, chosen = select.cells(choice, trees)
        how = replace(how, swaps=how.swaps or chosen.swaps, seed=how.seed or chosen.seed)
        order = replace(
            _order(how, cells, trees, jobs=jobs),
            source=select.source(choice),
            known=select.known_failures(choice, chosen, known),
        )
    return execute(cells, replace(order, on_change=notify.checked(on_change)))


@app.command("cell")
@opt.grouped
def run_cell(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="ARCH/KERNEL/MECHANISM/LOAD[@HARDWARE]; see: lab list cells.",
            autocompletion=complete.cells,
        ),
    ],
    how: opt.How,
    kernel: opt.KernelTree = None,
) -> int:
    """Run one cell.

    Example: lab run cell aarch64/trixie/refcount/mixed --swaps 200
    """
    _louder(how)
    cell = Cell.parse(name)
    trees = select.trees([f"{kernel}/"] if kernel else (), how.userland)
    _check_userland(how, trees)
    select.check_cell(cell, trees)
    return execute([cell], _order(how, [cell], trees, jobs=1))


def _order(how: opt.How, cells: Sequence[Cell], trees: tuple[Tree, ...], *, jobs: int, resume: str = "") -> Order:
    """Everything decided: what was left open is the default, the seed is drawn."""
    select.uri(how.connect)
    if how.results.exists() and not how.results.is_dir():
        raise HostError(f"cannot write results in {how.results}: it is no folder", hint="name another: --results DIR")
    return Order(
        swaps=how.swaps or select.DEFAULT_SWAPS,
        seed=how.seed or _seed(),
        jobs=jobs,
        accel=how.accel.value,
        build=how.build.value,
        connect=how.connect,
        cold=how.cold,
        mutant=_mutant(how.mutant, cells),
        results=how.results,
        kmod=_kmod(how),
        trees=trees,
        resume=resume,
        keep=how.keep is opt.Keep.failed,
        dry_run=how.dry_run,
        json=how.as_json,
        quiet=how.quiet or logs.quiet(),
    )


def execute(cells: Sequence[Cell], order: Order) -> int:
    """Run cells as ordered, report, and return the exit code."""
    if order.dry_run:
        return _dry_run(cells, order)
    if not order.keep:
        return _execute(cells, order)
    from lab import behind

    return behind.outlived(lambda handover: _execute_and_keep(cells, order, handover))


def _execute_and_keep(cells: Sequence[Cell], order: Order, handover: Handover) -> int:
    """The same; then the guests of failed cells stay, and this process with them."""
    from lab.keeper import Keeper
    from lab.kept import Kept

    with ExitStack() as rack, Keeper() as keeper:
        kept = Kept(keeper, rack)
        code = _execute(cells, order, kept)
        for line in kept.told:
            print(line, file=sys.stderr if order.json else sys.stdout)
        return keeper.stand(handover, code)


def _execute(cells: Sequence[Cell], order: Order, kept: Kept | None = None) -> int:
    facts = _ready(cells, order)
    from lab.report import terminal
    from lab.results import RunFolder
    from lab.schedule import run_matrix as schedule
    from lab.workshop import RunOptions

    asked = RunOptions(
        swaps=order.swaps,
        seed=order.seed,
        jobs=order.jobs,
        accel=order.accel,
        build=order.build,
        connect=select.uri(order.connect),
        cold=order.cold,
        mutant=order.mutant,
        kmod=order.kmod,
        trees=order.trees,
    )
    if order.resume:
        folder = RunFolder.resume(order.results, order.resume)
    else:
        folder = RunFolder.create(order.results, seed=order.seed, cells=cells, host=facts, options=order.kept())
    out = terminal.console(sys.stderr if order.json else sys.stdout)
    todo = [cell for cell in cells if not folder.has(cell)]
    interrupted = False
    with logs.to_file(folder.path / "lab.log"):
        try:
            with terminal.watch(cells, out, done=folder.results, quiet=order.quiet) as observer:
                observer.note(f"run {folder.run}: {len(todo)} cells, {order.swaps} swaps each, seed {order.seed}")
                if todo:
                    # Whom --on-change calls, and who resumes a run, wants the results of what could not begin, too.
                    watched = not (order.on_change or order.resume)
                    schedule(todo, asked, folder, observer, kept=kept, watched=watched)
        except KeyboardInterrupt:
            interrupted = True
        except Exception:
            if not folder.results and not order.resume:
                folder.discard()
                raise
            with suppress(HostError):  # what ended the run comes first
                _close(folder, finished=False)
            raise
    found = folder.results
    _close(folder, finished=len(found) == len(cells))
    return _told(folder, found, order, interrupted=interrupted, wanted=len(cells))


def _close(folder: RunFolder, *, finished: bool) -> None:
    """End a run and write its reports."""
    from lab import report

    try:
        folder.close(finished=finished)
        report.write(folder.path, folder.head, folder.results)
    except OSError as e:
        told = f"cannot write the reports in {folder.path}: {e.strerror or e}"
        raise HostError(told, hint=f"finished cells are kept; make room, then --resume {folder.run}") from e


def exit_code(results: Sequence[CellResult]) -> Exit:
    """What a run's results mean to a script: product failures first, then the infrastructure's.

    A known failure is none; but something ran.
    """
    statuses = {"PASS" if result.known else result.status.value for result in results}
    if statuses & {"FAIL", "CRASH", "HANG"}:
        return Exit.FAILED
    if "ERROR" in statuses:
        return Exit.INFRA
    return Exit.OK if "PASS" in statuses else Exit.NOTHING


def _told(folder: RunFolder, found: Sequence[CellResult], order: Order, *, interrupted: bool, wanted: int) -> int:
    from lab import known
    from lab.report import terminal

    if order.json:
        try:
            sys.stdout.write((folder.path / "run.json").read_text())
            sys.stdout.flush()
        except BrokenPipeError:  # the exit code still says what it means
            logs.to_nobody(sys.stdout)
    else:
        seconds = float(folder.head["duration_s"])
        notes = known.review(folder.head, found)
        terminal.summary(terminal.console(), found, folder=folder.path, seconds=seconds, wanted=wanted, notes=notes)
    if interrupted:
        print(f"lab: interrupted; go on with: {resume_command(folder.run, order.results)}", file=sys.stderr)
        return Exit.INTERRUPTED
    code = exit_code(found)
    if order.on_change and len(found) == wanted:
        try:
            notify.on_change(order.on_change, folder.path)
        except LabError as e:
            print(f"lab: {e.message} ({e.hint})", file=sys.stderr)
            return Exit.FAILED if code is Exit.FAILED else Exit.INFRA
    return code


def _dry_run(cells: Sequence[Cell], order: Order) -> int:
    if order.resume:
        from lab.results import finished, locate

        done = {one.id for one in finished(locate(order.results, order.resume))}
        cells = [cell for cell in cells if cell.id not in done]
    if order.json:
        import json

        print(json.dumps({"cells": [cell.id for cell in cells], "seed": order.seed, **order.kept()}, indent=2))
        return Exit.OK
    for cell in cells:
        print(cell.id)
    told = f"mutant {order.mutant}, " if order.mutant else ""
    told += f"editions of {order.kmod}, " if order.kmod else ""
    told += "".join(f"kernel {tree.path}, " for tree in order.trees)
    told += f"{len(order.known)} known failures, " if order.known else ""
    cells_told = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    print(f"{cells_told} would run: {told}{order.swaps} swaps each, seed {order.seed}", file=sys.stderr)
    return Exit.OK


def _ready(cells: Sequence[Cell], order: Order) -> dict[str, Any]:
    """The host's facts; HostError before anything starts when it lacks a package or the accelerator asked for."""
    from lab import arch, hardware, host, kerneltree
    from lab.report import kcidb

    kcidb.origin()
    host.check_packages()
    for tree in order.trees:  # before anything is made for a build that cannot be
        kerneltree.check_programs(tree.path, tree.arch.name if order.build == "guest" else platform.machine())
    if order.accel == "kvm":
        machines = dict.fromkeys((cell.arch, cell.hardware) for cell in cells)
        for name, profile in machines:  # a probe takes long, and may be for nothing
            host.check_kvm(arch.get(name), hardware.get(profile))
        for name in dict.fromkeys(name for name, _ in machines):
            host.accel(arch.get(name), order.accel, progress=lambda text: print(text, file=sys.stderr))
    return host.facts()


def _resumed(run: str, how: opt.How) -> tuple[list[Cell], opt.How, tuple[Tree, ...]]:
    """A run's cells, how they were to be run, and kernels of the user's own."""
    from lab.results import locate, read_run

    head = read_run(locate(how.results, run))
    kept = head["matrix"]
    try:
        cells = [Cell.parse(name) for name in kept["cells"]]
        told = {name: kept[name] for name in ("swaps", "cold", "mutant")}
        told["kmod"] = Path(kept["kmod"]) if kept.get("kmod") else None
        how = replace(how, seed=head["seed"], build=opt.BuildPlace(kept["build"]), **told)
    except KeyError as e:
        raise UsageError(f"run {run} cannot be resumed: its run.json lacks {e}") from e
    trees = select.trees(kept.get("kernels"), kept.get("userland") or how.userland)
    for cell in cells:
        select.check_cell(cell, trees)
    return cells, how, trees


def _check_userland(how: opt.How, trees: Sequence[Tree]) -> None:
    """UsageError when a user land was named, and nothing that it could go with."""
    if how.userland != opt.How().userland and not trees:
        raise UsageError("--userland goes with a kernel build tree", hint="name one: --kernel PATH")


def _kmod(how: opt.How) -> str:
    """The folder of the user's editions, checked."""
    if how.kmod is None:
        return ""
    from lab import kmodtree

    if how.mutant:
        raise UsageError(
            "--kmod and --mutant exclude each other", hint="a mutant stands in for one of the lab's modules"
        )
    folder = paths.users(how.kmod)
    kmodtree.check_own(folder)
    return str(folder)


def _mutant(name: str | None, cells: Sequence[Cell]) -> str:
    """The mutant's name; UsageError when it is unknown, or breaks what one of the cells does not use."""
    if name is None:
        return ""
    from lab import catalogue

    mutant = catalogue.mutant(name)
    for cell in cells:
        catalogue.check_fit(mutant, cell)
    return mutant.name


def _seed() -> int:
    return secrets.randbelow((1 << 31) - 1) + 1


def _louder(how: opt.How) -> None:
    """-v and -q may stand before or after the command."""
    if how.verbose or how.quiet:
        logs.setup(-1 if how.quiet else how.verbose)
