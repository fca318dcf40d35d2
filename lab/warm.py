# SPDX-License-Identifier: GPL-2.0-or-later
"""Warm states: a guest is booted once per image, machine and QEMU; its memory serves every cell.

A state is a folder in the cache: the overlay that holds disk and memory, the seed it booted with,
and the keys that open it. It is bound to everything its memory depends on by its name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from lab import domain, halt, image, imagebuild, paths, shelf
from lab.deadline import Deadline
from lab.errors import DeadlineError, GuestLost, HypervisorError
from lab.guest import AUTHORIZED_KEYS, EDU_AWAY, Guest, Machine, boot, restore
from lab.rack import Rack
from lab.seed import Keys, seed_tar
from lab.ssh import KeyPair
from lab.untrusted import one_line

log = logging.getLogger(__name__)

PREPARE_S = 60.0
# Multi-threaded emulation of x86 sometimes breaks a kernel while it patches its own code at boot.
BOOTS = 3
_DISK, _SEED, _KEYS, _CONSOLE = "disk.qcow2", "seed.tar", "keys.json", "console.log"


def folder(rack: Rack, machine: Machine) -> Path:
    """Where the warm state of a machine is, or will be."""
    parts = {
        "image": machine.image.digest,
        "disk": json.loads(machine.image.manifest.read_text())["files"][machine.image.disk.name]["sha256"],
        "hardware": asdict(machine.hardware),
        "accel": machine.accel.value,
        "versions": rack.hypervisor.version(),
        "template": domain.template_digest(),
        "source": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    base = f"{machine.image.recipe}-{machine.image.arch.name}"
    return paths.cache_dir() / "warm" / f"{base}-{machine.hardware.name}-{digest}"


def exists(rack: Rack, machine: Machine) -> bool:
    """Whether a machine can be restored without booting it first."""
    return folder(rack, machine).is_dir()


@contextmanager
def start(
    rack: Rack,
    machine: Machine,
    *,
    console_log: Path,
    watch: Callable[[bytes], str | None] = lambda _data: None,
    cold: bool = False,
    progress: Callable[[str], None] = lambda _text: None,
) -> Iterator[Guest]:
    """A guest of this machine: restored from its warm state (made when there is none), or booted with `cold`.

    A state that does not come back is thrown away and made again, once.
    """
    with ExitStack() as stack:
        if cold:
            progress("boot")
            guest = stack.enter_context(boot(rack, machine, console_log=console_log, watch=watch))
        else:
            state = ensure(rack, machine, progress=progress)
            try:
                guest = stack.enter_context(_restore(rack, machine, state, console_log, watch))
            except (HypervisorError, DeadlineError, GuestLost) as e:
                halt.check()  # ended from outside: the state is good
                log.warning("warm state %s does not come back (%s): making it again", state.name, e)
                shutil.rmtree(state, ignore_errors=True)
                state = ensure(rack, machine, progress=progress)
                guest = stack.enter_context(_restore(rack, machine, state, console_log, watch))
        yield guest


def ensure(rack: Rack, machine: Machine, *, progress: Callable[[str], None] = lambda _text: None) -> Path:
    """The folder of a warm state, made by booting the machine once; two labs at once make it once."""
    state = folder(rack, machine)
    if state.is_dir():
        shelf.touch(state)
        return state
    with shelf.locked(state, waiting=lambda: imagebuild.waiting(progress, state.name)):
        if not state.is_dir():
            for left in reversed(range(BOOTS)):
                progress("boot")
                try:
                    with paths.folder_whole(state) as work:
                        _make(rack, machine, work)
                    break
                except (DeadlineError, GuestLost) as e:
                    halt.check()
                    if not left:
                        raise
                    log.warning("%s did not boot (%s): trying again", state.name, e)
    return state


def gc(busy_s: float) -> list[str]:
    """Remove states of images that no recipe makes any more, and those unused for long; see `shelf.sweep`."""
    wanted = image.wanted()

    def dropped(state: Path) -> bool:
        try:
            return json.loads((state / _KEYS).read_text())["image"] not in wanted or shelf.stale(state)
        except (OSError, ValueError, KeyError, TypeError):
            return True

    return shelf.sweep(paths.cache_dir() / "warm", dropped=dropped, busy_s=busy_s)


def _make(rack: Rack, machine: Machine, work: Path) -> None:
    client, host = KeyPair.new(), KeyPair.new()
    log.info("booting %s once for its warm state", work.name)
    with boot(rack, machine, console_log=work / _CONSOLE, overlay=work / _DISK, keys=(client, host)) as guest:
        # What every restored guest runs first is in its page cache then.
        done = guest.run(
            f"{EDU_AWAY}; busybox date >/dev/null; tar --version >/dev/null; head -c 0 {AUTHORIZED_KEYS}; sync; "
            "cat /proc/sys/kernel/tainted",
            deadline=Deadline.after(PREPARE_S * rack.scale),
        )
        if one_line(done.stdout) != "0":
            raise GuestLost(f"its kernel is tainted ({one_line(done.stdout, 20)}) before anything ran in it")
        guest.rack.hypervisor.save_warm(guest.name)
        where = guest.text
    (work / _SEED).write_bytes(seed_tar(client, host, hostname="warm"))
    facts = {"client": asdict(client), "host": host.public, "image": machine.image.folder.name, "stext": where}
    paths.write_whole(work / _KEYS, json.dumps(facts))
    (work / _KEYS).chmod(0o600)


@contextmanager
def _restore(
    rack: Rack, machine: Machine, state: Path, console_log: Path, watch: Callable[[bytes], str | None]
) -> Iterator[Guest]:
    try:
        text = json.loads((state / _KEYS).read_text())
        keys = Keys(client=KeyPair(**text["client"]), host=text["host"])
        where = text["stext"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise HypervisorError(f"{state / _KEYS} is not readable") from e
    disk, seed = state / _DISK, state / _SEED
    with restore(
        rack, machine, saved=disk, seed=seed, keys=keys, text=where, console_log=console_log, watch=watch
    ) as guest:
        yield guest
