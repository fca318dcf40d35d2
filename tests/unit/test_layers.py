# SPDX-License-Identifier: GPL-2.0-or-later
"""HACKING.md says which module knows which: its table against the imports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import lab

LAB = Path(lab.__file__).parent
ROW = re.compile(r"^\| ([a-z0-9_/ ]+) \|", re.MULTILINE)
IMPORT = re.compile(r"^ *from lab(?:\.(\w+)[\w.]*)? import ([\w, ]+)", re.MULTILINE)
CHECKED = re.compile(r"^if TYPE_CHECKING:\n(?:(?:    .*)?\n)+", re.MULTILINE)  # what only type checkers import


def rows() -> dict[str, int]:
    """Each module or package/, and the row it stands in."""
    found: dict[str, int] = {}
    table = (LAB.parent / "HACKING.md").read_text().partition("\n|---|---|\n")[2].partition("\n\n")[0]
    for at, row in enumerate(ROW.findall(table)):
        for name in row.split():
            assert name not in found, f"{name} stands there twice"
            found[name] = at
    return found


def imports(text: str) -> Iterator[str]:
    """Modules of ours that a file imports when it runs, at its head or later."""
    for name, names in IMPORT.findall(CHECKED.sub("", text)):
        yield from [name] if name else [one.split()[0] for one in names.split(",")]


def test_modules_import_only_what_stands_above_them() -> None:
    row, wrong = rows(), []
    for path in sorted(LAB.rglob("*.py")):
        inside = path.relative_to(LAB)
        name = f"{inside.parts[0]}/" if len(inside.parts) > 1 else inside.stem
        if name in ("__init__", "__main__"):
            continue
        for other in imports(path.read_text()):
            other = other if (LAB / f"{other}.py").exists() else f"{other}/"
            if row[other] > row[name]:
                wrong.append(f"{inside} imports {other}")
    assert not wrong
    assert not [name for name in row if not (LAB / (name if name.endswith("/") else f"{name}.py")).exists()]
