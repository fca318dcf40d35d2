# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial line: read live from the first byte, stamped by the host, capped, watched, and open to viewers."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.deadline import Deadline
from lab.errors import GuestLost, HostError
from lab.untrusted import clean

log = logging.getLogger(__name__)

LOG_CAP = 8 << 20  # bytes of console.log; a guest that prints more loses the rest, not our disk
LINE_CAP = 4096
_TURN_S = 0.25  # how often a write that the guest does not take looks whether it is still wanted


class Console:
    """Listens before QEMU starts, so that no byte is missed; QEMU connects to us.

    `watch` gets every chunk as it arrives (in the reader's thread); `ended` is called once when
    QEMU closes the line. Lines are written as `[host seconds since start] text`.
    """

    def __init__(
        self, path: Path, log_file: Path, *, watch: Callable[[bytes], None], ended: Callable[[], None]
    ) -> None:
        self._path = path
        self._watch = watch
        self._ended = ended
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._tail = ""  # the last cleaned text, for wait_for and new viewers
        self._viewers: list[Callable[[bytes], None]] = []
        self.last_output_s = time.monotonic()
        self._start_s = time.monotonic()
        path.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._server.bind(str(path))
        except OSError as e:
            raise HostError(f"cannot listen on {path}: {e}", hint="set LAB_RUNTIME_DIR to a short path") from e
        path.chmod(0o600)
        self._server.listen(1)
        self._client: socket.socket | None = None
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self._log = log_file.open("w", encoding="utf-8")
        self._written = 0
        self._line = bytearray()
        self._line_s = 0.0
        self._thread = threading.Thread(target=self._read, name=f"console-{path.name}", daemon=True)
        self._thread.start()

    def wait_for(self, text: str, deadline: Deadline) -> None:
        """Return once `text` was printed; DeadlineError in time, GuestLost when the line closed."""
        with self._changed:
            while text not in self._tail:
                if self._closed.is_set():
                    raise GuestLost("QEMU ended before the guest was up")
                deadline.check(f"'{text}' on the console")
                self._changed.wait(timeout=min(1.0, deadline.remaining_s()))

    def settle(self, quiet_s: float, deadline: Deadline) -> None:
        """Return once nothing was printed for `quiet_s` seconds, the line closed, or time is up."""
        with self._changed:
            while not deadline.passed() and not self._closed.is_set():
                left = quiet_s - (time.monotonic() - self.last_output_s)
                if left <= 0:
                    return
                self._changed.wait(timeout=min(left, deadline.remaining_s()))

    @contextmanager
    def viewed(self, viewer: Callable[[bytes], None]) -> Iterator[str]:
        """Hand a viewer all that is printed while the block runs, in the reader's thread, and b"" once the line closes.

        A viewer must not wait: nobody reads the line meanwhile. Yields what was printed last, cleaned.
        """
        with self._changed:
            self._viewers.append(viewer)
            lately, closed = self._tail, self._closed.is_set()
        try:
            if closed:
                viewer(b"")
            yield lately
        finally:
            with self._changed:
                self._viewers.remove(viewer)

    def write(self, data: bytes, *, wanted: Callable[[], bool]) -> bool:
        """Type into the line; a guest that does not read is waited for while `wanted()`. Return: whether it got all."""
        while data and not self._closed.is_set() and (client := self._client) is not None:
            try:
                if select.select([], [client], [], _TURN_S)[1]:
                    data = data[client.send(data, socket.MSG_DONTWAIT) :]
                elif not wanted():
                    return False
            except (OSError, ValueError):  # it closed just now
                return False
        return not data

    def close(self) -> None:
        """Stop reading and close the log; whatever QEMU still had sent is read first."""
        with self._changed:
            self._closed.set()
            sockets = [sock for sock in (self._client, self._server) if sock is not None]
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=2)
        self._server.close()
        self._path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            client, _ = self._server.accept()
            with self._changed:
                self._client = client
                if self._closed.is_set():
                    return
            while data := client.recv(1 << 16):
                self._take(data)
        except OSError as e:
            log.debug("console %s: %s", self._path.name, e)
        finally:
            lost = not self._closed.is_set()
            with self._changed:
                self._closed.set()
                self._write_line()
                with suppress(OSError):
                    self._log.close()
                self._changed.notify_all()
                self._show(b"")
            if self._client is not None:
                self._client.close()
            if lost:
                self._ended()

    def _take(self, data: bytes) -> None:
        with self._changed:
            now = self.last_output_s = time.monotonic()
            for piece in data.splitlines(keepends=True):
                if not self._line:
                    self._line_s = now - self._start_s
                self._line += piece[: max(0, LINE_CAP - len(self._line))]
                if piece.endswith((b"\n", b"\r")):
                    self._write_line()
            self._tail = (self._tail + clean(data))[-LINE_CAP:]
            self._changed.notify_all()
            self._show(data)
        self._watch(data)

    def _show(self, data: bytes) -> None:
        for viewer in self._viewers:
            viewer(data)

    def _write_line(self) -> None:
        text = clean(bytes(self._line)).rstrip()
        self._line.clear()
        if not text or self._written > LOG_CAP:
            return
        stamped = f"[{self._line_s:10.3f}] {text}\n"
        self._written += len(stamped)
        if self._written > LOG_CAP:
            stamped = f"[{self._line_s:10.3f}] lab: more than {LOG_CAP >> 20} MiB were printed; the rest is dropped\n"
        try:
            self._log.write(stamped)
            self._log.flush()
        except OSError as e:
            # Read and watched it is all the same: a guest whose console nobody reads blocks, as if it hung.
            log.warning("%s: %s; the rest is dropped", self._log.name, e.strerror)
            self._written = LOG_CAP + 1
