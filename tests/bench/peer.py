# SPDX-License-Identifier: GPL-2.0-or-later
"""virtme-ng beside the lab: the same kernel, the same machine, emulation forced on both."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab import arch, headers, image, paths, proc, recipe
from lab.deadline import Deadline
from lab.errors import HostError
from lab.image import Image

LOCK = paths.REPOSITORY / "requirements-bench.lock"
MEMORY_MIB, VCPUS = 768, 2
ANSWER_S = 300.0
Progress = Callable[[str], None]


def kernel_image(*, progress: Progress) -> Image:
    """An x86_64 image with bookworm's ordinary kernel: the cloud one has no 9p, by which virtme-ng mounts its root."""
    row = arch.get("x86_64")
    wanted = dataclasses.replace(recipe.get("bookworm", row), name="bookworm-generic", kernel={row.name: row.debian})
    folder = image.images_dir() / f"{wanted.name}-{row.name}-{wanted.digest(row)}"
    if image.load(folder, row) is None:
        image.remove_folder(folder)
        image.make(wanted, row, folder, progress=progress)
    found = image.load(folder, row)
    if found is None:
        raise HostError("the image for the comparison vanished while it was built", hint="try again")
    return found


def install(*, progress: Progress) -> Path:
    """virtme-ng in a venv of its own; returns the folder of its programs."""
    venv = paths.cache_dir() / "bench" / "virtme-ng"
    key = LOCK.read_text()
    stamp = venv / ".lock"
    if not stamp.exists() or stamp.read_text() != key:
        progress("installing virtme-ng into a venv of its own")
        shutil.rmtree(venv, ignore_errors=True)
        base = Path(sys.base_prefix) / "bin/python3"
        proc.run([base if base.exists() else sys.executable, "-m", "venv", venv])
        pip: list[str | Path] = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        proc.run([*pip, "--require-hashes", "-r", LOCK], deadline=Deadline.after(600))
        paths.write_whole(stamp, key)
    return venv / "bin"


def lay_out(kernel: Image) -> Path:
    """A folder like a root with /boot and /lib/modules of an image; returns the kernel's path in it."""
    folder = paths.cache_dir() / "bench" / f"kernel-{kernel.digest}"
    path = folder / "boot" / f"vmlinuz-{kernel.release}"
    if not path.exists():
        with paths.folder_whole(folder) as work:
            (work / "boot").mkdir()
            shutil.copy(kernel.kernel, work / "boot" / path.name)
            with headers.opened(kernel, work, deadline=Deadline.after(120)) as disk:
                disk.copy([f"/usr/lib/modules/{kernel.release}"], work / "lib/modules")
    return path


def first_answer_s(programs: Path, kernel: Path, release: str) -> float:
    """Seconds from starting `vng` to the answer of `uname -r` in its guest; HostError when it gives none.

    Not through `lab.proc`: what counts is when the first line comes, not when the command ends.
    """
    argv = [str(programs / "vng"), "--run", str(kernel), "--disable-kvm"]
    argv += ["--cpus", str(VCPUS), "--memory", f"{MEMORY_MIB}M", "--", "uname", "-r"]
    env = {**os.environ, "PATH": f"{programs}:{os.environ.get('PATH', '')}"}
    started, answered, said = time.monotonic(), None, []
    with subprocess.Popen(
        ["timeout", "--kill-after=5", str(int(ANSWER_S)), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            if answered is None and line.strip() == release:
                answered = time.monotonic() - started
    if answered is None:
        raise HostError(f"virtme-ng gave no answer: {next((line for line in reversed(said) if line), 'silence')[:300]}")
    return answered
