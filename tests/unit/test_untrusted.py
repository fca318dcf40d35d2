# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing a guest prints may move a cursor, retitle a terminal or reorder text."""

from hypothesis import given
from hypothesis import strategies as st

from lab.untrusted import clean, one_line


def test_escapes_go_and_text_stays() -> None:
    assert clean(b"\x1b[31mred\x1b[0m \x1b]0;title\x07ok\x00\r\n\ttab") == "red ok\n\ttab"


def test_unterminated_osc_does_not_swallow_what_follows() -> None:
    assert "Kernel panic" in clean(b"\x1b]0;" + b"x" * 5000 + b"Kernel panic")


def test_bidirectional_overrides_go() -> None:
    assert clean("a\u202eb") == "ab"


@given(st.binary())
def test_output_never_holds_a_control_character(data: bytes) -> None:
    assert not [c for c in clean(data) if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) <= 0x9F]


def test_one_line_takes_the_first_that_says_something() -> None:
    assert one_line(b"\n  \nfirst\nsecond") == "first"
    assert one_line(b"") == ""
    assert len(one_line("x" * 1000, 40)) == 40
