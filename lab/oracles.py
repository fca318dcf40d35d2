# SPDX-License-Identifier: GPL-2.0-or-later
"""The oracles: checks that need no timing. Each says yes, no, or not judged, in one line with the numbers.

1 to 6 are those of every cell; 7 is what the mechanism promises of itself, 8 that calls and swaps really happened.
Every one has a mutant in kmod/mutants/ that it catches.
"""

from __future__ import annotations

from collections import Counter

from lab import catalogue, measure
from lab.catalogue import Oracle
from lab.cell import Cell
from lab.events import Events
from lab.finding import Finding, made_again, not_judged, who
from lab.measure import Samples
from lab.promises import progress, promise
from lab.runlog import Stats

# What oracle 6 must have tried: each has to be refused.
REFUSAL_CASES = tuple("older duplicate dissimilar layout no-transformer other-transformer second-swapper".split())


def findings(samples: Samples, events: Events | None, cell: Cell, *, swaps: int | None = None) -> list[Finding]:
    """Ask every oracle; `swaps` is how many the lab asked for, None where only the guest can tell."""
    return [
        conservation(samples),
        results(samples, cell),
        drain(samples, cell),
        interrupts(samples, cell),
        log_clean(events, cell),
        refusals(samples),
        promise(samples, cell),
        progress(samples, cell, swaps=swaps),
    ]


def conservation(samples: Samples) -> Finding:
    """Oracle 1: issued = completed + failed, in the callers' counts and the kernel's, edition by edition."""
    log = samples.log
    if log.load is None or log.stats is None:
        return not_judged(Oracle.CONSERVATION, samples, "load", "stats")
    for check in (_callers_add_up, _threads_match_kernel, _editions_add_up, _versions_match):
        if wrong := check(samples, log.stats):
            return Finding(Oracle.CONSERVATION, False, wrong)
    if lost := sum(caller.versions_lost for caller in measure.callers(log)):
        return Finding(
            Oracle.CONSERVATION, None, f"not judged: {lost:,} calls of more versions than a caller's list holds"
        )
    calls = samples.calls
    assert calls is not None
    return Finding(
        Oracle.CONSERVATION,
        True,
        f"{calls.issued:,} issued = {calls.completed:,} completed + {calls.failed:,} failed, "
        f"the same in the kernel, in each of {len(log.stats.editions)} editions",
    )


def _sum_line(who: str, issued: int, completed: int, failed: int, aborted: int = 0) -> str:
    off = issued - completed - failed - aborted
    if off == 0:
        return ""
    how = f"{off:,} lost" if off > 0 else f"{-off:,} too many"
    cut = f" + {aborted:,} cut off" if aborted else ""
    return f"{who}: {issued:,} issued, but {completed:,} completed + {failed:,} failed{cut}: {how}"


def _callers_add_up(samples: Samples, stats: Stats) -> str:
    for caller in measure.threads(samples.log) + stats.sources:
        if wrong := _sum_line(who(caller), caller.issued, caller.completed, caller.failed):
            return wrong
    for caller in measure.callers(samples.log):
        named = sum(count for _, count in caller.editions) + caller.versions_lost
        if named != caller.completed:
            return f"{who(caller)}: {caller.completed:,} completed, but {named:,} of a known edition"
    return ""


def _editions_add_up(samples: Samples, stats: Stats) -> str:
    for edition in stats.editions:
        who = f"edition {edition.name} version {edition.version}"
        if wrong := _sum_line(who, edition.issued, edition.completed, edition.failed, edition.aborted):
            return wrong
    entered = sum(edition.issued for edition in stats.editions)
    empty = stats.empty.failed if stats.empty else 0
    issued = sum(source.issued for source in stats.sources)
    again = made_again(samples, stats)
    if stats.nested:
        issued += stats.nested.issued
    if entered + empty != issued + again:
        told = f" and {again:,} made again" if again else ""
        return f"kernel: {issued:,} calls issued{told}, but {entered:,} entered an edition and {empty:,} found none"
    return ""


