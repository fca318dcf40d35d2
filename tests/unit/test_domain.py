# SPDX-License-Identifier: GPL-2.0-or-later
"""The XML of guests: what it must hold for each architecture, accelerator and hardware profile."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from lab import domain, hardware
from lab.arch import ARCHES
from lab.errors import UsageError

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"


def spec(arch: str, profile: str = "standard", *, kvm: bool = False) -> domain.DomainSpec:
    return domain.DomainSpec(
        name="g1",
        uuid="9f1c9b3e-0000-4000-8000-000000000001",
        arch=ARCHES[arch],
        hardware=hardware.get(profile),
        kvm=kvm,
        emulator=Path("/usr/bin") / ARCHES[arch].qemu,
        kernel=Path("/cache/kernel"),
        initrd=Path("/cache/initrd"),
        cmdline="root=/dev/vda rw",
        overlay=Path("/cache/g1.qcow2"),
        seed=Path("/cache/seed.tar"),
        console=Path("/run/g1.con"),
        gdb=Path("/run/g1.gdb"),
        ssh_port=2222,
    )


def arguments(root: ET.Element) -> list[str]:
    return [arg.get("value", "") for arg in root.iter(f"{QEMU}arg")]


@pytest.mark.parametrize("arch", ARCHES)
def test_forward_is_bound_to_loopback_and_the_guest_has_no_route_out(arch: str) -> None:
    values = arguments(ET.fromstring(domain.render(spec(arch))))
    netdev = values[values.index("-netdev") + 1]
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in netdev
    assert "restrict=on" in netdev


def test_emulated_x86_has_no_cx16_which_tears_slub_apart() -> None:
    root = ET.fromstring(domain.render(spec("x86_64")))
    assert {f.get("name") for f in root.iter("feature")} >= {"cx16", "la57"}
    assert root.get("type") == "qemu"
    assert "tsc=reliable" in root.findtext("os/cmdline", "")


def test_kvm_takes_the_hosts_cpu_and_none_of_emulations_settings() -> None:
    root = ET.fromstring(domain.render(spec("x86_64", kvm=True)))
    assert root.get("type") == "kvm"
    assert root.find("cpu").get("mode") == "host-passthrough"  # type: ignore[union-attr]
    assert not list(root.iter("feature"))
    assert "tsc=reliable" not in root.findtext("os/cmdline", "")
    arm = ET.fromstring(domain.render(spec("aarch64", kvm=True)))
    assert "-global" not in arguments(arm)
    assert arm.find("features/gic").get("version") is None  # type: ignore[union-attr]


def test_kvm_still_takes_away_what_the_hardware_profile_lacks() -> None:
    root = ET.fromstring(domain.render(spec("x86_64", "no-nx", kvm=True)))
    assert [f.get("name") for f in root.iter("feature")] == ["nx"]


def test_profiles_change_the_machine() -> None:
    no_pac = ET.fromstring(domain.render(spec("aarch64", "no-pac")))
    assert no_pac.findtext("cpu/model") == "cortex-a72"
    gicv2 = ET.fromstring(domain.render(spec("aarch64", "gicv2")))
    assert gicv2.find("features/gic").get("version") == "2"  # type: ignore[union-attr]
    numa = ET.fromstring(domain.render(spec("x86_64", "numa2")))
    assert [cell.get("cpus") for cell in numa.iter("cell")] == ["0-1", "2-3"]


def test_hardware_of_another_architecture_is_refused() -> None:
    with pytest.raises(UsageError, match="not made for aarch64"):
        domain.render(spec("aarch64", "no-nx"))


def test_paths_are_escaped() -> None:
    odd = replace(spec("x86_64"), overlay=Path("/cache/a&b<c>'d.qcow2"))
    source = ET.fromstring(domain.render(odd)).find("devices/disk/source")
    assert source is not None and source.get("file") == "/cache/a&b<c>'d.qcow2"


@pytest.mark.parametrize("count", [1, 4])
def test_edu_devices_get_slots_of_their_own(count: int) -> None:
    profile = replace(hardware.get("standard"), edu_devices=count)
    values = arguments(ET.fromstring(domain.render(replace(spec("x86_64"), hardware=profile))))
    edus = [value for value in values if value.startswith("edu,")]
    assert len(set(edus)) == count


def test_a_disk_that_the_host_cannot_write_stops_the_guest() -> None:
    drivers = ET.fromstring(domain.render(spec("x86_64"))).findall("devices/disk/driver")
    assert [driver.get("error_policy") for driver in drivers] == ["stop", "stop"]


def test_gdbs_socket_is_the_guests_own_and_no_port() -> None:
    odd = replace(spec("x86_64"), gdb=Path("/run/a,b/g1.gdb"))
    values = arguments(ET.fromstring(domain.render(odd)))
    assert values[values.index("-gdb") + 1] == "unix:/run/a,,b/g1.gdb,server=on,wait=off"
