# SPDX-License-Identifier: GPL-2.0-or-later
"""The peer livepatch: its transitions, who holds them up, and kernels that have none."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lab import dmesg, oracles
from lab.deadline import Deadline
from lab.guest import Guest, Machine
from lab.verdict import Status
from lab.workload import FOLDER
from lab.workshop import RunOptions
from tests.vm.conftest import KERNELS, Run, Start, Workshops

STEP_S = 120.0
MARK = dmesg.marker("7")
ONLY_X86 = pytest.mark.parametrize("arch", ["x86_64"], indirect=True)


@dataclass
class Bench:
    """A guest with modules and tools."""

    guest: Guest

    def sh(self, command: str) -> str:
        """What the command says on stdout."""
        line = f"cd {FOLDER} && export LAB_SPEED={self.guest.rack.scale:.2f}; {command}"
        return self.guest.run(line, deadline=Deadline.after(STEP_S * self.guest.rack.scale)).stdout.decode()

    def begin(self, *, stay_us: int, core: str = "") -> None:
        """Load the modules, and begin calls of which two sleep that long where nobody can wake them."""
        self.sh(f"./hs-ctl up --mechanism livepatch --load stuck --seed 7 --core '{core}'")
        self.sh(
            f"./hs-load --load stuck --threads 2 --seed 7 --stay doze --stay-us {stay_us} "
            ">load.json 2>&1 </dev/null & sleep 0.1"
        )

    def swap(self, count: int) -> list[dict[str, Any]]:
        """So many swaps, each done."""
        lines = [json.loads(line) for line in self.sh(f"./hs-ctl swap --count {count} --seed 7").splitlines()]
        done = [line for line in lines if "swap" in line and "error" not in line]
        assert len(done) == count, lines
        return done

    def end(self) -> dict[str, Any]:
        """Stop, take everything down, check what holds whatever was done; the mechanism's figures."""
        self.sh("./hs-ctl stop")
        stats = json.loads(self.sh("./hs-ctl stats"))["stats"]
        down = json.loads(self.sh("./hs-ctl down"))["down"]
        log = dmesg.read(self.sh("dmesg"), mark=MARK)
        assert not log.splats, log.splats[0].decisive
        assert down == {"leaks": [], "modules_left": [], "drained": True}
        assert stats["empty"]["failed"] == 0
        figures: dict[str, Any] = stats["livepatch"]
        assert figures["forced"] == figures["left_inside"] == 0
        assert figures["transitions"] == len(stats["editions"])
        return figures


@pytest.fixture
def bench(start: Start, machine: Machine, workshops: Workshops) -> Iterator[Bench]:
    workshop = workshops(replace(RunOptions(), build="host"))
    payload = workshop.payload(workshop.build(machine))
    with start() as guest:
        guest.put_tar(payload, FOLDER, deadline=Deadline.after(STEP_S))
        guest.run(f"echo '{MARK}' >/dev/kmsg", deadline=Deadline.after(STEP_S))
        yield Bench(guest)


@ONLY_X86
def test_who_sleeps_in_the_old_edition_holds_the_transition_up_and_is_named(bench: Bench) -> None:
    bench.begin(stay_us=4_000_000)
    # The first swap ends when the sleepers come back, and they go to sleep in the new edition at once.
    first, second = bench.swap(2)
    refused = json.loads(bench.sh("./hs-ctl refuse"))["refusals"]
    assert {one["case"] for one in refused} == set(oracles.REFUSAL_CASES)
    assert all(one["refused"] and one["same"] and one["got"] == one["expected"] for one in refused), refused
    log = bench.sh("dmesg")
    figures = bench.end()
    assert second["drain_ns"] > 1_000_000_000 and max(first["drain_ns"], second["drain_ns"]) <= figures["longest_ns"]
    assert figures["stalled"] >= 2 and all(name.startswith("hs-load[") for name in figures["stalled_names"])
    assert f"{figures['stalled_names'][0]} holds up the transition" in log


@ONLY_X86
def test_left_to_its_own_timer_livepatch_ends_its_transitions_too(bench: Bench) -> None:
    bench.begin(stay_us=1000, core="livepatch_ask=0")
    swaps = bench.swap(3)
    figures = bench.end()
    assert figures["asked"] == 0
    assert max(swap["drain_ns"] for swap in swaps) > 200_000_000


def test_a_livepatch_cell_passes_where_the_kernel_has_it_and_says_why_elsewhere(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/livepatch/mixed", swaps=8)
    if arch == "aarch64":
        assert result.status is Status.SKIP
        assert "aarch64, has no livepatch: CONFIG_LIVEPATCH is not set" in result.reason
        return
    assert result.status is Status.PASS, result.reason
    assert result.calls and result.calls["failed"] == result.calls["wrong"] == 0
    assert result.swaps and result.swaps["done"] == 8
