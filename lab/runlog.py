# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest's tools reported, typed. A guest is untrusted: every part is checked, bounded, and may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lab.ownlog import Adaptation, Invalidation, Livepatch, Transaction
from lab.parts import MAX_ITEMS, Buckets, Count, Pairs, Part, Signed, Word
from lab.untrusted import one_line


class Phases(Part):
    """Latency histograms, before, during and after the swaps: [bucket, count] pairs."""

    before: Buckets = []
    during: Buckets = []
    after: Buckets = []


class Maxima(Part):
    """The longest call of each phase, ns."""

    before: Count | None = None
    during: Count | None = None
    after: Count | None = None


class Opened(Part):
    """What came of a thread's opens of files that every policy allows, or forbids."""

    opens: Count
    refused: Count
    forbidden_opened: Count
    slipped: Count  # of those, how many an edition had been asked about
    allowed_refused: Count


class Caller(Part):
    """Who calls: a thread, or an interrupt source. issued counts every call begun."""

    id: Count = 0
    name: Word = ""
    kind: Word = "syscall"  # of a thread: how it calls; catalogue.Kind
    issued: Count
    completed: Count
    failed: Count
    retried: Count | None = None  # calls cut off and made again through the module table
    recovered: Count | None = None  # the same by a caller's own recovery routine
    wrong: Count | None = None  # results that are not the edition's
    stale: Count | None = None  # an older edition after a newer one
    rounds: Count | None = None  # calls that belong together, made to their end
    torn: Count | None = None  # of those, how many were answered by more than one edition
    errors: dict[Word, Count] = {}
    editions: Pairs = []  # [version, completed calls]
    versions_lost: Count = 0  # completed calls of versions that found no room in that list
    hist: Phases | None = None
    max_ns: Maxima | None = None
    last_ns: Count | None = None  # when its last call completed
    gap_floor_ns: Count | None = None  # every shorter gap is unknown
    gaps: Pairs | None = None  # [start, end] without a completed call, CLOCK_MONOTONIC ns
    raised: Count | None = None  # interrupts asked for, where it is a source of them
    handled: Count | None = None
    policy: Opened | None = None  # of a thread of opens
    denied: Count | None = None  # opens that editions denied, by the kernel's count of that source


class LoadPart(Part):
    """hs-load's last line."""

    started_ns: Count
    ended_ns: Count
    sub_bits: Annotated[int, Field(strict=True, ge=0, le=8)]
    threads: Annotated[list[Caller], Field(max_length=4096)]


class Swap(Part):
    """One line of hs-ctl swap: done, or ended at a step with an error. A step that the mechanism has not is null."""

    swap: Count
    edition: Word | None = None
    version: Count | None = None
    start_ns: Count | None = None
    end_ns: Count | None = None
    load_ns: Count | None = None
    publish_ns: Count | None = None
    drain_ns: Count | None = None
    unload_ns: Count | None = None
    retire_ns: Count | None = None  # from the drain's end until the last reference was dropped
    flush_ns: Count | None = None  # part of the drain: page tables and the flush on every CPU
    fault_ns: Count | None = None  # one contained fault, from the call to the landing
    step: Word | None = None
    error: Word | None = None


class SwapTotal(Part):
    """The last line of hs-ctl swap."""

    requested: Count
    done: Count
    refused: Count
    failed: Count


class Refusal(Part):
    """One attempt that had to be refused; `same` says the state was identical afterwards."""

    case: Word
    expected: Word
    got: Word
    refused: bool
    same: bool


class EditionStat(Part):
    """The kernel's account of one registered edition."""

    slot: Word
    name: Word
    version: Count
    state: Word
    issued: Count
    completed: Count
    failed: Count
    aborted: Count = 0  # references cut off
    committed: Count | None = None  # calls that passed the point from which they are not made again
    settled: Count | None = None  # of those, how many returned
    refs: Annotated[list[Signed], Field(max_length=8192)] = []
    refs_sum: Signed


class Nested(Part):
    """Calls that editions made of their own slot."""

    issued: Count
    again: Count  # how often they were cut off and made again


class Empty(Part):
    """Calls that found no edition."""

    failed: Count


class Memory(Part):
    """Allocations of the core, counted."""

    allocated: Count
    freed: Count


class Stalls(Part):
    """When one CPU did not run: its witness, a pinned timer that fires every millisecond, was late."""

    cpu: Count
    floor_ns: Count
    stalls: Pairs


class Stats(Part):
    """The kernel's account: editions, sources of calls, memory."""

    mechanism: Word
    editions: Annotated[list[EditionStat], Field(max_length=MAX_ITEMS)]
    empty: Empty | None = None
    sources: Annotated[list[Caller], Field(max_length=256)]
    stalls: Annotated[list[Stalls], Field(max_length=8192)] = []
    memory: Memory | None = None
    nested: Nested | None = None
    invalidate: Invalidation | None = None
    adaptive: Adaptation | None = None
    transaction: Transaction | None = None
    livepatch: Livepatch | None = None
    nmissed: Count | None = None


class Down(Part):
    """What was left after the last drain."""

    leaks: Annotated[list[Word], Field(max_length=256)]
    modules_left: Annotated[list[Word], Field(max_length=256)]
    drained: bool


class RunLog(BaseModel):
    """All parts of one cell's run; None where the tools never said it."""

    model_config = ConfigDict(frozen=True)

    load: LoadPart | None = None
    swaps: tuple[Swap, ...] = ()
    swap_total: SwapTotal | None = None
    refusals: tuple[Refusal, ...] | None = None
    stats: Stats | None = None
    down: Down | None = None
    errors: tuple[str, ...] = ()  # what the tools complained of
    faults: tuple[str, ...] = ()  # parts that made no sense

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parts that never came."""
        return tuple(part for part in PARTS if getattr(self, part) is None)


PARTS = ("load", "swap_total", "refusals", "stats", "down")
_T = TypeVar("_T")
_LOAD = TypeAdapter(LoadPart)
_SWAPS = TypeAdapter(tuple[Swap, ...])
_SWAP_TOTAL = TypeAdapter(SwapTotal)
_REFUSALS = TypeAdapter(tuple[Refusal, ...])
_STATS = TypeAdapter(Stats)
_DOWN = TypeAdapter(Down)


def read(raw: Mapping[str, Any]) -> RunLog:
    """The typed run log of the tools' JSON; a part that makes no sense becomes a fault and counts as missing."""
    faults: list[str] = []
    errors = raw.get("errors") or []
    return RunLog(
        load=_part(_LOAD, raw, "load", faults),
        swaps=_part(_SWAPS, raw, "swaps", faults) or (),
        swap_total=_part(_SWAP_TOTAL, raw, "swap_total", faults),
        refusals=_part(_REFUSALS, raw, "refusals", faults),
        stats=_part(_STATS, raw, "stats", faults),
        down=_part(_DOWN, raw, "down", faults),
        errors=tuple(one_line(str(error)) for error in errors[:64]) if isinstance(errors, (list, tuple)) else (),
        faults=tuple(faults),
    )


def _part(kind: TypeAdapter[_T], raw: Mapping[str, Any], name: str, faults: list[str]) -> _T | None:
    value = raw.get(name)
    if value is None:
        return None
    try:
        return kind.validate_python(value)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in (name, *first["loc"]))
        faults.append(one_line(f"{where}: {first['msg']}"))
        return None
