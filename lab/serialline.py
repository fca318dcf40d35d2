# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's serial line on this terminal: keys go there, what it prints comes here, until the escape key.

The keeper holds the line (`lab.console`); several terminals may look at it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from lab import stayed
from lab.errors import LabError, UsageError
from lab.stayed import Record
from lab.untrusted import clean

QUIET_S = 1.0  # once our input has ended: how long the line may be silent
ANSWER_S = 30.0


def key(text: str) -> int:
    """The code of a key written as ^]; UsageError for what is none."""
    if len(text) != 2 or text[0] != "^" or not text.isascii() or not 0x40 <= ord(text[1].upper()) <= 0x5F:
        raise UsageError(f"'{text}' is no key", hint="write Ctrl and a letter or one of [ \\ ] ^ _ as in ^]")
    return ord(text[1].upper()) & 0x1F


def on_terminal() -> bool:
    """Whether somebody sits there, whose keys go to the guest as they are but for the one that leaves."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def talk(record: Record, *, escape: int) -> None:
    """Connect the terminal, or whatever stdin and stdout are, with the line.

    Returns when the escape key was pressed or the guest has ended; where stdin is no terminal, also when that has ended
    and the line is silent.
    """
    with stayed.asked(record, {"do": "console"}, timeout_s=ANSWER_S) as (_, line):
        line.settimeout(None)
        if on_terminal():
            with _raw(sys.stdin.fileno()), _size_told(record):
                ended = _relay(line, escape)
            told = f"{record.name} has ended" if ended else f"left {record.name}, which goes on"
            print(f"\nlab: {told}", file=sys.stderr)
        else:
            _relay(line, None)


def _relay(line: socket.socket, escape: int | None) -> bool:
    """Both directions; whether the line ended. Without an escape key what it prints is cleaned."""
    keys: int | None = sys.stdin.fileno()
    quiet_at_s = float("inf")
    while True:
        sources: list[socket.socket | int] = [line] if keys is None else [line, keys]
        turn_s = None if keys is not None else max(0.0, quiet_at_s - time.monotonic())
        ready = select.select(sources, [], [], turn_s)[0]
        if not ready and keys is None:
            return False
        if line in ready:
            data = line.recv(1 << 16)
            if not data:
                return True
            if keys is None:
                quiet_at_s = time.monotonic() + QUIET_S
            _print(data if escape is not None else clean(data).encode())
        if keys in ready and keys is not None:
            typed = os.read(keys, 1 << 12)
            before, pressed, _ = typed.partition(bytes([escape])) if escape is not None else (typed, b"", b"")
            with suppress(OSError):  # its end is read next
                line.sendall(before)
            if pressed:
                return False
            if not typed:
                keys, quiet_at_s = None, time.monotonic() + QUIET_S


def _print(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _size_told(record: Record) -> Iterator[None]:
    """Tell the guest the terminal's size, now and whenever it changes."""

    def changed(_number: int = 0, _frame: FrameType | None = None) -> None:
        threading.Thread(target=_tell_size, args=(record,), name="resize", daemon=True).start()

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        changed()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _tell_size(record: Record) -> None:
    """Have the keeper tell the guest this terminal's size; one that does not listen keeps its own."""
    with suppress(OSError, LabError):
        size = os.get_terminal_size(sys.stdout.fileno())
        stayed.ask(record, {"do": "resize", "rows": size.lines, "columns": size.columns}, timeout_s=ANSWER_S)
