# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial line, with a socket in the place of QEMU."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import console as consoles
from lab.console import Console
from lab.deadline import Deadline, wait_until
from lab.errors import DeadlineError, GuestLost


class Seen:
    def __init__(self) -> None:
        self.data = b""
        self.ended = threading.Event()

    def watch(self, data: bytes) -> None:
        self.data += data


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Console, socket.socket, Seen]]:
    seen = Seen()
    console = Console(folder / "c", folder / "console.log", watch=seen.watch, ended=seen.ended.set)
    qemu = socket.socket(socket.AF_UNIX)
    qemu.connect(str(folder / "c"))
    try:
        yield console, qemu, seen
    finally:
        qemu.close()
        console.close()


def test_every_byte_from_the_first_is_watched_and_logged_with_the_hosts_time(tmp_path: Path) -> None:
    with opened(tmp_path) as (console, qemu, seen):
        qemu.sendall(b"first\r\nsec")
        qemu.sendall(b"ond\nlab: ready\n")
        console.wait_for("lab: ready", Deadline.after(5))
    assert seen.data == b"first\r\nsecond\nlab: ready\n"
    lines = (tmp_path / "console.log").read_text().splitlines()
    assert [line.split("] ", 1)[1] for line in lines] == ["first", "second", "lab: ready"]
    assert all(line.startswith("[") for line in lines)


def test_an_unfinished_last_line_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as (_console, qemu, seen):
        qemu.sendall(b"Kernel panic - not sync")
        qemu.shutdown(socket.SHUT_RDWR)
        assert seen.ended.wait(5)
    assert "Kernel panic - not sync" in (tmp_path / "console.log").read_text()


def test_waiting_ends_when_qemu_does(tmp_path: Path) -> None:
    with opened(tmp_path) as (console, qemu, seen):
        qemu.close()
        with pytest.raises(GuestLost):
            console.wait_for("never", Deadline.after(5))
        assert seen.ended.wait(5)


def test_waiting_ends_when_time_is_up(tmp_path: Path) -> None:
    with opened(tmp_path) as (console, _qemu, _seen), pytest.raises(DeadlineError, match="'never' on the console"):
        console.wait_for("never", Deadline.after(0.05))


def test_our_own_close_is_not_taken_for_qemus_end(tmp_path: Path) -> None:
    with opened(tmp_path) as (console, _qemu, seen):
        console.close()
        assert not seen.ended.is_set()


def test_escapes_never_reach_the_log(tmp_path: Path) -> None:
    with opened(tmp_path) as (console, qemu, _seen):
        qemu.sendall(b"\x1b[2J\x1b]0;owned\x07plain\nlab: ready\n")
        console.wait_for("lab: ready", Deadline.after(5))
    text = (tmp_path / "console.log").read_text()
    assert "\x1b" not in text and "owned" not in text and "plain" in text


def test_a_flood_is_cut_in_the_file_and_still_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consoles, "LOG_CAP", 10_000)
    flood = b"y" * 99 + b"\n"
    with opened(tmp_path) as (console, qemu, seen):
        for _ in range(1000):
            qemu.sendall(flood)
        qemu.sendall(b"lab: ready\n")
        console.wait_for("lab: ready", Deadline.after(5))
        wait_until(lambda: len(seen.data) == 100_011, "the whole flood", Deadline.after(5))
    assert (tmp_path / "console.log").stat().st_size < 12_000


def test_a_line_without_end_holds_no_memory(tmp_path: Path) -> None:
    with opened(tmp_path) as (console, qemu, _seen):
        for _ in range(100):
            qemu.sendall(b"z" * 10_000)
        qemu.sendall(b"\nlab: ready\n")
        console.wait_for("lab: ready", Deadline.after(5))
        assert max(map(len, (tmp_path / "console.log").read_text().splitlines())) < consoles.LINE_CAP + 32


def test_a_console_that_cannot_be_kept_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "console.log").symlink_to("/dev/full")
    with opened(tmp_path) as (console, qemu, seen):
        qemu.sendall(b"first\n")
        wait_until(lambda: b"first" in seen.data, "the first line", Deadline.after(5))
        qemu.sendall(b"lab: ready\n")
        console.wait_for("lab: ready", Deadline.after(5))
        qemu.shutdown(socket.SHUT_RDWR)
        assert seen.ended.wait(5)
