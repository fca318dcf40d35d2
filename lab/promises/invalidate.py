# SPDX-License-Identifier: GPL-2.0-or-later
"""What mechanism `invalidate` promises: see kmod/mechanisms/invalidate."""

from __future__ import annotations

from lab import catalogue
from lab.cell import Cell
from lab.finding import made_again
from lab.measure import Samples
from lab.runlog import Stats

PROBES = 5  # calls through the old address at each swap: four from a task, one or more from a hard interrupt


def broken(samples: Samples, stats: Stats, cell: Cell) -> str:
    """Calls that are cut off: each is made again, none twice, and nothing reaches the old text."""
    proof = stats.invalidate
    if proof is None:
        return "no word of the isolation proof"
    aborted, again = sum(edition.aborted for edition in stats.editions), made_again(samples, stats)
    if aborted != again:
        return f"{aborted:,} calls cut off, but {again:,} made again"
    if proof.escaped or proof.contained != proof.probes:
        return f"{proof.probes:,} calls through old addresses: {proof.contained:,} faulted, {proof.escaped:,} ran there"
    if proof.misrestored:
        return f"{proof.misrestored:,} callers did not get their context back after a fault"
    done = samples.swaps.done if samples.swaps else 0
    if proof.probes < done * PROBES:
        return f"only {proof.probes:,} calls through old addresses in {done:,} swaps"
    if done and catalogue.LOADS[cell.load].stays and not (aborted and proof.faults):
        return "no call was cut off, with callers that stay"
    for edition in stats.editions:
        if edition.committed is not None and edition.committed != edition.settled:
            return (
                f"edition {edition.name} version {edition.version}: {edition.committed:,} calls did their work, "
                f"but {edition.settled or 0:,} returned"
            )
    return ""
