# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw counts -> samples: totals, quantiles, the blackout. Pure. What was not measured is None, never 0.

Latencies come as log-bucketed histograms with `sub_bits` bits of mantissa (HdrHistogram's idea): merged by adding, and
a quantile is the upper edge of its bucket, at most 1/2^sub_bits too high and never above the longest call seen.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lab import gaps, runlog
from lab.runlog import Caller, RunLog

Phase = Literal["before", "during", "after"]
PHASES: tuple[Phase, ...] = ("before", "during", "after")
STEPS = ("load", "publish", "drain", "retire", "unload", "flush", "fault")


@dataclass(frozen=True, slots=True)
class Calls:
    """Totals over every caller, threads and interrupt sources."""

    issued: int
    completed: int
    failed: int
    aborted: int | None  # cut off in an edition that was replaced, the kernel's count
    retried: int | None  # made again, the callers' count
    recovered: int | None  # of those, by the caller's own recovery routine
    wrong: int | None
    stale: int | None


@dataclass(frozen=True, slots=True)
class Rounds:
    """Calls that belong together: a slot's and its mate's; a top half and its bottom half."""

    made: int
    torn: int  # answered by more than one edition


@dataclass(frozen=True, slots=True)
class Policy:
    """Opens of files that every policy allows, or forbids, over all threads of that kind."""

    opens: int
    forbidden_opened: int
    slipped: int  # of those, how many an edition had been asked about
    allowed_refused: int
    refused: int


@dataclass(frozen=True, slots=True)
class Swaps:
    """How many swaps were asked for, and what became of them."""

    requested: int
    done: int
    refused: int
    failed: int


@dataclass(frozen=True, slots=True)
class Spread:
    """One step of the swaps, ns."""

    p50: int
    max: int
    n: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Call latencies of one phase, ns."""

    p50: int
    p99: int
    p999: int
    max: int
    n: int


@dataclass(frozen=True, slots=True)
class Irqs:
    """Interrupts of every source together."""

    raised: int
    handled: int

    @property
    def lost(self) -> int:
        """Raised and never handled."""
        return self.raised - self.handled


@dataclass(frozen=True, slots=True)
class Samples:
    """The figures of one cell, and the typed log they come from."""

    log: RunLog
    calls: Calls | None
    rounds: Rounds | None
    policy: Policy | None
    swaps: Swaps | None
    swap_ns: dict[str, Spread | None]
    blackout_ns: int | None
    blackout_exact: bool | None
    blackout_raw_ns: int | None
    latency_ns: dict[str, Latency | None]
    irqs: Irqs | None
    editions: dict[str, int] | None  # name -> completed calls, the kernel's count
    editions_at_once: int | None  # the most that answered calls at the same time, where the mechanism counts that
    leaks: tuple[str, ...] | None


def samples(raw: Mapping[str, Any]) -> Samples:
    """The samples of the tools' raw output; any part may be missing, then what depends on it is None."""
    log = runlog.read(raw)
    blackout_ns, exact, raw_ns = gaps.blackout(log, callers(log))
    total = log.swap_total
    return Samples(
        log=log,
        calls=_calls(log),
        rounds=_rounds(log),
        policy=_policy(log),
        swaps=Swaps(total.requested, total.done, total.refused, total.failed) if total else None,
        swap_ns={step: _spread(log, step) for step in STEPS},
        blackout_ns=blackout_ns,
        blackout_exact=exact,
        blackout_raw_ns=raw_ns,
        latency_ns={phase: latency(log, phase) for phase in PHASES},
        irqs=_irqs(log),
        editions=_editions(log),
        editions_at_once=log.stats.adaptive.at_once if log.stats and log.stats.adaptive else None,
        leaks=_leaks(log),
    )


def threads(log: RunLog) -> list[Caller]:
    """The threads that call."""
    return list(log.load.threads) if log.load else []


def interrupt_sources(log: RunLog) -> list[Caller]:
    """The sources that call from interrupt context."""
    return [source for source in log.stats.sources if source.raised is not None] if log.stats else []


def callers(log: RunLog) -> list[Caller]:
    """Everybody who calls."""
    return threads(log) + interrupt_sources(log)


def bucket_top(bucket: int, sub_bits: int) -> int:
    """The highest value, in ns, that falls into a histogram's bucket."""
    base = 1 << sub_bits
    if bucket < base:
        return bucket
    shift = (bucket >> sub_bits) - 1
    return ((base + (bucket & (base - 1)) + 1) << shift) - 1


def quantile(hist: Mapping[int, int], q: float, sub_bits: int) -> int | None:
    """The value that a share `q` of all entries does not exceed, ns; None for an empty histogram."""
    total = sum(hist.values())
    if total == 0:
        return None
    rank = max(1, -(-total * round(q * 1_000_000) // 1_000_000))  # ceiling, exact for any count
    seen = 0
    for bucket in sorted(hist):
        seen += hist[bucket]
        if seen >= rank:
            return bucket_top(bucket, sub_bits)
    raise AssertionError("a rank is at most the total")


def _calls(log: RunLog) -> Calls | None:
    everybody = callers(log)
    if log.load is None or log.stats is None:
        return None
    return Calls(
        issued=sum(caller.issued for caller in everybody),
        completed=sum(caller.completed for caller in everybody),
        failed=sum(caller.failed for caller in everybody),
        retried=_sum(value for caller in everybody for value in (caller.retried, caller.recovered)),
        recovered=_sum(caller.recovered for caller in everybody),
        aborted=sum(edition.aborted for edition in log.stats.editions),
        wrong=_sum(caller.wrong for caller in everybody),
        stale=_sum(caller.stale for caller in everybody),
    )


def _rounds(log: RunLog) -> Rounds | None:
    made, torn = (_sum(getattr(caller, key) for caller in callers(log)) for key in ("rounds", "torn"))
    return Rounds(made, torn or 0) if made is not None else None


def _policy(log: RunLog) -> Policy | None:
    told = [thread.policy for thread in threads(log) if thread.policy is not None]
    if not told:
        return None
    return Policy(**{key.name: sum(getattr(one, key.name) for one in told) for key in dataclasses.fields(Policy)})


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _spread(log: RunLog, step: str) -> Spread | None:
    values = [value for swap in log.swaps if (value := getattr(swap, f"{step}_ns")) is not None]
    return Spread(int(statistics.median_low(values)), max(values), len(values)) if values else None


def latency_hist(log: RunLog, phase: Phase) -> tuple[Counter[int], list[int]]:
    """(bucket -> calls, the longest call of each caller, ns) of one phase.

    Of the threads of system calls; where there are none, of the other threads; where none, of the
    interrupt sources. They are never mixed: a page fault or an open is more than its call.
    """
    group = [caller for caller in threads(log) if caller.completed and caller.hist]
    group = [caller for caller in group if caller.kind == "syscall"] or group
    group = group or [caller for caller in interrupt_sources(log) if caller.completed and caller.hist]
    hist: Counter[int] = Counter()
    longest: list[int] = []
    for caller in group:
        for bucket, count in getattr(caller.hist, phase):
            hist[bucket] += count
        if caller.max_ns and (value := getattr(caller.max_ns, phase)) is not None:
            longest.append(value)
    return hist, longest


def latency(log: RunLog, phase: Phase) -> Latency | None:
    """The quantiles of `latency_hist`; None where no call was timed in that phase."""
    if log.load is None:
        return None
    hist, longest = latency_hist(log, phase)
    values = [quantile(hist, q, log.load.sub_bits) for q in (0.5, 0.99, 0.999, 1.0)]
    if any(value is None for value in values):
        return None
    top = max(longest) if any(longest) else values[3]
    p50, p99, p999, highest = (min(value or 0, top or 0) for value in values)
    return Latency(p50, p99, p999, highest, sum(hist.values()))


def _irqs(log: RunLog) -> Irqs | None:
    sources = [source for source in interrupt_sources(log) if source.handled is not None]
    if not sources:
        return None
    return Irqs(sum(source.raised or 0 for source in sources), sum(source.handled or 0 for source in sources))


def _editions(log: RunLog) -> dict[str, int] | None:
    if log.stats is None:
        return None
    totals: Counter[str] = Counter()
    for edition in log.stats.editions:
        totals[edition.name] += edition.completed
    return dict(totals)


def _leaks(log: RunLog) -> tuple[str, ...] | None:
    if log.down is None:
        return None
    left = [f"module {name} still loaded" for name in log.down.modules_left]
    return (*log.down.leaks, *left)
