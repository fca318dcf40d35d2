# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that starts host processes. Every command is logged so that it can be pasted."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.deadline import Deadline
from lab.errors import DeadlineError, HostError

log = logging.getLogger(__name__)

# A command dies with the thread that waits for it, and so with the lab, even after kill -9: a QEMU that
# hangs under KVM would otherwise run for ever. A program does this, since code between fork and exec
# (preexec_fn) may deadlock where there are threads. Debian has setpriv always: util-linux is essential.
_MORTAL = ("setpriv", "--pdeathsig", "KILL", "--")


class CommandFailed(HostError):
    """A host command ended with a non-zero status; `output` holds the tail of what it printed."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        tail = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        super().__init__(f"{argv[0]} failed with status {status}: {tail[:300]}", hint=shlex.join(argv))
        self.status = status
        self.output = output


def run(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    check: bool = True,
    log_file: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; stdout and stderr are captured together as text.

    `env` is added to the environment. Raises CommandFailed on a non-zero status (unless
    `check` is false), DeadlineError past the deadline (the process group is killed), HostError
    when the program is missing. With `log_file` the output is also appended there.
    """
    words = [str(word) for word in argv]
    log.debug("+ %s", shlex.join(words))
    environment = {**os.environ, **(env or {})}
    if shutil.which(words[0], path=environment.get("PATH")) is None:
        raise _missing(words[0])
    try:
        with subprocess.Popen(
            [*_MORTAL, *words],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(stdin, timeout=deadline.remaining_s() if deadline else None)
            except BaseException as e:
                os.killpg(process.pid, 9)
                process.wait()
                if isinstance(e, subprocess.TimeoutExpired) and deadline:
                    raise DeadlineError(
                        f"{words[0]} did not end within {deadline.total_s:.0f} s", hint=shlex.join(words)
                    ) from e
                raise
    except FileNotFoundError as e:
        raise _missing(_MORTAL[0]) from e
    text = output.decode(errors="replace")
    if log_file is not None:
        with log_file.open("a") as stream:
            stream.write(f"+ {shlex.join(words)}\n{text}")
    if check and process.returncode != 0:
        raise CommandFailed(words, process.returncode, text)
    return subprocess.CompletedProcess(words, process.returncode, text, "")


def detach(argv: Sequence[str | Path]) -> int:
    """Start a process that outlives us, in a session of its own and with no terminal; its pid."""
    log.debug("+ %s &", shlex.join(str(word) for word in argv))
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    ).pid


def _missing(program: str) -> HostError:
    return HostError(f"{program} is not installed", hint="run: make setup")
