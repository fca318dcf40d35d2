# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that stay, through the command itself, from up to down; and what a red run leaves standing."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab import reaper, stayed
from lab.deadline import Deadline, wait_until
from lab.guest import Machine
from tests.vm.conftest import KERNELS

WAIT_S = 300.0
END_S = 60.0  # until all is gone; what takes longer is stuck
MUTANT = "splat"


class Lab:
    """The command, with folders of its own for records, sockets and results."""

    def __init__(self, work: Path, runtime: Path) -> None:
        self.work, self.runtime = work, runtime

    def __call__(self, *words: str, code: int = 0, stdin: bytes = b"") -> str:
        """Run it to its end; what it says on stdout."""
        argv = [sys.executable, "-m", "lab", *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, cwd=self.work, timeout=WAIT_S)
        assert done.returncode == code, (words, done.stdout.decode(), done.stderr.decode())
        return done.stdout.decode()

    def there(self) -> list[dict[str, Any]]:
        """The guests that are up."""
        found: list[dict[str, Any]] = json.loads(self("ps", "--json"))
        return found

    def nothing_left(self) -> bool:
        """Whether no guest, socket, record or log is left, and no process that knows where they were."""
        files = [path for path in self.work.glob("state/guests/*") if path.name != ".lock"]
        return not any((reaper.guests(self.runtime), list(self.runtime.iterdir()), files, self.processes()))

    def processes(self) -> list[str]:
        """The command lines that name our folder of sockets."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                found.append(file.read_text(errors="replace").replace("\0", " "))
        return [line for line in found if str(self.runtime) in line]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    runtime = Path(f"/tmp/lab-stay-{os.getpid()}")  # a socket's path holds 108 bytes
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("LAB_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    one = Lab(tmp_path, runtime)
    try:
        yield one
        one("down", "--all")
        wait_until(one.nothing_left, "the end of everything", Deadline.after(END_S))
    finally:
        reaper.sweep(runtime)


def terminal(words: list[str], dialog: Sequence[tuple[bytes, bytes]], folder: Path) -> bytes:
    """What a command prints on a terminal of 33 lines and 99 columns.

    The dialog is what is typed, the first of it at a prompt, and what is waited for then. Return is typed once more
    where nothing comes: a serial line that was opened just now may sit on what it got.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    argv = [sys.executable, "-m", "lab", *words]
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, cwd=folder, start_new_session=True) as process:
        os.close(slave)
        said, wanted, since = b"", b"# ", 0
        try:
            for typed, until in (*dialog, (b"", b"")):
                deadline = Deadline.after(END_S)
                while wanted not in said[since:]:
                    assert not deadline.passed(), (said, wanted)
                    if select.select([master], [], [], END_S / 6)[0]:
                        said += os.read(master, 4096)
                    else:
                        os.write(master, b"\r")
                since = said.index(wanted, since) + len(wanted)
                os.write(master, typed)
                wanted = until
            os.write(master, b"\x1d" if words[0] == "console" else b"exit 5\r")
            said += _rest(master)
            process.wait(WAIT_S)
        finally:
            process.kill()
            os.close(master)
        assert process.returncode == (0 if words[0] == "console" else 5), said
        return said


def _rest(master: int) -> bytes:
    said = b""
    try:
        while more := os.read(master, 4096):
            said += more
    except OSError:  # the other side is closed
        pass
    return said


