# SPDX-License-Identifier: GPL-2.0-or-later
"""Oracles 7 and 8: what the mechanism promises of itself, and that the load and the swaps really happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lab import catalogue, measure
from lab.catalogue import Kind, Oracle
from lab.cell import Cell
from lab.finding import Finding, not_judged, who
from lab.measure import Samples
from lab.promises import adaptive, invalidate, livepatch, policy, transaction
from lab.runlog import Stats
from lab.untrusted import one_line

# What a mechanism promises beyond what all do: says how it was broken, or nothing. A file for each.
_OWN: dict[str, Callable[[Samples, Stats, Cell], str]] = {
    "adaptive": adaptive.broken,
    "invalidate": invalidate.broken,
    "transaction": transaction.broken,
    "livepatch": livepatch.broken,
}


def promise(samples: Samples, cell: Cell) -> Finding:
    """Oracle 7: what the mechanism says of itself: no caller sees an error unless it admits that, no hook missed."""
    stats, calls = samples.log.stats, samples.calls
    if stats is None or calls is None:
        return not_judged(Oracle.PROMISE, samples, "load", "stats")
    if stats.nmissed:
        return Finding(Oracle.PROMISE, False, f"{stats.nmissed:,} calls missed their hook")
    own = _OWN.get(cell.mechanism)
    if wrong := (own(samples, stats, cell) if own else "") or _whole_rounds(samples, cell):
        return Finding(Oracle.PROMISE, False, wrong)
    opens = Kind.POLICY in catalogue.LOADS[cell.load].callers
    if opens and (wrong := policy.broken(samples, stats, cell)):
        return Finding(Oracle.PROMISE, False, wrong)
    told = policy.told(samples) if opens else ""
    if catalogue.MECHANISMS[cell.mechanism].calls_may_fail:
        return Finding(Oracle.PROMISE, True, f"{calls.failed:,} failed calls, which {cell.mechanism} allows{told}")
    if calls.failed:
        errors: Counter[str] = Counter()
        for caller in measure.callers(samples.log):
            errors.update(caller.errors)
        names = ", ".join(f"{name} {count:,}" for name, count in errors.most_common(3))
        return Finding(
            Oracle.PROMISE,
            False,
            f"{calls.failed:,} of {calls.issued:,} calls failed{f' ({names})' if names else ''}, "
            f"{cell.mechanism} promises none",
        )
    return Finding(Oracle.PROMISE, True, f"no call of {calls.issued:,} failed{told}")


def _whole_rounds(samples: Samples, cell: Cell) -> str:
    rounds, kinds = samples.rounds, catalogue.LOADS[cell.load].callers
    if not catalogue.MECHANISMS[cell.mechanism].whole_rounds:
        return ""
    if rounds and rounds.torn:
        return f"{rounds.torn:,} of {rounds.made:,} rounds of calls were answered by more than one edition"
    for kind, group in ((Kind.SYSCALL, measure.threads), (Kind.INTERRUPT, measure.interrupt_sources)):
        if kind in kinds and not any(caller.rounds for caller in group(samples.log)):
            return f"no round of calls was made by any {kind.value}"
    return ""


def progress(samples: Samples, cell: Cell, *, swaps: int | None = None) -> Finding:
    """Oracle 8: calls of every kind the load asks for, and every swap asked for, really happened."""
    log, load = samples.log, catalogue.LOADS[cell.load]
    checks: tuple[Callable[[], str], ...] = (
        lambda: f"the guest's tools: {log.errors[0]}" if log.errors else "",
        lambda: _swaps_done(samples, swaps),
        lambda: _calls_made(samples, load.callers),
    )
    for check in checks:
        if wrong := check():
            return Finding(Oracle.PROGRESS, False, wrong)
    total, calls = samples.swaps, samples.calls
    if total is None or calls is None:
        return not_judged(Oracle.PROGRESS, samples, "load", "stats", "swap_total")
    return Finding(Oracle.PROGRESS, True, f"{total.done:,} swaps under {calls.issued:,} calls")


def _swaps_done(samples: Samples, asked: int | None) -> str:
    swaps = samples.swaps
    if swaps is None:
        return ""
    asked = swaps.requested if asked is None else asked  # the guest's own word, where there is no better
    bad = next((swap for swap in samples.log.swaps if swap.error), None)
    why = one_line(f" (swap {bad.swap}: {bad.step}: {bad.error})") if bad else ""
    why = f" {why}" if why else ""
    if swaps.done == 0:
        return f"no swap of {asked:,} was done{why}"
    if swaps.done != asked:
        return f"{swaps.done:,} of {asked:,} swaps done, {swaps.refused:,} refused, {swaps.failed:,} failed{why}"
    if swaps.failed:
        return f"{swaps.failed:,} swaps failed"
    return ""


def _calls_made(samples: Samples, kinds: frozenset[Kind]) -> str:
    log = samples.log
    if log.load is None or log.stats is None:
        return ""
    for kind in sorted(kinds - {Kind.INTERRUPT}):
        threads = [thread for thread in log.load.threads if thread.kind == kind]
        if not any(thread.completed for thread in threads):
            return f"none of the {kind.calls} of {len(threads)} threads completed"
    if Kind.INTERRUPT in kinds:
        for source in measure.interrupt_sources(log):
            if not source.raised or not source.completed:
                return f"{who(source)}: {source.raised:,} interrupts raised, {source.completed:,} calls completed"
    return ""
