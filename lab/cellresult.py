# SPDX-License-Identifier: GPL-2.0-or-later
"""One cell's result.json, as a type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.cell import Cell
from lab.events import Events
from lab.measure import Samples
from lab.verdict import Status, Verdict


@dataclass(frozen=True, slots=True)
class CellResult:
    """One cell's result.json. A figure that was not measured is None, never 0."""

    id: str
    arch: str
    kernel: str
    hardware: str
    mechanism: str
    load: str
    status: Status
    reason: str
    release: str | None = None  # uname -r of the guest
    accel: str | None = None
    duration_s: float | None = None
    phases: dict[str, float] = field(default_factory=dict)  # start_s, build_s, load_s, ...
    warm: bool | None = None  # restored, not booted
    mutant: str | None = None
    seed: int | None = None
    calls: dict[str, int | None] | None = None
    rounds: dict[str, int] | None = None  # calls that belong together, and how many of them saw two editions
    policy: dict[str, int] | None = None  # opens of files; forbidden ones that were opened, allowed ones refused
    swaps: dict[str, int] | None = None
    swap_ns: dict[str, dict[str, int] | None] | None = None
    blackout_ns: int | None = None
    blackout_exact: bool | None = None  # false: a lower bound if blackout_raw_ns is longer, else an upper one
    blackout_raw_ns: int | None = None  # as seen, with the time in which a CPU stood still
    latency_ns: dict[str, dict[str, int] | None] | None = None
    irqs: dict[str, int] | None = None
    editions: dict[str, int] | None = None
    editions_at_once: int | None = None  # the most that answered calls at the same time, where that was counted
    isolation: dict[str, Any] | None = None  # the mechanism's proof that nothing runs in old text; runlog.Invalidation
    transitions: dict[str, Any] | None = None  # the peer's, and who held them up; ownlog.Livepatch
    leaks: list[str] | None = None
    splats: list[dict[str, Any]] | None = None
    oracles: list[dict[str, Any]] = field(default_factory=list)
    next: str = ""
    known: str | None = None  # why this failure is known, and until when: it does not count (lab.known)

    @property
    def cell(self) -> Cell:
        """The cell it belongs to."""
        return Cell(self.arch, self.kernel, self.mechanism, self.load, self.hardware)

    @property
    def red(self) -> bool:
        """Whether somebody has to look at it: red, and not a known failure."""
        return self.status.red and not self.known

    @property
    def verdict(self) -> str:
        """Its verdict in words: PASS, FAIL, known FAIL, ..."""
        return f"known {self.status.value}" if self.known else self.status.value

    def to_json(self) -> dict[str, Any]:
        """As in result.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CellResult:
        """The result of a result.json; keys of a newer lab are dropped. KeyError, TypeError or ValueError if broken."""
        known = {one.name for one in dataclasses.fields(cls)}
        words = {key: value[key] for key in value if key in known}
        return cls(**(words | {"status": Status(value["status"])}))


def cell_result(
    cell: Cell,
    verdict: Verdict,
    *,
    samples: Samples | None = None,
    events: Events | None = None,
    release: str | None = None,
    accel: str | None = None,
    duration_s: float | None = None,
    phases: Mapping[str, float] | None = None,
    warm: bool | None = None,
    mutant: str | None = None,
    seed: int | None = None,
) -> CellResult:
    """Put together what is known of a finished cell."""
    figures: dict[str, Any] = {}
    if samples is not None:
        irqs = samples.irqs
        proof = samples.log.stats.invalidate if samples.log.stats else None
        figures = {
            "calls": _dict(samples.calls),
            "rounds": _dict(samples.rounds),
            "policy": _dict(samples.policy),
            "swaps": _dict(samples.swaps),
            "swap_ns": {step: _dict(spread) for step, spread in samples.swap_ns.items()},
            "blackout_ns": samples.blackout_ns,
            "blackout_exact": samples.blackout_exact,
            "blackout_raw_ns": samples.blackout_raw_ns,
            "latency_ns": {phase: _dict(latency) for phase, latency in samples.latency_ns.items()},
            "irqs": {"raised": irqs.raised, "handled": irqs.handled, "lost": irqs.lost} if irqs else None,
            "editions": samples.editions,
            "editions_at_once": samples.editions_at_once,
            "isolation": proof.model_dump() if proof else None,
            "transitions": told.model_dump() if (told := samples.log.stats and samples.log.stats.livepatch) else None,
            "leaks": list(samples.leaks) if samples.leaks is not None else None,
        }
    return CellResult(
        id=cell.id,
        arch=cell.arch,
        kernel=cell.kernel,
        hardware=cell.hardware,
        mechanism=cell.mechanism,
        load=cell.load,
        status=verdict.status,
        reason=verdict.reason,
        release=release,
        accel=accel,
        duration_s=round(duration_s, 3) if duration_s is not None else None,
        phases={name: round(seconds, 3) for name, seconds in (phases or {}).items()},
        warm=warm,
        mutant=mutant or None,
        seed=seed,
        splats=_splats(events),
        oracles=[{"oracle": one.oracle.value, "ok": one.ok, "detail": one.detail} for one in verdict.oracles],
        next=verdict.next_command,
        **figures,
    )


def _dict(value: Any) -> dict[str, Any] | None:
    return dataclasses.asdict(value) if value is not None else None


def _splats(events: Events | None) -> list[dict[str, Any]] | None:
    if events is None:
        return None
    return [
        {"kind": splat.kind.value, "headline": splat.decisive, "panic": splat.panic, "excerpt": list(splat.excerpt)}
        for splat in events.splats
    ]
