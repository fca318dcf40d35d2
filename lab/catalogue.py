# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of mechanisms, loads and mutants: what the lab knows of each, in one row."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from lab import paths
from lab.cell import Cell
from lab.errors import UsageError


class Oracle(IntEnum):
    """A check that needs no timing. 1 to 6 hold in every cell; 7 and 8 are the mechanism's and the load's own."""

    CONSERVATION = 1  # issued = completed + failed, in the callers' counts and the kernel's
    RESULTS = 2  # every result is its edition's, none older after a newer
    DRAIN = 3  # references zero, old editions gone, memory freed
    INTERRUPTS = 4  # no interrupt lost
    DMESG = 5  # no splat, no taint not asked for
    REFUSALS = 6  # what must be refused is, and changes nothing
    PROMISE = 7  # what this mechanism says of itself
    PROGRESS = 8  # calls and swaps really happened

    @classmethod
    def told(cls, number: int) -> str:
        """The name of an oracle; none for one of a newer lab, whose results can be read all the same."""
        return cls(number).name.lower() if number in set(cls) else ""


class Kind(StrEnum):
    """How a caller calls; the kernel counts the calls of threads under these names."""

    SYSCALL = "syscall"
    EXCEPTION = "exception"
    POLICY = "policy"
    INTERRUPT = "interrupt"

    @property
    def calls(self) -> str:
        """What one call of that kind is, in the plural."""
        return {"syscall": "system calls", "exception": "page faults", "policy": "opens"}.get(self, "interrupts")


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One way to swap code."""

    name: str
    summary: str  # one line for `lab list mechanisms`
    calls_may_fail: bool  # callers see errors during a swap by design; else one failed call breaks its promise
    needs_idle: bool = False  # a swap needs an instant at which no caller is inside
    side_by_side: bool = False  # several editions live at once: a caller may meet an older one after a newer one
    per_task: bool = False  # an interrupt meets what the task has that it interrupts: an older one after a newer one
    whole_rounds: bool = False  # calls that belong together are answered by one edition
    cuts_off: bool = False  # calls in the old edition are cut off and made again, and it proves that none is left
    taints: str = "OE"  # letters its modules give the kernel: out of tree, unsigned
    new_first: bool = True  # the new edition is loaded before the old one goes
    gone: str = ""  # in two words, by what it knows that nobody is in the old edition any more


@dataclass(frozen=True, slots=True)
class Load:
    """What calls while the swaps happen."""

    name: str
    summary: str  # one line for `lab list loads`
    callers: frozenset[Kind]  # each of these kinds must really call
    stays: bool = False  # callers stay in the old edition at every swap
    swap_s: float = 3.0  # what a swap may take on the reference host


@dataclass(frozen=True, slots=True)
class Mutant:
    """A deliberately broken variant, and how it must be caught."""

    name: str
    replaces: str  # the module it stands in for
    oracle: Oracle  # the one that catches it
    mechanism: str
    load: str
    status: str  # the verdict it must get
    summary: str
    core: str = ""  # parameters of hs_core: the race point that it widens


MECHANISMS: dict[str, Mechanism] = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism(
            name="reload",
            summary="rmmod, insmod: the baseline; calls in the gap fail, and the gap is the figure",
            calls_may_fail=True,
            needs_idle=True,
            new_first=False,
            gone="unloaded",
        ),
        Mechanism(
            name="refcount",
            summary="a counter per edition: new calls go to the newest, old ones finish, unload at zero",
            calls_may_fail=False,
            gone="count zero",
        ),
        Mechanism(
            name="invalidate",
            summary="calls in the old edition are cut off and retried on the new one; its text is made non-executable",
            calls_may_fail=False,
            cuts_off=True,
            gone="probe faults",
        ),
        Mechanism(
            name="adaptive",
            summary="several editions live at once; a handler in place of the function called chooses for each call",
            calls_may_fail=False,
            side_by_side=True,
            whole_rounds=True,
            gone="stack checked",
        ),
        Mechanism(
            name="transaction",
            summary="calls between two marks see one version; state is brought from layout to layout",
            calls_may_fail=False,
            whole_rounds=True,
            gone="count zero",
        ),
        Mechanism(
            name="livepatch",
            summary="the peer: the same editions as upstream livepatches, task by task, where the kernel has it",
            calls_may_fail=False,
            per_task=True,
            taints="OEK",
            gone="transition over",
        ),
    )
}

_MIXED = frozenset({Kind.SYSCALL, Kind.EXCEPTION, Kind.INTERRUPT})

LOADS: dict[str, Load] = {
    load.name: load
    for load in (
        Load(name="syscall", summary="threads of system calls", callers=frozenset({Kind.SYSCALL})),
        Load(name="irq", summary="interrupts of edu devices and a timer", callers=frozenset({Kind.INTERRUPT})),
        Load(name="exception", summary="threads of page faults", callers=frozenset({Kind.EXCEPTION})),
        Load(
            name="policy",
            summary="threads of file opens, which the edition allows or denies",
            callers=frozenset({Kind.POLICY}),
        ),
        Load(name="mixed", summary="system calls, page faults and interrupts at once", callers=_MIXED),
        Load(
            name="stuck",
            summary="mixed, and callers that sleep or spin 4 s inside an edition",
            callers=_MIXED,
            stays=True,
            swap_s=20.0,
        ),
    )
}


def impossible(mechanism: str, load: str) -> str:
    """Why this mechanism can never finish a swap under that load; empty where it can."""
    if MECHANISMS[mechanism].needs_idle and LOADS[load].stays:
        return f"{mechanism} unloads a module that nobody is in, and under {load} somebody always is"
    return ""


def mutants() -> dict[str, Mutant]:
    """kmod/mutants/mutants.toml, one table per mutant; empty when there is none."""
    path = paths.kmod_dir() / "mutants" / "mutants.toml"
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: {e}") from e
    return {name: _mutant(name, table) for name, table in tables.items()}


def mutant(name: str) -> Mutant:
    """The mutant of that name; UsageError naming the known ones otherwise."""
    known = mutants()
    if name not in known:
        raise UsageError(f"unknown mutant '{name}'", hint=f"known: {', '.join(known) or 'none'}")
    return known[name]


def check_fit(mutant: Mutant, cell: Cell) -> None:
    """UsageError when a cell never uses what the mutant breaks: it would pass, and say nothing of the mutant."""
    without = LOADS[mutant.load].callers - LOADS[cell.load].callers
    own = mutant.replaces == f"hs_{mutant.mechanism}" or mutant.name.startswith(f"{mutant.mechanism}_")
    if own and cell.mechanism != mutant.mechanism:
        only = f"mechanism {mutant.mechanism}"
    elif (mutant.replaces == "hs_load" and without) or Kind.POLICY in without:
        only = f"loads with the sources of {mutant.load}"
    else:
        return
    raise UsageError(f"mutant '{mutant.name}' does not fit {cell.id}", hint=f"it is for {only}: lab list mutants")


def _mutant(name: str, table: dict[str, object]) -> Mutant:
    try:
        words = {key: str(table[key]) for key in ("replaces", "mechanism", "load", "status", "summary")}
        core = str(table.get("core", ""))
        return Mutant(name=name, oracle=Oracle(int(str(table["oracle"]))), core=core, **words)
    except (KeyError, ValueError, TypeError) as e:
        raise UsageError(f"kmod/mutants/mutants.toml: mutant '{name}': {e}", hint="a key is missing or wrong") from e
