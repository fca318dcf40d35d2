# SPDX-License-Identifier: GPL-2.0-or-later
"""Making an image from an unpacked tree: no network, a tree of a few small files."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from lab import imagebuild
from lab.deadline import Deadline, wait_until
from lab.errors import ImageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for folder in ("usr/bin", "usr/sbin", "usr/lib/modules/6.1.0-9-cloud-amd64/kernel", "etc", "boot"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("busybox", "mawk", "dash", "tar"):
        (root / "usr/bin" / name).write_text(name)
    (root / "usr/sbin/poweroff").write_text("a package's own")
    return root


def test_the_guest_gets_its_files_and_what_scripts_would_have_done(root: Path) -> None:
    (root / "usr/sbin/init").symlink_to("/lib/systemd/systemd")
    imagebuild.configure(root)
    assert not (root / "usr/sbin/init").is_symlink()
    assert "lab: ready" in (root / "usr/sbin/init").read_text()
    assert os.access(root / "usr/sbin/init", os.X_OK)
    assert (root / "etc/passwd").read_text().startswith("root:*:0:0:")
    assert os.readlink(root / "usr/bin/awk") == "mawk"
    assert os.readlink(root / "usr/bin/sh") == "dash"
    assert os.readlink(root / "usr/bin/ip") == "busybox"
    assert not os.path.lexists(root / "usr/bin/poweroff")
    assert (root / "usr/sbin/poweroff").read_text() == "a package's own"
    assert (root / "proc").is_dir()


@pytest.mark.parametrize("place", ["boot/vmlinuz-6.1.0-9-cloud-amd64", "usr/lib/modules/6.1.0-9-cloud-amd64/vmlinuz"])
def test_the_kernel_is_found_where_either_debian_keeps_it(root: Path, tmp_path: Path, place: str) -> None:
    (root / place).write_text("kernel")
    assert imagebuild.take_kernel(root, tmp_path) == "6.1.0-9-cloud-amd64"
    assert (tmp_path / "kernel").read_text() == "kernel"
    assert not (root / place).exists()


def test_no_kernel_or_two_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="found 0"):
        imagebuild.take_kernel(root, tmp_path)
    for name in ("vmlinuz-1", "vmlinuz-2"):
        (root / "boot" / name).touch()
    with pytest.raises(ImageError, match="found 2"):
        imagebuild.take_kernel(root, tmp_path)


def test_the_compiler_is_the_one_gcc_leads_to(root: Path) -> None:
    bin_ = root / "usr/bin"
    (bin_ / "gcc").symlink_to("gcc-12")
    (bin_ / "gcc-12").symlink_to("x86_64-linux-gnu-gcc-12")
    (bin_ / "x86_64-linux-gnu-gcc-12").touch()
    assert imagebuild.compiler(root, {"gcc": "4:12.2.0", "gcc-12": "12.2.0-14", "gcc-11": "11"}) == "gcc-12 12.2.0-14"


@pytest.mark.skipif(not all(map(shutil.which, ("qemu-img", "fakeroot"))), reason="needs qemu-img and fakeroot")
def test_the_disk_holds_the_tree_as_root_and_has_room(root: Path, tmp_path: Path) -> None:
    imagebuild.configure(root)
    disk = tmp_path / "disk.qcow2"
    imagebuild.make_disk(root, disk)
    raw = tmp_path / "back.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    assert raw.stat().st_size >= imagebuild.FREE_MIB * 2**20
    asked = b"stat /usr/sbin/init\ncat /etc/passwd\nstats\n"
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    env = {**os.environ, "PATH": path}
    said = subprocess.run(["debugfs", "-f", "-", raw], input=asked, capture_output=True, check=True, env=env)
    text = said.stdout.decode()
    assert "User:     0   Group:     0" in text
    assert "Mode:  0755" in text
    assert "root:*:0:0:root:/root:" in text
    assert "has_journal" not in text
    assert not disk.with_suffix(".raw").exists()


def test_long_work_keeps_talking_until_its_end() -> None:
    said: list[str] = []
    before = threading.active_count()
    with imagebuild.told(said.append, "working", every_s=0.01):
        wait_until(lambda: len(said) >= 3, "progress", Deadline.after(5))
    assert said[0] == "working"
    assert said[1].startswith("working, ")
    assert threading.active_count() == before
