# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb on a guest that stays: what it is told of the guest, its run, and the guest's state afterwards.

gdb runs beside us with our terminal, not in our place: when it is killed, QEMU does not hear of it, and a guest that
ran before would stand still for ever.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import arch, kernelmap, paths, proc, registers, shelf
from lab.errors import HostError, LabError, UsageError
from lab.stayed import Record

log = logging.getLogger(__name__)

GDB = "gdb-multiarch"
REFUSED = 97  # exit code of a gdb that could not show the guest; no script of anybody's ends so
START = Path(__file__).parent / "gdb" / "start.py"
PYTHON = ".py"  # what gdb takes for Python
CONSOLE_CAP = 16 << 20  # bytes of a console's log that are read
LET_GO_S = 5.0
# Where the sources lay when modules were built, by the name of one that every build has.
_SOURCES = (rb"(/[^\0]{1,400})/core/core\.c\0", rb"(/[^\0]{1,400})/mechanisms/invalidate/guard_\w+\.S\0")


def run(record: Record, *, script: Path | None, more: Sequence[str]) -> int:
    """gdb on a guest, to its end; gdb's exit code. `script` is run in batch mode and decides the code.

    Raises UsageError when there is no such script, HostError when gdb is missing, LabError when the guest has no stub.
    """
    if script is not None and (not script.exists() or script.is_dir()):
        raise UsageError(f"{script}: no such file")
    if not Path(record.gdb).exists():
        raise LabError(f"{record.name} has no gdb stub at {record.gdb}", hint="lab ps says which guests there are")
    with _alone(record), tempfile.TemporaryDirectory(prefix="lab-gdb-") as folder:
        told = Path(folder) / "guest.json"
        told.write_text(json.dumps(facts(record, script=script)))
        argv = [GDB, "-q", *(("-nx", "-batch") if script else ()), "-x", str(START)]
        argv += ["-x", str(script)] if script and script.suffix != PYTHON else []
        status = proc.foreground([*argv, *more], env={"LAB_GDB": str(told)})
    if status < 0 and not record.frozen:
        log.warning("gdb was killed: %s goes on", record.name)
        let_go(Path(record.gdb))
    return status


@contextmanager
def _alone(record: Record) -> Iterator[None]:
    """LabError when a gdb looks into the guest already: to QEMU's stub a second would be a stop that nobody ends."""
    with open(f"{record.gdb}.lock", "w") as lock:
        if not shelf.taken(lock):
            raise LabError(f"another gdb looks into {record.name}", hint="quit that one first")
        yield


def facts(record: Record, *, script: Path | None) -> dict[str, Any]:
    """What lab/gdb/start.py wants to know; a Python `script` is run by it."""
    image = Path(record.image)
    symbols = kernelmap.read(image)
    if record.text is None:
        raise LabError(f"where the kernel of {record.name} lies is not known", hint="it did not say when it booted")
    full = image / kernelmap.VMLINUX
    build = Path(record.build) if record.build else None
    return {
        "name": record.name,
        "arch": record.arch,
        "release": record.release,
        "socket": record.gdb,
        "frozen": record.frozen,
        "script": script is not None,
        "python": str(script) if script and script.suffix == PYTHON else "",
        "refused": REFUSED,
        "kernel": str(full if full.exists() else kernelmap.symbol_file(image, arch.get(record.arch).elf)),
        "full": full.exists(),
        "moved": record.text - (kernelmap.linked_at(full) if full.exists() else symbols[kernelmap.TEXT].address),
        "build": str(build) if build else None,
        "sources": sources(build) if build else [],
        "splats": [one.to_json() for one in registers.read(_console(Path(record.console_log)))],
    }


def sources(build: Path) -> list[list[str]]:
    """Pairs for gdb: where the sources were when the modules of a folder were built, and where they are."""
    try:
        data = (build / "hs_core.ko").read_bytes()
    except OSError:
        return []
    found = {one for pattern in _SOURCES for one in re.findall(pattern, data)}
    return [[old.decode(errors="replace"), str(paths.kmod_dir())] for old in sorted(found)]


def let_go(stub: Path) -> None:
    """Let a guest run that somebody stopped through its gdb stub, and then vanished."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(LET_GO_S)
            sock.connect(str(stub))
            sock.sendall(b"+$D;1#b0")  # "detach from process 1", with its checksum
            sock.recv(16)
    except OSError as e:
        raise HostError(f"the guest stands still: {e}", hint="lab gdb once more, and quit it: then it runs") from e


def _console(file: Path) -> list[str]:
    """The lines of a console's log, as much as is sane; none where there is no log."""
    try:
        with file.open("rb") as stream:
            return stream.read(CONSOLE_CAP).decode(errors="replace").splitlines()
    except OSError:
        return []
