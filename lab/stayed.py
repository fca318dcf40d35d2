# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that stay: what is known of each outside the process that keeps it, and how to speak with that one.

A guest that outlives its command is kept by a process of its own (`keeper`), which holds its rack. A record, one
JSON file per guest, tells every other command where its sockets are; what only the keeper can do is asked of it over a
socket. Nothing here imports libvirt or paramiko: these commands answer at once.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import HostError, LabError, UsageError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
ANSWER_CAP = 1 << 20  # bytes of a keeper's answer
STATE_S = 2.0
STANDS = "stands still: a gdb or a dump looks into it"


@dataclass(frozen=True, slots=True)
class Record:
    """One guest that stays, as its keeper wrote it down. Paths are absolute."""

    name: str
    arch: str
    kernel: str
    hardware: str
    release: str
    accel: str
    warm: bool  # restored, not booted
    keeper: int  # process id
    control: str  # the keeper's socket, see `ask`
    gdb: str  # socket of QEMU's gdb stub
    ssh_port: int  # on 127.0.0.1
    ssh_key: str  # file of the private key
    known_hosts: str  # file with the pinned host key, for the host name of `name`
    console_log: str
    started: str  # ISO 8601, UTC
    image: str  # the image's folder: kernel, System.map, manifest
    text: int | None = None  # where the kernel's text begins (_stext): it is moved at each boot
    build: str | None = None  # folder of the modules that were put into it, with debug information
    cell: str | None = None  # the cell it was made for
    folder: str | None = None  # that cell's folder in its run
    frozen: str = ""  # why it stands still; nothing when it runs

    def to_json(self) -> str:
        """As in its file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def folder() -> Path:
    """Where the records are."""
    return paths.state_dir() / "guests"


def write(record: Record) -> None:
    """Write a record down, whole, or anew."""
    folder().mkdir(parents=True, exist_ok=True)
    paths.write_whole(folder() / f"{record.name}.json", record.to_json())


def check_name(name: str) -> None:
    """UsageError for a name that cannot be, or that another guest has."""
    if not NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot be a guest's name", hint="lower case letters, digits, and . _ - after them")
    if any(one.name == name for one in _sorted()[0]):
        raise UsageError(f"a guest '{name}' is up already", hint=f"choose another name, or end it: lab down {name}")


def enter(make: Callable[[str], Record], *, name: str | None, stem: str) -> Record:
    """Write the record of a new guest down, under `name`, or else under `stem` or stem-2, stem-3, ...

    Two at once get two names. `make` gets the name. UsageError when `name` cannot be had.
    """
    with _locked():
        if name is not None:
            check_name(name)
        else:
            stem = re.sub("[^a-z0-9._-]", "-", stem.lower()).lstrip("._-")[:48] or "guest"
            there = {one.name for one in _sorted()[0]}
            name = next(one for one in chain([stem], (f"{stem}-{n}" for n in count(2))) if one not in there)
        record = make(name)
        write(record)
    return record


def keeper_log(pid: int) -> Path:
    """Where a keeper writes once no terminal is its own any more."""
    folder().mkdir(parents=True, exist_ok=True)
    return folder() / f"keeper-{pid}.log"


def gc() -> list[str]:
    """Remove what keepers that were killed left: records and logs. A line for each record."""
    gone = left()
    for file in folder().glob("keeper-*.log"):
        if not os.path.exists(f"/proc/{file.stem.removeprefix('keeper-')}"):
            file.unlink(missing_ok=True)
    return [f"the record of guest {one.name}" for one in gone]


def forget(record: Record) -> None:
    """Remove a guest's record, but not that of a newer guest which has its name by now."""
    file = folder() / f"{record.name}.json"
    with _locked():
        if (there := _read(file)) is not None and there.control == record.control:
            file.unlink(missing_ok=True)


def every() -> list[Record]:
    """The guests that stay, by name; what a keeper that was killed left behind is removed."""
    living, dead = _sorted()
    for record in dead:
        forget(record)
    return living


def left() -> list[Record]:
    """The guests whose keepers were killed since somebody looked last, or end just now; their records are removed."""
    _, dead = _sorted()
    for record in dead:
        forget(record)
    return dead


def _sorted() -> tuple[list[Record], list[Record]]:
    """(living, dead)."""
    found: tuple[list[Record], list[Record]] = ([], [])
    for file in sorted(folder().glob("*.json"), key=lambda one: one.stem) if folder().is_dir() else []:
        if (record := _read(file)) is not None:
            found[0 if _alive(record) else 1].append(record)
    return found


def _read(file: Path) -> Record | None:
    """What a file says; nothing when it is gone or damaged."""
    try:
        return Record(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _locked() -> Iterator[None]:
    """Nobody else enters or forgets a record meanwhile."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find(name: str | None = None) -> Record:
    """The guest of that name, or the only one there is. UsageError otherwise."""
    there = every()
    names = ", ".join(one.name for one in there)
    if name is None:
        if len(there) == 1:
            return there[0]
        if not there:
            raise UsageError("no guest is up", hint="lab up ARCH/KERNEL starts one")
        raise UsageError(f"which guest? {names}", hint="name one of them")
    for one in there:
        if one.name == name:
            return one
    raise UsageError(
        f"no guest '{name}' is up", hint=f"there is: {names}" if there else "lab up ARCH/KERNEL starts one"
    )


@contextmanager
def asked(
    record: Record, request: dict[str, Any], *, timeout_s: float | None = None
) -> Iterator[tuple[Any, socket.socket]]:
    """Send a keeper one request, a JSON object with `do`; its answer, and the socket, which may carry more.

    Raises LabError with what the keeper says is wrong, HostError when it does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(timeout_s)
            sock.connect(record.control)
            sock.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(read_line(sock))
        except (OSError, ValueError) as e:
            raise HostError(f"the keeper of {record.name} does not answer: {e}", hint="run: lab gc") from e
        if isinstance(answer, dict) and "error" in answer:
            raise LabError(str(answer["error"]), hint=str(answer.get("hint", "")))
        yield answer, sock


def ask(record: Record, request: dict[str, Any], *, timeout_s: float | None = None) -> Any:
    """Send a keeper one request; its answer. See `asked`."""
    with asked(record, request, timeout_s=timeout_s) as (answer, _):
        return answer


def state(record: Record) -> str:
    """What keeps a guest from answering that its record does not say: STANDS, or why it is lost; else nothing."""
    try:
        said = ask(record, {"do": "state"}, timeout_s=STATE_S)
        return STANDS if said["stands"] else str(said["lost"])
    except (HostError, KeyError, TypeError):
        return "its keeper does not answer"
    except LabError as e:  # it ends just now
        return e.message


def read_line(sock: socket.socket) -> bytes:
    """One line, byte by byte: what follows it belongs to whoever reads next. OSError when there is none."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte or len(line) > ANSWER_CAP:
            raise OSError("the connection ended")
        line += byte
    return bytes(line)


def _alive(record: Record) -> bool:
    """Whether its keeper lives: it listens on its socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(2.0)
            sock.connect(record.control)
            return True
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:  # it listens, and is slow to take us
        return os.path.exists(f"/proc/{record.keeper}")
