# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of architectures: everything the lab knows of one, in one row."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from lab.errors import UsageError


@dataclass(frozen=True, slots=True)
class Arch:
    """One architecture, under the several names its tools give it."""

    name: str  # the lab's and uname -m's
    debian: str  # dpkg's name
    kernel: str  # ARCH= of kbuild
    cross: str  # CROSS_COMPILE= of kbuild
    elf: int  # e_machine of its programs
    qemu: str  # QEMU's binary
    qemu_package: str  # Debian package that holds it
    machine: str  # QEMU machine type (libvirt's <type machine=>)
    console: str  # the serial line's name on the kernel command line
    cmdline: str  # kernel command line words that only this architecture needs
    tcg_off: tuple[str, ...]  # CPU features that must be off under emulation
    tcg_globals: tuple[str, ...]  # QEMU -global settings under emulation


ARCHES: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        Arch(
            name="x86_64",
            debian="amd64",
            kernel="x86_64",
            cross="x86_64-linux-gnu-",
            elf=62,
            qemu="qemu-system-x86_64",
            qemu_package="qemu-system-x86",
            machine="q35",
            console="ttyS0",
            # TCG derives every vCPU's TSC from one clock, so it is as reliable as hardware's.
            cmdline="tsc=reliable",
            # SLUB's cmpxchg16b is not atomic under multi-threaded TCG of QEMU 7.2: 6.12 and later
            # crash at random. la57 only makes emulated page walks longer. erms and fsrm make the
            # kernel copy and clear memory byte by byte: without them a boot takes a fifth less CPU.
            tcg_off=("cx16", "la57", "erms", "fsrm"),
            tcg_globals=(),
        ),
        Arch(
            name="aarch64",
            debian="arm64",
            kernel="arm64",
            cross="aarch64-linux-gnu-",
            elf=183,
            qemu="qemu-system-aarch64",
            qemu_package="qemu-system-arm",
            machine="virt",
            console="ttyAMA0",
            cmdline="",
            tcg_off=(),
            # QARMA5 in software costs a minute of boot; the implementation-defined hash does not.
            tcg_globals=("max-arm-cpu.pauth-impdef=on",),
        ),
    )
}


def get(name: str) -> Arch:
    """The row of an architecture; UsageError naming the known ones otherwise."""
    try:
        return ARCHES[name]
    except KeyError:
        raise UsageError(f"unknown architecture '{name}'", hint=f"known: {', '.join(ARCHES)}") from None


def native() -> Arch | None:
    """The architecture of this host, when the lab knows it."""
    return ARCHES.get({"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine()))
