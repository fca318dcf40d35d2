# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast this host emulates: a small program on QEMU's bare machine, no kernel, no disk, half a second."""

from __future__ import annotations

import logging
import shutil
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab import proc
from lab.deadline import Deadline
from lab.errors import HostError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loop:
    """A program that stores and counts down in a loop, then ends QEMU: emulated code and nothing else."""

    command: tuple[str, ...]
    firmware: bytes
    status: int  # QEMU's exit status when it ran to its end
    reference_s: float  # on a 2 GHz Xeon core, QEMU 7.2


def _words(*words: int) -> bytes:
    return b"".join(struct.pack("<I", word) for word in words)


LOOPS = (
    Loop(
        command=("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57"),
        firmware=_words(
            0xD2A10001,  # movz x1, #0x800, lsl #16
            0xD2A80002,  # movz x2, #0x4000, lsl #16: the start of RAM
            0xF9000041,  # 1: str x1, [x2]
            0xF1000421,  # subs x1, x1, #1
            0x54FFFFC1,  # b.ne 1b
            0x52800100,  # mov w0, #0x8
            0x72B08000,  # movk w0, #0x8400, lsl #16: PSCI SYSTEM_OFF
            0xD4000002,  # hvc #0
        ),
        status=0,
        reference_s=0.45,
    ),
    Loop(
        command=("qemu-system-x86_64", "-machine", "q35", "-device", "isa-debug-exit,iobase=0xf4"),
        # 16-bit code in the last 64 KiB below 4 GiB; the reset vector at its end jumps to it.
        firmware=(
            bytes(0xFF00)
            + b"\x66\xb9\x00\x00\x00\x04"  # mov ecx, 0x4000000
            + b"\x66\x89\x0e\x00\x90"  # 1: mov [0x9000], ecx
            + b"\x66\x49\x75\xf7"  # dec ecx; jnz 1b
            + b"\xb0\x10\xe6\xf4"  # mov al, 0x10; out 0xf4, al: exit with status 0x21
        ).ljust(0xFFF0, b"\xf4")
        + b"\xe9\x0d\xff".ljust(16, b"\0"),  # jmp 0xff00
        status=0x21,
        reference_s=0.35,
    ),
)


def factor() -> float:
    """How many times longer emulated code takes here than on the reference host: the best of three runs."""
    for loop in LOOPS:
        if shutil.which(loop.command[0]) is not None:
            taken = [measure(loop) for _ in range(3)]
            log.debug("%s: %s s, reference %.2f s", loop.command[0], taken, loop.reference_s)
            return min(taken) / loop.reference_s
    raise HostError("no QEMU is installed", hint="run: make setup")


def measure(loop: Loop) -> float:
    """Seconds for one run of a loop, the start of QEMU included."""
    with tempfile.TemporaryDirectory() as folder:
        firmware = Path(folder) / "firmware"
        firmware.write_bytes(loop.firmware)
        started = time.monotonic()
        done = proc.run(
            [*loop.command, "-accel", "tcg", "-nodefaults", "-display", "none", "-bios", firmware],
            deadline=Deadline.after(120),
            check=False,
        )
        taken = time.monotonic() - started
    if done.returncode != loop.status:
        raise HostError(f"{loop.command[0]} failed: {done.stdout.strip()[:200] or 'no output'}")
    return taken
