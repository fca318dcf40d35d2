# SPDX-License-Identifier: GPL-2.0-or-later
"""ktap.txt, after the kernel's Documentation/dev-tools/ktap.rst: a test per cell, a subtest per oracle.

A known failure is `ok` with the directive XFAIL, as the kernel's kselftest.h prints it, and so are its oracles: a
failed subtest would make readers that follow subtests call the cell failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.catalogue import Oracle
from lab.cellresult import CellResult
from lab.verdict import Status

_DIRECTIVES = {Status.SKIP: "SKIP", Status.HANG: "TIMEOUT", Status.ERROR: "ERROR", Status.CRASH: "ERROR"}


def render(results: Sequence[CellResult]) -> str:
    """The whole file."""
    lines = ["KTAP version 1", f"1..{len(results)}"]
    for number, result in enumerate(results, 1):
        if result.oracles:
            lines += _oracles(result)
        if result.status is not Status.PASS:
            lines.append(f"# {_words(result.reason)}")
        ok = "not ok" if result.red else "ok"
        directive, why = _DIRECTIVES.get(result.status), result.reason
        if result.known:
            directive, why = "XFAIL", f"{result.status.value}: {result.known}"
        told = f" # {directive} {_words(why)}" if directive else ""
        lines.append(f"{ok} {number} - {_words(result.id)}{told}")
    return "\n".join(lines) + "\n"


def _oracles(result: CellResult) -> list[str]:
    lines = ["  KTAP version 1", f"  1..{len(result.oracles)}"]
    for number, one in enumerate(result.oracles, 1):
        name = f"oracle {one['oracle']} {Oracle.told(one['oracle'])}".rstrip()
        detail = _words(str(one["detail"]))
        if one["ok"] is None:
            lines.append(f"  ok {number} - {name} # SKIP {detail}")
        elif result.known and not one["ok"]:
            lines += [f"  # {detail}", f"  ok {number} - {name} # XFAIL {_words(result.known)}"]
        else:
            lines += [f"  # {detail}", f"  {'ok' if one['ok'] else 'not ok'} {number} - {name}"]
    return lines


def _words(text: str) -> str:
    """One line without `#`, which would begin a directive."""
    return " ".join(text.replace("#", "").split())
