# SPDX-License-Identifier: GPL-2.0-or-later
"""One monotonic deadline, made once and passed down; and waiting for a state instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lab import halt
from lab.errors import DeadlineError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time, on the monotonic clock, by which something must have happened."""

    at_s: float
    total_s: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """A deadline `seconds` from now."""
        return cls(at_s=time.monotonic() + seconds, total_s=seconds)

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.at_s

    def check(self, what: str) -> None:
        """Raise DeadlineError, naming what was waited for, once the time is up; Interrupted when told to stop."""
        halt.check()
        if self.passed():
            raise DeadlineError(f"{what} did not happen within {self.total_s:.1f} s")


def wait_until(state: Callable[[], bool], what: str, deadline: Deadline, *, poll_s: float = 0.01) -> None:
    """Return as soon as `state()` is true; raise DeadlineError naming `what` when time is up."""
    while not state():
        deadline.check(what)
        time.sleep(min(poll_s, deadline.remaining_s()))
