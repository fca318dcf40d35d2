# SPDX-License-Identifier: GPL-2.0-or-later
"""What all guests of one lab process share: a root, a connection, a key, and a reaper.

Each process has a rack of its own, so two labs at once never meet. A rack is two folders of the
same name: a short one for sockets (runtime) and a roomy one for overlays (cache). A lock file beside
the overlays says whether the owner lives, and names the short folder: that one lies elsewhere for
each LAB_RUNTIME_DIR and XDG_RUNTIME_DIR (cron has none), while the cache is everybody's.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lab import paths, proc, reaper, shelf
from lab.errors import HostError
from lab.hypervisor import EMBED, Hypervisor
from lab.ssh import KeyPair

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Rack:
    """An open rack; made by `open_rack`."""

    root: Path  # sockets and libvirt's embedded driver; short
    work: Path  # overlays
    hypervisor: Hypervisor
    key: KeyPair  # this run's SSH key
    scale: float  # how much slower than the reference this host runs guests; at least 1
    _ports: set[int] = field(default_factory=set)
    _guests: dict[str, Callable[[str], None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take_port(self) -> int:
        """A TCP port of 127.0.0.1 that nobody listens on now and no guest of this rack was given."""
        with self._lock:
            while True:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    port: int = probe.getsockname()[1]
                if port not in self._ports:
                    self._ports.add(port)
                    return port

    def enter(self, guest: str, give_up: Callable[[str], None]) -> None:
        """Remember a guest, from before it starts, so that it can be ended from outside."""
        with self._lock:
            self._guests[guest] = give_up

    def leave(self, guest: str) -> None:
        """Forget a guest that ended."""
        with self._lock:
            self._guests.pop(guest, None)

    def abandon(self, reason: str) -> None:
        """End every guest and what runs in it, now; `halt` sees to it that none starts after."""
        with self._lock:
            guests = dict(self._guests)
        for give_up in guests.values():
            give_up(reason)
        for name in guests:
            self.hypervisor.destroy(name)


@contextmanager
def open_rack(*, uri: str = EMBED, scale: float = 1.0) -> Iterator[Rack]:
    """Make a rack; on the way out, however that is, its guests are ended and its folders removed."""
    name = f"r{secrets.token_hex(3)}"
    root, work = paths.runtime_dir() / name, paths.cache_dir() / "racks" / name
    lock = work.with_suffix(".lock")
    with ExitStack() as stack:
        try:
            # The lock comes first: a folder without a held lock is anybody's to remove.
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_held(lock, root))
            root.mkdir(mode=0o700)
            work.mkdir(mode=0o700)
        except OSError as e:
            raise HostError(f"cannot make {e.filename}: {e.strerror}", hint="free some space, or run: lab gc") from e
        proc.detach([sys.executable, "-I", "-S", reaper.__file__, lock, root, work])
        stack.callback(reaper.sweep, root, work)
        hypervisor = stack.enter_context(Hypervisor.open(uri, root=root))
        log.debug("rack %s, process %d", root, os.getpid())
        yield Rack(root=root, work=work, hypervisor=hypervisor, key=KeyPair.new(), scale=scale)


@contextmanager
def _held(lock: Path, root: Path) -> Iterator[None]:
    """Hold a new rack's lock file, which names the folder for its sockets."""
    while True:
        with lock.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if os.fstat(stream.fileno()).st_nlink:  # else lab gc took it for a dead lab's before it was locked
                stream.write(f"{root}\n")
                stream.flush()
                yield
                return


def gc() -> list[str]:
    """Remove what dead labs left: guests, sockets, overlays. Returns what was removed, a line each."""
    racks = paths.cache_dir() / "racks"
    if not racks.is_dir():
        return []
    removed = []
    for name in sorted({path.stem for path in racks.glob("r*")}):
        work, lock = racks / name, racks / f"{name}.lock"
        with lock.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            stream.seek(0)
            root = Path(stream.read().strip())
            # A damaged lock file must not make us remove what is no rack.
            folders = [root, work] if root.is_absolute() and root.name == name else [work]
            size = shelf.size_mib(work)
            ended = reaper.sweep(*folders)
            lock.unlink(missing_ok=True)
            removed.append(f"{work} ({ended} guests, {size} MiB)")
    return removed


def oldest_s() -> float:
    """When the oldest living lab began, as a file's time; infinity when none lives. Asked after `gc`."""
    times = [math.inf]
    for lock in (paths.cache_dir() / "racks").glob("r*.lock"):
        with suppress(FileNotFoundError):  # it ended just now
            times.append(lock.stat().st_mtime)
    return min(times)
