# SPDX-License-Identifier: GPL-2.0-or-later
"""Mechanism invalidate in hostile surroundings, with the guest's tools by hand.

What makes calls stay in the old edition is chosen (hs-load --stay); an ordinary cell has `stuck` and `mixed` only.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lab import dmesg
from lab.deadline import Deadline
from lab.guest import Guest, Machine
from lab.workload import FOLDER
from lab.workshop import RunOptions
from tests.vm.conftest import KERNELS, Run, Start, Workshops

STEP_S = 120.0
MARK = dmesg.marker("7")


@dataclass
class Bench:
    """A guest with modules and tools, at work under invalidate."""

    guest: Guest

    def sh(self, command: str, *, check: bool = True) -> str:
        """What the command says on stdout."""
        line = f"cd {FOLDER} && export LAB_SPEED={self.guest.rack.scale:.2f}; {command}"
        done = self.guest.run(line, deadline=Deadline.after(STEP_S * self.guest.rack.scale), check=check)
        return done.stdout.decode()

    def begin(self, stay: str, stay_us: int, *, core: str = "", edition: str = "") -> None:
        """Load the modules, and begin calls of which two stay in the edition that long."""
        more = f" --core '{core}'" if core else ""
        more += f" --edition '{edition}'" if edition else ""
        self.sh(f"./hs-ctl up --mechanism invalidate --load stuck --seed 7{more}")
        self.sh(
            "./hs-load --load stuck --threads 2 --seed 7 "
            f"--stay {stay} --stay-us {stay_us} >load.json 2>&1 </dev/null & sleep 0.1"
        )

    def swap(self, count: int, *, edition: str = "") -> list[dict[str, Any]]:
        """So many swaps, each done."""
        more = f" --edition '{edition}'" if edition else ""
        lines = [json.loads(line) for line in self.sh(f"./hs-ctl swap --count {count} --seed 7{more}").splitlines()]
        done = [line for line in lines if "swap" in line]
        assert not [line for line in lines if "error" in line], lines
        assert len(done) == count, lines
        return done

    def end(self, *, backtraces: bool = False) -> "Figures":
        """Stop the load, take everything down, and check what holds whatever was done."""
        self.sh("./hs-ctl stop")
        stats = json.loads(self.sh("./hs-ctl stats"))["stats"]
        load = next(
            one["load"] for line in self.sh("cat load.json").splitlines() if "load" in (one := json.loads(line))
        )
        down = json.loads(self.sh("./hs-ctl down"))["down"]
        log = dmesg.read(self.sh("dmesg"), mark=MARK)
        figures = Figures(stats, load)
        splats = [one for one in log.splats if not (backtraces and one.kind is dmesg.Kind.DUMP)]
        assert not splats, splats[0].decisive
        assert down == {"leaks": [], "modules_left": [], "drained": True}
        assert all(one["wrong"] == 0 and one["failed"] == 0 for one in figures.callers)
        proof = figures.proof
        assert proof["probes"] == proof["contained"] > 0 and proof["escaped"] == 0
        assert proof["misrestored"] == 0
        assert figures.aborted == figures.again
        return figures


@dataclass
class Figures:
    """What the kernel and the callers counted."""

    stats: dict[str, Any]
    load: dict[str, Any]

    @property
    def proof(self) -> dict[str, Any]:
        """The mechanism's own figures."""
        found: dict[str, Any] = self.stats["invalidate"]
        return found

    @property
    def callers(self) -> list[dict[str, Any]]:
        """Threads and interrupt sources; the last two threads are those that stay."""
        return [source for source in self.stats["sources"] if "raised" in source] + list(self.load["threads"])

    @property
    def aborted(self) -> int:
        """Calls cut off, by the kernel's count."""
        return sum(edition["aborted"] for edition in self.stats["editions"])

    @property
    def again(self) -> int:
        """Calls made again, by the callers' count."""
        return int(self.stats["nested"]["again"]) + sum(one["retried"] + one["recovered"] for one in self.callers)


