# SPDX-License-Identifier: GPL-2.0-or-later
"""The speed program on QEMU's bare machines."""

import pytest

from lab import emulation


@pytest.mark.parametrize("loop", emulation.LOOPS, ids=lambda loop: loop.command[0])
def test_the_speed_program_runs_to_its_end(loop: emulation.Loop) -> None:
    assert emulation.measure(loop) > 0
