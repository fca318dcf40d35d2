# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things live: XDG folders for what is ours, the repository for what the user edits."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from lab.errors import HostError, UsageError

REPOSITORY = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """Images, warm states and built modules: everything that can be made again (LAB_CACHE_DIR)."""
    return _folder("LAB_CACHE_DIR", Path(platformdirs.user_cache_dir("lab")))


def state_dir() -> Path:
    """Logs and what has to outlive a run (LAB_STATE_DIR)."""
    return _folder("LAB_STATE_DIR", Path(platformdirs.user_state_dir("lab")))


def runtime_dir() -> Path:
    """Sockets and running guests (LAB_RUNTIME_DIR). Short: a socket's path holds 108 bytes."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    default = Path(base) / "lab" if base and len(base) < 40 else Path("/tmp") / f"lab-{os.getuid()}"
    return _folder("LAB_RUNTIME_DIR", default, mode=0o700)


def users(path: Path) -> Path:
    """A path that a user typed, whole: absolute, without links. UsageError for the home of nobody."""
    try:
        return path.expanduser().resolve()
    except RuntimeError as e:
        raise UsageError(f"{path}: {e}", hint="name the folder itself") from e


def kmod_dir() -> Path:
    """The kernel sources shipped with the lab."""
    return REPOSITORY / "kmod"


def recipes_dir() -> Path:
    """The image recipes, one TOML file per kernel source."""
    return REPOSITORY / "images"


def _folder(variable: str, default: Path, *, mode: int = 0o755) -> Path:
    path = Path(os.environ.get(variable) or default)
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as e:
        raise HostError(f"cannot make {path}: {e.strerror}", hint=f"set {variable} to a folder you can write") from e
    if mode == 0o700 and (path.stat().st_uid != os.getuid() or path.is_symlink()):
        raise HostError(f"{path} belongs to somebody else", hint=f"set {variable} to a folder of your own")
    return path


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file so that a reader, or a crash at any instant, sees the old one or the whole new one."""
    raw = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """Build a folder beside `path` and rename it into place at the end; nothing is left on failure.

    When somebody else finished the same folder first, theirs is kept and ours is dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield work
        work.chmod(0o755)
        try:
            os.rename(work, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        if work.exists():
            shutil.rmtree(work, ignore_errors=True)
