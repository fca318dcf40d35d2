# SPDX-License-Identifier: GPL-2.0-or-later
"""Results on disk: one folder per run, each file written whole, so that a run killed at any instant can be resumed.

results/RUN/run.json              what ran, where, and every finished cell
results/RUN/cells/ID/result.json  one cell; beside it its logs
results/latest                    symlink to the newest run
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab import paths
from lab.cell import MAX_SWAPS, Cell
from lab.cellresult import CellResult, cell_result
from lab.errors import HostError, LabError, UsageError
from lab.known import Entry, marked
from lab.untrusted import one_line
from lab.verdict import Status

__all__ = ["CellResult", "RunFolder", "cell_result", "finished", "locate", "read_run", "runs", "stored"]

SCHEMA = 1
LATEST = "latest"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


def _time(text: str) -> str:
    """A time as ISO 8601 has it; ValueError otherwise."""
    datetime.fromisoformat(text)
    return text


class _Matrix(BaseModel):
    """What run.json keeps of the order; what a resumed run needs besides its cells may be missing."""

    model_config = ConfigDict(strict=True)

    cells: list[str]
    swaps: Annotated[int, Field(ge=1, le=MAX_SWAPS)] = 1
    build: Literal["guest", "host"] = "guest"
    cold: bool = False
    mutant: str | None = None
    source: str | None = None
    known: list[Entry] = []
    kmod: str | None = None
    kernels: list[str] = []
    userland: str | None = None


class _Head(BaseModel):
    """run.json as far as the lab reads it; each finished cell is read from its own file."""

    model_config = ConfigDict(strict=True)

    run: str
    started: Annotated[str, AfterValidator(_time)]
    duration_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    finished: bool = False
    seed: Annotated[int, Field(ge=0)]
    host: dict[str, Any]
    matrix: _Matrix


class RunFolder:
    """The folder of one run. Methods may be called from several threads."""

    def __init__(self, path: Path, head: dict[str, Any], found: Iterable[CellResult], lock: int) -> None:
        self.path = path
        self._head = head
        self._results = {result.id: result for result in found}
        # As run.json has them: it is written anew with each finished cell, and telling all of them again would be slow.
        self._told = {name: json.dumps(result.to_json()) for name, result in self._results.items()}
        self._lock = lock  # held open: whoever holds it writes this run
        self._mutex = threading.Lock()
        self._begun_s = time.monotonic() - float(head.get("duration_s") or 0)

    @classmethod
    def create(
        cls,
        results: Path,
        *,
        seed: int,
        cells: Iterable[Cell],
        host: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """Start a run: a new folder named by the time, run.json in it, `latest` pointing to it."""
        started = datetime.now(UTC)
        path: Path | None = None
        try:
            results.mkdir(parents=True, exist_ok=True)
            path = _new_folder(results, started.strftime("%Y-%m-%d_%H%M%S"))
            head = {
                "schema": SCHEMA,
                "run": path.name,
                "started": started.isoformat(timespec="seconds"),
                "duration_s": 0.0,
                "finished": False,
                "seed": seed,
                "host": dict(host or {}),
                "matrix": {"cells": [cell.id for cell in cells], **(options or {})},
            }
            folder = cls(path, head, (), _hold(path))
            folder.save()
            _point(results / LATEST, path.name)
        except (OSError, HostError) as e:
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)
            raise (e if isinstance(e, HostError) else _unwritable(results, e)) from e
        return folder

    @classmethod
    def resume(cls, results: Path, run: str) -> RunFolder:
        """Go on with a run, from its finished cells."""
        path = locate(results, run)
        head = read_run(path)
        try:
            folder = cls(path, {key: head[key] for key in head if key != "cells"}, finished(path), _hold(path))
            folder._head["finished"] = False
            folder.save()
        except OSError as e:
            raise _unwritable(path, e) from e
        return folder

    @property
    def run(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def head(self) -> dict[str, Any]:
        """run.json without its cells."""
        return dict(self._head)

    @property
    def results(self) -> list[CellResult]:
        """Finished cells, in the order of the matrix."""
        with self._mutex:
            return self._ordered()

    def has(self, cell: Cell) -> bool:
        """Whether a cell is finished."""
        with self._mutex:
            return cell.id in self._results

    def cell_folder(self, cell: Cell) -> Path:
        """Where a cell's files go; it exists afterwards."""
        folder = self.path / "cells" / cell.id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_cell(self, result: CellResult) -> CellResult:
        """Keep a finished cell: its result.json first, then run.json. What is kept says if the failure is known."""
        result = marked(result, self._head)
        try:
            told = result.to_json()
            paths.write_whole(self.cell_folder(result.cell) / "result.json", _text(told))
            with self._mutex:
                self._results[result.id], self._told[result.id] = result, json.dumps(told)
            self.save()
        except OSError as e:
            raise _unwritable(self.path, e) from e
        return result

    def save(self, *, finished: bool = False) -> None:
        """Write run.json."""
        with self._mutex:
            self._head["duration_s"] = round(time.monotonic() - self._begun_s, 3)
            self._head["finished"] = finished
            if accel := {one.arch: one.accel for one in self._results.values() if one.accel}:
                self._head["host"] = {**self._head["host"], "accel": accel}
            cells = ",\n    ".join(self._told[result.id] for result in self._ordered())
            head = _text(self._head).removesuffix("\n}\n")
            paths.write_whole(self.path / "run.json", f'{head},\n  "cells": [\n    {cells}\n  ]\n}}\n')

    def close(self, *, finished: bool = True) -> None:
        """End the run: run.json says whether every cell was done, and others may resume it."""
        if self._lock < 0:
            return
        self.save(finished=finished)
        os.close(self._lock)
        self._lock = -1

    def discard(self) -> None:
        """Forget a run in which nothing ran, as if it had never begun."""
        results = self.path.parent
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1
        link = results / LATEST
        if link.is_symlink() and os.readlink(link) == self.run:
            link.unlink(missing_ok=True)
            if others := runs(results):
                _point(link, others[0])

    def _ordered(self) -> list[CellResult]:
        order = {name: at for at, name in enumerate(self._head["matrix"].get("cells", []))}
        return sorted(self._results.values(), key=lambda result: order.get(result.id, len(order)))


