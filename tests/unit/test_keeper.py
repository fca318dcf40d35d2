# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that stay: their records, what their keeper answers, and their end. A socket stands for QEMU."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from lab import cli, openssh, rack, stayed
from lab.deadline import Deadline, wait_until
from lab.errors import HostError, HypervisorError, LabError, UsageError
from lab.keeper import AHEAD_S
from tests.staying import kept, record

WAIT_S = 10.0


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def handover() -> Any:
    class Handover:
        codes: list[int] = []

        def let_go(self, code: int, _log: Path) -> None:
            self.codes.append(code)

    return Handover()


def read(sock: socket.socket, wanted: bytes) -> bytes:
    data = b""
    sock.settimeout(WAIT_S)
    while wanted not in data:
        more = sock.recv(4096)
        assert more, data
        data += more
    return data


def test_a_record_says_all_that_others_need(tmp_path: Path) -> None:
    with kept(tmp_path, cell="c", folder="/f", build="/b") as (_keeper, fake, stay):
        one = stayed.find()
        assert one == stay.record
        assert (one.name, one.arch, one.kernel, one.cell, one.build) == (
            "aarch64-trixie",
            "aarch64",
            "trixie",
            "c",
            "/b",
        )
        assert Path(one.ssh_key).read_text() == "private\n"
        assert Path(one.known_hosts).read_text() == "aarch64-trixie ssh-ed25519 BBBB\n"
        assert {Path(path).stat().st_mode & 0o77 for path in (one.ssh_key, one.control)} == {0}
        assert one.release == "6.12"
        assert fake.left == ["g1"]  # nobody else ends it
    assert stayed.every() == []
    assert fake.hypervisor.ended == ["g1"]


def test_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with kept(tmp_path) as (_, _, first), kept(tmp_path / "a") as (_, _, second), kept(tmp_path / "b", name="x"):
        assert [first.record.name, second.record.name] == ["aarch64-trixie", "aarch64-trixie-2"]
        assert stayed.find("x").name == "x"
        with pytest.raises(UsageError, match="which guest") as told:
            stayed.find()
        assert "aarch64-trixie, aarch64-trixie-2, x" in str(told.value)
        with pytest.raises(UsageError, match="no guest 'y'"):
            stayed.find("y")
        for name, why in (("x", "up already"), ("Ä", "cannot be"), ("../x", "cannot be"), ("", "cannot be")):
            with pytest.raises(UsageError, match=why):
                stayed.check_name(name)


def test_a_taken_name_leaves_the_guest_to_who_started_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with kept(tmp_path, name="x") as (_, _, stay):
        with pytest.raises(UsageError, match="up already"), kept(tmp_path / "a", name="x"):
            pass
        assert stayed.every() == [stay.record]
    assert not list(tmp_path.rglob("*.ctl"))


def test_frozen(tmp_path: Path) -> None:
    with kept(tmp_path) as (_, fake, stay):
        stay.freeze("BUG: first")
        stay.freeze("WARNING: second")
        assert stayed.find().frozen == "BUG: first"
        assert fake.hypervisor.frozen == {"g1"}
        stayed.ask(stayed.find(), {"do": "resize", "rows": 50, "columns": 100})
        assert fake.connection.commands == []  # nobody is there to do it


