# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest is given to start from: a disk that says who may log in, and its own copy of a saved overlay."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from lab.ssh import KeyPair


@dataclass(frozen=True, slots=True)
class Keys:
    """What opens a guest's SSH: the client's key, and the host key's public line."""

    client: KeyPair
    host: str


def seed_tar(client: KeyPair, host: KeyPair, *, hostname: str) -> bytes:
    """The seed disk: who may log in, who the guest is. Padded to whole disk sectors by tar itself."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        files = {
            "authorized_keys": client.public.encode() + b"\n",
            "host_key": host.dropbear(),
            "hostname": hostname.encode() + b"\n",
        }
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file, by reference where the file system can, else within the kernel."""
    with source.open("rb") as read, target.open("wb") as write:
        left = os.fstat(read.fileno()).st_size
        while left > 0:
            copied = os.copy_file_range(read.fileno(), write.fileno(), left)
            if copied == 0:
                break
            left -= copied
