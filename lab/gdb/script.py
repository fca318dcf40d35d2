# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody's script in Python, run so that gdb's exit code says whether it failed. Runs inside gdb."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import gdb

FAILED = 1  # gdb's own exit code for a script of gdb commands that failed


def run(file: str) -> None:
    """Run it as gdb would, but end gdb with FAILED when it raises, or exits with anything but 0.

    gdb itself prints the error and goes on (gdb 13, python/python.c: what PyRun_SimpleFile returns is dropped).
    """
    main = vars(sys.modules["__main__"])  # where gdb's own commands for Python are run, too
    try:
        main["__file__"] = file
        code = compile(Path(file).read_bytes(), file, "exec", dont_inherit=True)
        exec(code, main)  # noqa: S102 - it is for that
    except SystemExit as e:
        if e.code not in (None, 0):
            print(e.code if isinstance(e.code, str) else f"{file}: exit {e.code}", file=sys.stderr)
            gdb.execute(f"quit {FAILED}")
    except BaseException:  # Ctrl-C too
        traceback.print_exc()
        gdb.execute(f"quit {FAILED}")
