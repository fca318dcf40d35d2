# SPDX-License-Identifier: GPL-2.0-or-later
"""A small process that outlives the lab: when the lab dies, however it dies, its guests die too.

Usage: python -I -S reaper.py LOCK FOLDER...

The lab holds an exclusive lock on LOCK for as long as it lives; the kernel drops it even on
kill -9. We wait for that lock, end every QEMU that uses a file below a FOLDER, and remove the
folders. Standard library only, so that it starts in milliseconds and holds little memory.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path

LOOK_AGAIN_S = 1.0  # how long a killed libvirt's child may take to become a QEMU


def guests(*folders: Path) -> list[int]:
    """Process ids of the QEMUs whose command line names a file below one of `folders`."""
    found = []
    needles = [os.fsencode(folder) + b"/" for folder in folders]
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                if b"qemu-system" in words[0] and any(n in word for n in needles for word in words):
                    if Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                        found.append(int(entry.name))
    return found


def sweep(*folders: Path, again_s: float = 0.0) -> int:
    """End the guests that use `folders` and remove these; how many guests were ended.

    For `again_s` seconds it looks again: a libvirt killed in the middle of a start may still have
    a child on its way to becoming a QEMU.
    """
    ended = 0
    until = time.monotonic() + again_s
    while True:
        pids = guests(*folders)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ended += 1
        if not pids and time.monotonic() >= until:
            break
        time.sleep(0.05)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def main() -> None:
    """Wait for the lock's holder to die, then clean up after it."""
    lock, *folders = map(Path, sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with lock.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if any(folder.exists() for folder in folders):
            sweep(*folders, again_s=LOOK_AGAIN_S)
        lock.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
