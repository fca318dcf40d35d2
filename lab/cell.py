# SPDX-License-Identifier: GPL-2.0-or-later
"""One point of the matrix, and its name: ARCH/KERNEL/MECHANISM/LOAD[@HARDWARE]."""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import UsageError

STANDARD = "standard"
MAX_SWAPS = 4000  # of a cell: a caller tells 4096 versions apart (HS_VERSIONS), and refusals take a few


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What runs in one guest: five names, each checked against its table before anything starts."""

    arch: str
    kernel: str
    mechanism: str
    load: str
    hardware: str = STANDARD

    @property
    def id(self) -> str:
        """The cell's name, e.g. aarch64/trixie/refcount/mixed or ...@no-pac."""
        name = f"{self.arch}/{self.kernel}/{self.mechanism}/{self.load}"
        return name if self.hardware == STANDARD else f"{name}@{self.hardware}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell of a name; UsageError when it has not four parts."""
        name, _, hardware = text.partition("@")
        parts = name.split("/")
        if len(parts) != 4 or not all(parts):
            raise UsageError(
                f"'{text}' is not a cell", hint="a cell is ARCH/KERNEL/MECHANISM/LOAD[@HARDWARE]; try: lab list cells"
            )
        arch, kernel, mechanism, load = parts
        return cls(arch, kernel, mechanism, load, hardware or STANDARD)
