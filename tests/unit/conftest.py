# SPDX-License-Identifier: GPL-2.0-or-later
"""Unit tests run after every change, so they do not pay for what none of them looks at."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: no example has to be quick.
settings.register_profile("lab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lab")

gc.disable()  # pytest rewrites every test's asserts, and all it builds for that stays


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on garbage is collected as ever, but for what is there by now."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="package", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Nobody pulls the plug during a unit test: files need not reach the disk, which others may keep busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: None)
        yield
