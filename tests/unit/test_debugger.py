# SPDX-License-Identifier: GPL-2.0-or-later
"""lab gdb and lab dump without a guest: what gdb is told, and what becomes of the guest afterwards."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab import cli, debugger, kernelmap, paths, stayed

MAP = "ffffffff81000000 T _stext\nffffffff81200000 T _etext\nffffffff81300000 D modules\nffffffff81400000 B _end\n"
TEXT = 0xFFFFFFFF9A000000
OOPS = Path(__file__).parent.parent / "data/dmesg/x86_64-null.log"


@contextmanager
def listening(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A socket that keeps what it hears, and answers each connection's first words."""
    heard: list[bytes] = []
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            with sock:
                if data := sock.recv(4096):
                    heard.append(data)
                    sock.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[stayed.Record]:
    """A record of a guest whose keeper is this process; no guest."""
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))
    image, build = tmp_path / "image", tmp_path / "build"
    image.mkdir()
    build.mkdir()
    (image / kernelmap.MAP).write_text(MAP)
    (build / "hs_core.ko").write_bytes(
        b"\0/old/place/kmod/core/core.c\0/tmp/x/tree/mechanisms/invalidate/guard_x86.S\0"
    )
    (tmp_path / "console.log").write_text(OOPS.read_text())
    record = stayed.Record(
        name="g", arch="x86_64", kernel="bookworm", hardware="standard", release="6.1", accel="tcg", warm=True,
        keeper=os.getpid(), control=str(tmp_path / "c"), gdb=str(tmp_path / "g"), ssh_port=1, ssh_key="",
        known_hosts="", console_log=str(tmp_path / "console.log"), started="", image=str(image), text=TEXT,
        build=str(build), frozen="BUG: it is told here",
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as keeper:
        keeper.bind(record.control)
        keeper.listen(64)  # it lives, and answers nobody
        stayed.write(record)
        yield record


def put_gdb(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program in gdb's place."""
    (folder / "bin").mkdir()
    file = folder / "bin" / debugger.GDB
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_gdb_is_told_all_that_is_known(guest: stayed.Record) -> None:
    facts = debugger.facts(guest, script=None)
    assert facts["moved"] == TEXT - 0xFFFFFFFF81000000
    assert Path(facts["kernel"]).read_bytes()[:4] == b"\x7fELF"
    assert facts["sources"] == [["/old/place/kmod", str(paths.kmod_dir())], ["/tmp/x/tree", str(paths.kmod_dir())]]
    assert facts["splats"][0]["cpu"] == 1 and facts["splats"][0]["symbols"]["pc"].startswith("hs_calc+")
    assert json.loads(json.dumps(facts)) == facts
    assert not facts["script"] and not facts["python"]
    assert debugger.facts(guest, script=Path("x.gdb"))["python"] == ""
    assert debugger.facts(guest, script=Path("x.py"))["python"] == "x.py"


def test_a_script_decides_the_exit_code(
    guest: stayed.Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "look.gdb"
    script.write_text("bt\n")
    Path(guest.gdb).touch()
    put_gdb(tmp_path, monkeypatch, 'echo "$@"; cat "$LAB_GDB" >told.json; exit ${FAIL:-0}')
    monkeypatch.chdir(tmp_path)
    assert cli.call(["gdb", "--script", str(script), "--", "-ex", "info threads"]) == 0
    words = capfd.readouterr().out.split()
    assert words.index(str(debugger.START)) < words.index(str(script)) < words.index("-ex") and "-batch" in words
    assert json.loads((tmp_path / "told.json").read_text())["name"] == "g"
    look = script.with_suffix(".py")
    look.write_text("")
    assert cli.call(["gdb", "--script", str(look)]) == 0
    assert str(look) not in capfd.readouterr().out, "it is run by ours"
    assert json.loads((tmp_path / "told.json").read_text())["python"] == str(look)
    for said, code in (("1", 1), ("3", 3)):
        monkeypatch.setenv("FAIL", said)
        assert cli.call(["gdb", "g", "--script", str(script)]) == code
    assert cli.call(["gdb", "g"]) == 0, "a person's last command in gdb is no failure of ours"
    monkeypatch.setenv("FAIL", str(debugger.REFUSED))
    assert cli.call(["gdb", "g"]) == 3, "it could not show the guest"


def test_one_gdb_at_a_time(
    guest: stayed.Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path(guest.gdb).touch()
    put_gdb(tmp_path, monkeypatch, "exit 0")
    with debugger._alone(guest):
        assert cli.call(["gdb"]) == 3
        assert "lab: another gdb looks into g (quit that one first)" in capfd.readouterr().err
    assert cli.call(["gdb"]) == 0


@pytest.mark.parametrize("frozen", ["", "BUG: bad"])
def test_a_guest_runs_on_when_gdb_was_killed_unless_it_was_frozen(
    guest: stayed.Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    put_gdb(tmp_path, monkeypatch, "kill -9 $$")
    with listening(Path(guest.gdb), b"+$OK#9a") as heard:
        assert debugger.run(replace(guest, frozen=frozen), script=None, more=()) == -9
    assert heard == ([] if frozen else [b"+$D;1#b0"])


def test_wrong_words_get_a_line_and_exit_2(
    guest: stayed.Record, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for words in (["gdb", "nobody"], ["gdb", "g", "--script", "none.gdb"], ["dump", "g", str(tmp_path)], ["dump"]):
        assert cli.call(words) == 2, words
        assert capfd.readouterr().err.count("\n") == 1
    stayed.forget(guest)
    assert cli.call(["gdb"]) == 2
    assert "no guest is up" in capfd.readouterr().err


def test_what_is_missing_is_told(guest: stayed.Record, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["gdb"]) == 3
    assert "no gdb stub" in capfd.readouterr().err
    Path(guest.gdb).touch()
    (Path(guest.image) / kernelmap.MAP).unlink()
    assert cli.call(["gdb"]) == 3
    assert kernelmap.MAP in capfd.readouterr().err


def test_a_dump_is_asked_of_the_keeper(
    guest: stayed.Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(guest.control).unlink()
    with listening(Path(guest.control), b"{}\n") as heard:
        assert cli.call(["dump", "g"]) == 3, "the keeper says yes, and there is no file"
        (tmp_path / "g.core").write_bytes(b"x" * (2 << 20))
        assert cli.call(["dump", "g"]) == 0
    assert json.loads(heard[-1]) == {"do": "dump", "to": str(tmp_path / "g.core")}
    assert "g.core (2 MiB)" in capfd.readouterr().out


def test_a_keepers_refusal_is_told(guest: stayed.Record, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path(guest.control).unlink()
    with listening(Path(guest.control), b'{"error": "the disk is full", "hint": "free some"}\n'):
        assert cli.call(["dump", "g", str(tmp_path / "x")]) == 3
    assert "the disk is full (free some)" in capfd.readouterr().err
