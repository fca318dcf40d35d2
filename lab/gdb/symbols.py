# SPDX-License-Identifier: GPL-2.0-or-later
"""Our modules in gdb: their symbols where the guest has them, and addresses of what a console names.

Runs inside gdb. Of an edition that is gone, the reference manager's record keeps the address that its code had: a task
that comes back into freed text is found by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import gdb

from lab.gdb import guestmem, hs
from lab.gdb.relocatable import Relocatable, Symbol

_PLACE = re.compile(r"^([\w.$]+)\+0x([0-9a-f]+)/0x([0-9a-f]+)(?: \[(\w+)[^\]]*\])?$")
_GONE = 2  # enum hs_state


@dataclass(frozen=True, slots=True)
class Module:
    """A module, and where its sections are, or were."""

    file: Relocatable
    sections: dict[str, int]

    def places(self) -> list[tuple[str, int, int]]:
        """Name, first address and size of each section of code."""
        return [
            (one.name, self.sections[one.name], one.size)
            for one in self.file.sections
            if one.code and one.size and one.name in self.sections
        ]


class Modules:
    """Those of a guest of which we have the file."""

    def __init__(self, build: Path | None, work: Path) -> None:
        self._work = work
        self._all: dict[str, Module] = {}
        self.gone: list[str] = []
        if build is None:
            return
        files = {path.stem: path for path in sorted(build.glob("*.ko"))}
        if not files:
            return
        layout = guestmem.Layout(files.get("hs_core", next(iter(files.values()))))
        for name, sections in guestmem.modules(layout).items():
            if name in files and sections.get(".text"):
                self._add(name, Module(Relocatable(files[name]), sections))
        if "hs_core" in self._all:
            self._remember(files)

    @property
    def names(self) -> list[str]:
        """All whose symbols gdb has."""
        return sorted(self._all)

    def holds(self, address: int) -> bool:
        """Whether an address is code of ours."""
        return self.at(address) is not None

    def at(self, address: int) -> tuple[Relocatable, str, int] | None:
        """The file, section and offset of an address of our code."""
        for module in self._all.values():
            for name, start, size in module.places():
                if start <= address < start + size:
                    return module.file, name, address - start
        return None

    def resolve(self, text: str) -> int | None:
        """The address of what a kernel log calls `symbol+0x1/0x2 [module]`, or of a bare number."""
        if text.startswith("0x"):
            return int(text, 16)
        found = _PLACE.match(text)
        if found is None:
            return None
        name, inside, size, module = found[1], int(found[2], 16), int(found[3], 16), found[4]
        if module is None:
            try:
                return guestmem.address_of(name) + inside
            except gdb.error:
                return None
        if module not in self._all:
            return None
        known = self._all[module]
        fitting = [one for one in known.file.symbols() if one.name == name and self._section(known, one)]
        if not fitting:
            return None
        # The log's size reaches to the next symbol: of several with one name, the one that is nearest to it.
        best = min(fitting, key=lambda one: abs(one.size - size))
        return known.sections[self._section(known, best)] + best.offset + inside

    @staticmethod
    def _section(module: Module, symbol: Symbol) -> str:
        """The symbol's section, when it is code that was loaded; nothing otherwise."""
        section = module.file.sections[symbol.section]
        return section.name if section.code and section.name in module.sections else ""

    def _add(self, name: str, module: Module) -> None:
        self._all[name] = module
        words = " ".join(
            f"-s {section} {address:#x}"
            for section, address in module.sections.items()
            if section != ".text" and not section.startswith(".init") and re.fullmatch(r"[\w.]+", section)
        )
        file = guestmem.quoted(module.file.for_gdb(self._work))
        gdb.execute(f"add-symbol-file {file} {module.sections['.text']:#x} {words}", to_string=True)

    def _remember(self, files: dict[str, Path]) -> None:
        """Editions that are gone, where nothing else of ours lies now; of two loads of one module, the later."""
        last: dict[str, int] = {}
        for _, ref in hs.editions():
            if int(ref["state"]) == _GONE:
                last[hs.string(ref["module"])] = int(ref["text"])
        for name, base in last.items():
            if name in self._all or name not in files or not base:
                continue
            file = Relocatable(files[name])
            module = Module(file, {section: base + at for section, at in file.code_offsets().items()})
            if not any(self.holds(start) or self.holds(start + size - 1) for _, start, size in module.places()):
                self._add(name, module)
                self.gone.append(name)
