# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's tools print becomes raw data, bounded and clean, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab import measure, workload
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


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[",
        b"7",
        b"[" * 100_000,
        b'{"load":' * 100_000,
        b'{"load":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"load":NaN}',
        b'{"load":' + b"9" * 5000 + b"}",
        b'{"load":"\xff'
    ],
)  # fmt: skip
def test_what_is_no_json_of_a_tool_is_dropped(line: bytes) -> None:
    assert take(line) == Raw().data


def test_a_lone_surrogate_ends_in_no_report() -> None:
    data = take(b'{"error":"\\ud800 no"}', b'{"down":{"leaks":["\\udfff"],"modules_left":[],"drained":true}}')
    assert data["errors"] == [" no"] and data["down"]["leaks"] == [""]
    assert take(b'{"error":"\\ud83d\\ude00"}')["errors"] == ["\N{GRINNING FACE}"]  # a pair is a character
    measure.samples(data)


def test_an_escape_that_json_spells_is_cleaned_too() -> None:
    line = json.dumps({"stats": {"\x1b[2Jkey": [{"name": "\x1b]0;owned\x07x\u202e"}, 1, None]}})
    assert "\\u001b" in line
    assert take(line.encode())["stats"] == {"key": [{"name": "x"}, 1, None]}
