# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel logs of both architectures, whole and hostile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import dmesg
from lab.phrases import Kind

DATA = Path(__file__).parent.parent / "data" / "dmesg"
MARK = "lab: marker 4f2a"


def read(name: str, mark: str = MARK) -> dmesg.Events:
    return dmesg.read((DATA / name).read_bytes(), mark=mark)


def headline(line: str) -> dmesg.Splat:
    (splat,) = dmesg.read(f"[    1.000000] {line}\n").splats
    return splat


def test_marker_names_its_token() -> None:
    assert dmesg.marker("4f2a") == MARK


def test_x86_oops_is_one_splat_with_place_and_panic() -> None:
    events = read("x86_64-null.log")
    (splat,) = events.splats
    assert splat.kind is Kind.OOPS
    assert splat.panic
    assert splat.decisive == (
        "BUG: kernel NULL pointer dereference, address: 0000000000000010 at hs_calc+0x14/0x40 [hs_ed_add]"
    )
    assert splat.line == 5
    assert any("Comm: hs-load" in line for line in splat.excerpt)


def test_what_came_before_the_marker_does_not_count() -> None:
    assert "old news" in (DATA / "x86_64-null.log").read_text()
    assert not any("old news" in splat.headline for splat in read("x86_64-null.log").splats)


def test_a_missing_marker_is_told_and_nothing_is_judged() -> None:
    events = read("x86_64-null.log", mark="lab: marker other")
    assert not events.marked
    assert events.splats == ()


def test_arm64_jump_into_freed_text_names_the_caller() -> None:
    (splat,) = read("aarch64-freed-text.log").splats
    assert splat.symbol == "0xffffa6b2c1d3e000"
    assert splat.decisive.endswith("at 0xffffa6b2c1d3e000, from hs_reload_call+0x44/0x88 [hs_reload]")


def test_two_cpus_interleaved_are_two_splats_each_with_its_own_place() -> None:
    events = read("interleaved.log")
    places = {splat.headline.split(";")[0].split(" for")[0]: splat.symbol for splat in events.splats}
    assert places == {
        "BUG: unable to handle page fault": "0xffffffffc0a3e010",
        "refcount_t: underflow": "refcount_warn_saturate+0xba/0x110",
    }
    assert events.worst is not None and events.worst.kind is Kind.OOPS


def test_caller_stamps_keep_two_cpus_apart() -> None:
    bug, lockup = read("callers.log").splats
    assert bug.kind is Kind.BUG
    assert bug.decisive.startswith("list_del corruption.")
    assert bug.decisive.endswith(", from hs_unregister+0x30/0x80 [hs_core]")
    assert lockup.kind is Kind.LOCKUP
    assert lockup.symbol == "hs_spin+0x3/0x10 [hs_ed_slow]"
    assert not any("hs_spin" in line for line in bug.excerpt)


