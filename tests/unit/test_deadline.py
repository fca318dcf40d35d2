# SPDX-License-Identifier: GPL-2.0-or-later
"""Deadlines only ever get nearer."""

import pytest

from lab.deadline import Deadline, wait_until
from lab.errors import DeadlineError


def test_wait_until_names_what_was_waited_for() -> None:
    with pytest.raises(DeadlineError, match="the moon did not happen within 0.0 s"):
        wait_until(lambda: False, "the moon", Deadline.after(0))


def test_wait_until_returns_at_once_when_true() -> None:
    wait_until(lambda: True, "nothing", Deadline.after(0))
