# SPDX-License-Identifier: GPL-2.0-or-later
"""What mechanism `adaptive` promises: see kmod/mechanisms/adaptive."""

from __future__ import annotations

from lab.cell import Cell
from lab.measure import Samples
from lab.ownlog import Adaptation
from lab.runlog import Stats

POLICIES = ("all-new", "percent", "task", "cpu", "latency")


def broken(samples: Samples, stats: Stats, cell: Cell) -> str:
    """The handler's policy is obeyed to the call, and several editions really lived at once."""
    told = stats.adaptive
    if told is None:
        return "no word of the adaptation handler"
    return _decisions(stats, told) or _policies(told) or _side_by_side(samples, stats, told)


def _decisions(stats: Stats, told: Adaptation) -> str:
    """Each decision became a reference to the edition that was chosen, and each reference comes from one."""
    decided = {(edition.slot, edition.version): edition for edition in told.editions}
    for edition in stats.editions:
        who = f"edition {edition.name} version {edition.version}"
        chosen = decided.get((edition.slot, edition.version))
        if chosen is None:
            return f"{who}: no word of how often it was chosen"
        if chosen.open:
            return f"{who}: {chosen.open:,} rounds were not ended"
        calls, references = sum(chosen.decided.values()) - chosen.rounds + chosen.joined, edition.issued
        if calls != references:
            return f"{who}: the handler chose it for {calls:,} calls, but it got {references:,}"
    return ""


def _policies(told: Adaptation) -> str:
    if astray := sum(told.astray):
        return f"{astray:,} calls were answered by an edition that the policy did not choose"
    for cpu, (calls, newest) in enumerate(zip(told.percent, told.newest, strict=True)):
        hundreds, rest = divmod(calls, 100)
        if newest != (wanted := hundreds * told.share + rest * told.share // 100):
            return (
                f"CPU {cpu}: the newest edition got {newest:,} of {calls:,} calls, {told.share} percent are {wanted:,}"
            )
    for cpu, (calls, switches) in enumerate(zip(told.latency, told.switches, strict=True)):
        if switches * told.dwell_calls > calls:
            return f"CPU {cpu}: the handler changed its mind {switches:,} times in {calls:,} calls"
    return ""


def _side_by_side(samples: Samples, stats: Stats, told: Adaptation) -> str:
    done = samples.swaps.done if samples.swaps else 0
    if told.at_once < (wanted := min(done, told.keep) + 1):
        return f"at most {told.at_once} editions answered at once, after {done:,} swaps {wanted} should have"
    gone = sum(edition.state == "gone" for edition in stats.editions)
    if told.stack_found or told.stack_checks < gone:
        return (
            f"{gone:,} editions went, stacks were searched {told.stack_checks:,} times: "
            f"in {told.stack_found:,} a task was in the old text although nobody held it"
        )
    if told.policy == "cycle" and done >= len(POLICIES):
        for policy in POLICIES:
            if not any(edition.decided.get(policy) for edition in told.editions):
                return f"policy {policy} chose no edition"
    return ""
