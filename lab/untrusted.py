# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests are untrusted: whatever they print is cleaned before a person or a file sees it."""

from __future__ import annotations

import re

# ECMA-48: CSI sequences, OSC strings up to BEL or ST, and two-byte escapes.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|[ -/]{0,8}[0-~])")
# Everything below space but tab and newline, DEL, the C1 block, and Unicode's bidirectional overrides.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(data: bytes | str) -> str:
    """Text without terminal escapes, control characters (tab and newline stay) or bad UTF-8."""
    text = data.decode("utf-8", errors="replace") if isinstance(data, bytes) else data
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def one_line(data: bytes | str, limit: int = 300) -> str:
    """The first non-empty line, cleaned and cut to `limit` characters."""
    return next((line.strip()[:limit] for line in clean(data).splitlines() if line.strip()), "")
