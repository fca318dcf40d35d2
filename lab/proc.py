# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that starts host processes. Every command is logged so that it can be pasted."""

from __future__ import annotations

import logging
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from lab import halt
from lab.deadline import Deadline
from lab.errors import DeadlineError, HostError

log = logging.getLogger(__name__)

# A command dies with the thread that waits for it, and so with the lab, even after kill -9: a QEMU that
# hangs under KVM would otherwise run for ever. A program does this, since code between fork and exec
# (preexec_fn) may deadlock where there are threads. Debian has setpriv always: util-linux is essential.
_MORTAL = ("setpriv", "--pdeathsig", "KILL", "--")
_waited: set[int] = set()
_starting = threading.Lock()
_LEAVE_S = 2.0
_TURN_S = 0.1  # how often a running command looks whether we were told to stop


def cores() -> int:
    """CPUs this process, and what it starts, may use."""
    return len(os.sched_getaffinity(0))


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
    `check` is false), DeadlineError past the deadline and Interrupted when told to stop (the
    process group is killed), HostError when the program is missing. With `log_file` the output is
    also appended there.
    """
    halt.check()
    words = [str(word) for word in argv]
    log.debug("+ %s", shlex.join(words))
    environment = {**os.environ, **(env or {})}
    if shutil.which(words[0], path=environment.get("PATH")) is None:
        raise _missing(words[0])
    try:
        with (
            _input(stdin) as given,
            _Waited(
                [*_MORTAL, *words],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            ) as process,
        ):
            try:
                output = _output(process, words, deadline)
            except BaseException:
                os.killpg(process.pid, 9)
                process.wait()
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


def foreground(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> int:
    """Run a command that has our terminal, to its end; its exit code, negative when a signal ended it.

    Ctrl-C is the command's own. `env` is added to the environment. Raises HostError when the program is missing; when
    we are told to end, the command is, too.
    """
    words = [str(word) for word in argv]
    log.debug("+ %s", shlex.join(words))
    if shutil.which(words[0]) is None:
        raise _missing(words[0])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # The command does not inherit that Ctrl-C is ignored: whoever runs it wants it back.
        with subprocess.Popen(["env", "--default-signal=INT", *words], env={**os.environ, **(env or {})}) as process:
            try:
                return process.wait()
            except BaseException:
                process.terminate()
                raise
    finally:
        signal.signal(signal.SIGINT, before)


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


@contextmanager
def beside(argv: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    """A process beside us, in a session of its own and with no terminal, that dies with this thread.

    It is waited for on the way out, and killed there after an error.
    """
    log.debug("+ %s &", shlex.join(str(word) for word in argv))
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with _Waited([*_MORTAL, *map(str, argv)], **quiet, start_new_session=True, cwd="/") as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def become(argv: Sequence[str | Path]) -> NoReturn:
    """Be another program from now on, with our terminal and environment; HostError when it is missing."""
    words = [str(word) for word in argv]
    log.debug("+ exec %s", shlex.join(words))
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
    except FileNotFoundError as e:
        raise _missing(words[0]) from e


def follow(argv: Sequence[str | Path]) -> int:
    """Run a command with our stdin, stdout and stderr to its end; its exit code, 128 and more when a signal ended it.

    It ends, too, when we do, and when nobody reads our stdout any more (`lab exec -- yes | head -1`), even if it never
    learns that. Raises HostError when the program is missing.
    """
    words = [str(word) for word in argv]
    log.debug("+ %s", shlex.join(words))
    if shutil.which(words[0]) is None:
        raise _missing(words[0])
    sys.stdout.flush()
    with subprocess.Popen([*_MORTAL, *words]) as process:
        ended = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.register(1, 0)  # a pipe's other end was closed: told without being asked for
            if all(handle != ended for handle, _ in poll.poll()):
                process.terminate()  # ssh gives the pipes that it shares with others back as they were
                try:
                    process.wait(_LEAVE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                return 128 + signal.SIGPIPE
        except BaseException:
            process.kill()
            raise
        finally:
            os.close(ended)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def pipe(source: Sequence[str | Path], sink: Sequence[str | Path]) -> tuple[tuple[int, int], str]:
    """Run two commands, the first one's stdout being the second one's stdin, to their ends.

    Returns their statuses, and what both wrote to stderr. HostError when a program is missing.
    """
    first, second = ([*_MORTAL, *map(str, argv)] for argv in (source, sink))
    log.debug("+ %s | %s", shlex.join(first), shlex.join(second))
    for argv in (source, sink):
        if shutil.which(str(argv[0])) is None:
            raise _missing(str(argv[0]))
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(first, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as giver,
        subprocess.Popen(second, stdin=giver.stdout, stdout=subprocess.DEVNULL, stderr=said) as taker,
    ):
        assert giver.stdout is not None
        giver.stdout.close()  # else the first would not learn that the second has ended
        statuses = (giver.wait(), taker.wait())
        said.seek(0)
        return statuses, said.read(1 << 16).decode(errors="replace")


def waits_for(pid: int) -> bool:
    """Whether `run` waits for the end of this process: nobody else may take its exit status."""
    with _starting:  # one that has just begun may have ended before it is known
        return pid in _waited


class _Waited(subprocess.Popen[bytes]):
    """A process that `waits_for` knows, from its beginning until its status has been taken."""

    def __init__(self, argv: list[str], **how: Any) -> None:
        with _starting:
            super().__init__(argv, **how)
            _waited.add(self.pid)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _waited.discard(self.pid)


@contextmanager
def _input(data: bytes | None) -> Iterator[IO[bytes] | int]:
    """What a command reads, as a file: communicate() forgets its input once it timed out (Python 3.11)."""
    if data is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as stream:
        stream.write(data)
        stream.seek(0)
        yield stream


def _output(process: subprocess.Popen[bytes], words: list[str], deadline: Deadline | None) -> bytes:
    """All that a process prints until it ends."""
    while True:
        try:
            turn_s = min(_TURN_S, deadline.remaining_s()) if deadline else _TURN_S
            return process.communicate(timeout=turn_s)[0]
        except subprocess.TimeoutExpired:
            halt.check()
            if deadline and deadline.passed():
                raise DeadlineError(
                    f"{words[0]} did not end within {deadline.total_s:.0f} s", hint=shlex.join(words)
                ) from None


def _missing(program: str) -> HostError:
    return HostError(f"{program} is not installed", hint="run: make setup")
