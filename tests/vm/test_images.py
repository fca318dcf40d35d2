# SPDX-License-Identifier: GPL-2.0-or-later
"""Images as a guest sees them, and the accelerator's probe guest, which must boot where the accelerator works."""

import json

import pytest

from lab import arch as arches
from lab import host, image, proc
from lab.deadline import Deadline
from lab.host import Accel

from .conftest import KERNELS


@pytest.mark.parametrize("name", KERNELS)
def test_the_probe_guest_boots_and_powers_off(name: str) -> None:
    """Emulated here: were the probe itself broken, KVM would be refused everywhere."""
    built = image.ensure(KERNELS[name], arches.get(name), progress=print)
    deadline = Deadline.after(90 * host.speed())
    done = proc.run(host.probe_command(built, Accel.TCG), deadline=deadline, check=False)
    assert done.returncode == 0
    assert "reboot: Power down" in done.stdout


@pytest.mark.parametrize("name", KERNELS)
def test_the_manifest_says_what_is_in_the_image(name: str) -> None:
    built = image.ensure(KERNELS[name], arches.get(name), progress=print)
    manifest = json.loads(built.manifest.read_text())
    assert built.release.split("-")[0].split("+")[0] in json.dumps(manifest["packages"])
    assert built.compiler.split()[0] in manifest["packages"]
    assert {"dropbear-bin", "make", "libc6-dev"} <= set(manifest["packages"])
    for file, known in manifest["files"].items():
        assert image.sha256(built.folder / file) == known["sha256"]
