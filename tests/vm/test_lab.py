# SPDX-License-Identifier: GPL-2.0-or-later
"""The command itself, interrupted and killed: finished cells stay, guests do not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import reaper
from lab.deadline import Deadline, wait_until
from lab.guest import Machine
from tests.vm.conftest import KERNELS

WAIT_S = 300.0


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, so that only its guests are looked at."""
    short = Path(f"/tmp/lab-test-{os.getpid()}")  # a socket's path holds 108 bytes
    short.mkdir(mode=0o700)
    monkeypatch.setenv("LAB_RUNTIME_DIR", str(short))
    yield short
    reaper.sweep(short)


@pytest.fixture
def lab(arch: str, machine: Machine, runtime: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`lab run matrix` with several cells, one at a time, its guest up and swapping."""
    argv = [sys.executable, "-m", "lab", "run", "matrix", "--arch", arch, "--kernel", KERNELS[arch]]
    argv += ["--mechanism", "refcount", "--swaps", "200", "-j", "1", "--build", "host"]
    argv += ["--results", str(tmp_path / "results")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        wait_until(
            lambda: process.poll() is not None or _swapping(tmp_path), "a swapping guest", Deadline.after(WAIT_S)
        )
        assert process.poll() is None, process.communicate()[0].decode()
        assert reaper.guests(runtime)
        yield process
        if process.poll() is None:
            process.kill()


def _swapping(folder: Path) -> bool:
    """Whether a cell's guest is up: its console is written from the first byte, its XML once it answers."""
    return any(folder.glob("results/*/cells/*/*/*/*/domain.xml"))


def test_kill_9_leaves_no_guest(lab: subprocess.Popen[bytes], runtime: Path) -> None:
    lab.send_signal(signal.SIGKILL)
    lab.wait(10)
    wait_until(lambda: not reaper.guests(runtime), "the end of every guest", Deadline.after(5))
    wait_until(lambda: not list(runtime.iterdir()), "the end of the reaper", Deadline.after(10))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_guests_and_keeps_results(
    lab: subprocess.Popen[bytes], runtime: Path, tmp_path: Path, number: signal.Signals
) -> None:
    lab.send_signal(number)
    out, _ = lab.communicate(timeout=60)
    assert lab.returncode == 130, out.decode()
    assert "Traceback" not in out.decode()
    assert not reaper.guests(runtime)
    run = json.loads((tmp_path / "results" / "latest" / "run.json").read_text())
    assert run["finished"] is False
    assert len(run["matrix"]["cells"]) == 3
    assert all(cell["status"] == "PASS" for cell in run["cells"])
