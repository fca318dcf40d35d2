# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial line on a terminal: a pseudo terminal stands for the person's, a socket for QEMU."""

from __future__ import annotations

import io
import os
import pty
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import serialline
from lab.deadline import Deadline, wait_until
from lab.errors import UsageError
from tests.staying import kept

WAIT_S = 10.0


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Have a terminal while the block runs; yields the side of the person before it."""
    master, slave = pty.openpty()
    with open(slave, "r+b", buffering=0) as terminal:
        for name in ("stdin", "stdout"):
            monkeypatch.setattr(sys, name, open(os.dup(terminal.fileno()), "r" if name == "stdin" else "w"))
        yield master
    os.close(master)


def seen(person: int, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        data += os.read(person, 4096)
    return data


def test_keys() -> None:
    assert [serialline.key(text) for text in ("^]", "^a", "^A", "^\\", "^_")] == [0x1D, 1, 1, 0x1C, 0x1F]
    for text in ("", "]", "^", "^]]", "^1", "^~", "^ß"):
        with pytest.raises(UsageError, match="is no key"):
            serialline.key(text)


def test_a_person_types_and_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as person, kept(tmp_path) as (_, fake, stay):
        errors: list[BaseException] = []

        def work() -> None:
            try:
                fake.qemu.sendall(b"\x1b[1mready# ")
                seen(person, b"ready# ")
                os.write(person, b"\x03uname")
                assert fake.qemu.recv(100) == b"\x03uname"  # Ctrl-C is the guest's
                wait_until(lambda: bool(fake.connection.commands), "word of the size", Deadline.after(WAIT_S))
                os.write(person, b"x\x1dy")
            except BaseException as e:
                errors.append(e)

        typist = threading.Thread(target=work)
        typist.start()
        serialline.talk(stay.record, escape=0x1D)
        typist.join(WAIT_S)
        assert not errors
        assert fake.qemu.recv(100) == b"x"
        assert fake.connection.commands[0].startswith("stty -F /dev/ttyAMA0 rows")


def test_a_script_types_and_waits_for_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(serialline, "QUIET_S", 0.1)
    (tmp_path / "in").write_text("echo hello\x1d\n")
    with kept(tmp_path) as (_, fake, stay), (tmp_path / "in").open() as script:
        monkeypatch.setattr(sys, "stdin", script)

        def answer() -> None:
            fake.qemu.sendall(b"\x1b[2Jgot " + fake.qemu.recv(100))

        threading.Thread(target=answer, daemon=True).start()
        serialline.talk(stay.record, escape=0x1D)  # which is a terminal's
    assert capfdbinary.readouterr().out.strip() == b"got echo hello"


def test_the_end_of_the_guest_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", told := io.StringIO())
    with terminal(monkeypatch), kept(tmp_path) as (_, fake, stay):
        fake.qemu.sendall(b"bye")
        fake.qemu.close()
        serialline.talk(stay.record, escape=0x1D)
    assert "aarch64-trixie has ended" in told.getvalue()
