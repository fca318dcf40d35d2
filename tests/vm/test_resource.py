# SPDX-License-Identifier: GPL-2.0-or-later
"""Resources behind a slot, and loads `policy` and `exception`: whole cells, and the guest's tools by hand."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.verdict import Status
from tests.vm.bench import Bench
from tests.vm.conftest import KERNELS, Benches, Run

HOOKED = "security_file_open"


def sources(tmp_path: Path, cell: str) -> dict[str, dict[str, Any]]:
    """The kernel's account of each source of calls, by name."""
    told = json.loads((tmp_path / "results" / "latest" / "cells" / cell / "samples.json").read_text())
    return {source["name"]: source for source in told["stats"]["sources"]}


def test_policy_has_a_hole_under_reload_and_it_is_a_figure(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/reload/policy", swaps=10)
    assert result.status is Status.PASS, result.reason
    assert result.policy and result.calls
    assert result.policy["forbidden_opened"] > 0 and result.calls["failed"], "nobody mediates in the gap"
    assert result.policy["slipped"] == result.policy["allowed_refused"] == 0
    assert f"{result.policy['forbidden_opened']:,} forbidden files opened" in result.reason


@pytest.mark.parametrize("mechanism", ["refcount", "invalidate"])
def test_policy_is_obeyed_to_the_open_where_no_call_fails(run: Run, arch: str, mechanism: str, tmp_path: Path) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/{mechanism}/policy", swaps=20)
    assert result.status is Status.PASS, result.reason
    opened = result.policy
    assert opened and opened["opens"] > 1000
    assert opened["forbidden_opened"] == opened["allowed_refused"] == 0
    # Editions of both kinds of list were asked, and refused about half.
    assert opened["opens"] // 3 < opened["refused"] < opened["opens"]
    kernel = sources(tmp_path, result.id)["policy"]
    assert (kernel["issued"], kernel["denied"]) == (opened["opens"], opened["refused"])


@pytest.mark.parametrize("mechanism", ["reload", "refcount", "invalidate"])
def test_exception_each_touch_is_one_fault_and_one_call(run: Run, arch: str, mechanism: str, tmp_path: Path) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/{mechanism}/exception", swaps=10)
    assert result.status is Status.PASS, result.reason
    kernel, calls = sources(tmp_path, result.id), result.calls or {}
    assert set(kernel) == {"exception"}
    touched = {key: calls[key] for key in ("issued", "completed", "failed")}
    assert {key: kernel["exception"][key] for key in touched} == touched
    assert touched["issued"] and touched["issued"] > 1000
    assert bool(touched["failed"]) == (mechanism == "reload"), "the gap is in the pages, and the faults succeed"


def test_exception_joins_mixed(run: Run, arch: str, tmp_path: Path) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/refcount/mixed", swaps=6)
    assert result.status is Status.PASS, result.reason
    found = sources(tmp_path, result.id)
    assert {"syscall", "exception", "edu", "hrtimer"} <= {name.rstrip("0123456789") for name in found}
    assert all(source["completed"] for source in found.values())


class Tools(Bench):
    """With load `policy`."""

    def begin_opens(self) -> None:
        """Load `policy` and its opens, and wait until the folder is watched."""
        self.sh(f"./hs-ctl up --mechanism {self.mechanism} --load policy --seed 7")
        self.sh("./hs-load --load policy --threads 2 >load.log 2>&1 </dev/null &")
        last = "policy/forbidden-7"
        self.sh(f"for i in $(seq 600); do [ -e {last} ] && ! cat {last} 2>/dev/null && exit 0; sleep 0.1; done; exit 1")

    def can_read(self, name: str) -> bool:
        """Whether root may open that file of the watched folder."""
        return self.sh(f"cat policy/{name} 2>&1 && echo yes", check=False).strip() == "yes"

    def hooks(self) -> str:
        """Who is redirected, by ftrace's own account."""
        self.sh("test -r /sys/kernel/tracing/enabled_functions || mount -t tracefs none /sys/kernel/tracing")
        return self.sh("cat /sys/kernel/tracing/enabled_functions")


@pytest.fixture
def tools(benches: Benches) -> Iterator[Tools]:
    with benches("refcount", kind=Tools, mutant="swallow") as tools:
        yield tools


def test_policy_mediates_everybody_and_lets_go(tools: Tools) -> None:
    tools.begin_opens()
    assert tools.can_read("allowed-3") and not tools.can_read("forbidden-3"), "root is a caller like others"
    assert HOOKED in tools.hooks()
    tools.sh("./hs-ctl stop")
    assert tools.can_read("forbidden-3"), "nobody watches the folder any more"
    # Who else would redirect it is refused, and nothing changes: not while sources run, when any new one is refused.
    before = tools.sh("cat /sys/kernel/debug/hotswap/state")
    second = tools.sh("insmod hs_mut_swallow.ko from=policy 2>&1", check=False)
    assert "busy" in second.lower(), second
    assert f"cannot redirect {HOOKED}: error -16" in tools.sh("dmesg")
    assert tools.sh("cat /sys/kernel/debug/hotswap/state") == before and HOOKED in tools.hooks()
    for _ in range(2):
        tools.down()
        assert HOOKED not in tools.hooks() and tools.can_read("forbidden-3")
        tools.begin_opens()  # it is free: it can be had again
        assert not tools.can_read("forbidden-3")
        tools.sh("./hs-ctl stop")
    tools.down()


def test_resource_is_read_by_the_edition_that_owns_it(tools: Tools) -> None:
    """Lists of both kinds stand behind the slot in turn; each says the same, and one file's label decides."""
    tools.begin_opens()
    kinds = set()
    for _ in range(4):
        kinds.add(json.loads(tools.sh("cat /sys/kernel/debug/hotswap/state"))["slots"][0]["version"] % 2)
        assert [tools.can_read(f"allowed-{i}") for i in range(8)] == [True] * 8
        assert [tools.can_read(f"forbidden-{i}") for i in range(8)] == [False] * 8
        swapped = [json.loads(line) for line in tools.sh("./hs-ctl swap --count 1 --seed 7").splitlines()]
        assert swapped[-1]["swaps"]["done"] == 1, swapped
    assert kinds == {0, 1}
    tools.sh("./hs-ctl stop; ./hs-ctl down")
