# SPDX-License-Identifier: GPL-2.0-or-later
"""A command that may leave a process behind: its work is done in a child, which outlives it when there is reason to.

The child is forked before anything heavy is imported and before there is a thread. It has the command's terminal, so
what it prints and how it fails is seen as ever, until it says that the command is over (`Handover.let_go`) and stays,
or simply ends. Until then it is the command's: whoever interrupts, ends or kills the one ends the other.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lab.errors import HostError, Interrupted

_PR_SET_PDEATHSIG = 1


class Handover:
    """The child's way to say that the command is over."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def let_go(self, code: int, log_file: Path) -> None:
        """The command ends with this exit code; from now on we have no terminal, and print into a file."""
        sys.stdout.flush()
        sys.stderr.flush()
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for handle, own in ((null, 0), (log, 1), (log, 2)):
            os.dup2(handle, own)
        os.close(null)
        os.close(log)
        _end_with_parent(0)
        os.write(self._pipe, bytes([code]))
        os.close(self._pipe)


def outlived(work: Callable[[Handover], int]) -> int:
    """Do the work in a child; the command's exit code: the one handed over, or the one that the child ended with.

    In the child it returns what `work` returns, or raises what it raises, to end as the command would.
    """
    read, write = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.setsid()
        _end_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            raise Interrupted("the command was killed")
        return work(Handover(write))
    os.close(write)
    try:
        return _code(child, read)
    finally:
        os.close(read)


def _code(child: int, read: int) -> int:
    said: bytes | None = None
    while True:
        try:
            if said is None:
                said = os.read(read, 1)
            if said:
                return said[0]
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            break
        except KeyboardInterrupt:  # it is in a session of its own: the terminal's Ctrl-C does not reach it
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
    if code < 0:
        raise HostError(f"the process that does the work was ended by {signal.Signals(-code).name}")
    return code


def _end_with_parent(number: int) -> None:
    """Which signal we get when our parent dies; 0 for none."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