def test_a_guest_stays_until_it_is_told_to_go(lab: Lab, arch: str, machine: Machine, tmp_path: Path) -> None:
    assert "is up" in lab("up", f"{arch}/{KERNELS[arch]}")
    (one,) = lab.there()
    name = one["name"]
    assert name == f"{arch}-{KERNELS[arch]}" and one["warm"] and one["release"] == machine.image.release
    assert lab("exec", "--", "uname", "-r").strip() == machine.image.release
    lab("exec", name, "--", "sh", "-c", "cat >/root/x; exit 7", code=7, stdin=b"from stdin")
    lab("cp", f"{name}:/root/x", "back")
    assert (tmp_path / "back").read_text() == "from stdin"
    lab("cp", "back", ":/root/there")
    assert lab("exec", "cat", "/root/there") == "from stdin"
    lab("cp", "back", ":/root/folder/")
    lab("cp", ":/root/folder", "copied")
    assert (tmp_path / "copied" / "back").read_text() == "from stdin"
    lab("cp", ":/proc/version", "version")
    assert machine.image.release in (tmp_path / "version").read_text()
    argv = [sys.executable, "-m", "lab", "exec", "--", "yes"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=tmp_path) as endless:
        assert endless.stdout is not None and endless.stdout.readline() == b"y\n"
        endless.stdout.close()
        assert endless.wait(END_S) == 128 + signal.SIGPIPE
    (tmp_path / "look.py").write_text(f"import os; gdb.execute('bt 3'); os.system('{sys.executable} -m lab ps >ps')\n")
    said = lab("gdb", "--script", "look.py")
    assert "#0" in said and "backtraces end" not in said, said
    assert "stands still" in (tmp_path / "ps").read_text()
    (tmp_path / "look.py").write_text("gdb.execute('hs slots')\n")
    lab("gdb", "--script", "look.py", code=1)  # it has none of our modules
    assert "stands still" not in lab("ps")
    assert "MiB" in lab("dump", name, "x.core")
    with (tmp_path / "x.core").open("rb") as core:
        assert core.read(4) == b"\x7fELF"
    # The serial line learns its size soon after, so it is asked until it knows.
    (ahead,) = [line for line in lab.processes() if line.startswith("ssh ")]
    assert subprocess.run(["ssh", *ahead.split()[3:5], "-O", "check", name], capture_output=True).returncode == 0
    asked = b"until stty size | grep -x '33 9'9; do sleep 0.1; done; tty\r"
    assert b"33 99\r" in terminal(["ssh"], [(asked, b"/dev/pts/")], tmp_path)
    assert stayed.ask(stayed.find(name), {"do": "connection"}) == {"path": ""}, "the shell had it"
    line = f"/dev/{machine.image.arch.console}".encode()
    more = [(b"", b"# "), (b"sh -c 'echo $((5*5))5; exec sleep 1000'\r", b"255"), (b"\x03", b"# ")]
    more += [(b"exit\r", b"logout"), (b"", b"# "), (b"echo $((6*6))6\r", b"366")]  # of another shell
    assert b"33 99\r" in terminal(["console"], [(b"\r" + asked, line), *more], tmp_path)
    lab("up", f"{arch}/{KERNELS[arch]}", "--name", name, code=2)
    assert f"{name} is down" in lab("down", name)
    assert lab.there() == []
    wait_until(lab.nothing_left, "the end of everything", Deadline.after(END_S))
    lab("down", name, code=2)


def test_a_guest_goes_with_its_killed_keeper(lab: Lab) -> None:
    lab("up", f"x86_64/{KERNELS['x86_64']}", "--name", "a")
    os.kill(lab.there()[0]["keeper"], signal.SIGKILL)
    assert "a is down" in lab("down", "a")
    wait_until(lab.nothing_left, "the end of everything", Deadline.after(END_S))


def test_a_red_cells_guest_stands_still_and_can_be_had_again(lab: Lab, arch: str, tmp_path: Path) -> None:
    cell = f"{arch}/{KERNELS[arch]}/refcount/syscall"
    order = ["--mutant", MUTANT, "--swaps", "6", "--seed", "7", "--build", "host"]
    said = lab("run", "cell", cell, *order, "--keep", "failed", code=1)
    (one,) = lab.there()
    assert one["cell"] == cell and one["frozen"].startswith("CRASH: ")
    assert one["name"] in said and f"lab gdb {one['name']}" in said
    assert Path(one["folder"]) == (tmp_path / "results" / "latest" / "cells" / cell).resolve()
    assert (Path(one["build"]) / "hs_core.ko").is_file()
    assert reaper.guests(lab.runtime)
    lab("ssh", code=2)  # it says why
    (tmp_path / "look.gdb").write_text("bt 6\n")
    shown = " ".join(lab("gdb", "--script", "look.gdb").split())
    assert re.search(r"#1 \S+ (in )?splat_argument [^#]*/mutants/splat\.c:\d+ #2 ", shown), shown
    assert reaper.guests(lab.runtime), "it still stands there"
    lab("down")

    said = lab("up", f"latest/{cell}", "--freeze-on-splat")
    assert "--seed 7" in said and f"mutant {MUTANT}" in said
    (again,) = lab.there()
    assert again["folder"] == one["folder"] and not again["frozen"]
    assert "hs_core" in lab("exec", "lsmod")
    calls = "cd /run/lab && (./hs-load --load syscall --seed 7 --threads 4 &) && ./hs-ctl swap --count 6 --seed 7"
    argv = [sys.executable, "-m", "lab", "exec", "--", "sh", "-c", calls]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: bool(lab.there()[0]["frozen"]), "a frozen guest", Deadline.after(WAIT_S), poll_s=0.5)
        lab("down")
        assert process.wait(WAIT_S) == 255  # it stood still with its guest
    wait_until(lab.nothing_left, "the end of everything", Deadline.after(END_S))


def test_nothing_stays_of_a_green_run(lab: Lab) -> None:
    cell = f"x86_64/{KERNELS['x86_64']}/refcount/syscall"
    lab("run", "cell", cell, "--swaps", "2", "--build", "host", "--keep", "failed")
    assert lab.there() == []
    wait_until(lab.nothing_left, "the end of everything", Deadline.after(END_S))
