# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw counts to figures; what was not measured stays None."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import measure, runlog

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def raw() -> dict[str, Any]:
    return json.loads((DATA / "raw-refcount-mixed.json").read_text())


def bucket(value: int, s: int = 4) -> int:
    """The tools' rule."""
    if value < 1 << s:
        return value
    m = value.bit_length() - 1
    return ((m - s + 1) << s) + ((value >> (m - s)) & ((1 << s) - 1))


@given(st.integers(0, (1 << 41) - 1))
def test_a_value_lies_within_its_bucket(value: int) -> None:
    b = bucket(value)
    assert value <= measure.bucket_top(b, 4)
    assert b == 0 or value > measure.bucket_top(b - 1, 4)
    assert measure.bucket_top(b, 4) <= value * (1 + 1 / 16) + 1


@settings(max_examples=60)
@given(st.lists(st.integers(0, 10_000_000), min_size=1), st.sampled_from([0.5, 0.99, 0.999, 1.0]))
def test_a_quantile_is_that_of_the_sorted_values(values: list[int], q: float) -> None:
    exact = sorted(values)[max(1, -(-len(values) * round(q * 1000) // 1000)) - 1]
    found = measure.quantile(Counter(bucket(value) for value in values), q, 4)
    assert found == measure.bucket_top(bucket(exact), 4)


def test_an_empty_histogram_has_no_quantile() -> None:
    assert measure.quantile({}, 0.5, 4) is None


@st.composite
def gap_lists(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    callers = []
    for _ in range(draw(st.integers(1, 4))):
        edges = sorted(draw(st.sets(st.integers(0, 60), min_size=2, max_size=20)))
        callers.append([(a, b) for a, b in zip(edges, edges[1:], strict=False) if draw(st.booleans())])
    return callers


@settings(max_examples=60)
@given(gap_lists())
def test_common_gaps_are_those_of_brute_force(callers: list[list[tuple[int, int]]]) -> None:
    """An instant between two ticks is common when every caller has a gap over it."""
    common = {t for t in range(60) if all(any(a <= t < b for a, b in gaps) for gaps in callers)}
    found = measure.common_gaps(callers)
    assert {t for a, b in found for t in range(a, b)} == common
    # no caller completed a call inside: its gap ends are never strictly within a common gap
    assert not any(a < end < b for a, b in found for gaps in callers for _, end in gaps)


def test_blackout_is_the_longest_common_gap_that_touches_the_swaps(raw: dict[str, Any]) -> None:
    samples = measure.samples(raw)
    # 8500000..8990000 is longer, but the swaps were over; 3004000..3009000 is what all three share
    assert samples.blackout_ns == 5000
    assert samples.blackout_exact is True


def test_time_in_which_a_cpu_stood_still_is_no_blackout(raw: dict[str, Any]) -> None:
    whole = measure.samples(raw).blackout_ns
    assert whole is not None and measure.samples(raw).blackout_raw_ns == whole
    (start, end) = next(
        gap for gap in measure.common_gaps([c.gaps or [] for c in measure.callers(measure.samples(raw).log)])
        if gap[1] - gap[0] == whole
    )  # fmt: skip
    raw["stats"]["stalls"] = [
        {"cpu": 0, "floor_ns": 1, "stalls": [[start - 50, start + 100]]},
        {"cpu": 1, "floor_ns": 1, "stalls": [[start + 50, start + 200], [end + 1, end + 9]]},
    ]
    less = measure.samples(raw)
    # the mechanism may have had a part in what was taken off: a lower bound, with the gap as seen beside it
    assert (less.blackout_ns, less.blackout_exact, less.blackout_raw_ns) == (whole - 200, False, whole)


def stand_still(raw: dict[str, Any], *intervals: tuple[int, int]) -> None:
    raw["stats"]["stalls"] = [{"cpu": 0, "floor_ns": 1, "stalls": [list(pair) for pair in intervals]}]


def test_a_gap_cut_below_the_floor_is_no_upper_bound(raw: dict[str, Any]) -> None:
    raw["load"]["threads"][0]["gap_floor_ns"] = 4500
    stand_still(raw, (3_004_000, 3_006_000))  # of 3004000..3009000
    samples = measure.samples(raw)
    assert (samples.blackout_ns, samples.blackout_exact, samples.blackout_raw_ns) == (3000, False, 5000)


def test_a_shorter_gap_is_a_lower_bound_where_a_longer_one_was_cut(raw: dict[str, Any]) -> None:
    stand_still(raw, (3_004_000, 3_008_500))
    samples = measure.samples(raw)  # 2000000..2002500 is left whole, 3004000..3009000 is not
    assert (samples.blackout_ns, samples.blackout_exact, samples.blackout_raw_ns) == (2500, False, 5000)


def test_where_every_cpu_stood_still_all_the_time_the_blackout_was_not_measured(raw: dict[str, Any]) -> None:
    stand_still(raw, (1_000_000, 9_000_000))
    samples = measure.samples(raw)
    assert (samples.blackout_ns, samples.blackout_exact, samples.blackout_raw_ns) == (None, None, 5000)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))),
)
def test_time_without_stalls_is_that_of_brute_force(gaps: list[tuple[int, int]], stalls: list[tuple[int, int]]) -> None:
    ticks = {tick for start, end in stalls for tick in range(start, end)}
    wanted = [sum(tick not in ticks for tick in range(start, end)) for start, end in gaps]
    assert measure.without(gaps, measure.union(stalls)) == wanted


