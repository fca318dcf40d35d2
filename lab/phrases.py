# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of phrases by which the kernel complains, one row each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What sort of complaint; the order is that of `rank`."""

    OOPS = "oops"
    BUG = "bug"
    SANITIZER = "sanitizer"
    CORRUPTION = "corruption"
    PANIC = "panic"
    LOCKUP = "lockup"
    STALL = "stall"
    HUNG_TASK = "hung-task"
    ATOMIC = "atomic"
    LOCKDEP = "lockdep"
    WARNING = "warning"
    LEAK = "leak"
    OOM = "oom"
    IO = "io"
    DUMP = "dump"  # registers or a cut line whose headline is missing

    @property
    def rank(self) -> int:
        """How much it says about the cause: higher is shown first."""
        return len(Kind) - list(Kind).index(self)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A row: a line is of this kind when it holds `literal` and, where given, `pattern` is found in it."""

    kind: Kind
    literal: str
    pattern: re.Pattern[str] | None = None
    dies: bool = False  # a die line ("Oops: 0000 [#1]") of the same splat may follow
    die: bool = False  # is such a line
    absorbs: bool = False  # the message of a WARN or BUG: its usual headline follows


def _row(
    kind: Kind, literal: str, pattern: str = "", *, dies: bool = False, die: bool = False, absorbs: bool = False
) -> Phrase:
    return Phrase(kind, literal, re.compile(pattern) if pattern else None, dies, die, absorbs)


# The first row that fits wins: the special before the general. Patterns have no nested repetition, so they are
# linear. "^" is the start of the message, after the time stamp: user programs and boot messages such as
# "Spectre V2 : WARNING: ..." or "traps: a.out[1] general protection fault ip:..." are no splats of the kernel.
PHRASES: tuple[Phrase, ...] = (
    _row(Kind.PANIC, "Kernel panic"),
    _row(Kind.SANITIZER, "BUG: K", r"BUG: (?:KASAN|KCSAN|KMSAN|KFENCE)\b"),
    _row(Kind.SANITIZER, "UBSAN: ", r"^UBSAN: "),
    _row(Kind.LOCKUP, "BUG: soft lockup"),
    _row(Kind.LOCKUP, "hard LOCKUP"),
    _row(Kind.LOCKUP, "BUG: workqueue lockup"),
    _row(Kind.STALL, "stall", r"rcu\w{0,20} (?:self-)?detected (?:expedited )?stall"),
    _row(Kind.STALL, "kthread starved for", r"\brcu"),
    _row(Kind.STALL, "kthread timer wakeup didn't happen", r"\brcu"),
    _row(Kind.HUNG_TASK, "for more than", r"INFO: task .{1,80} blocked (?:in I/O wait )?for more than"),
    _row(Kind.ATOMIC, "scheduling while atomic"),
    _row(Kind.ATOMIC, "sleeping function called from invalid context"),
    _row(Kind.ATOMIC, "BUG: Invalid wait context"),
    _row(Kind.LEAK, "kmemleak: ", r"kmemleak: \d{1,10} new suspected memory leak"),
    _row(Kind.LEAK, "unreferenced object 0x", r"^unreferenced object"),
    _row(Kind.CORRUPTION, "list_add ", r"list_add (?:corruption|double add)", absorbs=True, dies=True),
    _row(Kind.CORRUPTION, "list_del corruption", absorbs=True, dies=True),
    _row(Kind.CORRUPTION, "refcount_t: ", r"^refcount_t: ", absorbs=True),
    _row(Kind.CORRUPTION, "percpu ref (", r"percpu ref \(.{1,120}\) <= 0", absorbs=True),
    _row(Kind.CORRUPTION, "ODEBUG: ", r"^ODEBUG: ", absorbs=True),
    _row(Kind.CORRUPTION, "stack-protector: Kernel stack is corrupted"),
    _row(Kind.CORRUPTION, "kernel tried to execute NX-protected page", absorbs=True, dies=True),
    _row(Kind.CORRUPTION, "usercopy: Kernel memory", absorbs=True, dies=True),
    _row(Kind.CORRUPTION, "unregister_netdevice: waiting"),
    _row(Kind.OOPS, "double fault", r"PANIC: double fault|^(?:Oops: )?double fault", dies=True),
    _row(Kind.OOPS, " [#", r"^[\w ,.:()#/-]{1,240}: ?[0-9a-f]{1,16} \[#\d{1,9}\]", die=True),
    _row(Kind.OOPS, "Internal error:", die=True),
    _row(Kind.OOPS, "Oops", r"(?:^|[^\w-])Oops\b ?[:-]", die=True),
    _row(Kind.OOPS, "Unable to handle kernel", dies=True),
    _row(Kind.OOPS, "general protection fault", r"^general protection fault", die=True),
    _row(Kind.OOPS, "Unhandled ", r"^Unhandled (?:\S{1,12} ){1,4}(?:exception|fault)", dies=True),
    _row(Kind.OOPS, "Bad mode in ", r"^Bad mode in .{1,60} handler", dies=True),
    _row(Kind.OOPS, "SError Interrupt on CPU", dies=True),
    _row(Kind.OOPS, "Insufficient stack space to handle exception", dies=True),
    _row(Kind.OOPS, "BUG: ", r"(?:^|[^\w])BUG: (?:unable to handle|kernel NULL pointer)", dies=True),
    _row(Kind.OOPS, "stack guard page was hit", dies=True),
    _row(Kind.BUG, "ernel BUG at ", r"\b[kK]ernel BUG at ", dies=True),
    _row(Kind.BUG, "BUG: ", r"(?:^|[^\w])BUG: ", dies=True),
    _row(Kind.BUG, "BUG ", r"^BUG \S{1,80} \("),  # SLUB: BUG kmalloc-64 (Tainted: ...): Poison overwritten
    _row(
        Kind.LOCKDEP,
        "possible ",
        r"^(?:WARNING|INFO): possible (?:circular|recursive|irq lock|unsafe|deadlock)|^\S{1,60}: possible circular",
    ),
    _row(Kind.LOCKDEP, "inconsistent lock state", r"^(?:WARNING|INFO): "),
    _row(Kind.LOCKDEP, "suspicious RCU usage", r"^(?:WARNING|INFO): "),
    _row(Kind.LOCKDEP, "bad unlock balance", r"^(?:WARNING|INFO): "),
    _row(Kind.LOCKDEP, "lock held when returning", r"^(?:WARNING|INFO): "),
    _row(Kind.LOCKDEP, "safe -> ", r"^(?:WARNING|INFO): (?:SOFT|HARD)IRQ-safe"),
    _row(Kind.LOCKDEP, "INFO: trying to register non-static key"),
    _row(Kind.WARNING, "WARNING: ", r"^WARNING: "),
    _row(Kind.OOM, "invoked oom-killer"),
    _row(Kind.OOM, "ut of memory", r"^(?:Out of memory|Memory cgroup out of memory): "),
    _row(Kind.IO, "I/O error", r"(?:^|[^\w])I/O error[, ]"),
    _row(Kind.IO, "EXT4-fs error"),
    _row(Kind.IO, "EXT4-fs (", r"Remounting filesystem read-only"),
)


def find(message: str) -> Phrase | None:
    """The row a message is a headline by, if any."""
    for phrase in PHRASES:
        if phrase.literal in message and (phrase.pattern is None or phrase.pattern.search(message)):
            return phrase
    return None
