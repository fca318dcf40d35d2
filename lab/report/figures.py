# SPDX-License-Identifier: GPL-2.0-or-later
"""A result's key figures as short texts, the same in every report. What was not measured is a dash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lab.cellresult import CellResult
from lab.verdict import Status

NONE = "-"


@dataclass(frozen=True, slots=True)
class Figures:
    """One row."""

    seconds: str
    calls: str
    failed: str
    swaps: str
    blackout: str
    gap: str  # the blackout as seen, nothing taken off
    drain: str
    irqs: str


class Bound(Enum):
    """How a blackout is meant."""

    EXACT = "exact"
    LOWER = "lower"
    UPPER = "upper"
    UNKNOWN = "unknown"


def plain(value: Any) -> str:
    """What a file holds, as words: of a table its keys and values, of a list its members."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(one) for one in value)
    return str(value)


def figures(result: CellResult) -> Figures:
    """The figures of a row."""
    calls, swaps, irqs = result.calls or {}, result.swaps or {}, result.irqs or {}
    drain = (result.swap_ns or {}).get("drain") or {}
    return Figures(
        seconds=NONE if result.duration_s is None else f"{result.duration_s:.1f}",
        calls=count(calls.get("issued")),
        failed=count(calls.get("failed")),
        swaps=_swaps(swaps.get("done"), swaps.get("requested")),
        blackout=_blackout(result),
        gap=duration(result.blackout_raw_ns),
        drain=duration(drain.get("p50")),
        irqs=count(irqs.get("raised")),
    )


def count(value: int | None) -> str:
    """A count with its thousands apart."""
    return NONE if value is None else f"{value:,}"


def duration(ns: int | None) -> str:
    """Nanoseconds in the unit that suits them."""
    if ns is None:
        return NONE
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if ns >= size:
            value = ns / size
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{ns} ns"


def clock(seconds: float) -> str:
    """Seconds as 4.2 s or 2 min 13 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def tally(results: Sequence[CellResult]) -> str:
    """How many of each verdict: 24 cells: 23 PASS, 1 FAIL."""
    counts = Counter(result.verdict for result in results)
    words = [word for status in Status for word in (status.value, f"known {status.value}")]
    told = ", ".join(f"{counts[word]} {word}" for word in words if counts[word])
    cells = f"{len(results)} cell{'' if len(results) == 1 else 's'}"
    return f"{cells}: {told}" if told else cells


def _swaps(done: int | None, requested: int | None) -> str:
    if done is None or requested is None:
        return NONE
    return f"{done:,}" if done == requested else f"{done:,}/{requested:,}"


def bound(result: CellResult) -> Bound:
    """What a result's blackout is: a lower bound where a longer gap was seen and a part of it was not counted."""
    if result.blackout_ns is None:
        return Bound.UNKNOWN
    if result.blackout_exact:
        return Bound.EXACT
    return Bound.LOWER if (result.blackout_raw_ns or 0) > result.blackout_ns else Bound.UPPER


def _blackout(result: CellResult) -> str:
    return {Bound.LOWER: ">=", Bound.UPPER: "<"}.get(bound(result), "") + duration(result.blackout_ns)
