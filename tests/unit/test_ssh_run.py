# SPDX-License-Identifier: GPL-2.0-or-later
"""A command in a guest ends in time, and what it prints is bounded, whatever the guest does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lab import ssh
from lab.deadline import Deadline
from lab.errors import DeadlineError, GuestLost
from lab.ssh import Connection, Done


class Channel:
    """Answers as a guest would that prints these pieces; None is a turn of silence."""

    def __init__(self, pieces: Iterator[bytes | None], *, err: bytes = b"") -> None:
        self.pieces, self.err = pieces, err
        self.status_event = threading.Event()
        self.status_event.set()

    def recv(self, size: int) -> bytes:
        piece = next(self.pieces, b"")
        if piece is None:
            raise TimeoutError
        return piece

    def recv_stderr(self, size: int) -> bytes:
        said, self.err = self.err, b""
        return said

    def recv_stderr_ready(self) -> bool:
        return False

    def recv_exit_status(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def run(pieces: Iterator[bytes | None], seconds: float = 5.0, **words: Any) -> Done:
    transport: Any = SimpleNamespace(open_session=lambda timeout: Channel(pieces, err=b"hm"), is_active=lambda: True)
    return Connection(transport, "key").run("tool", deadline=Deadline.after(seconds), **words)


def without_end(piece: bytes | None) -> Iterator[bytes | None]:
    while True:
        yield piece


@pytest.mark.parametrize("piece", [b'{"progress":1}\n', None])
def test_the_deadline_holds_for_a_guest_that_talks_and_for_a_silent_one(piece: bytes | None) -> None:
    with pytest.raises(DeadlineError, match="'tool' did not end within"):
        run(without_end(piece), 0.05, on_line=lambda line: None)


def test_silence_is_told_as_such() -> None:
    with pytest.raises(DeadlineError, match="said nothing"):
        run(without_end(None), progress_s=0.02)


def test_lines_are_handed_on_whole_and_the_last_one_without_its_end_is_not() -> None:
    lines: list[bytes] = []
    done = run(iter([b"on", None, b"e\ntw", b"o\n\nleft"]), on_line=lines.append)
    assert lines == [b"one", b"two", b""]
    assert done == Done(status=0, stdout=b"one\ntwo\n\nleft", stderr=b"hm")


def test_a_long_line_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LINE_CAP", 5)
    lines: list[bytes] = []
    run(iter([b"abcd", b"efgh", b"ij\nk\n"]), on_line=lines.append)
    assert lines == [b"abcde", b"k"]


def test_nobody_reads_lines_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "OUTPUT_CAP", 3 << 20)
    lines: list[bytes] = []
    with pytest.raises(GuestLost, match="'tool' printed more than 3 MiB"):
        run(without_end(b"x" * 65535 + b"\n"), on_line=lines.append)
    assert len(lines) == 48


def test_output_that_nobody_reads_by_lines_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "OUTPUT_CAP", 6)
    assert run(iter([b"abcd", b"efgh"])).stdout == b"abcdef"
