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
from types import FrameType

from lab.errors import HostError, Interrupted

_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Handover:
    """The child's way to say that the command is over."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def let_go(self, code: int, log_file: Path) -> None:
        """The command ends with this exit code; from now on we have no terminal, and print into a file."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(BrokenPipeError):  # whoever read it has left, and the work is done all the same
                stream.flush()
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
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until there is a child to hand them to
    child = os.fork()
    if child == 0:
        os.close(read)
        os.setsid()
        _end_with_parent(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        if os.getppid() != parent:
            raise Interrupted("the command was killed")
        return work(Handover(write))
    os.close(write)
    _forward(child)
    said = os.read(read, 1)
    os.close(read)
    return said[0] if said else _code(child)


def _forward(child: int) -> None:
    """Hand on what is meant to end us: the child is in a session of its own, and the terminal does not reach it."""

    def hand_on(_number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)

    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _code(child: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        raise HostError(f"the process that does the work was ended by {signal.Signals(-code).name}")
    return code


def _end_with_parent(number: int) -> None:
    """Which signal we get when our parent dies; 0 for none."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
