# SPDX-License-Identifier: GPL-2.0-or-later
"""Load and swaps inside one guest: raw results out, nothing judged.

The guest's own tools (kmod/tools) do the work; this file is their order. Whatever was collected
before a crash stays in `Raw`, so a lost guest still leaves its evidence.
"""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lab import catalogue, dmesg
from lab.cell import Cell
from lab.deadline import Deadline, wait_until
from lab.errors import DeadlineError, GuestLost, LabError
from lab.guest import ENDED, Guest, Machine
from lab.ssh import Done
from lab.untrusted import clean, from_json, one_line

log = logging.getLogger(__name__)

FOLDER = "/run/lab"
THREADS_PER_VCPU = 2
STEP_S = 60.0  # one step, on the reference host
SILENCE_S = 45.0  # longest silence of a step that reports progress
SPLAT_QUIET_S, SPLAT_MAX_S = 0.3, 5.0
ENDED_S = 2.0  # from the end of SSH to that of the serial line, where QEMU ends
SWAPS_KEPT, ERRORS_KEPT = 8192, 64  # lines of a guest that says more are dropped


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do to a guest."""

    mechanism: str
    load: str
    swaps: int
    seed: int
    threads: int
    marker: str  # written to the guest's kernel log first; only what follows is judged
    mutant: str = ""
    core: str = ""  # parameters of hs_core

    @property
    def up(self) -> str:
        """The tool's command that loads the modules."""
        words = ["hs-ctl", "up", "--mechanism", self.mechanism, "--load", self.load, "--seed", str(self.seed)]
        words += ["--mutant", self.mutant] if self.mutant else []
        words += ["--core", self.core] if self.core else []
        return shlex.join(words)

    @property
    def calls(self) -> str:
        """The tool's command that calls until it is stopped."""
        return f"hs-load --load {self.load} --seed {self.seed} --threads {self.threads}"

    @property
    def swap(self) -> str:
        """The tool's command that swaps."""
        return f"hs-ctl swap --count {self.swaps} --seed {self.seed}"


def cell_plan(cell: Cell, machine: Machine, *, swaps: int, seed: int, mutant: str) -> Plan:
    """What a cell does to a guest of this machine."""
    return Plan(
        mechanism=cell.mechanism,
        load=cell.load,
        swaps=swaps,
        seed=seed,
        threads=machine.hardware.vcpus * THREADS_PER_VCPU,
        marker=dmesg.marker(str(seed)),
        mutant=mutant,
        core=catalogue.mutant(mutant).core if mutant else "",
    )


@dataclass(slots=True)
class Raw:
    """What came back, as the tools print it (kmod/README.md); parts are missing when the guest was lost."""

    data: dict[str, Any] = field(default_factory=lambda: {"swaps": [], "errors": []})
    dmesg: str = ""
    lost: str = ""  # the guest crashed or ended: why
    crash: str = ""  # the same, where it is the mechanism's doing
    hung: str = ""  # no progress before a deadline: what was waited for


def execute(guest: Guest, plan: Plan, payload: bytes, *, scale: float, phase: Callable[[str], None]) -> Raw:
    """Run one cell's load and swaps in a fresh guest.

    `payload` is the tar archive of modules and tools. A crash or hang is recorded, not raised;
    whatever can still be read from the guest (dmesg) is.
    """
    raw = Raw()
    begun: list[str] = []

    def enter(name: str) -> None:
        begun.append(name)
        phase(name)

    try:
        _steps(guest, plan, payload, raw, scale=scale, phase=enter)
    except GuestLost as e:
        guest.console.settle(SPLAT_QUIET_S, Deadline.after(SPLAT_MAX_S))
        with suppress(DeadlineError):
            wait_until(lambda: bool(guest.lost), "word of why the guest is lost", Deadline.after(ENDED_S))
        raw.lost = guest.lost or e.message
        if raw.lost == ENDED and "swap" in begun:
            raw.crash = f"{ENDED} once swaps had begun: the guest reset or shut down"
    except DeadlineError as e:
        raw.hung = e.message
    if not raw.lost and not raw.dmesg:
        try:
            raw.dmesg = _dmesg(guest, Deadline.after(5.0 * scale))
        except LabError as e:
            log.debug("no dmesg from %s: %s", guest.name, e)
    return raw


def place(guest: Guest, plan: Plan, payload: bytes, *, scale: float) -> None:
    """Put modules and tools into FOLDER, and mark the kernel log."""
    mark = f"echo '{plan.marker}' > /dev/kmsg"
    guest.put_tar(payload, FOLDER, then=mark, deadline=Deadline.after(STEP_S * scale))