@pytest.fixture
def bench(start: Start, machine: Machine, workshops: Workshops) -> Iterator[Bench]:
    workshop = workshops(replace(RunOptions(), build="host"))
    payload = workshop.payload(workshop.build(machine))
    with start() as guest:
        guest.put_tar(payload, FOLDER, deadline=Deadline.after(STEP_S))
        guest.run(f"echo '{MARK}' >/dev/kmsg", deadline=Deadline.after(STEP_S))
        yield Bench(guest)


@pytest.mark.parametrize("by", ["nx", "unmap"])
def test_nothing_runs_in_old_text_from_a_task_or_a_hard_interrupt(bench: Bench, by: str) -> None:
    bench.begin("spin", 200_000, core="invalidate_unmap=1" if by == "unmap" else "")
    bench.swap(6)
    refused = [one for one in json.loads(bench.sh("./hs-ctl refuse"))["refusals"]]
    assert {one["case"] for one in refused} >= {"older", "duplicate", "dissimilar", "second-swapper"}
    assert all(one["refused"] and one["same"] and one["got"] == one["expected"] for one in refused), refused
    figures = bench.end()
    assert figures.proof["by"] == by
    # Each swap, and those of `refuse`: four times from the swapper's task, once from a hard interrupt on both CPUs.
    assert figures.proof["probes"] % 6 == 0 and figures.proof["probes"] >= 6 * 6
    assert figures.proof["faults"] > 0


@pytest.mark.parametrize("stay", ["sleep", "irqoff", "atomic", "nest"])
def test_a_swap_does_not_wait_for_who_stays(bench: Bench, stay: str) -> None:
    stay_us = 200_000
    bench.begin(stay, stay_us)
    swaps = bench.swap(6)
    figures = bench.end()
    stuck = figures.load["threads"][-2:]
    assert all(one["completed"] for one in stuck)
    again = sum(one["retried"] + one["recovered"] for one in stuck)
    assert again + figures.stats["nested"]["again"] > 0
    # In guest time, and beside what the callers did in it: the old edition was gone before they would have left it.
    drains = sorted(swap["drain_ns"] for swap in swaps)
    assert drains[len(drains) // 2] < stay_us * 1000 / 2


def test_a_sleeper_that_nobody_can_wake_is_named_and_cut_off_when_it_comes_back(bench: Bench) -> None:
    bench.begin("doze", 500_000)
    swaps = bench.swap(3)
    assert "it is cut off when it does" in bench.sh("dmesg")
    figures = bench.end()
    assert figures.proof["sleepers"] > 0
    assert max(swap["retire_ns"] for swap in swaps) > max(swap["drain_ns"] for swap in swaps)


def test_an_edition_that_declares_nothing_is_waited_for(bench: Bench) -> None:
    drain = "restart=0"
    bench.begin("spin", 200_000, edition=drain)
    bench.swap(3, edition=drain)
    figures = bench.end()
    assert figures.aborted == figures.proof["faults"] == 0


def test_cpus_come_and_go_during_swaps(bench: Bench) -> None:
    bench.begin("spin", 200_000)
    bench.sh(
        "(while [ ! -e enough ]; do for on in 0 1; do echo $on; done; done | "
        "while read on; do echo $on >/sys/devices/system/cpu/cpu1/online; echo $on >>seen; done) >/dev/null 2>&1 &"
    )
    bench.swap(6)
    bench.sh("touch enough; sleep 1; echo 1 >/sys/devices/system/cpu/cpu1/online || true")
    assert "0" in bench.sh("cat seen")
    bench.end()


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
    figures = bench.end(backtraces=True)
    assert figures.proof["faults"] > 0
    hits = bench.sh(f"grep lab_hit {folder}/kprobe_profile").split()
    assert int(hits[1]) > 0, hits


def test_cells_pass_and_every_call_that_was_cut_off_was_made_again(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/invalidate/stuck", swaps=8)
    assert result.status == "PASS", result.reason
    calls = result.calls or {}
    assert calls["aborted"] == calls["retried"] > 0
    assert calls["recovered"], "an edition that leaves recovery to its caller was cut off too"
    assert calls["failed"] == calls["wrong"] == 0