def _threads_match_kernel(samples: Samples, stats: Stats) -> str:
    threads = measure.threads(samples.log)
    sources = [source for source in stats.sources if source.raised is None]
    for kind in sorted({thread.kind for thread in threads} | {source.name for source in sources}):
        for key in ("issued", "completed", "failed"):
            ours = sum(getattr(caller, key) for caller in threads if caller.kind == kind)
            kernels = sum(getattr(source, key) for source in sources if source.name == kind)
            if ours != kernels:
                return f"callers {key} {ours:,} {_calls(kind)}, the kernel counts {kernels:,}"
    return ""


def _calls(kind: str) -> str:
    return catalogue.Kind(kind).calls if kind in list(catalogue.Kind) else f"calls of kind {kind}"


def _versions_match(samples: Samples, stats: Stats) -> str:
    if any(caller.versions_lost for caller in measure.callers(samples.log)):
        return ""  # more versions than a caller's list holds
    seen: Counter[int] = Counter()
    for caller in measure.callers(samples.log):
        for version, count in caller.editions:
            seen[version] += count
    counted: Counter[int] = Counter()
    for edition in stats.editions:
        counted[edition.version] += edition.completed
    for version in sorted(seen.keys() | counted.keys()):
        if seen[version] != counted[version]:
            return f"version {version}: callers saw {seen[version]:,} results, the kernel counts {counted[version]:,}"
    return ""


def results(samples: Samples, cell: Cell) -> Finding:
    """Oracle 2: every result is the one its edition computes; no caller sees an older edition after a newer one.

    Behind one entry, that is: a slot and its mate are judged together where a mechanism promises whole rounds.
    The second half is not asked of a mechanism whose policy lets editions answer in turn.
    """
    mechanism = catalogue.MECHANISMS[cell.mechanism]
    in_turn = set() if not mechanism.per_task else {id(one) for one in measure.interrupt_sources(samples.log)}
    everybody = measure.callers(samples.log)
    if samples.log.load is None or any(caller.wrong is None or caller.stale is None for caller in everybody):
        return not_judged(Oracle.RESULTS, samples, "load", "stats")
    for caller in everybody:
        if caller.wrong:
            return Finding(
                Oracle.RESULTS, False, f"{who(caller)}: {caller.wrong:,} wrong of {caller.completed:,} results"
            )
        if caller.stale and not mechanism.side_by_side and id(caller) not in in_turn:
            return Finding(
                Oracle.RESULTS,
                False,
                f"{who(caller)}: {caller.stale:,} of {caller.completed:,} calls ran an older edition after a newer",
            )
    total = sum(caller.completed for caller in everybody)
    order = "none of an older edition after a newer"
    if mechanism.side_by_side:
        order = "editions in turn, by policy"
    elif in_turn:
        order += " but in interrupts, which meet what the task has that they interrupt"
    return Finding(Oracle.RESULTS, True, f"{total:,} results, none wrong, {order}")


def drain(samples: Samples, cell: Cell) -> Finding:
    """Oracle 3: after the last swap and drain every count is zero, old modules are gone, their memory is freed.

    A call may sleep and end on another CPU than it began on, so a count is per edition: the sum over all CPUs.
    """
    stats, down = samples.log.stats, samples.log.down
    wrong = ""
    if stats is not None:
        wrong = _references(stats, side_by_side=catalogue.MECHANISMS[cell.mechanism].side_by_side)
    if not wrong and down is not None:
        if samples.leaks:
            wrong = f"left behind: {'; '.join(samples.leaks)}"
        elif not down.drained:
            wrong = "the last drain did not end"
    if wrong:
        return Finding(Oracle.DRAIN, False, wrong)
    if stats is None or down is None:
        return not_judged(Oracle.DRAIN, samples, "stats", "down")
    return Finding(Oracle.DRAIN, True, f"{len(stats.editions)} editions, every count zero, nothing left behind")


