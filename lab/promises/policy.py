# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds under load `policy`, whatever the mechanism: see kmod/load/policy.c."""

from __future__ import annotations

from lab import catalogue, measure
from lab.catalogue import Kind
from lab.cell import Cell
from lab.measure import Samples
from lab.runlog import Stats


def broken(samples: Samples, stats: Stats, cell: Cell) -> str:
    """How access control was broken: a forbidden file opened, an allowed one refused, or the two accounts differ.

    Where nobody stands behind the slot nothing is mediated. A mechanism whose calls may fail is allowed that hole, and
    nothing else: what an edition was asked about it must have decided rightly.
    """
    opened = samples.policy
    if opened is None or not opened.opens:
        return "no word of any open"
    denied = sum(source.denied or 0 for source in stats.sources if source.name == Kind.POLICY)
    failed = sum(thread.failed for thread in measure.threads(samples.log) if thread.kind == Kind.POLICY)
    if opened.allowed_refused:
        return f"{opened.allowed_refused:,} of {opened.opens:,} opens were of allowed files and refused"
    if opened.slipped:
        return f"{opened.slipped:,} of {opened.opens:,} opens were of forbidden files, asked about and not refused"
    if opened.forbidden_opened > failed:
        return f"{opened.forbidden_opened:,} forbidden files opened, but only {failed:,} opens found nobody to ask"
    if opened.forbidden_opened and not catalogue.MECHANISMS[cell.mechanism].calls_may_fail:
        return f"{opened.forbidden_opened:,} of {opened.opens:,} opens were of forbidden files and succeeded"
    if opened.refused != denied:
        return f"{opened.refused:,} opens refused, but editions denied {denied:,}"
    return ""


def told(samples: Samples) -> str:
    """The hole, as a clause."""
    opened = samples.policy
    if opened is None:
        return ""
    return f"; {opened.forbidden_opened:,} of {opened.opens:,} opens got a forbidden file, no allowed one was refused"
