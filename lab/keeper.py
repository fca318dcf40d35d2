# SPDX-License-Identifier: GPL-2.0-or-later
"""Who keeps guests that stay: their records, what is asked of them over their sockets, and their end.

One process keeps the guests of one command, on that command's rack. A guest goes when somebody asks for
it (`lab down`), when its QEMU ends, or when the process is told to end; the process ends with its last guest. If
it is killed instead, the rack's reaper ends its guests, and `lab.stayed` forgets their records.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from lab import openssh, proc, stayed
from lab.behind import Handover
from lab.control import Control, Request, tell
from lab.deadline import Deadline, wait_until
from lab.errors import LabError, UsageError
from lab.guest import Guest
from lab.stayed import Record

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger(__name__)

STEP_S = 10.0
AHEAD_S = 2.0  # a connection that was not made by then is not waited for
VIEW_CAP = 1 << 20  # bytes that a viewer may be behind the line; what it cannot take is lost to it
# A shell on the serial line, started again when it ends: init has none there, for a cell needs a line without one.
# What is begun with `&` ignores Ctrl-C, and so does all that it starts, unless it is told not to. Each shell opens the
# line anew: when one ends, whose terminal it was, the kernel hangs up whatever has it open.
_SHELL = (
    "cd /root; export HOME=/root TERM=vt220 PS1={name}:'\\w# '; "
    "stty -F /dev/{line} sane; "
    "(while :; do setsid -c /usr/bin/env --default-signal=INT,QUIT bash -l </dev/{line} >/dev/{line} 2>&1 || sleep 1; "
    "done) </dev/null >/dev/null 2>&1 &"
)


class Stay:
    """One guest that stays. Made and ended by a `Keeper`."""

    def __init__(self, guest: Guest, stack: ExitStack, gone: Callable[[Stay], None]) -> None:
        self.guest = guest
        self.ended = threading.Event()
        self._stack = stack
        self._gone = gone
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._record: Record | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        self._ahead: threading.Event | None = None  # set when the connection made ahead stands, or will not

    @property
    def record(self) -> Record:
        """What is written down of it."""
        assert self._record is not None
        return self._record

    def enter(self, *, name: str | None, console_log: Path, facts: dict[str, Any]) -> None:
        """Write it down and answer for it from now on; UsageError when `name` cannot be had."""
        guest, root = self.guest, self.guest.rack.root
        machine, connection = guest.machine, guest.connection
        assert connection is not None
        stem = f"{machine.image.arch.name}-{machine.image.recipe}"
        key, hosts, control = (root / f"{guest.name}.{end}" for end in ("key", "hosts", "ctl"))
        _private(key, guest.rack.key.private)

        def make(chosen: str) -> Record:
            _private(hosts, f"{chosen} {connection.host_key}\n")
            return Record(
                name=chosen,
                arch=machine.image.arch.name,
                kernel=machine.image.recipe,
                hardware=machine.hardware.name,
                release=machine.image.release,
                accel=machine.accel.value,
                warm=guest.warm,
                keeper=os.getpid(),
                control=str(control),
                gdb=str(guest.gdb),
                ssh_port=guest.port,
                ssh_key=str(key),
                known_hosts=str(hosts),
                console_log=str(console_log.resolve()),
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                image=str(machine.image.folder),
                text=guest.text,
                **facts,
            )

        # It listens as long as there is a record: without a listener that would be taken for a dead keeper's.
        self._control = Control(control, self._answer)
        try:
            self._record = stayed.enter(make, name=name, stem=stem)
        except BaseException:
            self._control.close()
            raise
        self._stack.enter_context(guest.console.viewed(self._see_end))

    def take_over(self) -> None:
        """Whoever started it does not end it any more."""
        self._stack = self._stack.pop_all()

    def freeze(self, why: str) -> None:
        """Let it stand still, and write down why; the first reason counts."""
        with self._lock:
            self.guest.freeze()
            self._note(self.record.frozen or why)

    def begin_connection(self) -> None:
        """Make a connection for the first shell that somebody asks for, beside what follows."""
        self._ahead = threading.Event()
        threading.Thread(
            target=self._hold_connection, args=(self.record, self._ahead), name="ahead", daemon=True
        ).start()

    def _hold_connection(self, record: Record, there: threading.Event) -> None:
        path, deadline = openssh.ahead_path(record), Deadline.after(STEP_S * self.guest.rack.scale)
        try:
            with proc.beside(openssh.make_ahead(record)) as client:
                self._holder = client
                wait_until(lambda: path.exists() or client.poll() is not None, "a connection", deadline)
                there.set()
                client.wait()
        except LabError as e:
            log.debug("no connection to %s is made ahead: %s", self.guest.name, e)
        finally:
            there.set()

    def begin_shell(self) -> None:
        """Put a shell on its serial line, beside what follows: nobody waits for it but who opens the console."""
        command = _SHELL.format(name=self.record.name, line=self.guest.machine.image.arch.console)
        threading.Thread(target=self._begin_shell, args=(command,), name="shell", daemon=True).start()

    def _begin_shell(self, command: str) -> None:
        try:
            self.guest.run(command, deadline=Deadline.after(STEP_S * self.guest.rack.scale))
        except LabError as e:
            log.debug("no shell on the serial line of %s: %s", self.guest.name, e)

    def close(self) -> None:
        """End it and forget its record."""
        with self._lock:
            record, self._record = self._record, None
        try:
            self._stack.close()
        finally:
            if self._holder is not None:
                self._holder.kill()
            if self._control is not None:
                self._control.close()
            if record is not None:
                stayed.forget(record)

    def _note(self, why: str) -> None:
        if self._record is not None and self._record.frozen != why:  # else it is on its way out
            self._record = dataclasses.replace(self._record, frozen=why)
            stayed.write(self._record)

    def _see_end(self, data: bytes) -> None:
        if not data:
            self._gone(self)

    def _answer(self, request: Request, client: socket.socket) -> Any:
        """What can be asked; see `lab.control`."""
        answers: dict[str, Callable[[Request, socket.socket], Any]] = {
            "state": self._state,
            "dump": self._dump,
            "console": self._console,
            "resize": self._resize,
            "connection": self._connection,
            "down": self._down,
        }
        answer = answers.get(str(request.get("do")))
        if answer is None:
            raise UsageError(f"a keeper cannot '{request.get('do')}'", hint=f"it can: {', '.join(answers)}")
        if self._record is None and answer != self._down:
            raise LabError("it ends just now", hint="lab ps says what is up")
        return answer(request, client)

    def _state(self, _request: Request, _client: socket.socket) -> Any:
        """What a record cannot know: whether it stands still just now, and why it is lost."""
        hypervisor, name = self.guest.rack.hypervisor, self.guest.name
        lost = self.guest.lost or hypervisor.disk_error(name)
        return {"stands": not lost and hypervisor.stands(name), "lost": lost}

    def _dump(self, request: Request, client: socket.socket) -> Any:
        hypervisor, to = self.guest.rack.hypervisor, Path(str(request.get("to")))
        hypervisor.dump(self.guest.name, to, wanted=lambda: _there(client))
        return {}

    def _connection(self, _request: Request, _client: socket.socket) -> Any:
        """Where the connection is that was made ahead; nothing when there is none, or somebody has it already.

        It goes out once: a terminal that does not read would stop whoever else is on it.
        """
        path = openssh.ahead_path(self.record)
        with self._lock:
            there, self._ahead = self._ahead, None
        ready = there is not None and there.wait(AHEAD_S) and path.is_socket()
        return {"path": str(path) if ready else ""}

    def _down(self, _request: Request, client: socket.socket) -> None:
        """Whoever asked waits for the end of the connection: then nothing is left."""
        tell(client, {})
        self._gone(self)
        self.ended.wait()

    def _resize(self, request: Request, _client: socket.socket) -> Any:
        """A serial line has no size of its own: the guest is told how large its viewer's terminal is."""
        rows, columns = int(request.get("rows", 24)), int(request.get("columns", 80))
        if not self.record.frozen and not self.guest.lost:
            line = self.guest.machine.image.arch.console
            deadline = Deadline.after(STEP_S * self.guest.rack.scale)
            self.guest.run(f"stty -F /dev/{line} rows {rows} cols {columns}", deadline=deadline, check=False)
        return {}

    def _console(self, _request: Request, client: socket.socket) -> None:
        """The serial line, both ways, until either side ends it. What was printed last comes first, as plain text."""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, VIEW_CAP)

        def show(data: bytes) -> None:
            with suppress(OSError):
                if data:
                    client.send(data, socket.MSG_DONTWAIT)
                else:
                    client.shutdown(socket.SHUT_RDWR)

        tell(client, {})
        with self.guest.console.viewed(show) as lately:
            show(lately.replace("\n", "\r\n").encode() or b"\r")
            with suppress(OSError):
                while data := client.recv(1 << 12):
                    if not self.guest.console.write(data, wanted=lambda: _there(client)):
                        break