def _references(stats: Stats, *, side_by_side: bool) -> str:
    live = Counter(edition.slot for edition in stats.editions if edition.state == "live")
    for edition in stats.editions:
        who = f"edition {edition.name} version {edition.version}"
        if edition.refs_sum != 0 or sum(edition.refs) != 0:
            return f"{who} ({edition.state}) still has {edition.refs_sum or sum(edition.refs):,} references"
        if edition.state not in ("live", "gone"):
            return f"{who} is not gone but {edition.state}"
    for slot, count in live.items():
        if count > 1 and not side_by_side:
            return f"slot {slot} has {count} live editions"
    if stats.memory and stats.memory.freed > stats.memory.allocated:
        return f"{stats.memory.freed:,} freed of {stats.memory.allocated:,} allocated"
    return ""


def interrupts(samples: Samples, cell: Cell) -> Finding:
    """Oracle 4: no interrupt raised is lost."""
    if samples.log.stats is None:
        return not_judged(Oracle.INTERRUPTS, samples, "stats")
    sources = measure.interrupt_sources(samples.log)
    if not sources:
        if catalogue.Kind.INTERRUPT in catalogue.LOADS[cell.load].callers:
            return Finding(Oracle.INTERRUPTS, None, "not judged: no interrupt source reported")
        return Finding(Oracle.INTERRUPTS, True, "no interrupts in this load")
    for source in sources:
        if source.handled is None:
            return Finding(Oracle.INTERRUPTS, None, f"not judged: {who(source)} did not count what it handled")
        if source.raised != source.handled:
            lost = (source.raised or 0) - source.handled
            how = f"{lost:,} lost" if lost > 0 else f"{-lost:,} too many"
            return Finding(
                Oracle.INTERRUPTS, False, f"{who(source)}: {source.raised:,} raised, {source.handled:,} handled: {how}"
            )
    told = ", ".join(f"{who(source)} {source.raised:,}" for source in sources)
    return Finding(Oracle.INTERRUPTS, True, f"every interrupt handled: {told}")


def log_clean(events: Events | None, cell: Cell) -> Finding:
    """Oracle 5: after the marker no splat, and no taint but those of the mechanism's own modules."""
    if events is not None and (splat := events.worst):
        return Finding(Oracle.DMESG, False, splat.decisive)
    if events is None or not events.marked:
        return Finding(Oracle.DMESG, None, "not judged: the kernel log from the marker on is missing")
    asked = set(catalogue.MECHANISMS[cell.mechanism].taints)
    for taint in events.taints:
        if extra := set(taint.flags) - asked:
            return Finding(Oracle.DMESG, False, f"kernel tainted {''.join(sorted(extra))}: {taint.line}")
    return Finding(Oracle.DMESG, True, f"no splat in {events.lines:,} lines")


def refusals(samples: Samples) -> Finding:
    """Oracle 6: what must be refused is refused, with the right error, and the state is identical afterwards."""
    cases = samples.log.refusals
    if cases is None:
        return not_judged(Oracle.REFUSALS, samples, "refusals")
    for case in cases:
        if not case.refused:
            return Finding(Oracle.REFUSALS, False, f"{case.case}: was let in, expected {case.expected}")
        if case.got != case.expected:
            return Finding(Oracle.REFUSALS, False, f"{case.case}: refused with {case.got}, expected {case.expected}")
        if not case.same:
            return Finding(Oracle.REFUSALS, False, f"{case.case}: refused, but the state changed")
    tried = {case.case for case in cases}
    if untried := [case for case in REFUSAL_CASES if case not in tried]:
        return Finding(Oracle.REFUSALS, None, f"not judged: never tried: {', '.join(untried)}")
    return Finding(Oracle.REFUSALS, True, f"{len(cases)} attempts refused, state unchanged")
