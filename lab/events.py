# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel log says, as types: splats and taints."""

from __future__ import annotations

from dataclasses import dataclass

from lab.phrases import Kind


@dataclass(frozen=True, slots=True)
class Splat:
    """One thing the kernel complained of."""

    kind: Kind
    headline: str
    symbol: str | None  # where: RIP, pc, or the first frame that belongs to a module
    caller: str | None  # the first frame inside a module, when `symbol` is not in one
    panic: bool  # the kernel stopped
    line: int  # number of the headline's line in the text, from 1
    excerpt: tuple[str, ...]

    @property
    def decisive(self) -> str:
        """The one line that says most: the headline and the place."""
        words = self.headline
        if self.symbol and self.symbol not in words:
            words += f" at {self.symbol}"
        if self.caller and self.caller not in words:
            words += f", from {self.caller}"
        return words


@dataclass(frozen=True, slots=True)
class Taint:
    """A line that says the kernel is tainted; flags as in /proc/sys/kernel/tainted's letters, `?` when not told."""

    flags: str
    line: str


@dataclass(frozen=True, slots=True)
class Events:
    """What a kernel log says after its marker."""

    splats: tuple[Splat, ...] = ()
    taints: tuple[Taint, ...] = ()
    marked: bool = False  # the marker was there (always true when none was asked for)
    lines: int = 0

    @property
    def worst(self) -> Splat | None:
        """The splat to show: the highest rank, the first of those."""
        return min(self.splats, key=lambda splat: (-splat.kind.rank, splat.line), default=None)