class Keeper:
    """The guests of this process that stay; a context manager that ends them."""

    def __init__(self) -> None:
        self._stays: list[Stay] = []
        self._gone: SimpleQueue[Stay] = SimpleQueue()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_error: object) -> None:
        for stay in list(self._stays):
            self._end(stay)

    @property
    def records(self) -> list[Record]:
        """What is written down of each."""
        return [stay.record for stay in self._stays]

    def keep(self, guest: Guest, stack: ExitStack, *, name: str | None, console_log: Path, **facts: Any) -> Stay:
        """Keep a guest, and take over all that `stack` holds, which ends it; `facts` are fields of its record.

        UsageError when `name` cannot be had; the guest is still the caller's then.
        """
        stay = Stay(guest, stack, self._gone.put)
        stay.enter(name=name, console_log=console_log, facts=facts)
        stay.take_over()
        guest.rack.leave(guest.name)  # who ends all that a run left does not mean this one
        self._stays.append(stay)
        return stay

    def stand(self, handover: Handover, code: int) -> int:
        """Let the command end with an exit code, and return it when the last guest has gone."""
        if self._stays:
            log_file = stayed.keeper_log(os.getpid())
            handover.let_go(code, log_file)
            try:
                while self._stays:
                    stay = self._gone.get()
                    if stay in self._stays:
                        self._end(stay)
            except KeyboardInterrupt:
                log_file.unlink(missing_ok=True)
                raise
            log_file.unlink(missing_ok=True)
        return code

    def _end(self, stay: Stay) -> None:
        self._stays.remove(stay)
        try:
            stay.close()
        except LabError as e:
            log.warning("%s: %s", stay.guest.name, e)
        if self._stays:  # with the last one the whole process ends, and its sockets with it
            stay.ended.set()


def _there(client: socket.socket) -> bool:
    """Whether the other side has not hung up."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return not poll.poll(0)


def _private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