@pytest.mark.parametrize("made", [True, False])
def test_the_connection_made_ahead_goes_to_who_asks_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    with kept(tmp_path) as (_, _, stay), socket.socket(socket.AF_UNIX) as held:
        path = openssh.ahead_path(stay.record)
        (tmp_path / "ssh").write_text(
            f"#!/bin/sh\n{f'touch {tmp_path}/begun; exec sleep 100' if made else 'exit 255'}\n"
        )
        (tmp_path / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert stayed.ask(stay.record, {"do": "connection"}) == {"path": ""}, "nobody makes one"
        stay.begin_connection()
        if made:
            wait_until((tmp_path / "begun").exists, "the client", Deadline.after(WAIT_S))
            threading.Timer(0.1, lambda: held.bind(str(path))).start()
        asked_s = time.monotonic()
        answers = [stayed.ask(stay.record, {"do": "connection"}, timeout_s=WAIT_S) for _ in range(2)]
        assert time.monotonic() - asked_s < AHEAD_S, "its end is seen, not waited out"
        assert answers == [{"path": str(path) if made else ""}, {"path": ""}]
    wait_until(lambda: all(one.name != "ahead" for one in threading.enumerate()), "its end", Deadline.after(WAIT_S))


def test_a_terminals_size_is_told(tmp_path: Path) -> None:
    with kept(tmp_path) as (_, fake, stay):
        stayed.ask(stay.record, {"do": "resize", "rows": 50, "columns": 100})
        assert fake.connection.commands == ["stty -F /dev/ttyAMA0 rows 50 cols 100"]


def test_a_name_is_taken_until_its_guest_has_ended(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with kept(tmp_path) as (keeper, fake, first):
        old, end = first.record, fake.hypervisor.ended.append

        def slowly(name: str) -> None:
            assert [one.name for one in stayed.every()] == [old.name] and stayed.left() == []
            with pytest.raises(LabError, match="it ends just now"):
                stayed.ask(old, {"do": "dump", "to": "x"})
            end(name)

        fake.hypervisor.end = slowly
        keeper._end(first)
        with kept(tmp_path / "a") as (_, _, second):
            assert second.record.name == old.name
            stayed.forget(old)  # it comes late, and means another one
            assert stayed.every() == [second.record]
    assert stayed.every() == []


def test_what_goes_wrong_is_told_to_who_asked(tmp_path: Path) -> None:
    def refuse(_name: str, _path: Path, **_how: Any) -> None:
        raise HypervisorError("libvirt could not", hint="why")

    with kept(tmp_path) as (_, fake, stay):
        fake.hypervisor.dump = refuse
        with pytest.raises(LabError, match="libvirt could not"):
            stayed.ask(stay.record, {"do": "dump", "to": "x"})
        with pytest.raises(LabError, match="a keeper cannot 'fly'"):
            stayed.ask(stay.record, {"do": "fly"})
        with pytest.raises(LabError, match="internal error: ValueError"):
            stayed.ask(stay.record, {"do": "resize", "rows": "many"})
        assert stay.record.frozen == ""
    with pytest.raises(HostError, match="does not answer"):
        stayed.ask(record("gone", tmp_path), {"do": "down"})


def test_who_stands_still_without_a_record_of_it_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with kept(tmp_path) as (_, fake, stay):
        assert stayed.state(stay.record) == ""
        fake.hypervisor.suspend("g1")  # a gdb did
        assert cli.call(["ps"]) == 0
        assert "stands still: a gdb" in capfd.readouterr().out
        assert cli.call(["exec", "--", "true"]) == 2
        assert "stands still: a gdb" in capfd.readouterr().err
        fake.hypervisor.trouble = "the host's disk is full: QEMU paused the guest"  # it stands still then, too
        assert stayed.state(stay.record) == fake.hypervisor.trouble
        fake.hypervisor.frozen.clear()
        fake.hypervisor.trouble = ""
        fake.guest.give_up("QEMU ended by itself")
        assert stayed.state(stay.record) == "QEMU ended by itself"
        old = stay.record
    assert stayed.state(old) == "its keeper does not answer"
    assert cli.call(["ps"]) == cli.call(["down", "--all"]) == 0
    assert capfd.readouterr().err.count("no guest is up") == 2


def test_a_dump_that_nobody_waits_for_any_more_is_not_wanted(tmp_path: Path) -> None:
    wanted: list[bool] = []

    def dump(_name: str, _path: Path, *, wanted: Callable[[], bool]) -> None:
        begun.set()
        assert left.wait(WAIT_S)
        said.put(wanted())

    begun, left, said = threading.Event(), threading.Event(), SimpleQueue[bool]()
    with kept(tmp_path) as (_, fake, stay):
        fake.hypervisor.dump = dump
        for stays in (True, False):
            begun.clear()
            left.clear()
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(stay.record.control)
                sock.sendall(b'{"do": "dump", "to": "x"}\n')
                assert begun.wait(WAIT_S)
                if stays:
                    left.set()
                    wanted.append(said.get(timeout=WAIT_S))
            if not stays:
                left.set()
                wanted.append(said.get(timeout=WAIT_S))
    assert wanted == [True, False]


def test_viewers_see_the_line_and_type_into_it(tmp_path: Path) -> None:
    with kept(tmp_path) as (_, fake, stay):
        fake.qemu.sendall(b"\x1b[2Jbooting\nlab: ready\n")
        stay.guest.console.wait_for("ready", Deadline.after(WAIT_S))
        with (
            stayed.asked(stay.record, {"do": "console"}) as (_, one),
            stayed.asked(stay.record, {"do": "console"}) as (_, two),
        ):
            assert read(one, b"ready\r\n") == b"booting\r\nlab: ready\r\n"
            read(two, b"ready\r\n")
            one.sendall(b"uname\r")
            assert fake.qemu.recv(100) == b"uname\r"
            fake.qemu.sendall(b"\x1b[1mLinux\x1b[0m")
            assert read(one, b"\x1b[0m") == read(two, b"\x1b[0m") == b"\x1b[1mLinux\x1b[0m"
            fake.qemu.close()
            assert one.recv(1) == b"" == two.recv(1)


def test_a_viewer_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    with kept(tmp_path) as (_, fake, stay), stayed.asked(stay.record, {"do": "console"}):
        for _ in range(64):
            fake.qemu.sendall(b"y" * (1 << 16))
        fake.qemu.sendall(b"\nlab: ready\n")
        stay.guest.console.wait_for("lab: ready", Deadline.after(WAIT_S))


def test_a_viewer_can_leave_a_guest_that_does_not_read(tmp_path: Path) -> None:
    before = threading.active_count()
    with kept(tmp_path) as (_, _fake, stay):
        with stayed.asked(stay.record, {"do": "console"}) as (_, sock):
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                while True:
                    sock.sendall(b"x" * (1 << 16))
        wait_until(lambda: threading.active_count() <= before + 2, "the viewer's end", Deadline.after(WAIT_S))


@pytest.mark.parametrize("how", ["down", "its QEMU ends"])
def test_a_guest_goes_and_its_keeper_with_it(tmp_path: Path, handover: Any, how: str) -> None:
    with kept(tmp_path) as (keeper, fake, stay):
        stood = threading.Thread(target=keeper.stand, args=(handover, 3))
        stood.start()
        if how == "down":
            stayed.ask(stay.record, {"do": "down"})
        else:
            fake.qemu.close()
        stood.join(WAIT_S)
        assert not stood.is_alive()
        assert handover.codes == [3]
        assert fake.hypervisor.ended == ["g1"]
        assert stayed.every() == []
        assert not list((tmp_path / "state").rglob("*.log"))


def test_nobody_to_keep_is_no_reason_to_stay(tmp_path: Path, handover: Any) -> None:
    with kept(tmp_path) as (keeper, _, stay):
        keeper._end(stay)
        assert keeper.stand(handover, 1) == 1
        assert handover.codes == []


def test_whoever_takes_a_guest_down_learns_when_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with kept(tmp_path) as (keeper, _, stay), kept(tmp_path / "a") as (_, _, other):
        keeper._stays.append(other)  # one more that this keeper holds
        with stayed.asked(stay.record, {"do": "down"}, timeout_s=WAIT_S) as (_, sock):
            assert keeper._gone.get(timeout=WAIT_S) is stay
            sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            keeper._end(stay)
            sock.settimeout(WAIT_S)
            assert sock.recv(1) == b""
        keeper._stays.remove(other)


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[str]:
    """The record of a guest whose keeper was killed: its socket is there, and nobody listens."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "dead.ctl"))
    stayed.write(record("dead", tmp_path))
    (stayed.folder() / "keeper-999999999.log").write_text("")
    yield "dead"


def test_the_dead_are_forgotten(killed: str) -> None:
    assert [one.name for one in stayed.left()] == [killed]
    assert stayed.every() == stayed.left() == []


def test_gc_removes_what_killed_keepers_left_and_spares_the_living(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with kept(tmp_path) as (_, _, stay):
        killed = request.getfixturevalue("killed")
        assert rack.gc() + stayed.gc() == [f"the record of guest {killed}"]
        assert stayed.every() == [stay.record]
        assert not list(stayed.folder().glob("keeper-*.log"))
        assert stayed.gc() == []
