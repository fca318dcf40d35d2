# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs inside gdb, without a guest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lab import debugger, kernelmap, paths
from lab.arch import ARCHES

MAP = "ffffffff81000000 T _stext\nffffffff81200000 T _etext\nffffffff81300000 D modules\nffffffff81400000 B _end\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [("x = 1", 0), ("1 / 0", 1), ("raise SystemExit(0)", 0), ("raise SystemExit('no')", 1), ("gdb.execute('p y')", 1)],
)
def test_a_script_in_python_says_whether_it_failed(tmp_path: Path, words: str, status: int) -> None:
    script, run = tmp_path / "look.py", tmp_path / "run.py"
    script.write_text(f"def later():\n    print('ran on', __name__, globals().get('__file__'))\n{words}\nlater()\n")
    run.write_text(
        f"import sys; sys.path.insert(0, {str(paths.REPOSITORY)!r})\n"
        f"from lab.gdb import script; script.run({str(script)!r})\nprint('after it')\n"
    )
    more = ["-ex", "python later()"] if words == "x = 1" else []
    done = subprocess.run([debugger.GDB, "-nx", "-batch", "-x", run, *more], capture_output=True, text=True)
    assert done.stdout.count("ran on __main__") == (2 if more else 0), done.stderr
    assert not more or f"ran on __main__ {script}" in done.stdout
    assert done.returncode == status, done
    assert ("after it" in done.stdout) == (status == 0)


def test_paths_are_one_word_to_gdb(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b\\ c'
    folder.mkdir()
    (tmp_path / kernelmap.MAP).write_text(MAP)
    file = Path(shutil.copy(kernelmap.symbol_file(tmp_path, ARCHES["x86_64"].elf), folder / "x"))
    script = folder / "look.py"
    script.write_text(
        f"import gdb, sys; sys.path.insert(0, {str(paths.REPOSITORY)!r})\n"
        f"from lab.gdb.guestmem import quoted\n"
        f"gdb.execute('symbol-file -o 0x1000 ' + quoted({str(file)!r}))\n"
        "print('at', hex(int(gdb.parse_and_eval('(long)&_stext')) % (1 << 64)))\n"
        f"gdb.execute('set substitute-path /a ' + quoted({str(folder)!r}))\n"
        "gdb.execute('show substitute-path')\n"
    )
    done = subprocess.run([debugger.GDB, "-nx", "-batch", "-x", script], capture_output=True, text=True)
    assert "at 0xffffffff81001000" in done.stdout and f"`{folder}'" in done.stdout, done.stderr
