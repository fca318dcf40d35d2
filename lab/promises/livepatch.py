# SPDX-License-Identifier: GPL-2.0-or-later
"""What the peer `livepatch` promises: see kmod/peers/livepatch.c."""

from __future__ import annotations

from lab.cell import Cell
from lab.measure import Samples
from lab.runlog import Stats


def broken(samples: Samples, stats: Stats, cell: Cell) -> str:
    """Each edition's transition came to its end by itself and left nobody in the edition before."""
    figures = stats.livepatch
    if figures is None:
        return "no word of livepatch's transitions"
    if figures.forced:
        return f"{figures.forced:,} of {figures.transitions:,} transitions were forced"
    if figures.left_inside:
        return f"{figures.left_inside:,} of {figures.transitions:,} transitions left calls in the old edition"
    # Each edition that came is one transition: the first, the swaps, and the swap that `refuse` makes.
    if figures.transitions != len(stats.editions):
        return f"{len(stats.editions):,} editions, but {figures.transitions:,} transitions came to their end"
    return ""
