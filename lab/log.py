# SPDX-License-Identifier: GPL-2.0-or-later
"""Logging: to stderr what the user asked to see, to a run's lab.log everything."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from lab.errors import HostError

# Libraries that tell of every lost connection, with tracebacks; for the file only.
_CHATTY = ("paramiko",)
_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever sys.stderr is now: a live display puts itself in its place."""

    def __init__(self, verbosity: int) -> None:
        super().__init__(sys.stderr)
        self.setLevel(_LEVELS.get(verbosity, logging.DEBUG))
        self._all = verbosity > 1
        self.setFormatter(logging.Formatter("lab: %(levelname)s: %(message)s" if not self._all else _FULL))
        self.addFilter(lambda record: self._all or not record.name.startswith(_CHATTY))

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.stream = sys.stderr  # not setStream(): the old one may be closed, and that flushes it
        super().emit(record)


class _File(logging.FileHandler):
    """A run's log; on a full disk it loses lines, instead of a traceback on stderr for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """See logging.Handler."""


_FULL = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def setup(verbosity: int) -> None:
    """Log to stderr: -1 errors, 0 warnings, 1 what happens, 2 everything."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stderr)]:
        root.removeHandler(handler)
    root.addHandler(_Stderr(verbosity))
    root.setLevel(logging.DEBUG)


def quiet() -> bool:
    """Whether the user asked for errors and results alone."""
    return any(isinstance(one, _Stderr) and one.level >= logging.ERROR for one in logging.getLogger().handlers)


def to_nobody(stream: IO[str]) -> None:
    """Whoever read a stream has seen enough: from now on nobody gets what is written to it, nor what waits in it."""
    with open(os.devnull, "w") as nobody:
        os.dup2(nobody.fileno(), stream.fileno())


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Log everything to a file as well, while the block runs."""
    try:
        handler = _File(path, encoding="utf-8")
    except OSError as e:
        raise HostError(f"cannot write {path}: {e.strerror}") from e
    handler.setFormatter(logging.Formatter(_FULL))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()
