# SPDX-License-Identifier: GPL-2.0-or-later
"""lab up, ssh, exec, cp, console, ps, down: guests that stay until they are told to go.

Only `up` needs libvirt; the others read records and ask keepers (lab/stayed.py), and answer at once.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab import stayed
from lab.cell import STANDARD
from lab.commands import complete, select
from lab.commands import options as opt
from lab.deadline import Deadline, wait_until
from lab.errors import DeadlineError, Exit, HostError, LabError, UsageError

if TYPE_CHECKING:
    from lab.behind import Handover
    from lab.kerneltree import Tree
    from lab.target import Target
    from lab.up import Risen, Wish

DOWN_S = 60.0  # until a keeper has taken a guest down
REAPED_S = 10.0  # until a reaper has


def up(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[ARCH/KERNEL | CELL | RUN/CELL]",
            help="A bare machine, one with a cell's modules loaded, or with all that a cell of a run had.",
            autocompletion=complete.targets,
        ),
    ] = None,
    mechanism: Annotated[str | None, typer.Option(metavar="M", help="Load the modules with this mechanism.")] = None,
    hardware: Annotated[str | None, typer.Option(metavar="H", help="The machine; see: lab list hardware.")] = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="Its name.", show_default="ARCH-KERNEL")] = None,
    freeze_on_splat: Annotated[
        bool, typer.Option("--freeze-on-splat", help="Stop the guest right where its kernel complains.")
    ] = False,
    cold: Annotated[bool, typer.Option("--cold", help="Boot it instead of restoring it.")] = False,
    accel: opt.Accel = opt.AccelWish.auto,
    build: opt.BuildWhere = opt.BuildPlace.guest,
    connect: opt.Connect = "embed",
    results: opt.ResultsDir = opt.RESULTS,
    as_json: opt.Json = False,
) -> int:
    """Start a guest that stays: for lab ssh, exec, cp, console, until lab down.

    Example: lab up aarch64/trixie
    """
    from lab import behind, target

    wanted = target.parse(what or _default(), results=results, mechanism=mechanism, hardware=hardware)
    trees = _checked(wanted)
    if name is not None:
        stayed.check_name(name)

    def work(handover: Handover) -> int:
        from lab.up import Wish

        wish = Wish(
            accel=accel.value,
            build=build.value,
            connect=select.uri(connect),
            cold=cold,
            freeze_on_splat=freeze_on_splat,
            name=name,
            trees=trees,
        )
        return _up(wanted, wish, handover, as_json)

    return behind.outlived(work)


def _up(wanted: Target, wish: Wish, handover: Handover, as_json: bool) -> int:
    from lab import up as ups
    from lab.keeper import Keeper

    with ExitStack() as rack, Keeper() as keeper:
        risen = ups.rise(wanted, wish, keeper, rack, lambda text: print(f"lab: {text}", file=sys.stderr))
        if as_json:
            print(json.dumps(dataclasses.asdict(risen.stay.record), indent=2))
        else:
            _tell(risen)
        if risen.trouble:
            what = "its modules are not loaded" if risen.stay.record.cell else "it is of no use"
            print(f"lab: {what}: {risen.trouble}", file=sys.stderr)
        return keeper.stand(handover, Exit.FAILED if risen.trouble else Exit.OK)


def _tell(risen: Risen) -> None:
    """What is up, and what to type next."""
    from lab.workload import FOLDER

    one, plan = risen.stay.record, risen.plan
    how = "restored" if one.warm else "booted"
    print(f"{one.name} is up: {one.arch}, Linux {one.release}, {one.accel}, {how} in {risen.seconds:.1f} s")
    if plan is not None and not risen.trouble:
        print(f"{one.cell} is loaded, seed {plan.seed}{f', mutant {plan.mutant}' if plan.mutant else ''}; in {FOLDER}:")
        print(f"    ./{plan.calls} &            calls, until ./hs-ctl stop")
        print(f"    ./{plan.swap}")
        print("    ./hs-ctl stats; ./hs-ctl down")
    if one.folder:
        print(f"what it did then: {one.folder}")
    if one.frozen:
        print(f"it stands still: {one.frozen}; lab gdb {one.name}, lab console {one.name}")
    else:
        print(
            f"lab ssh {one.name}, lab exec {one.name} -- COMMAND, lab console {one.name}; lab down {one.name} ends it"
        )


def ssh(guest: complete.GuestName = None) -> int:
    """A shell in a guest, by OpenSSH's client.

    Example: lab ssh aarch64-trixie
    """
    return _in_guest(guest, [], terminal=sys.stdin.isatty())


def execute(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GUEST] -- COMMAND...",
            help="Which guest, not needed for the only one; and what to run in it.",
            autocompletion=complete.guests,
        ),
    ] = None,
) -> int:
    """Run a command in a guest; its exit code is ours, or 255 when the guest does not answer.

    Example: lab exec aarch64-trixie -- uname -r
    """
    guest, command = _guest_and_command(words or [])
    if not command:
        raise UsageError("a command is missing", hint="lab exec GUEST -- COMMAND")
    return _in_guest(guest, command, terminal=sys.stdin.isatty() and sys.stdout.isatty())


def _in_guest(guest: str | None, command: list[str], *, terminal: bool) -> int:
    from lab import openssh, proc

    words = openssh.command(stayed.find(guest), command, terminal=terminal)
    if terminal:
        proc.become(words)
    return proc.follow(words)


def _guest_and_command(words: list[str]) -> tuple[str | None, list[str]]:
    """`GUEST -- COMMAND...`, `GUEST COMMAND...`, or `COMMAND...` in the only guest (a first `--` is gone by now)."""
    if "--" in words[1:2] or any(one.name == words[0] for one in stayed.every() if words):
        return words[0], words[2:] if words[1:2] == ["--"] else words[1:]
    return None, words


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="PATH or GUEST:PATH.", autocompletion=complete.places)],
    target: Annotated[str, typer.Argument(metavar="DST", help="PATH or GUEST:PATH.", autocompletion=complete.places)],
) -> None:
    """Copy a file or a folder into a guest or out of it. `:PATH` is a file of the only guest.

    Example: lab cp aarch64-trixie:/run/lab/load.json .
    """
    from lab import openssh

    (from_guest, there), (to_guest, here) = _place(source), _place(target)
    if (from_guest is None) == (to_guest is None):
        raise UsageError("one side must be a guest's", hint="lab cp FILE GUEST:PATH, or lab cp GUEST:PATH FILE")
    if to_guest is not None:
        openssh.put(stayed.find(to_guest or None), Path(there), here)
    else:
        openssh.get(stayed.find(from_guest or None), there, Path(here))


def _place(text: str) -> tuple[str | None, str]:
    """The guest's name, none for the host, and the path. A colon after a slash belongs to a file's name."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and "/" not in name else (None, text)


