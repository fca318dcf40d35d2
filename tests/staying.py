# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that stays, without a guest: its keeper's side is real, and a socket stands for its QEMU."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lab.console import Console
from lab.guest import Guest
from lab.keeper import Keeper, Stay
from lab.ssh import KeyPair
from lab.stayed import Record

KEY = KeyPair("private\n", "ssh-ed25519 AAAA")


class Hypervisor:
    """Remembers what was done to guests."""

    def __init__(self) -> None:
        self.frozen: set[str] = set()
        self.ended: list[str] = []
        self.trouble = ""
        self.suspend: Callable[[str], None] = self.frozen.add
        self.end: Callable[[str], None] = self.ended.append
        self.dump: Callable[..., None] = lambda name, path, wanted: None

    def disk_error(self, name: str) -> str:
        return self.trouble

    def stands(self, name: str) -> bool:
        return name in self.frozen

    def running(self, name: str) -> bool:
        return name not in self.ended


class Connection:
    """A guest's shell that remembers its commands."""

    host_key = "ssh-ed25519 BBBB"

    def __init__(self) -> None:
        self.commands: list[str] = []

    def run(self, command: str, **_how: Any) -> Any:
        self.commands.append(command)
        return SimpleNamespace(status=0, stdout=b"", stderr=b"")

    def abort(self, _reason: str) -> None: ...


class Fake:
    """A guest and what stands behind it."""

    def __init__(self, folder: Path, stack: ExitStack, name: str = "g1") -> None:
        self.hypervisor = Hypervisor()
        self.left: list[str] = []
        rack: Any = SimpleNamespace(
            root=folder, work=folder, hypervisor=self.hypervisor, key=KEY, scale=1.0, leave=self.left.append
        )
        arch = SimpleNamespace(name="aarch64", console="ttyAMA0")
        image = SimpleNamespace(arch=arch, recipe="trixie", release="6.12", folder=folder)
        hardware = SimpleNamespace(name="standard", memory_mib=768)
        machine: Any = SimpleNamespace(image=image, hardware=hardware, accel=SimpleNamespace(value="tcg"))
        console = Console(folder / f"{name}.con", folder / f"{name}.log", watch=lambda _: None, ended=lambda: None)
        self.qemu = socket.socket(socket.AF_UNIX)
        self.qemu.connect(str(folder / f"{name}.con"))
        self.qemu.settimeout(10)
        self.guest = Guest(name, machine, rack, console, warm=True)
        self.connection: Any = Connection()
        self.guest.attach(self.connection)
        stack.callback(self.qemu.close)
        stack.callback(console.close)
        stack.callback(lambda: self.hypervisor.end(name))


@contextmanager
def kept(sockets: Path, *, name: str | None = None, **facts: Any) -> Iterator[tuple[Keeper, Fake, Stay]]:
    """A keeper with one guest."""
    with Keeper() as keeper, ExitStack() as stack:
        fake = Fake(sockets, stack)
        stay = keeper.keep(fake.guest, stack, name=name, console_log=sockets / "g1.log", **facts)
        yield keeper, fake, stay


def record(name: str, folder: Path, **more: Any) -> Record:
    """A record whose keeper has its sockets in `folder`."""
    words: dict[str, Any] = dict.fromkeys(Record.__dataclass_fields__, "x")
    words |= {"name": name, "control": str(folder / f"{name}.ctl"), "keeper": 1, "ssh_port": 2222, "warm": True}
    words |= {"text": None, "build": None, "cell": None, "folder": None, "frozen": ""}
    return Record(**(words | more))