def locate(results: Path, run: str) -> Path:
    """The folder of a run by its name, or `latest`; UsageError naming the newest ones otherwise."""
    run = run.rstrip("/") or run
    try:
        if "/" in run and Path(run).is_dir():  # a path, as reports print it
            results, run = Path(run).parent, Path(run).name
        path = (results / run).resolve()
        found = _NAME.fullmatch(run) and (path / "run.json").is_file()
    except (OSError, RuntimeError) as e:  # a name too long, a folder of somebody else's, links in a circle
        raise UsageError(f"{results} cannot be read: {getattr(e, 'strerror', None) or e}") from e
    if not found:
        names = runs(results)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise UsageError(
            f"no run '{run}' in {results.absolute()}",
            hint=f"runs: {', '.join(['latest', *names[:5]])}{more}" if names else "none yet; see --results",
        )
    return path


def runs(results: Path) -> list[str]:
    """Names of the runs, the newest first."""
    names = [path.parent.name for path in results.glob("[!.]*/run.json") if not path.parent.is_symlink()]
    return sorted(names, key=_age, reverse=True)


def _age(name: str) -> tuple[str, int]:
    """Sorts runs by time, and those of one second by their number."""
    stem, _, number = name[17:].partition("-")
    return name[:17] + stem, int(number) if number.isdigit() else 1


def read_run(path: Path) -> dict[str, Any]:
    """A run's run.json; UsageError when it is broken, so that nobody who reads it has to check again."""
    try:
        head = json.loads((path / "run.json").read_text())
        if isinstance(head, dict) and head.get("schema") != SCHEMA:
            raise UsageError(f"{path}/run.json has schema {head.get('schema')!r}, this lab reads {SCHEMA}")
        _Head.model_validate(head)
    except (OSError, ValueError, RecursionError) as e:
        raise UsageError(f"{path}/run.json cannot be read: {_fault(e)}", hint="name another run: ls results") from e
    return dict(head)


def _fault(error: Exception) -> str:
    """What is wrong with a run.json, in one line."""
    if not isinstance(error, ValidationError):
        return one_line(str(error))
    first = error.errors(include_url=False, include_input=False)[0]
    return one_line(f"{'.'.join(str(step) for step in first['loc']) or 'all of it'}: {first['msg']}")


def stored(path: Path) -> list[CellResult]:
    """The finished cells of a run's folder, in the order of its matrix; a broken file counts as not finished."""
    found: list[CellResult] = []
    for file in sorted((path / "cells").rglob("result.json")):
        try:
            found.append(CellResult.from_json(json.loads(file.read_text())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    order = {name: at for at, name in enumerate(read_run(path)["matrix"]["cells"])}
    return sorted(found, key=lambda result: order.get(result.id, len(order)))


def finished(path: Path) -> list[CellResult]:
    """The cells that a resumed run keeps: those with a result, but for ERROR, which says nothing of the product."""
    return [result for result in stored(path) if result.status is not Status.ERROR]


def _new_folder(results: Path, stem: str) -> Path:
    """A folder nobody else has: mkdir decides between two runs of the same second."""
    for number in range(1, 1000):
        path = results / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            continue
    raise HostError(f"{results} holds a thousand runs of this second")


def _hold(path: Path) -> int:
    handle = os.open(path / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise LabError(f"run {path.name} is still running", hint="wait for it, or start a new run") from None
    return handle


def _point(link: Path, target: str) -> None:
    """Make `latest` point to a run in one step; a run that began later keeps it."""
    if link.exists() and not link.is_symlink():
        raise HostError(f"{link} is in the way: it is no symlink", hint=f"move it: mv {link} {link}.old")
    if link.is_symlink() and _age(os.readlink(link)) > _age(target) and link.exists():
        return
    work = link.with_name(f".{LATEST}.{os.getpid()}.{threading.get_ident()}")
    work.unlink(missing_ok=True)
    work.symlink_to(target)
    os.replace(work, link)


def _unwritable(path: Path, error: OSError) -> HostError:
    return HostError(
        f"cannot write results in {path}: {error.strerror or error}", hint="name another folder: --results DIR"
    )


def _text(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
