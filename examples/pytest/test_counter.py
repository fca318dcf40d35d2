# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of a module of one's own, in guests of the lab.

With the lab's .venv: `pytest examples/pytest`, or `--lab-arch aarch64 --lab-kernel bookworm`; `-n 2` for two at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.testguest import Guest

SOURCES = Path(__file__).parent / "counter"
COUNT = "/sys/module/counter/parameters/count"


def insert(guest: Guest) -> None:
    """Build the module for the guest's kernel, and load it there."""
    (module,) = guest.build(SOURCES)
    guest.run(f"insmod {guest.put(module)}")


def test_it_counts(guest: Guest) -> None:
    insert(guest)
    guest.run(f"echo 3 >{COUNT}; echo 4 >{COUNT}")
    assert guest.run(f"cat {COUNT}").stdout == "7\n"
    guest.run("rmmod counter")
    assert "counter: gone at 7" in guest.dmesg()


def test_what_is_no_number_is_refused(guest: Guest) -> None:
    insert(guest)
    refused = guest.run(f"echo many >{COUNT}", check=False)
    assert refused.status != 0 and refused.stderr
    assert guest.run(f"cat {COUNT}").stdout == "0\n"


@pytest.mark.lab(splats=True)
def test_it_complains_of_13(guest: Guest) -> None:
    insert(guest)
    guest.run(f"echo 13 >{COUNT}")
    assert "13 is no number" in guest.dmesg()


@pytest.mark.lab(vcpus=4, shared="module")
class TestOnFourProcessors:
    """One guest for both, as long as they run in one process."""

    def test_every_one_counts(self, guest: Guest) -> None:
        insert(guest)
        guest.run(f"for cpu in 0 1 2 3; do taskset -c $cpu sh -c 'echo 1 >{COUNT}'; done")
        assert guest.run(f"cat {COUNT}").stdout == "4\n"

    def test_what_it_has_is_taken_home(self, guest: Guest, tmp_path: Path) -> None:
        assert guest.vcpus == int(guest.run("nproc").stdout)
        guest.run("uname -r >/root/release")
        assert guest.get("/root/release", tmp_path / "release").read_text() == f"{guest.release}\n"
