# SPDX-License-Identifier: GPL-2.0-or-later
"""Editions that stand by, loaded, until they are published."""

import json

import pytest

from tests.vm.bench import Bench
from tests.vm.conftest import Benches


def held(bench: Bench) -> str:
    slots = json.loads(bench.sh("cat /sys/kernel/debug/hotswap/state"))["slots"]
    return str(next(one["held"] for one in slots if one["name"] == "calc"))


def stand_by(bench: Bench, module: str, version: int) -> str | None:
    """Load an edition that is not published; the error, if any."""
    told = bench.sh(f"./hs-ctl insert {module} --parameters 'hold=1 version={version}'")
    error: str | None = json.loads(told)["insert"]["error"]
    return error


@pytest.mark.parametrize("mechanism", ["refcount", "transaction", "livepatch"])
def test_an_edition_stands_by_until_it_is_published(benches: Benches, arch: str, mechanism: str) -> None:
    if mechanism == "livepatch" and arch == "aarch64":
        pytest.skip("this kernel has no livepatch")
    with benches(mechanism) as bench:
        bench.begin(load="syscall")
        bench.swap(2)
        bench.publish(4)
        nobody = {"slot": "calc", "refused": True, "error": "ENODEV"}
        assert json.loads(bench.sh("./hs-ctl publish"))["publish"] == nobody and held(bench) == ""
        # One that may not be let in stands by all the same, and is refused whenever it is to be published.
        standing, other = bench.free()[:2]
        assert stand_by(bench, standing, 4) is None
        for _ in range(2):
            told = json.loads(bench.sh("./hs-ctl publish"))["publish"]
            assert told == nobody | {"error": "ENOTUNIQ"} and f"hs_ed_{held(bench)}" == standing
        assert stand_by(bench, other, 5) == "EBUSY"
        bench.swap(3)  # goes past the one that stands by
        assert json.loads(bench.sh(f"./hs-ctl remove {standing}"))["remove"]["error"] is None and held(bench) == ""
        bench.publish(8)
        assert stand_by(bench, bench.free()[0], 9) is None
        bench.end()  # takes away the one that stands by, too
