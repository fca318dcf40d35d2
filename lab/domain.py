# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's libvirt XML, rendered from plain data; nothing here talks to libvirt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2

from lab.arch import Arch
from lab.errors import UsageError
from lab.hardware import Hardware

TEMPLATE = "domain.xml.j2"
# No loss of evidence: a panic stays on the console for the scanner, and warnings are printed.
CMDLINE = "panic=0 loglevel=5 printk.devkmsg=on net.ifnames=0"
# PCI slots of pcie.0 that libvirt never hands out by itself; the network card takes 0x1c.
EDU_SLOTS = ("0x1d", "0x1b", "0x1a", "0x19")


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """All that the XML of one guest depends on."""

    name: str
    uuid: str
    arch: Arch
    hardware: Hardware
    kvm: bool
    emulator: Path
    kernel: Path
    initrd: Path
    cmdline: str  # what the image asks for; the console and the lab's own words are added
    overlay: Path  # the guest's own qcow2
    seed: Path  # tar archive with keys and host name, read once at boot
    console: Path  # socket on which the lab already listens
    gdb: Path  # socket on which QEMU's gdb stub will listen
    ssh_port: int  # on 127.0.0.1
    owner: str = ""  # +UID:+GID that QEMU is to run as, where libvirt would choose another


def render(spec: DomainSpec) -> str:
    """The <domain> of a guest.

    Raises UsageError when the hardware profile does not exist on the architecture.
    """
    hw, arch = spec.hardware, spec.arch
    if arch.name not in hw.arches:
        raise UsageError(f"hardware '{hw.name}' is not made for {arch.name}", hint=f"it is for: {', '.join(hw.arches)}")
    if hw.edu_devices > len(EDU_SLOTS):
        raise UsageError(f"hardware '{hw.name}' has more than {len(EDU_SLOTS)} edu devices")
    words = (spec.cmdline, f"console={arch.console}", CMDLINE, "" if spec.kvm else arch.cmdline)
    return _template().render(
        spec=spec,
        hw=hw,
        arch=arch,
        domain_type="kvm" if spec.kvm else "qemu",
        cmdline=" ".join(word for word in words if word),
        cpu_mode=_cpu_mode(hw, kvm=spec.kvm),
        cpu_model=hw.cpu_model,
        cpu_off=hw.cpu_off + (() if spec.kvm else arch.tcg_off),
        numa_cells=_numa_cells(hw),
        tcg_globals=() if spec.kvm else arch.tcg_globals,
        edu_slots=EDU_SLOTS[: hw.edu_devices],
    )


def template_digest() -> str:
    """Changes whenever guests are rendered differently: a warm state is bound to it."""
    source = Path(__file__).read_bytes() + (Path(__file__).parent / "templates" / TEMPLATE).read_bytes()
    return hashlib.sha256(source).hexdigest()


def _cpu_mode(hw: Hardware, *, kvm: bool) -> str:
    if hw.cpu_model:
        return "custom"
    return "host-passthrough" if kvm else "maximum"


def _numa_cells(hw: Hardware) -> list[dict[str, str | int]]:
    if hw.numa_nodes < 2:
        return []
    each = hw.vcpus // hw.numa_nodes
    return [
        {"cpus": f"{node * each}-{(node + 1) * each - 1}", "memory_mib": hw.memory_mib // hw.numa_nodes}
        for node in range(hw.numa_nodes)
    ]


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lab", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(TEMPLATE)
