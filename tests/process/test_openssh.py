# SPDX-License-Identifier: GPL-2.0-or-later
"""What OpenSSH's client is told, and copies. A script stands for the client, and a folder for the guest."""

from __future__ import annotations

import os
import shlex
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from lab import openssh
from lab.control import Control
from lab.errors import LabError, UsageError
from tests.staying import record

# The guest's command is the last word; the script's own folder stands for the guest's root's home.
CLIENT = '#!/bin/sh\nfor word; do :; done\ncd "$(dirname "$0")/guest" && eval "$word"\n'
HOSTILE = '#!/bin/sh\nexec cat "$(dirname "$0")/hostile.tar"\n'


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guest's folder."""
    (tmp_path / "ssh").write_text(CLIENT)
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "guest").mkdir()
    (tmp_path / "host").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "guest"


def test_a_shell_with_the_guests_name_in_its_prompt(tmp_path: Path) -> None:
    words = openssh.command(record("x", tmp_path), [], terminal=True)
    assert words[:5] == ["ssh", "-F", "none", "-S", "none"], "nobody keeps a connection that it could share"
    assert words[-4:] == ["-t", "x", "--", "cd; PS1=x':\\w# ' exec bash -l"]
    options = dict(word.split("=", 1) for word in words if "=" in word and " " not in word)
    assert options["HostName"] == "127.0.0.1" and options["Port"] == "2222"
    assert options["StrictHostKeyChecking"] == "yes" and options["GlobalKnownHostsFile"] == "/dev/null"


def test_a_commands_words_arrive_as_they_are(tmp_path: Path) -> None:
    words = openssh.command(record("x", tmp_path), ["sh", "-c", "exit  $x"], terminal=False)
    assert "-T" in words and shlex.split(words[-1]) == ["sh", "-c", "exit  $x"]


def test_a_guest_that_stands_still_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="x stands still: BUG: y") as told:
        openssh.command(record("x", tmp_path, frozen="BUG: y"), [], terminal=True)
    assert "lab down x" in told.value.hint


