# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache's entries: folders that appear whole (`paths.folder_whole`), each with a lock beside it for its maker."""

from __future__ import annotations

import fcntl
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from lab.deadline import Deadline, wait_until

_POLL_S = 0.05

# One lock per entry for the threads of this process: only who waits for another lab has to say so.
_ours: dict[Path, threading.Lock] = {}
_mutex = threading.Lock()


@contextmanager
def locked(
    entry: Path,
    *,
    deadline: Deadline | None = None,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[None]:
    """Hold the lock of one entry; the kernel frees it when its holder dies, however it dies.

    `waiting` is entered for as long as another lab holds it. What a killed maker left is removed.
    Raises DeadlineError, Interrupted.
    """
    deadline = deadline or Deadline.after(math.inf)
    path = lock_of(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _mutex:
        own = _ours.setdefault(path, threading.Lock())
    what = f"the end of other work on {entry.name}"
    wait_until(lambda: own.acquire(blocking=False), what, deadline, poll_s=_POLL_S)
    try:
        with path.open("w") as stream:
            if not taken(stream):
                with waiting():
                    wait_until(lambda: taken(stream), what, deadline, poll_s=_POLL_S)
            for left in path.parent.glob(f".{entry.name}.*"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
            yield
    finally:
        own.release()


def lock_of(entry: Path) -> Path:
    """An entry's lock file."""
    return entry.parent / f".{entry.name}.lock"


def taken(stream: TextIO) -> bool:
    """Take the lock of an open lock file, if nobody holds it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
