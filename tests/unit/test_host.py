# SPDX-License-Identifier: GPL-2.0-or-later
"""The accelerator probe with hosts of every kind played by a fake QEMU; the speed measure; the host's facts."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab import arch as arches
from lab import emulation, hardware, host, image, paths, proc
from lab.errors import DeadlineError, HostError
from lab.host import Accel, AccelChoice

X86, ARM = arches.get("x86_64"), arches.get("aarch64")
BOOTED = "[    0.9] Run /bin/busybox as init process\n[    1.0] reboot: Power down\n"


class Host:
    """A machine with KVM whose QEMU says what it is told to; counts its starts."""

    def __init__(self, folder: Path) -> None:
        self.kvm = folder / "kvm"
        self.kvm.touch()
        self.boots = 0
        self.status = 0
        self.output = BOOTED
        self.hangs = False
        self.said: list[str] = []

    def run(self, argv: list[Any], **_: object) -> subprocess.CompletedProcess[str]:
        assert argv[argv.index("-accel") + 1] == Accel.KVM
        self.boots += 1
        if self.hangs:
            raise DeadlineError("qemu-system-x86_64 did not end within 8 s")
        return subprocess.CompletedProcess(argv, self.status, self.output, "")

    def accel(self, arch: arches.Arch = X86, wanted: str = "auto") -> AccelChoice:
        return host.accel(arch, wanted, progress=self.said.append)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    machine = Host(tmp_path)
    picture = image.Image(
        recipe="bookworm",
        arch=X86,
        digest="0" * 16,
        folder=tmp_path,
        disk=tmp_path / "disk",
        disk_format="qcow2",
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
        cmdline="",
        release="6.1",
        compiler="gcc",
        manifest=tmp_path / "manifest.json",
    )
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(host, "KVM", machine.kvm)
    monkeypatch.setattr(host, "_told", set())
    monkeypatch.setattr(arches, "native", lambda: X86)
    monkeypatch.setattr(image, "cached", lambda: [picture])
    monkeypatch.setattr(proc, "run", machine.run)
    return machine


def test_kvm_is_used_where_a_kernel_booted_with_it_and_the_answer_is_kept(machine: Host) -> None:
    assert machine.accel().accel is Accel.KVM
    assert machine.accel(wanted="kvm").accel is Accel.KVM
    assert machine.boots == 1
    assert not any("emulated" in line for line in machine.said)


@pytest.mark.parametrize(
    ("status", "output", "reason"),
    [
        (
            1,
            "qemu-system-x86_64: warning: no pni\nqemu-system-x86_64: error: failed to set MSR 0x10a to 0x0\n",
            "failed to set MSR 0x10a",
        ),
        (-6, "", "status -6: no output"),
        (0, "[    0.5] Kernel panic - not syncing: Attempted to kill init!\n", "Kernel panic"),
        (0, "", "no output"),
    ],
)
def test_kvm_that_fails_is_not_used_and_says_why_once(machine: Host, status: int, output: str, reason: str) -> None:
    machine.status, machine.output = status, output
    first, second = machine.accel(), machine.accel()
    assert first == second
    assert first.accel is Accel.TCG
    assert reason in first.reason
    assert machine.boots == 1
    assert len([line for line in machine.said if "emulated" in line and reason in line]) == 1


def test_hardware_that_kvm_cannot_give_is_emulated_everywhere(machine: Host) -> None:
    profile = hardware.get("gicv2")
    choice = host.accel(X86, profile=profile, progress=machine.said.append)
    assert choice == AccelChoice(Accel.TCG, "KVM cannot give hardware 'gicv2'")
    assert machine.boots == 0 and machine.said == []
    with pytest.raises(HostError, match="it cannot give them hardware 'gicv2'"):
        host.accel(X86, "kvm", profile=profile, progress=machine.said.append)
    assert host.accel(X86, profile=hardware.get("smp4"), progress=machine.said.append).accel is Accel.KVM


def test_kvm_that_hangs_is_ended_by_the_deadline(machine: Host) -> None:
    machine.hangs = True
    assert machine.accel().accel is Accel.TCG
    assert "had not booted after" in machine.accel().reason
    assert machine.boots == 1


def test_asking_for_kvm_where_it_fails_is_an_error_at_once(machine: Host) -> None:
    machine.hangs = True
    for _ in range(2):
        with pytest.raises(HostError, match="KVM cannot run x86_64 guests here: .*had not booted"):
            machine.accel(wanted="kvm")
    assert machine.boots == 1


def test_no_kvm_needs_no_probe(machine: Host) -> None:
    machine.kvm.unlink()
    assert machine.accel() == AccelChoice(Accel.TCG, f"{machine.kvm}: No such file or directory")
    assert machine.boots == 0


def test_no_permission_names_the_group(machine: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lab.host.os.open", refuse)
    assert "group kvm" in machine.accel().reason


def test_a_foreign_architecture_is_always_emulated(machine: Host) -> None:
    assert machine.accel(ARM).accel is Accel.TCG
    with pytest.raises(HostError, match="aarch64"):
        machine.accel(ARM, "kvm")
    assert machine.boots == 0


def test_emulation_asked_for_needs_no_probe(machine: Host) -> None:
    assert machine.accel(wanted="tcg").accel is Accel.TCG
    assert machine.boots == 0
    assert machine.said == []


def test_another_qemu_or_another_boot_is_probed_again(machine: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.accel()
    monkeypatch.setattr(host, "_build", lambda arch: ["another"])
    machine.accel()
    assert machine.boots == 2


def test_a_damaged_answer_is_measured_again(machine: Host, tmp_path: Path) -> None:
    machine.accel()
    for path in (tmp_path / "cache" / "host").iterdir():
        path.write_text('{"acc')
    machine.accel()
    assert machine.boots == 2


def test_speed_is_measured_once_and_never_below_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path))
    factors = [0.4, 9.0]
    monkeypatch.setattr(emulation, "factor", lambda: factors.pop(0))
    monkeypatch.setattr(proc, "cores", lambda: 8)
    assert host.speed() == 1.0
    assert host.speed() == 1.0
    assert factors == [9.0]


def test_a_single_core_counts_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(emulation, "factor", lambda: 3.0)
    monkeypatch.setattr(proc, "cores", lambda: 1)
    assert host.speed() == 6.0


def test_a_qemu_that_fails_the_speed_program_is_reported() -> None:
    broken = emulation.Loop(command=("false",), firmware=b"", status=0, reference_s=1.0)
    with pytest.raises(HostError, match="false failed"):
        emulation.measure(broken)


def test_facts_are_there() -> None:
    facts = host.facts()
    assert facts["cores"] >= 1
    assert facts["memory_mib"] > 100
    assert set(facts["qemu"]) == set(arches.ARCHES)


def test_the_roles_packages_are_read_as_the_role_says() -> None:
    text = "lab_host_packages:\n  # c\n  - git\n  - make # no\n"
    text += "lab_host_packages_amd64:\n  - a\nlab_host_packages_arm64:\n  - b\n"
    assert host.packages_of(text, "amd64") == ["git", "make", "a"]
    assert host.packages_of(text, "arm64") == ["git", "make", "b"]


def test_running_needs_no_linter_and_setting_up_installs_it(tmp_path: Path) -> None:
    running = set(host.packages_of(host.PACKAGES.read_text(), "amd64"))
    assert {"qemu-utils", "gcc", "gcc-aarch64-linux-gnu"} <= running
    assert not {"shellcheck", "python3-dev", "libvirt-dev", "busybox-static"} & running
    for name, says in (("dpkg", "echo amd64"), ("dpkg-query", "true")):  # a host with no package at all
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    setup = [paths.REPOSITORY / "scripts/setup", "missing"]
    asked = proc.run(setup, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}).stdout.split()
    assert running | {"shellcheck", "python3-dev", "libvirt-dev", "busybox-static"} <= set(asked)


def test_a_missing_package_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "missing_packages", lambda: ["qemu-system-arm", "zstd"])
    with pytest.raises(HostError) as told:
        host.check_packages()
    assert told.value.told == "this host lacks: qemu-system-arm zstd (run: make setup)"


def test_what_kvm_plainly_cannot_run_is_told_without_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = next(one for one in arches.ARCHES.values() if one != arches.native())
    with pytest.raises(HostError, match=f"KVM cannot run {foreign.name} guests here: this host is "):
        host.check_kvm(foreign, hardware.get("standard"))
    if (native := arches.native()) is not None:
        monkeypatch.setattr(host, "KVM", "/nowhere/kvm")
        with pytest.raises(HostError, match="/nowhere/kvm: No such file"):
            host.check_kvm(native, hardware.get("standard"))
