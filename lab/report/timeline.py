# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened when: a cell's load as one strip, and each swap as another, steps above the callers' silences. Pure.

A strip is 1000 units wide, whatever its time. Callers tell only the gaps in which they completed no call, and of those
only the longer ones; a lane shows where nobody of a kind completed one for `UNUSUAL` times as long as they usually
pause.
The order of a swap's steps is known, and its beginning and end: load and publication follow the beginning, what the old
edition goes through precedes the end. What a reader sees between them is the swapper's own time.
"""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab import catalogue, gaps, measure, phrases
from lab.catalogue import Kind
from lab.report.figures import duration
from lab.runlog import RunLog, Swap

WIDTH = 1000
UNUSUAL = 4  # times a kind's median gap
MIN_UNITS = 2.0  # what is narrower is not drawn, but for steps
STEP_UNITS = 1.5  # the narrowest step
MAX_MARKS = 40  # lines of the kernel log in a strip
DIVISIONS = 4  # of the axis
STILL = "CPU stood still"

Interval = tuple[int, int]
Line = tuple[int, str, bool]  # of the kernel log: ns, text, whether it is a splat's headline


@dataclass(frozen=True, slots=True)
class Lane:
    """When nobody of a kind completed a call."""

    name: str
    path: str  # SVG path: rectangles from 0 to 1 in height
    title: str


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a swap."""

    name: str
    x: float
    width: float
    told: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the kernel log."""

    x: float
    text: str
    splat: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """A stretch of time."""

    label: str
    end_x: float  # where it ends on the axis
    steps: tuple[Step, ...]
    lanes: tuple[Lane, ...]
    marks: tuple[Mark, ...]

    @property
    def title(self) -> str:
        """The picture in words."""
        steps = ", ".join(f"{step.name} {step.told}" for step in self.steps)
        return f"{self.label}: {steps}" if steps else self.label


@dataclass(frozen=True, slots=True)
class Timeline:
    """A cell's strips."""

    whole: Strip
    whole_ticks: tuple[str, ...]
    swaps: tuple[Strip, ...]
    swap_ticks: tuple[str, ...]  # one scale for all, so that they compare
    left_out: int  # swaps not drawn: the shorter ones
    failed: tuple[str, ...]  # swaps that ended at a step with an error
    usual: tuple[str, ...]  # from how long on a lane shows a gap


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    found: Sequence[Interval]  # in order, not overlapping
    shown_ns: int


