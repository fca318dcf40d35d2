# SPDX-License-Identifier: GPL-2.0-or-later
"""Intervals against brute force over every tick."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lab import gaps


def gaps_of(data: bytes) -> list[tuple[int, int]]:
    """A caller's gaps between ticks 0 to 60: each byte is a tick, and whether a gap begins there."""
    edges = sorted({byte % 61: byte > 127 for byte in data}.items())
    return [(a, b) for (a, opens), (b, _) in zip(edges, edges[1:], strict=False) if opens]


def intervals_of(data: bytes) -> list[tuple[int, int]]:
    """Any intervals between ticks 0 and 60, empty and overlapping ones too: two bytes each."""
    return [(min(a % 61, b % 61), max(a % 61, b % 61)) for a, b in zip(data[::2], data[1::2], strict=False)]


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=24).map(gaps_of), min_size=1, max_size=4))
def test_common_gaps_are_those_of_brute_force(callers: list[list[tuple[int, int]]]) -> None:
    """An instant between two ticks is common when every caller has a gap over it."""
    common = {t for t in range(60) if all(any(a <= t < b for a, b in own) for own in callers)}
    found = gaps.common_gaps(callers)
    assert {t for a, b in found for t in range(a, b)} == common
    # no caller completed a call inside: its gap ends are never strictly within a common gap
    assert not any(a < end < b for a, b in found for own in callers for _, end in own)


@given(st.binary(max_size=16).map(intervals_of), st.binary(max_size=16).map(intervals_of))
def test_time_without_stalls_is_that_of_brute_force(some: list[tuple[int, int]], stalls: list[tuple[int, int]]) -> None:
    ticks = {tick for start, end in stalls for tick in range(start, end)}
    wanted = [sum(tick not in ticks for tick in range(start, end)) for start, end in some]
    assert gaps.without(some, gaps.union(stalls)) == wanted
