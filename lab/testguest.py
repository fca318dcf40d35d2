# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test is handed by the pytest plugin: a guest to run commands in. Light to import: nothing starts here."""

from __future__ import annotations

import io
import posixpath
import shlex
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import dmesg
from lab.cell import STANDARD
from lab.deadline import Deadline
from lab.errors import LabError
from lab.untrusted import clean, one_line

if TYPE_CHECKING:
    from lab.events import Splat
    from lab.kerneltree import Tree
    from lab.testlab import Running

COMMAND_S = 60.0
HOME = "/root"
SETTLE_QUIET_S, SETTLE_MAX_S = 0.3, 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """The machine that a test asks for, by names that were checked."""

    arch: str
    kernel: str
    hardware: str
    vcpus: int = 0  # 0: the profile's
    tree: Tree | None = None  # the build tree that `kernel` is of

    @property
    def name(self) -> str:
        """As tests are told apart by."""
        words = [self.arch, self.kernel]
        words += [self.hardware] if self.hardware != STANDARD else []
        words += [f"{self.vcpus}cpu"] if self.vcpus else []
        return "-".join(words)


@dataclass(frozen=True, slots=True)
class Result:
    """A finished command: its exit status and what it said, as text without terminal escapes."""

    status: int
    stdout: str
    stderr: str


class CommandFailed(LabError):
    """A command ended with another status than 0; `result` has all of it."""

    def __init__(self, command: str, result: Result) -> None:
        said = one_line(result.stderr) or one_line(result.stdout) or "it said nothing"
        super().__init__(f"'{one_line(command, 80)}' ended with status {result.status} in the guest: {said}")
        self.result = result


class Guest:
    """A guest, for the length of one test. Times are for the reference host; a slower one gets more."""

    def __init__(self, running: Running, mark: str, *, splats_allowed: bool) -> None:
        self._running = running
        self._mark = mark
        self._allowed = splats_allowed
        self._seen = len(running.console.splats)  # of earlier tests
        running.forgiving = splats_allowed
        self.run(f"echo '{mark}' >/dev/kmsg")

    @property
    def arch(self) -> str:
        """The architecture, e.g. `aarch64`."""
        return self._running.machine.image.arch.name

    @property
    def kernel(self) -> str:
        """The kernel by the lab's name, e.g. `trixie`."""
        return self._running.machine.image.recipe

    @property
    def release(self) -> str:
        """The kernel by its own name, as `uname -r`."""
        return self._running.machine.image.release

    @property
    def vcpus(self) -> int:
        """How many processors it has."""
        return self._running.machine.hardware.vcpus

    @property
    def console_log(self) -> Path:
        """File on the host with all that the serial line said so far; a shared guest's has earlier tests too."""
        return self._running.console_log

    @property
    def splats(self) -> Sequence[Splat]:
        """What the kernel complained of on the console during this test; asked where a test allows splats."""
        return tuple(self._running.console.splats[self._seen :])

    def run(
        self, command: str, *, check: bool = True, stdin: str | bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """Run a shell command as root, to its end.

        Raises CommandFailed on a status other than 0 unless `check` is false, DeadlineError when time is up, and
        GuestLost when the guest ended or its kernel splat.
        """
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = self._running.guest.run(command, deadline=self._deadline(timeout_s), stdin=data, check=False)
        result = Result(done.status, clean(done.stdout), clean(done.stderr))
        if check and result.status != 0:
            raise CommandFailed(command, result)
        return result

    def put(self, source: Path | str, target: str = "", *, timeout_s: float = COMMAND_S) -> str:
        """Copy a file or a folder of the host into the guest, as `target` (by default NAME); returns its path.

        A path that does not begin with a slash is one in /root, where commands run; one that ends with it is a folder.
        """
        source = Path(source)
        name = source.resolve().name
        place = posixpath.join(HOME, f"{target}{name}" if target.endswith("/") else target or name)
        folder, _, name = place.rpartition("/")
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.add(source, arcname=name, filter=_roots)
        self._running.guest.put_tar(out.getvalue(), shlex.quote(folder or "/"), deadline=self._deadline(timeout_s))
        return place

    def get(self, source: str, target: Path | str, *, timeout_s: float = COMMAND_S) -> Path:
        """Copy a file or a folder of the guest to the host, as `target`, which must not exist; returns that path.

        A path that does not begin with a slash is one in /root. Files and folders of its disk only (those of /proc
        have no size: `run` reads them), at most 64 MiB in all.
        Raises LabError for anything else.
        """
        target = Path(target)
        folder, _, name = posixpath.join(HOME, source).rstrip("/").rpartition("/")
        command = f"cd {shlex.quote(folder or '/')} && tar -c -f - -- {shlex.quote(name)}"
        done = self._running.guest.run(command, deadline=self._deadline(timeout_s), check=False)
        if done.status != 0:
            raise CommandFailed(command, Result(done.status, "", clean(done.stderr)))
        _unpack(done.stdout, name, target)
        return target

    def build(self, folder: Path | str) -> list[Path]:
        """Build a folder of module sources (with a Kbuild or a Makefile) for this guest's kernel, on the host.

        Returns the .ko files, which lie in a folder of this guest's; the sources stay as they are. Raises BuildError
        with the compiler's first complaint.
        """
        from lab.testlab import build

        return build(self._running, Path(folder))

    def dmesg(self) -> str:
        """The kernel's log since this test began."""
        return self.run("dmesg").stdout.rpartition(self._mark)[2].partition("\n")[2]

    def complaint(self) -> str:
        """What is wrong with the guest at the end of a test, in one decisive line; empty if nothing is."""
        lost = self._running.guest.lost
        if lost:
            self._running.guest.console.settle(SETTLE_QUIET_S, Deadline.after(SETTLE_MAX_S))
        if self._allowed:
            return ""
        if splats := self.splats:
            return min(splats, key=lambda splat: (-splat.kind.rank, splat.line)).decisive
        if lost:
            return lost
        try:  # what the console does not show, the log does
            worst = dmesg.read(self.run("dmesg").stdout, mark=self._mark).worst
        except LabError as e:
            return e.message
        return worst.decisive if worst else ""

    def _deadline(self, seconds: float) -> Deadline:
        return Deadline.after(seconds * self._running.scale)


def _roots(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owned by root, and from no future that a guest's clock does not know."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = "root"
    return info


def _unpack(data: bytes, name: str, target: Path) -> None:
    """Take files and folders out of a guest's archive, nothing else, and nothing outside of `target`."""
    if target.exists():
        raise LabError(f"{target} exists already")
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                inner = Path(member.name).relative_to(name)
                if ".." in inner.parts or not (member.isreg() or member.isdir()):
                    raise LabError(f"the guest sent something that is no file or folder: {one_line(member.name)}")
                place = target / inner
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                elif (stream := archive.extractfile(member)) is not None:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(stream.read())
    except (tarfile.TarError, ValueError, OSError) as e:
        raise LabError(f"the guest sent no readable archive of {name}: {e}") from e