def timeline(log: RunLog, mechanism: str, kernel: Sequence[tuple[int, str]], *, max_swaps: int) -> Timeline | None:
    """The timeline of a cell; None where no swap and no load has a time. `kernel`: (ns, line) of its log."""
    timed = [swap for swap in log.swaps if swap.start_ns is not None and (swap.end_ns or 0) > swap.start_ns]
    window = _window(log, timed)
    if window is None:
        return None
    kinds = _kinds(log)
    lines = [(ns, text, phrases.find(text) is not None) for ns, text in kernel]
    drawn = sorted(sorted(timed, key=_length_ns, reverse=True)[:max_swaps], key=lambda swap: swap.swap)
    span = _nice(max((_length_ns(swap) for swap in drawn), default=1))
    return Timeline(
        whole=_whole(timed, kinds, lines, _Scale(*window, window[1] - window[0])),
        whole_ticks=_ticks(window[1] - window[0]),
        swaps=tuple(_strip(swap, mechanism, kinds, lines, span) for swap in drawn),
        swap_ticks=_ticks(span),
        left_out=len(timed) - len(drawn),
        failed=tuple(f"swap {swap.swap}: {swap.step}: {swap.error}" for swap in log.swaps if swap.error)[:8],
        usual=tuple(f"{kind.name} {duration(kind.shown_ns)}" for kind in kinds if kind.name != STILL),
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """What is drawn, and how much time its axis holds."""

    start_ns: int
    end_ns: int
    span_ns: int

    def x(self, ns: int) -> float:
        inside = min(max(ns, self.start_ns), self.end_ns)
        return round((inside - self.start_ns) * WIDTH / self.span_ns, 1)


def _window(log: RunLog, timed: Sequence[Swap]) -> Interval | None:
    if log.load and log.load.ended_ns > log.load.started_ns:
        return log.load.started_ns, log.load.ended_ns
    if timed:
        return min(swap.start_ns or 0 for swap in timed), max(swap.end_ns or 0 for swap in timed)
    return None


def _kinds(log: RunLog) -> list[_Kind]:
    """The common gaps of the callers of each kind that told theirs, and of the CPUs."""
    if log.load is None:
        return []
    groups = {kind.calls: [one for one in measure.threads(log) if one.kind == kind] for kind in Kind}
    groups[Kind.INTERRUPT.calls] = measure.interrupt_sources(log)
    found = []
    for name, callers in groups.items():
        active = [caller for caller in callers if caller.completed > 1]
        if not active or any(caller.gaps is None for caller in active):
            continue
        common = gaps.common_gaps([gaps.own(caller, log.load.ended_ns) for caller in active])
        usual = statistics.median_low([end - start for start, end in common]) if common else 0
        floor = max(caller.gap_floor_ns or 0 for caller in active)
        found.append(_Kind(name, common, max(UNUSUAL * usual, floor)))
    if log.stats and log.stats.stalls:
        still = gaps.union([pair for cpu in log.stats.stalls for pair in cpu.stalls])
        found.append(_Kind(STILL, still, min(cpu.floor_ns for cpu in log.stats.stalls)))
    return found


def _whole(timed: Sequence[Swap], kinds: Sequence[_Kind], lines: Sequence[Line], scale: _Scale) -> Strip:
    """The strip of a cell: its swaps are a lane of their own."""
    spans = [(swap.start_ns or 0, swap.end_ns or 0) for swap in timed]
    told = f"{len(timed):,} swap{'' if len(timed) == 1 else 's'}"
    return Strip(
        label=f"{told} in {duration(scale.end_ns - scale.start_ns)}",
        end_x=float(WIDTH),
        steps=(),
        lanes=(Lane("swaps", _path(spans, scale, STEP_UNITS), told), *(_lane(kind, scale) for kind in kinds)),
        marks=_marks(lines, scale),
    )


def _lane(kind: _Kind, scale: _Scale) -> Lane:
    first = max(0, bisect.bisect_right(kind.found, (scale.start_ns, scale.start_ns)) - 1)
    inside = itertools.takewhile(lambda gap: gap[0] < scale.end_ns, itertools.islice(kind.found, first, None))
    long = [gap for gap in inside if gap[1] > scale.start_ns and gap[1] - gap[0] >= kind.shown_ns]
    longest = max((end - start for start, end in long), default=0)
    gap = "gap" if len(long) == 1 else "gaps"
    told = f"{kind.name}: {len(long):,} {gap}, the longest {duration(longest)}" if long else f"{kind.name}: no gap"
    return Lane(kind.name, _path(long, scale, 0.0), told)


def _path(intervals: Iterable[Interval], scale: _Scale, least: float) -> str:
    """Rectangles, at least so wide; where that is 0 what is too narrow to see is left out."""
    path, drawn = [], 0.0
    shortest_ns = 0.0 if least else MIN_UNITS * scale.span_ns / WIDTH
    for start, end in intervals:
        if end - start < shortest_ns:
            continue
        left = max(scale.x(start), drawn)
        right = max(scale.x(end), left + least)
        if right > left:
            path.append(f"M{left:g} 0H{right:g}V1H{left:g}z")
            drawn = right
    return "".join(path)


def _strip(swap: Swap, mechanism: str, kinds: Sequence[_Kind], lines: Sequence[Line], span_ns: int) -> Strip:
    to = f" to {swap.edition}" if swap.edition else ""
    version = f" version {swap.version}" if swap.version is not None else ""
    scale = _Scale(swap.start_ns or 0, swap.end_ns or 0, span_ns)
    return Strip(
        label=f"Swap {swap.swap}{to}{version}, {duration(_length_ns(swap))}",
        end_x=scale.x(scale.end_ns),
        steps=tuple(_step(name, ns, start, scale) for name, ns, start in _order(swap, mechanism)),
        lanes=tuple(_lane(kind, scale) for kind in kinds),
        marks=_marks(lines, scale),
    )


def _order(swap: Swap, mechanism: str) -> Iterable[tuple[str, int, int]]:
    """(step, ns, when it began) of the steps that the swap had."""
    known = catalogue.MECHANISMS.get(mechanism)
    begin, end = swap.start_ns or 0, swap.end_ns or 0
    load, publish, unload = (value or 0 for value in (swap.load_ns, swap.publish_ns, swap.unload_ns))
    if known and not known.new_first:
        order = [("unload", unload, begin), ("load", load, end - publish - load), ("publish", publish, end - publish)]
    else:
        retire = end - unload - (swap.retire_ns or 0)
        drain = retire - (swap.drain_ns or 0)
        order = [
            ("load", load, begin),
            ("publish", publish, begin + load),
            ("drain", swap.drain_ns or 0, drain),
            ("flush", swap.flush_ns or 0, drain),
            ("retire", swap.retire_ns or 0, retire),
            ("unload", unload, end - unload),
        ]
    return [(name, ns, max(start, begin)) for name, ns, start in order if ns]


def _step(name: str, ns: int, start: int, scale: _Scale) -> Step:
    left = scale.x(start)
    return Step(name, left, max(round(scale.x(start + ns) - left, 1), STEP_UNITS), duration(ns))


def _marks(lines: Sequence[Line], scale: _Scale) -> tuple[Mark, ...]:
    """What the kernel said then; splats are drawn before anything else is left out."""
    marks = [Mark(scale.x(ns), text, splat) for ns, text, splat in lines if scale.start_ns <= ns <= scale.end_ns]
    return tuple(sorted(marks, key=lambda mark: not mark.splat)[:MAX_MARKS])


def _length_ns(swap: Swap) -> int:
    return (swap.end_ns or 0) - (swap.start_ns or 0)


def _nice(ns: int) -> int:
    """The next round number from there on."""
    size: int = 10 ** (len(str(ns)) - 1)
    return next(size * times for times in (1, 2, 4, 6, 8, 10) if size * times >= ns)


def _ticks(span_ns: int) -> tuple[str, ...]:
    return tuple(duration(span_ns * at // DIVISIONS) for at in range(DIVISIONS + 1))