def load(guest: Guest, plan: Plan, *, scale: float) -> str:
    """Load the modules as a cell has them, and no more; nothing, or why not in one line.

    GuestLost and DeadlineError pass.
    """
    data: dict[str, Any] = {"swaps": [], "errors": []}
    done, _ = _run(guest, (plan.up,), data, seconds=STEP_S, scale=scale)
    told = str(data.get("skip") or next(iter(data["errors"]), ""))
    return one_line(told) or ("" if done.status == 0 else one_line(done.stderr) or f"status {done.status} and no word")


def _steps(guest: Guest, plan: Plan, payload: bytes, raw: Raw, *, scale: float, phase: Callable[[str], None]) -> None:
    def step(*commands: str, seconds: float = STEP_S) -> int:
        """Tools one after the other; a failing status is recorded."""
        done, tool = _run(guest, commands, raw.data, seconds=seconds, scale=scale)
        if done.status != 0 and not raw.data["errors"]:
            said = one_line(done.stderr) or f"status {done.status} and no word"
            raw.data["errors"].append(f"{tool}: {said}")
        return done.status

    phase("load")
    place(guest, plan, payload, scale=scale)
    if step(plan.up) != 0 or "skip" in raw.data:
        return
    total_s = STEP_S + catalogue.LOADS[plan.load].swap_s * plan.swaps
    with _Background(lambda: step(plan.calls, seconds=total_s + 3 * STEP_S)):
        phase("swap")
        step(plan.swap, "hs-ctl refuse", "hs-ctl stop", seconds=total_s + 2 * STEP_S)
    phase("drain")
    step("hs-ctl stats", "hs-ctl down", seconds=2 * STEP_S)
    raw.dmesg = _dmesg(guest, Deadline.after(STEP_S * scale))


def _run(
    guest: Guest, commands: tuple[str, ...], data: dict[str, Any], *, seconds: float, scale: float
) -> tuple[Done, str]:
    """Tools one after the other, each to its end; their JSON lines go into `data`. The end, and the last one's name.

    In one run over SSH: beside a load, every way there and back costs a quarter of a second. So each says its name
    before it begins, and its status where it was killed. DeadlineError names the tool.
    """
    tool = _name(commands[0])

    def take(line: bytes) -> None:
        nonlocal tool
        tool = one_line(str(_take(data, line).get("tool", tool)), 40)

    try:
        done = guest.run(
            f"cd {FOLDER} && export LAB_SPEED={scale:.2f} && {{ status=0; {_chain(commands)} exit $status; }}",
            deadline=Deadline.after(seconds * scale),
            check=False,
            on_line=take,
            progress_s=SILENCE_S * scale,
        )
    except DeadlineError as e:
        how = e.message.rpartition("' ")[2]  # behind the command in quotes
        raise DeadlineError(f"{tool} {how}") from e
    return done, tool


def _name(command: str) -> str:
    """What a tool is called in messages: itself, and what it is told to do."""
    return " ".join(word for word in command.split()[:2] if not word.startswith("-"))


def _chain(commands: tuple[str, ...]) -> str:
    """The shell's words to run tools one after the other."""
    words = ""
    for one in commands:
        name = _name(one)
        words += f"""echo '{{"tool":"{name}"}}'; ./{one} || {{ status=$?; [ $status -lt 126 ] || """
        words += f"""printf '\\n{{"error":"{name}: status %s"}}\\n' $status; }}; """
    return words


def _take(data: dict[str, Any], line: bytes) -> dict[str, Any]:
    """File one JSON line of a tool, and return it; anything else a hostile guest prints is dropped."""
    try:
        value = from_json(line)
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    if "swap" in value:
        _keep(data["swaps"], value, SWAPS_KEPT)
    elif "swaps" in value:
        data["swap_total"] = value["swaps"]
    elif "error" in value:
        _keep(data["errors"], str(value["error"])[:300], ERRORS_KEPT)
    elif "skip" in value:
        data["skip"] = str(value["skip"])[:300]
    else:
        for key in ("load", "refusals", "stats", "down", "sections"):
            if key in value:
                data[key] = value[key]
    return value


def _keep(kept: list[Any], one: object, limit: int) -> None:
    if len(kept) < limit:
        kept.append(one)


def _dmesg(guest: Guest, deadline: Deadline) -> str:
    return clean(guest.run("dmesg", deadline=deadline).stdout)


class _Background:
    """A step that runs beside others; its failure is raised where the block ends, unless that failed first."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as e:
            self._error = e

    def __enter__(self) -> _Background:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            return  # the connection is closing; the thread ends with it
        self._thread.join()
        if self._error is not None:
            raise self._error
