# SPDX-License-Identifier: GPL-2.0-or-later
"""Unit tests run after every change, so they do not pay for what none of them looks at."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


def _memory() -> str | None:
    """Where files are in memory, and scripts can be run."""
    place = "/dev/shm"
    if not os.access(place, os.W_OK) or os.statvfs(place).f_flag & os.ST_NOEXEC:
        return None
    return place


@pytest.fixture(scope="package", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Nobody pulls the plug during a unit test: files need not reach the disk, which others may keep busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: None)
        yield


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder as pytest's own, but in memory where that can be had, and without its book-keeping on the disk."""
    with tempfile.TemporaryDirectory(prefix="lab-", dir=_memory(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)
