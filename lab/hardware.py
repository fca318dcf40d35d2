# SPDX-License-Identifier: GPL-2.0-or-later
"""Hardware profiles: machines as data, so that a mechanism is tried on hardware nobody here owns."""

from __future__ import annotations

from dataclasses import dataclass

from lab.cell import STANDARD
from lab.errors import UsageError


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine. Whatever stays empty is the architecture's default."""

    name: str
    summary: str  # one line for `lab list hardware`
    vcpus: int = 2
    memory_mib: int = 768
    numa_nodes: int = 1
    edu_devices: int = 1
    arches: tuple[str, ...] = ("x86_64", "aarch64")
    cpu_model: str = ""  # libvirt's model name; empty: the most the accelerator offers
    cpu_off: tuple[str, ...] = ()  # CPU features taken away
    gic: str = "3"  # interrupt controller version, aarch64 only
    kvm: bool = True  # whether KVM can give it: there a guest has the host's own CPU and interrupt controller


HARDWARE: dict[str, Hardware] = {
    hardware.name: hardware
    for hardware in (
        Hardware(name=STANDARD, summary="2 vCPUs, 768 MiB, one edu device"),
        Hardware(name="smp4", summary="4 vCPUs, 1 GiB", vcpus=4, memory_mib=1024),
        Hardware(name="numa2", summary="4 vCPUs on 2 NUMA nodes, 1 GiB", vcpus=4, memory_mib=1024, numa_nodes=2),
        Hardware(name="no-nx", summary="x86_64 without the NX page bit", arches=("x86_64",), cpu_off=("nx",)),
        Hardware(
            name="no-pac",
            summary="aarch64 without pointer authentication (cortex-a72)",
            arches=("aarch64",),
            cpu_model="cortex-a72",
            kvm=False,
        ),
        Hardware(
            name="gicv2",
            summary="aarch64 with a version 2 interrupt controller",
            arches=("aarch64",),
            gic="2",
            kvm=False,
        ),
    )
}


def get(name: str) -> Hardware:
    """The profile of that name; UsageError naming the known ones otherwise."""
    try:
        return HARDWARE[name]
    except KeyError:
        raise UsageError(f"unknown hardware '{name}'", hint=f"known: {', '.join(HARDWARE)}") from None