def test_a_clean_boot_has_no_splat() -> None:
    events = read("clean-boot.log", mark="")
    assert events.splats == ()
    assert events.taints == ()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP NOPTI", Kind.OOPS),
        ("general protection fault: 0000 [#1] PREEMPT SMP", Kind.OOPS),
        ("traps: PANIC: double fault, error_code: 0x0", Kind.OOPS),
        ("Internal error: Oops - BUG: 00000000f2000800 [#1] SMP", Kind.OOPS),
        ("int3: 0000 [#1] PREEMPT SMP NOPTI", Kind.OOPS),
        ("Unable to handle kernel execute from non-executable memory at virtual address ffff800078e50000", Kind.OOPS),
        ("kernel BUG at mm/slub.c:4280!", Kind.BUG),
        ("BUG: Bad page state in process hs-load  pfn:0451a", Kind.BUG),
        ("BUG kmalloc-64 (Tainted: G           OE     ): Poison overwritten", Kind.BUG),
        ("BUG: KASAN: slab-use-after-free in hs_put+0x20/0x40 [hs_core]", Kind.SANITIZER),
        ("BUG: KFENCE: use-after-free read in hs_put+0x20/0x40 [hs_core]", Kind.SANITIZER),
        ("BUG: KCSAN: data-race in hs_get / hs_put", Kind.SANITIZER),
        ("UBSAN: array-index-out-of-bounds in kmod/core/slot.c:12:3", Kind.SANITIZER),
        ("Kernel panic - not syncing: VFS: Unable to mount root fs", Kind.PANIC),
        ("Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: hs_call+0x1/0x2", Kind.PANIC),
        ("watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [hs-load:91]", Kind.LOCKUP),
        ("watchdog: Watchdog detected hard LOCKUP on cpu 0", Kind.LOCKUP),
        ("rcu: INFO: rcu_sched self-detected stall on CPU", Kind.STALL),
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", Kind.STALL),
        ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-...D }", Kind.STALL),
        ("INFO: rcu_tasks detected stalls on tasks:", Kind.STALL),
        ("INFO: task hs-ctl:123 blocked for more than 120 seconds.", Kind.HUNG_TASK),
        ("BUG: scheduling while atomic: hs-load/91/0x00000002", Kind.ATOMIC),
        ("BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580", Kind.ATOMIC),
        ("kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", Kind.LEAK),
        ("WARNING: possible circular locking dependency detected", Kind.LOCKDEP),
        ("WARNING: inconsistent lock state", Kind.LOCKDEP),
        ("INFO: possible recursive locking detected", Kind.LOCKDEP),
        ("WARNING: suspicious RCU usage", Kind.LOCKDEP),
        ("WARNING: CPU: 0 PID: 9 at kmod/core/slot.c:77 hs_retire+0x44/0x80 [hs_core]", Kind.WARNING),
        ("WARNING: kmod/core/slot.c:77 at hs_retire+0x44/0x80 [hs_core], CPU#1: hs-ctl/90", Kind.WARNING),
        ("list_add double add: new=1, prev=2, next=3.", Kind.CORRUPTION),
        ("list_del corruption, ffff->next is LIST_POISON1 (dead000000000100)", Kind.CORRUPTION),
        ("refcount_t: underflow; use-after-free.", Kind.CORRUPTION),
        ("percpu ref (hs_release [hs_core]) <= 0 (-1) after switching to atomic", Kind.CORRUPTION),
        ("ODEBUG: free active (active state 0) object type: timer_list hint: hs_tick", Kind.CORRUPTION),
        ("unregister_netdevice: waiting for lo to become free. Usage count = 1", Kind.CORRUPTION),
        ("I/O error, dev vda, sector 2048 op 0x0:(READ)", Kind.IO),
        ("Buffer I/O error on dev vda, logical block 1, lost async page write", Kind.IO),
        ("EXT4-fs error (device vda): ext4_lookup:1855: inode #2: comm ls", Kind.IO),
        ("Out of memory: Killed process 91 (hs-load) total-vm:1kB", Kind.OOM),
        ("hs-load invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0", Kind.OOM),
        ("RIP: 0010:hs_calc+0x14/0x40 [hs_ed_add]", Kind.DUMP),
        ("pc : hs_calc+0x14/0x40 [hs_ed_add]", Kind.DUMP),
    ],
)
def test_every_phrase_is_known(line: str, kind: Kind) -> None:
    assert headline(line).kind is kind


def test_the_place_in_a_headline_is_found() -> None:
    assert headline("WARNING: CPU: 0 PID: 9 at a/b.c:7 hs_x+0x4/0x8 [hs_core]").symbol == "hs_x+0x4/0x8 [hs_core]"
    assert headline("WARNING: a/b.c:7 at hs_x+0x4/0x8 [hs_core], CPU#1: t/9").symbol == "hs_x+0x4/0x8 [hs_core]"


@pytest.mark.parametrize(
    "line",
    [
        "RIP: 0033:0x7f3a5c118cdb",
        "hs_load: DEBUG: nothing",
        "Command line: oops=panic panic=-1 softlockup_panic=1",
        "traps: a.out[1] general protection fault ip:1 sp:2 error:0",
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled",
    ],
)
def test_harmless_lines_are_no_splat(line: str) -> None:
    assert dmesg.read(f"[    1.000000] {line}\n").splats == ()


def test_the_message_of_a_warning_leads_its_headline() -> None:
    text = (
        "[    1.000000] ------------[ cut here ]------------\n[    1.000001] hs: version 3 still has 2 references\n"
        "[    1.000002] WARNING: CPU: 0 PID: 9 at kmod/core/slot.c:77 hs_retire+0x44/0x80 [hs_core]\n"
    )
    (splat,) = dmesg.read(text).splats
    assert splat.headline.startswith("hs: version 3 still has 2 references: WARNING:")


