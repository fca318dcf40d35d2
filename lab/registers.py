# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel log text -> register dumps: where each CPU was when its kernel complained. Pure.

A dump begins with the line that names CPU and task, and its registers end where the call trace begins: what is printed
in it belongs to the program that made the system call. An oops says its registers twice; the first time counts.
The text comes from a guest and is hostile: lines and counts are capped, numbers are hexadecimal digits or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lab.phrases import find
from lab.untrusted import clean

DUMPS = 16
LINE_CHARS = 1024

_HOST = re.compile(r"^\[ *\d+\.\d{3}\] ")  # what lab/console.py puts before a line
_STAMP = re.compile(r"^(?:<\d{1,3}>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ?")
_CPU = re.compile(r"^CPU: (\d{1,4}) (?:UID: \d{1,10} )?PID: (\d{1,10}) Comm: (.{1,40}?) (?:Tainted|Not tainted|Kdump)")
_SYMBOL = r"([\w.$]{1,128}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[\w{1,60}[^\]]{0,60}\])?|0x[0-9a-f]{1,16})"
_WARNING = re.compile(rf"^WARNING: CPU: (\d{{1,4}}) PID: (\d{{1,10}}) at \S{{1,200}} {_SYMBOL}")
# The same since the fields were put into another order, after 6.12.
_WARNING_AT = re.compile(rf"^WARNING: \S{{1,200}} at {_SYMBOL}, CPU#(\d{{1,4}}): .{{1,40}}/(\d{{1,10}})$")
_PC = re.compile(rf"^(?:RIP: 00(?:10|08):|pc : ){_SYMBOL}")
_LR = re.compile(rf"^lr : {_SYMBOL}")
_X86 = re.compile(r"\b(R(?:[ABCD]X|[SD]I|[BS]P|\d\d)|EFLAGS): (?:0018:)?([0-9a-f]{8,16})\b")
_ARM64 = re.compile(r"\b(x\d{1,2}|sp|pstate) ?: ([0-9a-f]{8,16})\b")
_END = re.compile(r"^Call [Tt]race:|^---\[ end ")
_NAMES = {"eflags": "eflags", "pstate": "cpsr"}


@dataclass(slots=True)
class Dump:
    """One register dump; names of registers are gdb's."""

    cpu: int
    pid: int
    comm: str
    headline: str
    symbols: dict[str, str] = field(default_factory=dict)  # what is said as symbol+offset [module]: the pc, arm64's x30
    registers: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For gdb's side, see lab/gdb/splat.py."""
        return {name: getattr(self, name) for name in self.__slots__}


def read(lines: Iterable[str]) -> list[Dump]:
    """The dumps of a console's log, oldest first; of more than DUMPS the first ones."""
    dumps: list[Dump] = []
    current: Dump | None = None
    headline = ""
    for raw in lines:
        line = _STAMP.sub("", _HOST.sub("", clean(raw[:LINE_CHARS]))).rstrip()
        if found := _WARNING.match(line):  # says early what only oopses leave to their registers
            current = Dump(int(found[1]), int(found[2]), "", line, {"pc": found[3]})
            dumps.append(current)
        elif found := _WARNING_AT.match(line):
            current = Dump(int(found[2]), int(found[3]), "", line, {"pc": found[1]})
            dumps.append(current)
        elif (found := _CPU.match(line)) and current and (current.cpu, current.comm) == (int(found[1]), ""):
            current.comm = found[3]
        elif found:
            current = Dump(int(found[1]), int(found[2]), found[3], headline)
            dumps.append(current)
        elif _END.match(line):
            current, headline = None, ""
        elif current is not None:
            _take(current, line)
        elif (phrase := find(line)) is not None and not (phrase.die and headline):
            headline = line  # "Oops: 0000" adds nothing to what came before it
        if len(dumps) == DUMPS and current is None:
            break
    return [one for one in dumps if one.headline or one.registers]


def _take(dump: Dump, line: str) -> None:
    """The registers of one line; what was said before stays."""
    if found := _PC.match(line):
        dump.symbols.setdefault("pc", found[1])
    elif found := _LR.match(line):
        dump.symbols.setdefault("x30", found[1])
    for name, digits in _X86.findall(line) + _ARM64.findall(line):
        lower = name.lower()
        number = re.sub(r"^r0(\d)$", r"r\1", lower)
        dump.registers.setdefault(_NAMES.get(lower, number), int(digits, 16))
