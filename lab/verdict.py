# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples and kernel log -> verdict. Pure; a verdict is data, never an exception.

Precedence, the first that holds:

1. CRASH: the guest crashed, its log has a splat, or it reset or shut down once swaps had begun. Nothing measured in
   such a kernel is worth more than that.
2. HANG: no progress before the deadline, as the lab saw it, or the guest's own tools where the cell was not skipped.
3. SKIP: the kernel or host cannot.
4. ERROR: the infrastructure failed, so the figures say nothing of the product.
5. FAIL: an oracle was violated, although other figures may be missing: what is proven stays proven.
6. ERROR: nothing was violated, but a part of the evidence is missing or makes no sense. Never PASS.
7. PASS.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lab import oracles
from lab.cell import Cell
from lab.events import Events
from lab.finding import Finding
from lab.measure import Samples

# What the tools say when nothing moved (kmod/tools: wait_until() in common.c, beat_until_stop() in load.c).
_NO_PROGRESS = re.compile(r"no .+ within \d+ ms")


class Status(StrEnum):
    """A cell's verdict."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    CRASH = "CRASH"
    HANG = "HANG"
    ERROR = "ERROR"
    SKIP = "SKIP"

    @property
    def red(self) -> bool:
        """Whether somebody has to look at it."""
        return self not in (Status.PASS, Status.SKIP)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a cell: one decisive line, what each oracle said, and the command to type next."""

    status: Status
    reason: str
    oracles: list[Finding] = field(default_factory=list)
    next_command: str = ""


def judge(
    samples: Samples | None,
    events: Events | None,
    *,
    cell: Cell,
    crash: str | None = None,
    hang: str | None = None,
    infra: str | None = None,
    skip: str | None = None,
    swaps: int | None = None,
    again: Sequence[str] = (),
) -> Verdict:
    """The verdict of one cell; `crash`, `hang`, `infra` and `skip` are what the runner saw, as one line each.

    `swaps` were asked for; `again` is the command that runs the cell once more, as words.
    """
    found = oracles.findings(samples, events, cell, swaps=swaps) if samples else []
    status, reason = _status(samples, events, found, crash=crash, hang=hang, infra=infra, skip=skip)
    return Verdict(status, reason, found, next_command(status, again))


def next_command(status: Status, again: Sequence[str]) -> str:
    """The command to type next: the same cell again, whose guest then stays; or what tells more about a broken host."""
    if status in (Status.PASS, Status.SKIP):
        return ""
    if status is Status.ERROR:
        return "lab doctor"
    return shlex.join([*again, "--keep", "failed"])


def _status(
    samples: Samples | None,
    events: Events | None,
    found: list[Finding],
    *,
    crash: str | None,
    hang: str | None,
    infra: str | None,
    skip: str | None,
) -> tuple[Status, str]:
    splat = events.worst if events else None
    if splat or crash:
        return Status.CRASH, splat.decisive if splat else crash or ""
    stuck = _no_progress(samples)
    for status, told in ((Status.HANG, hang), (Status.SKIP, skip), (Status.HANG, stuck), (Status.ERROR, infra)):
        if told:
            return status, told
    if samples is None:
        return Status.ERROR, "the cell ended without any figures"
    log = samples.log
    if log.errors and log.load is None and not log.swaps:
        # The tools gave up before the first call: nothing of the product was tried.
        return Status.ERROR, f"the guest's tools: {log.errors[0]}"
    for finding in found:
        if finding.ok is False:
            return Status.FAIL, f"oracle {finding.oracle.value}: {finding.detail}"
    if log.faults:
        return Status.ERROR, f"the guest reported nonsense: {log.faults[0]}"
    if log.missing:
        return Status.ERROR, f"the guest did not report: {', '.join(log.missing)}"
    for finding in found:
        if finding.ok is None:
            return Status.ERROR, f"oracle {finding.oracle.value} {finding.detail}"
    return Status.PASS, _summary(samples)


def _no_progress(samples: Samples | None) -> str:
    """The tools' word that nothing moved, where that was their first complaint: else it only follows from another."""
    first = samples.log.errors[0] if samples and samples.log.errors else ""
    return f"the guest's tools: {first}" if _NO_PROGRESS.fullmatch(first) else ""


def _summary(samples: Samples) -> str:
    calls, swaps = samples.calls, samples.swaps
    assert calls is not None and swaps is not None
    told = f"{swaps.done:,} swaps under {calls.issued:,} calls, {calls.failed:,} failed"
    return f"{told}, {samples.policy.forbidden_opened:,} forbidden files opened" if samples.policy else told
