# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a lab that died: found by its lock, ended, removed. A sleeping process stands in for QEMU."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from lab import rack, reaper
from lab.deadline import Deadline, wait_until


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("LAB_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a guest of the rack `r1`."""
    argv = ["qemu-system-fake", "-c", "import time; time.sleep(600)", str(tmp_path / "run" / "r1" / "monitor.sock")]
    with subprocess.Popen(argv, executable=sys.executable) as process:
        wait_until(lambda: process.pid in reaper.guests(tmp_path / "run" / "r1"), "the guest", Deadline.after(5))
        yield process
        process.kill()


def make(tmp_path: Path, name: str) -> Path:
    (tmp_path / "run" / name).mkdir()
    work = tmp_path / "cache" / "racks" / name
    work.mkdir(parents=True)
    (work / "g1.qcow2").write_bytes(b"x")
    lock = work.with_suffix(".lock")
    lock.write_text(f"{tmp_path / 'run' / name}\n")
    return lock


def test_gc_ends_the_guests_of_a_dead_lab(tmp_path: Path, qemu: subprocess.Popen[bytes]) -> None:
    make(tmp_path, "r1")
    removed = rack.gc()
    assert qemu.wait(5) == -signal.SIGKILL
    assert len(removed) == 1 and "1 guests" in removed[0]
    assert not list((tmp_path / "run").iterdir())
    assert not list((tmp_path / "cache" / "racks").iterdir())
    assert rack.gc() == []


def test_gc_leaves_a_living_lab_alone(tmp_path: Path, qemu: subprocess.Popen[bytes]) -> None:
    lock = make(tmp_path, "r1")
    with lock.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert rack.gc() == []
        assert qemu.poll() is None
        assert (tmp_path / "cache" / "racks" / "r1" / "g1.qcow2").exists()


def test_gc_spares_a_living_lab_whose_runtime_folder_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rack.Hypervisor, "open", lambda _uri, *, root: nullcontext())
    monkeypatch.setattr(rack.proc, "detach", lambda argv: 0)
    with rack.open_rack() as opened:
        (opened.work / "g1.qcow2").write_bytes(b"x")
        monkeypatch.setenv("LAB_RUNTIME_DIR", str(tmp_path / "cron"))
        assert rack.gc() == []
        assert (opened.work / "g1.qcow2").exists() and opened.root.exists()


def test_gc_ends_the_guests_of_a_dead_lab_whose_runtime_folder_is_another(
    tmp_path: Path, qemu: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "r1")
    monkeypatch.setenv("LAB_RUNTIME_DIR", str(tmp_path / "cron"))
    assert len(rack.gc()) == 1
    assert qemu.wait(5) == -signal.SIGKILL
    assert not list((tmp_path / "run").iterdir())


def test_gc_removes_an_overlay_folder_without_a_lock(tmp_path: Path) -> None:
    make(tmp_path, "r2").unlink()
    assert len(rack.gc()) == 1
    assert not list((tmp_path / "cache" / "racks").iterdir())


def test_gc_removes_nothing_that_a_damaged_lock_names(tmp_path: Path) -> None:
    lock = make(tmp_path, "r3")
    (tmp_path / "precious").mkdir()
    for text in ("", str(tmp_path / "precious"), "r3", "\0"):
        lock.write_text(text)
        assert len(rack.gc()) == 1
    assert (tmp_path / "precious").exists()


def test_other_racks_guests_are_not_ours(tmp_path: Path, qemu: subprocess.Popen[bytes]) -> None:
    assert reaper.guests(tmp_path / "run" / "r11") == []
    assert reaper.guests(tmp_path / "run" / "r") == []
    assert reaper.sweep(tmp_path / "run" / "r2") == 0
    assert qemu.poll() is None


def test_the_reaper_acts_once_the_lock_is_free(tmp_path: Path, qemu: subprocess.Popen[bytes]) -> None:
    lock = make(tmp_path, "r1")
    work = tmp_path / "cache" / "racks" / "r1"
    holder = os.open(lock, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    quick = f"import runpy; main = runpy.run_path({reaper.__file__!r})['main']; "
    quick += "main.__globals__['LOOK_AGAIN_S'] = 0.02; main()"
    argv = [sys.executable, "-I", "-S", "-c", quick, str(lock), str(tmp_path / "run" / "r1"), str(work)]
    with subprocess.Popen(argv) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert qemu.poll() is None
        os.close(holder)
        assert qemu.wait(5) == -signal.SIGKILL
        assert process.wait(10) == 0
    assert not lock.exists() and not work.exists()
