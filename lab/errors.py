# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong, as types; only `lab.cli` turns them into exit codes.

A failed verdict is data (see `lab.verdict`), never an exception. Exit codes follow the
kernel's selftests: 0 passed, 1 a cell failed, 2 usage, 3 infrastructure, 4 nothing ran,
130 interrupted.
"""

from __future__ import annotations

import errno
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INFRA = 3
    NOTHING = 4
    INTERRUPTED = 130


class LabError(Exception):
    """An expected failure: one line that says what is wrong, and a hint at what to do next."""

    exit_code: Exit = Exit.INFRA

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def told(self) -> str:
        """Both, in one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(LabError):
    """The command line or a configuration file asks for what cannot be (exit 2)."""

    exit_code = Exit.USAGE


class HostError(LabError):
    """This machine lacks something: a package, space, a permission, a working accelerator (exit 3)."""


class ImageError(LabError):
    """An image could not be built or read (exit 3)."""


class HypervisorError(LabError):
    """libvirt or QEMU refused or failed (exit 3)."""


class BuildError(LabError):
    """The modules or guest tools did not build (exit 3); the log is named in the hint."""


class DeadlineError(LabError):
    """Something did not happen in time."""


class Interrupted(LabError):
    """This process was told to stop: what is under way is given up."""


class GuestLost(LabError):
    """The guest no longer answers: it crashed, hung, or its QEMU ended."""


def refused(error: OSError, *, where: object = "") -> HostError:
    """What the operating system refused, as an expected failure; `where` when it names no file."""
    what = error.filename or where
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(f"the host's disk is full: {what}", hint="free some space, or run: lab gc")
    return HostError(f"{error.strerror or error}: {what}")
