# SPDX-License-Identifier: GPL-2.0-or-later
"""OpenSSH's own client for guests that stay, with the terminal, escapes and exit codes; and copies, tar over it."""

from __future__ import annotations

import logging
import os
import posixpath
import shlex
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from lab import proc, stayed
from lab.errors import LabError, UsageError
from lab.stayed import Record
from lab.untrusted import one_line

log = logging.getLogger(__name__)

CONNECT_S = 10
NAMED = 3  # of what was left out, so many are named
_GREETING_S = 2.0  # a guest that is not as quick is asked anew, with CONNECT_S
# Exit statuses of our scripts in the guest: there is no such file; it is a device or a pipe; a folder of the kernel's;
# timeout's own.
_ABSENT, _UNFIT, _UNREAD, _ENDLESS = 44, 45, 46, 124
_READ_S, _READ_BLOCKS = 60, 131072  # a file of the kernel's may have no end; 64 MiB, in blocks of ulimit's
# As cp does: into a folder when there is one of that name, or the name ends as one's, else under that name. Folders on
# the way are made, links are followed. $1 is where, $2 the entry's name, $3 something when it is a folder.
_TAKE = (
    'case $1 in */) mkdir -p "$1" || exit;; esac; '
    'p=$(readlink -m -- "$1"); if [ -d "$p" ]; then q=$(readlink -m -- "$p/$2"); '
    'if [ -n "$3" ] && { [ -d "$q" ] || [ ! -e "$q" ]; }; then '
    'exec tar -x --keep-directory-symlink -f - -C "$p"; fi; p=$q; fi; '
    f'[ ! -e "$p" ] || [ -f "$p" ] || exit {_UNFIT}; '
    'mkdir -p "$(dirname "$p")" && t=$(mktemp -d "$(dirname "$p")/.lab.XXXXXX") && tar -x -f - -C "$t" && '
    'mv -T "$t/$2" "$p"; s=$?; rm -rf "$t"; exit $s'
)
# The kernel's own files do not say how long they are, and tar believes them: such a file is read first.
_GIVE = (
    f'p=$(readlink -e -- "$1") || exit {_ABSENT}; n=$(basename "$p"); '
    f'case $p/ in /proc/*|/sys/*) [ ! -d "$p" ] || exit {_UNREAD}; t=$(mktemp -d) && '
    f'(ulimit -f {_READ_BLOCKS}; exec timeout {_READ_S} cat -- "$1" >"$t/$n") && tar -c -f - -C "$t" -- "$n"; '
    's=$?; rm -rf "$t"; exit $s;; esac; '
    'exec tar -c -f - -C "$(dirname "$p")" -- "$n"'
)


def command(record: Record, words: list[str], *, terminal: bool) -> list[str]:
    """The client's command line; `words` are the guest's command, each handed on as it is. None of them: a shell."""
    if record.frozen:
        raise UsageError(
            f"{record.name} stands still: {record.frozen}",
            hint=f"lab gdb {record.name} looks into it, lab down {record.name} ends it",
        )
    if stayed.state(record) == stayed.STANDS:
        raise UsageError(
            f"{record.name} {stayed.STANDS}",
            hint=f"wait for its end; after a killed gdb: lab gdb {record.name}, and quit it",
        )
    told = shlex.join(words) if words else f"cd; PS1={shlex.quote(record.name)}':\\w# ' exec bash -l"
    # A command without a terminal would outlive its client, if that leaves and the connection stays.
    ahead = _made_ahead(record) if terminal else None
    return [*_client(record, ahead), "-t" if terminal else "-T", record.name, "--", told]


def make_ahead(record: Record) -> list[str]:
    """The command line of a client that makes a connection, and holds it at `ahead_path` as long as the guest does."""
    return [*_client(record, ahead_path(record)), "-M", "-N", record.name]


def ahead_path(record: Record) -> Path:
    """The socket of the connection for the first shell: keys take an emulated guest long to exchange."""
    return Path(record.control).with_suffix(".ssh")


def _client(record: Record, ahead: Path | None) -> list[str]:
    options = {
        "HostName": "127.0.0.1",
        "Port": record.ssh_port,
        "User": "root",
        "IdentityFile": record.ssh_key,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "HostKeyAlias": record.name,
        "UserKnownHostsFile": record.known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        # What newer clients prefer resists quantum computers, and takes an emulated guest longer than its restore.
        "KexAlgorithms": "curve25519-sha256",
        "ConnectTimeout": CONNECT_S,
        "LogLevel": "ERROR",
    }
    argv = ["ssh", "-F", "none", "-S", str(ahead or "none")]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    return argv


