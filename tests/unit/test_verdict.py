# SPDX-License-Identifier: GPL-2.0-or-later
"""Oracles and verdicts: each oracle catches what it is for, and nothing missing ever passes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import dmesg, measure, paths, runlog, verdict
from lab.cell import MAX_SWAPS, Cell
from lab.events import Events
from lab.verdict import Status, Verdict

RAW: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "raw-refcount-mixed.json").read_text())
CELL = Cell("x86_64", "trixie", "refcount", "mixed")
CLEAN = Events(marked=True, lines=12)
Change = Callable[[dict[str, Any]], object]


def judge(
    change: Change = lambda raw: None, *, cell: Cell = CELL, events: Events | None = CLEAN, **seen: Any
) -> Verdict:
    raw = copy.deepcopy(RAW)
    change(raw)
    return verdict.judge(measure.samples(raw), events, cell=cell, **seen)


def test_a_good_run_passes_with_its_numbers() -> None:
    good = judge()
    assert (good.status, good.reason) == (Status.PASS, "2 swaps under 110 calls, 0 failed")
    assert [finding.oracle.value for finding in good.oracles] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(finding.ok for finding in good.oracles)
    assert good.next_command == ""


def thread(raw: dict[str, Any]) -> dict[str, Any]:
    return raw["load"]["threads"][0]


def edition(raw: dict[str, Any]) -> dict[str, Any]:
    return raw["stats"]["editions"][0]


def edu(raw: dict[str, Any]) -> dict[str, Any]:
    return raw["stats"]["sources"][1]


def lose_results_everywhere(raw: dict[str, Any]) -> None:
    """Every account agrees, but four calls failed."""
    thread(raw).update(completed=56, failed=4, editions=[[1, 20], [2, 30], [3, 6]], errors={"ENODEV": 4})
    raw["stats"]["sources"][0].update(completed=56, failed=4)
    raw["stats"]["editions"][2].update(issued=26, completed=26)
    raw["stats"]["empty"]["failed"] = 4


def swap_fails(raw: dict[str, Any]) -> None:
    raw["swaps"][1] = {"swap": 2, "step": "load", "error": "ENOEXEC"}
    raw["swap_total"].update(done=1, failed=1)


@pytest.mark.parametrize(
    ("oracle", "change", "words"),
    [
        (1, lambda r: thread(r).update(issued=61), "thread 0: 61 issued, but 60 completed + 0 failed: 1 lost"),
        (1, lambda r: thread(r).update(issued=59), "1 too many"),
        (1, lambda r: edition(r).update(issued=36), "edition add version 1: 36 issued"),
        (1, lambda r: r["stats"]["empty"].update(failed=1), "kernel: 110 calls issued, but 110 entered"),
        (
            1,
            lambda r: r["stats"]["sources"][0].update(issued=61, completed=61),
            "callers issued 60 system calls, the kernel counts 61",
        ),
        (1, lambda r: thread(r).update(editions=[[1, 21], [2, 29], [3, 10]]), "version 1: callers saw 36 results"),
        (1, lambda r: thread(r).update(editions=[[1, 20]]), "60 completed, but 20 of a known edition"),
        (2, lambda r: thread(r).update(wrong=3), "thread 0: 3 wrong of 60 results"),
        (2, lambda r: edu(r).update(wrong=1), "edu: 1 wrong of 10"),
        (2, lambda r: edu(r).update(stale=1), "older edition after a newer"),
        (3, lambda r: edition(r).update(refs_sum=1, refs=[0, 1]), "add version 1 (gone) still has 1 references"),
        (3, lambda r: edition(r).update(refs=[0, 2]), "still has 2 references"),
        (3, lambda r: edition(r).update(state="retired"), "is not gone but retired"),
        (3, lambda r: edition(r).update(state="live"), "slot calc has 2 live editions"),
        (3, lambda r: r["down"].update(leaks=["edition add: 128 bytes"]), "left behind: edition add: 128 bytes"),
        (3, lambda r: r["down"].update(modules_left=["hs_core"]), "module hs_core still loaded"),
        (3, lambda r: r["down"].update(drained=False), "drain did not end"),
        (3, lambda r: r["stats"]["memory"].update(freed=4), "4 freed of 3 allocated"),
        (4, lambda r: edu(r).update(raised=12), "edu: 12 raised, 10 handled: 2 lost"),
        (4, lambda r: edu(r).update(raised=9), "1 too many"),
        (6, lambda r: r["refusals"][0].update(refused=False, got="0"), "older: was let in, expected ESTALE"),
        (6, lambda r: r["refusals"][1].update(got="EINVAL"), "duplicate: refused with EINVAL, expected EEXIST"),
        (6, lambda r: r["refusals"][6].update(same=False), "second-swapper: refused, but the state changed"),
        (7, lose_results_everywhere, "4 of 110 calls failed (ENODEV 4), refcount promises none"),
        (7, lambda r: r["stats"].update(nmissed=2), "2 calls missed their hook"),
        (8, lambda r: r["swap_total"].update(done=0, failed=2), "no swap of 2 was done"),
        (8, lambda r: r["swap_total"].update(done=1, refused=1), "1 of 2 swaps done, 1 refused"),
        (8, swap_fails, "1 of 2 swaps done, 0 refused, 1 failed (swap 2: load: ENOEXEC)"),
        (8, lambda r: r.update(errors=["drain of version 2: time is up"]), "drain of version 2: time is up"),
    ],
)
def test_each_oracle_catches_what_it_is_for(oracle: int, change: Change, words: str) -> None:
    found = judge(change)
    assert found.status is Status.FAIL
    assert found.reason.startswith(f"oracle {oracle}: ")
    assert words in found.reason
    assert [one.ok for one in found.oracles if one.oracle == oracle] == [False]


@pytest.mark.parametrize(("asked", "words"), [(200, "2 of 200 swaps done"), (1, "2 of 1 swaps done")])
def test_swaps_are_those_the_lab_asked_for_not_what_the_guest_says_it_was_asked(asked: int, words: str) -> None:
    assert judge(swaps=2).status is Status.PASS
    found = judge(swaps=asked)
    assert found.status is Status.FAIL and found.reason.startswith(f"oracle 8: {words}")


def test_no_swap_of_those_asked_for() -> None:
    found = judge(lambda r: r["swap_total"].update(requested=0, done=0), swaps=200)
    assert (found.status, found.reason) == (Status.FAIL, "oracle 8: no swap of 200 was done")


def test_versions_that_a_caller_could_not_tell_apart_are_not_judged() -> None:
    found = judge(lambda r: thread(r).update(versions_lost=1, editions=[[1, 20], [2, 39]]))
    assert found.status is Status.ERROR
    assert found.reason == "oracle 1 not judged: 1 calls of more versions than a caller's list holds"
    # what is proven stays proven
    assert judge(lambda r: thread(r).update(versions_lost=1, issued=61)).status is Status.FAIL


def test_a_caller_can_tell_the_versions_of_the_most_swaps_apart() -> None:
    recorder = (paths.kmod_dir() / "include" / "hs_recorder.h").read_text()
    (versions,) = re.findall(r"#define HS_VERSIONS\s+(\d+)", recorder)
    assert MAX_SWAPS + 10 < int(versions)


def test_a_negative_count_on_one_cpu_is_fine_when_the_sum_is_zero() -> None:
    assert RAW["stats"]["editions"][1]["refs"] == [1, -1]
    assert judge().status is Status.PASS


def test_failed_calls_are_what_reload_allows() -> None:
    assert judge(lose_results_everywhere, cell=Cell("x86_64", "trixie", "reload", "mixed")).status is Status.PASS


def no_calls(raw: dict[str, Any], *kinds: str) -> None:
    """The threads of those kinds call nobody, in every account."""
    for one in raw["load"]["threads"]:
        if one["kind"] in kinds:
            for version, count in one["editions"]:
                edition = raw["stats"]["editions"][version - 1]
                edition.update(issued=edition["issued"] - count, completed=edition["completed"] - count)
            one.update(issued=0, completed=0, editions=[])
    for source in raw["stats"]["sources"]:
        if source["name"] in kinds:
            source.update(issued=0, completed=0)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("syscall", "exception"), "none of the page faults of 1 threads completed"),
        (("exception",), "none of the page faults of 1 threads completed"),
        (("syscall",), "none of the system calls of 1 threads completed"),
    ],
)
def test_each_kind_of_caller_must_have_called(kinds: tuple[str, ...], words: str) -> None:
    found = judge(lambda raw: no_calls(raw, *kinds))
    assert (found.status, found.reason) == (Status.FAIL, f"oracle 8: {words}")


def test_a_kind_without_any_thread_fails_where_the_load_asks_for_it() -> None:
    def change(raw: dict[str, Any]) -> None:
        no_calls(raw, "exception")
        raw["load"]["threads"].pop()
        raw["stats"]["sources"].pop()

    found = judge(change)
    assert found.reason == "oracle 8: none of the page faults of 0 threads completed"
    assert judge(change, cell=Cell("x86_64", "trixie", "refcount", "syscall")).status is Status.PASS


def test_faults_and_system_calls_are_not_set_off_against_each_other() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["stats"]["sources"][0].update(issued=59, completed=59)
        raw["stats"]["sources"][2].update(issued=41, completed=41)

    found = judge(change)
    assert found.reason == "oracle 1: callers issued 40 page faults, the kernel counts 41"


def test_no_call_by_interrupts_fails() -> None:
    def change(raw: dict[str, Any]) -> None:
        edu(raw).update(raised=0, handled=0, issued=0, completed=0, editions=[])
        for version in (0, 1):
            one = raw["stats"]["editions"][version]
            one.update(issued=one["issued"] - 5, completed=one["completed"] - 5)

    found = judge(change)
    assert (found.status, found.reason) == (
        Status.FAIL,
        "oracle 8: edu: 0 interrupts raised, 0 calls completed",
    )


@pytest.mark.parametrize("part", runlog.PARTS)
def test_a_missing_part_is_an_error(part: str) -> None:
    found = judge(lambda raw: raw.pop(part))
    assert found.status is Status.ERROR
    assert part in found.reason
    assert found.next_command == "lab doctor"


@settings(max_examples=40)
@given(st.sets(st.sampled_from([*runlog.PARTS, "swaps", "errors"]), min_size=1))
def test_only_a_complete_report_passes(gone: set[str]) -> None:
    found = judge(lambda raw: [raw.pop(part) for part in gone])
    assert (found.status is Status.PASS) == (not gone & set(runlog.PARTS))


def test_a_refusal_never_tried_is_an_error() -> None:
    found = judge(lambda raw: raw["refusals"].pop())
    assert found.status is Status.ERROR
    assert found.reason == "oracle 6 not judged: never tried: second-swapper"


def test_a_load_without_its_interrupt_source_is_an_error() -> None:
    def change(raw: dict[str, Any]) -> None:
        for version in (0, 1):
            one = raw["stats"]["editions"][version]
            one.update(issued=one["issued"] - 5, completed=one["completed"] - 5)
        del raw["stats"]["sources"][1]

    assert judge(change).status is Status.ERROR
    assert judge(change, cell=Cell("x86_64", "trixie", "refcount", "syscall")).status is Status.PASS


def test_what_is_proven_stays_proven_although_parts_are_missing() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw.pop("down")
        thread(raw)["wrong"] = 1

    assert judge(change).status is Status.FAIL


def test_tools_that_never_got_to_a_call_are_an_error() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw.clear()
        raw["errors"] = ["insmod hs_core.ko: Exec format error"]

    found = judge(change)
    assert found.status is Status.ERROR
    assert found.reason == "the guest's tools: insmod hs_core.ko: Exec format error"


@pytest.mark.parametrize("what", ["no call completed", "no calls to be answered", "no end of hs-load"])
def test_tools_that_saw_no_progress_are_a_hang(what: str) -> None:
    def stuck(raw: dict[str, Any]) -> None:
        raw.clear()
        raw["errors"] = [f"{what} within 30000 ms", "hs-ctl: status 1 and no word"]

    found = judge(stuck, infra="the guest was lost")
    assert (found.status, found.reason) == (Status.HANG, f"the guest's tools: {what} within 30000 ms")
    assert judge(lambda r: r.update(errors=[f"{what} within 1 ms"])).status is Status.HANG
    assert judge(stuck, skip="no livepatch").status is Status.SKIP


def test_no_progress_for_another_reason_is_no_hang() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw.clear()
        raw["errors"] = ["/dev/hotswap: Permission denied", "no hs-load within 30000 ms"]

    assert judge(change).reason == "the guest's tools: /dev/hotswap: Permission denied"


def test_the_tools_still_say_no_progress_in_these_words() -> None:
    tools = paths.kmod_dir() / "tools"
    for name, words in (("common.c", "no %s within %u ms"), ("load.c", "no call completed within %u ms")):
        assert f'die("{words}"' in (tools / name).read_text()
        assert verdict._NO_PROGRESS.fullmatch(words.replace("%s", "x").replace("%u", "30000"))


def test_nonsense_is_an_error() -> None:
    found = judge(lambda raw: raw.update(down={"leaks": 5}))
    assert found.status is Status.ERROR
    assert found.reason.startswith("the guest reported nonsense: down.leaks")


def test_a_log_without_its_marker_is_an_error() -> None:
    for events in (None, Events(marked=False)):
        found = judge(events=events)
        assert found.status is Status.ERROR
        assert "oracle 5 not judged" in found.reason


def test_a_splat_is_a_crash_whatever_else() -> None:
    events = dmesg.read(
        "[    1.000000] lab: marker 1\n"
        "[    2.000000] WARNING: CPU: 0 PID: 9 at a/b.c:7 hs_x+0x4/0x8 [hs_core]\n"
        "[    3.000000] BUG: unable to handle page fault for address: 0\n",
        mark="lab: marker 1",
    )
    found = judge(lambda raw: thread(raw).update(wrong=1), events=events, hang="h", infra="i", skip="s")
    assert found.status is Status.CRASH
    assert found.reason == "BUG: unable to handle page fault for address: 0"


def test_an_unasked_taint_fails_and_our_own_modules_taint_does_not() -> None:
    ours = dmesg.read("hs_core: loading out-of-tree module taints kernel.\n")
    assert judge(events=ours).status is Status.PASS
    forced = dmesg.read("CPU: 0 PID: 1 Comm: x Tainted: GF          OE      6.1.0 #1\n")
    found = judge(events=forced)
    assert found.status is Status.FAIL
    assert found.reason.startswith("oracle 5: kernel tainted F: ")


@pytest.mark.parametrize(
    ("seen", "status", "reason"),
    [
        ({"crash": "QEMU ended"}, Status.CRASH, "QEMU ended"),
        ({"crash": "c", "hang": "h", "skip": "s", "infra": "i"}, Status.CRASH, "c"),
        ({"hang": "h", "skip": "s", "infra": "i"}, Status.HANG, "h"),
        ({"skip": "s", "infra": "i"}, Status.SKIP, "s"),
        ({"infra": "no space"}, Status.ERROR, "no space"),
    ],
)
def test_precedence(seen: dict[str, str], status: Status, reason: str) -> None:
    found = judge(lambda raw: thread(raw).update(wrong=1), **seen)
    assert (found.status, found.reason) == (status, reason)
    assert verdict.judge(None, None, cell=CELL, **seen).status is status


def test_nothing_at_all_is_an_error() -> None:
    assert verdict.judge(None, None, cell=CELL).status is Status.ERROR


def test_the_next_command_repeats_the_cell() -> None:
    again = ["lab", "run", "cell", "a/b/c/d", "--kmod", "my editions"]
    found = judge(crash="x", again=again)
    assert found.next_command == "lab run cell a/b/c/d --kmod 'my editions' --keep failed"
