# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is to stop where its kernel complains."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

from lab.up import _Watch

SPLAT = b"BUG: unable to handle page fault\n"


class Stay:
    """Freezes only once its console was read on, as QEMU does; remembers why."""

    def __init__(self) -> None:
        self.read_on, self.given_up = threading.Event(), threading.Event()
        self.why: list[str] = []
        self.guest = SimpleNamespace(give_up=lambda _why: self.given_up.set())

    def freeze(self, why: str) -> None:
        assert self.read_on.wait(10)
        self.why.append(why)


def test_the_first_splat_freezes_it_and_the_console_is_read_on() -> None:
    stay = Stay()
    watch = _Watch(freeze=True, stay=cast(Any, stay))
    watch.see(SPLAT)
    watch.see(b"Oops: 0000 [#1]\n")
    stay.read_on.set()
    assert stay.given_up.wait(10)
    assert stay.why == ["BUG: unable to handle page fault"]


def test_a_splat_before_it_is_kept_counts_once_it_is() -> None:
    stay = Stay()
    stay.read_on.set()
    watch = _Watch(freeze=True)
    watch.see(SPLAT)
    watch.stay = cast(Any, stay)
    watch.act()
    assert set(stay.why) == {"BUG: unable to handle page fault"}


def test_nobody_asked_for_it() -> None:
    stay = Stay()
    watch = _Watch(freeze=False, stay=cast(Any, stay))
    watch.see(SPLAT)
    assert not watch.first
