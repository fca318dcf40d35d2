# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine can do: its accelerator, its speed as a host of guests, its facts.

That /dev/kvm exists, opens and creates a VM proves nothing: nested or restricted hosts have hung
before the kernel's first line with it. So KVM is used where a stock kernel has booted with it, and
only there. Both answers, accelerator and speed, are measured once and cached until the host
reboots or its QEMU changes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab import arch as arches
from lab import emulation, paths, proc, shelf
from lab import image as images
from lab.arch import Arch
from lab.deadline import Deadline
from lab.errors import DeadlineError, HostError
from lab.hardware import Hardware
from lab.image import Image

log = logging.getLogger(__name__)

KVM = Path("/dev/kvm")
PROBE_S = 8.0  # a KVM boot to the first program takes about one second
PACKAGES = paths.REPOSITORY / "ansible/roles/lab_host/vars/main.yml"

Progress = Callable[[str], None]
_told: set[str] = set()  # what this process has said already
_lock = threading.Lock()


class Accel(StrEnum):
    """How QEMU runs a guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class AccelChoice:
    """The accelerator for an architecture's guests, and why."""

    accel: Accel
    reason: str


def accel(arch: Arch, wanted: str = "auto", *, profile: Hardware | None = None, progress: Progress) -> AccelChoice:
    """The accelerator to use where `wanted` (auto, kvm or tcg) was asked for, for a hardware profile.

    The first call on a host boots a probe guest, for which a native image is built when none is
    cached. Falling back to emulation is told once. Raises HostError when KVM was asked for and
    cannot be had.
    """
    if wanted == Accel.TCG:
        return AccelChoice(Accel.TCG, "asked for")
    if profile is not None and not profile.kvm:
        if wanted == Accel.KVM:
            check_kvm(arch, profile)
        return AccelChoice(Accel.TCG, f"KVM cannot give hardware '{profile.name}'")
    choice = _choose(arch, progress)
    if choice.accel is Accel.TCG:
        if wanted == Accel.KVM:
            raise _refusal(arch, choice.reason)
        with _lock:
            said = arch.name in _told
            _told.add(arch.name)
        if not said:
            progress(f"{arch.name}: guests are emulated (TCG): {choice.reason}")
    return choice


def check_kvm(arch: Arch, profile: Hardware) -> None:
    """HostError when it is plain, without a probe, that KVM cannot run guests of such a machine here."""
    if why := _no_kvm(arch):
        raise _refusal(arch, why)
    if not profile.kvm:
        raise _refusal(arch, f"it cannot give them hardware '{profile.name}'")


def _refusal(arch: Arch, why: str) -> HostError:
    return HostError(f"KVM cannot run {arch.name} guests here: {why}", hint="use --accel auto or tcg")


