# SPDX-License-Identifier: GPL-2.0-or-later
"""Mechanism invalidate in hostile surroundings, with the guest's tools by hand.

What makes calls stay in the old edition is chosen (hs-load --stay); an ordinary cell has `stuck` and `mixed` only.
"""

import itertools
import json
import statistics
from collections.abc import Iterator

import pytest

from tests.vm.bench import Bench, Figures
from tests.vm.conftest import KERNELS, Benches, Run


@pytest.fixture
def bench(benches: Benches) -> Iterator[Bench]:
    with benches("invalidate") as bench:
        yield bench


def end(bench: Bench, *, backtraces: bool = False) -> Figures:
    """Stop the load and take everything down: nothing ran in old text, and callers got their context back."""
    figures = bench.end(backtraces=backtraces)
    proof = figures.stats["invalidate"]
    assert proof["probes"] == proof["contained"] > 0 and proof["escaped"] == 0
    assert proof["misrestored"] == 0
    return figures


@pytest.mark.parametrize("by", ["nx", "unmap"])
def test_nothing_runs_in_old_text_from_a_task_or_a_hard_interrupt(bench: Bench, by: str) -> None:
    bench.begin("spin", 200_000, core="invalidate_unmap=1" if by == "unmap" else "")
    bench.swap(6)
    bench.refusals()
    figures = end(bench)
    assert figures.stats["invalidate"]["by"] == by
    # Each swap, and those of `refuse`: four times from the swapper's task, once from a hard interrupt on both CPUs.
    assert figures.stats["invalidate"]["probes"] % 6 == 0 and figures.stats["invalidate"]["probes"] >= 6 * 6
    assert figures.stats["invalidate"]["faults"] > 0


@pytest.mark.parametrize("stay", ["sleep", "atomic", "nest"])
def test_a_swap_does_not_wait_for_who_stays(bench: Bench, stay: str) -> None:
    stay_us = 200_000
    bench.begin(stay, stay_us)
    # Who is waited for shows in most swaps of every batch; a busy machine may spoil one, and the next one counts.
    for _ in range(4):
        drain_ns = statistics.median(swap["drain_ns"] for swap in bench.swap(6))
        if drain_ns < stay_us * 1000 / 4:
            break
    figures = end(bench)
    assert drain_ns < stay_us * 1000 / 4
    stuck = figures.load["threads"][-2:]
    assert all(one["completed"] for one in stuck)
    assert sum(one["retried"] + one["recovered"] for one in stuck) + figures.stats["nested"]["again"] > 0


def test_a_caller_with_interrupts_off_is_cut_off(bench: Bench) -> None:
    # Published by hand: x86_64's module loader interrupts every CPU, and so waits for such a caller by itself.
    stay_us, swaps, batches = 300_000, 8, 0
    bench.begin("irqoff", stay_us)
    version, drains = itertools.count(2), [stay_us * 1000]
    while batches < 3 and drains[-1] > stay_us * 1000 / 4:  # a busy machine may spoil a swap
        drains = sorted(bench.publish(next(version))["drain_ns"] for _ in range(swaps))
        batches += 1
    caller = end(bench).load["threads"][-1]  # the one before it sleeps
    # Inside at two swaps of three, on the other CPU; were it waited for, each of these took half a stay on average.
    assert caller["retried"] + caller["recovered"] >= batches * 3, drains
    assert drains[-1] < stay_us * 1000 / 4, drains


def test_a_sleeper_that_nobody_can_wake_is_named_and_cut_off_when_it_comes_back(bench: Bench) -> None:
    bench.begin("doze", 500_000)
    swaps = bench.swap(3)
    assert "it is cut off when it does" in bench.sh("dmesg")
    figures = end(bench)
    assert figures.stats["invalidate"]["sleepers"] > 0
    assert max(swap["retire_ns"] for swap in swaps) > max(swap["drain_ns"] for swap in swaps)


def test_an_edition_that_declares_nothing_is_waited_for(bench: Bench) -> None:
    drain = "restart=0"
    bench.begin("spin", 200_000, edition=drain)
    bench.swap(3, edition=drain)
    figures = end(bench)
    assert figures.aborted == figures.stats["invalidate"]["faults"] == 0


def test_cpus_come_and_go_during_swaps(bench: Bench) -> None:
    bench.begin("spin", 200_000)
    bench.sh(
        "(while [ ! -e enough ]; do for on in 0 1; do echo $on; done; done | "
        "while read on; do echo $on >/sys/devices/system/cpu/cpu1/online; echo $on >>seen; done) >/dev/null 2>&1 &"
    )
    bench.swap(6)
    bench.sh("touch enough; sleep 1; echo 1 >/sys/devices/system/cpu/cpu1/online || true")
    assert "0" in bench.sh("cat seen")
    end(bench)


# A function that a CPU passes while a call is cut off there. Patching one that every CPU runs all the time is not safe
# under multi-threaded TCG on x86: the kernel has crashed so without any of our modules' doing.
PROBED = {"x86_64": "fixup_exception", "aarch64": "ktime_get"}


def test_beside_kprobes_and_nmis(bench: Bench, arch: str) -> None:
    folder = "/sys/kernel/tracing"
    bench.sh(f"test -w {folder}/kprobe_events || mount -t tracefs none {folder}")
    bench.sh(f"echo 'p:lab_hit {PROBED[arch]}' >>{folder}/kprobe_events")
    bench.sh(f"echo 1 >{folder}/events/kprobes/lab_hit/enable")
    bench.begin("spin", 100_000)
    live = json.loads(bench.sh("cat /sys/kernel/debug/hotswap/state"))["editions"][0]
    entry = f"r:lab_ret {live['module']}:{live['name']}_call"
    told = bench.sh(f"echo '{entry}' >>{folder}/kprobe_events && echo let in || echo refused")
    assert told.strip() == "refused", "a kretprobe on an edition would be jumped over when a call is cut off"
    if arch == "x86_64":  # TCG has no performance counters; a backtrace of every CPU is an NMI to each as well
        bench.sh("(for i in 1 2 3 4 5 6 7 8; do echo l >/proc/sysrq-trigger; sleep 0.1; done) >/dev/null 2>&1 &")
    bench.swap(8)
    figures = end(bench, backtraces=True)
    assert figures.stats["invalidate"]["faults"] > 0
    hits = bench.sh(f"grep lab_hit {folder}/kprobe_profile").split()
    assert int(hits[1]) > 0, hits


def test_cells_pass_and_every_call_that_was_cut_off_was_made_again(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/invalidate/stuck", swaps=8)
    assert result.status == "PASS", result.reason
    calls = result.calls or {}
    assert calls["aborted"] == calls["retried"] > 0
    assert calls["recovered"], "an edition that leaves recovery to its caller was cut off too"
    assert calls["failed"] == calls["wrong"] == 0
