# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache's entries: folders that appear whole (`paths.folder_whole`), each with a lock beside it for its maker."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

from lab.deadline import Deadline, wait_until

_POLL_S = 0.05
STALE_S = 14 * 86400.0

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


def touch(entry: Path) -> None:
    """Remember that an entry was used now, as the time of its folder."""
    with suppress(OSError):  # a cache that cannot be written can still be read
        os.utime(entry)


def stale(entry: Path) -> bool:
    """Whether nobody used an entry for so long that it can go."""
    return entry.stat().st_mtime < time.time() - STALE_S


def sweep(shelf: Path, *, dropped: Callable[[Path], bool], busy_s: float) -> list[str]:
    """Remove the entries that `dropped` says, and what killed makers left; a line for each.

    Spared is what somebody makes now (its lock is held), and what was used since `busy_s`, the time
    at which the oldest living lab began: it may use it still, and by other recipes than ours.
    """
    removed = []
    for path in sorted(shelf.iterdir()) if shelf.is_dir() else []:
        unfinished = path.name.startswith(".")  # .NAME.XXXX, see paths.folder_whole
        name = path.name[1:].rpartition(".")[0] if unfinished else path.name
        if not path.is_dir() or not name:
            continue
        with lock_of(shelf / name).open("a") as lock:
            if not taken(lock) or not (unfinished or (path.stat().st_mtime < busy_s and dropped(path))):
                continue
            size = size_mib(path)
            # An entry goes whole too: whoever looks for it finds all of it or nothing.
            gone = path if unfinished else path.rename(shelf / f".{name}.gone")
            shutil.rmtree(gone, ignore_errors=True)
            removed.append(f"{path} ({size} MiB)")
    return removed


def sweep_files(folder: Path, pattern: str) -> list[str]:
    """Remove files of a shelf that nobody wrote for long; a line for each."""
    removed = []
    for path in sorted(folder.glob(pattern)):
        with suppress(OSError):  # somebody else removed it
            if stale(path):
                path.unlink()
                removed.append(str(path))
    return removed


def size_mib(folder: Path) -> int:
    """The space a folder takes on its disk."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.lstat().st_blocks * 512
    return size >> 20