@pytest.mark.parametrize("broken", ["", "nothing made", "no greeting", "no keeper", "no terminal"])
def test_a_connection_made_ahead_is_used_if_the_guest_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(openssh, "_GREETING_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as guest, ExitStack() as stack:
        guest.settimeout(10 if broken in ("", "no greeting") else 0.1)
        one = record("x", tmp_path, ssh_port=guest.getsockname()[1])
        path = str(openssh.ahead_path(one))
        if broken != "no keeper":
            answer = {"path": "" if broken == "nothing made" else path}
            stack.callback(Control(Path(one.control), lambda _request, _client: answer).close)
        told: list[list[str]] = []
        terminal = broken != "no terminal"
        asking = threading.Thread(target=lambda: told.append(openssh.command(one, [], terminal=terminal)))
        asking.start()
        with suppress(TimeoutError):
            client, _ = guest.accept()
            stack.enter_context(client)
            client.sendall(b"" if broken == "no greeting" else b"SSH-2.0-dropbear\r\n")
        asking.join()
    assert told[0][3:5] == ["-S", "none" if broken else path]
    assert openssh.make_ahead(one)[3:5] == ["-S", path] and "-M" in openssh.make_ahead(one)


def test_copies_there_and_back(tmp_path: Path, guest: Path) -> None:
    one, host = record("x", tmp_path), tmp_path / "host"
    (host / "tree" / "sub").mkdir(parents=True)
    (host / "tree" / "sub" / "it's").write_text("data")
    (host / "tree" / "link").symlink_to("sub")
    openssh.put(one, host / "tree", str(guest))  # into a folder
    openssh.put(one, host / "tree" / "sub" / "it's", str(guest / "new" / "file"))  # under a name
    assert (guest / "tree" / "sub" / "it's").read_text() == (guest / "new" / "file").read_text() == "data"
    openssh.put(one, host / "tree" / "sub" / "it's", str(guest / "folder") + "/")  # under its own name
    assert (guest / "folder" / "it's").read_text() == "data"
    (guest / "link").symlink_to("new/file")
    openssh.put(one, host / "tree" / "sub" / "it's", str(guest / "link"))  # what it leads to
    assert (guest / "link").is_symlink()
    openssh.get(one, str(guest / "tree") + "/", host / "back")
    openssh.get(one, str(guest / "new" / "file"), host)
    assert (host / "back" / "link" / "it's").read_text() == (host / "file").read_text() == "data"
    openssh.get(one, str(guest / "new" / "file"), host / "file")  # over a file, as cp does
    assert sorted(path.name for path in host.iterdir()) == ["back", "file", "tree"]
    assert sorted(path.name for path in guest.iterdir()) == ["folder", "link", "new", "tree"]


def test_what_cannot_be_copied(tmp_path: Path, guest: Path) -> None:
    one, host = record("x", tmp_path), tmp_path / "host"
    (guest / "file").write_text("x")
    (host / "file").mkdir()
    with pytest.raises(UsageError, match="there is no"):
        openssh.put(one, host / "none", "/")
    with pytest.raises(UsageError, match="x has no /none"):
        openssh.get(one, "/none", host)
    with pytest.raises(UsageError, match="is in the way"):
        openssh.get(one, str(guest / "file"), host)
    os.mkfifo(host / "fifo")
    with pytest.raises(UsageError, match="is no plain file"):
        openssh.get(one, str(guest / "file"), host / "fifo")
    with pytest.raises(UsageError, match="there is no folder"):
        openssh.get(one, str(guest / "file"), host / "a" / "b")
    with pytest.raises(LabError, match="cannot copy"):
        openssh.put(one, guest / "file", "/proc/none/x")
    os.mkfifo(guest / "pipe")
    (guest / "to-pipe").symlink_to("pipe")
    for name in ("pipe", "to-pipe"):
        with pytest.raises(UsageError, match=f"x:{guest}/{name} is no plain file"):
            openssh.put(one, guest / "file", str(guest / name))
    assert (guest / "pipe").is_fifo() and (guest / "to-pipe").is_symlink()
    with pytest.raises(LabError, match="cannot copy to /proc/file"):
        openssh.get(one, str(guest / "file"), Path("/proc"))
    assert sorted(path.name for path in host.iterdir()) == ["fifo", "file"]


@pytest.mark.parametrize(
    "what", ["fifo", "/etc/passwd", "../../x", "../secret", "y/../../secret", "../top/y", "a link alone", "two"]
)
def test_a_hostile_guest_gives_plain_files_or_nothing(
    tmp_path: Path, guest: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    tree = tmp_path / "top"
    tree.mkdir()
    names = "top ssh" if what == "two" else "top"
    if what == "fifo":
        os.mkfifo(tree / "x")
        (tree / "y").mkdir()
    elif what == "a link alone":
        tree.rmdir()
        tree.symlink_to("secret")
    elif what != "two":
        (tree / "y").mkdir()
        (tree / "x").symlink_to(what)
    os.system(f"tar -c -f {tmp_path}/hostile.tar -C {tmp_path} {names}")
    (tmp_path / "ssh").write_text(HOSTILE)
    if what in ("a link alone", "two"):
        with pytest.raises(LabError, match="no plain file|cannot copy"):
            openssh.get(record("x", tmp_path), "/x", tmp_path / "host")
        assert not list((tmp_path / "host").iterdir())
    else:
        openssh.get(record("x", tmp_path), "/x", tmp_path / "host")
        assert [path.name for path in (tmp_path / "host").rglob("*")] == ["x", "y"]
        assert "left out, links to elsewhere or no plain files: x/x" in caplog.text


def test_of_much_that_is_left_out_a_few_are_named(
    tmp_path: Path, guest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (guest / "top").mkdir()
    for number in range(5):
        (guest / "top" / f"{number}").symlink_to("/etc")
    openssh.get(record("x", tmp_path), str(guest / "top"), tmp_path / "host")
    assert "top/0, top/1, top/2 and 2 more" in caplog.text
    assert list((tmp_path / "host" / "top").iterdir()) == []


def test_files_of_the_kernel_come_whole(tmp_path: Path, guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    openssh.get(record("x", tmp_path), "/proc/version", tmp_path / "host")
    assert (tmp_path / "host" / "version").read_text() == Path("/proc/version").read_text()
    openssh.get(record("x", tmp_path), "/sys/kernel/uevent_seqnum", tmp_path / "host" / "it")
    assert (tmp_path / "host" / "it").read_text().strip().isdecimal()
    openssh.get(record("x", tmp_path), "/proc/self/status", tmp_path / "host")
    assert (tmp_path / "host" / "status").read_text().startswith("Name:\tcat\n")
    with pytest.raises(LabError, match="cannot copy .*: Input/output error"):
        openssh.get(record("x", tmp_path), "/proc/self/mem", tmp_path / "host")
    for name in ("/proc/sys/kernel", "/sys"):
        with pytest.raises(UsageError, match=f"{name} is a folder of the kernel's"):
            openssh.get(record("x", tmp_path), name, tmp_path / "host")
    assert not list((tmp_path / "t").iterdir()), "nor is anything left in the guest"


def test_a_file_of_the_kernel_without_end_is_given_up(
    tmp_path: Path, guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr(openssh, "_GIVE", openssh._GIVE.replace(f"ulimit -f {openssh._READ_BLOCKS}", "ulimit -f 0"))
    with pytest.raises(LabError, match="cannot copy"):
        openssh.get(record("x", tmp_path), "/proc/version", tmp_path / "host")
    assert not [*(tmp_path / "t").iterdir(), *(tmp_path / "host").iterdir()]


def test_links_are_judged_once_every_folder_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "top" / "d"
    closed.mkdir(parents=True)
    (closed / "s").symlink_to("..")
    (tmp_path / "top" / "a").symlink_to("d/s/../secret")  # where d cannot be looked into: top/secret
    real, closed_mode = os.path.realpath, 0o000
    closed.chmod(closed_mode)

    def realpath(path: str | Path) -> str:
        assert closed.stat().st_mode & 0o700 == 0o700
        return real(path)

    monkeypatch.setattr(os.path, "realpath", realpath)
    assert openssh._strip(tmp_path / "top") == ["top/a"]


def test_what_a_folder_of_the_guests_has_is_not_replaced(tmp_path: Path, guest: Path) -> None:
    one, host = record("x", tmp_path), tmp_path / "host"
    (host / "name").write_text("new")
    (host / "tree").mkdir()
    (host / "tree" / "more").write_text("more")
    (guest / "linked").mkdir()
    (guest / "it").write_text("old")
    (guest / "name").symlink_to("it")
    (guest / "tree").symlink_to("linked")
    openssh.put(one, host / "name", str(guest))
    openssh.put(one, host / "tree", str(guest))
    assert (guest / "name").is_symlink() and (guest / "it").read_text() == "new"
    assert (guest / "tree").is_symlink() and (guest / "linked" / "more").read_text() == "more"
    (guest / "it").unlink()
    openssh.put(one, host / "name", str(guest))
    assert (guest / "name").is_symlink() and (guest / "it").read_text() == "new", "it led nowhere"
    os.mkfifo(guest / "pipe")
    os.mkdir(guest / "folder")
    os.symlink("linked", guest / "link")
    for name in ("pipe", "folder", "link"):
        (host / name).write_text("new")
        with pytest.raises(UsageError, match="is no plain file"):
            openssh.put(one, host / name, str(guest))
        assert not (guest / name).is_file()


def test_links_in_a_circle_come_as_they_are(tmp_path: Path, guest: Path) -> None:
    (guest / "tree").mkdir()
    (guest / "tree" / "a").symlink_to("a")
    openssh.get(record("x", tmp_path), str(guest / "tree"), tmp_path / "host")
    assert os.readlink(tmp_path / "host" / "tree" / "a") == "a"
