# SPDX-License-Identifier: GPL-2.0-or-later
"""Make one image: packages -> root folder -> disk, kernel, initramfs. No emulation, no mount, no root needed.

mmdebstrap's `extract` variant unpacks packages of any architecture and runs nothing of them; what
their maintainer scripts would have done and a guest needs (a few files in /etc, awk) is done here.
As an ordinary user everything runs under fakeroot, which makes all files look like root's.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import proc
from lab.arch import Arch
from lab.deadline import Deadline
from lab.errors import ImageError
from lab.initrd import write_initrd
from lab.recipe import Recipe, files_dir

DISK, KERNEL, INITRD = "disk.qcow2", "kernel", "initrd"
FREE_MIB = 1024  # room in the guest, for building; the disk is sparse, so it costs nothing here
NEEDED_MIB = 2048  # free space a build needs at its peak
UNPACK_S = 900.0  # the download included: a slow mirror is no error
HOOKS = Path("/usr/share/mmdebstrap/hooks/merged-usr")

# Not needed by a guest: documentation, translations, what starts other kernels, and drivers for
# hardware that no guest has (the flavours that are not "cloud" bring hundreds of megabytes).
UNWANTED = (
    *("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/zoneinfo", "usr/share/i18n"),
    *("usr/lib/systemd", "usr/lib/udev", "usr/lib/dracut", "usr/lib/modules/*/dtb", "usr/lib/linux-image-*"),
    *("boot/System.map-*", "var/lib/apt/lists", "var/cache/apt"),
    *(f"usr/lib/modules/*/kernel/drivers/{name}" for name in ("gpu", "media", "infiniband", "staging", "isdn", "iio")),
    *("usr/lib/modules/*/kernel/sound", "usr/lib/modules/*/kernel/drivers/net/wireless"),
    *("usr/lib/modules/*/kernel/drivers/net/ethernet", "usr/lib/modules/*/kernel/drivers/scsi"),
)

# busybox does these, where no package in the image does.
APPLETS = (
    *("clear", "dmesg", "free", "halt", "hexdump", "hostname", "ifconfig", "ip", "killall", "less", "losetup"),
    *("mount", "mountpoint", "nc", "pidof", "ping", "poweroff", "ps", "reboot", "route", "setsid", "sysctl"),
    *("taskset", "top", "umount", "vi", "watch", "xz", "unxz", "uptime", "which"),
)

Progress = Callable[[str], None]


def build(recipe: Recipe, arch: Arch, folder: Path, *, mirror: str | None, progress: Progress) -> dict[str, Any]:
    """Make the image's files in `folder`; returns its facts: release, compiler, mirror, packages {name: version}.

    Raises ImageError (no mirror, no such package, a kernel the lab cannot start) or HostError
    (a program is missing). The caller makes `folder` appear and disappear as a whole.
    """
    who = f"{recipe.name} {arch.name}"
    root = folder / "root"
    with told(progress, f"{who}: unpacking packages"):
        unpack(recipe, arch, root, mirror=mirror, log_file=folder / "build.log")
        packages = take_packages(root)
        trim(root)
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
    return {"release": release, "compiler": gcc, "mirror": mirror or "mmdebstrap's default", "packages": packages}


def unpack(recipe: Recipe, arch: Arch, root: Path, *, mirror: str | None, log_file: Path) -> None:
    """Download and unpack the recipe's packages and their dependencies into `root`."""
    argv: list[str | Path] = [
        *as_root(),
        "mmdebstrap",
        f"--arch={arch.debian}",
        "--variant=extract",
        "--mode=chrootless",  # nothing is run in the root folder, so nothing needs a chroot
        "--format=directory",
        f"--hook-dir={HOOKS}",
        "--skip=cleanup/apt",  # the package files tell the versions; take_packages() removes them
        f"--include={','.join(recipe.all_packages(arch))}",
    ]
    if not recipe.check_valid_until:
        argv.append('--aptopt=Acquire::Check-Valid-Until "false"')
    argv += [recipe.suite, root, *([mirror] if mirror else [])]
    try:
        proc.run(argv, deadline=Deadline.after(UNPACK_S), env={"TMPDIR": str(root.parent)}, log_file=log_file)
    except proc.CommandFailed as e:
        raise ImageError(
            f"cannot unpack {recipe.name} for {arch.name}: {decisive(e.output)}",
            hint="is the Debian mirror reachable? LAB_MIRROR=http://... sets another one",
        ) from e


def decisive(output: str) -> str:
    """The line of apt's or mmdebstrap's output that says why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for pattern in (r"No space left", r"^E: (?!apt-get|setup-hook|mmdebstrap)", r"^(Err|W):", r"^E:"):
        for line in lines:
            if re.search(pattern, line):
                return line[:300]
    return lines[-1][:300] if lines else "no output"


def take_packages(root: Path) -> dict[str, str]:
    """Name and version of each unpacked package; their files are removed."""
    archives = root / "var/cache/apt/archives"
    packages = {}
    for path in sorted(archives.glob("*.deb")):
        name, version, _ = path.name.split("_", 2)
        packages[name] = version.replace("%3a", ":")
    shutil.rmtree(archives)
    return packages


def trim(root: Path) -> None:
    """Remove what no guest needs, so that the disk is written sooner."""
    for pattern in UNWANTED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


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
        deadline=Deadline.after(UNPACK_S),
        env={"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
    )
    proc.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], deadline=Deadline.after(UNPACK_S))
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
