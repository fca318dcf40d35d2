# SPDX-License-Identifier: GPL-2.0-or-later
"""Make one image: packages -> root folder -> disk, kernel, initramfs. No emulation, no mount, no root needed.

Packages of any architecture are unpacked and nothing of them is run; what their maintainer scripts
would have done and a guest needs (a few files in /etc, awk) is done here. As an ordinary user the
file system is written under fakeroot, which makes all files look like root's.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from lab import proc
from lab.arch import Arch
from lab.deadline import Deadline
from lab.errors import ImageError
from lab.initrd import write_initrd
from lab.packages import Apt, take_versions, unpacked
from lab.recipe import Recipe, files_dir

DISK, KERNEL, INITRD = "disk.qcow2", "kernel", "initrd"
FREE_MIB = 1024  # room in the guest, for building; the disk is sparse, so it costs nothing here
NEEDED_MIB = 2048  # free space a build needs at its peak
DISK_S = 600.0  # a deadline for what takes seconds

# Not needed by a guest: documentation, translations, the parts of the compiler that link with LTO or
# sanitize, what starts other kernels, and drivers for hardware that no guest has (the flavours that
# are not "cloud" bring hundreds of megabytes). Patterns of tar, which match after any slash.
UNWANTED = (
    *("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/i18n", "usr/share/zoneinfo"),
    *("lto1", "*-lto-dump-*", "lib*san.a", "lib*san.so*", "*-ld.gold", "*-dwp", "*gprofng*"),
    *("lib/systemd", "lib/udev", "lib/dracut", "boot/System.map-*", "linux-image-*/*.dtb", "modules/*/System.map"),
    *("modules/*/dtb", "modules/*/kernel/sound", "modules/*/kernel/drivers/net/wireless"),
    *("modules/*/kernel/drivers/net/ethernet", "modules/*/kernel/drivers/scsi"),
    *(f"modules/*/kernel/drivers/{name}" for name in ("gpu", "media", "infiniband", "staging", "isdn", "iio")),
)

# busybox does these, where no package in the image does.
APPLETS = (
    *("clear", "dmesg", "free", "halt", "hexdump", "hostname", "ifconfig", "ip", "killall", "less", "losetup"),
    *("mount", "mountpoint", "nc", "pidof", "ping", "poweroff", "ps", "reboot", "route", "setsid", "sysctl"),
    *("taskset", "top", "umount", "vi", "watch", "xz", "unxz", "uptime", "which"),
)

Progress = Callable[[str], None]


def build(recipe: Recipe, arch: Arch, folder: Path, *, mirror: str, progress: Progress) -> dict[str, Any]:
    """Make the image's files in `folder`; returns its facts: release, compiler, mirror, packages {name: version}.

    Raises ImageError (no mirror, no such package, no kernel) or HostError (a program is missing).
    The caller makes `folder` appear and disappear as a whole.
    """
    who = f"{recipe.name} {arch.name}"
    root = folder / "root"
    apt = Apt(
        folder=folder / "apt",
        suite=recipe.suite,
        debian_arch=arch.debian,
        mirror=mirror,
        check_valid_until=recipe.check_valid_until,
        log_file=folder / "build.log",
    )
    with told(progress, f"{who}: fetching package lists"):
        apt.prepare()
        apt.update()
    with told(progress, f"{who}: fetching and unpacking packages"):
        with unpacked(apt.archives, root, exclude=UNWANTED):
            apt.download(recipe.all_packages(arch))
        packages = take_versions(apt.archives)
        shutil.rmtree(apt.folder)
    with told(progress, f"{who}: making the disk"):
        configure(root)
        release = take_kernel(root, folder)
        write_initrd(
            folder / INITRD,
            modules=root / "usr/lib/modules" / release,
            busybox=root / "usr/bin/busybox",
            init=files_dir() / "initramfs-init",
        )
        make_disk(root, folder / DISK)
        gcc = compiler(root, packages)
        shutil.rmtree(root)
    return {"release": release, "compiler": gcc, "mirror": mirror, "packages": packages}


def configure(root: Path) -> None:
    """The guest's own files, and what maintainer scripts would have done."""
    files = files_dir()
    shutil.copytree(files / "etc", root / "etc", dirs_exist_ok=True)
    for folder in ("proc", "sys", "dev", "run", "tmp", "root", "etc"):
        (root / folder).mkdir(exist_ok=True)
    sbin, bin_ = root / "usr/sbin", root / "usr/bin"
    (sbin / "init").unlink(missing_ok=True)
    shutil.copyfile(files / "init", sbin / "init")
    (sbin / "init").chmod(0o755)
    link(bin_ / "awk", "mawk")
    link(bin_ / "sh", "dash")
    for name in APPLETS:
        if not os.path.lexists(sbin / name):
            link(bin_ / name, "busybox")


