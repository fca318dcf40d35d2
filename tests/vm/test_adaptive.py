# SPDX-License-Identifier: GPL-2.0-or-later
"""Mechanism adaptive, with the guest's tools by hand: policies, going back, safe removal, endless threads, the kernel.

A cell swaps and cycles through the policies; here the editions stand still, so that callers can tell who answered.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.ownlog import Adaptation
from lab.promises import adaptive
from tests.vm.bench import Bench
from tests.vm.conftest import KERNELS, Benches, Run

EDITIONS = ("hs_ed_mix", "hs_ed_fnv", "hs_ed_crc", "hs_ed_lfsr")
FIGURES = "/sys/module/hs_demo/parameters/figures"


class Handler(Bench):
    """With editions that stand still."""

    def ctl(self, command: str) -> dict[str, Any]:
        """What hs-ctl says of one thing."""
        told: dict[str, Any] = json.loads(self.sh(f"./hs-ctl {command}"))
        return next(iter(told.values())) if len(told) == 1 else told

    def up(self, core: str = "") -> list[str]:
        """Load the modules; names of the editions that are not loaded yet."""
        first = self.ctl(f"up --mechanism adaptive --load stuck --seed 7 --core '{core}'")["edition"]
        return [one for one in EDITIONS if one != first]

    def join(self, module: str, version: int, *, more: str = "", slot: str = "calc") -> None:
        """One more edition beside the others, by a whole swap."""
        done = self.ctl(f"insert {module} --parameters 'slot={slot} version={version} {more}'")
        assert done["error"] is None, done
        done = self.ctl(f"settle --slot {slot}")
        assert (done["error"], done["version"]) == (None, version), done

    def call(self, seconds: float, *, load: str = "syscall", threads: int = 3) -> list[dict[str, Any]]:
        """So long calls from threads; what each saw."""
        self.call_on(load, threads=threads)
        self.sh(f"sleep {seconds}")
        return self.called()

    def call_on(self, load: str, *, threads: int = 3) -> None:
        """Begin calls, and wait until they are answered."""
        self.sh(
            "rm -f load.json; "
            f"./hs-load --load {load} --threads {threads} --seed 7 >load.json 2>&1 </dev/null & "
            "until grep -q 'progress.:[1-9]' load.json; do sleep 0.1; done; sleep 0.5"
        )

    def called(self) -> list[dict[str, Any]]:
        """Stop the callers; none of them saw an error or a wrong result."""
        self.ctl("stop")
        threads: list[dict[str, Any]] = self.load()["threads"]
        assert all(one["failed"] == one["wrong"] == one["torn"] == 0 for one in threads)
        return threads

    def figures(self) -> Adaptation:
        """The handler's own, which must agree with its policy whatever was done."""
        told = Adaptation.model_validate(self.ctl("stats")["adaptive"])
        assert not adaptive._policies(told), adaptive._policies(told)
        assert told.stack_found == 0
        return told

    def pipe(self) -> dict[str, Any]:
        """What the endless threads have done."""
        found: dict[str, Any] = json.loads(self.sh(f"cat {FIGURES}"))
        assert found["mismatched"] == 0, found
        return found

    def pipe_goes_on(self, count: str = "consumed") -> dict[str, Any]:
        """Both threads are at work: so many more items pass than fit between them."""
        begin = self.pipe()
        self.sh(
            f"at() {{ sed 's/.*\"{count}\":\\([0-9]*\\).*/\\1/' {FIGURES}; }}; i=0; "
            f"until [ $(at) -gt {begin[count] + 100} ] || [ $i -gt 100 ]; do sleep 0.1; i=$((i+1)); done"
        )
        after = self.pipe()
        assert after[count] > begin[count] + 100, (begin, after)
        return after


@pytest.fixture
def bench(benches: Benches) -> Iterator[Handler]:
    with benches("adaptive", kind=Handler) as bench:
        yield bench


def test_adaptive_policies_are_obeyed_to_the_call(bench: Handler) -> None:
    for policy in adaptive.POLICIES:
        others = bench.up(f"adapt={policy} adapt_percent=30")
        bench.join(others[0], 2)
        bench.join(others[1], 3, more="slow_us=30" if policy == "latency" else "")
        threads = bench.call(1.5)
        told = bench.figures()
        assert told.at_once == 3
        assert not any(n for one in told.editions for name, n in one.decided.items() if name != policy)
        seen = [dict(one["editions"]) for one in threads]
        calls = sum(sum(one.values()) for one in seen)
        newest = sum(one.get(3, 0) for one in seen)
        assert calls > 300
        if policy == "all-new":
            assert newest == calls
        elif policy == "percent":  # exact over each hundred decisions on a CPU; of those, a round's is two calls
            assert sum(told.percent) > 300 and 0.25 < newest / calls < 0.35
        elif policy == "task":
            assert all(len(one) == 1 for one in seen) and len({*seen[0], *seen[1], *seen[2]}) > 1
        elif policy == "cpu":
            assert {version for one in seen for version in one} == {2, 3}, (
                "the newest on CPU 0, the one before on CPU 1"
            )
        else:
            assert newest / calls < 0.2, "the slow edition is left, and only measured"
            assert 1 <= sum(told.switches) <= 6, told.switches
        bench.down()


