# SPDX-License-Identifier: GPL-2.0-or-later
"""Old runs go, so that a machine that runs every night does not fill its disk."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from lab import shelf, stayed
from lab.errors import refused
from lab.results import LATEST, runs


def retire(results: Path, *, keep: int, days: float = 0.0) -> list[str]:
    """Remove all runs but the newest `keep`, those younger than `days`, those that are running, and those of which a
    guest stays; a line for each.

    A run goes whole: it is renamed first, and what a killed lab left of that is removed by the next one.
    HostError when something cannot be removed.
    """
    removed = []
    staying = [one.folder for one in stayed.every() if one.folder]
    try:
        for left in results.glob(".*.gone"):
            shutil.rmtree(left)
        for name in runs(results)[keep:]:
            path = results / name
            if (path / "run.json").stat().st_mtime > time.time() - days * 86400 or path == (results / LATEST).resolve():
                continue
            if any(Path(folder).is_relative_to(path.resolve()) for folder in staying):
                continue  # gdb reads the splat in its console's log
            with (path / ".lock").open("a") as lock:
                if not shelf.taken(lock):
                    continue  # it is running
                removed.append(f"{path} ({shelf.size_mib(path)} MiB)")
                shutil.rmtree(path.rename(results / f".{name}.gone"))
    except OSError as e:
        raise refused(e, where=results) from e
    return removed