def console(
    guest: complete.GuestName = None,
    escape: Annotated[str, typer.Option(metavar="KEY", help="The key that leaves.")] = "^]",
) -> None:
    """The serial line of a guest: the kernel's messages, and a shell, also where the network is dead.

    Example: lab console aarch64-trixie
    """
    from lab import serialline

    code = serialline.key(escape)
    record = stayed.find(guest)
    if serialline.on_terminal():
        still = f", which stands still: {record.frozen}" if record.frozen else ""
        print(f"lab: serial line of {record.name}{still}; {escape} leaves", file=sys.stderr)
    serialline.talk(record, escape=code)


def ps(as_json: opt.Json = False) -> None:
    """The guests that are up.

    Example: lab ps
    """
    there = stayed.every()
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in there], indent=2))
        return
    if not there:
        print("lab: no guest is up; lab up ARCH/KERNEL starts one", file=sys.stderr)
        return
    rows = [("NAME", "UP", "MACHINE", "ACCEL", "SSH", "WHAT")]
    for one in there:
        hardware = "" if one.hardware == STANDARD else f"@{one.hardware}"
        how = f"frozen: {one.frozen}" if one.frozen else stayed.state(one)
        what = " ".join(word for word in (one.cell or "", how) if word)
        machine = f"{one.arch}/{one.kernel}{hardware}"
        rows.append((one.name, _age(one.started), machine, one.accel, str(one.ssh_port), what or "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


def _age(started: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(0, seconds)} s"


def down(
    guest: complete.GuestName = None,
    everything: Annotated[bool, typer.Option("--all", help="Every guest.")] = False,
) -> None:
    """End a guest, also one that stands still or does not answer. Nothing is left of it.

    Example: lab down aarch64-trixie
    """
    if guest and everything:
        raise UsageError("a name and --all exclude each other", hint="give one of them")
    killed = {one.name: one for one in stayed.left()}
    if everything:
        wanted = [*killed.values(), *stayed.every()]
        if not wanted:
            print("lab: no guest is up", file=sys.stderr)
    else:
        wanted = [killed[guest] if guest in killed else stayed.find(guest)]
    failed: list[LabError] = []
    for record in wanted:
        try:
            if record.name in killed:
                _await_reaper(record)
            else:
                _take_down(record)
        except LabError as e:  # the others go all the same
            failed.append(e)
            continue
        print(f"{record.name} is down")
    if failed:
        told = "; ".join(one.message for one in failed)
        raise HostError(told, hint=failed[0].hint)


def _take_down(record: stayed.Record) -> None:
    """Have a guest ended, and wait until nothing is left of it: then its keeper ends the connection."""
    try:
        with stayed.asked(record, {"do": "down"}, timeout_s=DOWN_S) as (_, sock):
            while sock.recv(64):
                pass
    except HostError as e:
        if not isinstance(e.__cause__, (FileNotFoundError, ConnectionError)):
            raise
        # it ended just now: somebody else took it down, or its QEMU ended
    except OSError as e:
        raise HostError(
            f"the keeper of {record.name} does not take it down: {e}", hint=f"kill -9 {record.keeper} ends all it keeps"
        ) from e


def _await_reaper(record: stayed.Record) -> None:
    """Wait until nothing is left of a guest whose keeper was killed: its reaper sees to that."""
    root = Path(record.control).parent
    try:
        wait_until(lambda: not root.exists(), f"the end of {record.name}", Deadline.after(REAPED_S))
    except DeadlineError as e:
        raise HostError(f"the keeper of {record.name} was killed, and its reaper too", hint="run: lab gc") from e
    stayed.keeper_log(record.keeper).unlink(missing_ok=True)


def _default() -> str:
    """This host's own architecture, with the oldest kernel there is for it."""
    from lab import arch

    native = arch.native() or next(iter(arch.ARCHES.values()))
    return f"{native.name}/bookworm"


def _checked(wanted: Target) -> tuple[Tree, ...]:
    """The user's own kernels that a run's cell may need; UsageError for a name that no table has.

    HostError when there is no QEMU for it: without one a good warm state would seem damaged.
    """
    from lab import arch, host

    trees = select.trees(wanted.kernels, wanted.userland)
    if wanted.cell is not None:
        select.check_cell(wanted.cell, trees)
    else:
        select.check_machine(wanted.arch, wanted.kernel, wanted.hardware)
    if shutil.which(arch.get(wanted.arch).qemu) is None:
        host.check_packages()
    return trees
