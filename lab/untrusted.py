# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests are untrusted: whatever they print is cleaned before a person or a file sees it."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 24  # of nested JSON; the tools' own has 8

# ECMA-48: CSI sequences, OSC strings up to BEL or ST, and two-byte escapes.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|[ -/]{0,8}[0-~])")
# Everything below space but tab and newline, DEL, the C1 block, Unicode's bidirectional overrides, and surrogates:
# JSON may hold one alone, and no file can.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(data: bytes | str) -> str:
    """Text without terminal escapes, control characters (tab and newline stay) or bad UTF-8."""
    text = data.decode("utf-8", errors="replace") if isinstance(data, bytes) else data
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def one_line(data: bytes | str, limit: int = 300) -> str:
    """The first non-empty line, cleaned and cut to `limit` characters."""
    return next((line.strip()[:limit] for line in clean(data).splitlines() if line.strip()), "")


def words(text: str) -> str:
    """All of a text on one line, cleaned."""
    return " ".join(clean(text).split())


def from_json(data: bytes | str) -> Any:
    """What a line of JSON says, every string in it cleaned. ValueError when it is none or nested too deep."""
    try:
        value = json.loads(clean(data), parse_constant=_no_number)
    except RecursionError as e:
        raise ValueError("nested too deep") from e
    return _cleaned(value, MAX_DEPTH)


def _cleaned(value: Any, depth: int) -> Any:
    """The same with clean strings: an escape that JSON spells \\u001b shows only once it is decoded."""
    if isinstance(value, str):
        return clean(value)
    if not isinstance(value, (dict, list)):
        return value
    if depth == 0:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        return {clean(key): _cleaned(one, depth - 1) for key, one in value.items()}
    return [_cleaned(one, depth - 1) for one in value]


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
