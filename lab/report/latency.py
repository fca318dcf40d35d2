# SPDX-License-Identifier: GPL-2.0-or-later
"""Latency histograms as bars: the same axis for the calls before, during and after the swaps. Pure.

The guest counts in buckets a sixteenth of an octave wide; a bar is a tenth of a decade, which a reader can still tell
apart. Both axes are logarithmic: a call in a million is what one looks for, and it is a bar one can see.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from lab import measure
from lab.report.figures import duration
from lab.runlog import RunLog

PER_DECADE = 10
MAX_DECADES = 12
HEIGHT = 100  # of the highest bar, in the picture's own units


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in units of the axis: a bin is one unit wide."""

    x: int
    height: int  # of HEIGHT; at least 1
    count: int


@dataclass(frozen=True, slots=True)
class Phase:
    """The calls of one phase."""

    name: str
    bars: tuple[Bar, ...]
    n: int
    p50_x: float | None  # where the quantiles are on the axis
    p999_x: float | None
    told: tuple[str, ...]  # p50, p99, p99.9, longest, calls

    @property
    def title(self) -> str:
        """The picture in words."""
        if not self.n:
            return f"{self.name} the swaps: no calls"
        p50, p99, p999, longest, n = self.told
        return f"{self.name} the swaps: {n} calls, median {p50}, p99 {p99}, p99.9 {p999}, longest {longest}"


@dataclass(frozen=True, slots=True)
class Histogram:
    """All phases over one axis."""

    phases: tuple[Phase, ...]
    width: int  # bins
    ticks: tuple[str, ...]  # a label for each decade, first and last at the ends


def histogram(log: RunLog) -> Histogram | None:
    """The histograms of a cell; None where no call was timed."""
    if log.load is None:
        return None
    hists = {phase: measure.latency_hist(log, phase)[0] for phase in measure.PHASES}
    binned = {phase: _binned(hist, log.load.sub_bits) for phase, hist in hists.items()}
    places = [place for bins in binned.values() for place in bins]
    if not places:
        return None
    first = min(places) // PER_DECADE
    last = min(max(places) // PER_DECADE + 1, first + MAX_DECADES)
    top = max(count for bins in binned.values() for count in bins.values())
    samples = {phase: measure.latency(log, phase) for phase in measure.PHASES}
    return Histogram(
        phases=tuple(_phase(name, binned[name], samples[name], first, last, top) for name in measure.PHASES),
        width=(last - first) * PER_DECADE,
        ticks=tuple(duration(10**decade) for decade in range(first, last + 1)),
    )


def _binned(hist: Counter[int], sub_bits: int) -> Counter[int]:
    """Calls by tenths of a decade: 0 is from 1 ns on."""
    bins: Counter[int] = Counter()
    for bucket, count in hist.items():
        if count:
            bins[math.floor(math.log10(max(1, measure.bucket_top(bucket, sub_bits))) * PER_DECADE)] += count
    return bins


def _phase(name: str, bins: Counter[int], latency: measure.Latency | None, first: int, last: int, top: int) -> Phase:
    bars: Counter[int] = Counter()
    for place, count in bins.items():
        bars[min(place, last * PER_DECADE - 1) - first * PER_DECADE] += count
    scale = math.log1p(top)
    return Phase(
        name=name,
        bars=tuple(Bar(x, max(1, round(HEIGHT * math.log1p(bars[x]) / scale)), bars[x]) for x in sorted(bars)),
        n=sum(bins.values()),
        p50_x=_x(latency.p50, first, last) if latency else None,
        p999_x=_x(latency.p999, first, last) if latency else None,
        told=(
            (
                *(duration(ns) for ns in (latency.p50, latency.p99, latency.p999, latency.max)),
                f"{latency.n:,}",
            )
            if latency
            else ("-", "-", "-", "-", "0")
        ),
    )


def _x(ns: int, first: int, last: int) -> float:
    place = (math.log10(max(1, ns)) - first) * PER_DECADE
    return round(min(max(place, 0.0), float((last - first) * PER_DECADE)), 2)
