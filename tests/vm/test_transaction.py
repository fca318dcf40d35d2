# SPDX-License-Identifier: GPL-2.0-or-later
"""Mechanism transaction with the guest's tools by hand: transactions held open, updates that have to wait for them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.bench import Bench
from tests.vm.conftest import KERNELS, Benches, Run


@pytest.fixture
def bench(benches: Benches) -> Iterator[Bench]:
    with benches("transaction") as bench:
        yield bench


def hold(bench: Bench, ms: int) -> int:
    """Begin a transaction that stays open that long, beside what else is done; the version it began with."""
    bench.sh(f"./hs-ctl round --ms {ms} >round.json 2>&1 </dev/null & echo $! >round.pid")
    bench.sh("until [ -s round.json ]; do sleep 0.05; done")
    began = json.loads(bench.sh("head -n 1 round.json"))["round"]["began"]
    assert began > 0
    return int(began)


def held(bench: Bench) -> dict[str, int]:
    """What the transaction met at its end."""
    bench.sh("until [ $(wc -l <round.json) -ge 2 ]; do sleep 0.05; done")
    met: dict[str, int] = json.loads(bench.sh("tail -n 1 round.json"))["round"]
    return met


def ask(bench: Bench) -> dict[str, Any]:
    """May an update be applied now?"""
    told: dict[str, Any] = json.loads(bench.sh("./hs-ctl ask"))["ask"]
    return told


def change_layout(bench: Bench) -> list[dict[str, Any]]:
    """One swap whose edition brings the state to its next layout."""
    layout = bench.sh("cat /sys/kernel/debug/hotswap/stats")
    number = json.loads(layout)["transaction"]["changes"] + 1
    told = bench.sh(f"./hs-ctl swap --count 1 --seed 7 --edition layout_number={number}", check=False)
    return [json.loads(line) for line in told.splitlines()]


def test_a_transaction_meets_one_version_across_sleep_and_swaps(bench: Bench) -> None:
    bench.begin(load="mixed")
    bench.swap(1)
    began = hold(bench, 1500)
    bench.swap(1)  # publishes at once; its drain waits for the transaction
    met = held(bench)
    assert met == {"slot": began, "mate": began}
    newest = max(edition["version"] for edition in bench.stats()["editions"])
    assert newest > began, "the swap was over before the transaction"
    bench.refusals()
    figures = bench.end()
    assert sum(one["rounds"] for one in figures.callers) > 0
    assert sum(one["torn"] for one in figures.callers) == 0


def test_an_update_that_changes_the_layout_is_refused_while_a_transaction_is_open(bench: Bench) -> None:
    bench.begin(load="syscall", core="update_wait_ms=300")
    bench.swap(1)
    hold(bench, 60_000)
    told = ask(bench)
    assert told["same_layout"] and not told["new_layout"]
    assert "hs-ctl" in {one["task"] for one in told["conflicts"]}
    before = bench.stats()["transaction"]
    lines = change_layout(bench)
    assert {"swap": 1, "step": "load", "error": "EBUSY"} in lines
    assert bench.stats()["transaction"]["changes"] == before["changes"]
    log = bench.sh("dmesg")
    assert "did not end in 300 ms" in log and "in the way: hs-ctl[" in log
    # The process dies in the middle of its transaction: that ends it.
    bench.sh("kill -9 $(cat round.pid)")
    bench.sh("until ./hs-ctl ask | grep -vq hs-ctl; do sleep 0.05; done")
    assert any(line.get("swaps", {}).get("done") == 1 for line in change_layout(bench))
    assert bench.stats()["transaction"]["changes"] == before["changes"] + 1
    bench.end()


@pytest.mark.parametrize("first_touch", [0, 1])
def test_each_object_is_transformed_once(bench: Bench, first_touch: int) -> None:
    bench.begin(load="mixed", core=f"first_touch={first_touch}")
    bench.swap(9)
    figures = bench.end()
    told = figures.stats["transaction"]
    assert told["changes"] == 2
    assert told["transformed"] == told["steps"] == 2 * told["objects"] - told["behind"]
    assert (told["touched"] > 0) == bool(first_touch)


def test_calls_that_stay_and_nest_in_an_edition_are_waited_for(bench: Bench) -> None:
    bench.begin("nest", 200_000)
    bench.swap(5)  # the fourth changes the layout
    figures = bench.end()
    assert figures.stats["nested"]["issued"] > 0
    assert figures.stats["transaction"]["changes"] == 1


def test_transaction_cells_pass_without_a_torn_round(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/transaction/mixed", swaps=8)
    assert result.status == "PASS", result.reason
    rounds = result.rounds or {}
    assert rounds["made"] > 0 and rounds["torn"] == 0
