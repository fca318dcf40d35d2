# SPDX-License-Identifier: GPL-2.0-or-later
"""When nobody completed a call: callers' gaps -> the blackout. Pure.

The blackout is the longest interval in which nobody completed a call: the longest intersection of all callers'
gaps. A caller lists only the gaps from its floor on, so a common gap shorter than the highest floor may go unseen;
then the floor is reported, as an upper bound.

A virtual CPU that its host does not run completes no calls either. The guest's witnesses (kmod/core/stall.c) say
when that was, and the part of a gap in which any CPU stood still is not counted, so that rows compare mechanisms and
not the host's other work. But a call may have been due in that part, and a mechanism may have kept interrupts off:
what is left is a lower bound. `blackout_raw_ns` is the longest gap as it was seen. `blackout_exact` says that the two
are the same; where it is false, the blackout is a lower bound if the gap as seen is longer, else an upper one.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence

from lab.runlog import Caller, RunLog


def common_gaps(gaps: Sequence[Iterable[tuple[int, int]]]) -> list[tuple[int, int]]:
    """The intervals inside a gap of every caller, in order. Each caller's gaps do not overlap each other.

    One sweep over all ends: O(n log n) for n gaps. Two gaps of a caller that touch stay apart: a call completed there.
    """
    edges = [(start, 1) for one in gaps for start, _ in one] + [(end, 0) for one in gaps for _, end in one]
    edges.sort()
    found: list[tuple[int, int]] = []
    depth, since = 0, 0
    for at, opens in edges:
        if opens:
            depth += 1
            since = at
        else:
            if depth == len(gaps) and at > since:
                found.append((since, at))
            depth -= 1
    return found


def union(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same time as non-overlapping intervals in order."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def without(gaps: Iterable[tuple[int, int]], still: Sequence[tuple[int, int]]) -> list[int]:
    """The length of each gap less its time in `still`, which is in order and does not overlap itself."""
    ends = [end for _, end in still]
    lengths = []
    for start, end in gaps:
        length = end - start
        for first, last in itertools.islice(still, bisect.bisect_right(ends, start), None):
            if first >= end:
                break
            length -= min(last, end) - max(first, start)
        lengths.append(length)
    return lengths


def blackout(log: RunLog, callers: Sequence[Caller]) -> tuple[int | None, bool | None, int | None]:
    """(longest common gap that touches the swaps, less stalls; whether that is exact; the longest with stalls).

    None where gaps were not recorded; the first two also where stalls left nothing.
    """
    active = [caller for caller in callers if caller.completed > 1]
    if log.load is None or not active or any(caller.gaps is None for caller in active):
        return None, None, None
    floor = max(caller.gap_floor_ns or 0 for caller in active)
    found = common_gaps([own(caller, log.load.ended_ns) for caller in active])
    starts = [swap.start_ns for swap in log.swaps if swap.start_ns is not None]
    ends = [swap.end_ns for swap in log.swaps if swap.end_ns is not None]
    if starts and ends:
        found = [(start, end) for start, end in found if end >= min(starts) and start <= max(ends)]
    still = union([pair for cpu in log.stats.stalls for pair in cpu.stalls]) if log.stats else []
    raw = max((end - start for start, end in found), default=0)
    longest = max(without(found, still), default=0)
    if raw < floor:
        return floor, False, raw or None
    return (longest, longest == raw, raw) if longest else (None, None, raw or None)


def own(caller: Caller, ended_ns: int) -> list[tuple[int, int]]:
    """A caller's gaps; one that fell silent for good has a last one, to the end of the load."""
    found = [(start, end) for start, end in caller.gaps or () if end > start]
    if caller.last_ns and caller.last_ns < ended_ns:
        found.append((caller.last_ns, ended_ns))
    return found