def _made_ahead(record: Record) -> Path | None:
    """The connection for the first shell, if nobody had it yet, and if the guest answers: else it hangs."""
    try:
        path = stayed.ask(record, {"do": "connection"}, timeout_s=CONNECT_S)["path"]
        if path:
            with socket.create_connection(("127.0.0.1", record.ssh_port), timeout=_GREETING_S) as sock:
                return Path(path) if sock.recv(4) == b"SSH-" else None
    except (OSError, LabError):
        pass
    return None


def put(record: Record, source: Path, target: str) -> None:
    """Copy a file or folder into the guest. UsageError when there is none, LabError when it cannot be copied."""
    if not source.exists():
        raise UsageError(f"there is no {source}")
    source = source.resolve()
    script = ["sh", "-c", _TAKE, "sh", target or "/root", source.name, "folder" if source.is_dir() else ""]
    reading: list[str | Path] = ["tar", "-c", "-f", "-", "-C", source.parent, "--", source.name]
    statuses, said = proc.pipe(reading, command(record, script, terminal=False))
    if statuses[1] == _UNFIT:
        raise UsageError(
            f"{record.name}:{target} is no plain file", hint="it would be replaced; name a file or a folder"
        )
    if any(statuses):
        raise LabError(f"cannot copy {source} to {record.name}:{target}: {one_line(said) or 'no word of why'}")


def get(record: Record, source: str, target: Path) -> None:
    """Copy a file or folder out of the guest, which may be hostile: only files, folders and links inside them come.

    What else a folder has is left out, with a warning. UsageError when there is no such file, LabError when it cannot
    be copied; then nothing is there.
    """
    name = posixpath.basename(source.rstrip("/")) or "root"
    final = target / name if target.is_dir() else target
    if final.is_dir():
        raise UsageError(f"{final} is in the way", hint="remove it first")
    if final.exists() and not final.is_file():
        raise UsageError(f"{final} is no plain file", hint="it would be replaced; name a file or a folder")
    if not final.parent.is_dir():
        raise UsageError(f"there is no folder {final.parent}")
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    except OSError as e:
        raise LabError(f"cannot copy to {final}: {e.strerror or e}") from e
    try:
        sending = command(record, ["sh", "-c", _GIVE, "sh", source], terminal=False)
        unpack: list[str | Path] = ["tar", "-x", "--no-same-owner", "--no-same-permissions", "-f", "-", "-C", work]
        statuses, said = proc.pipe(sending, unpack)
        if statuses[0] == _ABSENT:
            raise UsageError(f"{record.name} has no {source}")
        if statuses[0] == _UNREAD:
            raise UsageError(f"{source} is a folder of the kernel's, not of a disk", hint="name the files in it")
        if statuses[0] == _ENDLESS:
            raise LabError(f"{record.name}:{source} had no end in {_READ_S} s", hint="lab exec -- cat, and stop it")
        entries = list(work.iterdir())
        if any(statuses) or len(entries) != 1:
            raise LabError(f"cannot copy {record.name}:{source}: {one_line(said) or 'no word of why'}")
        # A link may go by the folder's own name: it is judged under the name that it gets here.
        copied = entries[0].rename(work / final.name)
        left_out = _strip(copied)
        os.replace(copied, final)
        if left_out:
            more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
            log.warning("left out, links to elsewhere or no plain files: %s%s", ", ".join(left_out[:NAMED]), more)
    except OSError as e:
        raise LabError(f"cannot copy to {final}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _strip(top: Path) -> list[str]:
    """Remove from what came from a guest all but files, folders, and links that stay in it; the names of what went.

    No link is followed on the way, and no folder's mode hides what is in it. LabError when nothing is left.
    """
    if top.is_symlink() or not (top.is_file() or top.is_dir()):
        raise LabError(f"the guest sent what is no plain file: {one_line(top.name)}")
    folders, others = [top] if top.is_dir() else [], list[Path]()
    while folders:
        folder = folders.pop()
        folder.chmod(folder.stat().st_mode | stat.S_IRWXU)
        for path in folder.iterdir():
            (folders if path.is_dir() and not path.is_symlink() else others).append(path)
    # Only now: where a folder is closed it cannot be seen that what a link goes through is a link itself.
    inside = os.path.realpath(top)
    gone = [path for path in others if not _stays(path, inside)]
    for path in gone:
        path.unlink()
    return sorted(one_line(str(path.relative_to(top.parent))) for path in gone)


def _stays(path: Path, inside: str) -> bool:
    if path.is_symlink():
        return Path(os.path.realpath(path)).is_relative_to(inside)
    return path.is_file()
