# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs: busybox, the modules the guest needs to reach its disk, and a script.

Debian's kernels have virtio as modules, so the disk cannot be mounted without one. Modules are
loaded in an order worked out here from each one's `depends=`, because nothing has run depmod.
The archive format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import lzma
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab import proc
from lab.errors import ImageError

# Whatever of these the kernel has as a module, and what they depend on, in this order.
MODULES = (
    *("virtio_pci", "virtio_blk", "crc32c_generic", "libcrc32c", "ext4"),
    *("virtio_rng", "virtio_net", "virtio_console"),
)


def write_initrd(path: Path, *, modules: Path, busybox: Path, init: Path) -> None:
    """Write the initramfs of the kernel whose module folder (lib/modules/RELEASE) is given."""
    ordered = load_order(modules, MODULES)
    entries = [
        *(cpio_entry(name, 0o40755) for name in ("bin", "dev", "modules", "root")),
        cpio_entry("dev/console", 0o20600, device=(5, 1)),
        cpio_entry("bin/busybox", 0o100755, busybox.read_bytes()),
        cpio_entry("init", 0o100755, init.read_bytes()),
        cpio_entry("modules/order", 0o100644, "".join(f"{name}.ko\n" for name, _ in ordered).encode()),
        *(cpio_entry(f"modules/{name}.ko", 0o100644, data) for name, data in ordered),
        cpio_entry("TRAILER!!!", 0),
    ]
    path.write_bytes(b"".join(entries))


def cpio_entry(name: str, mode: int, data: bytes = b"", *, device: tuple[int, int] = (0, 0)) -> bytes:
    """One member of a cpio archive in the `newc` format, owned by root, its time 0."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def load_order(modules: Path, wanted: Sequence[str]) -> list[tuple[str, bytes]]:
    """The wanted modules and their dependencies as (name, contents), each after what it depends on.

    A wanted module that the kernel has built in is left out; one that it has not at all is too.
    """
    files = {_name(path): path for path in (modules / "kernel").rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or name not in files:
            return
        data = read_module(files[name])
        for dependency in depends(data):
            add(dependency)
        ordered[name] = data

    for name in wanted:
        add(name)
    return list(ordered.items())


def depends(module: bytes) -> list[str]:
    """The names in the `depends=` of a module's .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [_normal(name) for name in found[1].decode().split(",") if name] if found else []


def read_module(path: Path) -> bytes:
    """A module's contents, uncompressed."""
    data = path.read_bytes()
    match path.suffix:
        case ".ko":
            return data
        case ".xz":
            return lzma.decompress(data)
        case ".zst":
            with tempfile.TemporaryDirectory() as folder:
                plain = Path(folder) / "module.ko"
                proc.run(["zstd", "-dq", path, "-o", plain])
                return plain.read_bytes()
        case _:
            raise ImageError(f"{path.name} is compressed in an unknown way")


def _name(path: Path) -> str:
    return _normal(path.name.partition(".ko")[0])


def _normal(name: str) -> str:
    return name.replace("-", "_")
