# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with systemd and Python, as a host that ansible sets up: the lab's own guests have neither.

Only the disk is another one: kernel and initramfs are the ordinary image's, and the part of the lab's init that
configures the network and starts the SSH server is a unit here.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

from lab import imagebuild, recipe
from lab.image import Image
from lab.packages import Apt, host_mirror, unpacked

PACKAGES = (
    *("bash", "coreutils", "dash", "mawk", "grep", "sed", "findutils", "tar", "libc-bin", "busybox-static"),
    *("dropbear-bin", "mount", "passwd", "python3", "systemd-sysv"),
)
UNWANTED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/zoneinfo")
# Nobody logs in on the console, nothing of the kernel's modules is on this disk, and the rest only takes its time.
MASKED = (
    *("getty.target", "systemd-modules-load.service", "systemd-tmpfiles-clean.timer", "systemd-sysctl.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-random-seed.service"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *(f"modprobe@{name}.service" for name in ("configfs", "dm_mod", "drm", "efi_pstore", "fuse", "loop")),
)
UNIT = """\
[Unit]
Description=The lab's way into its guest
[Service]
Type=forking
ExecStart=/usr/sbin/lab-way-in
[Install]
WantedBy=multi-user.target
"""


def image(base: Image, folder: Path) -> Image:
    """An image like `base` with systemd as its init, made in `folder`."""
    root = folder / "root"
    apt = Apt(
        folder=folder / "apt",
        suite=json.loads(base.manifest.read_text())["suite"],
        debian_arch=base.arch.debian,
        mirror=host_mirror(),
        check_valid_until=True,
        log_file=folder / "build.log",
    )
    apt.prepare()
    apt.update()
    with unpacked(apt.archives, root, exclude=UNWANTED):
        apt.download(PACKAGES)
    shutil.rmtree(apt.folder)
    imagebuild.configure(root)
    _configure(root)
    imagebuild.make_disk(root, folder / imagebuild.DISK)
    shutil.rmtree(root)
    masked = " ".join(f"systemd.mask={name}" for name in MASKED)
    return replace(base, recipe="systemd", disk=folder / imagebuild.DISK, cmdline=f"{base.cmdline} {masked}")


def tar(name: str, data: bytes) -> bytes:
    """An archive with one program in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o755
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _configure(root: Path) -> None:
    """What systemd's maintainer scripts would have done, and the way in."""
    init = root / "usr/sbin/init"
    init.unlink()
    init.symlink_to("/usr/lib/systemd/systemd")
    # Without one it is a first boot, at which every unit is preset.
    (root / "etc/machine-id").write_text("6c61626c61626c61626c61626c61626c\n")
    (root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    ours = (recipe.files_dir() / "init").read_text()
    part = ours[ours.index("ip link set lo up") : ours.index("trap ")]
    way_in = root / "usr/sbin/lab-way-in"
    way_in.write_text(f"#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin HOME=/root\n{part}")
    way_in.chmod(0o755)
    units = root / "etc/systemd/system"
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    (units / "lab-way-in.service").write_text(UNIT)
    (wanted / "lab-way-in.service").symlink_to("/etc/systemd/system/lab-way-in.service")
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