def test_adaptive_editions_can_be_taken_back(bench: Handler) -> None:
    others = bench.up("adapt=all-new")
    bench.join(others[0], 2)
    bench.join(others[1], 3)
    assert {version for one in bench.call(0.3) for version, _ in one["editions"]} == {3}
    bench.call_on("mixed")
    back = bench.ctl("reverse")
    assert (back["error"], back["module"], back["version"], back["live"]) == (None, others[1], 2, 2)
    bench.sh("sleep 0.5")
    seen = [[version for version, _ in one["editions"]] for one in bench.called()]
    assert all(one == [3, 2] for one in seen), seen
    assert (bench.ctl("reverse")["version"], bench.ctl("reverse")["error"]) == (1, "ENODEV")
    assert bench.ctl(f"insert {others[1]} --parameters version=3")["error"] == "ENOTUNIQ", "versions are not used twice"
    bench.join(others[1], 4)
    assert {version for one in bench.call(0.3) for version, _ in one["editions"]} == {4}
    bench.down()


def test_adaptive_removal_waits_for_who_sleeps_inside(bench: Handler) -> None:
    others = bench.up("adapt=all-new")
    first = next(one for one in EDITIONS if one not in others)
    # All in one, or the sleepers are up before: beside such a load each command of a shell waits for its turn.
    stay = "./hs-load --load stuck --threads 1 --seed 7 --stay doze --stay-us 10000000 >load.json 2>&1 </dev/null"
    steps = f"insert {others[0]} --parameters version=2", "settle", "retire --deadline-ms 200"
    told = bench.sh(f"{stay} & sleep 1; " + "; ".join(f"./hs-ctl {step}" for step in steps))
    early = json.loads(told.splitlines()[-1])["retire"]
    assert early["error"] == "ETIMEDOUT" and early["live"] == 1, early
    assert bench.ctl(f"remove {first}")["error"] == "EAGAIN"
    assert bench.ctl(f"insert {others[1]} --parameters version=3")["error"] == "EBUSY", "its swap is not over"
    late = bench.ctl("retire")
    assert (late["error"], late["module"]) == (None, first), late
    assert first not in bench.sh("cat /proc/modules")
    bench.called()
    bench.figures()
    bench.down()


def test_adaptive_threads_that_never_end_run_on_in_new_code(bench: Handler) -> None:
    others = bench.up("adapt=percent adapt_percent=50")
    assert bench.ctl("insert hs_pipe")["error"] is None
    assert bench.ctl("insert hs_demo --parameters of=pipe")["error"] is None
    bench.sh(f"until grep -q produced {FIGURES}; do sleep 0.1; done")
    bench.pipe_goes_on()
    # A group of two functions, switched while both run: an item is made and opened by one edition, or by the original.
    bench.join(others[0], 1, slot="pipe")
    bench.pipe_goes_on("swapped")
    bench.join(others[1], 2, slot="pipe")
    bench.pipe_goes_on("swapped")
    back = bench.ctl("reverse --slot pipe")
    assert (back["error"], back["version"]) == (None, 1)
    bench.pipe_goes_on("swapped")
    # The loop itself: its module is held while a thread is in it.
    assert bench.ctl("remove hs_pipe")["error"] == "EAGAIN"
    bench.sh("echo 1 >/sys/module/hs_demo/parameters/move")
    moved = bench.pipe_goes_on("swapped")
    assert moved["moved"] and moved["inside"] == 2
    assert bench.ctl("remove hs_pipe")["error"] is None
    assert "hs_pipe" not in bench.sh("cat /proc/modules")
    bench.pipe_goes_on("swapped")
    bench.join(others[1], 3, slot="pipe")
    bench.pipe_goes_on("swapped")
    for _ in range(2):
        assert bench.ctl("retire --slot pipe")["error"] is None
    bench.pipe_goes_on()
    threads = "cat /proc/[0-9]*/comm | grep -c -E '^hs_(producer|consumer)$' || true"
    assert int(bench.sh(threads)) == 2
    assert bench.ctl("remove hs_demo")["error"] is None
    assert int(bench.sh(threads)) == 0
    bench.figures()
    bench.down()


def test_adaptive_swaps_a_function_of_the_kernel(bench: Handler) -> None:
    bench.up("adapt=percent adapt_percent=50")
    plain = bench.sh("cat /proc/cmdline")
    assert bench.ctl("insert hs_demo --parameters of=cmdline")["error"] is None
    lines = bench.sh("i=0; while [ $i -lt 100 ]; do cat /proc/cmdline; i=$((i+1)); done").splitlines(keepends=True)
    assert len(lines) == 100
    assert {line.replace(plain, "") for line in lines} == {"hotswap.edition=1 ", "hotswap.edition=2 "}
    decided = {one.version: sum(one.decided.values()) for one in bench.figures().editions if one.slot == "cmdline"}
    assert sum(decided.values()) == 100
    assert {v: sum(f"edition={v} " in line for line in lines) for v in (1, 2)} == decided
    assert abs(decided[2] - decided[1]) <= 2, "of each hundred on a CPU fifty, on two CPUs"
    assert bench.ctl("remove hs_demo")["error"] == "EAGAIN"
    assert bench.ctl("retire --slot cmdline")["version"] == 2
    assert bench.sh("cat /proc/cmdline") == "hotswap.edition=2 " + plain
    assert bench.ctl("retire --slot cmdline")["error"] is None
    assert "hs_demo" not in bench.sh("cat /proc/modules")
    assert bench.sh("cat /proc/cmdline") == plain
    bench.down()


def test_adaptive_cells_share_calls_among_editions_side_by_side(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/adaptive/mixed", swaps=12)
    assert result.status == "PASS", result.reason
    calls = result.calls or {}
    assert calls["stale"] and calls["failed"] == calls["wrong"] == 0
