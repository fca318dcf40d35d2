# SPDX-License-Identifier: GPL-2.0-or-later
"""A command whose child may outlive it: exit codes, signals, and who dies with whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from lab.deadline import Deadline, wait_until

# What a command would be: its work prints its process id, and then does what is asked for.
COMMAND = """
import os, signal, sys
from pathlib import Path
from lab import behind

def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, interrupt)

def work(handover):
    try:
        print(os.getpid(), flush=True)
        {work}
    except KeyboardInterrupt:
        Path({word!r}).write_text("interrupted")
        return 130

try:
    sys.exit(behind.outlived(work))
except Exception as e:
    sys.exit(f"{{type(e).__name__}}: {{e}}")
"""
WAIT_S = 20.0


def command(folder: Path, work: str) -> subprocess.Popen[str]:
    code = COMMAND.format(work=work.format(log=str(folder / "log")), word=str(folder / "word"))
    env = {**os.environ, "PYTHONPATH": str(Path(lab.__file__).parent.parent)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-S", "-c", code], env=env, stdout=pipe, stderr=pipe, text=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_work_that_ends_gives_its_exit_code(tmp_path: Path) -> None:
    with command(tmp_path, "return 4") as process:
        assert process.wait(WAIT_S) == 4


def test_an_error_of_the_work_is_told_by_the_child_alone(tmp_path: Path) -> None:
    with command(tmp_path, "raise ValueError('no')") as process:
        _, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (1, "ValueError: no\n")


def test_work_that_was_killed_is_an_error(tmp_path: Path) -> None:
    with command(tmp_path, "os.kill(os.getpid(), 9)") as process:
        _, err = process.communicate(timeout=WAIT_S)
    assert err == "HostError: the process that does the work was ended by SIGKILL\n"


def test_what_is_handed_over_lives_on_without_the_commands_output(tmp_path: Path) -> None:
    work = "handover.let_go(3, Path({log!r})); print('later', flush=True); signal.pause()"
    with command(tmp_path, work) as process:
        out, _ = process.communicate(timeout=WAIT_S)  # nobody holds the pipes open any more
        pid = int(out)
        assert process.returncode == 3
        wait_until(lambda: (tmp_path / "log").read_text() == "later\n", "what it prints now", Deadline.after(WAIT_S))
        assert alive(pid) and os.getsid(pid) == pid
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not alive(pid), "its end", Deadline.after(WAIT_S))
    assert (tmp_path / "word").read_text() == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_until_then_both_end_together(tmp_path: Path, number: signal.Signals) -> None:
    with command(tmp_path, "signal.pause()") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(WAIT_S) == (130 if number != signal.SIGKILL else -9)
        wait_until(lambda: not alive(pid), "the end of the child", Deadline.after(WAIT_S))
    assert (tmp_path / "word").read_text() == "interrupted"
