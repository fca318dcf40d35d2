# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs: its archive is one that cpio reads, its modules come in an order that loads."""

import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab import initrd
from lab.errors import ImageError


def module(folder: Path, name: str, depends: str, *, suffix: str = "") -> bytes:
    """A file that says what a module says of itself."""
    data = b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0" + name.encode()
    path = folder / "kernel" / "drivers" / f"{name}.ko{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(data) if suffix == ".xz" else data)
    return data


def test_modules_come_after_what_they_depend_on(tmp_path: Path) -> None:
    module(tmp_path, "virtio_pci", "virtio,virtio_ring", suffix=".xz")
    module(tmp_path, "virtio", "")
    module(tmp_path, "virtio_ring", "virtio")
    rng = module(tmp_path, "virtio-rng", "virtio-ring")
    module(tmp_path, "unrelated", "virtio")
    ordered = initrd.load_order(tmp_path, ["virtio_pci", "ext4", "virtio_rng"])
    assert [name for name, _ in ordered] == ["virtio", "virtio_ring", "virtio_pci", "virtio_rng"]
    assert dict(ordered)["virtio_rng"] == rng
    assert dict(ordered)["virtio_pci"].startswith(b"\x7fELF")


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_a_module_compressed_with_zstd_is_read(tmp_path: Path) -> None:
    data = os.urandom(1000)
    plain = tmp_path / "m.ko"
    plain.write_bytes(data)
    subprocess.run(["zstd", "-q", plain], check=True)
    assert initrd.read_module(tmp_path / "m.ko.zst") == data


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.ko.lz9").write_bytes(b"?")
    with pytest.raises(ImageError, match="m.ko.lz9"):
        initrd.read_module(tmp_path / "m.ko.lz9")


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """A reader of the newc format, written from the kernel's description and not from the writer."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + length - 1].decode()
        at = (at + 110 + length + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[at : at + size])
        at = (at + size + 3) & ~3


def test_the_archive_holds_busybox_init_and_modules(tmp_path: Path) -> None:
    virtio = module(tmp_path, "virtio", "")
    pci = module(tmp_path, "virtio_pci", "virtio", suffix=".xz")
    for name in ("busybox", "init"):
        (tmp_path / name).write_bytes(os.urandom(101))
    out = tmp_path / "initrd"
    initrd.write_initrd(out, modules=tmp_path, busybox=tmp_path / "busybox", init=tmp_path / "init")
    found = read_cpio(out.read_bytes())
    assert found["init"] == (0o100755, (tmp_path / "init").read_bytes())
    assert found["bin/busybox"] == (0o100755, (tmp_path / "busybox").read_bytes())
    assert found["modules/order"][1] == b"virtio.ko\nvirtio_pci.ko\n"
    assert found["modules/virtio.ko"][1] == virtio
    assert found["modules/virtio_pci.ko"][1] == pci
    assert found["root"][0] == 0o40755


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_itself_reads_the_archive(tmp_path: Path) -> None:
    data = initrd.cpio_entry("odd", 0o100644, b"abc") + initrd.cpio_entry("TRAILER!!!", 0)
    subprocess.run(["cpio", "-i", "--quiet"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "odd").read_bytes() == b"abc"
