# SPDX-License-Identifier: GPL-2.0-or-later
"""What mechanism `transaction` promises, beside whole rounds: see kmod/mechanisms/transaction.c."""

from __future__ import annotations

from lab.cell import Cell
from lab.measure import Samples
from lab.runlog import Stats

CHANGE_EVERY = 4  # one swap in so many changes the layout of the state (kmod/tools/swap.c)


def broken(samples: Samples, stats: Stats, cell: Cell) -> str:
    """Each object comes to each layout exactly once; no transaction stays open."""
    told = stats.transaction
    if told is None:
        return "no word of transactions"
    if told.open:
        return f"{told.open:,} transactions never ended"
    if told.transformed != told.steps:
        return f"transformers ran {told.transformed:,} times for {told.steps:,} steps from layout to layout"
    if told.steps + told.behind != told.objects * told.changes:
        wanted = told.objects * told.changes
        return f"{told.objects:,} objects took {told.steps:,} of {wanted:,} steps, but {told.behind:,} are behind"
    done = samples.swaps.done if samples.swaps else 0
    if told.changes < done // CHANGE_EVERY:
        return f"only {told.changes:,} of {done:,} swaps changed the layout"
    return ""
