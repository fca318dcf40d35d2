# SPDX-License-Identifier: GPL-2.0-or-later
"""What a warm state is bound to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import arch, hardware, warm
from lab.guest import Machine
from lab.host import Accel
from lab.image import Image


def test_saved_memory_belongs_to_the_very_disk_it_was_saved_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    rack: Any = SimpleNamespace(hypervisor=SimpleNamespace(version=lambda: ("9.0.0", "7.2.0")))
    built = Image(
        recipe="sid",
        arch=arch.get("x86_64"),
        digest="0123456789abcdef",
        folder=tmp_path,
        disk=tmp_path / "disk.qcow2",
        disk_format="qcow2",
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
        cmdline="",
        release="7.0",
        compiler="gcc",
        manifest=tmp_path / "manifest.json",
    )
    machine = Machine(image=built, hardware=hardware.get("standard"), accel=Accel.TCG)

    def folder(disk: str, machine: Machine = machine) -> Path:
        built.manifest.write_text(json.dumps({"files": {"disk.qcow2": {"sha256": disk}}}))
        return warm.folder(rack, machine)

    assert folder("aa") == folder("aa") != folder("bb")  # the recipe, and so the digest, is the same
    assert folder("aa") != folder("aa", replace(machine, hardware=hardware.get("smp4")))
