# SPDX-License-Identifier: GPL-2.0-or-later
"""What one oracle says, and the words that all of them use."""

from __future__ import annotations

from dataclasses import dataclass

from lab import measure
from lab.catalogue import Oracle
from lab.measure import Samples
from lab.runlog import Caller, Stats


@dataclass(frozen=True, slots=True)
class Finding:
    """What one oracle says; `ok` is None when the figures it needs are missing."""

    oracle: Oracle
    ok: bool | None
    detail: str


def not_judged(oracle: Oracle, samples: Samples, *parts: str) -> Finding:
    """The figures it needs are missing: which."""
    missing = [part for part in parts if part in samples.log.missing]
    return Finding(oracle, None, f"not judged: {', '.join(missing) or 'a count'} missing")


def who(caller: Caller) -> str:
    """A caller by name."""
    return caller.name or f"thread {caller.id}"


def made_again(samples: Samples, stats: Stats) -> int:
    """How often a call that was cut off was made again, by its callers' count."""
    again = stats.nested.again if stats.nested else 0
    return again + sum((caller.retried or 0) + (caller.recovered or 0) for caller in measure.callers(samples.log))
