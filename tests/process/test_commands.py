# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands as processes: those that answer at once import nothing heavy, and closed streams do no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from tests.staying import kept

HEAVY = """
import atexit, sys
heavy = {"libvirt", "paramiko", "rich.live", "jinja2", "lab.profile", "lab.schedule"}
atexit.register(lambda: print("HEAVY", *sorted(heavy & set(sys.modules)), file=sys.stderr))
from lab.cli import main
main()
"""


def asked(*words: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which says at its end what heavy it has imported."""
    env = {**os.environ, **env, "PYTHONPATH": str(Path(lab.__file__).parent.parent)}
    argv = [sys.executable, "-c", HEAVY, *words]
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def test_a_wrong_name_is_told_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    done = asked("run", "matrix", "--arch", "riscv64", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lab: unknown architecture 'riscv64' (known: x86_64, aarch64)\nHEAVY\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """What each shell asks at `lab ssh mi<Tab>`."""
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))
    words = {"COMP_WORDS": "lab ssh mi", "COMP_CWORD": "2"}  # bash; the others:
    words |= {"_TYPER_COMPLETE_ARGS": "lab ssh mi", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    with kept(tmp_path, name="mine"):
        done = asked(folder=tmp_path, _LAB_COMPLETE=f"complete_{shell}", **words)
    assert "mine" in done.stdout
    assert done.stderr == "HEAVY\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(tmp_path: Path, closed: str) -> None:
    command = f'{sys.executable} -m lab "$@" {closed}'
    env = {**os.environ, "PYTHONPATH": str(Path(lab.__file__).parent.parent), "LAB_STATE_DIR": str(tmp_path / "state")}
    for words, code in ((["list", "kernels"], 0), (["exec", "--", "true"], 2)):
        done = subprocess.run(
            ["sh", "-c", command, "sh", *words], cwd=tmp_path, env=env, capture_output=True, timeout=60
        )
        assert done.returncode == code, done
        assert b"internal error" not in done.stderr


def test_a_stream_that_was_closed_is_open_for_children_too(tmp_path: Path) -> None:
    code = "import os; from lab.cli import _open_streams; _open_streams(); os.execvp('sh', ['sh', '-c', 'echo x >&2'])"
    env = {**os.environ, "PYTHONPATH": str(Path(lab.__file__).parent.parent)}
    command = ["sh", "-c", f'{sys.executable} -c "{code}" 2>&-']
    assert subprocess.run(command, cwd=tmp_path, env=env, timeout=60).returncode == 0
