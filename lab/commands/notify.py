# SPDX-License-Identifier: GPL-2.0-or-later
"""lab compare, and the command that is called when a run's verdicts differ from those of the run before it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lab.commands import complete
from lab.commands import options as opt
from lab.errors import DeadlineError, Exit, HostError, UsageError

COMMAND_S = 300.0
_SHELLS = ("|", "||", "&", "&&", ";", ">", ">>", "2>", "<")


def compare(
    before: Annotated[
        str,
        typer.Argument(metavar="BEFORE", help="A run: a folder name under the results.", autocompletion=complete.runs),
    ],
    after: Annotated[
        str, typer.Argument(metavar="AFTER", help="The later one.", autocompletion=complete.runs)
    ] = "latest",
    results: opt.ResultsDir = opt.RESULTS,
    as_json: opt.Json = False,
) -> int:
    """Say which verdicts differ between two runs.

    The exit code is 1 when a cell turned red.

    Example: lab compare 2026-01-02_020000 latest
    """
    from lab import changes
    from lab.results import locate, read_run, stored

    old, new = locate(results, before), locate(results, after)
    for path in (old, new):
        read_run(path)
    found = changes.between(stored(old), stored(new))
    if as_json:
        print(json.dumps([asdict(change) for change in found], indent=2))
    else:
        sys.stdout.write(changes.told(found, before=_named(old), after=_named(new)))
    return Exit.FAILED if any(change.turn is changes.Turn.RED for change in found) else Exit.OK


def _named(path: Path) -> str:
    """A run, and what is missing of it."""
    from lab.results import read_run, stored

    left = len(read_run(path)["matrix"]["cells"]) - len(stored(path))
    return f"{path.name} ({left} cells did not run)" if left else path.name


def checked(command: str) -> str:
    """The command of --on-change; UsageError before the night when there is no such program."""
    if command:
        try:
            words = shlex.split(command)
        except ValueError as e:
            raise UsageError(f"--on-change: {e}: {command}", hint="quote it as for a shell") from e
        if not words or not shutil.which(words[0]):
            told = f"--on-change: {words[0] if words else command!r} is not installed, or may not be run"
            raise UsageError(told, hint="name the path of a program; chmod +x makes a file one")
        if found := [word for word in words if word in _SHELLS]:
            told = f"--on-change: '{found[0]}' is a shell's, and no shell reads it"
            raise UsageError(told, hint="have one do it: sh -c '...'")
    return command


def on_change(command: str, path: Path) -> None:
    """Call the command when verdicts changed since the run before of the same matrix.

    It reads what changed on its standard input, and finds the two runs' folders in LAB_RUN and LAB_PREVIOUS. In the
    first run of its kind every red cell is a change. HostError when it fails.
    """
    from lab import changes, proc
    from lab.deadline import Deadline
    from lab.results import read_run, stored

    before = changes.previous(path, read_run(path))
    found = changes.between(stored(before) if before else [], stored(path))
    found = [one for one in found if one.turn not in (changes.Turn.NEW, changes.Turn.GONE)]
    if not found:
        return
    text = changes.told(found, before=before.name if before else "", after=path.name)
    where = {"LAB_RUN": str(path.resolve()), "LAB_PREVIOUS": str(before.resolve()) if before else ""}
    try:
        proc.run(shlex.split(command), deadline=Deadline.after(COMMAND_S), env=where, stdin=text.encode())
    except (HostError, DeadlineError) as e:
        raise HostError(f"the command of --on-change failed: {e.message}", hint=f"results are kept in {path}") from e
