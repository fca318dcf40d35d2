# SPDX-License-Identifier: GPL-2.0-or-later
"""The peer livepatch: its transitions, who holds them up, and kernels that have none."""

from collections.abc import Iterator
from typing import Any

import pytest

from lab.verdict import Status
from tests.vm.bench import Bench
from tests.vm.conftest import KERNELS, Benches, Run

ONLY_X86 = pytest.mark.parametrize("arch", ["x86_64"], indirect=True)


@pytest.fixture
def bench(benches: Benches) -> Iterator[Bench]:
    with benches("livepatch") as bench:
        yield bench


def end(bench: Bench) -> dict[str, Any]:
    """Stop, take everything down, check what holds whatever was done; the mechanism's figures."""
    stats = bench.end().stats
    assert stats["empty"]["failed"] == 0
    figures: dict[str, Any] = stats["livepatch"]
    assert figures["forced"] == figures["left_inside"] == 0
    assert figures["transitions"] == len(stats["editions"])
    return figures


@ONLY_X86
def test_who_sleeps_in_the_old_edition_holds_the_transition_up_and_is_named(bench: Bench) -> None:
    bench.begin("doze", 4_000_000)
    # The first swap ends when the sleepers come back, and they go to sleep in the new edition at once.
    first, second = bench.swap(2)
    bench.refusals()
    log = bench.sh("dmesg")
    figures = end(bench)
    assert max(first["drain_ns"], second["drain_ns"]) >= figures["longest_ns"] > 1_000_000_000
    assert figures["stalled"] >= 2 and all(name.startswith("hs-load[") for name in figures["stalled_names"])
    assert f"{figures['stalled_names'][0]} holds up the transition" in log


@ONLY_X86
def test_left_to_its_own_timer_livepatch_ends_its_transitions_too(bench: Bench) -> None:
    bench.begin("doze", 1000, core="livepatch_ask=0")
    swaps = bench.swap(3)
    figures = end(bench)
    assert figures["asked"] == 0
    assert max(swap["drain_ns"] for swap in swaps) > 200_000_000


@ONLY_X86
@pytest.mark.parametrize("preempt", ["full", "voluntary"])
def test_an_edition_is_kept_for_tasks_that_livepatch_does_not_see(bench: Bench, preempt: str) -> None:
    switch, other = "/sys/kernel/debug/sched/preempt", "/sys/devices/system/cpu/cpu1/online"
    bench.sh(f"test -e {switch} || mount -t debugfs none /sys/kernel/debug")
    # It patches code that every CPU runs, which is not safe under multi-threaded TCG: so there is only one meanwhile.
    bench.sh(f"echo 0 >{other}; echo {preempt} >{switch}; echo 1 >{other}")
    bench.begin(load="mixed")
    swaps = bench.swap(4)
    figures = end(bench)
    kept_ns = sum(swap["retire_ns"] for swap in swaps)
    if preempt == "full":
        assert figures["kept_for_late"] == 4
        assert kept_ns > 80_000_000, "two grace periods of tasks each; else letting an edition go takes less than 1 ms"
    else:
        assert figures["kept_for_late"] == figures["late"] == 0


def test_a_livepatch_cell_passes_where_the_kernel_has_it_and_says_why_elsewhere(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/livepatch/mixed", swaps=8)
    if arch == "aarch64":
        assert result.status is Status.SKIP
        assert "aarch64, has no livepatch: CONFIG_LIVEPATCH is not set" in result.reason
        return
    assert result.status is Status.PASS, result.reason
    assert result.calls and result.calls["failed"] == result.calls["wrong"] == 0
    assert result.swaps and result.swaps["done"] == 8
