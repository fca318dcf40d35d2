# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that talks to paramiko: keys, a pinned connection, commands with capped output."""

from __future__ import annotations

import importlib
import io
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lab import halt
from lab.deadline import Deadline
from lab.errors import DeadlineError, GuestLost
from lab.untrusted import one_line

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger(__name__)
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

OUTPUT_CAP = 64 << 20  # bytes of one command's stdout that are kept or handed on
LINE_CAP = 16 << 20  # of one line handed on; the tools print all figures of a run in one
_TURN_S = 0.25  # how often a silent command looks at its deadline


def prepare() -> None:
    """Import paramiko, which takes a fifth of a second, beside what the caller waits for now."""
    threading.Thread(target=importlib.import_module, args=("paramiko",), name="import", daemon=True).start()


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ed25519 key: private part in OpenSSH text, public part as an authorized_keys line."""

    private: str
    public: str

    @classmethod
    def new(cls) -> KeyPair:
        """A fresh key."""
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        return cls(private=private, public=public)

    def paramiko(self) -> paramiko.Ed25519Key:
        """The key as paramiko wants it."""
        import paramiko

        return paramiko.Ed25519Key.from_private_key(io.StringIO(self.private))

    def dropbear(self) -> bytes:
        """The key in the format of dropbear's host key files (svr-runopts; gened25519.c)."""
        parsed = self._load()
        secret = parsed.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        public = parsed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        name = b"ssh-ed25519"
        return struct.pack(">I", len(name)) + name + struct.pack(">I", 64) + secret + public

    def _load(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key

        key = load_ssh_private_key(self.private.encode(), password=None)
        assert isinstance(key, Ed25519PrivateKey)
        return key


@dataclass(frozen=True, slots=True)
class Done:
    """A finished command."""

    status: int
    stdout: bytes
    stderr: bytes


class Connection:
    """An SSH connection to a guest on a loopback port, its host key pinned."""

    def __init__(self, transport: paramiko.Transport, host_key: str) -> None:
        self.host_key = host_key  # the pinned one
        self._transport = transport
        self._lost: str = ""
        self._lock = threading.Lock()

    @classmethod
    def open(cls, port: int, *, key: KeyPair, host_key: str, deadline: Deadline) -> Connection:
        """Connect as soon as the guest answers; `host_key` is the pinned one's public line.

        Raises DeadlineError when it does not in time, GuestLost when another key answers.
        """
        import paramiko

        reason = "no answer"
        client_key = key.paramiko()
        while not deadline.passed():
            halt.check()
            transport = None
            try:
                sock = socket.create_connection(("127.0.0.1", port), timeout=max(0.1, deadline.remaining_s()))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                transport = paramiko.Transport(sock)
                transport.banner_timeout = max(0.5, min(10.0, deadline.remaining_s()))
                transport.start_client(timeout=max(0.5, deadline.remaining_s()))
                answered = transport.get_remote_server_key()
                if f"{answered.get_name()} {answered.get_base64()}" != host_key:
                    transport.close()
                    raise GuestLost(f"port {port} answers with a host key that is not the guest's")
                transport.auth_publickey("root", client_key)
                return cls(transport, host_key)
            except (OSError, EOFError, paramiko.SSHException) as e:
                reason = one_line(str(e)) or type(e).__name__  # may quote the guest's greeting
                if transport is not None:
                    transport.close()
                # The port is there from the start, the server behind it is not: try again soon.
                time.sleep(0.02)
        raise DeadlineError(f"SSH on port {port} did not answer within {deadline.total_s:.1f} s: {reason}")

    def abort(self, reason: str) -> None:
        """End whatever runs over this connection with GuestLost(reason); called from other threads."""
        with self._lock:
            self._lost = self._lost or reason
        self._transport.close()

    def run(
        self,
        command: str,
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[bytes], None] | None = None,
        progress_s: float | None = None,
    ) -> Done:
        """Run a shell command to its end.

        `on_line` is called with each line of stdout as it arrives; more than OUTPUT_CAP of them is
        GuestLost, while without it the rest is dropped. With `progress_s`, silence of that many
        seconds is as fatal as the deadline. Raises DeadlineError, or GuestLost when the connection
        ends first.
        """
        import paramiko

        log.debug("ssh + %s", command[:2000])
        try:
            channel = self._transport.open_session(timeout=max(0.5, deadline.remaining_s()))
            channel.settimeout(_TURN_S)
            channel.exec_command(command)
            if stdin:
                channel.settimeout(max(0.5, deadline.remaining_s()))
                channel.sendall(stdin)
                channel.settimeout(_TURN_S)
            channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException) as e:
            raise GuestLost(self._reason(e)) from e
        try:
            return self._collect(channel, command, deadline, on_line, progress_s)
        finally:
            channel.close()

    def _collect(
        self,
        channel: paramiko.Channel,
        command: str,
        deadline: Deadline,
        on_line: Callable[[bytes], None] | None,
        progress_s: float | None,
    ) -> Done:
        out, err = bytearray(), bytearray()
        lines = _Lines(on_line, command) if on_line is not None else None
        last = time.monotonic()
        while True:
            try:
                data = channel.recv(1 << 16)
            except TimeoutError:
                data = None
            if data == b"":
                break
            # On every turn: a guest that never falls silent must not outlast its deadline either.
            _check(command, deadline, time.monotonic() - last if data is None else 0.0, progress_s)
            while channel.recv_stderr_ready() and not deadline.passed():
                err += channel.recv_stderr(1 << 16)[: max(0, OUTPUT_CAP - len(err))]
            if data is not None:
                last = time.monotonic()
                out += data[: max(0, OUTPUT_CAP - len(out))]
                if lines is not None:
                    lines.feed(data)
        over = Deadline.after(max(0.5, min(5.0, deadline.remaining_s())))
        channel.settimeout(over.total_s)
        try:
            while not over.passed() and (chunk := channel.recv_stderr(1 << 16)):
                err += chunk[: max(0, OUTPUT_CAP - len(err))]
        except TimeoutError:
            pass
        if not channel.status_event.wait(max(0.5, min(5.0, deadline.remaining_s()))) or self._lost:
            raise GuestLost(self._reason(None))
        status = channel.recv_exit_status()
        if status == -1 and not self._transport.is_active():
            raise GuestLost(self._reason(None))
        return Done(status=status, stdout=bytes(out), stderr=bytes(err))

    def _reason(self, error: BaseException | None) -> str:
        return self._lost or one_line(f"the SSH connection ended: {error or 'closed by the guest'}")

    def close(self) -> None:
        """Close the connection; harmless when it is closed already."""
        self._transport.close()


class _Lines:
    """Cuts a stream into lines and hands each on, up to OUTPUT_CAP bytes in all."""

    def __init__(self, on_line: Callable[[bytes], None], command: str) -> None:
        self._on_line = on_line
        self._command = command
        self._line = bytearray()
        self._seen = 0

    def feed(self, data: bytes) -> None:
        """Take what arrived. GuestLost past the cap: no honest tool prints so much."""
        self._seen += len(data)
        if self._seen > OUTPUT_CAP:
            raise GuestLost(f"'{one_line(self._command, 80)}' printed more than {OUTPUT_CAP >> 20} MiB")
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._keep(piece)
            self._on_line(bytes(self._line))
            self._line.clear()
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        self._line += piece[: max(0, LINE_CAP - len(self._line))]


def _check(command: str, deadline: Deadline, silent_s: float, progress_s: float | None) -> None:
    """DeadlineError when time is up, or nothing was said for too long."""
    if deadline.passed():
        raise DeadlineError(f"'{one_line(command, 80)}' did not end within {deadline.total_s:.0f} s")
    if progress_s is not None and silent_s > progress_s:
        raise DeadlineError(f"'{one_line(command, 80)}' said nothing for {silent_s:.0f} s")
