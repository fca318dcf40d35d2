# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's tools print becomes raw data, bounded and clean, whatever it is."""

from __future__ import annotations

import json
from typing import Any

from lab import workload
from lab.workload import Raw


def take(*lines: bytes) -> dict[str, Any]:
    raw = Raw()
    for line in lines:
        workload._take(raw.data, line)
    return raw.data


def test_lines_without_end_are_dropped() -> None:
    data = take(*[json.dumps({key: 1}).encode() for key in ("swap", "error") for _ in range(10_000)])
    assert len(data["swaps"]) == workload.SWAPS_KEPT
    assert len(data["errors"]) == workload.ERRORS_KEPT
