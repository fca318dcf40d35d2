# SPDX-License-Identifier: GPL-2.0-or-later
"""Host processes: they end when they should, and what is missing is told by its name."""

import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from lab import halt, paths, proc
from lab.deadline import Deadline, wait_until
from lab.errors import DeadlineError, HostError, Interrupted


def child(pid: int) -> int:
    """The process that was started by another, or 0."""
    found = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    return next((int(words[0]) for words in found if words), 0)


def command(pid: int) -> str:
    """The command line of a living process; nothing of one that ended, reaped or not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def test_a_command_dies_with_the_lab() -> None:
    code = "from lab import proc; proc.run(['sleep', '600'])"
    with subprocess.Popen([sys.executable, "-c", code], cwd=paths.REPOSITORY) as lab:
        wait_until(lambda: command(child(lab.pid)) == "sleep 600", "the child", Deadline.after(10))
        pid = child(lab.pid)
        lab.send_signal(signal.SIGKILL)
        lab.wait(5)
    wait_until(lambda: command(pid) == "", "the child's end", Deadline.after(5))


@pytest.mark.parametrize("how", ["nobody reads it", "killed"])
def test_a_command_that_is_followed_ends_with_whom_it_is_for(how: str) -> None:
    code = "from lab import proc; raise SystemExit(proc.follow(['sh', '-c', 'echo begun; exec sleep 600']))"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, cwd=paths.REPOSITORY, stdout=subprocess.PIPE) as lab:
        assert lab.stdout is not None and lab.stdout.readline() == b"begun\n"
        pid = child(lab.pid)
        if how == "killed":
            lab.kill()
        lab.stdout.close()
        assert lab.wait(5) == (-signal.SIGKILL if how == "killed" else 128 + signal.SIGPIPE)
    wait_until(lambda: command(pid) == "", "the child's end", Deadline.after(5))


@pytest.mark.parametrize(("words", "status"), [("exit 7", 7), ("kill -9 $$", 128 + signal.SIGKILL)])
def test_a_command_that_is_followed_says_how_it_ended(words: str, status: int) -> None:
    assert proc.follow(["sh", "-c", words]) == status
    with pytest.raises(HostError, match="is not installed"):
        proc.follow(["no-such-program"])


def test_a_missing_program_is_named() -> None:
    with pytest.raises(HostError, match=r"^no-such-program is not installed$"):
        proc.run(["no-such-program"])


def test_a_program_is_looked_for_where_the_command_will(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "own").chmod(0o755)
    assert proc.run(["own"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}).stdout == "hello\n"


def test_a_failing_command_is_told_as_it_was_asked_for() -> None:
    with pytest.raises(proc.CommandFailed, match=r"^sh failed with status 3: no luck$") as caught:
        proc.run(["sh", "-c", "echo no luck; exit 3"])
    assert caught.value.hint == "sh -c 'echo no luck; exit 3'"


def test_a_command_past_its_deadline_is_killed() -> None:
    with pytest.raises(DeadlineError, match="sleep did not end"):
        proc.run(["sleep", "600"], deadline=Deadline.after(0.1))


def test_a_command_gets_all_of_its_input_however_long_it_takes() -> None:
    data = b"x" * (1 << 20)
    late = f"sleep {1.5 * proc._TURN_S}; cat"
    assert len(proc.run(["sh", "-c", late], stdin=data).stdout) == len(data)


def test_a_command_ends_when_the_process_is_told_to_stop() -> None:
    timer = threading.Timer(0.1, halt.call)
    timer.start()
    try:
        with pytest.raises(Interrupted):
            proc.run(["sleep", "600"])
        with pytest.raises(Interrupted):  # and none is started after
            proc.run(["no-such-program"])
    finally:
        halt.over()