def _no_kvm(arch: Arch) -> str:
    if arch != arches.native():
        return f"this host is {platform.machine()}"
    try:
        os.close(os.open(KVM, os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        hint = " (is this user in the group kvm?)" if e.errno in (errno.EACCES, errno.EPERM) else ""
        return f"{KVM}: {e.strerror}{hint}"
    return ""


def _choose(arch: Arch, progress: Progress) -> AccelChoice:
    if why := _no_kvm(arch):
        return AccelChoice(Accel.TCG, why)
    cache = paths.cache_dir() / "host" / f"accel-{_host_key(arch)}.json"
    with _lock:  # several cells begin at once; one of them asks
        if (known := _read(cache)) is not None:
            return AccelChoice(Accel(known["accel"]), known["reason"])
        choice = probe(_native_image(arch, progress), progress=progress)
        _write(cache, {"accel": choice.accel, "reason": choice.reason})
        return choice


def probe(image: Image, *, progress: Progress) -> AccelChoice:
    """Boot an image's kernel under KVM to its first program, which powers off; no disk, no network."""
    progress(f"{image.arch.name}: trying KVM")
    started = time.monotonic()
    try:
        done = proc.run(probe_command(image), deadline=Deadline.after(PROBE_S), check=False)
    except DeadlineError:
        return AccelChoice(Accel.TCG, f"under KVM a probe guest had not booted after {PROBE_S:.0f} s")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == 0 and any("reboot: Power down" in line for line in lines):
        return AccelChoice(Accel.KVM, f"a probe guest booted in {time.monotonic() - started:.1f} s")
    said = [line for line in lines if line.startswith("qemu-system") and "warning:" not in line] or lines
    why = said[-1].removeprefix(f"{image.arch.qemu}: ") if said else "no output"
    return AccelChoice(Accel.TCG, f"under KVM a probe guest failed with status {done.returncode}: {why[:200]}")


def probe_command(image: Image, accel: Accel = Accel.KVM) -> list[str | Path]:
    """The probe guest's command line; with emulation it tests the probe itself."""
    arch = image.arch
    words: list[str | Path] = [arch.qemu, "-accel", accel, "-cpu", "host" if accel is Accel.KVM else "max"]
    words += ["-machine", "virt,gic-version=max" if arch.machine == "virt" else arch.machine]
    if accel is Accel.TCG:
        words += [word for setting in arch.tcg_globals for word in ("-global", setting)]
    words += ["-smp", "2", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    words += ["-serial", "stdio", "-kernel", image.kernel, "-initrd", image.initrd]
    return [*words, "-append", f"console={arch.console} panic=-1 rdinit=/bin/busybox -- poweroff -f"]


def _native_image(arch: Arch, progress: Progress) -> Image:
    known = [image for image in images.cached() if image.arch == arch and image.tree is None]
    if known:
        return known[-1]
    name = next(name for name, recipe in images.recipes().items() if arch.name in recipe.arches)
    return images.ensure(name, arch, progress=progress)


def speed() -> float:
    """How much longer than on the reference host an emulated guest takes here, at least 1.

    It scales the time-outs of guests. Measured with a small program on QEMU's bare machine (the
    best of three, a second or two in all), and doubled where the two vCPUs share one core.
    """
    cache = paths.cache_dir() / "host" / f"speed-{_host_key(None)}.json"
    if (known := _read(cache)) is not None:
        return float(known["factor"])
    factor = max(1.0, emulation.factor()) * max(1.0, 2 / proc.cores())
    _write(cache, {"factor": factor})
    return factor


def facts() -> dict[str, Any]:
    """What a run records of this host; what cannot be found out is None."""
    return {
        "cpu": cpu_model(),
        "arch": platform.machine(),
        "cores": proc.cores(),
        "memory_mib": _memory_mib(),
        "kernel": platform.release(),
        "os": platform.freedesktop_os_release().get("PRETTY_NAME") if Path("/etc/os-release").exists() else None,
        "qemu": {arch.name: qemu_version(arch) for arch in arches.ARCHES.values()},
        "libvirt": _version("virsh", "--version"),
    }


def qemu_version(arch: Arch) -> str | None:
    """Version and build of the architecture's QEMU; None when it is not installed."""
    text = _version(arch.qemu, "--version")
    return text.removeprefix("QEMU emulator version ") if text else None


def cpu_model() -> str | None:
    """The processor's name, as far as /proc/cpuinfo tells."""
    lines = _lines(Path("/proc/cpuinfo"))
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    # arm64 has no name, only numbers
    numbers = [
        f"{k.strip()} {v.strip()}" for k, _, v in (line.partition(":") for line in lines) if k.startswith("CPU ")
    ]
    return named[0] if named else ", ".join(dict.fromkeys(numbers)) or None


def missing_packages() -> list[str]:
    """The packages that running needs and this host lacks; empty where there is no dpkg."""
    wanted = packages_of(PACKAGES.read_text(), {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), ""))
    if shutil.which("dpkg-query") is None:
        return []
    form = "${Package} ${db:Status-Status}\n"
    asked = proc.run(["dpkg-query", "--show", f"--showformat={form}", *wanted], check=False).stdout
    installed = {
        name for name, _, status in (line.partition(" ") for line in asked.splitlines()) if status == "installed"
    }
    return [name for name in wanted if name not in installed]


def check_packages() -> None:
    """HostError when this host lacks a package that running needs."""
    if missing := missing_packages():
        raise HostError(f"this host lacks: {' '.join(missing)}", hint="run: make setup")


def packages_of(text: str, debian_arch: str) -> list[str]:
    """The package names that running needs, of the role's variables: the common list and this architecture's."""
    names: list[str] = []
    wanted = False
    for line in text.splitlines():
        if key := re.match(r"(\w+):", line):
            wanted = key[1] in ("lab_host_packages", f"lab_host_packages_{debian_arch}")
        elif wanted and (item := re.match(r"  - (\S+)", line)):
            names.append(item[1])
    return names


def gc(_busy_s: float) -> list[str]:
    """Remove what was found out long ago, mostly under earlier boots of this host; it is found out anew."""
    return shelf.sweep_files(paths.cache_dir() / "host", "*.json")


def _host_key(arch: Arch | None) -> str:
    """What a measurement holds for: this boot of this host, and the build of its QEMU."""
    boot = _lines(Path("/proc/sys/kernel/random/boot_id"))
    rows = [arch] if arch else list(arches.ARCHES.values())
    parts = [boot, platform.release(), cpu_model(), proc.cores(), [_build(row) for row in rows]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _build(arch: Arch) -> list[str | int | None]:
    """QEMU's version, and its file's size and time for a build of one's own."""
    path = shutil.which(arch.qemu)
    if path is None:
        return [None]
    status = Path(path).stat()
    return [path, status.st_size, status.st_mtime_ns]


def _memory_mib() -> int | None:
    found = [line for line in _lines(Path("/proc/meminfo")) if line.startswith("MemTotal:")]
    return int(found[0].split()[1]) // 1024 if found else None


def _version(*argv: str) -> str | None:
    if shutil.which(argv[0]) is None:
        return None
    lines = proc.run(argv, check=False, deadline=Deadline.after(30)).stdout.splitlines()
    return lines[0].strip() if lines else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _read(path: Path) -> dict[str, Any] | None:
    """A cached measurement; None when there is none or it cannot be read."""
    try:
        data = json.loads(path.read_text())
        return data if isinstance(data, dict) else None
    except (OSError, ValueError):
        return None


def _write(path: Path, data: dict[str, Any]) -> None:
    paths.write_whole(path, json.dumps(data) + "\n")