def link(path: Path, target: str) -> None:
    """A symbolic link, unless something is there already."""
    if not os.path.lexists(path):
        path.symlink_to(target)


def take_kernel(root: Path, folder: Path) -> str:
    """Move the kernel out of the root folder; returns its release (uname -r)."""
    # Until Debian 13 the kernel lies in /boot, later with its modules.
    kernels = [*root.glob("boot/vmlinuz-*"), *root.glob("usr/lib/modules/*/vmlinuz")]
    releases = [path.name for path in (root / "usr/lib/modules").iterdir()]
    if len(kernels) != 1 or len(releases) != 1:
        raise ImageError(f"expected one kernel, found {len(kernels)} with modules of {', '.join(releases) or 'none'}")
    shutil.move(kernels[0], folder / KERNEL)
    return releases[0]


def make_disk(root: Path, disk: Path) -> None:
    """Write the root folder as an ext4 file system into a qcow2 image, with room to build in.

    No journal and no checksums: every guest writes to an overlay that is thrown away.
    """
    used = sum(-(-path.lstat().st_size // 4096) + 1 for path in root.rglob("*")) * 4096
    size_mib = used * 21 // 20 // 2**20 + FREE_MIB
    raw = disk.with_suffix(".raw")
    features = "^has_journal,^metadata_csum,^resize_inode,^uninit_bg,^64bit"
    options = "root_owner=0:0,lazy_itable_init=0"
    head: list[str | Path] = [*as_root(), "mke2fs", "-F", "-q", "-t", "ext4", "-L", "lab", "-m", "0"]
    proc.run(
        [*head, "-O", features, "-E", options, "-d", root, raw, f"{size_mib}M"],
        deadline=Deadline.after(DISK_S),
        env={"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
    )
    proc.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], deadline=Deadline.after(DISK_S))
    raw.unlink()


def compiler(root: Path, packages: dict[str, str]) -> str:
    """The image's compiler as `gcc VERSION`: it cannot be asked, so its package is."""
    path = root / "usr/bin/gcc"
    while path.is_symlink():
        path = path.parent / os.readlink(path)
        if (found := re.search(r"gcc-\d+$", path.name)) and found[0] in packages:
            return f"{found[0]} {packages[found[0]]}"
    return f"gcc {packages['gcc']}"


def as_root() -> tuple[str, ...]:
    """What to put before a command that must see itself as root and its files as root's."""
    return () if os.getuid() == 0 else ("fakeroot",)


def waiting(progress: Progress, name: str) -> AbstractContextManager[None]:
    """Say, as long as it lasts, that another lab makes this entry of the cache."""
    return told(progress, f"waiting for another lab that makes {name}")


@contextmanager
def told(progress: Progress, what: str, *, every_s: float = 3.0) -> Iterator[None]:
    """Say what is going on now, and again with the seconds gone every few of them."""
    progress(what)
    done = threading.Event()
    started = time.monotonic()

    def tell() -> None:
        while not done.wait(every_s):
            progress(f"{what}, {time.monotonic() - started:.0f} s")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