def test_a_cut_line_with_nothing_after_it_is_still_a_splat() -> None:
    (splat,) = dmesg.read("[    1.0] x\n[    1.000000] ------------[ cut here ]------------\n").splats
    assert splat.kind is Kind.DUMP


@pytest.mark.parametrize(
    "line",
    [
        "4,1234,5140900,-;BUG: Bad page state in process x",
        "4,1234,5140900,-,caller=T12;BUG: Bad page state in process x",
        "<4>[   12.000000] BUG: Bad page state in process x",
        "[   12.000000][    C1] BUG: Bad page state in process x",
        "lab: rea[   12.000000] BUG: Bad page state in process x",
        "[   12.000000] \x1b[31mBUG: Bad\x1b[0m page state in process x\x00",
        "[   12.000000] BUG: Bad page\x00 state in pro\x1b]0;title\x07cess x",
    ],
)
def test_every_prefix_is_taken_off(line: str) -> None:
    (splat,) = dmesg.read(line).splats
    assert splat.headline == "BUG: Bad page state in process x"


def test_taints() -> None:
    text = (
        "[    1.000000] hs_core: loading out-of-tree module taints kernel.\n"
        "[    1.000001] hs_x: module license 'Proprietary' taints kernel.\n"
        "[    1.000002] Disabling lock debugging due to kernel taint\n"
        "[    1.000003] hs_lp: tainting kernel with TAINT_LIVEPATCH\n"
        "[    1.000004] CPU: 0 PID: 1 Comm: x Tainted: G    B   W  OE      6.1.0 #1\n"
        "[    1.000005] CPU: 0 PID: 1 Comm: x Not tainted 6.1.0 #1\n"
    )
    assert [taint.flags for taint in dmesg.read(text).taints] == ["O", "P", "?", "K", "BWOE"]


def test_a_live_scanner_tells_at_the_headline_and_knows_more_later() -> None:
    scanner = dmesg.Scanner()
    lines = (DATA / "x86_64-null.log").read_bytes().splitlines(keepends=True)[4:]
    new = [splat for line in lines[:1] for splat in scanner.feed(line)]
    assert len(new) == 1 and new[0].symbol is None
    for line in lines[1:]:
        assert scanner.feed(line) == []
    assert scanner.splats[0].symbol == "hs_calc+0x14/0x40 [hs_ed_add]"


@settings(max_examples=30)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60))
def test_pieces_of_any_size_give_the_same_splats(sizes: list[int]) -> None:
    data = (DATA / "interleaved.log").read_bytes()
    scanner, at, turn = dmesg.Scanner(mark=MARK), 0, 0
    while at < len(data):
        scanner.feed(data[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    scanner.finish()
    assert scanner.events().splats == dmesg.read(data, mark=MARK).splats


@given(st.binary(max_size=400))
def test_no_bytes_break_it_and_nothing_unprintable_comes_out(data: bytes) -> None:
    events = dmesg.read(b"[    1.000000] BUG: " + data)
    text = "".join(splat.decisive + "".join(splat.excerpt) for splat in events.splats)
    assert "\x1b" not in text and "\x00" not in text


@pytest.mark.parametrize(
    "data",
    [
        b"A" * 2_000_000,
        b"[    1.000000] BUG: x\n" * 10_000,
        b"[    1.000000] " * 100_000,
        b"\x1b[" * 1_000_000,
        b"\x1b]0;" + b"x" * 2_000_000,
        b"hs a: b: c: 0000 [" * 100_000,
        b"BUG \n" * 25_000,
    ],
)
def test_megabytes_take_linear_time(data: bytes) -> None:
    start = time.process_time()
    events = dmesg.read(data)
    assert time.process_time() - start < 2
    assert len(events.splats) <= dmesg.MAX_SPLATS
    assert all(len(splat.headline) <= dmesg.LINE_CHARS for splat in events.splats)


def test_feeding_byte_by_byte_is_linear() -> None:
    scanner = dmesg.Scanner()
    start = time.process_time()
    for _ in range(30_000):
        scanner.feed(b"x")
    assert time.process_time() - start < 2
