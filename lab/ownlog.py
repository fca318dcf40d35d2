# SPDX-License-Identifier: GPL-2.0-or-later
"""What each mechanism says of itself, typed: its member of the kernel's report. Judged by lab/promises/."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lab.parts import MAX_ITEMS, Count, Part, Signed, Word


class Invalidation(Part):
    """What mechanism `invalidate` says of itself."""

    by: Word  # nx, or unmap where the CPU has no such bit
    faults: Count  # that ended a call in the old edition
    probes: Count  # calls through the old address, made to fault
    contained: Count  # of those, how many did
    escaped: Count  # of those, how many ran
    misrestored: Count  # landings after which the caller's context had to be put right by force
    sleepers: Count  # tasks that slept on where nobody could wake them


class AdaptiveEdition(Part):
    """How often one edition was chosen to answer, and what came of it."""

    slot: Word
    version: Count
    decided: dict[Word, Count]  # by policy
    rounds: Count  # of those decisions, how many were for a round of calls
    open: Signed  # rounds not ended
    joined: Count  # calls that came with a round


class Adaptation(Part):
    """What mechanism `adaptive` says of itself. Lists are by CPU."""

    policy: Word
    keep: Count  # editions that stay live
    at_once: Count  # most that shared calls
    share: Count  # percent of the calls that policy `percent` gives to the newest
    dwell_calls: Count  # calls on a CPU between two changes of mind of policy `latency`
    percent: Annotated[list[Count], Field(max_length=8192)]  # calls shared out by percentage
    newest: Annotated[list[Count], Field(max_length=8192)]  # of those, what the newest edition answered
    latency: Annotated[list[Count], Field(max_length=8192)]  # calls shared out by latency
    switches: Annotated[list[Count], Field(max_length=8192)]  # changes of mind among them
    astray: Annotated[list[Count], Field(max_length=8192)]  # answered by an edition that the policy did not choose
    stack_checks: Count  # how often all stacks were searched for old text
    stack_found: Count  # of those, how often a task was in it although nobody held a reference
    editions: Annotated[list[AdaptiveEdition], Field(max_length=MAX_ITEMS)]


class Transaction(Part):
    """What mechanism `transaction` says of itself."""

    changes: Count  # updates that changed the layout of the state
    retries: Count  # switches tried again, for an interrupt had begun one
    waited: Count  # tasks that waited until such an update was over
    open: Count  # transactions that have not ended
    objects: Count  # of the state
    behind: Count  # objects that nobody has touched since the last change
    steps: Count  # layouts that the objects have come through, all together
    transformed: Count  # calls of a transformer
    touched: Count  # of those, at an object's first touch


class Livepatch(Part):
    """What the peer `livepatch` says of its transitions."""

    transitions: Count  # that came to their end
    longest_ns: Count
    asked: Count  # how often a waiting swapper had livepatch look at the tasks before its own timer would
    forced: Count  # ended by an administrator's `force`
    left_inside: Count  # transitions after which a call was still in the old edition
    kept_for_late: Count  # old editions kept for tasks that livepatch does not see, on preemptible kernels
    late: Count  # calls that came into an edition after the transition away from it
    stalled: Count  # tasks that held one up for a second or more
    stalled_names: Annotated[list[Word], Field(max_length=64)] = []  # the last few of them