def test_a_blackout_below_the_recorders_floor_is_an_upper_bound(raw: dict[str, Any]) -> None:
    raw["load"]["threads"][0]["gap_floor_ns"] = 8000
    samples = measure.samples(raw)
    assert (samples.blackout_ns, samples.blackout_exact, samples.blackout_raw_ns) == (8000, False, 5000)


def test_without_gaps_there_is_no_blackout_figure(raw: dict[str, Any]) -> None:
    del raw["load"]["threads"][0]["gaps"]
    samples = measure.samples(raw)
    assert samples.blackout_ns is samples.blackout_exact is samples.blackout_raw_ns is None


def test_totals(raw: dict[str, Any]) -> None:
    samples = measure.samples(raw)
    assert samples.calls == measure.Calls(110, 110, 0, aborted=0, retried=None, recovered=None, wrong=0, stale=0)
    assert samples.swaps == measure.Swaps(requested=2, done=2, refused=0, failed=0)
    assert samples.irqs is not None and (samples.irqs.raised, samples.irqs.lost) == (10, 0)
    assert samples.editions == {"add": 65, "mul": 45}
    assert samples.leaks == ()
    assert samples.swap_ns["load"] == measure.Spread(p50=500, max=700, n=2)
    assert samples.swap_ns["unload"] == measure.Spread(p50=90, max=90, n=1)


def test_latency_is_the_system_calls_where_there_are_any(raw: dict[str, Any]) -> None:
    during = measure.samples(raw).latency_ns["during"]
    assert during is not None
    assert during.n == 30
    del raw["load"]["threads"][0]
    faults = measure.samples(raw).latency_ns["during"]
    assert faults is not None
    assert (faults.n, faults.max) == (10, 140)


def test_latency_is_the_threads_not_the_interrupts(raw: dict[str, Any]) -> None:
    for thread in raw["load"]["threads"]:
        thread["kind"] = "syscall"
    during = measure.samples(raw).latency_ns["during"]
    assert during is not None
    assert during.n == 40
    assert during.p50 == measure.bucket_top(64, 4)
    assert during.max == 2100
    assert during.p50 <= during.p99 <= during.p999 <= during.max


def test_latency_is_the_interrupts_where_no_thread_calls(raw: dict[str, Any]) -> None:
    raw["load"]["threads"] = []
    latency = measure.samples(raw).latency_ns
    assert latency["during"] is not None and latency["during"].n == 5
    assert latency["after"] is None


def test_nothing_measured_is_none_everywhere() -> None:
    samples = measure.samples({})
    assert samples.log.missing == runlog.PARTS
    assert samples.calls is samples.swaps is samples.irqs is samples.editions is samples.leaks is None
    assert samples.blackout_ns is None
    assert set(samples.swap_ns.values()) == {None}
    assert set(samples.latency_ns.values()) == {None}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("load", {"threads": "x"}),
        ("load", {"started_ns": 0, "ended_ns": 1, "sub_bits": 4, "threads": [{"issued": -1}]}),
        ("load", []),
        ("stats", {"mechanism": "x" * 100_000, "editions": [], "sources": []}),
        ("down", {"leaks": [], "modules_left": [], "drained": []}),
        ("swap_total", {"requested": 1.5, "done": 1, "refused": 0, "failed": 0}),
        ("refusals", [{"case": "older"}]),
    ],
)
def test_nonsense_is_a_fault_and_the_part_counts_as_missing(raw: dict[str, Any], part: str, value: object) -> None:
    raw[part] = value
    log = runlog.read(raw)
    assert part in log.missing
    assert len(log.faults) == 1 and log.faults[0].startswith(part)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from([*runlog.PARTS, "swaps", "errors"]), json_values))
def test_no_report_breaks_it(raw: dict[str, Any]) -> None:
    measure.samples(raw)


def test_a_large_report_is_quick(raw: dict[str, Any]) -> None:
    gaps = [[at * 10, at * 10 + 5] for at in range(4096)]
    thread = {**raw["load"]["threads"][0], "gaps": gaps}
    raw["load"]["threads"] = [thread] * 16
    assert measure.samples(raw).blackout_ns is not None
